"""What evaluation leaves behind: figures as JSON and CSV, a table to read, a picture of every pair.

``evaluation.json`` is an object; what cannot be said is null in it, never 0:

- ``rows``: one for each layer (model, ``ensemble``, submission, ``grey difference``) of each pair, then one for each
  layer of each split, pooled: ``pair_id`` is null there, ``split`` is train, val, test or unsplit, ``pairs`` says how
  many. ``threshold`` is null but for the baseline's. Figures: ``iou``, ``f1``, ``precision``, ``recall``, ``kappa`` of
  pixels; ``near_precision``, ``near_recall``, ``near_f1`` with ``tolerance_px`` pixels of tolerance;
  ``detection_rate``, the share of labelled objects (8-connected) that are hit; ``false_per_km2``, predicted objects
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.formats.tables import plain_cell
from cdpipe.metrics.counts import Counts
from cdpipe.metrics.intervals import LEVEL, REPLICATES, SEED
from cdpipe.stages.evaluation import BASELINE, PairScores
from cdpipe.stages.evaluation_rows import CURVE_STEP, calibrations, curves, tabulate
from cdpipe.stages.pictures import PairLayers, decimate, draw_pair
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import write_atomically, write_json

FIGURES = ("iou", "f1", "precision", "recall", "kappa")
OTHER_FIGURES = ("near_f1", "detection_rate", "false_per_km2")
INTERVALS = "percentile bootstrap over pairs"

Curve = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found out about a run; see :mod:`cdpipe.stages.evaluation_rows`.

    Attributes:
        rows: Of every pair and pooled.
        curves: Split, layer and figures by threshold.
        calibrations: Reliability of each split and layer.
        tolerance: Pixels by which a border may be off.
    """

    rows: Sequence[dict[str, Any]]
    curves: Sequence[tuple[str, str, Curve]]
    calibrations: Sequence[dict[str, Any]]
    tolerance: int


def evaluate_run(scores: Mapping[str, PairScores], splits: Mapping[str, str], tolerance: int) -> Evaluation:
    """All tables of a run, from the scores of its pairs and their splits."""
    return Evaluation(tabulate(scores, splits), list(curves(scores, splits)), calibrations(scores, splits), tolerance)


@dataclass(frozen=True, slots=True)
class PictureJob:
    """The picture of one pair.

    Attributes:
        workspace: The store.
        path: File to write.
        pair: The pair.
        label_key: Key of its label, None without one.
        change_key: Key of its change.
        dates: Of both images.
        threshold: Of the change.
        counts: Of the ensemble, None without a label.
    """

    workspace: Workspace
    path: Path
    pair: StoredPair
    label_key: str | None
    change_key: str
    dates: tuple[str, str] | None
    threshold: float
    counts: Counts | None


def draw_picture(job: PictureJob) -> None:
    """Draw a pair's picture from what is stored, every k-th pixel of it."""
    pair = job.pair
    stored = job.workspace.group("pairs", pair.pair_id, pair.key)
    change = job.workspace.group("changes", pair.pair_id, job.change_key)
    colour = [pair.roles.index(role) for role in ("red", "green", "blue")]

    def layer(group: Path, name: str) -> Any:
        array = open_layer(group, name)
        return decimate(lambda window: read_window(array, window), pair.grid.shape)

    label = None
    if job.label_key is not None:
        label = layer(job.workspace.group("labels", pair.pair_id, job.label_key), "label")
    layers = PairLayers(
        pair_id=pair.pair_id,
        before=layer(stored, "before")[colour],
        after=layer(stored, "after")[colour],
        valid=layer(stored, "valid"),
        probability=layer(change, "probability"),
        change=layer(change, "change"),
        label=label,
        dates=job.dates,
        threshold=job.threshold,
        iou=job.counts.iou if job.counts else None,
        f1=job.counts.f1 if job.counts else None,
        grid=pair.grid,
    )
    draw_pair(job.path, layers)


def write_tables(folder: Path, evaluation: Evaluation) -> str:
    """Write ``evaluation.json``, ``summary.csv``, ``curves.csv`` and ``evaluation.md``; the last is returned."""
    write_json(folder / "evaluation.json", _document(evaluation))
    write_atomically(folder / "summary.csv", _csv(evaluation.rows).encode())
    points = [
        {"split": split, "layer": layer, **point}
        for split, layer, curve in evaluation.curves
        for point in _points(curve)
    ]
    _write_or_remove(folder / "curves.csv", points)
    text = _markdown(evaluation)
    write_atomically(folder / "evaluation.md", text.encode())
    return text


def _document(evaluation: Evaluation) -> dict[str, Any]:
    return {
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


def write_agreement(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``agreement.csv``, or remove what an earlier evaluation left where there is nothing to compare."""
    _write_or_remove(folder / "agreement.csv", rows)


def _write_or_remove(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        write_atomically(path, _csv(rows).encode())
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
        [row["split"], row["pair_id"] or "all", _layer(row), *(with_interval(row, name) for name in FIGURES)]
        for row in rows
    ]
    errors = {(each["split"], each["layer"]): each["ece"] for each in evaluation.calibrations}
    more = [
        [
            *(row["split"], row["layer"], *(with_interval(row, name) for name in OTHER_FIGURES)),
            _number(errors.get((row["split"], row["layer"]))),
        ]
        for row in rows
        if row["pair_id"] is None and row["layer"] != BASELINE
    ]
    near = f"F1 within {evaluation.tolerance} px"
    notes = [
        f"[low, high]: {LEVEL:.0%} {INTERVALS}; none of a single pair, too narrow of few.",
        "objects hit: share of labelled objects with a pixel found; false: objects entirely on unchanged ground.",
        "ECE: expected calibration error, how far probabilities are from the share of true change, on average.",
        f"{BASELINE}: one threshold on |before - after|, chosen in hindsight for each row; the most it could reach.",
    ]
    objects = _table(["split", "layer", near, "objects hit", "false objects per km²", "ECE"], more)
    return "\n".join(["# Evaluation", "", *_table(head, body), "", *objects, "", "\n\n".join(notes), ""])


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]


def with_interval(row: Mapping[str, Any], name: str) -> str:
    """A figure of a row for people, with its interval if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    text = _number(row[name])
    return text if low is None else f"{text} [{low:.3f}, {high:.3f}]"


def _number(value: Any) -> str:
    return "-" if _is_nothing(value) else f"{value:.3f}"


def _layer(row: dict[str, Any]) -> str:
    return str(row["layer"]) if row["threshold"] is None else f"{row['layer']} (best at {row['threshold']:.2f})"


def pooled(rows: Sequence[dict[str, Any]], split: str) -> dict[str, float]:
    """IoU of every layer over all pairs of a split."""
    return {row["layer"]: row["iou"] for row in rows if row["pair_id"] is None and row["split"] == split}
