"""Varied synthetic pairs: what they are made of, and what they say of themselves."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.demo import varied
from cdpipe.demo.canvas import Canvas, add_surfaces, all_surfaces, fill_outline, paint
from cdpipe.demo.patterns import fractal_noise, highest_share, lattice, patchwork, turned_axes
from cdpipe.demo.satellite import BYTES, REFLECTANCE, record, shift
from cdpipe.demo.spectra import draw_materials, roofs
from cdpipe.demo.streets import build_quarter
from cdpipe.demo.varied_scenes import make_varied_scenes

SEEDS = st.integers(0, 2**32 - 1)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def empty_canvas(seed: int, side: int = 64) -> Canvas:
    own = rng(seed)
    top = (np.zeros((side, side), np.int32), np.zeros((side, side), np.int32))
    return Canvas(own, draw_materials(own), 5.0, top, (0.5, 0.5))


def label_of(canvas: Canvas) -> NDArray[np.uint8]:
    return varied._label(canvas, all_surfaces(canvas), np.zeros(canvas.shape, np.bool_))


@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_a_pair_is_decided_by_its_seed(seed: int) -> None:
    one, same, other = (varied.draw_pair(rng(each), 48) for each in (seed, seed, seed + 1))
    assert np.array_equal(one.before, same.before)
    assert np.array_equal(one.after, same.after)
    assert np.array_equal(one.label, same.label)
    assert not np.array_equal(one.before, other.before)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_pair_has_the_ranges_that_it_says(seed: int) -> None:
    pair = varied.draw_pair(rng(seed), 48)
    assert varied.METRES[0] <= pair.metres or pair.metres > 2  # the usual ones are spread around ten metres
    for date in (pair.before, pair.after):
        assert date.shape == (4, 48, 48)
        assert date.dtype == np.uint16
        assert date.min() >= 1
        assert date.max() <= (BYTES if pair.numbers == BYTES else 28_000)
    assert set(np.unique(pair.label)) <= {0, 1, 255}


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_what_is_labelled_came_or_went_and_can_be_seen(seed: int) -> None:
    canvas = empty_canvas(seed)
    first = add_surfaces(canvas, np.full((1, 4), 0.2))
    paint(canvas, np.ones((64, 64), np.bool_), first)
    seen, unseen = np.zeros((64, 64), np.bool_), np.zeros((64, 64), np.bool_)
    seen[10:30, 10:30] = unseen[40:60, 40:60] = True
    paint(canvas, seen, add_surfaces(canvas, np.full((1, 4), 0.5), changed=True), (1,))
    paint(canvas, unseen, add_surfaces(canvas, np.full((1, 4), 0.205), changed=True), (1,))
    expected = np.where(seen, 1, np.where(unseen, 255, 0))[::2, ::2]
    assert np.array_equal(label_of(canvas), expected)


def test_a_field_in_another_state_is_no_change() -> None:
    canvas = empty_canvas(0)
    looks = np.stack([np.full((1, 4), 0.1), np.full((1, 4), 0.6)], axis=1)
    paint(canvas, np.ones((64, 64), np.bool_), add_surfaces(canvas, looks))
    assert not label_of(canvas).any()


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_new_quarter_stands_where_and_when_it_is_put(seed: int) -> None:
    canvas = empty_canvas(seed)
    mask = fill_outline((64, 64), np.array([(8.0, 8.0), (50.0, 12.0), (40.0, 55.0)]))
    add_surfaces(canvas, np.full((1, 4), 0.2))
    build_quarter(canvas, mask, dates=(1,), changed=True)
    assert not canvas.top[0].any()
    assert np.array_equal(all_surfaces(canvas).changed[canvas.top[1]], mask)


def test_surfaces_are_numbered_in_order() -> None:
    canvas = empty_canvas(0)
    assert add_surfaces(canvas, np.full((3, 4), 0.1), rough=0.1) == 0
    assert add_surfaces(canvas, np.full((2, 4), 0.2), height=np.array([1.0, 2.0])) == 3
    table = all_surfaces(canvas)
    assert table.looks.shape == (5, 2, 4)
    assert table.height.tolist() == [0, 0, 0, 1, 2]
    assert np.allclose(table.rough, [0.1, 0.1, 0.1, 0.05, 0.05])


@given(SEEDS, st.floats(0.05, 0.95))
@settings(max_examples=10, deadline=None)
def test_a_share_of_noise_is_that_share(seed: int, share: float) -> None:
    noise = fractal_noise(rng(seed), (128, 128), 20)
    assert abs(highest_share(noise, share).mean() - share) < 0.1


@given(SEEDS, st.floats(3, 20), st.floats(3, 20), st.booleans())
@settings(max_examples=20, deadline=None)
def test_cells_of_a_lattice_are_rectangles_of_its_sides(seed: int, long: float, deep: float, staggered: bool) -> None:
    axes = turned_axes(rng(seed), (60, 60), 0.0, 0.0, 1.0)
    cells = lattice(rng(seed), axes, (long, deep), staggered=staggered)
    assert cells.number.min() >= 0
    assert cells.number.max() < cells.count
    for number in np.unique(cells.number):
        rows, columns = np.nonzero(cells.number == number)
        assert np.ptp(rows) <= deep
        assert np.ptp(columns) <= long
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert (cells.along >= 0).all()
    assert (cells.along < 1.0001).all()


def test_a_patchwork_has_about_as_many_patches_as_fit() -> None:
    number, count = patchwork(rng(0), (200, 200), 20)
    assert number.min() >= 0
    assert number.max() < count
    assert 50 < len(np.unique(number)) < 200


@given(st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=10, deadline=None)
def test_a_shift_of_whole_pixels_moves_them(x: int, y: int) -> None:
    image = rng(0).random((4, 32, 32), np.float32)
    moved = shift(image, np.array([x, y], np.float64))
    expected = np.roll(image, (y, x), (1, 2))
    assert np.allclose(moved[:, 6:-6, 6:-6], expected[:, 6:-6, 6:-6], atol=1e-6)


@pytest.mark.parametrize("numbers", [BYTES, REFLECTANCE])
def test_a_sensor_keeps_the_order_of_what_is_far_apart(numbers: int) -> None:
    image = np.full((4, 64, 64), 0.1, np.float32)
    image[:, :, 32:] = 0.4
    scene = record(rng(3), image, 0.8, 0.005, numbers)
    assert scene.shape == (4, 32, 32)
    assert (scene[:, :, 18:].min(axis=(1, 2)) > scene[:, :, :14].max(axis=(1, 2))).all()


def test_roofs_are_reflectances() -> None:
    looks = roofs(draw_materials(rng(0)), 500)
    assert looks.shape == (500, 4)
    assert looks.min() > 0
    assert looks.max() <= 1.1
    assert np.ptp(looks) > 0.3


def test_scenes_are_written_as_the_table_says(tmp_path: Path) -> None:
    table = make_varied_scenes(tmp_path, seed=1, pairs=11, size=48)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [row["split"] for row in rows].count("val") == 1
    places, counts = set(), set()
    for row in rows:
        with rasterio.open(tmp_path / row["before"]) as before, rasterio.open(tmp_path / row["after"]) as after:
            assert before.count == after.count == (3 if row["before_sensor"] == "rgb" else 4)
            assert before.descriptions == ("red", "green", "blue", "nir")[: before.count]
            assert before.bounds == after.bounds
            places.add((before.bounds.left, before.bounds.top))
            counts.add(before.count)
        with rasterio.open(tmp_path / row["label"]) as label:
            assert set(np.unique(label.read())) <= {0, 1, 255}
    assert len(places) == len(rows)
    assert counts == {3, 4}
