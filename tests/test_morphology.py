"""Cleaning of masks: by a radius on the ground, as opening and closing are defined, among observed pixels alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.objects.morphology import clean_mask, ground_disc

Bytes = NDArray[np.uint8]
POINT = np.ones((1, 1), np.uint8)


@st.composite
def states(draw: st.DrawFn) -> Bytes:
    """Masks of 0, 1 and 255 with blobs rather than noise."""
    shape = draw(st.tuples(st.integers(1, 18), st.integers(1, 18)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = random.choice(np.array([0, 1, 255], np.uint8), (9, 9), p=[0.5, 0.4, 0.1])
    rows, cols = (np.arange(length) // 2 for length in shape)
    return np.where(random.random(shape) < 0.1, np.uint8(1), coarse[np.ix_(rows, cols)])


def by_definition(
    change: set[tuple[int, int]], observed: set[tuple[int, int]], disc: Bytes, order: str
) -> set[tuple[int, int]]:
    """Erosion and dilation (``e``, ``d``) of sets of pixels, one after the other."""
    half = np.array(disc.shape) // 2
    offsets = [(int(r - half[0]), int(c - half[1])) for r, c in np.argwhere(disc)]
    for step in order:
        if step == "e":
            change = {
                (r, c)
                for r, c in observed
                if all((r + a, c + b) in change for a, b in offsets if (r + a, c + b) in observed)
            }
        else:
            change = {(r + a, c + b) for r, c in change for a, b in offsets} & observed
    return change


@given(states(), st.sampled_from([(3, 3), (5, 3), (3, 7)]), st.booleans())
def test_cleaning_is_opening_and_closing_by_definition(state: Bytes, sides: tuple[int, int], opening: bool) -> None:
    disc = np.ones(sides, np.uint8)
    disc[0, 0] = disc[-1, -1] = 0
    cleaned = clean_mask(state, disc, POINT) if opening else clean_mask(state, POINT, disc)
    pixels = {value: {(int(r), int(c)) for r, c in np.argwhere(state == value)} for value in (0, 1)}
    expected = by_definition(pixels[1], pixels[0] | pixels[1], disc, "ed" if opening else "de")
    assert {(int(r), int(c)) for r, c in np.argwhere(cleaned == 1)} == expected
    assert np.array_equal(cleaned == 255, state == 255)


@given(states())
def test_opening_takes_away_closing_adds_and_both_are_done_once(state: Bytes) -> None:
    disc = ground_disc(np.array([[0, -1.0], [1.0, 0]]), 2.0)
    for opening, closing in ((disc, POINT), (POINT, disc)):
        cleaned = clean_mask(state, opening, closing)
        more, less = (cleaned, state) if closing is disc else (state, cleaned)
        assert not ((less == 1) & (more != 1)).any()
        assert np.array_equal(clean_mask(cleaned, opening, closing), cleaned)


def test_what_is_cut_off_by_a_cloud_or_the_edge_is_not_gnawed_at() -> None:
    state = np.zeros((9, 9), np.uint8)
    state[:, 4:] = 255
    state[3:6, :4] = 1  # three rows from the scene's edge to the cloud's
    cleaned = clean_mask(state, np.ones((3, 3), np.uint8), POINT)
    assert np.array_equal(cleaned, state)


@pytest.mark.parametrize(
    ("steps", "radius", "sides"),
    [
        ([[0, -10.0], [10.0, 0]], 30.0, (7, 7)),
        ([[0, -10.0], [10.0, 0]], 29.0, (5, 5)),
        ([[0, -10.003], [10.003, 0]], 30.0, (7, 7)),  # UTM's metres are not quite the ground's
        ([[0, -30.0], [15.0, 0]], 60.0, (5, 9)),
        ([[0, -30.0], [15.0, 0]], 10.0, (1, 1)),
    ],
)
def test_a_disc_is_round_on_the_ground(steps: list[list[float]], radius: float, sides: tuple[int, int]) -> None:
    disc = ground_disc(np.array(steps), radius)
    assert disc.shape == sides
    row, col = np.mgrid[: sides[0], : sides[1]] - np.array(sides).reshape(2, 1, 1) // 2
    metres = np.linalg.norm(np.tensordot(np.stack([row, col], -1), np.array(steps), 1), axis=-1)
    assert np.array_equal(disc == 1, metres <= radius * 1.005)


def test_a_turned_grid_has_a_turned_ellipse() -> None:
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    steps = np.array([[0, -2.0], [1.0, 0]]) @ turn
    assert np.array_equal(ground_disc(steps, 6), ground_disc(np.array([[0, -2.0], [1.0, 0]]), 6))
    sheared = np.array([[1.0, -1.0], [1.0, 0]])
    assert not np.array_equal(ground_disc(sheared, 4), ground_disc(sheared, 4)[:, ::-1])
