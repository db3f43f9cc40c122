"""Counts of a run's results against labels, block by block, and the tables made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.metrics import (
    Counts,
    ScoreHistogram,
    count_changes,
    counts_by_threshold,
    score_histogram,
    threshold_change,
)
from cdpipe.arrays.normalisation import model_input
from cdpipe.formats.store import open_layer, read_window
from cdpipe.formats.stored_pair import StoredPair, read_dates, read_observed
from cdpipe.formats.workspace import Workspace
from cdpipe.values.grid import Window

ENSEMBLE = "ensemble"
BASELINE = "grey difference"
BASELINE_RANGE, BASELINE_BINS = 10.0, 1000  # of |difference| in standard deviations


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of a pair lie.

    Attributes:
        pair: The pair.
        label_key: Key of its label.
        members: Name, probability key and threshold of each model.
        change_key: Key of the ensemble's change.
    """

    pair: StoredPair
    label_key: str
    members: tuple[tuple[str, str, float], ...]
    change_key: str


@dataclass(frozen=True, slots=True)
class PairScores:
    """What evaluation found out about a pair.

    Attributes:
        counts: Pixel counts of each model and of the ensemble.
        baseline: Absolute difference of normalised grey, over thresholds.
    """

    counts: dict[str, Counts]
    baseline: ScoreHistogram


def evaluate_pair(workspace: Workspace, results: Results) -> PairScores:
    """Count hits and misses of every layer of a pair; labels that say "ignore" and pixels not observed are left out."""
    pair = results.pair
    counts = {name: Counts() for name in (*(name for name, _, _ in results.members), ENSEMBLE)}
    baseline = _no_scores()
    for key in pair.blocks():
        window = pair.window(key)
        group = workspace.group("labels", pair.pair_id, results.label_key)
        label = read_window(open_layer(group, "label"), window)
        for name, probability_key, threshold in results.members:
            group = workspace.group("probabilities", pair.pair_id, probability_key)
            probability = read_window(open_layer(group, "probability"), window)
            counts[name] += count_changes(threshold_change(probability, threshold), label)
        group = workspace.group("changes", pair.pair_id, results.change_key)
        counts[ENSEMBLE] += count_changes(read_window(open_layer(group, "change"), window), label)
        baseline += score_histogram(
            _grey_difference(workspace, pair, window), label, high=BASELINE_RANGE, bins=BASELINE_BINS
        )
    return PairScores(counts, baseline)


def ensemble_scores(
    workspace: Workspace, pair: StoredPair, label_key: str, members: Sequence[tuple[str, float]]
) -> ScoreHistogram:
    """Weighted mean of stored probabilities against a label, over thresholds from 0 to 1.

    Args:
        workspace: The store.
        pair: The pair.
        label_key: Key of its label.
        members: Probability key and weight of each model.
    """
    total = ScoreHistogram(0.0, 1.0, (0,) * 1002, (0,) * 1002)
    weight = sum(share for _, share in members)
    for key in pair.blocks():
        window = pair.window(key)
        mean = np.zeros(window.shape, np.float32)
        for probability_key, share in members:
            group = workspace.group("probabilities", pair.pair_id, probability_key)
            mean += read_window(open_layer(group, "probability"), window) * np.float32(share / weight)
        label = open_layer(workspace.group("labels", pair.pair_id, label_key), "label")
        total += score_histogram(mean, read_window(label, window))
    return total


def _no_scores() -> ScoreHistogram:
    zeros = (0,) * (BASELINE_BINS + 2)
    return ScoreHistogram(0.0, BASELINE_RANGE, zeros, zeros)


def _grey_difference(workspace: Workspace, pair: StoredPair, window: Window) -> NDArray[np.float32]:
    """Absolute difference of the dates' normalised grey, NaN where not observed."""
    observed = read_observed(workspace, pair, window)
    scalings = pair.scalings("common", together=False)
    difference = model_input("difference", read_dates(workspace, pair, window), observed, scalings)[0]
    return np.where(observed, np.abs(difference), np.float32(np.nan))


def tabulate(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the evaluation: every layer of every pair, then pooled over each split.

    The baseline, plain differencing, is given the threshold that suits each row best in hindsight: what it
    could reach at most, not what it would reach on new scenes.

    Args:
        scores: By pair.
        splits: Split of each pair.

    Returns:
        Rows with split, pair (None where pooled), layer, threshold (None: the run's), counts and scores.
    """
    rows = []
    for pair_id, found in scores.items():
        rows += _rows(splits[pair_id], pair_id, found.counts, found.baseline)
    for split in ("train", "val", "test"):
        chosen = [found for pair_id, found in scores.items() if splits[pair_id] == split]
        if chosen:
            pooled = {layer: sum((found.counts[layer] for found in chosen), Counts()) for layer in chosen[0].counts}
            rows += _rows(split, None, pooled, sum((found.baseline for found in chosen), _no_scores()))
    return rows


def _rows(
    split: str, pair_id: str | None, counts: Mapping[str, Counts], baseline: ScoreHistogram
) -> list[dict[str, Any]]:
    place = {"split": split, "pair_id": pair_id}
    rows = [{**place, "layer": layer, "threshold": None, **_figures(count)} for layer, count in counts.items()]
    offers = zip(baseline.thresholds, counts_by_threshold(baseline), strict=True)
    threshold, best = max(offers, key=lambda offer: offer[1].iou if offer[1].iou == offer[1].iou else -1.0)
    return [*rows, {**place, "layer": BASELINE, "threshold": threshold, **_figures(best)}]


def _figures(counts: Counts) -> dict[str, Any]:
    scores = {"iou": counts.iou, "f1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    return {**scores, "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn}
