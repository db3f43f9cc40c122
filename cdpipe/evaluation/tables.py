"""What evaluation leaves behind: figures as JSON and CSV, a table to read, a picture of every pair.

``evaluation.json`` is an object; what cannot be said is null in it, never 0:

- ``rows``: one for each layer (model, ``ensemble``, submission, ``grey difference``) of each pair, then one for each
  layer of each split, pooled: ``pair_id`` is null there, ``split`` is train, val, test or unsplit, ``pairs`` says how
  many. ``threshold`` is null but for the baseline's. Figures: ``iou``, ``f1``, ``precision``, ``recall``, ``kappa`` of
  pixels; ``near_precision``, ``near_recall``, ``near_f1`` with ``tolerance_px`` pixels of tolerance;
  ``detection_rate``, the share of labelled objects (4-connected) that are hit; ``false_per_km2``, predicted objects
  entirely on unchanged ground for each square kilometre that was judged. ``<figure>_low`` and ``<figure>_high`` are
  the interval of a pooled figure, ``no_interval`` says why there is none. The sums behind them: ``tp``, ``fp``,
  ``fn``, ``tn``; ``near_said``, ``near_said_near``, ``near_true``, ``near_true_near``; ``objects``, ``objects_hit``,
  ``objects_predicted``, ``objects_false``, ``area_km2``. ``summary.csv`` has the same rows.
- ``intervals``: ``level``, ``replicates``, ``seed`` and ``method`` of the intervals.
- ``tolerance_px``: see above.
- ``curves``: ``split``, ``layer`` and ``points``, each with ``threshold``, ``iou``, ``f1``, ``precision``, ``recall``,
  ``kappa`` and ``said`` (share of pixels said to have changed); ``curves.csv`` has ten times as many.
- ``calibration``: ``split``, ``layer``, ``ece`` and ``bins``, each with ``low``, ``high``, ``pixels``, ``probability``
  (mean) and ``changed`` (share).
"""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.evaluation.doubts import doubt_results
from cdpipe.evaluation.scores import BASELINE, ObjectCounts, PairScores, pair_of
from cdpipe.formats.tables import plain_cell
from cdpipe.metrics.counts import Counts, NearCounts, ScoreHistogram, counts_by_threshold
from cdpipe.metrics.intervals import FEWEST, LEVEL, REPLICATES, SEED, Values, intervals_over_pairs, pixel_figures, share
from cdpipe.metrics.reliability import reliability, threshold_curve
from cdpipe.pairs.table import SPLITS
from cdpipe.report.tables import without_twins
from cdpipe.workspace.files import json_bytes, write_if_other
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

TABLES = ("evaluation.json", "summary.csv", "evaluation.md", "curves.csv")
UNSPLIT = "unsplit"  # the split of labelled pairs that have none
COUNTS = ("tp", "fp", "fn", "tn")
COLUMNS = (
    *COUNTS,
    *("near_said", "near_said_near", "near_true", "near_true_near"),
    *("objects", "objects_hit", "objects_predicted", "objects_false", "area_km2"),
)
PIXEL_FIGURES = ("iou", "f1", "precision", "recall", "kappa")
FIGURES = (*PIXEL_FIGURES, "near_precision", "near_recall", "near_f1", "detection_rate", "false_per_km2")
POOLED_FIGURES = ("near_f1", "detection_rate", "false_per_km2")  # which the readable table has of pooled rows alone
INTERVALS = "percentile bootstrap over pairs"
SHOWN = 3  # scenes that are named
CURVE_STEP = 10  # of the thresholds, every so many stand in evaluation.json

Curve = Mapping[str, NDArray[np.float64]]


def tabulate(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the evaluation: every layer of every pair, then pooled over each split.

    The baseline, plain differencing, is given the threshold that suits each row best in hindsight: what it
    could reach at most, not what it would reach on new scenes. It has no objects and no intervals.

    Args:
        scores: By pair, or strip of one.
        splits: Split of each of them.

    Returns:
        Rows as :mod:`cdpipe.evaluation.tables` describes them.
    """
    rows = []
    for pair_id, of_pair in scores.items():
        rows += _rows(splits[pair_id], pair_of(pair_id), [of_pair])
    for split, chosen in _by_split(scores, splits):
        rows += _rows(split, None, chosen)
    return rows


def curves(
    scores: Mapping[str, PairScores], splits: Mapping[str, str]
) -> Iterator[tuple[str, str, dict[str, NDArray[np.float64]]]]:
    """Threshold curves of every layer with probabilities, pooled over each split's pairs.

    Yields:
        Split, layer, and figures by name as :func:`threshold_curve` gives them, each (threshold,) float64.
    """
    for split, layer, histogram in _histograms(scores, splits):
        yield split, layer, threshold_curve(histogram)


def calibrations(scores: Mapping[str, PairScores], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Split, layer, ece and bins of every layer with probabilities, pooled; see :func:`reliability`."""
    errors = []
    for split, layer, histogram in _histograms(scores, splits):
        bins, error = reliability(histogram)
        errors.append({"split": split, "layer": layer, "ece": error, "bins": bins})
    return errors


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
        for layer in dict.fromkeys(layer for pair in chosen for layer in pair.probabilities):
            first, *others = [pair.probabilities[layer] for pair in chosen if layer in pair.probabilities]
            yield split, layer, sum(others, first)


def _rows(split: str, pair_id: str | None, scores: Sequence[PairScores]) -> list[dict[str, Any]]:
    """Rows of all layers, each summed over those of the pairs that have it."""
    place: dict[str, Any] = {"split": split, "pair_id": pair_id}
    rows = []
    for layer in dict.fromkeys(layer for pair in scores for layer in pair.counts):
        values = np.array([_values(pair, layer) for pair in scores if layer in pair.counts], np.float64)
        head = {**place, "pairs": len(values), "layer": layer, "threshold": None}
        rows.append(head | _figures(values, pooled=pair_id is None))
    baseline = sum((pair.baseline for pair in scores[1:]), scores[0].baseline)
    if not any(baseline.changed):  # nothing is to be found: no threshold is better than another
        return rows
    offers = zip(baseline.thresholds, counts_by_threshold(baseline), strict=True)
    threshold, best = max(offers, key=lambda offer: offer[1].iou if offer[1].iou == offer[1].iou else -1.0)
    counts = [best.tp, best.fp, best.fn, best.tn, *[np.nan] * (len(COLUMNS) - 4)]
    head = {**place, "pairs": len(scores), "layer": BASELINE, "threshold": threshold}
    return [*rows, head | _figures(np.array([counts], np.float64), pooled=False)]


def _values(scores: PairScores, layer: str) -> list[float]:
    """What figures are made of, in the order of :data:`COLUMNS`."""
    counts = scores.counts.get(layer, Counts())
    near, objects = scores.near.get(layer, NearCounts()), scores.objects.get(layer, ObjectCounts())
    return [
        *(counts.tp, counts.fp, counts.fn, counts.tn),
        *(near.predicted, near.predicted_near, near.reference, near.reference_near),
        *(objects.reference, objects.hit, objects.predicted, objects.false, scores.area_km2),
    ]


def all_figures(sums: Values) -> dict[str, Values]:
    """All of :data:`FIGURES`.

    Args:
        sums: (..., column) of :data:`COLUMNS`; areas in square kilometres.

    Returns:
        Each (...) float64, NaN where nothing was there to be judged.
    """
    predicted, predicted_near, reference, reference_near = np.moveaxis(sums[..., 4:8], -1, 0)
    objects, hit, _, false, area_km2 = np.moveaxis(sums[..., 8:], -1, 0)
    precision, recall = share(predicted_near, predicted), share(reference_near, reference)
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
    changed = int(np.count_nonzero(values[:, 0] + values[:, 2]))  # pairs whose labels have change: tp + fn
    intervals = intervals_over_pairs(values, all_figures) if pooled and changed >= FEWEST else {}
    no_interval = None
    if not pooled:
        no_interval = "intervals are of figures pooled over pairs"
    elif changed < FEWEST:
        which = "" if changed == len(values) else " with change"
        no_interval = (
            f"{changed} pair{'' if changed == 1 else 's'}{which}: an interval over pairs needs at least {FEWEST}"
        )
    bounds = {
        f"{name}_{end}": None if (interval := intervals.get(name)) is None else interval[place]
        for name in FIGURES
        for place, end in enumerate(("low", "high"))
    }
    counted = {name: _whole(value) for name, value in zip(COLUMNS, sums.tolist(), strict=True)}
    return {**figures, **bounds, "no_interval": no_interval, **counted}


def _whole(value: float) -> float | int | None:
    if np.isnan(value):
        return None
    return int(value) if value == int(value) else value


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found out about a run; see :mod:`cdpipe.evaluation.tables`.

    Attributes:
        rows: Of every pair and pooled.
        curves: Split, layer and figures by threshold.
        calibrations: Reliability of each split and layer.
        tolerance: Pixels by which a border may be off.
        strips: Pairs that are cut, each with the splits that have a strip of it.
        doubts: Why the results are not to be believed, see :func:`cdpipe.evaluation.doubts.doubt_results`.
    """

    rows: Sequence[dict[str, Any]]
    curves: Sequence[tuple[str, str, Curve]]
    calibrations: Sequence[dict[str, Any]]
    tolerance: int
    strips: Mapping[str, Sequence[str]] = field(default_factory=dict)
    doubts: Sequence[str] = ()

    @property
    def caution(self) -> str | None:
        """What figures of strips cannot say; None where all pairs are in a split as a whole."""
        names = list(self.strips)
        if not names:
            return None
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        cut = [split for split in SPLITS if split in cut_splits(self.strips)]
        return (
            f"{', '.join(cut[:-1])} and {cut[-1]} are strips of the same {'scene' if len(names) == 1 else 'scenes'} "
            f"({shown}): figures on them say what to expect on the rest of it, and less of any other"
        )


def cut_splits(strips: Mapping[str, Sequence[str]]) -> set[str]:
    """The splits that have strips of pairs; see :class:`Evaluation`."""
    return {split for of_pair in strips.values() for split in of_pair}


def evaluate_run(
    scores: Mapping[str, PairScores], splits: Mapping[str, str], tolerance: int, untrained: Collection[str] = ()
) -> Evaluation:
    """All tables of a run.

    Args:
        scores: By pair, or strip of one.
        splits: Split of each of them.
        tolerance: Pixels by which a border may be off.
        untrained: Layers of detectors that learned nothing.
    """
    rows, errors = tabulate(scores, splits), calibrations(scores, splits)
    strips: dict[str, list[str]] = {}
    for each in sorted(scores):
        if pair_of(each) != each:
            strips.setdefault(pair_of(each), []).append(splits[each])
    doubts = doubt_results(rows, untrained, cut_splits(strips))
    return Evaluation(rows, list(curves(scores, splits)), errors, tolerance, strips, doubts)


def write_tables(folder: Location, evaluation: Evaluation) -> dict[Location, str]:
    """Write ``evaluation.json``, ``summary.csv``, ``curves.csv`` and ``evaluation.md``.

    Returns:
        Every file with its SHA-256.
    """
    document, summary, readable, curves = (folder / name for name in TABLES)
    document.write(json_bytes(_document(evaluation)))
    summary.write(_csv(evaluation.rows).encode())
    points = [
        {"split": split, "layer": layer, **point}
        for split, layer, curve in evaluation.curves
        for point in _points(curve)
    ]
    _write_or_remove(curves, points)
    readable.write(_markdown(evaluation).encode())
    return hash_stored([document, summary, readable, *([curves] if points else [])])


def _document(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **{name: told for name in ("strips", "doubts") if (told := getattr(evaluation, name))},
        "rows": list(evaluation.rows),
        "intervals": {"level": LEVEL, "replicates": REPLICATES, "seed": SEED, "method": INTERVALS},
        "tolerance_px": evaluation.tolerance,
        "curves": [
            {"split": split, "layer": layer, "points": _points(curve)[::CURVE_STEP]}
            for split, layer, curve in evaluation.curves
        ],
        "calibration": list(evaluation.calibrations),
    }


def _points(curve: Curve) -> list[dict[str, float]]:
    """A curve as rows."""
    columns = {name: values.tolist() for name, values in curve.items()}
    return [dict(zip(columns, point, strict=True)) for point in zip(*columns.values(), strict=True)]


def write_agreement(folder: Location, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``agreement.csv``, or remove what an earlier evaluation left where there is nothing to compare."""
    _write_or_remove(folder / "agreement.csv", rows)


def _write_or_remove(path: Location, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        write_if_other(path, _csv(rows).encode())
    else:
        path.unlink(missing_ok=True)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return plain_cell(value)
    return "" if _is_nothing(value) else value


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _markdown(evaluation: Evaluation) -> str:
    rows = evaluation.rows
    head = ["split", "pair", "layer", "IoU", "F1", "precision", "recall", "kappa"]
    body = [
        [row["split"], row["pair_id"] or "all", _layer(row), *(with_interval(row, name) for name in PIXEL_FIGURES)]
        for row in rows
    ]
    errors = {(row["split"], row["layer"]): row["ece"] for row in evaluation.calibrations}
    more = [
        [
            *(row["split"], row["layer"], *(with_interval(row, name) for name in POOLED_FIGURES)),
            _number(errors.get((row["split"], row["layer"]))),
        ]
        for row in rows
        if row["pair_id"] is None and row["layer"] != BASELINE
    ]
    near = f"F1 within {evaluation.tolerance} px"
    caution = evaluation.caution
    notes = [
        *([] if caution is None else [f"{caution[0].upper()}{caution[1:]}."]),
        f"[low, high]: {LEVEL:.0%} {INTERVALS}; none of fewer than {FEWEST} pairs with change, too narrow of few.",
        "objects hit: share of labelled objects with a pixel found; false: objects entirely on unchanged ground.",
        "ECE: expected calibration error, how far probabilities are from the share of true change, on average.",
        "-: not defined, where no pixel counts, or none changed by the label and none was found.",
        f"{BASELINE}: one threshold on |before - after|, chosen in hindsight for each row; the most it could reach.",
    ]
    objects = _table(["split", "layer", near, "objects hit", "false objects per km²", "ECE"], more)
    doubts = [line for doubt in evaluation.doubts for line in (f"**Not to be believed: {doubt}.**", "")]
    return "\n".join(["# Evaluation", "", *doubts, *_table(head, body), "", *objects, "", "\n\n".join(notes), ""])


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """A figure of a row for people, with its interval if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = _number(row[name])
    return text if low is None else f"{text} [{low:.3f}, {high:.3f}]"


def _number(value: Any) -> str:
    return "-" if _is_nothing(value) else f"{value:.3f}"


def _layer(row: Mapping[str, Any]) -> str:
    return str(row["layer"]) if row["threshold"] is None else f"{row['layer']} (best at {row['threshold']:.2f})"


def sum_up_test(evaluation: Evaluation) -> str | None:
    """IoU of every layer over all that is of test in a sentence, or why there is none; None without such pairs."""
    own = without_twins(row for row in evaluation.rows if row["pair_id"] is None and row["split"] == "test")
    if not own:
        return None
    if not any(row["tp"] + row["fp"] + row["fn"] + row["tn"] for row in own):
        return "no pixel of the test pairs' labels counts, so there are no figures of them"
    if not any(row["tp"] + row["fn"] for row in own):
        false = ", ".join(f"{row['layer']} {row['fp']:,} of {row['fp'] + row['tn']:,}" for row in own)
        return f"no pixel of the test pairs' labels changed, so IoU and F1 say nothing; falsely changed pixels: {false}"
    told = ", ".join(f"{row['layer']} {_number(row['iou'])}" for row in own)
    what = "strips of test" if "test" in cut_splits(evaluation.strips) else "test pairs"
    return f"IoU on {what}, which neither training nor selection saw: {told}"
