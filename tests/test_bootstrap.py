"""Intervals over pairs: what they hold, what they leave out, and that they mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cdpipe.metrics.counts import Counts
from cdpipe.metrics.intervals import FEWEST, REPLICATES, Values, intervals_over_pairs, pixel_figures, share

counts = arrays.arrays(np.int64, st.tuples(st.integers(1, 8), st.just(4)), elements=st.integers(0, 10**9))


def mean(sums: Values) -> dict[str, Values]:
    return {"mean": share(sums[:, 0], sums[:, 1])}


@given(counts)
def test_figures_are_those_of_counts(values: np.ndarray) -> None:
    figures = pixel_figures(values.astype(np.float64))
    for name, found in figures.items():
        expected = [getattr(Counts(*row), name) for row in values.tolist()]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(counts)
def test_intervals_lie_between_the_extremes_of_pairs(values: np.ndarray) -> None:
    found = intervals_over_pairs(values.astype(np.float64), pixel_figures)
    for name in ("iou", "f1", "precision", "recall"):  # which are means of the pairs' own, with weights
        interval = found[name]
        own = [figure for row in values.tolist() if not np.isnan(figure := getattr(Counts(*row), name))]
        if len(values) < FEWEST or not own:
            assert interval is None
        else:
            assert interval is not None
            assert min(own) - 1e-9 <= interval[0] <= interval[1] <= max(own) + 1e-9


@pytest.mark.parametrize("pairs", range(1, FEWEST))
def test_few_pairs_have_no_interval(pairs: int) -> None:
    assert intervals_over_pairs(np.ones((pairs, 4)), pixel_figures)["iou"] is None


def test_the_same_pairs_give_the_same_interval_and_more_pairs_a_narrower_one() -> None:
    random = np.random.default_rng(1)
    values = random.integers(1, 100, (400, 4)).astype(np.float64)
    first = intervals_over_pairs(values, pixel_figures)["f1"]
    few = intervals_over_pairs(values[:20], pixel_figures)["f1"]
    assert first is not None
    assert few is not None
    assert first == intervals_over_pairs(values, pixel_figures)["f1"]
    assert first != intervals_over_pairs(values, pixel_figures, seed=1)["f1"]
    assert (few[1] - few[0]) / (first[1] - first[0]) == pytest.approx(np.sqrt(20), rel=0.4)


def test_memory_is_bounded_by_drawing_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).integers(1, 100, (30, 4)).astype(np.float64)
    whole = intervals_over_pairs(values, pixel_figures)
    shapes = []

    def noted(sums: Values) -> dict[str, Values]:
        shapes.append(len(sums))
        return pixel_figures(sums)

    monkeypatch.setattr("cdpipe.metrics.intervals.DRAWS_AT_ONCE", 900)
    assert intervals_over_pairs(values, noted) == whole
    assert set(shapes) <= {30, REPLICATES % 30}


def test_undefined_draws_do_not_count() -> None:
    values = np.array([*[[0, 0, 0, 9]] * 3, [3, 1, 0, 9]], np.float64)  # in a third of the draws there is no change
    assert intervals_over_pairs(values, pixel_figures)["precision"] == (0.75, 0.75)
    assert intervals_over_pairs(values[[0, 0, 1, 2]], pixel_figures)["precision"] is None


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    """Figures of 40 pairs of a made-up population, 200 times; 19 in 20 within what 200 trials can tell."""
    random, held = np.random.default_rng(5), 0
    for _ in range(200):
        sizes = random.gamma(4.0, 100.0, 40)
        shares = random.beta(6, 4, 40)
        interval = intervals_over_pairs(np.stack([sizes * shares, sizes], 1), mean)["mean"]
        assert interval is not None
        held += interval[0] <= 0.6 <= interval[1]
    assert 0.90 <= held / 200 <= 0.985
