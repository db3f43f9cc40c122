"""Objects found window by window: those of the whole scene, whatever the windows."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cdpipe.geo.grid import Window
from cdpipe.objects import find as change_objects
from cdpipe.objects.components import MAXIMUM, PIXELS, PROBABILITY, SIDES, UNIT, UNSEEN, VOTES
from cdpipe.objects.find import Objects, find_objects

Scene = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """State, probability and votes of a scene: noise, whose components wind through many windows."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.1, 0.4, 0.6, 0.8]))
    state = random.choice(np.array([0, 1, 255], np.uint8), shape, p=[0.95 - share, share, 0.05])
    return state, random.random(shape, np.float32), random.integers(0, 3, shape).astype(np.uint8)


def find(scene: Scene, step: int) -> list[Objects]:
    """All objects, window by window."""
    state, probability, votes = scene
    framed = np.pad(state, 1, constant_values=255)
    with tempfile.TemporaryDirectory() as folder:
        return list(
            find_objects(
                state.shape,
                lambda window: framed[window.row : window.stop_row + 2, window.col : window.stop_col + 2],
                lambda window: (probability[window.slices], votes[window.slices]),
                Path(folder),
                step,
            )
        )


@contextmanager
def small_bands() -> Iterator[None]:
    """Few pixels a band, so that objects reach into others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change_objects, "BAND_PIXELS", 200)
        yield


@settings(max_examples=25)
@given(scenes(), st.integers(1, 17))
def test_objects_do_not_depend_on_the_windows(scene: Scene, step: int) -> None:
    with small_bands():
        whole, pieces = find(scene, 1000), find(scene, step)
    assert len(whole) == len(pieces)
    for one, other in zip(whole, pieces, strict=True):
        for field in fields(Objects):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


@given(scenes(), st.integers(3, 17))
def test_figures_are_those_of_the_labelled_scene(scene: Scene, step: int) -> None:
    state, probability, votes = scene
    with small_bands():
        found = find(scene, step)
    labels, count = ndimage.label(state == 1)
    assert sum(len(each.first) for each in found) == count
    firsts = [int(first) for each in found for first in each.first]
    assert firsts == sorted(firsts)
    framed = np.pad(state, 1, constant_values=255)
    beside = np.stack([framed[1:-1, :-2], framed[1:-1, 2:], framed[:-2, 1:-1], framed[2:, 1:-1]])
    for first, figures in ((first, row) for each in found for first, row in zip(each.first, each.figures, strict=True)):
        own = labels == labels.ravel()[first]
        assert np.flatnonzero(own)[0] == first
        assert figures[PIXELS] == own.sum()
        assert figures[PROBABILITY] / UNIT == pytest.approx(probability[own].sum(dtype=np.float64))
        assert figures[MAXIMUM] / UNIT == pytest.approx(probability[own].max())
        assert figures[VOTES] == votes[own].sum()
        assert figures[SIDES] == (beside[:, own] != 1).sum()
        assert figures[UNSEEN] == (beside[:, own] == 255).sum()


def test_a_scene_without_change_has_no_objects() -> None:
    state = np.array([[0, 255], [0, 0]], np.uint8)
    assert find((state, np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8)), 1) == []


def test_only_windows_with_change_read_probabilities() -> None:
    state = np.zeros((4, 12), np.uint8)
    state[1, 5] = 1
    framed, read = np.pad(state, 1, constant_values=255), []

    def figures(window: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        read.append(window)
        return np.ones(window.shape, np.float32), np.ones(window.shape, np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        found = list(
            find_objects(
                state.shape,
                lambda window: framed[window.row : window.stop_row + 2, window.col : window.stop_col + 2],
                figures,
                Path(folder),
                4,
            )
        )
    assert [window.col for window in read] == [4]
    assert [int(each.first[0]) for each in found] == [17]
