"""Components across blocks: the same as of the whole scene, whatever the block size."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import block_keys, block_window
from cdpipe.objects.components import Components, join_pieces, sum_by_component

Mask = NDArray[np.bool_]


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.random(shape) < draw(st.sampled_from([0.1, 0.4, 0.6, 0.9]))


def by_blocks(mask: Mask, block: int) -> NDArray[np.int64]:
    components, ids = Components(mask.shape[1]), np.zeros(mask.shape, np.int64)
    for key in block_keys("p", mask.shape, block):
        window = block_window(key, mask.shape, block)
        ids[window.slices] = components.add(window, mask[window.slices])
    return components.roots()[ids]


@given(masks(), st.integers(1, 20))
def test_blocks_give_the_components_of_the_whole(mask: Mask, block: int) -> None:
    found = by_blocks(mask, block)
    expected, count = ndimage.label(mask)
    assert ((found > 0) == mask).all()
    together = np.unique(np.stack([found[mask], expected[mask]]), axis=1)
    assert together.shape[1] == count == len(np.unique(together[0])) == len(np.unique(together[1]))


@settings(max_examples=20)
@given(masks(), st.integers(1, 20))
def test_sums_are_those_of_whole_components(mask: Mask, block: int) -> None:
    components, parts = Components(mask.shape[1]), [np.zeros(1, np.int64)]
    first = 1
    for key in block_keys("p", mask.shape, block):
        window = block_window(key, mask.shape, block)
        ids = components.add(window, mask[window.slices])
        parts.append(np.bincount(np.maximum(ids - first + 1, 0)[ids > 0])[1:] if ids.any() else parts[0][:0])
        first = max(first, int(ids.max()) + 1)
    sizes = sum_by_component(components.roots(), np.concatenate(parts))
    labels, count = ndimage.label(mask)
    assert sorted(sizes.tolist()) == sorted(np.bincount(labels.ravel())[1:].tolist())
    assert len(sizes) == count


def test_a_spiral_through_many_blocks_is_one() -> None:
    mask = np.zeros((41, 41), bool)
    row, col, points = 20, 20, [(20, 20)]
    for turn, length in enumerate(range(2, 38, 2)):
        down, right = [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
        row, col = row + down * length, col + right * length
        points.append((row, col))
    for (top, left), (bottom, end) in pairwise(points):
        if not (0 <= bottom <= 40 and 0 <= end <= 40):
            break
        mask[min(top, bottom) : max(top, bottom) + 1, min(left, end) : max(left, end) + 1] = True
    assert ndimage.label(mask)[1] == 1
    for block in (1, 3, 7, 64):
        assert len(np.unique(by_blocks(mask, block)[mask])) == 1


def test_blocks_out_of_order_are_refused() -> None:
    components = Components(20)
    with pytest.raises(ValueError, match="row by row"):
        components.add(Window(10, 0, 10, 10), np.zeros((10, 10), bool))
    components.add(Window(0, 0, 10, 10), np.zeros((10, 10), bool))
    with pytest.raises(ValueError, match="row by row"):
        components.add(Window(10, 0, 10, 10), np.zeros((10, 10), bool)[:, :3])


@given(st.integers(1, 30), st.data())
def test_the_smallest_number_of_a_component_stands_for_it(count: int, data: st.DataObject) -> None:
    numbers = st.integers(0, count - 1)
    parts = data.draw(st.lists(st.lists(st.tuples(numbers, numbers), max_size=8), max_size=4))
    touching = [np.array(part, np.int64).reshape(-1, 2) for part in parts]
    expected = list(range(count))
    for _ in range(count):  # the smaller number spreads, until nothing changes
        for one, other in (both for part in parts for both in part):
            expected[one] = expected[other] = min(expected[one], expected[other])
    assert join_pieces(count, touching).tolist() == expected
