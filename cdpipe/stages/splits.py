"""Splits for a catalog that names none: whole places, never two sides of one."""

import hashlib
from collections.abc import Sequence

import pyproj

from cdpipe.stages.pair_plan import PlannedPair
from cdpipe.values.errors import InputError
from cdpipe.values.grid import Grid

HELD_OUT = 0.2  # share of the pairs that val and test each get at least
MIN_PLACES = 3

Box = tuple[float, float, float, float]


def split_pairs(planned: Sequence[PlannedPair]) -> dict[str, str]:
    """Split of each labelled pair.

    A catalog that gives any pair a split is taken at its word. Otherwise pairs whose footprints touch are
    one place, and places go to test, then val, then train, in an order that depends on their names alone.

    Raises:
        InputError: If there are too few separate places for three splits.
    """
    labelled = [item for item in planned if item.label_key is not None]
    given = {item.pair.pair_id: item.pair.split for item in planned if item.pair.split}
    if given or not labelled:
        return given
    places = _places(labelled)
    if len(places) < MIN_PLACES:
        raise InputError(
            f"the catalog has no column split and its {len(labelled)} labelled pair(s) cover {len(places)} separate "
            f"place(s); {MIN_PLACES} are needed for train, val and test: add the column"
        )
    places.sort(key=lambda ids: hashlib.sha256(ids[0].encode()).hexdigest())
    splits: dict[str, str] = {}
    for split in ("test", "val"):
        wanted, taken = HELD_OUT * len(labelled), 0
        # a place each is left for the splits that come after
        while taken < wanted and len(places) > (2 if split == "test" else 1):
            ids = places.pop()
            taken += len(ids)
            splits |= dict.fromkeys(ids, split)
    return splits | {pair_id: "train" for ids in places for pair_id in ids}


def known_splits(planned: Sequence[PlannedPair]) -> dict[str, str]:
    """The same for prediction and evaluation, which need no splits: none where there are too few places."""
    try:
        return split_pairs(planned)
    except InputError:
        return {}


def _places(planned: Sequence[PlannedPair]) -> list[list[str]]:
    """Ids of the pairs of each place, sorted."""
    groups: list[tuple[list[str], list[Box]]] = []
    for item in sorted(planned, key=lambda item: item.pair.pair_id):
        box = _footprint(item.grid, item.pair.pair_id)
        ids, boxes = [item.pair.pair_id], [box]
        apart = []
        for other in groups:
            if any(_touch(box, each) for each in other[1]):
                ids, boxes = other[0] + ids, other[1] + boxes
            else:
                apart.append(other)
        groups = [*apart, (ids, boxes)]
    return [sorted(ids) for ids, _ in groups]


def _footprint(grid: Grid, pair_id: str) -> Box:
    """West, south, east, north in degrees, east of west; a scene without georeference is a place of its own."""
    if grid.crs is None:
        # far outside the degrees of real places, a unit box for each name
        start = 1000.0 + 10 * (int(hashlib.sha256(pair_id.encode()).hexdigest()[:12], 16))
        return start, start, start + 1, start + 1
    corners = [grid.xy(row, col) for row in (0, grid.height) for col in (0, grid.width)]
    xs, ys = zip(*corners, strict=True)
    transformer = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    west, south, east, north = transformer.transform_bounds(min(xs), min(ys), max(xs), max(ys))
    # across the antimeridian pyproj gives a west that is east of the east
    return float(west), float(south), float(east + 360 if east < west else east), float(north)


def _touch(a: Box, b: Box) -> bool:
    """Whether two boxes share a point, however many times round the globe their degrees were counted."""
    turned = any(a[0] + turn <= b[2] and b[0] <= a[2] + turn for turn in (-360, 0, 360))
    return turned and a[1] <= b[3] and b[1] <= a[3]
