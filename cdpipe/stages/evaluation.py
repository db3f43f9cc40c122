"""Counts of a run's results against labels, block by block, and the tables made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.metrics import (
    NOT_OBSERVED,
    Counts,
    ScoreHistogram,
    count_changes,
    counts_by_threshold,
    score_histogram,
    threshold_change,
)
from cdpipe.arrays.normalisation import RGB, Recipe
from cdpipe.arrays.run_length import Runs, decode_window
from cdpipe.formats.catalog import SPLITS
from cdpipe.formats.store import open_layer, read_window
from cdpipe.formats.stored_pair import StoredPair, read_observed, read_scene
from cdpipe.formats.workspace import Workspace
from cdpipe.values.grid import Window

ENSEMBLE = "ensemble"
UNSPLIT = "unsplit"  # the split of labelled pairs that have none
BASELINE = "grey difference"
BASELINE_RECIPE = Recipe("difference", RGB, "common", together=False)
BASELINE_RANGE, BASELINE_BINS = 10.0, 1000  # of |difference| in standard deviations


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of a pair lie.

    Attributes:
        pair: The pair.
        label_key: Key of its label, None without one.
        members: Name, probability key and threshold of each model.
        change_key: Key of the ensemble's change, None where nothing was predicted.
        submissions: Name and mask of each submission that has the pair.
    """

    pair: StoredPair
    label_key: str | None
    members: tuple[tuple[str, str, float], ...]
    change_key: str | None
    submissions: tuple[tuple[str, Runs], ...] = ()


@dataclass(frozen=True, slots=True)
class PairScores:
    """What evaluation found out about a pair.

    Attributes:
        counts: Pixel counts of each model, of the ensemble and of each submission.
        baseline: Absolute difference of normalised grey, over thresholds.
    """

    counts: dict[str, Counts]
    baseline: ScoreHistogram


def evaluate_pair(workspace: Workspace, results: Results) -> PairScores:
    """Count hits and misses of every layer of a pair; labels that say "ignore" and pixels not observed are left out.

    Raises:
        ValueError: If the pair has no label.
    """
    pair = results.pair
    if results.label_key is None:
        raise ValueError(f"pair {pair.pair_id}: expected a label, got none")
    label_layer = open_layer(workspace.group("labels", pair.pair_id, results.label_key), "label")
    counts: dict[str, Counts] = {}
    baseline = _no_scores()
    for key in pair.blocks():
        window = pair.window(key)
        label = read_window(label_layer, window)
        for name, change in _changes(workspace, results, window):
            counts[name] = counts.get(name, Counts()) + count_changes(change, label)
        if set(RGB) <= set(pair.roles):
            difference = _grey_difference(workspace, pair, window)
            baseline += score_histogram(difference, label, high=BASELINE_RANGE, bins=BASELINE_BINS)
    return PairScores(counts, baseline)


def _changes(workspace: Workspace, results: Results, window: Window) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and change of every layer of a pair in a window."""
    pair_id = results.pair.pair_id
    for name, probability_key, threshold in results.members:
        group = workspace.group("probabilities", pair_id, probability_key)
        yield name, threshold_change(read_window(open_layer(group, "probability"), window), threshold)
    yield from read_masks(workspace, results, window).items()


def read_masks(workspace: Workspace, results: Results, window: Window) -> dict[str, NDArray[np.uint8]]:
    """The run's change and every submission of a pair in a window: 0, 1, and 255 where not observed."""
    pair = results.pair
    masks: dict[str, NDArray[np.uint8]] = {}
    if results.change_key is not None:
        group = workspace.group("changes", pair.pair_id, results.change_key)
        masks[ENSEMBLE] = read_window(open_layer(group, "change"), window)
    if results.submissions:
        observed = read_observed(workspace, pair, window)
        for name, runs in results.submissions:
            changed = decode_window(runs, pair.grid.height, window).astype(np.uint8)
            masks[name] = np.where(observed, changed, np.uint8(NOT_OBSERVED))
    return masks


def _no_scores() -> ScoreHistogram:
    zeros = (0,) * (BASELINE_BINS + 2)
    return ScoreHistogram(0.0, BASELINE_RANGE, zeros, zeros)


def _grey_difference(workspace: Workspace, pair: StoredPair, window: Window) -> NDArray[np.float32]:
    """Absolute difference of the dates' normalised grey, NaN where not observed."""
    observed = read_observed(workspace, pair, window)
    scalings = pair.scalings(BASELINE_RECIPE)
    difference = read_scene(workspace, pair, window, observed, scalings)[0]
    return np.where(observed, np.abs(difference), np.float32(np.nan))


def tabulate(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the evaluation: every layer of every pair, then pooled over each split.

    The baseline, plain differencing, is given the threshold that suits each row best in hindsight: what it
    could reach at most, not what it would reach on new scenes.

    Args:
        scores: By pair.
        splits: Split of each pair.

    Returns:
        Rows with split, pair_id (None where pooled), pairs (how many; a submission may not have all), layer,
        threshold (None: the run's), counts and scores.
    """
    rows = []
    for pair_id, found in scores.items():
        rows += _rows(splits[pair_id], pair_id, [found])
    for split in (*SPLITS, UNSPLIT):
        chosen = [found for pair_id, found in scores.items() if splits[pair_id] == split]
        if chosen:
            rows += _rows(split, None, chosen)
    return rows


def _rows(split: str, pair_id: str | None, scores: Sequence[PairScores]) -> list[dict[str, Any]]:
    """Rows of all layers, each summed over those of the pairs that have it."""
    rows: list[tuple[str, int, float | None, Counts]] = []
    for layer in dict.fromkeys(layer for found in scores for layer in found.counts):
        counts = [found.counts[layer] for found in scores if layer in found.counts]
        rows.append((layer, len(counts), None, sum(counts, Counts())))
    baseline = sum((found.baseline for found in scores), _no_scores())
    offers = zip(baseline.thresholds, counts_by_threshold(baseline), strict=True)
    threshold, best = max(offers, key=lambda offer: offer[1].iou if offer[1].iou == offer[1].iou else -1.0)
    rows.append((BASELINE, len(scores), threshold, best))
    place = {"split": split, "pair_id": pair_id}
    return [
        {**place, "pairs": pairs, "layer": layer, "threshold": threshold, **_figures(counts)}
        for layer, pairs, threshold, counts in rows
    ]


def _figures(counts: Counts) -> dict[str, Any]:
    scores = {"iou": counts.iou, "f1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    return {**scores, "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn}
