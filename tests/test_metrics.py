"""Counts, scores and thresholds against plain loops over pixels."""

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.metrics.counts import (
    Counts,
    ScoreHistogram,
    best_threshold,
    count_changes,
    count_scores,
    counts_by_threshold,
    is_change,
    score_histogram,
)

Pixels = tuple[NDArray[np.float32], NDArray[np.uint8]]


@st.composite
def pixels(draw: st.DrawFn, bins: int = 20, low: float = 0.0, high: float = 1.0) -> Pixels:
    """Scores that like to lie on thresholds, next to them, outside and nowhere; labels 0, 1 and 255."""
    edges = np.array([low + (high - low) * k / bins for k in range(bins + 1)], np.float32)
    close = [*edges, *np.nextafter(edges, np.float32(-9)), *np.nextafter(edges, np.float32(9))]
    odd = [np.nan, np.inf, -np.inf, -0.0]
    values = st.one_of(st.sampled_from([*map(float, close), *odd]), st.floats(-2, 8, width=32))
    found = draw(st.lists(st.tuples(values, st.sampled_from([0, 0, 1, 1, 255])), max_size=40))
    return np.array([v for v, _ in found], np.float32), np.array([label for _, label in found], np.uint8)


def plain_counts(change: list[bool | None], label: NDArray[np.uint8]) -> Counts:
    judged = [(c, t) for c, t in zip(change, label.tolist(), strict=True) if c is not None and t != 255]
    return Counts(
        tp=sum(c and t == 1 for c, t in judged),
        fp=sum(c and t == 0 for c, t in judged),
        fn=sum(not c and t == 1 for c, t in judged),
        tn=sum(not c and t == 0 for c, t in judged),
    )


@given(pixels(), st.floats(0, 1))
def test_scores_are_counted_pixel_by_pixel(found: Pixels, threshold: float) -> None:
    score, label = found
    rounded = float(np.float32(threshold))
    change = [None if math.isnan(s) else s >= rounded for s in score.tolist()]
    assert count_scores(score, label, threshold) == plain_counts(change, label)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 255]), st.sampled_from([0, 1, 255])), max_size=30))
def test_changes_are_counted_pixel_by_pixel(found: list[tuple[int, int]]) -> None:
    change, label = (np.array([pair[i] for pair in found], np.uint8) for i in range(2))
    expected = plain_counts([None if c == 255 else c == 1 for c in change.tolist()], label)
    assert count_changes(change, label) == expected


@given(pixels(), st.floats(0, 1))
def test_a_change_mask_counts_like_the_scores_it_was_made_from(found: Pixels, threshold: float) -> None:
    score, label = found
    change = np.where(np.isnan(score), 255, is_change(score, threshold)).astype(np.uint8)
    assert count_changes(change, label) == count_scores(score, label, threshold)


@pytest.mark.parametrize("threshold", [0.4, 0.1, 0.7, np.float64(0.7), np.float32(0.4)])
def test_a_stored_score_equal_to_the_threshold_is_a_change(threshold: float) -> None:
    stored = np.array([threshold, np.nextafter(np.float32(threshold), np.float32(0)), np.nan], np.float32)
    assert is_change(stored, threshold).tolist() == [True, False, False]


def test_counts_are_plain_integers_and_add_up() -> None:
    counts = count_scores(np.ones(3, np.float32), np.array([1, 0, 255], np.uint8), 0.5)
    total = counts + Counts(tp=2**60, fn=1, tn=7)
    assert total == Counts(2**60 + 1, 1, 1, 7)
    assert [type(value) for value in (total.tp, total.fp, total.fn, total.tn)] == [int] * 4


def test_scores_have_their_textbook_values() -> None:
    counts = Counts(tp=6, fp=2, fn=4, tn=88)
    assert (counts.iou, counts.f1) == (6 / 12, 12 / 18)
    assert (counts.precision, counts.recall) == (6 / 8, 6 / 10)
    by_chance = (8 * 10 + 92 * 90) / 100**2  # Cohen 1960
    assert counts.kappa == pytest.approx((0.94 - by_chance) / (1 - by_chance))
    assert (Counts(tp=3, tn=4).kappa, Counts(1, 1, 1, 1).kappa) == (1, 0)


def test_scores_of_nothing_are_undefined() -> None:
    only_unchanged = Counts(tn=5)
    assert all(
        math.isnan(score)
        for score in (only_unchanged.iou, only_unchanged.f1, only_unchanged.precision, only_unchanged.recall)
    )
    assert math.isnan(only_unchanged.kappa)
    assert not any(math.isnan(score) for score in (Counts(1, 1, 1).iou, Counts(1, 1, 1).kappa))
    false_alarm = Counts(fp=1)
    assert (false_alarm.iou, false_alarm.f1, false_alarm.precision) == (0, 0, 0)
    assert math.isnan(false_alarm.recall)


@given(pixels())
def test_a_histogram_gives_the_counts_at_each_of_its_thresholds(found: Pixels) -> None:
    histogram = score_histogram(*found, bins=20)
    assert histogram.thresholds[::10] == (0.0, 0.5, 1.0)
    direct = tuple(count_scores(*found, threshold) for threshold in histogram.thresholds)
    assert counts_by_threshold(histogram) == direct


@given(pixels(bins=7, low=-0.3, high=6.1))
def test_so_does_a_histogram_over_another_range(found: Pixels) -> None:
    histogram = score_histogram(*found, low=-0.3, high=6.1, bins=7)
    assert (histogram.thresholds[0], len(histogram.thresholds)) == (-0.3, 8)
    direct = tuple(count_scores(*found, threshold) for threshold in histogram.thresholds)
    assert counts_by_threshold(histogram) == direct


@given(st.lists(pixels(), min_size=1, max_size=4))
def test_histograms_of_blocks_add_up(blocks: list[Pixels]) -> None:
    scores, labels = zip(*blocks, strict=True)
    whole = score_histogram(np.concatenate(scores), np.concatenate(labels))
    assert reduce(add, [score_histogram(*block) for block in blocks]) == whole


def test_histogram_takes_images_and_default_thresholds_are_thousandths() -> None:
    score = np.array([[0.4, 0.39999998], [np.nan, 1.0]], np.float32)
    histogram = score_histogram(score, np.array([[1, 1], [1, 0]], np.uint8))
    assert histogram.thresholds[400] == 0.4
    assert counts_by_threshold(histogram)[400] == Counts(tp=1, fp=1, fn=1)
    assert all(type(count) is int for count in histogram.changed + histogram.unchanged)


@given(pixels().filter(lambda found: bool(((found[1] == 1) & ~np.isnan(found[0])).any())))
def test_best_threshold_has_the_highest_f1_of_all(found: Pixels) -> None:
    histogram = score_histogram(*found, bins=20)
    threshold, f1 = best_threshold(histogram)
    assert f1 == max(count_scores(*found, other).f1 for other in histogram.thresholds)
    assert f1 == count_scores(*found, threshold).f1


def test_of_equally_good_thresholds_the_middle_one_is_chosen() -> None:
    score = np.array([0.1, 0.2, 0.8, 0.9], np.float32)
    assert best_threshold(score_histogram(score, np.array([0, 0, 1, 1], np.uint8), bins=10)) == (0.6, 1.0)


def test_the_threshold_of_several_pairs_has_the_highest_mean_of_their_f1() -> None:
    """Each counts alike, however many pixels it has; one without change does not."""
    rng = np.random.default_rng(0)
    sizes = (4000, 40, 300)
    labels = [(rng.random(size) < 0.3).astype(np.uint8) for size in sizes]
    pairs = [(rng.random(len(label), np.float32) * (2 + n) / 5 + label / 5, label) for n, label in enumerate(labels)]
    histograms = [score_histogram(*pair, bins=50) for pair in pairs]
    unchanged = score_histogram(np.full(900, 0.9, np.float32), np.zeros(900, np.uint8), bins=50)
    threshold, mean = best_threshold(*histograms, unchanged)
    means = {each: np.mean([count_scores(*pair, each).f1 for pair in pairs]) for each in unchanged.thresholds}
    assert mean == pytest.approx(max(means.values()))
    assert means[threshold] == pytest.approx(mean)
    assert threshold != best_threshold(sum(histograms[1:], histograms[0]))[0]


def test_no_threshold_without_a_changed_pixel() -> None:
    histogram = score_histogram(np.full(3, 0.5, np.float32), np.array([0, 0, 255], np.uint8))
    with pytest.raises(ValueError, match="at least one changed pixel"):
        best_threshold(histogram)


def test_histograms_over_different_thresholds_do_not_add() -> None:
    empty = np.empty(0, np.float32), np.empty(0, np.uint8)
    with pytest.raises(ValueError, match=r"10 bins from 0\.0 to 1\.0 and 10 bins from 0\.0 to 2\.0"):
        score_histogram(*empty, bins=10) + score_histogram(*empty, high=2.0, bins=10)


@pytest.mark.parametrize(("low", "high", "bins"), [(1, 1, 5), (2, 1, 5), (0, 1, 0), (0, math.inf, 5), (math.nan, 1, 5)])
def test_thresholds_must_rise(low: float, high: float, bins: int) -> None:
    with pytest.raises(ValueError, match="low < high"):
        score_histogram(np.zeros(1, np.float32), np.zeros(1, np.uint8), low, high, bins)


def test_nothing_is_broadcast() -> None:
    score, label = np.zeros((2, 2), np.float32), np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2,\)"):
        count_scores(score, label, 0.5)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2,\)"):
        count_changes(score.astype(np.uint8), label)
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2,\)"):
        score_histogram(score, label)


def test_an_empty_histogram_can_be_written_by_hand() -> None:
    nothing = score_histogram(np.empty(0, np.float32), np.empty(0, np.uint8), bins=3)
    assert nothing == ScoreHistogram(0.0, 1.0, (0,) * 5, (0,) * 5)
