"""Cells of a scene are the same whatever the windows that it is read in."""

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.report import scene as report_scene
from cdpipe.report.scene import cell_counts, cell_side, cell_windows, mean_of, sum_cells


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 20), st.integers(1, 40))
def test_sums_of_windows_are_those_of_the_whole(height: int, width: int, cell: int, step: int) -> None:
    scene = np.random.default_rng(height * width).integers(0, 1000, (2, height, width))
    whole = np.zeros((2, *cell_counts((height, width), cell)))
    for row in range(height):
        for col in range(width):
            whole[:, row // cell, col // cell] += scene[:, row, col]
    with mock.patch.object(report_scene, "STEP", step):
        found = np.full(whole.shape, np.nan)
        for window, place in cell_windows((height, width), cell):
            found[..., *place] = sum_cells(scene[..., *window.slices], cell)
    np.testing.assert_array_equal(found, whole)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300))
def test_cells_are_as_small_as_they_may_be(height: int, width: int, most: int) -> None:
    cell = cell_side((height, width), most)
    assert max(cell_counts((height, width), cell)) <= most
    assert cell == 1 or max(cell_counts((height, width), cell - 1)) > most


def test_a_mean_of_nothing_is_not_zero() -> None:
    np.testing.assert_array_equal(mean_of(np.array([0.0, 6.0]), np.array([0.0, 3.0])), [np.nan, 2.0])
