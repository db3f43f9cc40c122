"""Once around the Earth: the same place has many x where x is a longitude, or counts on like one.

Grids on either side of the antimeridian are laid over each other by counting their x as the other's. Coordinates stay
what they are away from it, to the last bit.
"""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyproj
from pyproj import Transformer

from cdpipe.geo.grid import Floats, Grid

# Projections whose x is a multiple of the longitude (Snyder 1987, p. 37 to 90), by how EPSG's names of them begin
CYLINDRICAL = ("Popular Visualisation Pseudo", "Mercator (", "Equidistant Cylindrical", "Lambert Cylindrical Equal")


@lru_cache(maxsize=256)
def full_turn(crs: str | None) -> float | None:
    """How many units of a coordinate system go around the Earth, 360 for degrees; None if its x is no longitude."""
    if crs is None:
        return None
    known = pyproj.CRS.from_user_input(crs)
    return 2 * math.pi / known.axis_info[0].unit_conversion_factor if known.is_geographic else None


@lru_cache(maxsize=256)
def period(crs: str | None) -> float | None:
    """After how many units of x a place of a CRS comes again, 360 in degrees; None where it never does."""
    if crs is None:
        return None
    try:
        turn = full_turn(crs)
        if turn is not None:
            return round(turn, 9)  # units have 15 digits
        known = pyproj.CRS.from_wkt(crs)
        operation = known.coordinate_operation
        if operation is None or not operation.method_name.startswith(CYLINDRICAL) or known.geodetic_crs is None:
            return None
        degrees = known.geodetic_crs
        turn = 2 * math.pi / degrees.axis_info[0].unit_conversion_factor
        steps = np.array([0.0, turn / 4, turn / 2])  # one of them may be where x leaps
        way = Transformer.from_crs(degrees, known, always_xy=True)
        x, _ = way.transform(np.stack([steps, steps + turn / 360]), np.zeros((2, 3)))
        return float(np.median(np.abs(x[1] - x[0])) * 360)
    except (pyproj.exceptions.CRSError, pyproj.exceptions.ProjError):
        return None


def counted_near(x: Floats, middle: float, crs: str | None) -> Floats:
    """The x of places of a CRS, each less than half a turn from a middle."""
    turn = period(crs)
    if turn is None or not math.isfinite(middle):
        return x
    with np.errstate(invalid="ignore"):
        turns = np.round((x - middle) / turn)
        return np.where(turns == 0, x, x - turn * turns) if turns.any() else x


def turned(grid: Grid, turns: int) -> Grid:
    """The same pixels with their x counted so many turns on."""
    turn = period(grid.crs)
    if not turns or turn is None:
        return grid
    a, b, c, d, e, f = grid.transform
    return replace(grid, transform=(a, b, c + turns * turn, d, e, f))


def meeting_turns(grid: Grid, other: Grid) -> list[int]:
    """How often a grid is to be turned to lie on another of its CRS, the way that covers most of it first.

    One way for all but grids that go around the Earth; 0 where they do not meet at all.
    """
    turn = period(grid.crs)
    if turn is None:
        return [0]
    (low, high), (least, most) = x_range(grid), x_range(other)
    nearest = round(((least + most) / 2 - (low + high) / 2) / turn)
    shared = {
        turns: min(high + turns * turn, most) - max(low + turns * turn, least)
        for turns in (nearest, nearest - 1, nearest + 1)
    }
    return sorted((turns for turns, width in shared.items() if width > 0), key=lambda turns: -shared[turns]) or [0]


def for_gdal(grid: Grid) -> Grid:
    """The same pixels as GDAL can warp them to and from another CRS: none of them behind its edge of the world.

    GDAL turns what comes in degrees to the middle of a grid, once. The x of a projection it takes as it comes, from
    one edge of the world to the other: a grid across these is described in the projection about the other side.
    """
    turn = period(grid.crs)
    if turn is None or grid.crs is None:
        return grid
    low, high = x_range(grid)
    near = turned(grid, -round((low + high) / 2 / turn))
    other = _about_the_other_side(grid.crs)
    if other is None or high - low >= turn:
        return near
    crs, middle = other
    low, high = x_range(near)
    if max(high - middle, middle - low) <= turn / 2:
        return near
    if high < middle:
        near = turned(near, 1)
    a, b, c, d, e, f = near.transform
    return Grid(grid.height, grid.width, (a, b, c - turn / 2, d, e, f), crs)


@lru_cache(maxsize=256)
def _about_the_other_side(crs: str) -> tuple[str, float] | None:
    """A cylindrical projection with its middle half a turn further, and the x of its own; None for degrees."""
    known = pyproj.CRS.from_wkt(crs)
    if known.is_geographic or known.coordinate_operation is None:
        return None
    described = known.to_json_dict()
    described.pop("id", None)
    described["name"] = described["conversion"]["name"] = "about the other side"  # GDAL knows some by name
    middle = 0.0
    for parameter in described["conversion"]["parameters"]:
        if parameter["name"].startswith("Longitude of"):
            if parameter["unit"] != "degree":
                return None
            parameter["value"] += 180
        elif parameter["name"] in ("False easting", "Easting at false origin"):
            middle = float(parameter["value"])
    return pyproj.CRS.from_json_dict(described).to_wkt(), middle


def x_range(grid: Grid) -> tuple[float, float]:
    """Least and greatest x of a grid."""
    x, _ = grid.xy(*grid.outline(2))
    return float(x.min()), float(x.max())
