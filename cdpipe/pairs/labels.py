"""Labels: rasters or polygons that say what changed, as 0 (unchanged), 1 (changed), 255 (ignore)."""

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.formats.placement import require_placed
from cdpipe.formats.polygons import burn_polygons, open_layer, read_polygons
from cdpipe.formats.vector_gate import is_vector
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import CELL, TILE, tiles_in
from cdpipe.metrics.classes import CHANGED, IGNORE
from cdpipe.pairs.label_rasters import Classes, read_label_raster
from cdpipe.workspace.location import Location


def read_label(label: Location, grid: Grid, window: Window, config: Config) -> Classes:
    """Read a window of a label on the pair's grid.

    A raster's values and colours are mapped by ``config.label`` and taken from the nearest pixel; what is transparent,
    its nodata tag and what lies outside of it mean 255. In a vector file, pixels whose centre lies in a polygon
    changed, all others did not. The same pixel comes out the same whatever the window.

    Args:
        label: A raster, by its own georeference or else of the pair's size; or a file of polygons.
        grid: The pair's grid.
        window: Pixels of ``grid``.
        config: Its sections ``input`` and ``label``.

    Returns:
        (height, width) of 0, 1 and 255.

    Raises:
        InputError: If the file is missing, damaged, does not fit, or has a value that has no meaning.
    """
    if is_vector(label):
        return _burn(label, grid, window, config)
    return read_label_raster(label, grid, window, config)


def _burn(label: Location, grid: Grid, window: Window, config: Config) -> Classes:
    """Burn polygons in whole tiles, so that rounding does not depend on the window; ignored ones over the others."""
    burnt = np.zeros(window.shape, np.uint8)
    layer = open_layer(label, config)
    require_placed(layer, grid, config.label.covers)
    for polygons, value in zip(read_polygons(layer, grid.crop(window)), (CHANGED, IGNORE), strict=True):
        for part in tiles_in(window, TILE) if len(polygons) else ():
            tile = Window(part.row // TILE * TILE, part.col // TILE * TILE, TILE, TILE)
            inside = burn_polygons(polygons, grid.crop(tile))[part.slices_in(tile)]
            burnt[part.slices_in(window)][inside == 1] = value
    return burnt


def count_cells(mask: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Number of True pixels in each cell; the first cell begins at the first pixel."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % CELL), (0, -width % CELL)))
    rows, cols = padded.shape[0] // CELL, padded.shape[1] // CELL
    return np.asarray(padded.reshape(rows, CELL, cols, CELL).sum(axis=(1, 3)), np.uint16)
