"""Shapes on maps: polygons from one CRS to another, footprints of grids, and how near these are to each other."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from cdpipe.geo.crs import WGS84, WGS84_WKT, on_earth, require_places, transform_by_gdal, transform_by_proj
from cdpipe.geo.grid import Floats, Grid
from cdpipe.geo.ground import pixel_metres
from cdpipe.geo.turns import period

OUTLINE_POINTS = 9  # along a side of a footprint in degrees, which may be curved there
BOX_POINTS = 33  # along a side of a grid by which its box in another CRS is told
DEGREE_DECIMALS = 7  # a centimetre (RFC 7946, 11.2)
DEGREE_LEAST = 110_000.0  # metres, a little less than any degree of latitude has


def transform_shapes(shapes: Any, of: str, to: str) -> Any:
    """Shapes (one, or an array) in another CRS as GDAL has it, see :func:`transform_by_gdal`; both are WKT."""
    return shapely.transform(shapes, lambda xy: np.stack(transform_by_gdal(of, to, xy[:, 0], xy[:, 1]), -1))


def transform_polygons(polygons: NDArray[Any], of: str, to: str) -> NDArray[Any]:
    """Polygons in another CRS as pyproj has it, outer rings counter-clockwise there; in degrees they may go beyond 180.

    Args:
        polygons: (polygons,) of Shapely.
        of: Their CRS, as pyproj understands it.
        to: The other, likewise.

    Returns:
        (polygons,).

    Raises:
        InputError: If part of one has no place in it.
    """

    def move(points: Floats) -> Floats:
        return np.stack(require_places(to, transform_by_proj(of, to, points[:, 0], points[:, 1])), 1)

    return np.asarray(shapely.orient_polygons(_without_leaps(shapely.transform(polygons, move), to)))


def _without_leaps(polygons: NDArray[Any], crs: str) -> NDArray[Any]:
    """Polygons whose longitudes do not leap at the antimeridian but go on beyond it; as they are if not in degrees."""
    if not len(polygons) or not pyproj.CRS.from_user_input(crs).is_geographic:
        return polygons
    points, of = shapely.get_coordinates(polygons, return_index=True)
    first = points[np.searchsorted(of, np.arange(len(polygons)))][of, 0]
    points[:, 0] -= 360 * np.round((points[:, 0] - first) / 360)
    return counted_from_west(np.asarray(shapely.set_coordinates(polygons.copy(), points)))


def counted_from_west(polygons: NDArray[Any]) -> NDArray[Any]:
    """Polygons in degrees that begin between -180 and 180, so that one place has the same numbers in all of them."""
    if not len(polygons):
        return polygons
    further = -360 * np.floor((shapely.bounds(polygons)[:, 0] + 180) / 360)
    if not further.any():
        return polygons
    points, of = shapely.get_coordinates(polygons, return_index=True)
    points[:, 0] += further[of]
    return np.asarray(shapely.set_coordinates(polygons.copy(), points))


def outline_in_degrees(shape: Any, crs: str) -> Any:
    """A polygon in longitudes and latitudes of WGS 84, as GDAL has them, without a leap at the antimeridian."""
    return _without_leaps(np.array([transform_shapes(shape, crs, WGS84_WKT)], object), WGS84)[0]


def outline_on_grid(shape: Any, grid: Grid) -> Any:
    """A polygon of longitudes and latitudes of WGS 84 in a grid's coordinates, counted as the grid's are."""
    moved = transform_shapes(shape, WGS84_WKT, str(grid.crs))
    turn = period(grid.crs)
    low, _, high, _ = moved.bounds
    if turn is None or not np.isfinite((low, high)).all():
        return moved
    middle, _ = grid.xy(grid.height / 2, grid.width / 2)
    further = np.array([turn * round((middle - (low + high) / 2) / turn), 0.0])
    return shapely.transform(moved, lambda points: points + further) if further.any() else moved


def cut_at_antimeridian(polygon: Any) -> Any:
    """A polygon in degrees that may reach beyond 180 degrees, with all of it between -180 and 180."""
    west, _, east, _ = polygon.bounds
    if west >= -180 and east <= 180:
        return polygon
    parts = []
    for turn in (-360, 0, 360):
        strip = shapely.intersection(polygon, shapely.box(turn - 180, -90, turn + 180, 90))
        parts += [shapely.transform(part, lambda points, turn=turn: points - (turn, 0)) for part in _polygons(strip)]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _polygons(shape: Any) -> list[Any]:
    return [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area]


def round_degrees(shapes: Any) -> Any:
    """Shapes (one, or an array) in degrees, as many digits as are published and outer rings counter-clockwise."""
    return shapely.orient_polygons(shapely.transform(shapes, lambda points: np.round(points, DEGREE_DECIMALS)))


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """The outline of a grid in degrees of WGS 84: a GeoJSON geometry, and its bounding box.

    A scene that crosses the antimeridian is cut there, and its box begins east of where it ends (RFC 7946, 3.1.9, 5.2).

    Raises:
        InputError: If part of its outline has no such place.
    """
    lon, lat = require_places(WGS84, _outline(grid))
    near = lon[0] + (lon - lon[0] + 180) % 360 - 180  # without a leap
    lon, lat = (near, lat) if np.ptp(near) <= 180 else _around_pole(lon, lat)
    lon = lon - 360 * np.floor((lon.min() + 180) / 360)
    outline = shapely.Polygon(np.stack([lon, lat], 1))
    low, bottom, high, top = outline.bounds
    west, east = ((lon + 180) % 360 - 180 if low < -180 or high > 180 else lon for lon in (low, high))
    cut = cut_at_antimeridian(outline)
    if high - low >= 360:  # both ends meet
        west, east, cut = -180.0, 180.0, shapely.union_all(shapely.get_parts(cut))
    geometry = json.loads(shapely.to_geojson(round_degrees(cut)))
    return geometry, [round(degrees, DEGREE_DECIMALS) for degrees in (west, bottom, east, top)]


def _around_pole(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """An outline near a pole without a leap; with the pole as an edge of the map, if it is within."""
    lon = np.unwrap(lon, period=360)
    if abs(lon[-1] - lon[0]) <= 180:
        return lon, lat
    end = lon[0] + np.copysign(360, lon[-1] - lon[0])  # all around, to the first point again
    pole = np.copysign(90, lat.mean())
    return np.concatenate([lon, [end, end, lon[0]]]), np.concatenate([lat, [lat[0], pole, pole]])


def grid_box(grid: Grid, crs: str) -> tuple[float, float, float, float]:
    """What surrounds a grid in another CRS: least x and y, greatest x and y.

    In degrees all around the Earth, where it crosses the antimeridian.

    Raises:
        InputError: If part of its outline has no place there.
    """
    x, y = require_places(crs, transform_by_proj(str(grid.crs), crs, *grid.xy(*grid.outline(BOX_POINTS))))
    if pyproj.CRS.from_user_input(crs).is_geographic:
        x = x - 360 * np.floor((x.min() + 180) / 360)
        x = np.array([-180.0, 180.0]) if x.max() > 180 else x
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _outline(grid: Grid) -> tuple[Floats, Floats]:
    """Longitudes and latitudes around a grid; inf where there are none."""
    return transform_by_proj(str(grid.crs), WGS84, *grid.xy(*grid.outline(OUTLINE_POINTS)))


@dataclass(frozen=True, slots=True)
class Near:
    """Two grids that lie closer than they should: metres between their footprints, and how many are needed."""

    one: str
    other: str
    distance: float
    needed: float


def find_near(grids: Mapping[str, Grid], patch: int) -> list[Near]:
    """All two grids that touch or lie closer than a patch, ordered by their names.

    Distances are those of the ellipsoid, so the CRSs may differ. Grids without a place on Earth are near to none.

    Args:
        grids: Grids by name, such as a pair's id.
        patch: Side of a patch in pixels; of two grids the one with the larger pixels counts. 0: only those that touch.
    """
    outlines = {name: np.stack(_outline(grid), 1) for name, grid in sorted(grids.items()) if on_earth(grid.crs)}
    outlines = {name: outline for name, outline in outlines.items() if np.isfinite(outline).all()}
    needed = {name: patch * max(pixel_metres(grids[name]) or (0.0, 0.0)) for name in outlines}
    near = []
    for one, other in _candidates(outlines, max(needed.values(), default=0.0)):
        distance = _distance(outlines[one], outlines[other])
        if distance == 0 or distance < max(needed[one], needed[other]):
            near.append(Near(one, other, distance, max(needed[one], needed[other])))
    return near


def _candidates(outlines: Mapping[str, Floats], margin: float) -> Iterator[tuple[str, str]]:
    """Grids whose boxes in degrees come closer than the margin in metres, however often the globe was gone round."""
    names = list(outlines)
    if not names:
        return
    boxes = np.array([_box(outline) for outline in outlines.values()])
    turns = np.concatenate([boxes + np.array([turn, 0, turn, 0]) for turn in (-360, 0, 360)])
    tree = shapely.STRtree(shapely.box(*turns.T))
    lat = margin / DEGREE_LEAST
    lon = lat / np.cos(np.radians(np.minimum(np.abs(boxes[:, [1, 3]]).max(axis=1) + lat, 89.9)))
    grown = shapely.box(boxes[:, 0] - lon, boxes[:, 1] - lat, boxes[:, 2] + lon, boxes[:, 3] + lat)
    near = {(min(a, b % len(names)), max(a, b % len(names))) for a, b in tree.query(grown).T.tolist()}
    for one, other in sorted(near):
        if one != other:
            yield names[one], names[other]


def _box(outline: Floats) -> tuple[float, float, float, float]:
    """West, south, east, north; a footprint across the antimeridian is counted on beyond it."""
    longitudes = outline[:, 0]
    if np.ptp(longitudes) > 180:
        longitudes = np.where(longitudes < 0, longitudes + 360, longitudes)
    return float(longitudes.min()), float(outline[:, 1].min()), float(longitudes.max()), float(outline[:, 1].max())


def _distance(one: Floats, other: Floats) -> float:
    """Metres between two footprints, (points, 2) each, in a plane laid to the Earth at the first one's middle."""
    longitude = math.radians(one[0, 0]) + np.angle(np.exp(1j * (np.radians(one[:, 0] - one[0, 0])))).mean()
    plane = pyproj.Proj(proj="aeqd", lon_0=math.degrees(longitude), lat_0=float(one[:, 1].mean()), ellps="WGS84")
    first, second = (shapely.Polygon(np.stack(plane(outline[:, 0], outline[:, 1]), 1)) for outline in (one, other))
    return float(shapely.distance(first, second))
