"""Splits: whole places, all three splits, and the same ones every time."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasters import GEOGRAPHIC, UTM33, utm_grid

from cdpipe.config.schema import Sensor
from cdpipe.errors import InputError
from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.splits import HELD_OUT, group_places, place_groups, split_pairs
from cdpipe.workspace.location import here

SOURCE = Source(here(Path("scene.tif")), "s", Sensor(bands={"red": 1}), (1,))
SPLITS = {"train", "val", "test"}


def planned(pair_id: str, grid: Grid, *, label: bool = True, split: str | None = None) -> tuple[Pair, Grid]:
    label_path = here(Path("label.tif")) if label else None
    return Pair(pair_id, pair_id, SOURCE, SOURCE, ("red",), label=label_path, split=split), grid


def at(col: int, row: int, width: int = 50, height: int = 50) -> Grid:
    """A grid whose upper left pixel lies so many pixels right of and below a common origin."""
    return utm_grid(height, width, (10.0, 0.0, 500_000.0 + 10 * col, 0.0, -10.0, 4_000_000.0 - 10 * row))


def apart(count: int) -> list[tuple[Pair, Grid]]:
    return [planned(f"p{number}", at(1000 * number, 0)) for number in range(count)]


def overlap(a: Grid, b: Grid) -> bool:
    (left_a, top_a), (right_a, bottom_a) = a.xy(0, 0), a.xy(*a.shape)
    (left_b, top_b), (right_b, bottom_b) = b.xy(0, 0), b.xy(*b.shape)
    return left_a < right_b and left_b < right_a and bottom_a < top_b and bottom_b < top_a


grids = st.builds(at, st.integers(0, 600), st.integers(0, 600), st.integers(1, 200), st.integers(1, 200))


@given(st.lists(grids, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_pairs_that_overlap_are_never_in_two_splits(places: list[Grid], random: "object") -> None:
    pairs = [planned(f"p{number}", grid) for number, grid in enumerate(places)]
    try:
        splits = split_pairs(pairs, 0)
    except InputError:
        return  # too few places; when that is said is tested below
    assert set(splits) == {pair.pair_id for pair, _ in pairs}
    assert set(splits.values()) == SPLITS
    for one, one_grid in pairs:
        for other, other_grid in pairs:
            if overlap(one_grid, other_grid):
                assert splits[one.pair_id] == splits[other.pair_id]
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert split_pairs(pairs, 0) == splits


@pytest.mark.parametrize("count", [3, 4, 5, 10, 17])
def test_val_and_test_get_a_fifth_each_and_training_the_rest(count: int) -> None:
    sizes = Counter(split_pairs(apart(count), 0).values())
    assert sizes["test"] == sizes["val"] == min(math.ceil(HELD_OUT * count), (count - 1) // 2)
    assert sizes["train"] == count - 2 * sizes["val"] > 0


def test_every_split_gets_a_place_though_one_place_has_nearly_all_pairs() -> None:
    for names in ("abc", "xyz", "pqr", "klm"):  # names decide the order of places
        crowd = [planned(f"{names[0]}{number}", at(0, 0)) for number in range(8)]
        splits = split_pairs([*crowd, planned(names[1], at(1000, 0)), planned(names[2], at(2000, 0))], 0)
        assert set(splits.values()) == SPLITS


def test_chains_of_overlapping_pairs_are_one_place() -> None:
    chain = [planned(f"c{number}", at(40 * number, 40 * number)) for number in (0, 2, 4, 1, 3)]
    splits = split_pairs([*chain, *apart(4)[1:]], 0)
    assert len({splits[pair.pair_id] for pair, _ in chain}) == 1


def test_places_are_told_across_coordinate_systems() -> None:
    metric = at(0, 0, 400, 400)
    west, south, east, north = transform_bounds(UTM33, GEOGRAPHIC, 500_500, 3_997_000, 501_000, 3_998_000)
    degrees = Grid(50, 50, ((east - west) / 50, 0.0, west, 0.0, -(north - south) / 50, north), GEOGRAPHIC)
    for names in ("ab", "kz", "qd", "xy", "mo", "ta"):
        splits = split_pairs([planned(names[0], metric), planned(names[1], degrees), *apart(6)[1:]], 0)
        assert splits[names[0]] == splits[names[1]]


def test_a_place_on_the_antimeridian_is_one_place() -> None:
    """The zones on both sides of it, and degrees that are counted on beyond 180."""
    zones = [CRS.from_epsg(code).to_wkt() for code in (32660, 32601)]
    x60, _, _, y = transform_bounds(GEOGRAPHIC, zones[0], 179.98, 10.0, 179.99, 10.01)
    x1, _, _, _ = transform_bounds(GEOGRAPHIC, zones[1], -179.99, 10.0, -179.98, 10.01)
    sixty = Grid(200, 400, (10.0, 0.0, x60, 0.0, -10.0, y), zones[0])
    one = Grid(200, 400, (10.0, 0.0, x1 - 3000, 0.0, -10.0, y), zones[1])
    beyond = Grid(20, 20, (0.001, 0.0, 180.0, 0.0, -0.001, 10.01), GEOGRAPHIC)
    for names in ("abc", "kzm", "qdr", "xyf", "mot", "tae"):
        same = [planned(name, grid) for name, grid in zip(names, (sixty, one, beyond), strict=True)]
        splits = split_pairs([*same, *apart(6)], 0)
        assert len({splits[name] for name in names}) == 1


def test_scenes_without_georeference_are_places_of_their_own() -> None:
    grid = Grid(50, 50, PIXEL_TRANSFORM, None)
    assert set(split_pairs([planned(f"p{number}", grid) for number in range(3)], 0).values()) == SPLITS


def test_places_lie_a_buffer_apart_and_groups_stay_together() -> None:
    near = [planned("a", at(0, 0)), planned("b", at(100, 0))]  # 50 pixels between them
    for buffer, same in ((0, False), (50, False), (51, True)):
        splits = split_pairs([*near, *apart(8)[1:]], buffer)
        assert buffer < 51 or splits["a"] == splits["b"]
        together = place_groups(near, buffer)
        places = group_places([pair.pair_id for pair, _ in near], together)
        assert (len(places) == 1) == same
    grouped = [(replace(pair, group="g"), grid) for pair, grid in apart(9)[:4]]
    splits = split_pairs([*grouped, *apart(9)[4:]], 0)
    assert len({splits[pair.pair_id] for pair, _ in grouped}) == 1


def test_too_few_places_are_refused_with_what_to_do() -> None:
    two = [planned("a", at(0, 0)), planned("b", at(10, 10)), planned("c", at(900, 0))]
    with pytest.raises(InputError, match=r"3 labelled pair\(s\) cover 2 separate place\(s\); 3 are needed .* add"):
        split_pairs(two, 0)


def test_given_splits_win() -> None:
    pairs = [planned("a", at(0, 0), split="train"), planned("b", at(0, 0), split="val"), planned("c", at(0, 0))]
    assert split_pairs(pairs, 0) == {"a": "train", "b": "val"}


def test_pairs_without_a_label_take_no_part() -> None:
    unlabelled = [planned(f"u{number}", at(0, 5000 + 1000 * number), label=False) for number in range(9)]
    assert split_pairs([*unlabelled, *apart(5)], 0) == split_pairs(apart(5), 0)
    assert split_pairs(unlabelled, 0) == {}
