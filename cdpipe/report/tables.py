"""What an evaluation and audits found, as tables of the report; what is not there is left out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cdpipe.report.words import BASELINE, ENSEMBLE, UNKNOWN, figure, is_known

FIGURES = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "kappa": "Kappa",
    "near_f1": "F1 with tolerance",
    "detection_rate": "Objects found",
    "false_per_km2": "False objects per km²",
}
SPLITS = {"train": "train (seen in training)", "val": "val (seen in selection)", "test": "test (unseen)"}
BASELINE_NOTE = f"{BASELINE}: one threshold on |before − after|, the best in hindsight; the most that could reach."
RANGE_NOTE = "Below a figure: its interval, from resampling pairs."
AUDITS = {
    "seam": (
        "Seams",
        "How much more often change starts or ends at the borders of patches and blocks than elsewhere: 1 is none.",
    ),
    "swap": ("Swapped dates", "Share of pixels that change sides of the threshold when the dates are exchanged."),
    "identity": ("Same image twice", "Share of pixels called change where both dates are the same image; should be 0."),
    "identity_shifted": (
        "Same image, shifted",
        "The same where the second is shifted by half a pixel and brightened: what a small misfit alone looks like.",
    ),
    "disagreement": ("Disagreement", "Share of pixels that are change to some models and not to others."),
    "shift": ("Shift", "How far the second date lies off the first, in pixels: above 1, expect false edges."),
}
HEADLINES = ("score", "share", "length", "value")  # the number of an audit that says most


def evaluation_rows(evaluation: Any) -> list[dict[str, Any]]:
    """Rows of ``evaluation.json``; none where there is no such file."""
    rows = evaluation.get("rows") if isinstance(evaluation, dict) else evaluation
    return list(rows) if isinstance(rows, list) else []


def evaluation_doubts(evaluation: Any) -> list[str]:
    """Why ``evaluation.json`` says that the results are not to be believed."""
    doubts = evaluation.get("doubts", []) if isinstance(evaluation, dict) else []
    return [str(doubt) for doubt in doubts]


def without_twins(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows or curves without the ensemble's where it is one model, whose own say the same.

    Args:
        entries: Each with its ``layer``, and ``split`` and ``pair_id`` as far as they are of one.
    """
    listed = list(entries)
    layers: dict[tuple[Any, Any], dict[str, str]] = {}
    for entry in listed:
        if entry["layer"] != BASELINE:
            said = repr([item for item in entry.items() if item[0] != "layer"])  # NaN is like NaN there
            layers.setdefault(_place(entry), {})[str(entry["layer"])] = said
    twins = {place for place, said in layers.items() if len(said) == 2 and len(set(said.values())) == 1}
    return [entry for entry in listed if entry["layer"] != ENSEMBLE or _place(entry) not in twins]


def _place(entry: Mapping[str, Any]) -> tuple[Any, Any]:
    return entry.get("split"), entry.get("pair_id")


def figures_table(rows: Sequence[Mapping[str, Any]], caption: str, *, by_split: bool) -> dict[str, Any]:
    """A table of results, those of one split together, the best IoU of each in bold."""
    shown = {key: name for key, name in FIGURES.items() if any(is_known(row.get(key)) for row in rows)}
    best = {
        split: max((row["iou"] for row in rows if row["split"] == split and _counts(row)), default=None)
        for split in {row["split"] for row in rows}
    }
    made, before = [], None
    for row in rows:
        made.append(
            {
                "group": SPLITS.get(row["split"], row["split"]) if by_split else None,
                "first": by_split and row["split"] != before,
                "name": _layer_name(row),
                "best": _counts(row) and row["iou"] == best[row["split"]],
                "cells": [{"text": figure(row.get(key)), "range": _range(row, key)} for key in shown],
            }
        )
        before = row["split"]
    ranges = any(_range(row, key) for row in rows for key in shown)
    return {
        "caption": caption,
        "columns": [{"name": name} for name in shown.values()],
        "rows": made,
        "notes": [
            *([BASELINE_NOTE] if any(row["layer"] == BASELINE for row in rows) else []),
            *([RANGE_NOTE] if ranges else []),
        ],
    }


def _counts(row: Mapping[str, Any]) -> bool:
    return row["layer"] != BASELINE and is_known(row.get("iou"))


def _layer_name(row: Mapping[str, Any]) -> str:
    threshold = row.get("threshold")
    return str(row["layer"]) if threshold is None else f"{row['layer']} (at {threshold:.2f})"


def _range(row: Mapping[str, Any], key: str) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return f"{figure(low)}{UNKNOWN}{figure(high)}" if is_known(low) and is_known(high) else ""


def audits_of(audits: Any, pair_id: str) -> dict[str, dict[str, Any]]:
    """What was found about a pair by audit; empty where it was not audited."""
    pairs = audits.get("pairs", audits) if isinstance(audits, dict) else {}
    audited = pairs.get(pair_id)
    if not isinstance(audited, dict):
        return {}
    return {name: values for name, values in audited.items() if isinstance(values, dict)}


def audit_list(audits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A pair's audits in full: name, explanation and every figure."""
    return [
        {
            "name": _audit_name(key),
            "headline": figure(headline(values)),
            "text": AUDITS.get(key, ("", ""))[1],
            "figures": _flat(values),
        }
        for key, values in audits.items()
    ]


def _audit_name(key: str) -> str:
    return AUDITS[key][0] if key in AUDITS else key.replace("_", " ").capitalize()


def _flat(values: Mapping[str, Any], of: str = "") -> list[tuple[str, str]]:
    """Names and figures, those of parts behind the part's name."""
    figures: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{of}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            figures += _flat(value, f"{name}: ")
        elif not isinstance(value, list):
            figures.append((name, figure(value)))
    return figures


def headline(values: Mapping[str, Any]) -> float | None:
    """The number of an audit that says most; None where it has none, or that is not known."""
    key = next((key for key in HEADLINES if key in values), None)
    return float(values[key]) if key is not None and is_known(values[key]) else None


def audits_table(pairs: Sequence[tuple[str, str, Mapping[str, Mapping[str, Any]]]]) -> dict[str, Any] | None:
    """One number of each audit and pair: page, name and audits of each are given; None where there are none."""
    kinds = list(dict.fromkeys(key for _, _, audits in pairs for key in audits))
    if not kinds:
        return None
    rows = []
    for page, name, audits in pairs:
        numbers = [headline(audits[key]) if key in audits else None for key in kinds]
        cells = [{"text": figure(number), "value": "" if number is None else number} for number in numbers]
        rows.append({"page": page, "name": name, "cells": cells})
    explained = [{"name": _audit_name(key), "text": AUDITS.get(key, ("", ""))[1]} for key in kinds]
    return {"kinds": explained, "columns": [_audit_name(key) for key in kinds], "rows": rows}
