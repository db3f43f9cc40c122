"""Rows, curves and reliability of an evaluation: of every pair, and pooled over each split, with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.metrics.counts import Counts, NearCounts, ScoreHistogram, counts_by_threshold
from cdpipe.metrics.intervals import Values, intervals_over_pairs, pixel_figures, share
from cdpipe.metrics.reliability import reliability, threshold_curve
from cdpipe.pairs.catalog import SPLITS
from cdpipe.stages.evaluation import BASELINE, PairScores
from cdpipe.stages.object_scores import ObjectCounts

UNSPLIT = "unsplit"  # the split of labelled pairs that have none
COUNTS = ("tp", "fp", "fn", "tn")
COLUMNS = (
    *COUNTS,
    *("near_said", "near_said_near", "near_true", "near_true_near"),
    *("objects", "objects_hit", "objects_predicted", "objects_false", "area_km2"),
)
FIGURES = (
    *("iou", "f1", "precision", "recall", "kappa"),
    *("near_precision", "near_recall", "near_f1", "detection_rate", "false_per_km2"),
)
CURVE_STEP = 10  # of the thresholds, every so many stand in evaluation.json


def tabulate(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the evaluation: every layer of every pair, then pooled over each split.

    The baseline, plain differencing, is given the threshold that suits each row best in hindsight: what it
    could reach at most, not what it would reach on new scenes. It has no objects and no intervals.

    Args:
        scores: By pair.
        splits: Split of each pair.

    Returns:
        Rows as :mod:`cdpipe.stages.evaluation_files` describes them.
    """
    rows = []
    for pair_id, found in scores.items():
        rows += _rows(splits[pair_id], pair_id, [found])
    for split, chosen in _by_split(scores, splits):
        rows += _rows(split, None, chosen)
    return rows


def curves(
    scores: Mapping[str, PairScores], splits: Mapping[str, str]
) -> Iterator[tuple[str, str, dict[str, NDArray[np.float64]]]]:
    """Split, layer and :func:`threshold_curve`, pooled over the split's pairs, of every layer with probabilities."""
    for split, layer, histogram in _histograms(scores, splits):
        yield split, layer, threshold_curve(histogram)


def calibrations(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Split, layer, ece and bins of every layer with probabilities, pooled; see :func:`reliability`."""
    found = []
    for split, layer, histogram in _histograms(scores, splits):
        bins, error = reliability(histogram)
        found.append({"split": split, "layer": layer, "ece": error, "bins": bins})
    return found


def _by_split(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> Iterator[tuple[str, list[PairScores]]]:
    """Scores of each split that has any, in the order of the pairs' ids, by which intervals are drawn."""
    for split in (*SPLITS, UNSPLIT):
        chosen = [scores[pair_id] for pair_id in sorted(scores) if splits[pair_id] == split]
        if chosen:
            yield split, chosen


def _histograms(
    scores: Mapping[str, PairScores], splits: Mapping[str, str]
) -> Iterator[tuple[str, str, ScoreHistogram]]:
    for split, chosen in _by_split(scores, splits):
        for layer in dict.fromkeys(layer for found in chosen for layer in found.probabilities):
            first, *others = [found.probabilities[layer] for found in chosen if layer in found.probabilities]
            yield split, layer, sum(others, first)


def _rows(split: str, pair_id: str | None, scores: Sequence[PairScores]) -> list[dict[str, Any]]:
    """Rows of all layers, each summed over those of the pairs that have it."""
    place: dict[str, Any] = {"split": split, "pair_id": pair_id}
    rows = []
    for layer in dict.fromkeys(layer for found in scores for layer in found.counts):
        values = np.array([_values(found, layer) for found in scores if layer in found.counts], np.float64)
        head = {**place, "pairs": len(values), "layer": layer, "threshold": None}
        rows.append(head | _figures(values, pooled=pair_id is None))
    baseline = sum((found.baseline for found in scores[1:]), scores[0].baseline)
    offers = zip(baseline.thresholds, counts_by_threshold(baseline), strict=True)
    threshold, best = max(offers, key=lambda offer: offer[1].iou if offer[1].iou == offer[1].iou else -1.0)
    counts = [best.tp, best.fp, best.fn, best.tn, *[np.nan] * (len(COLUMNS) - 4)]
    head = {**place, "pairs": len(scores), "layer": BASELINE, "threshold": threshold}
    return [*rows, head | _figures(np.array([counts], np.float64), pooled=False)]


def _values(found: PairScores, layer: str) -> list[float]:
    """What figures are made of, in the order of :data:`COLUMNS`."""
    counts = found.counts.get(layer, Counts())
    near, objects = found.near.get(layer, NearCounts()), found.objects.get(layer, ObjectCounts())
    return [
        *(counts.tp, counts.fp, counts.fn, counts.tn),
        *(near.said, near.said_near, near.true, near.true_near),
        *(objects.labelled, objects.hit, objects.predicted, objects.false, found.area_km2),
    ]


def all_figures(sums: Values) -> dict[str, Values]:
    """All of :data:`FIGURES` from sums (..., column) of :data:`COLUMNS`; NaN where nothing was there to be judged."""
    said, said_near, true, true_near = np.moveaxis(sums[..., 4:8], -1, 0)
    objects, hit, _, false, area_km2 = np.moveaxis(sums[..., 8:], -1, 0)
    precision, recall = share(said_near, said), share(true_near, true)
    with np.errstate(invalid="ignore"):
        return {
            **pixel_figures(sums[..., :4]),
            "near_precision": precision,
            "near_recall": recall,
            # as F1 is 2 tp / (2 tp + fp + fn), it is defined where either of the two is, then 0
            "near_f1": _harmonic(precision, recall),
            "detection_rate": share(hit, objects),
            "false_per_km2": share(false, area_km2),
        }


def _harmonic(precision: Values, recall: Values) -> Values:
    one, other = np.nan_to_num(precision), np.nan_to_num(recall)
    mean = np.divide(2 * one * other, one + other, out=np.zeros(np.shape(one)), where=one + other > 0)
    return np.where(np.isnan(precision) & np.isnan(recall), np.nan, mean)


def _figures(values: Values, *, pooled: bool) -> dict[str, Any]:
    """Figures, their intervals, and the sums that they follow from."""
    sums = values.sum(axis=0)
    figures = {name: float(value) for name, value in all_figures(sums).items()}
    intervals = intervals_over_pairs(values, all_figures) if pooled else {}
    no_interval = None
    if not pooled:
        no_interval = "intervals are of figures pooled over pairs"
    elif len(values) < 2:
        no_interval = "1 pair: an interval over pairs needs at least 2"
    bounds = {
        f"{name}_{end}": None if (found := intervals.get(name)) is None else found[place]
        for name in FIGURES
        for place, end in enumerate(("low", "high"))
    }
    counted = {name: _whole(value) for name, value in zip(COLUMNS, sums.tolist(), strict=True)}
    return {**figures, **bounds, "no_interval": no_interval, **counted}


def _whole(value: float) -> float | int | None:
    if np.isnan(value):
        return None
    return int(value) if value == int(value) else value
