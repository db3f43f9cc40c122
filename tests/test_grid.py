"""Grids and windows: positions, crops and keys hold together."""

import json
import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from rasters import UTM33, utm_grid

from cdpipe.geo.grid import PIXEL_TRANSFORM, BlockKey, Grid, Transform, Window


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Grids with pixels of 0.1 to 100 units, turned by any angle and either way up."""
    width, height = draw(st.floats(0.1, 100)), draw(st.floats(0.1, 100))
    flip, angle = draw(st.sampled_from([1, -1])), draw(st.floats(0, 360))
    x, y = draw(st.floats(-1e7, 1e7)), draw(st.floats(-1e7, 1e7))
    place = Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(width, flip * height)
    transform: Transform = (place.a, place.b, place.c, place.d, place.e, place.f)
    return Grid(draw(st.integers(1, 5000)), draw(st.integers(1, 5000)), transform, UTM33)


@st.composite
def windows(draw: st.DrawFn, most: int = 60) -> Window:
    sizes = st.integers(1, most)
    return Window(draw(st.integers(0, most)), draw(st.integers(0, most)), draw(sizes), draw(sizes))


positions = st.floats(-100, 6000)


@given(grids(), positions, positions)
def test_positions_and_coordinates_invert_each_other(grid: Grid, row: float, col: float) -> None:
    assert grid.row_col(*grid.xy(row, col)) == pytest.approx((row, col), abs=1e-6 + 1e-8 / min(grid.pixel_size))
    assert grid.xy(row, col) == pytest.approx(Affine(*grid.transform) @ (col, row))


@given(grids(), st.lists(st.tuples(positions, positions), min_size=1))
def test_arrays_of_positions_are_placed_as_each_of_them(grid: Grid, places: list[tuple[float, float]]) -> None:
    rows, cols = np.array(places).T
    assert np.stack(grid.xy(rows, cols), 1).tolist() == [list(grid.xy(*place)) for place in places]
    x, y = grid.xy(rows, cols)
    assert np.stack(grid.row_col(x, y), 1).tolist() == [
        list(grid.row_col(*place)) for place in zip(x.tolist(), y.tolist(), strict=True)
    ]


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 40))
def test_an_outline_goes_once_around_the_grid(height: int, width: int, points: int) -> None:
    rows, cols = Grid(height, width).outline(points)
    assert rows.shape == cols.shape == (4 * (points - 1),)
    assert ((rows == 0) | (rows == height) | (cols == 0) | (cols == width)).all()
    assert len({*zip(rows.tolist(), cols.tolist(), strict=True)}) == len(rows)
    corners = [(rows[n * (points - 1)], cols[n * (points - 1)]) for n in range(4)]
    assert corners == [(0, 0), (height, 0), (height, width), (0, width)]
    around = np.abs(np.diff(rows, append=0)).sum() + np.abs(np.diff(cols, append=0)).sum()
    assert around == pytest.approx(2 * (height + width))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 40))
def test_points_all_over_a_grid_are_spaced_evenly(height: int, width: int, points: int) -> None:
    grid = Grid(height, width)
    for (rows, cols), ends, step in (
        (grid.nodes(points), 0.0, 1 / (points - 1)),
        (grid.middles(points), 0.5 / points, 1 / points),
    ):
        assert rows.shape == cols.shape == (points, points)
        assert (rows == rows[:, :1]).all()
        assert (cols == cols[:1]).all()
        for along, length in ((rows[:, 0], height), (cols[0], width)):
            assert along[0] == pytest.approx(ends * length)
            assert along[-1] == pytest.approx((1 - ends) * length)
            assert np.diff(along) == pytest.approx(step * length)


@given(grids(), windows(), positions, positions)
def test_a_crop_names_the_same_places(grid: Grid, window: Window, row: float, col: float) -> None:
    crop = grid.crop(window)
    assert crop.shape == window.shape
    assert crop.crs == grid.crs
    assert crop.pixel_size == grid.pixel_size
    assert crop.xy(row, col) == pytest.approx(grid.xy(row + window.row, col + window.col), abs=1e-5)


@given(grids(), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_same_pixels_up_to_the_tolerance(grid: Grid, rows: float, cols: float) -> None:
    a, b, _, d, e, _ = grid.transform
    x, y = grid.xy(rows, cols)
    moved = Grid(grid.height, grid.width, (a, b, x, d, e, y), grid.crs)
    off = max(abs(rows), abs(cols))
    assume(abs(off - 0.01) > 1e-4)
    assert grid.same_pixels(moved) == (off < 0.01)
    assert grid.same_pixels(moved, tolerance_px=0.5)


def test_other_sizes_and_reference_systems_are_other_pixels() -> None:
    grid = utm_grid(100, 200)
    assert grid.same_pixels(utm_grid(100, 200))
    assert not grid.same_pixels(utm_grid(100, 201))
    assert not grid.same_pixels(Grid(100, 200, grid.transform, None))
    # a pixel size that differs by 0.01 % shows at the far corner only
    assert not grid.same_pixels(Grid(100, 200, (10.001, *grid.transform[1:]), grid.crs))


def test_pixel_size_of_a_turned_grid() -> None:
    assert Grid(1, 1, (3.0, -8.0, 0.0, 4.0, 6.0, 0.0)).pixel_size == (5.0, 10.0)


@given(grids())
def test_json_and_pickle_give_the_grid_back(grid: Grid) -> None:
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid
    assert pickle.loads(pickle.dumps(grid)) == grid  # noqa: S301 (our own)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 5)])
def test_empty_grids_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Grid(height, width)


def test_singular_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="invertible transform"):
        Grid(5, 5, (1.0, 2.0, 0.0, 2.0, 4.0, 0.0))


def test_without_more_a_grid_has_pixel_coordinates() -> None:
    grid = Grid(5, 7)
    assert (grid.transform, grid.crs) == (PIXEL_TRANSFORM, None)
    assert grid.xy(2, 3) == (3, 2)


def cells(window: Window) -> set[tuple[int, int]]:
    return {(row, col) for row in range(window.row, window.stop_row) for col in range(window.col, window.stop_col)}


@given(windows(12), windows(12))
def test_an_intersection_is_what_both_hold(first: Window, second: Window) -> None:
    common = first.intersect(second)
    assert common == second.intersect(first)
    assert (set() if common is None else cells(common)) == cells(first) & cells(second)


@given(windows(), windows())
def test_slices_take_the_same_pixels_from_a_part_and_from_the_whole(inner: Window, outer: Window) -> None:
    scene = np.arange(130 * 130).reshape(130, 130)
    part = scene[outer.slices]
    if inner.intersect(outer) == inner:
        assert np.array_equal(part[inner.slices_in(outer)], scene[inner.slices])
    else:
        with pytest.raises(ValueError, match="is not inside"):
            inner.slices_in(outer)


@pytest.mark.parametrize("numbers", [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)])
def test_impossible_windows_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="a window needs"):
        Window(*numbers)


@pytest.mark.parametrize("pair_id", ["", ".a", "-a", "a/b", "a b", "ä", "a" * 129, "..", "a\n"])
def test_a_block_key_needs_an_id_that_is_a_folders_name(pair_id: str) -> None:
    with pytest.raises(ValueError, match="a pair id must match"):
        BlockKey(pair_id, 0, 0)


def test_block_keys_sort_and_refuse_negative_positions() -> None:
    assert min(BlockKey("b", 0, 0), BlockKey("a", 1, 0), BlockKey("a", 0, 9)) == BlockKey("a", 0, 9)
    with pytest.raises(ValueError, match=">= 0"):
        BlockKey("a", 0, -1)
