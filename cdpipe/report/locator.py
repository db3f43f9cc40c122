"""A map of all pairs: footprints on a graticule with coordinates, as numbers of an SVG, that needs no network.

Its projection is equirectangular with the true scale at the middle latitude (Snyder 1987, p. 90). Coastlines are those
of Natural Earth at 1:110 million, which are public domain, where pyogrio's wheel brings them.
"""

import functools
import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cdpipe.formats.ogr import ogr
from cdpipe.report.facts import PairPage

WIDTH, HEIGHT = 960, 380  # of the map, at most, in its own units
LEAST = 0.02  # degrees of latitude that it shows at least, beyond the footprints
ROOM = 1.25  # how much wider than all footprints it is
LINES = 6  # of the graticule each way, about
STEPS = (1, 2, 3, 5, 10, 15, 30, 60)  # of degrees between them; finer ones are tenths and hundredths of 1, 2, 5
LETTER = 7.0  # width and half the height of a letter, in units
SMALL = 5  # units: a footprint that is less gets a dot
COAST_FROM = 4.0  # degrees of latitude that a map must show for a coastline at 1:110 million to be right on it
COAST = ("tests", "fixtures", "naturalearth_lowres", "naturalearth_lowres.shp")

Points = NDArray[np.float64]  # (points, 2) of longitude and latitude, or of the map
Place = Callable[[Points], Points]  # from degrees to the map
Box = tuple[float, float, float, float]  # west, south, east and north, in degrees


def draw_locator(pairs: Sequence[PairPage]) -> dict[str, Any] | None:
    """What the map's SVG has; None where no pair lies anywhere on the Earth.

    Args:
        pairs: All that have a page.
    """
    placed = [(pair, np.array(corners)) for pair in pairs if (corners := pair.facts["place"].get("corners"))]
    if not placed:
        return None
    outlines = _side_by_side([corners for _, corners in placed])
    box = _frame(np.concatenate(outlines))
    scale = min(WIDTH / ((box[2] - box[0]) * _squeeze(box)), HEIGHT / (box[3] - box[1]))
    width, height = (box[2] - box[0]) * _squeeze(box) * scale, (box[3] - box[1]) * scale

    def place(points: Points) -> Points:
        return (points - (box[0], box[3])) * (_squeeze(box) * scale, -scale)

    return {
        "width": round(width),
        "height": round(height),
        "coast": [_path(place(ring)) for ring in _coast(box)],
        "meridians": [{"at": _x(place, lon), "text": _text(lon, "W", "E")} for lon in _lines(box[0], box[2])],
        "parallels": [{"at": _y(place, lat), "text": _text(lat, "S", "N")} for lat in _lines(box[1], box[3])],
        "pairs": _named(
            [_mark(pair, place(outline)) for (pair, _), outline in zip(placed, outlines, strict=True)], width
        ),
        "left_out": len(pairs) - len(placed),
    }


def _side_by_side(outlines: Sequence[Points]) -> list[Points]:
    """(4, 2) corners of each, longitudes counted so that all together are least wide: also across the antimeridian."""
    middles = np.array([outline[:, 0].mean() for outline in outlines]) % 360
    order = np.sort(middles)
    gaps = np.diff(order, append=order[0] + 360)
    start = order[(int(gaps.argmax()) + 1) % len(order)]  # east of the widest gap
    found = []
    for outline, middle in zip(outlines, middles, strict=True):
        counted = start + (middle - start) % 360
        found.append(outline + np.array([counted - outline[:, 0].mean(), 0.0]))
    whole = np.concatenate(found)[:, 0]
    turn = 360 * math.floor((whole.min() + whole.max()) / 2 / 360 + 0.5)
    return [outline - (turn, 0.0) for outline in found]


def _frame(points: Points) -> Box:
    """What the map shows: the footprints with room around them, as wide as it may be, and no more than the Earth."""
    (west, south), (east, north) = points.min(0), points.max(0)
    squeeze = math.cos(math.radians((south + north) / 2))
    high = max((north - south) * ROOM, LEAST, (east - west) * squeeze * ROOM * HEIGHT / WIDTH)
    wide = max(high / squeeze * WIDTH / HEIGHT, LEAST)
    middle, level = (west + east) / 2, (south + north) / 2
    if wide > 360:
        middle, wide = 0.0 if west >= -180 and east <= 180 else middle, 360.0
    low, top = max(-90.0, level - high / 2), min(90.0, level + high / 2)
    return middle - wide / 2, low, middle + wide / 2, top


def _squeeze(box: Box) -> float:
    """How long a degree of longitude is for each of latitude."""
    return math.cos(math.radians((box[1] + box[3]) / 2))


def _lines(first: float, last: float) -> list[float]:
    """Where lines of the graticule are, at round degrees."""
    span = (last - first) / LINES
    if span > 1:
        step = next((float(each) for each in STEPS if each >= span), float(STEPS[-1]))
    else:
        power = 10.0 ** math.floor(math.log10(span))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= span)
    lines = np.arange(math.ceil(first / step), math.floor(last / step) + 1) * step
    return [round(float(line), 6) + 0.0 for line in lines]


def _text(degrees: float, negative: str, positive: str) -> str:
    """A coordinate as it stands at its line."""
    if positive == "E":
        degrees -= 360 * math.floor((degrees + 180) / 360)
    side = negative if degrees < 0 else positive if degrees > 0 else ""
    return f"{abs(round(degrees, 6)):g}°{side and ' '}{side}"


def _x(place: Place, lon: float) -> float:
    return round(float(place(np.array([[lon, 0.0]]))[0, 0]), 1)


def _y(place: Place, lat: float) -> float:
    return round(float(place(np.array([[0.0, lat]]))[0, 1]), 1)


def _mark(pair: PairPage, corners: Points) -> dict[str, Any]:
    small = np.ptp(corners, axis=0).max() < SMALL
    x, y = corners.mean(0).round(1).tolist()
    return {"page": pair.page, "name": pair.name, "x": x, "y": y, "path": "" if small else _path(corners)}


def _named(marks: list[dict[str, Any]], width: float) -> list[dict[str, Any]]:
    """Marks with where their names stand: beside them, as far as they keep off the names before them."""
    taken = [(mark["x"] - 6, mark["y"] - 6, mark["x"] + 6, mark["y"] + 6) for mark in marks]
    for mark in marks:
        long = LETTER * len(mark["name"])
        left = mark["x"] + 8 if mark["x"] + 8 + long <= width else mark["x"] - 8 - long
        box = left, mark["y"] - LETTER, left + long, mark["y"] + LETTER
        free = all(box[2] < x0 or box[0] > x1 or box[3] < y0 or box[1] > y1 for x0, y0, x1, y1 in taken)
        mark["text_x"] = round(left, 1) if free and left >= 0 else None
        taken += [box] if free else []
    return marks


def _path(points: Points) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points.round(1).tolist()) + "Z"


def _coast(box: Box) -> list[Points]:
    """Rings of the coastline within a box, in degrees; none on maps for which it is too coarse."""
    if box[3] - box[1] < COAST_FROM:
        return []
    land = _land()
    turns = [-360.0, 0.0, 360.0] if box[0] < -180 or box[2] > 180 else [0.0]
    rings = []
    for turn in turns:
        moved = shapely.transform(land, lambda points, turn=turn: points + np.array([turn, 0.0]))
        part = shapely.intersection(moved, shapely.box(*box))
        for polygon in shapely.get_parts(part):
            if polygon.geom_type == "Polygon" and polygon.area:
                rings += [shapely.get_coordinates(ring)[:-1] for ring in (polygon.exterior, *polygon.interiors)]
    return rings


@functools.cache
def _land() -> Any:
    """All land as one shape; empty where pyogrio comes without it."""
    try:
        file = resources.files("pyogrio").joinpath(*COAST)
        with resources.as_file(file) as path:
            _, _, shapes, _ = ogr().raw.read(str(path), columns=[])
    except Exception:  # noqa: BLE001 (a map without a coastline is as right, whatever is not there)
        return shapely.MultiPolygon()
    return shapely.union_all(shapely.make_valid(shapely.from_wkb(shapes)), grid_size=0.001)
