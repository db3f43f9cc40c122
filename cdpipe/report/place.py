"""Where a pair lies, as its page tells it: its coordinate system, its corners, degrees of any pixel, its true shape."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.geo.crs import WGS84, crs_name, on_earth, transform_by_proj
from cdpipe.geo.grid import Floats, Grid
from cdpipe.geo.ground import DEGREE_METRES, has_areas, pixel_steps

NODES = (2, 3, 5, 9, 17, 33, 65)  # along a side, between which a page interpolates
CLOSE = 0.05  # pixels that interpolated degrees are off at most, as far as the last of these can do
DECIMALS = 8  # of degrees: a millimetre
FLATTEST = 8.0  # times as high as wide, or as wide as high, that pixels are shown at most: near a pole there is no end


def describe_ground(grid: Grid) -> dict[str, float | None]:
    """How a pixel lies on the ground at the scene's centre.

    Returns:
        ``pixel_m``, its width in metres, and ``north``, degrees clockwise from up, both None where it lies nowhere on
        the Earth; ``aspect``, its height for each width.
    """
    steps = pixel_steps(grid, grid.height / 2, grid.width / 2)
    down, right = np.hypot(*steps.T)
    aspect = float(np.clip(down / right, 1 / FLATTEST, FLATTEST))
    if not on_earth(grid.crs):
        return {"pixel_m": None, "north": None, "aspect": round(aspect, 4)}
    rows, cols = np.linalg.solve(steps.T, (0.0, 1.0))  # how many rows and columns lead north
    angle = np.degrees(np.arctan2(cols, -rows))
    return {"pixel_m": float(right), "north": round(float(angle), 1) + 0.0, "aspect": round(aspect, 4)}  # no -0.0


def ground_aspect(grid: Grid | None) -> float:
    """A pixel's height for each width, on the ground at the scene's centre; 1 where that is not known."""
    try:
        return 1.0 if grid is None else describe_ground(grid)["aspect"] or 1.0
    except InputError:  # its centre has no place on the Earth
        return 1.0


def describe_place(grid: Grid) -> dict[str, Any]:
    """Where pixels lie, for a page that has no projections.

    Returns:
        ``transform`` and ``crs`` (a short name) where it is placed at all; on the Earth also ``nodes``, rows of
        longitudes and latitudes of WGS 84 at equal distances over the whole grid, ``corners`` (upper left, upper right,
        lower right, lower left) and ``centre``. Longitudes do not leap: they may go beyond 180.
    """
    if not grid.placed:
        return {}
    told = {"transform": list(grid.transform), "crs": crs_name(grid.crs)}
    degrees = _interpolated(grid) if on_earth(grid.crs) else None
    if degrees is None:
        return told
    points = degrees.round(DECIMALS) + 0.0
    corners = [points[row, col].tolist() for row, col in ((0, 0), (0, -1), (-1, -1), (-1, 0))]
    middle = len(points) // 2
    centre = points[middle, middle] if len(points) > 2 else points.mean((0, 1)).round(DECIMALS)
    return {**told, "nodes": points.tolist(), "corners": corners, "centre": centre.tolist()}


def _interpolated(grid: Grid) -> Floats | None:
    """(n, n, 2) longitudes and latitudes, as many as are needed; None where part of the grid has none."""
    pixel_m = np.hypot(*pixel_steps(grid, grid.height / 2, grid.width / 2)[1]) if has_areas(grid) else 1.0
    points = np.empty((0, 0, 2))
    for nodes in NODES:
        points = _degrees(grid, nodes)
        finer = _degrees(grid, 2 * nodes - 1)
        if not np.isfinite(finer).all():
            return None
        off = between(points) - finer
        metres = np.hypot(off[..., 0] * np.cos(np.radians(finer[..., 1])), off[..., 1]) * DEGREE_METRES
        if metres.max() <= CLOSE * pixel_m:
            break
    return points


def between(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n, 2) nodes with those half way between, (2 n - 1, 2 n - 1, 2): bilinear, as a page has them."""
    rows = np.repeat(points, 2, axis=0)[:-1]
    rows[1::2] = (points[:-1] + points[1:]) / 2
    cols = np.repeat(rows, 2, axis=1)[:, :-1]
    cols[:, 1::2] = (rows[:, :-1] + rows[:, 1:]) / 2
    return cols


def _degrees(grid: Grid, nodes: int) -> Floats:
    rows, cols = grid.nodes(nodes)
    x, y = grid.xy(rows.ravel(), cols.ravel())
    lon, lat = transform_by_proj(str(grid.crs), WGS84, x, y)
    with np.errstate(invalid="ignore"):
        lon = lon - 360 * np.round((lon - lon[len(lon) // 2]) / 360)
    return np.stack([lon, lat], 1).reshape(nodes, nodes, 2)
