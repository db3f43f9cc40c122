"""One labelled scene: strips of it as train, val and test, each with change, a patch apart, the same every time."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import make_config, utm_grid, write_raster
from stored import store_pair

from cdpipe.config.schema import Config, Sensor
from cdpipe.errors import InputError
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import CELL
from cdpipe.pairs.catalog import Pair, Source, read_catalog
from cdpipe.pairs.check import check_catalog
from cdpipe.pairs.outlook import SplitPart, cells_of_files, describe_splits, look_ahead
from cdpipe.pairs.splits import Splits, find_splits, known_splits, split_leaks
from cdpipe.pairs.strips import ALL_SPLITS, TRAIN_AND_VAL, cut_strips, largest_patch, strip_name
from cdpipe.store.pair import read_cells, read_label
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SOURCE = Source(here(Path("scene.tif")), "s", Sensor(bands={"red": 1}), (1,))
Cells = NDArray[np.int64]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], Cells]:
    """A scene's size and the counts of its cells, some without labels, few with change."""
    shape = draw(st.integers(1, 900)), draw(st.integers(1, 900))
    rows, cols = (-(-length // CELL) for length in shape)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    labelled = np.where(random.random((rows, cols)) < draw(st.sampled_from([0.3, 1.0])), 4096, 0)
    changed = np.where(random.random((rows, cols)) < draw(st.sampled_from([0.1, 0.6])), labelled // 7, 0)
    return shape, np.stack([labelled, changed]).astype(np.int64)


def pixels(cells: Cells, strip: Window) -> list[int]:
    """Labelled and changed pixels of the cells whose first pixel lies in a strip."""
    rows, cols = (np.arange(count) * CELL for count in cells.shape[1:])
    down = (rows >= strip.row) & (rows < strip.stop_row)
    across = (cols >= strip.col) & (cols < strip.stop_col)
    return [int(layer[np.ix_(down, across)].sum()) for layer in cells]


def gap(one: Window, other: Window) -> int:
    """Pixels between two windows along the axis that has more of them."""
    down = max(one.row - other.stop_row, other.row - one.stop_row)
    return max(down, one.col - other.stop_col, other.col - one.stop_col)


def evenness(cells: Cells, strips: Mapping[str, Window], shares: Mapping[str, int]) -> float:
    counts = [[count / shares[split] for count in pixels(cells, strip)] for split, strip in strips.items()]
    return min(labelled for labelled, _ in counts) * min(changed for _, changed in counts)


@given(scenes(), st.sampled_from([32, 64, 96, 128]), st.sampled_from([ALL_SPLITS, TRAIN_AND_VAL]))
def test_strips_lie_a_patch_apart_and_each_has_change(
    scene: tuple[tuple[int, int], Cells], patch: int, shares: Mapping[str, int]
) -> None:
    shape, cells = scene
    strips = cut_strips(cells, shape, patch, shares)
    if strips is None:
        return
    assert list(strips) == list(shares)
    for strip in strips.values():
        assert strip.intersect(Window(0, 0, *shape)) == strip
        assert strip.width == shape[1] or strip.height == shape[0]
        assert pixels(cells, strip)[1] > 0
    assert all(gap(one, other) >= patch for one, other in itertools.combinations(strips.values(), 2))
    assert 2 * sum(pixels(cells, strip)[0] for strip in strips.values()) >= cells[0].sum()
    assert cut_strips(cells.copy(), shape, patch, dict(shares)) == strips


def all_cuts(shape: tuple[int, int], patch: int, shares: Mapping[str, int]) -> list[dict[str, Window]]:
    """Every cut there is, one after the other."""
    found, buffer = [], -(-patch // CELL) * CELL
    for axis, length in enumerate(shape):
        borders = [*range(0, length, CELL), length]
        for order in itertools.permutations(shares):
            for ends in itertools.product(borders, repeat=2 * len(order) - 2):
                sides = list(zip((0, *ends[1::2]), (*ends[::2], length), strict=True))
                wide = all(start < stop for start, stop in sides)
                spaced = all(start == stop + buffer for stop, start in zip(ends[::2], ends[1::2], strict=True))
                if wide and spaced:
                    windows = [
                        Window(a, 0, b - a, shape[1]) if axis == 0 else Window(0, a, shape[0], b - a) for a, b in sides
                    ]
                    found.append(dict(zip(order, windows, strict=True)))
    return found


@given(scenes(), st.sampled_from([64, 128]))
def test_no_cut_is_more_even(scene: tuple[tuple[int, int], Cells], patch: int) -> None:
    (height, width), cells = scene
    shape = min(height, 400), min(width, 400)
    cells = cells[:, : -(-shape[0] // CELL), : -(-shape[1] // CELL)]
    half = cells[0].sum() / 2
    allowed = [
        cut
        for cut in all_cuts(shape, patch, ALL_SPLITS)
        if sum(pixels(cells, strip)[0] for strip in cut.values()) >= half
    ]
    best = max((evenness(cells, cut, ALL_SPLITS) for cut in allowed), default=0.0)
    strips = cut_strips(cells, shape, patch)
    assert (strips is None) == (best == 0)
    if strips is not None:
        assert math.isclose(evenness(cells, strips, ALL_SPLITS), best)


def test_the_largest_patch_that_would_do_does() -> None:
    cells = np.full((2, 9, 11), 4096, np.int64)
    assert cut_strips(cells, (560, 700), 256) is None
    patch = largest_patch(cells, (560, 700), 256, ALL_SPLITS)
    assert patch == 128
    assert cut_strips(cells, (560, 700), patch) is not None
    assert cut_strips(cells, (560, 700), patch + CELL) is None


# Splits of catalogs.


def at(col: int, height: int = 640, width: int = 640) -> Grid:
    """A grid so many pixels right of a common origin."""
    return utm_grid(height, width, (10.0, 0.0, 500_000.0 + 10 * col, 0.0, -10.0, 4_000_000.0))


def labelled(pair_id: str, grid: Grid, split: str | None = None) -> tuple[Pair, Grid]:
    label = here(Path("label.tif"))
    return Pair(pair_id, pair_id, SOURCE, SOURCE, ("red",), label=label, split=split), grid


def config_of(folder: Path, patch: int = 64, **sections: Any) -> Config:
    return make_config(folder, **{**sections, "train": {"patch": patch, **sections.get("train", {})}})


def even_cells(_pair: Pair, grid: Grid) -> Cells:
    return np.full((2, *(-(-length // CELL) for length in grid.shape)), 100, np.int64)


def without(*barren: str) -> Callable[[Pair, Grid], Cells]:
    """The same, but that labels of some pairs have no change."""

    def read(pair: Pair, grid: Grid) -> Cells:
        cells = even_cells(pair, grid)
        cells[1] *= pair.pair_id not in barren
        return cells

    return read


def test_one_scene_is_cut_and_many_are_not(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    one = find_splits(config, [labelled("a", at(0))], even_cells)
    assert not one.whole
    assert set(one.strips["a"]) == {"train", "val", "test"}
    two = find_splits(config, [labelled("a", at(0)), labelled("b", at(5000))], even_cells)
    assert two.strips["a"] == two.strips["b"] == one.strips["a"]
    places = [labelled(f"p{number}", at(5000 * number)) for number in range(4)]
    assert set(find_splits(config, places, even_cells).whole) == {pair.pair_id for pair, _ in places}
    always = config_of(tmp_path, splits={"by": "strips"})
    assert set(find_splits(always, places, even_cells).strips) == {pair.pair_id for pair, _ in places}


def test_dates_of_one_place_are_cut_alike_by_what_all_have(tmp_path: Path) -> None:
    def read(pair: Pair, grid: Grid) -> Cells:
        cells = even_cells(pair, grid)
        cells[1] = 0
        cells[1, :, {"a": 0, "b": 9, "c": 5}[pair.pair_id]] = 10
        return cells

    splits = find_splits(config_of(tmp_path), [labelled(name, at(0)) for name in "abc"], read)
    assert splits.strips["a"] == splits.strips["b"] == splits.strips["c"]
    with pytest.raises(InputError, match=r"b and c share ground on different grids.*take the label of one out"):
        find_splits(config_of(tmp_path), [labelled("b", at(0)), labelled("c", at(7))], read)


def test_training_pairs_alone_are_cut_for_val_unless_no_epoch_is_chosen(tmp_path: Path) -> None:
    placed = [labelled("a", at(0), "train"), labelled("t", at(5000), "test")]
    splits = find_splits(config_of(tmp_path), placed, even_cells)
    assert splits.whole == {"t": "test"}
    assert set(splits.strips["a"]) == {"train", "val"}
    assert splits.parts("val") == {"a": splits.strips["a"]["val"]}
    assert splits.parts("test") == {"t": None}
    last = config_of(tmp_path, train={"keep": "last"})
    assert find_splits(last, placed, even_cells).whole == {"a": "train", "t": "test"}
    given_all = [*placed, labelled("v", at(9000), "val")]
    assert not find_splits(config_of(tmp_path), given_all, even_cells).strips


def test_scenes_that_cannot_be_cut_are_learned_from_whole(tmp_path: Path) -> None:
    placed = [labelled("a", at(0)), labelled("b", at(5000))]
    splits = find_splits(config_of(tmp_path), placed, without("b"))
    assert splits.whole == {"b": "train"}
    assert set(splits.strips) == {"a"}


@pytest.mark.parametrize(
    ("patch", "train", "barren", "expected"),
    [
        (256, {}, [], r"1 separate place\(s\); 3 are needed .* a cannot be cut .* train.patch: 128 would do"),
        (64, {}, ["a"], "a cannot be cut into strips: no labelled, observed pixel of it changed"),
        (64, {"folds": 3}, [], "train.folds: folds are of whole places.* leave train.folds out"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_what_to_do(
    tmp_path: Path, patch: int, train: dict[str, Any], barren: list[str], expected: str
) -> None:
    config = config_of(tmp_path, patch, train=train)
    with pytest.raises(InputError, match=expected):
        find_splits(config, [labelled("a", at(0))], without(*barren))
    assert not known_splits(config, [labelled("a", at(0))], without(*barren))
    places = config_of(tmp_path, splits={"by": "places"})
    with pytest.raises(InputError, match="3 are needed"):
        find_splits(places, [labelled("a", at(0))], even_cells)


def test_models_that_are_given_learned_elsewhere(tmp_path: Path) -> None:
    config = config_of(tmp_path, predict={"models": [str(tmp_path)]})
    assert not known_splits(config, [labelled("a", at(0))], even_cells)


def test_a_strip_leaks_where_it_lies_near_and_nowhere_else(tmp_path: Path) -> None:
    splits = find_splits(config_of(tmp_path), [labelled("a", at(0), "train")], even_cells)
    train = splits.strips["a"]["train"]
    assert train.width == 640, "rows are cut"
    near = at(0).crop(Window(train.stop_row + 43, 0, 20, 640))
    for grid, leaks in ((near, True), (at(0).crop(splits.strips["a"]["val"]), False)):
        placed = [labelled("a", at(0)), labelled("t", grid)]
        found = split_leaks(placed, replace(splits, whole={"t": "test"}), 64)
        assert bool(found.leaks) == leaks
        assert all("strip of train" in leak for leak in found.leaks)


# Labels as strips read them.


def test_labels_and_cells_count_within_a_strip_alone(tmp_path: Path) -> None:
    shape = 300, 200
    random = np.random.default_rng(3)
    label = random.choice([0, 1, 255], shape).astype(np.uint8)
    valid = random.choice([0, 3], shape).astype(np.uint8)
    dates = tuple(random.integers(1, 99, (3, *shape), dtype=np.uint8) for _ in range(2))
    workspace = Workspace(here(tmp_path))
    whole = store_pair(workspace, "p", (dates[0], dates[1]), label, valid, block=256)
    for strip in (Window(128, 0, 172, 200), Window(0, 64, 300, 64)):
        item = replace(whole, within=strip)
        expected = np.full(shape, 255, np.uint8)
        expected[strip.slices] = label[strip.slices]
        for window in (Window(0, 0, *shape), Window(100, 30, 90, 50), Window(0, 0, 10, 10)):
            np.testing.assert_array_equal(read_label(workspace, item, window), expected[window.slices])
        observed = np.where(valid == 3, expected, 255)
        assert read_cells(workspace, item).sum(axis=(1, 2)).tolist() == [(observed < 255).sum(), (observed == 1).sum()]
        inside = [key for key in item.pair.blocks() if (expected[item.pair.window(key).slices] < 255).any()]
        assert item.blocks() == inside
    keys = [whole.key, *(replace(whole, within=Window(0, 0, 64, width)).key for width in (100, 200))]
    assert keys[0] == [whole.pair.key, whole.label_key]
    assert sorted(keys, reverse=True) == [keys[2], keys[1], keys[0]]


# What the check tells.


def write_scene(folder: Path, label: NDArray[np.uint8]) -> Config:
    """A catalog of one labelled scene."""
    grid = at(0, *label.shape)
    for name, seed in (("before", 1), ("after", 2)):
        values = np.random.default_rng(seed).integers(1, 9999, (3, *label.shape), np.uint16)
        values[:, :30] = 0
        write_raster(folder / f"{name}.tif", values, grid, nodata=0)
    write_raster(folder / "label.tif", label, grid)
    (folder / "pairs.csv").write_text("pair_id,before,after,label\nscene,before.tif,after.tif,label.tif\n")
    return config_of(folder, label={"changed": [1], "unchanged": [0], "ignore": [255]})


def test_the_check_says_what_training_will_do(tmp_path: Path) -> None:
    label = np.full((500, 260), 255, np.uint8)  # sparse: all else is ignored
    label[20:480, 40:60] = 0
    label[20:480:3, 40:60] = 1
    config = write_scene(tmp_path, label)
    outlook = look_ahead(config, check_catalog(config, read_catalog(config)).pairs)
    assert outlook is not None
    label[:30] = 255  # not observed
    strips = find_splits(config, [(pair, at(0, *label.shape)) for pair in read_catalog(config)], cells_of_files(config))
    assert outlook.parts == tuple(
        SplitPart(
            split,
            f"scene ({strip_name(strip, label.shape)})",
            int((label[strip.slices] < 255).sum()),
            int((label[strip.slices] == 1).sum()),
        )
        for split, strip in strips.strips["scene"].items()
    )
    lines = outlook.lines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["train", "val", "test"]
    assert "scenes are cut into strips with at least 64 pixels" in lines[3]
    assert not outlook.doubts()


def test_too_little_change_is_doubted(tmp_path: Path) -> None:
    label = np.zeros((500, 260), np.uint8)
    label[20:480:3, 40] = 1
    config = write_scene(tmp_path, label)
    outlook = look_ahead(config, check_catalog(config, read_catalog(config)).pairs)
    assert outlook is not None
    assert [doubt.split()[0] for doubt in outlook.doubts()] == ["train", "val", "test"]


def test_pairs_of_a_split_are_one_line(tmp_path: Path) -> None:
    placed = [labelled(f"p{number}", at(5000 * number), "train") for number in range(5)]
    whole = {pair.pair_id: (1000, 10) for pair, _ in placed}
    splits = Splits(dict.fromkeys(whole, "train"))
    outlook = describe_splits(config_of(tmp_path), placed, splits, whole, even_cells)
    assert outlook.lines() == ["train: 5 pairs: p0, p1, p2, ...; 5,000 labelled pixels, 50 of them changed"]
