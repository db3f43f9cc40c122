"""Coordinate reference systems: one text for each, short names, and places of one grid in another."""

import json
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.warp import transform

from cdpipe.errors import InputError
from cdpipe.geo.grid import Grid, Transform

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


# Metres on the ground: what a step of a pixel takes, and areas, whatever the coordinate reference system.

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

WGS84 = "EPSG:4326"

_DECIMALS = 7  # of degrees, a centimetre
_OUTLINE = 9  # points along a side of a footprint
_NODES = 33  # points along a side of a grid by which its place in another CRS is told


def pixel_steps(grid: Grid, row: float, col: float) -> Floats:
    """What a step of one row and of one column takes on the ground.

    Args:
        grid: The grid.
        row: Where, in pixels.
        col: Likewise.

    Returns:
        (2, 2): metres east and north (plain pixels right and down without a georeference) of each.
    """
    if grid.crs is None:
        return np.array([[0.0, 1.0], [1.0, 0.0]])
    geod, degrees = _geodesy(grid.crs)
    rows, cols = np.array([row, row, row + 1, row]), np.array([col, col, col, col + 1])
    lon, lat = _require_finite(grid, degrees.transform(*_map_xy(grid, rows, cols)))
    # both from one point: near a pole the next pixel's north lies elsewhere
    azimuth, _, metres = geod.inv(lon[:2], lat[:2], lon[2:], lat[2:])
    angle = np.radians(azimuth)
    return np.stack([metres * np.sin(angle), metres * np.cos(angle)], 1)


def ring_areas(grid: Grid, points: Numbers, ends: Numbers) -> Floats:
    """Areas that rings enclose on the ellipsoid, in Lambert's azimuthal equal-area projection (Snyder 1987, p. 187).

    Sides are those of pixels, not geodesics; and areas of geodesic polygons, as ``pyproj.Geod`` has them, are good
    to 0.1 m² for each vertex (Karney 2013), a tenth of a percent of a pixel of 10 m.

    Args:
        grid: The grid.
        points: (vertices, 2) row and column of closed rings, each from its first vertex to the same one again.
        ends: Where each ring ends.

    Returns:
        (rings,) square metres, positive whichever way a ring runs.

    Raises:
        InputError: If some of it has no place on the Earth.
    """
    x, y = points[:, 1].astype(np.float64), points[:, 0].astype(np.float64)
    projection = _equal_area(grid)
    if projection is not None:
        x, y = _require_finite(grid, projection.transform(*_map_xy(grid, y, x)))
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    x, y = x - np.repeat(x[starts], lengths), y - np.repeat(y[starts], lengths)  # or digits would cancel
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    cross[ends[:-1] - 1] = 0  # from one ring to the next
    return np.asarray(np.abs(np.add.reduceat(cross, starts)) / 2)


def transform_xy(of: str, to: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates in the second CRS of coordinates in the first, both as pyproj understands them; x before y.

    Raises:
        InputError: If some have no place there.
    """
    moved_x, moved_y = _way(of, to).transform(x, y)
    if not (np.isfinite(moved_x).all() and np.isfinite(moved_y).all()):
        name = pyproj.CRS.from_user_input(to).name
        raise InputError(f"expected coordinates within the bounds of {name}, got some beyond; choose another CRS")
    return moved_x, moved_y


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """The outline of a grid in degrees of WGS 84: a GeoJSON geometry, and its bounding box.

    A scene that crosses the antimeridian is cut there, and its box begins east of where it ends (RFC 7946, 3.1.9, 5.2).

    Raises:
        InputError: If part of its outline has no such place.
    """
    along = np.linspace(0, 1, _OUTLINE)[:-1]
    ends = 0 * along
    rows = np.concatenate([along, ends + 1, 1 - along, ends]) * grid.height
    cols = np.concatenate([ends, along, ends + 1, 1 - along]) * grid.width
    lon, lat = transform_xy(str(grid.crs), WGS84, *_map_xy(grid, rows, cols))
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # without a leap
    outline = shapely.Polygon(np.stack([lon, lat], 1))
    low, bottom, high, top = outline.bounds
    geometry = cut_at_antimeridian(outline)
    wrapped = [(each + 180) % 360 - 180 if low < -180 or high > 180 else each for each in (low, high)]
    geometry = shapely.orient_polygons(shapely.transform(geometry, lambda points: points.round(_DECIMALS)))
    found = json.loads(shapely.to_geojson(geometry))
    return found, [round(each, _DECIMALS) for each in (wrapped[0], bottom, wrapped[1], top)]


def cut_at_antimeridian(polygon: Any) -> Any:
    """A polygon in degrees that may reach beyond 180 degrees, with all of it between -180 and 180."""
    west, _, east, _ = polygon.bounds
    if west >= -180 and east <= 180:
        return polygon
    parts = []
    for turn in (-360, 0, 360):
        part = shapely.intersection(polygon, shapely.box(turn - 180, -90, turn + 180, 90))
        parts += [shapely.transform(each, lambda points, turn=turn: points - (turn, 0)) for each in _polygons(part)]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _polygons(shape: Any) -> list[Any]:
    return [each for each in shapely.get_parts(shape) if each.geom_type == "Polygon" and each.area]


def without_leaps(polygons: NDArray[Any], crs: str) -> NDArray[Any]:
    """Polygons whose longitudes do not leap at the antimeridian but go on beyond it; as they are if not in degrees."""
    if not len(polygons) or not pyproj.CRS.from_user_input(crs).is_geographic:
        return polygons
    points, of = shapely.get_coordinates(polygons, return_index=True)
    first = points[np.searchsorted(of, np.arange(len(polygons)))][of, 0]
    points[:, 0] -= 360 * np.round((points[:, 0] - first) / 360)
    return np.asarray(shapely.set_coordinates(polygons.copy(), points))


def grid_box(grid: Grid, crs: str) -> tuple[float, float, float, float]:
    """What surrounds a grid in another CRS: least x and y, greatest x and y.

    Raises:
        InputError: If part of its outline has no place there.
    """
    along = np.linspace(0, 1, _NODES)
    rows = np.concatenate([0 * along, 0 * along + 1, along, along]) * grid.height
    cols = np.concatenate([along, along, 0 * along, 0 * along + 1]) * grid.width
    x, y = transform_xy(str(grid.crs), crs, *_map_xy(grid, rows, cols))
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


@lru_cache(maxsize=16)
def _way(of: str, to: str) -> Transformer:
    return Transformer.from_crs(pyproj.CRS.from_user_input(of), pyproj.CRS.from_user_input(to), always_xy=True)


@lru_cache(maxsize=16)
def _equal_area(grid: Grid) -> Transformer | None:
    if grid.crs is None:
        return None
    geod, degrees = _geodesy(grid.crs)
    centre = _map_xy(grid, np.array([grid.height / 2]), np.array([grid.width / 2]))
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


def _map_xy(grid: Grid, rows: NDArray[Any], cols: NDArray[Any]) -> tuple[Floats, Floats]:
    a, b, c, d, e, f = grid.transform
    return a * cols + b * rows + c, d * cols + e * rows + f


def _require_finite(grid: Grid, xy: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    if not all(np.isfinite(values).all() for values in xy):
        raise InputError(
            f"expected a scene within the bounds of its coordinate reference system, got one of {grid.shape} pixels "
            f"with the transform {grid.transform}, part of which has no place on the Earth"
        )
    return xy
