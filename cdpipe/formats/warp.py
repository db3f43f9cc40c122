"""Brings rasters onto a pair's grid, in fixed tiles: no pixel depends on the window that was asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from cdpipe.errors import InputError
from cdpipe.geo.crs import crs_name, on_earth, pixel_ratio, project_positions
from cdpipe.geo.grid import Floats, Grid, Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.geo.turns import for_gdal, meeting_turns, turned

# Within one call GDAL follows a curved transform to 0.125 px only. What it misses shrinks with the square of
# the tile's side: up to 0.1 px at 512, 0.04 px at 256 in the same time, 0.01 px at 128 in twice the time.
CURVED_TILE = 256
FINE_RATIO = 4  # source pixels for a pixel, each way, above which larger tiles would need too much memory
MAX_SOURCE_PIXELS = 2**24  # of one tile's part of the source: 15 source pixels for a pixel, each way
SMOOTH_RATIO = 1.5  # above which a pixel averages what it spans; below, its neighbours span that anyway
NODES = 9  # points along a tile's side whose places in the source are computed

# of plain pixel coordinates, which GDAL wants a name for
PLAIN = 'LOCAL_CS["pixels",UNIT["pixel",1],AXIS["column",EAST],AXIS["row",SOUTH]]'

Pixels = tuple[NDArray[Any], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class WarpSource:
    """A raster to bring onto a grid.

    Attributes:
        name: What to call it in errors.
        grid: Its own pixels.
        count: Number of bands.
        dtype: Type of its values.
        read: Reads a window: values (band, height, width), and (height, width) whether there is data.
    """

    name: str
    grid: Grid
    count: int
    dtype: DTypeLike
    read: Callable[[Window], Pixels]


@dataclass(frozen=True, slots=True)
class _Part:
    """A tile's part of the source; ``inside``: the source surrounds the tile on all sides."""

    window: Window
    inside: bool


def read_warped(source: WarpSource, grid: Grid, window: Window, resampling: str) -> Pixels:
    """Read the pixels of a window of a grid, resampled if the raster's own pixels are others.

    Resampling happens in whole tiles that are anchored at the grid's origin. The nearest source pixel
    decides whether there is data; pixels without data have no part in the interpolation of others.

    Args:
        source: The raster.
        grid: The grid to bring it onto.
        window: Pixels of ``grid``.
        resampling: "nearest", "bilinear" or "cubic"; the last two average where the raster is finer.

    Returns:
        Values (band, height, width) in the raster's type, 0 where there is no data; and (height, width),
        True where there is data.

    Raises:
        InputError: If the raster cannot be brought onto the grid.
    """
    _require_common(source, grid)
    if source.grid.crs != grid.crs:
        return _read_turned(source, grid, window, resampling)
    # around the Earth, a grid in degrees may lie on the same one as it is counted, and on its other end
    first, *others = (
        _read_turned(replace(source, grid=turned(source.grid, turns)), grid, window, resampling)
        for turns in meeting_turns(source.grid, grid)
    )
    values, present = first
    for more, seen in others:
        fresh = seen & ~present
        values[:, fresh], present = more[:, fresh], present | seen
    return values, present


def _read_turned(source: WarpSource, grid: Grid, window: Window, resampling: str) -> Pixels:
    if source.grid.same_pixels(grid):
        values, present = source.read(window)
        values[:, ~present] = 0
        return values, present
    values = np.zeros((source.count, *window.shape), source.dtype)
    present = np.zeros(window.shape, np.bool_)
    ratio = pixel_ratio(source.grid, grid)
    large = source.grid.crs == grid.crs and max(ratio) <= FINE_RATIO
    tiles = _whole_tiles(window, TILE if large else CURVED_TILE)
    for tile, part in zip(tiles, _source_parts(source, grid, tiles, ratio), strict=True):
        common = tile.intersect(window)
        if part is None or common is None:
            continue
        tile_values, tile_present = _warp_tile(source, part, grid.crop(tile), resampling, ratio)
        to, of = common.slices_in(window), common.slices_in(tile)
        values[:, *to], present[to] = tile_values[:, *of], tile_present[of]
    return values, present


def _require_common(source: WarpSource, grid: Grid) -> None:
    own = source.grid
    if not own.placed and grid.crs is None:  # pixel coordinates; the pair's may have been moved
        if own.shape != grid.shape:
            got, expected = (f"{each.width} x {each.height} px" for each in (own, grid))
            raise InputError(
                f"{source.name}: {got} without georeference; expected {expected}, the size of the pair's grid"
            )
    elif own.placed != grid.placed:
        without, other = ("it", "the pair's grid") if grid.placed else ("the pair's grid", "it")
        raise InputError(f"{source.name}: {without} has no georeference but {other} has; expected both or neither")
    elif own.crs != grid.crs and not (on_earth(own.crs) and on_earth(grid.crs)):
        raise InputError(
            f"{source.name}: its CRS is {crs_name(own.crs)}, the pair's {crs_name(grid.crs)}; "
            "expected two of the Earth, or the same"
        )


def _whole_tiles(window: Window, side: int) -> list[Window]:
    """The tiles that a window touches, also where they reach beyond the scene."""
    corners = ((part.row // side * side, part.col // side * side) for part in tiles_in(window, side))
    return [Window(row, col, side, side) for row, col in corners]


def _source_parts(
    source: WarpSource, grid: Grid, tiles: list[Window], ratio: tuple[float, float]
) -> list[_Part | None]:
    """What each tile needs of the source, None where it needs nothing."""
    steps = np.linspace(0, tiles[0].height, NODES)
    origins = np.array([[tile.row, tile.col] for tile in tiles], np.float64)
    rows, cols = np.broadcast_arrays(
        origins[:, 0, None, None] + steps[:, None], origins[:, 1, None, None] + steps[None, :]
    )
    places = np.stack(project_positions(grid, source.grid, rows, cols), -1)
    return [_source_part(source, place.reshape(-1, 2), ratio) for place in places]


def _source_part(source: WarpSource, places: Floats, ratio: tuple[float, float]) -> _Part | None:
    known = places[np.isfinite(places).all(1)]
    if not known.size:
        return None
    # what the widest kernel reads around a place, and how far a curve may leave the nodes
    margins = 2 + np.ceil(2 * np.fmax(1, ratio))
    starts, stops = np.floor(known.min(0)) - margins, np.ceil(known.max(0)) + margins
    top, left = np.fmax(starts, 0)
    bottom, right = np.fmin(stops, source.grid.shape)
    if top >= bottom or left >= right:
        return None
    window = Window(int(top), int(left), int(bottom - top), int(right - left))
    if window.height * window.width > MAX_SOURCE_PIXELS:
        raise InputError(
            f"{source.name}: {window.width} x {window.height} of its pixels lie on one tile of the pair's "
            "grid; expected pixels of a similar size: resample it first"
        )
    inside = len(known) == len(places) and (starts >= 0).all() and (stops <= source.grid.shape).all()
    return _Part(window, bool(inside))


def _warp_tile(source: WarpSource, part: _Part, target: Grid, resampling: str, ratio: tuple[float, float]) -> Pixels:
    values, present = source.read(part.window)
    warped = np.zeros((source.count, *target.shape), source.dtype)
    warped_present = np.zeros(target.shape, np.uint8)
    whole = bool(present.all())
    if not present.any():
        return warped, warped_present == 1
    grids = source.grid.crop(part.window), target
    if whole and part.inside:
        warped_present[:] = 1
    else:
        _reproject(present.astype(np.uint8), warped_present, grids, "nearest", ratio)
    if whole or resampling == "nearest":
        _reproject(values, warped, grids, resampling, ratio)
    else:
        warped = _reproject_with_holes(values, present, grids, resampling, ratio)
    warped[:, warped_present == 0] = 0
    return warped, warped_present == 1


def _reproject_with_holes(
    values: NDArray[Any],
    present: NDArray[np.bool_],
    grids: tuple[Grid, Grid],
    resampling: str,
    ratio: tuple[float, float],
) -> NDArray[Any]:
    """Resample by way of floating point, in which NaN marks what has no part in any result."""
    exact = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    smooth = np.full((len(values), *grids[1].shape), np.nan, exact)
    _reproject(np.where(present, values, exact(np.nan)), smooth, grids, resampling, ratio)
    smooth[~np.isfinite(smooth)] = 0
    if values.dtype.kind != "f":
        limits = np.iinfo(values.dtype)
        smooth = np.rint(smooth).clip(limits.min, limits.max)
    return np.asarray(smooth, values.dtype)


def _reproject(
    values: NDArray[Any],
    out: NDArray[Any],
    grids: tuple[Grid, Grid],
    resampling: str,
    ratio: tuple[float, float],
) -> None:
    """Resample ``values`` into ``out``, which lie on the first and the second of ``grids``."""
    source, target = grids if grids[0].crs == grids[1].crs else map(for_gdal, grids)
    nodata = math.nan if out.dtype.kind == "f" else None
    # GDAL would estimate the scales from each tile alone, and wrongly where a tile hangs over the edge
    scales = {
        axis: 1 / spanned if spanned > SMOOTH_RATIO else 1.0
        for axis, spanned in zip(("YSCALE", "XSCALE"), ratio, strict=True)
    }
    reproject(
        values,
        out,
        src_transform=Affine(*source.transform),
        src_crs=CRS.from_wkt(source.crs or PLAIN),
        src_nodata=nodata,
        dst_transform=Affine(*target.transform),
        dst_crs=CRS.from_wkt(target.crs or PLAIN),
        dst_nodata=nodata,
        resampling=Resampling[resampling],
        **scales,
    )
