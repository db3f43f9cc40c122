"""Seams of a mask are found where they lie, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cdpipe.evaluation.audit import SeamScore, count_flips, grid_lines, score_in_phase, score_lines

masks = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 255]))


def blobs(seed: int, shape: tuple[int, int] = (400, 400), size: int = 7) -> NDArray[np.uint8]:
    """Change with edges in all directions, on no patch grid."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    rows, cols = np.indices(shape)
    for _ in range(shape[0] * shape[1] // 2000):
        row, col = random.uniform(0, shape[0]), random.uniform(0, shape[1])
        mask[np.hypot(rows - row, cols - col) < random.uniform(2, size)] = 1
    return mask


def score(mask: NDArray[np.uint8], places: range) -> SeamScore:
    counts = np.concatenate([count_flips(mask, 0), count_flips(mask, 1)], 1)
    return score_lines(counts, np.concatenate([grid_lines(length, places) for length in mask.shape]))


@given(masks, st.integers(0, 1))
def test_every_neighbour_is_counted_once(mask: NDArray[np.uint8], axis: int) -> None:
    turned = mask if axis == 0 else mask.T
    near, flips = count_flips(mask, axis)
    for line in range(len(turned) - 1):
        both = [(a, b) for a, b in zip(turned[line], turned[line + 1], strict=True) if 255 not in (a, b)]
        assert (near[line], flips[line]) == (len(both), sum(a != b for a, b in both))


@given(st.integers(1, 40), st.lists(st.integers(-5, 50)))
def test_a_line_goes_by_the_pixel_after_it(length: int, places: list[int]) -> None:
    chosen = grid_lines(length, places)
    assert len(chosen) == length - 1
    assert set(np.flatnonzero(chosen) + 1) == {place for place in places if 0 < place < length}


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_without_seams_scores_one(seed: int) -> None:
    found = score(blobs(seed), range(0, 400, 64))
    low, high = found.interval
    assert low <= 1 <= high
    assert abs(found.z) < 3
    assert found.lines == 12


def test_a_planted_seam_raises_the_score_and_a_line_off_the_grid_does_not() -> None:
    """The mask turns over beyond a line, as where a patch sees change that its neighbour does not."""
    plain, on, off = blobs(0), blobs(0), blobs(0)
    on[150:250, 128:192] = 1
    off[155:255, 139:182] = 1
    clean = score(plain, range(0, 400, 64))
    seam, elsewhere = (score(mask, range(0, 400, 64)) for mask in (on, off))
    assert seam.score > 2 * clean.score
    assert seam.z > 4
    assert seam.interval[0] > 1
    assert elsewhere.score < 1.05 * clean.score
    assert elsewhere.z < 2


def test_what_prefers_odd_lines_hides_no_seam() -> None:
    """As decoders do: most of the scene flips at odd lines alone, on which the edges of patches never lie."""
    coarse = np.kron(blobs(5, (200, 200), 4), np.ones((2, 2), np.uint8))
    mask = np.roll(coarse, (1, 1), (0, 1))
    mask[:100, :100] = blobs(0)[:100, :100]
    counts = np.concatenate([count_flips(mask, 0), count_flips(mask, 1)], 1)
    chosen = np.concatenate([grid_lines(400, range(0, 400, 16))] * 2)
    phases = np.concatenate([np.arange(1, 400) % 2] * 2)
    assert score_lines(counts, chosen).interval[1] < 0.9
    low, high = score_in_phase(counts, chosen, phases).interval
    assert low <= 1 <= high


def test_few_lines_say_little() -> None:
    """One object's edge on the only line of the grid is no seam yet."""
    mask = blobs(1, (120, 120))
    found = score(mask, range(0, 120, 100))
    assert found.lines == 2
    assert found.interval[1] - found.interval[0] > 1


def test_without_change_there_is_no_score() -> None:
    empty = np.zeros((50, 50), np.uint8)
    found = score(empty, range(0, 50, 16))
    assert np.isnan(found.score)
    assert np.isnan(found.z)
    assert np.isnan(score(empty, range(0)).score)
    assert np.isnan(score(np.full((50, 50), 255, np.uint8), range(0, 50, 16)).score)


def test_scenes_are_compared_with_themselves() -> None:
    """A quiet scene and a busy one, neither with seams, have none together, however many lines each has."""
    quiet, busy = blobs(2, (300, 300), 3), np.tile(np.indices((300, 300)).sum(0) % 2, (1, 1)).astype(np.uint8)
    together = score(quiet, range(0, 300, 16)) + score(busy, range(0, 300, 150))
    assert together.score == pytest.approx(1, abs=0.05)
    assert together.flips == score(quiet, range(0, 300, 16)).flips + score(busy, range(0, 300, 150)).flips
