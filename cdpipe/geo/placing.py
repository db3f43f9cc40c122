"""Shapes of another coordinate system on a grid: where to look for them, and their outlines in its coordinates.

Longitudes know no end: 181 and -179 degrees are one place, whichever of both a grid or a file has.
"""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cdpipe.geo.crs import transform_by_gdal
from cdpipe.geo.grid import Floats, Grid
from cdpipe.geo.shapes import transform_shapes
from cdpipe.geo.turns import full_turn, x_range

NODES = 33  # points along a side of a grid by which its place in other coordinates is told
ROOM = 0.01  # of its sides, around what surrounds a grid
GAP = 1 / 6  # of a turn: a scene that leaves less open goes all around

Box = tuple[float, float, float, float]  # least x and y, greatest x and y


def grid_nodes(grid: Grid, crs: str | None) -> tuple[Floats, Floats]:
    """Points all over a grid in other coordinates, x and y of (points,); longitudes without a leap, inf where none."""
    x, y = (values.ravel() for values in grid.xy(*grid.nodes(NODES)))
    if grid.crs is None or crs is None or grid.crs == crs:
        return x, y
    x, y = transform_by_gdal(grid.crs, crs, x, y)
    turn = full_turn(crs)
    if turn and np.isfinite(x).all():
        around = np.sort(x % turn)
        gaps = np.diff(around, append=around[0] + turn)
        start = around[(np.argmax(gaps) + 1) % len(around)]
        first = start - turn * round(start / turn)
        x = first + (x - first) % turn
    return x, y


def grid_extent(grid: Grid, crs: str | None) -> Box | None:
    """What surrounds a grid in other coordinates, exactly; None where that cannot be told."""
    x, y = grid_nodes(grid, crs)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    west, south, east, north = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    turn = full_turn(crs)
    if turn and grid.crs != crs and east - west > (1 - GAP) * turn:
        west, east = -turn / 2, turn / 2
        poles = {sign for sign in (-1, 1) if _has_pole(grid, str(crs), sign * turn / 4)}
        south, north = -turn / 4 if -1 in poles else south, turn / 4 if 1 in poles else north
    return west, south, east, north


def _has_pole(grid: Grid, crs: str, latitude: float) -> bool:
    x, y = transform_by_gdal(crs, str(grid.crs), np.zeros(1), np.full(1, latitude))
    with np.errstate(invalid="ignore"):
        rows, cols = grid.row_col(x, y)
    return bool(0 <= rows[0] <= grid.height and 0 <= cols[0] <= grid.width)


def search_boxes(grid: Grid, crs: str | None, bounds: Box | None) -> list[Box | None]:
    """Boxes that surround a grid in other coordinates with some room, one for each way to count longitudes.

    Args:
        grid: The grid.
        crs: WKT of the other coordinates, None for those of the grid.
        bounds: Of all that is there, where that is known.

    Returns:
        None stands for everything, where no box can be told.
    """
    extent = grid_extent(grid, crs)
    if extent is None:
        return [None]
    west, south, east, north = extent
    room_x, room_y = ROOM * (east - west), ROOM * (north - south)
    box = (west - room_x, south - room_y, east + room_x, north + room_y)
    turn, boxes = full_turn(crs), [box]
    if turn and bounds is not None:
        turns = [(box[0] + turn * k, box[1], box[2] + turn * k, box[3]) for k in (-2, -1, 1, 2)]
        boxes += [other for other in turns if other[0] <= bounds[2] and other[2] >= bounds[0]]
    return [*boxes]


def place_shapes(shapes: NDArray[Any], of: str | None, grid: Grid) -> NDArray[Any]:
    """Polygons in a grid's coordinates, as GDAL has them; what crosses the antimeridian lies on both of its sides.

    Args:
        shapes: (polygons,) of Shapely.
        of: WKT of their coordinates; None for those of the grid.
        grid: The grid.

    Returns:
        (polygons,), some of them more than once where the grid's coordinates are longitudes; inf where there are none.
    """
    if not len(shapes):
        return shapes
    turn = full_turn(of)
    shapes = without_leaps(shapes, turn) if turn else shapes
    if of is not None and grid.crs is not None and of != grid.crs:
        shapes = np.asarray(transform_shapes(shapes, of, grid.crs))
    turn = full_turn(grid.crs)
    if not turn or not np.isfinite(shapely.get_coordinates(shapes)).all():
        return shapes
    return _repeated(without_leaps(shapes, turn), turn, *x_range(grid))


def _repeated(shapes: NDArray[Any], turn: float, least: float, greatest: float) -> NDArray[Any]:
    """Shapes as often as they meet a range of x, each a number of turns further; all of them at least once."""
    bounds = shapely.bounds(shapes)
    meets = {k: (bounds[:, 0] + k * turn <= greatest) & (bounds[:, 2] + k * turn >= least) for k in (-2, -1, 0, 1, 2)}
    meets[0] |= ~np.any([*meets.values()], axis=0)
    found = []
    for k, chosen in meets.items():
        if chosen.any():
            step = np.array([k * turn, 0.0])
            found.append(shapely.transform(shapes[chosen], lambda xy, step=step: xy + step) if k else shapes[chosen])
    return np.concatenate(found)


def without_leaps(shapes: NDArray[Any], turn: float) -> NDArray[Any]:
    """Polygons whose longitudes do not leap from one end of the world to the other, but go on beyond it.

    A side as long as half a turn is such a leap; one all around is what it says.
    """
    points, of = shapely.get_coordinates(shapes, return_index=True)
    steps = np.abs(np.diff(points[:, 0]))
    leaps = (of[1:] == of[:-1]) & (steps > turn / 2) & (steps < turn * (1 - 1e-12))
    if not leaps.any():
        return shapes
    some = np.isin(of, of[1:][leaps])
    first = points[np.searchsorted(of, np.arange(len(shapes)))][of, 0]
    points[some, 0] -= turn * np.round((points[some, 0] - first[some]) / turn)
    return np.asarray(shapely.set_coordinates(shapes.copy(), points))
