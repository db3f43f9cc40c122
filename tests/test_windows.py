"""Tilings: nothing is left out, nothing is twice, and neighbours mean the same patches."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.geo.grid import BlockKey, Window
from cdpipe.geo.tilings import (
    CELL,
    CHUNK,
    TILE,
    PatchGrid,
    block_keys,
    block_window,
    count_tiles,
    patch_stride,
    reflect_indices,
    tiles_in,
)

lengths = st.integers(1, 90)


@st.composite
def windows_in(draw: st.DrawFn, shape: tuple[int, int]) -> Window:
    row, col = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    return Window(row, col, draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col)))


@st.composite
def patch_grids(draw: st.DrawFn) -> PatchGrid:
    patch = draw(st.integers(1, 40))
    return PatchGrid((draw(lengths), draw(lengths)), patch, draw(st.integers(1, patch)))


def all_origins(grid: PatchGrid) -> list[tuple[int, int]]:
    return [(row, col) for row in grid.origins(0) for col in grid.origins(1)]


@given(patch_grids())
def test_patches_cover_every_pixel_and_none_is_in_vain(grid: PatchGrid) -> None:
    for axis in (0, 1):
        origins, length = list(grid.origins(axis)), grid.shape[axis]
        assert origins == [grid.stride * number for number in range(len(origins))]
        covered = {position for origin in origins for position in range(origin, origin + grid.patch)}
        assert covered >= set(range(length))
        without_last = {position for origin in origins[:-1] for position in range(origin, origin + grid.patch)}
        assert not without_last >= set(range(length))


@given(patch_grids(), st.data())
def test_touching_is_what_looking_at_every_patch_finds(grid: PatchGrid, data: st.DataObject) -> None:
    window = data.draw(windows_in(grid.shape))
    found = [
        (row, col)
        for row, col in all_origins(grid)
        if Window(row, col, grid.patch, grid.patch).intersect(window) is not None
    ]
    assert grid.touching(window) == found


@given(patch_grids(), st.data())
def test_the_halo_is_just_what_the_patches_are_made_of(grid: PatchGrid, data: st.DataObject) -> None:
    window = data.draw(windows_in(grid.shape))
    needed = np.zeros(grid.shape, np.bool_)
    for row, col in grid.touching(window):
        rows = reflect_indices(row, grid.patch, grid.shape[0])
        cols = reflect_indices(col, grid.patch, grid.shape[1])
        needed[np.ix_(rows, cols)] = True
    halo = grid.halo(window)
    outside = needed.copy()
    outside[halo.slices] = False
    assert not outside.any()
    assert halo.intersect(window) == window
    border = needed[halo.slices]
    assert border[0].any()
    assert border[-1].any()
    assert border[:, 0].any()
    assert border[:, -1].any()


@given(patch_grids(), st.integers(1, 50), st.data())
def test_neighbouring_blocks_mean_the_same_patches(grid: PatchGrid, block: int, data: st.DataObject) -> None:
    """Together the blocks need every patch, and a pixel's patches are the same whichever block asks."""
    blocks = [block_window(key, grid.shape, block) for key in block_keys("p", grid.shape, block)]
    assert {origin for window in blocks for origin in grid.touching(window)} == set(all_origins(grid))
    pixel = data.draw(windows_in(grid.shape))
    pixel = Window(pixel.row, pixel.col, 1, 1)
    [own] = [window for window in blocks if window.intersect(pixel)]
    assert set(grid.touching(pixel)) <= set(grid.touching(own))


def computed_by_blocks(grid: PatchGrid, block: int) -> list[tuple[int, int]]:
    """Every patch that prediction lists, block by block."""
    keys = block_keys("p", grid.shape, block)
    return [origin for key in keys for origin in grid.touching(block_window(key, grid.shape, block))]


@given(patch_grids(), st.integers(1, 50))
def test_patches_are_computed_again_only_across_the_borders_of_blocks(grid: PatchGrid, block: int) -> None:
    times = Counter(computed_by_blocks(grid, block))
    assert set(times) == set(all_origins(grid))
    for (row, col), count in times.items():
        stops = (min(row + grid.patch, grid.shape[0]) - 1, min(col + grid.patch, grid.shape[1]) - 1)
        assert count == (stops[0] // block - row // block + 1) * (stops[1] // block - col // block + 1)


@pytest.mark.parametrize(("patch", "most"), [(256, 1.25), (512, 1.4)])
def test_blocks_compute_little_more_than_the_patch_grid_of_a_tile(patch: int, most: float) -> None:
    grid = PatchGrid((10_980, 10_980), patch, patch_stride(patch, 0.25))
    assert 1 < len(computed_by_blocks(grid, 2048)) / len(all_origins(grid)) <= most


@pytest.mark.parametrize(("patch", "stride"), [(8, 0), (8, 9), (8, -1)])
def test_strides_that_leave_gaps_are_refused(patch: int, stride: int) -> None:
    with pytest.raises(ValueError, match="stride must be 1 to 8"):
        PatchGrid((20, 20), patch, stride)


@given(lengths, st.integers(0, 200), st.integers(0, 200))
def test_reflection_is_numpys(length: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(length), (before, after), mode="reflect")
    assert np.array_equal(reflect_indices(-before, before + length + after, length), expected)


@given(lengths, lengths, st.integers(1, 50), st.data())
def test_tiles_cut_a_window_along_the_scenes_lines(height: int, width: int, tile: int, data: st.DataObject) -> None:
    window = data.draw(windows_in((height, width)))
    count = np.zeros((height, width), int)
    for part in tiles_in(window, tile):
        count[part.slices] += 1
        assert part.row // tile == (part.stop_row - 1) // tile
        assert part.col // tile == (part.stop_col - 1) // tile
    expected = np.zeros((height, width), int)
    expected[window.slices] = 1
    assert np.array_equal(count, expected)


@given(lengths, lengths, st.integers(1, 50))
def test_blocks_own_every_pixel_once(height: int, width: int, block: int) -> None:
    count = np.zeros((height, width), int)
    keys = block_keys("p", (height, width), block)
    for key in keys:
        count[block_window(key, (height, width), block).slices] += 1
    assert (count == 1).all()
    assert len(keys) == count_tiles(height, block) * count_tiles(width, block)
    assert keys == sorted(keys)


def test_blocks_outside_the_scene_are_refused() -> None:
    with pytest.raises(ValueError, match="lies outside a scene of 10 x 20 pixels"):
        block_window(BlockKey("p", 1, 0), (10, 20), 10)


@given(st.integers(1, 2048), st.floats(0, 0.999))
def test_a_stride_leaves_the_overlap_that_was_asked_for(patch: int, overlap: float) -> None:
    stride = patch_stride(patch, overlap)
    assert 1 <= stride <= patch
    assert abs((patch - stride) - patch * overlap) <= 1


@pytest.mark.parametrize("overlap", [-0.1, 1, 1.5])
def test_overlaps_of_a_whole_patch_are_refused(overlap: float) -> None:
    with pytest.raises(ValueError, match="overlap must be at least 0 and below 1"):
        patch_stride(256, overlap)


def test_tiles_chunks_and_cells_nest() -> None:
    assert TILE % CHUNK == CHUNK % CELL == 0
