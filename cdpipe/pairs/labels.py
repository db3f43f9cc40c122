"""Labels: rasters or polygons that say what changed, as 0 (unchanged), 1 (changed), 255 (ignore)."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config, Input, Label
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, describe_dataset, grid_of, open_raster, read_values
from cdpipe.formats.polygons import burn_polygons, is_vector, read_polygons
from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.metrics.classes import CHANGED, IGNORE, UNCHANGED
from cdpipe.workspace.location import Location

Classes = NDArray[np.uint8]  # 0, 1 and 255


def read_label(label: Location, grid: Grid, window: Window, config: Config) -> Classes:
    """Read a window of a label on the pair's grid.

    A raster is mapped by ``config.label`` and taken from the nearest pixel; its nodata tag and what lies
    outside of it mean 255. In a vector file, pixels whose centre lies in a polygon changed, all others did
    not. The same pixel comes out the same whatever the window.

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
        return _burn(label, grid, window, config.input)
    with open_raster(label, config.input) as dataset:
        info = _one_band(label, dataset)
        nodata = dataset.nodatavals[0]

        def read(part: Window) -> Pixels:
            mapped = map_label(read_values(dataset, label, [1], part), config.label, nodata, label)
            return mapped, mapped[0] != IGNORE

        raster = WarpSource(str(label), grid_of(info, grid, "'before'"), 1, np.uint8, read)
        values, present = read_warped(raster, grid, window, "nearest")
    return np.where(present, values[0], np.uint8(IGNORE))


def map_label(values: NDArray[Any], meaning: Label, nodata: float | None, label: Location) -> Classes:
    """Map a label's raw values, of any shape, to 0, 1 and 255 of that shape; see :func:`read_label`.

    Raises:
        InputError: Naming the values that have no meaning.
    """
    mapped = np.full(values.shape, IGNORE, np.uint8)
    mapped[np.isin(values, meaning.changed)] = CHANGED
    mapped[np.isin(values, meaning.unchanged)] = UNCHANGED
    unknown = (mapped == IGNORE) & ~np.isin(values, meaning.ignore) & np.isfinite(values)
    if nodata is not None:
        unknown &= values != nodata
    if unknown.any():
        raise InputError(undeclared(label, np.unique(values[unknown]).tolist(), meaning))
    return mapped


def undeclared(label: Location, values: list[float], meaning: Label) -> str:
    """The message for values that have no meaning."""
    shown = ", ".join(f"{value:g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")
    lists = (f"{name} {list(getattr(meaning, name))}" for name in ("changed", "unchanged", "ignore"))
    return f"{label}: value(s) {shown} are in none of label: {', '.join(lists)}"


def label_values(label: Location, config: Config) -> dict[float, int]:
    """Count the raw values of a label raster, all of it; NaN is not counted.

    Raises:
        InputError: If the file is missing, damaged or has several bands.
    """
    counts = Counter[float]()
    with open_raster(label, config.input) as dataset:
        info = _one_band(label, dataset)
        for part in tiles_in(Window(0, 0, *info.grid.shape), 4 * TILE):
            values = read_values(dataset, label, [1], part)
            distinct, times = np.unique(values[np.isfinite(values)], return_counts=True)
            counts.update(dict(zip(distinct.tolist(), times.tolist(), strict=True)))
    return dict(counts)


def _one_band(label: Location, dataset: Any) -> RasterInfo:
    info = describe_dataset(label, dataset)
    if info.count != 1:
        raise InputError(f"{label}: expected one band in a label, got {info.count}")
    return info


def _burn(label: Location, grid: Grid, window: Window, settings: Input) -> Classes:
    """Burn polygons in whole tiles, so that rounding does not depend on the window."""
    burnt = np.zeros(window.shape, np.uint8)
    polygons = read_polygons(label, grid.crop(window), settings)
    for part in tiles_in(window, TILE) if len(polygons) else ():
        tile = Window(part.row // TILE * TILE, part.col // TILE * TILE, TILE, TILE)
        burnt[part.slices_in(window)] = burn_polygons(polygons, grid.crop(tile))[part.slices_in(tile)]
    return burnt
