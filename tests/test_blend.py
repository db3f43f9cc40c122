"""Blending against a weighted mean over the whole scene, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid
from cdpipe.inference.patches import blend, blend_weights

Patches = list[tuple[int, int, NDArray[np.float32]]]

SIZES = st.integers(1, 33).flatmap(lambda patch: st.tuples(st.just(patch), st.integers(1, patch)))


@st.composite
def patch_grids(draw: st.DrawFn) -> PatchGrid:
    patch = draw(st.integers(1, 24))
    stride = draw(st.integers((patch + 3) // 4, patch))
    return PatchGrid((draw(st.integers(1, 70)), draw(st.integers(1, 70))), patch, stride)


def scene_of(patch_grid: PatchGrid) -> Window:
    return Window(0, 0, *patch_grid.shape)


def random_patches(patch_grid: PatchGrid, seed: int) -> Patches:
    """Probabilities for every patch, some of them exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    side = (patch_grid.patch, patch_grid.patch)
    values = (np.clip(rng.uniform(-0.5, 1.5, side), 0, 1).astype(np.float32) for _ in iter(int, 1))
    return [(row, col, next(values)) for row, col in patch_grid.touching(scene_of(patch_grid))]


def brute_force(patches: Patches, weights: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Every pixel by itself, in float64."""
    mean = np.full(shape, np.nan)
    side = len(weights)
    for row, col in np.ndindex(*shape):
        terms = [
            (float(weights[row - top, col - left]), float(values[row - top, col - left]))
            for top, left, values in patches
            if 0 <= row - top < side and 0 <= col - left < side
        ]
        if terms:
            mean[row, col] = sum(weight * value for weight, value in terms) / sum(weight for weight, _ in terms)
    return mean


@given(size=SIZES)
def test_weights_are_positive_symmetric_and_separable(size: tuple[int, int]) -> None:
    weights = blend_weights(*size)
    assert weights.shape == (size[0], size[0])
    assert weights.dtype == np.float32
    assert ((weights > 0) & (weights <= 1)).all()
    for turned in (weights.T, weights[::-1], weights[:, ::-1]):
        assert np.array_equal(turned, weights)
    along = weights[size[0] // 2]
    np.testing.assert_allclose(weights, np.outer(along, along) / along[size[0] // 2], rtol=1e-6)
    assert (np.diff(along[: (size[0] + 1) // 2]) >= 0).all()  # they fall off towards the edge


@given(patch=st.integers(1, 40), overlap=st.integers(0, 20))
def test_two_neighbours_weights_add_up_to_one(patch: int, overlap: int) -> None:
    overlap = min(overlap, patch // 2)
    ramp = np.sqrt(blend_weights(patch, patch - overlap).diagonal())
    np.testing.assert_allclose(ramp[patch - overlap :] + ramp[:overlap], 1, rtol=1e-6)
    assert (ramp[overlap : patch - overlap] == 1).all()


@given(patch_grid=patch_grids(), value=st.floats(0, 1, width=32))
def test_patches_of_one_value_blend_to_that_value(patch_grid: PatchGrid, value: float) -> None:
    constant = np.full((patch_grid.patch, patch_grid.patch), value, np.float32)
    patches = [(row, col, constant) for row, col in patch_grid.touching(scene_of(patch_grid))]
    result = blend(patches, blend_weights(patch_grid.patch, patch_grid.stride), scene_of(patch_grid))
    assert result.shape == patch_grid.shape
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, value, rtol=1e-6, atol=1e-37)
    if value in (0, 1):
        assert (result == value).all()


@given(patch_grid=patch_grids(), seed=st.integers(0, 2**32 - 1))
def test_a_mean_of_probabilities_is_one(patch_grid: PatchGrid, seed: int) -> None:
    weights = blend_weights(patch_grid.patch, patch_grid.stride)
    result = blend(random_patches(patch_grid, seed), weights, scene_of(patch_grid))
    assert ((result >= 0) & (result <= 1)).all()


@given(patch=st.integers(1, 16), rows=st.integers(1, 5), cols=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_without_overlap_patches_lie_side_by_side_bit_by_bit(patch: int, rows: int, cols: int, seed: int) -> None:
    scene = np.random.default_rng(seed).random((rows * patch, cols * patch), np.float32)
    patch_grid = PatchGrid(scene.shape, patch, patch)
    patches = [
        (row, col, scene[row : row + patch, col : col + patch])
        for row, col in patch_grid.touching(scene_of(patch_grid))
    ]
    assert len(patches) == rows * cols
    assert np.array_equal(blend(patches, blend_weights(patch, patch), scene_of(patch_grid)), scene)


@pytest.mark.parametrize(
    ("shape", "patch", "stride"),
    [((30, 41), 12, 9), ((17, 17), 16, 5), ((1, 40), 8, 6), ((40, 1), 8, 3), ((5, 5), 8, 6), ((33, 20), 7, 7)],
)
def test_it_is_the_weighted_mean_over_the_whole_scene(shape: tuple[int, int], patch: int, stride: int) -> None:
    patch_grid = PatchGrid(shape, patch, stride)
    patches, weights = random_patches(patch_grid, 1), blend_weights(patch, stride)
    expected = brute_force(patches, weights, shape)
    assert not np.isnan(expected).any()
    np.testing.assert_allclose(blend(patches, weights, scene_of(patch_grid)), expected, rtol=2e-6)


@given(patch_grid=patch_grids(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_window_gets_the_bits_of_the_whole(patch_grid: PatchGrid, seed: int, data: st.DataObject) -> None:
    patches, weights = random_patches(patch_grid, seed), blend_weights(patch_grid.patch, patch_grid.stride)
    row, col = (data.draw(st.integers(0, length - 1)) for length in patch_grid.shape)
    height = data.draw(st.integers(1, patch_grid.shape[0] - row))
    width = data.draw(st.integers(1, patch_grid.shape[1] - col))
    window = Window(row, col, height, width)
    touching = set(patch_grid.touching(window))
    needed = [patch for patch in patches if patch[:2] in touching]
    whole = blend(patches, weights, scene_of(patch_grid))
    assert np.array_equal(blend(needed, weights, window), whole[window.slices])


def test_where_no_patch_lies_there_is_no_number() -> None:
    patch = np.full((4, 4), 0.5, np.float32)
    result = blend([(2, 3, patch), (90, 90, patch)], blend_weights(4, 3), Window(0, 0, 8, 8))
    expected = np.full((8, 8), np.nan)
    expected[2:6, 3:7] = 0.5
    np.testing.assert_array_equal(result, expected)
    assert np.isnan(blend([], blend_weights(4, 3), Window(5, 5, 2, 3))).all()
