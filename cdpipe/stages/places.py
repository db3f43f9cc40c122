"""Which pairs are one place: footprints, how many metres lie between them, and what is closer than a patch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from cdpipe.geo.crs import pixel_metres
from cdpipe.geo.grid import Grid

SIDE_POINTS = 9  # of a footprint's outline along each side, whose image in another CRS is curved
DEGREE = 110_000.0  # metres, a little less than any degree of latitude has


@dataclass(frozen=True, slots=True)
class Near:
    """Two pairs that lie closer than they should: metres between their footprints, and how many are needed."""

    one: str
    other: str
    distance: float
    needed: float


def find_near(grids: Mapping[str, Grid], patch: int) -> list[Near]:
    """All two pairs that touch or lie closer than a patch, ordered by their ids.

    Distances are those of the ellipsoid, so the pairs' CRSs may differ. Pairs without a place on Earth, see
    :func:`has_place`, are near to none.

    Args:
        grids: Grid of each pair.
        patch: Side of a patch in pixels; of two pairs the one with the larger pixels counts. 0: only those that touch.
    """
    outlines = {name: _outline(grid) for name, grid in sorted(grids.items()) if has_place(grid)}
    outlines = {name: outline for name, outline in outlines.items() if np.isfinite(outline).all()}
    needed = {name: patch * max(pixel_metres(grids[name]) or (0.0, 0.0)) for name in outlines}
    found = []
    for one, other in _candidates(outlines, max(needed.values(), default=0.0)):
        distance = _distance(outlines[one], outlines[other])
        if distance == 0 or distance < max(needed[one], needed[other]):
            found.append(Near(one, other, distance, max(needed[one], needed[other])))
    return found


def has_place(grid: Grid) -> bool:
    """Whether it is known where on Earth a grid lies."""
    return grid.crs is not None


def group_places(names: Sequence[str], together: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Pairs of each place, sorted: two that belong together are of one place, and so are chains of them."""
    place = {name: name for name in names}

    def root(name: str) -> str:
        while place[name] != name:
            place[name] = place[place[name]]
            name = place[name]
        return name

    for one, other in together:
        low, high = sorted((root(one), root(other)))
        place[high] = low
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def same_group(groups: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Pairs that the catalog puts into one group: each with the first of its group."""
    first: dict[str, str] = {}
    found = [(first.setdefault(group, name), name) for name, group in sorted(groups.items()) if group is not None]
    return [(one, other) for one, other in found if one != other]


def _outline(grid: Grid) -> NDArray[np.float64]:
    """Longitudes and latitudes around a footprint: (point, 2)."""
    steps = np.linspace(0, 1, SIDE_POINTS)[:-1]
    rows = np.concatenate([0 * steps, steps, 0 * steps + 1, 1 - steps]) * grid.height
    cols = np.concatenate([steps, 0 * steps + 1, 1 - steps, 0 * steps]) * grid.width
    xs, ys = zip(*(grid.xy(row, col) for row, col in zip(rows.tolist(), cols.tolist(), strict=True)), strict=True)
    transformer = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    longitudes, latitudes = transformer.transform(xs, ys)
    return np.stack([longitudes, latitudes], 1)


def _candidates(outlines: Mapping[str, NDArray[np.float64]], margin: float) -> Iterator[tuple[str, str]]:
    """Pairs whose boxes in degrees come closer than the margin, however often the globe was gone round."""
    names = list(outlines)
    if not names:
        return
    boxes = np.array([_box(outline) for outline in outlines.values()])
    turns = np.concatenate([boxes + np.array([turn, 0, turn, 0]) for turn in (-360, 0, 360)])
    tree = shapely.STRtree(shapely.box(*turns.T))
    high = np.minimum(np.abs(boxes[:, [1, 3]]).max(axis=1) + margin / DEGREE, 89.9)
    lat = margin / DEGREE
    lon = lat / np.cos(np.radians(high))
    grown = shapely.box(boxes[:, 0] - lon, boxes[:, 1] - lat, boxes[:, 2] + lon, boxes[:, 3] + lat)
    near = {(min(a, b % len(names)), max(a, b % len(names))) for a, b in tree.query(grown).T.tolist()}
    for one, other in sorted(near):
        if one != other:
            yield names[one], names[other]


def _box(outline: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """West, south, east, north; a footprint across the antimeridian is counted on beyond it."""
    longitudes = outline[:, 0]
    if np.ptp(longitudes) > 180:
        longitudes = np.where(longitudes < 0, longitudes + 360, longitudes)
    return float(longitudes.min()), float(outline[:, 1].min()), float(longitudes.max()), float(outline[:, 1].max())


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Metres between two footprints, in a plane laid to the Earth at the first one's middle."""
    longitude = math.radians(one[0, 0]) + np.angle(np.exp(1j * (np.radians(one[:, 0] - one[0, 0])))).mean()
    plane = pyproj.Proj(proj="aeqd", lon_0=math.degrees(longitude), lat_0=float(one[:, 1].mean()), ellps="WGS84")
    first, second = (shapely.Polygon(np.stack(plane(outline[:, 0], outline[:, 1]), 1)) for outline in (one, other))
    return float(shapely.distance(first, second))
