"""Metres and square metres on the ground, whatever the coordinate reference system."""

import math
from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.crs import CRS

from cdpipe.errors import InputError
from cdpipe.geo.crs import WGS84, on_earth, plane_unit, transform_by_proj
from cdpipe.geo.grid import Floats, Grid

Numbers = NDArray[np.int64]

DEGREE_METRES = 111_195  # of a great circle of the mean Earth
STRIP_ROWS = 64  # rows whose pixels are given one area: at 60 degrees and 10 m pixels they differ by 0.01 %
STRIP_POINTS = 17  # along the edges of such a strip, which are seldom geodesics


# A pixel has three sizes: `Grid.pixel_size`, in units of its map; the same in metres, which people know it by ("10 m",
# in the web's Mercator too); and what it truly takes on the ground, which differs from place to place.


def pixel_metres(grid: Grid) -> tuple[float, float] | None:
    """Width and height in metres that a pixel is known by (1 % off in degrees); None without a CRS that tells it."""
    if grid.crs is None:
        return None
    if not on_earth(grid.crs):
        unit = plane_unit(grid.crs)
        return None if unit is None else (grid.pixel_size[0] * unit, grid.pixel_size[1] * unit)
    crs = CRS.from_wkt(grid.crs)
    width, height = grid.pixel_size
    if not crs.is_geographic:
        metres = crs.linear_units_factor[1]
        return width * metres, height * metres
    _, latitude = grid.xy(grid.height / 2, grid.width / 2)
    return width * DEGREE_METRES * math.cos(math.radians(latitude)), height * DEGREE_METRES


def has_areas(grid: Grid) -> bool:
    """Whether its pixels have areas in square metres: on the Earth, or in a plane whose unit is a length."""
    return on_earth(grid.crs) or plane_unit(grid.crs) is not None


def pixel_steps(grid: Grid, row: float, col: float) -> Floats:
    """What a step of one row and of one column takes on the ground.

    Args:
        grid: The grid.
        row: Where, in pixels.
        col: Likewise.

    Returns:
        (2, 2): metres east and north of each, in a plane along its x and y; without metres pixels right and down.

    Raises:
        InputError: If it has no place on the Earth.
    """
    if not has_areas(grid):
        return np.array([[0.0, 1.0], [1.0, 0.0]])
    if not on_earth(grid.crs):
        a, b, _, d, e, _ = grid.transform
        return np.array([[b, e], [a, d]]) * (plane_unit(grid.crs) or 1.0)
    geod, degrees = _geodesy(grid.crs)
    rows, cols = np.array([row, row, row + 1, row]), np.array([col, col, col, col + 1])
    lon, lat = _require_finite(grid, degrees.transform(*grid.xy(rows, cols)))
    # both from one point: near a pole the next pixel's north lies elsewhere
    azimuth, _, metres = geod.inv(lon[:2], lat[:2], lon[2:], lat[2:])
    angle = np.radians(azimuth)
    return np.stack([metres * np.sin(angle), metres * np.cos(angle)], 1)


# Areas come in two ways, each of which is published, so neither may take the other's place. Whole rows of pixels are
# polygons of geodesics on WGS 84. Objects have sides of a few pixels, and polygons of geodesics are good to 0.1 m² for
# each vertex only (Karney 2013), a tenth of a percent of a pixel of 10 m: so theirs are areas in an equal-area
# projection, on the ellipsoid of the CRS. Of a whole scene both agree to 1e-7 (measured), to 6e-5 on other ellipsoids.


def row_areas(grid: Grid) -> Floats:
    """Area on the ellipsoid of a pixel of every row, in square metres: (height,) float64.

    Geodesic (Karney 2013), as what is equal in a projection such as Web Mercator or in degrees is not so on Earth.
    Mean of a row; rows are taken together in strips of :data:`STRIP_ROWS`.

    Raises:
        ValueError: If its pixels have none, see :func:`has_areas`.
    """
    if not has_areas(grid):
        raise ValueError("expected a grid with a CRS in metres: pixels of none have no area")
    if grid.crs is None or not on_earth(grid.crs):
        return np.full(grid.height, _plane_area(grid))
    geod = Geod(ellps="WGS84")
    there = np.linspace(0, grid.width, STRIP_POINTS)
    cols = np.concatenate([there, there[::-1]])
    areas = np.empty(grid.height)
    for top in range(0, grid.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, grid.height)
        rows = np.repeat(np.array([top, bottom], np.float64), STRIP_POINTS)
        area, _ = geod.polygon_area_perimeter(*transform_by_proj(grid.crs, WGS84, *grid.xy(rows, cols)))
        areas[top:bottom] = abs(area) / ((bottom - top) * grid.width)
    return areas


def ring_areas(grid: Grid, points: Numbers, ends: Numbers) -> Floats:
    """Areas that rings enclose on the ellipsoid, in Lambert's azimuthal equal-area projection (Snyder 1987, p. 187).

    Args:
        grid: The grid.
        points: (vertices, 2) row and column in pixels of closed rings, each from its first vertex to it again.
        ends: (rings,) where each ring ends among the vertices.

    Returns:
        (rings,) square metres (pixels where there are none), positive whichever way a ring runs.

    Raises:
        InputError: If some of it has no place on the Earth.
    """
    x, y = points[:, 1].astype(np.float64), points[:, 0].astype(np.float64)
    projection = _equal_area(grid)
    if projection is not None:
        x, y = _require_finite(grid, projection.transform(*grid.xy(y, x)))
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    x, y = x - np.repeat(x[starts], lengths), y - np.repeat(y[starts], lengths)  # or digits would cancel
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    cross[ends[:-1] - 1] = 0  # from one ring to the next
    areas = np.asarray(np.abs(np.add.reduceat(cross, starts)) / 2)
    return areas if projection is not None or not has_areas(grid) else areas * _plane_area(grid)


def _plane_area(grid: Grid) -> float:
    """Square metres of a pixel in a plane."""
    a, b, _, d, e, _ = grid.transform
    return abs(a * e - b * d) * (plane_unit(grid.crs) or 1.0) ** 2


@lru_cache(maxsize=16)
def _equal_area(grid: Grid) -> Transformer | None:
    if grid.crs is None or not on_earth(grid.crs):
        return None
    geod, degrees = _geodesy(grid.crs)
    centre = grid.xy(np.array([grid.height / 2]), np.array([grid.width / 2]))
    lon, lat = _require_finite(grid, degrees.transform(*centre))
    about = {"proj": "laea", "lat_0": float(lat[0]), "lon_0": float(lon[0]), "a": geod.a, "b": geod.b}
    return Transformer.from_crs(pyproj.CRS.from_wkt(grid.crs), pyproj.CRS.from_dict(about), always_xy=True)


@lru_cache(maxsize=16)
def _geodesy(wkt: str) -> tuple[Geod, Transformer]:
    """The ellipsoid of a CRS, and the way to degrees on it."""
    try:
        crs = pyproj.CRS.from_wkt(wkt)
        geod = crs.get_geod()
        if geod is None:
            raise InputError(f"expected a coordinate reference system on the Earth, got {crs.name}")
        degrees = pyproj.CRS.from_dict({"proj": "longlat", "a": geod.a, "b": geod.b})
        return geod, Transformer.from_crs(crs, degrees, always_xy=True)
    except (CRSError, ProjError) as error:
        raise InputError(f"no way from the coordinate reference system to degrees: {error}") from None


def _require_finite(grid: Grid, xy: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    if not all(np.isfinite(values).all() for values in xy):
        raise InputError(
            f"expected a scene within the bounds of its coordinate reference system, got one of {grid.shape} pixels "
            f"with the transform {grid.transform}, part of which has no place on the Earth"
        )
    return xy
