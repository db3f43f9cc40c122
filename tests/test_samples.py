"""Samples: determined by (seed, epoch, index), aligned with their labels, and drawn where they should be."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import utm_grid
from scipy.stats import chi2
from stored import RGB, Bytes, Dates, store_pair

from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, TILE
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import LabelledPair, StoredPair
from cdpipe.training.augment import make_augmentation
from cdpipe.training.samples import (
    CellPool,
    PixelPool,
    Sampler,
    draw_pixel,
    draw_sample,
    draw_window,
    index_cells,
    index_pixels,
)
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

STACKED = Recipe("stacked", ("red", "green", "blue"), "common", together=False)

LARGE, QUIET, SMALL = (300, 560), (130, 200), (40, 50)


def coordinates(shape: tuple[int, int], number: int) -> Dates:
    """Dates whose pixels say where they are: row, column and pair, the second date upside down."""
    rows, cols = np.indices(shape)
    before = np.stack([rows, cols, np.full(shape, number) + (rows + cols) % 2]).astype(np.uint16)
    return before, before[:, ::-1].copy()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(here(tmp_path_factory.mktemp("samples")))


@pytest.fixture(scope="module")
def labels() -> tuple[Bytes, Bytes, Bytes]:
    """Labels of a large pair, of one without any change, and of one that is smaller than a patch."""
    large, quiet, small = (np.zeros(shape, np.uint8) for shape in (LARGE, QUIET, SMALL))
    large[70, 100] = large[299, 559] = 1
    large[130:190, 200:280] = 255
    small[3:9, 5:20] = 1
    return large, quiet, small


@pytest.fixture(scope="module")
def pairs(workspace: Workspace, labels: tuple[Bytes, Bytes, Bytes]) -> tuple[LabelledPair, ...]:
    stored = []
    for number, label in enumerate(labels):
        valid = np.full(label.shape, 3, np.uint8)
        valid[:20, -25:] = 1 + number % 2
        stored.append(store_pair(workspace, f"p{number}", coordinates(label.shape, 10 * number), label, valid))
    return tuple(stored)


def make_sampler(workspace: Workspace, pairs: tuple[LabelledPair, ...], patch: int, share: float = 0.7) -> Sampler:
    pools = index_cells(workspace, pairs)
    return Sampler(workspace, pairs, pools, patch, share, STACKED, seed=5)


def places(sampler: Sampler, x: NDArray[np.float32], number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of every pixel of a sample, read off its values; at both dates, which must agree."""
    pair = sampler.pairs[number].pair
    before, after = pair.scalings(STACKED)
    (row, col, _), (mirrored_row, same_col, _) = (
        [(band - bias) / gain for band, (gain, bias) in zip(date, scaling.each, strict=True)]
        for date, scaling in ((x[:3], before), (x[3:], after))
    )
    rows, cols = np.rint(row).astype(np.intp), np.rint(col).astype(np.intp)
    counts = x.any(axis=0)
    assert (rows + np.rint(mirrored_row).astype(np.intp) == pair.grid.height - 1)[counts].all()
    assert (cols == np.rint(same_col))[counts].all()
    return rows, cols


def window_of(sampler: Sampler, epoch: int, index: int) -> tuple[int, int, int]:
    return draw_window(sampler, np.random.default_rng([sampler.seed, epoch, index]))


def test_a_sample_is_determined_by_seed_epoch_and_index(workspace: Workspace, pairs: tuple[LabelledPair, ...]) -> None:
    sampler = make_sampler(workspace, pairs, 64)
    again = make_sampler(workspace, pairs, 64)
    numbers = [(epoch, index) for epoch in (0, 3) for index in (0, 1, 7)]
    first = {number: draw_sample(sampler, *number) for number in numbers}
    for number in reversed(numbers):
        scene, label = draw_sample(again, *number)
        assert scene.tobytes() == first[number][0].tobytes()
        assert label.tobytes() == first[number][1].tobytes()


def test_other_seeds_epochs_and_indices_give_other_samples(
    workspace: Workspace, pairs: tuple[LabelledPair, ...]
) -> None:
    sampler = make_sampler(workspace, pairs[:1], 64, share=0.0)
    other = dataclasses.replace(sampler, seed=6)
    drawn = [
        draw_sample(each, epoch, index)[0].tobytes()
        for each in (sampler, other)
        for epoch in range(3)
        for index in range(4)
    ]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("patch", [32, 64, 96, 320])
def test_pixels_of_both_dates_and_of_the_label_stay_together(
    workspace: Workspace, pairs: tuple[LabelledPair, ...], labels: tuple[Bytes, Bytes, Bytes], patch: int
) -> None:
    """However a sample is mirrored and turned, each of its pixels has the label of its place."""
    sampler = make_sampler(workspace, pairs, patch)
    counted = 0
    for index in range(12):
        x, label = draw_sample(sampler, 0, index)
        assert x.shape == (6, patch, patch)
        assert label.shape == (patch, patch)
        number = window_of(sampler, 0, index)[0]
        rows, cols = places(sampler, x, number)
        known = x.any(axis=0)
        assert (label[~known] == 255).all()  # what is not observed is 0 and must not count
        assert (label[known] == labels[number][rows[known], cols[known]]).all()
        counted += int(known.sum())
    assert counted > 6 * patch**2


def test_a_sample_shows_the_window_that_was_drawn(workspace: Workspace, pairs: tuple[LabelledPair, ...]) -> None:
    sampler = make_sampler(workspace, pairs[:1], 64)
    for index in range(10):
        _, row, col = window_of(sampler, 2, index)
        x, _ = draw_sample(sampler, 2, index)
        rows, cols = places(sampler, x, 0)
        known = x.any(axis=0)
        assert (rows[known].min(), rows[known].max()) == (row, row + 63)
        assert (cols[known].min(), cols[known].max()) == (col, col + 63)


def test_samples_are_turned_in_all_eight_ways(workspace: Workspace, pairs: tuple[LabelledPair, ...]) -> None:
    sampler = make_sampler(workspace, pairs[:1], 64)
    ways = set()
    for index in range(60):
        x, _ = draw_sample(sampler, 0, index)
        if x.any(axis=0).all():
            rows, cols = places(sampler, x, 0)
            corners = (0, 0), (0, -1), (-1, 0)
            ways.add(tuple((rows[at] > rows.min(), cols[at] > cols.min()) for at in corners))
    assert len(ways) == 8


def test_a_scene_smaller_than_a_patch_is_mirrored(
    workspace: Workspace, pairs: tuple[LabelledPair, ...], labels: tuple[Bytes, Bytes, Bytes]
) -> None:
    sampler = make_sampler(workspace, pairs[2:], 128)
    x, label = draw_sample(sampler, 0, 0)
    rows, cols = places(sampler, x, 0)
    expected = [np.pad(axis, (0, 128 - len(axis)), mode="reflect") for axis in map(np.arange, SMALL)]
    where = np.stack(np.meshgrid(*expected, indexing="ij"))
    seen = np.where(x.any(axis=0), np.stack([rows, cols]), -1)
    not_observed = np.zeros(SMALL, np.bool_)
    not_observed[:20, -25:] = True
    hidden = np.where(not_observed[where[0], where[1]], -1, where)
    views = [np.rot90(each, turns, (1, 2)) for each in (hidden, hidden[:, :, ::-1]) for turns in range(4)]
    assert any(np.array_equal(seen, view) for view in views)
    assert (label == 1).sum() == (np.where(not_observed, 255, labels[2])[where[0], where[1]] == 1).sum() > 0


def test_windows_drawn_for_change_show_change(workspace: Workspace, pairs: tuple[LabelledPair, ...]) -> None:
    for patch in (64, 96, 320):
        sampler = make_sampler(workspace, pairs, patch, share=1.0)
        assert all((draw_sample(sampler, 0, index)[1] == 1).any() for index in range(12))


def test_a_pair_without_change_is_drawn_only_among_the_rest(
    workspace: Workspace, pairs: tuple[LabelledPair, ...]
) -> None:
    everything = index_cells(workspace, pairs)[0]
    quiet = len(everything.cells[1]) / everything.size
    for share in (0.0, 0.7, 1.0):
        sampler = make_sampler(workspace, pairs, 64, share)
        drawn = [window_of(sampler, 0, index)[0] for index in range(1000)]
        assert drawn.count(1) / 1000 == pytest.approx((1 - share) * quiet, abs=0.04)
        assert share < 1 or 1 not in drawn


def test_pairs_without_any_change_are_drawn_all_the_same(workspace: Workspace, pairs: tuple[LabelledPair, ...]) -> None:
    sampler = make_sampler(workspace, pairs[1:2], 64, share=1.0)
    assert {window_of(sampler, 0, index)[0] for index in range(20)} == {0}
    assert set(np.unique(draw_sample(sampler, 0, 0)[1])) <= {0, 255}


def test_every_labelled_cell_is_drawn_and_no_other(tmp_path: Path) -> None:
    label = np.full((200, 150), 255, np.uint8)
    label[10, 10] = label[150, 149] = 0
    label[70, 70] = 1
    workspace = Workspace(here(tmp_path))
    pair = store_pair(workspace, "p", coordinates(label.shape, 0), label)
    empty = store_pair(workspace, "q", coordinates(label.shape, 9), np.full_like(label, 255))
    valid, changed = index_cells(workspace, (empty, pair))
    assert [valid.pick(number) for number in range(valid.size)] == [(1, 0), (1, 4), (1, 8)]
    assert [changed.pick(number) for number in range(changed.size)] == [(1, 4)]
    with pytest.raises(ValueError, match="3 cells"):
        valid.pick(3)


@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    patch=st.sampled_from([32, 64, 96, 256]),
    place=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    seed=st.integers(0, 2**32),
)
def test_windows_lie_inside_the_scene_and_hold_their_cell(
    shape: tuple[int, int], patch: int, place: tuple[float, float], seed: int
) -> None:
    pixel = [int(share * length) for share, length in zip(place, shape, strict=True)]
    cell = pixel[0] // CELL * -(-shape[1] // CELL) + pixel[1] // CELL
    pool = CellPool((0,), (np.array([cell]),))
    pair = LabelledPair(StoredPair("p", "k", utm_grid(*shape), TILE, RGB, ((1.0, 0.0), (1.0, 0.0)), {}), "l")
    sampler = Sampler(Workspace(here(Path())), (pair,), (pool, pool), patch, 0.5, STACKED, seed=0)
    _, *starts = draw_window(sampler, np.random.default_rng(seed))
    for start, at, length in zip(starts, pixel, shape, strict=True):
        assert start >= 0
        assert start + patch <= max(length, patch)
        cell_start, cell_stop = at // CELL * CELL, min(at // CELL * CELL + CELL, length)
        if patch >= cell_stop - cell_start:
            assert start <= cell_start
            assert cell_stop <= start + patch
        else:
            assert cell_start <= start
            assert start + patch <= cell_stop


@pytest.mark.parametrize("sampling", ["cells", "pixels"])
def test_samples_of_a_strip_show_nothing_of_another_and_learn_from_no_other_label(
    workspace: Workspace, sampling: str
) -> None:
    label = np.zeros((384, 200), np.uint8)
    label[::7, ::5] = 1
    whole = store_pair(workspace, "strips", coordinates(label.shape, 0), label)
    item, val = dataclasses.replace(whole, within=Window(192, 0, 192, 200)), Window(0, 0, 128, 200)
    pools = index_cells(workspace, (item,)) if sampling == "cells" else index_pixels(workspace, (item,), "area")
    sampler = Sampler(workspace, (item,), pools, CELL, 0.5, STACKED, seed=2, augmentation=make_augmentation(()))
    above = 0
    for index in range(60):
        _, row, col = draw_window(sampler, np.random.default_rng([2, 0, index]))
        window = Window(row, col, CELL, CELL)
        assert window.intersect(val) is None
        above += row < 192
        expected = np.full(label.shape, 255, np.uint8)
        expected[192:] = label[192:]
        np.testing.assert_array_equal(draw_sample(sampler, 0, index)[1], expected[window.slices])
    assert (above > 0) == (sampling == "pixels"), "windows reach into the buffer, their labels do not count there"


def make_pixel_sampler(
    workspace: Workspace, pairs: tuple[LabelledPair, ...], patch: int, share: float, pair_weight: str = "area"
) -> Sampler:
    return Sampler(workspace, pairs, index_pixels(workspace, pairs, pair_weight), patch, share, STACKED, seed=5)


@pytest.fixture(scope="module")
def scattered(workspace: Workspace) -> tuple[tuple[LabelledPair, ...], list[NDArray[np.uint8]]]:
    """Pairs with few changed pixels in cells of every kind, some hidden, and their labels as they count."""
    rng = np.random.default_rng(8)
    stored, counted = [], []
    for number, (shape, changed) in enumerate((((150, 200), 30), ((70, 90), 12), ((64, 64), 0))):
        label = np.where(rng.random(shape) < 0.1, 255, 0).astype(np.uint8)
        label.flat[rng.choice(label.size, changed, replace=False)] = 1
        valid = np.where(rng.random(shape) < 0.2, rng.integers(0, 3, shape), 3).astype(np.uint8)
        stored.append(store_pair(workspace, f"s{number}", coordinates(shape, number), label, valid))
        counted.append(np.where(valid == 3, label, 255).astype(np.uint8))
    return tuple(stored), counted


@pytest.mark.parametrize("pair_weight", ["area", "sqrt", "equal"])
def test_every_changed_pixel_is_drawn_alike(
    workspace: Workspace,
    scattered: tuple[tuple[LabelledPair, ...], list[NDArray[np.uint8]]],
    pair_weight: str,
) -> None:
    pairs, labels = scattered
    sampler = make_pixel_sampler(workspace, pairs, 32, 1.0, pair_weight)
    power = {"area": 1, "sqrt": 0.5, "equal": 0}[pair_weight]
    counts = [int((label == 1).sum()) for label in labels]
    total = sum(count**power for count in counts if count)
    expected = {
        (number, int(row), int(col)): counts[number] ** power / total / counts[number]
        for number, label in enumerate(labels)
        for row, col in np.argwhere(label == 1)
    }
    assert len(expected) > 20
    rng, draws = np.random.default_rng(0), 4000
    pool = sampler.pools[1]
    assert isinstance(pool, PixelPool)
    assert pool.size == len(expected)
    found = Counter(draw_pixel(sampler, pool, changed=True, rng=rng) for _ in range(draws))
    assert found.keys() == expected.keys()
    squares = sum((found[each] - draws * chance) ** 2 / (draws * chance) for each, chance in expected.items())
    assert chi2.sf(squares, len(expected) - 1) > 0.001


def test_other_samples_are_drawn_around_any_labelled_pixel(
    workspace: Workspace, scattered: tuple[tuple[LabelledPair, ...], list[NDArray[np.uint8]]]
) -> None:
    pairs, labels = scattered
    sampler = make_pixel_sampler(workspace, pairs, 32, 0.0)
    counts = [int((label != 255).sum()) for label in labels]
    pool = sampler.pools[0]
    assert isinstance(pool, PixelPool)
    assert pool.size == sum(counts)
    rng = np.random.default_rng(1)
    drawn = [draw_pixel(sampler, pool, changed=False, rng=rng) for _ in range(2000)]
    assert all(labels[number][row, col] != 255 for number, row, col in drawn)
    shares = [sum(number == each for number, _, _ in drawn) / len(drawn) for each in range(3)]
    assert shares == pytest.approx([count / sum(counts) for count in counts], abs=0.04)


def test_a_drawn_pixel_lies_anywhere_in_its_window(tmp_path: Path) -> None:
    """Far from the edges every place is equally likely; windows never leave the scene."""
    workspace = Workspace(here(tmp_path))
    label = np.zeros((300, 300), np.uint8)
    label[150, 140] = 1
    pair = store_pair(workspace, "p", coordinates(label.shape, 0), label)
    sampler = make_pixel_sampler(workspace, (pair,), 32, 1.0)
    rng = np.random.default_rng(2)
    drawn = [draw_window(sampler, rng)[1:] for _ in range(3000)]
    for axis, place in enumerate((150, 140)):
        within = np.bincount([place - start[axis] for start in drawn], minlength=32)
        assert len(within) == 32
        assert chi2.sf(((within - 3000 / 32) ** 2 / (3000 / 32)).sum(), 31) > 0.001


def test_half_of_the_samples_hold_a_changed_pixel(
    workspace: Workspace, pairs: tuple[LabelledPair, ...], labels: tuple[Bytes, Bytes, Bytes]
) -> None:
    sampler = make_pixel_sampler(workspace, pairs[:1], 64, 0.5)
    assert (labels[0] == 1).sum() == 2
    held = [(draw_sample(sampler, 0, index)[1] == 1).any() for index in range(200)]
    assert 70 < sum(held) < 150
    certain = make_pixel_sampler(workspace, pairs, 64, 1.0)
    assert all((draw_sample(certain, 0, index)[1] == 1).any() for index in range(40))
    for index in range(40):
        number, row, col = window_of(certain, 3, index)
        height, width = labels[number].shape
        assert 0 <= row <= max(height - 64, 0)
        assert 0 <= col <= max(width - 64, 0)


def test_pasted_rectangles_come_from_other_samples_that_the_seed_determines(
    workspace: Workspace, pairs: tuple[LabelledPair, ...]
) -> None:
    plain = make_pixel_sampler(workspace, pairs, 64, 0.5)
    pasting = dataclasses.replace(plain, augmentation=make_augmentation([{"Paste": {"p": 1.0, "side": [0.3, 0.6]}}]))
    nothing = dataclasses.replace(plain, augmentation=make_augmentation([]))
    changed = 0
    for index in range(12):
        x, label = draw_sample(pasting, 0, index)
        again = draw_sample(pasting, 0, index)
        assert (x.tobytes(), label.tobytes()) == (again[0].tobytes(), again[1].tobytes())
        changed += int((x != draw_sample(nothing, 0, index)[0]).any())
    assert changed > 5


def test_a_label_that_does_not_hold_what_its_cells_count_is_damage(workspace: Workspace, tmp_path: Path) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[3, 4] = 1
    workspace = Workspace(here(tmp_path))
    pair = store_pair(workspace, "p", coordinates(label.shape, 0), label)
    sampler = make_pixel_sampler(workspace, (pair,), 32, 1.0)
    wrong = PixelPool((0,), np.ones(1), (np.array([0]),), (np.array([9]),))
    seed = next(seed for seed in range(20) if wrong.pick(np.random.default_rng(seed))[2] > 0)
    with pytest.raises(IntegrityError, match="pair p: the label does not hold what its cells count; run cdpipe verify"):
        draw_pixel(sampler, wrong, changed=True, rng=np.random.default_rng(seed))
