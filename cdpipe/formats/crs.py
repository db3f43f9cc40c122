"""Coordinate reference systems: one text for each, short names, and places of one grid in another."""

import math
from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.warp import transform

from cdpipe.values.grid import Grid, Transform

Points = NDArray[np.float64]

STRIP_ROWS = 64  # rows whose pixels are given one area: at 60 degrees and 10 m pixels they differ by 0.01 %
STRIP_POINTS = 17  # along the edges of such a strip, which are seldom geodesics
DEGREE_METRES = 111_195  # of a great circle of the mean Earth
ABSURD = 1e12  # no place is as many units away, no pixel as large, or as small as one by it


def is_possible(place: Transform) -> bool:
    """Whether a transform can be one of a map: finite, invertible, none of its numbers absurd."""
    a, b, _, d, e, _ = place
    if not all(map(math.isfinite, place)) or max(map(abs, place)) > ABSURD:
        return False
    sides = math.hypot(a, d), math.hypot(b, e)
    return min(sides) > 1 / ABSURD and abs(a * e - b * d) > 1e-9 * sides[0] * sides[1]


def canonical_wkt(crs: CRS) -> str:
    """One text for one CRS: files spell the same EPSG entry in many ways."""
    return _canonical(str(crs.to_wkt()))


@lru_cache(maxsize=256)  # to look a CRS up that EPSG does not know takes a tenth of a second
def _canonical(wkt: str) -> str:
    code = CRS.from_wkt(wkt).to_epsg(confidence_threshold=100)
    return str(CRS.from_epsg(code).to_wkt()) if code else wkt


def known_crs(name: str) -> str | None:
    """The one WKT of a CRS by any of its names, None where there is none such."""
    try:
        return _canonical(pyproj.CRS.from_user_input(name).to_wkt())  # rasterio prints what it does not know
    except pyproj.exceptions.CRSError:
        return None


def crs_name(wkt: str | None) -> str:
    """A short name for people: "EPSG:32633", or the CRS's own name, or "none"."""
    if wkt is None:
        return "none"
    code = CRS.from_wkt(wkt).to_epsg(confidence_threshold=100)
    return f"EPSG:{code}" if code else wkt.partition('"')[2].partition('"')[0]


def pixel_metres(grid: Grid) -> tuple[float, float] | None:
    """Width and height of a pixel in metres, for people (1 % off in degrees); None without a CRS."""
    if grid.crs is None:
        return None
    crs = CRS.from_wkt(grid.crs)
    width, height = grid.pixel_size
    if not crs.is_geographic:
        metres = crs.linear_units_factor[1]
        return width * metres, height * metres
    _, latitude = grid.xy(grid.height / 2, grid.width / 2)
    return width * DEGREE_METRES * math.cos(math.radians(latitude)), height * DEGREE_METRES


def row_areas(grid: Grid) -> Points:
    """Area on the ellipsoid of a pixel of every row, in square metres: (height,) float64.

    Geodesic (Karney 2013), as what is equal in a projection such as Web Mercator or in degrees is not so on Earth.
    Mean of a row; rows are taken together in strips of :data:`STRIP_ROWS`.

    Raises:
        ValueError: If the grid has no CRS.
    """
    if grid.crs is None:
        raise ValueError("expected a grid with a CRS: pixels of none have no area")
    to_degrees, geod = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True), pyproj.Geod(ellps="WGS84")
    cols = np.linspace(0, grid.width, STRIP_POINTS)
    areas = np.empty(grid.height)
    for top in range(0, grid.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, grid.height)
        corners = [grid.xy(row, col) for row, along in ((top, cols), (bottom, cols[::-1])) for col in along.tolist()]
        xs, ys = zip(*corners, strict=True)
        area, _ = geod.polygon_area_perimeter(*to_degrees.transform(xs, ys))
        areas[top:bottom] = abs(area) / ((bottom - top) * grid.width)
    return areas


def transform_points(of: str, to: str, x: Points, y: Points) -> tuple[Points, Points]:
    """Coordinates in the second CRS (both are WKT) of coordinates in the first; inf where there are none."""
    return _transform(CRS.from_wkt(of), CRS.from_wkt(to), x, y)


def project_positions(of: Grid, to: Grid, rows: Points, cols: Points) -> tuple[Points, Points]:
    """Rows and columns in grid ``to`` of positions in grid ``of``; inf or nan where there is none."""
    a, b, c, d, e, f = of.transform
    x, y = (a * cols + b * rows + c).ravel(), (d * cols + e * rows + f).ravel()
    if of.crs is not None and to.crs is not None and of.crs != to.crs:
        x, y = transform_points(of.crs, to.crs, x, y)
    a, b, c, d, e, f = to.transform
    determinant = a * e - b * d
    x, y = x - c, y - f
    with np.errstate(invalid="ignore"):
        to_rows, to_cols = (a * y - d * x) / determinant, (e * x - b * y) / determinant
    return to_rows.reshape(rows.shape), to_cols.reshape(rows.shape)


def footprint_share(source: Grid, grid: Grid) -> float:
    """Share of a grid that another raster's extent covers, told from 64 x 64 points of the grid."""
    rows, cols = np.meshgrid(*((np.arange(64) + 0.5) / 64 * length for length in grid.shape), indexing="ij")
    source_rows, source_cols = project_positions(grid, source, rows, cols)
    inside = (source_rows >= 0) & (source_rows < source.height)
    inside &= (source_cols >= 0) & (source_cols < source.width)
    return float(inside.mean())


def pixel_ratio(source: Grid, grid: Grid) -> tuple[float, float]:
    """How many source rows and columns one pixel of a grid spans, at the grid's centre; nan if nowhere."""
    row, col = grid.height / 2, grid.width / 2
    rows, cols = np.array([row, row + 1, row]), np.array([col, col, col + 1])
    here, below, right = np.stack(project_positions(grid, source, rows, cols), -1)
    with np.errstate(invalid="ignore"):
        spans = np.hypot(below - here, right - here)
    return (float(spans[0]), float(spans[1])) if np.isfinite(spans).all() else (math.nan, math.nan)


def _transform(of: CRS, to: CRS, x: Points, y: Points) -> tuple[Points, Points]:
    try:
        xs, ys = transform(of, to, x, y)
        return np.array(xs, np.float64), np.array(ys, np.float64)
    except CPLE_BaseError:
        if len(x) == 1:
            return np.array([np.inf]), np.array([np.inf])
    # one point without an image fails the whole list: halve it until such points are alone
    half = len(x) // 2
    first, second = _transform(of, to, x[:half], y[:half]), _transform(of, to, x[half:], y[half:])
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
