"""Tolerance, curves and calibration against plain computations over pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import block_keys, block_window, grow
from cdpipe.metrics.counts import NearCounts, count_near, count_scores, score_histogram
from cdpipe.metrics.reliability import BINS, reliability, threshold_curve


@given(st.integers(0, 2**32), st.integers(0, 4), st.integers(3, 30))
def test_near_counts_are_those_of_distances_whatever_the_block(seed: int, tolerance: int, block: int) -> None:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 40)), int(random.integers(1, 40)))
    predicted, reference = (random.random(shape) < 0.05 for _ in range(2))
    found = NearCounts()
    for key in block_keys("p", shape, block):
        window = block_window(key, shape, block)
        halo = grow(window, tolerance, shape)
        found += count_near(predicted[halo.slices], reference[halo.slices], window.slices_in(halo), tolerance)

    def near(mask: np.ndarray, other: np.ndarray) -> int:
        if not other.any():
            return 0
        return int((ndimage.distance_transform_edt(~other)[mask] <= tolerance).sum())

    assert found == NearCounts(
        int(predicted.sum()), near(predicted, reference), int(reference.sum()), near(reference, predicted)
    )


def test_a_window_grows_to_the_edges_of_the_scene() -> None:
    assert grow(Window(0, 5, 4, 4), 2, (5, 20)) == Window(0, 3, 5, 8)


def test_curves_are_counts_at_each_threshold() -> None:
    random = np.random.default_rng(0)
    label = random.choice([0, 1, 255], 500).astype(np.uint8)
    score = np.where(random.random(500) < 0.1, np.nan, random.random(500)).astype(np.float32)
    curve = threshold_curve(score_histogram(score, label))
    for k in (0, 137, 500, 999):
        counts = count_scores(score, label, float(curve["threshold"][k]))
        for name in ("iou", "f1", "precision", "recall", "kappa"):
            assert curve[name][k] == pytest.approx(getattr(counts, name), nan_ok=True)
        assert curve["said"][k] == (counts.tp + counts.fp) / (counts.tp + counts.fp + counts.fn + counts.tn)


@given(st.integers(0, 2**32))
def test_calibration_error_is_that_of_plain_bins(seed: int) -> None:
    random = np.random.default_rng(seed)
    score = random.beta(0.5, 1.5, 2000).astype(np.float32)
    score[:20], score[20:30] = 1.0, 0.0
    label = (random.random(2000) < score**2).astype(np.uint8)
    table, error = reliability(score_histogram(score, label))
    place = np.minimum((score.astype(np.float64) * BINS).astype(int), BINS - 1)
    gaps = [abs(float(score[place == k].sum()) - int(label[place == k].sum())) for k in range(BINS)]
    assert error == pytest.approx(sum(gaps) / 2000, abs=3e-3)  # thresholds lie a thousandth apart
    assert sum(row["pixels"] for row in table) == 2000
    assert table[-1]["high"] == 1.0


def test_what_is_calibrated_has_a_small_error_and_nothing_has_none() -> None:
    random = np.random.default_rng(3)
    score = random.random(200_000, np.float32)
    label = (random.random(200_000) < score).astype(np.uint8)
    assert reliability(score_histogram(score, label))[1] < 0.01
    assert reliability(score_histogram(score**3, label))[1] > 0.1
    assert np.isnan(reliability(score_histogram(score[:0], label[:0]))[1])
