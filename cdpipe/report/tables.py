"""What an evaluation and audits found, as tables and charts of the report; what is not there is left out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cdpipe.report.charts import Series, line_chart

# The report's words and numbers: areas, shares and figures as people read them, and the summary in sentences.

UNKNOWN = "–"


def area(square_metres: float | None, pixels: float | None = None) -> str:
    """An area in the unit that suits it, of three digits; in pixels where it is not known in metres."""
    if square_metres is None:
        return UNKNOWN if pixels is None else f"{pixels:,.0f} px"
    unit, size = next(
        (each for each in (("km²", 1e6), ("ha", 1e4)) if square_metres >= each[1]), ("m²", 1.0)
    )  # a hectare is a field, a square kilometre a village
    return f"{_three_digits(square_metres / size)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def share(part: float | None, whole: float | None) -> str:
    """A part in percent; small ones keep two digits."""
    if not whole or part is None:
        return UNKNOWN
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent >= 1 or percent == 0 else f"{percent:.2g} %"


def figure(value: Any) -> str:
    """A score with three decimals, a count with none."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN if value is None or isinstance(value, int | float) else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number of things."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def took(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def names(each: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    return each[0] if len(each) == 1 else f"{', '.join(each[:-1])} and {each[-1]}"


def summarise(
    totals: Mapping[str, float | None],
    states: Mapping[str, int],
    pooled: Sequence[Mapping[str, Any]],
    threshold: tuple[str, float, str],
) -> list[str]:
    """The run in sentences.

    Args:
        totals: ``observed_px``, ``changed_px``, ``observed_m2``, ``changed_m2`` of all pairs; the last two None where
            they are not known of every pair.
        states: How many pairs are ``finished``, ``failed`` and ``skipped``.
        pooled: Rows of the evaluation pooled over splits.
        threshold: Kind of ensemble, its threshold, and what that was fitted on.
    """
    kind, value, fitted_on = threshold
    seen = f"{area(totals['observed_m2'], totals['observed_px'])} observed at both dates"
    changed = (
        f"{area(totals['changed_m2'], totals['changed_px'])}, {share(totals['changed_px'], totals['observed_px'])}"
    )
    sentences = [_states(states)]
    if states["finished"]:
        sentences.append(f"Of {seen}, {changed}, changed.")
        sentences += _scores(pooled)
        rule = (
            "more than half of the models see it"
            if kind == "vote"
            else f"the ensemble's probability reaches {value:.3g}"
        )
        sentences.append(f"A pixel counts as changed where {rule} ({fitted_on}).")
    return sentences


def _states(states: Mapping[str, int]) -> str:
    total = sum(states.values())
    if states["finished"] == total:
        return (
            f"{count(total, 'pair')} of scenes {'was' if total == 1 else 'were'} compared; all are finished."
            if (total > 1)
            else "One pair of scenes was compared; it is finished."
        )
    others = [f"{states[state]:,} {state}" for state in ("failed", "skipped") if states[state]]
    return (
        f"Of {count(total, 'pair')} of scenes {states['finished']:,} are finished, {names(others)}; reasons are below."
    )


def _scores(pooled: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the ensemble and the best model reached on the most telling split there is."""
    for split, said in (
        ("test", "test {}, which neither training nor selection saw"),
        ("val", "validation {}, on which epochs and threshold were chosen"),
    ):
        rows = {row["layer"]: row for row in pooled if row["split"] == split and row.get("iou") is not None}
        models = [row for name, row in rows.items() if name not in ("ensemble", "grey difference")]
        if "ensemble" not in rows:
            continue
        whole = rows["ensemble"]
        text = f"On {count(whole['pairs'], said.format('pair'), said.format('pairs'))}, the ensemble's IoU is "
        text += f"{whole['iou']:.3f}{_interval(whole, 'iou')}, its F1 {whole['f1']:.3f}"
        if models:
            best = max(models, key=lambda row: float(row["iou"]))
            text += f"; the best single model, {best['layer']}, has IoU {best['iou']:.3f}"
        base = rows.get("grey difference")
        text += f"; thresholding the difference of the dates could reach {base['iou']:.3f}" if base else ""
        return [text + "."]
    return []


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "" if low is None or high is None else f" (interval over pairs {low:.3f} to {high:.3f})"


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
BASELINE = "grey difference"
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


def figures_table(rows: Sequence[Mapping[str, Any]], caption: str, *, by_split: bool) -> dict[str, Any]:
    """A table of results, those of one split together, the best IoU of each in bold."""
    shown = {key: name for key, name in FIGURES.items() if any(_known(row.get(key)) for row in rows)}
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


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _counts(row: Mapping[str, Any]) -> bool:
    return row["layer"] != BASELINE and _known(row.get("iou"))


def _layer_name(row: Mapping[str, Any]) -> str:
    threshold = row.get("threshold")
    return str(row["layer"]) if threshold is None else f"{row['layer']} (at {threshold:.2f})"


def _range(row: Mapping[str, Any], key: str) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return f"{figure(low)}{UNKNOWN}{figure(high)}" if _known(low) and _known(high) else ""


def evaluation_charts(evaluation: Any) -> list[dict[str, Any]]:
    """Precision over recall, F1 over thresholds and reliability of the most telling split, as far as there are any."""
    if not isinstance(evaluation, dict):
        return []
    curves, calibration = evaluation.get("curves") or [], evaluation.get("calibration") or []
    splits = {each["split"] for each in (*curves, *calibration)}
    split = next((each for each in ("test", "val", "unsplit", "train") if each in splits), None)
    chosen = [each for each in curves if each["split"] == split][-4:]
    charts = []
    for title, x, y, label in (
        (f"Precision over recall, {split}", "recall", "precision", "recall"),
        (f"F1 over the threshold, {split}", "threshold", "f1", "threshold"),
    ):
        series = [Series(each["layer"], points) for each in chosen if (points := _points(each["points"], x, y))]
        if series:
            charts.append(line_chart(title, series, label, (0.0, 1.0)))
    reliable = [each for each in calibration if each["split"] == split][-3:]
    series = [Series(each["layer"], points) for each in reliable if (points := _bins(each["bins"]))]
    if series:
        errors = ", ".join(f"{each['layer']} {figure(each.get('ece'))}" for each in reliable)
        charts.append(
            line_chart(
                f"Share that changed over probability, {split}",
                [*series, Series("ideal", [(0.0, 0.0), (1.0, 1.0)])],
                "probability",
                (0.0, 1.0),
                f"Expected calibration error: {errors}.",
            )
        )
    return charts


def _points(points: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    return [(each[x], each[y]) for each in points if _known(each.get(x)) and _known(each.get(y))]


def _bins(bins: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    return _points([each for each in bins if each.get("pixels")], "probability", "changed")


def audits_of(audits: Any, pair_id: str) -> dict[str, dict[str, Any]]:
    """What was found about a pair by audit; empty where it was not audited."""
    pairs = audits.get("pairs", audits) if isinstance(audits, dict) else {}
    found = pairs.get(pair_id)
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def audit_list(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A pair's audits in full: name, explanation and every figure."""
    return [
        {
            "name": _audit_name(key),
            "headline": figure(headline(values)),
            "text": AUDITS.get(key, ("", ""))[1],
            "figures": _flat(values),
        }
        for key, values in found.items()
    ]


def _audit_name(key: str) -> str:
    return AUDITS[key][0] if key in AUDITS else key.replace("_", " ").capitalize()


def _flat(values: Mapping[str, Any], of: str = "") -> list[tuple[str, str]]:
    """Names and figures, those of parts behind the part's name."""
    found = []
    for key, value in values.items():
        name = f"{of}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}: ")
        elif not isinstance(value, list):
            found.append((name, figure(value)))
    return found


def headline(values: Mapping[str, Any]) -> float | None:
    """The number of an audit that says most; None where it has none, or that is not known."""
    key = next((key for key in HEADLINES if key in values), None)
    return float(values[key]) if key is not None and _known(values[key]) else None


def audits_table(pairs: Sequence[tuple[str, str, Mapping[str, Mapping[str, Any]]]]) -> dict[str, Any] | None:
    """One number of each audit and pair: page, name and audits of each are given; None where there are none."""
    kinds = list(dict.fromkeys(key for _, _, found in pairs for key in found))
    if not kinds:
        return None
    rows = []
    for page, name, found in pairs:
        numbers = [headline(found[key]) if key in found else None for key in kinds]
        cells = [{"text": figure(number), "value": "" if number is None else number} for number in numbers]
        rows.append({"page": page, "name": name, "cells": cells})
    explained = [{"name": _audit_name(key), "text": AUDITS.get(key, ("", ""))[1]} for key in kinds]
    return {"kinds": explained, "columns": [_audit_name(key) for key in kinds], "rows": rows}
