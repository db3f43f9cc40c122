"""What evaluation leaves behind: figures as JSON and CSV, a table to read, a picture of every pair."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdpipe.arrays.metrics import Counts
from cdpipe.formats.store import open_layer, read_window
from cdpipe.formats.stored_pair import StoredPair
from cdpipe.formats.table import plain_cell
from cdpipe.formats.workspace import Workspace, write_atomically, write_json
from cdpipe.stages.evaluation import BASELINE
from cdpipe.stages.pictures import PairLayers, decimate, draw_pair

FIGURES = ("iou", "f1", "precision", "recall")


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


def write_tables(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Write ``evaluation.json``, ``summary.csv`` and ``evaluation.md``; the last is returned."""
    write_json(folder / "evaluation.json", list(rows))
    write_atomically(folder / "summary.csv", _csv(rows).encode())
    text = _markdown(rows)
    write_atomically(folder / "evaluation.md", text.encode())
    return text


def write_agreement(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``agreement.csv``, or remove what an earlier evaluation left where there is nothing to compare."""
    path = folder / "agreement.csv"
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


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    head = ["split", "pair", "layer", "IoU", "F1", "precision", "recall"]
    body = [
        [
            row["split"],
            row["pair_id"] or "all",
            _layer(row),
            *("-" if _is_nothing(row[name]) else f"{row[name]:.3f}" for name in FIGURES),
        ]
        for row in rows
    ]
    lines = [head, ["---"] * len(head), *body]
    notes = (
        f"\n{BASELINE}: one threshold on |before - after|, chosen in hindsight for each row; the most it could reach.\n"
    )
    return "# Evaluation\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n" + notes


def _layer(row: dict[str, Any]) -> str:
    return str(row["layer"]) if row["threshold"] is None else f"{row['layer']} (best at {row['threshold']:.2f})"


def pooled(rows: Sequence[dict[str, Any]], split: str) -> dict[str, float]:
    """IoU of every layer over all pairs of a split."""
    return {row["layer"]: row["iou"] for row in rows if row["pair_id"] is None and row["split"] == split}
