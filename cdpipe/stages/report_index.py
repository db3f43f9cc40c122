"""What the report's index shows, as its template wants it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cdpipe.stages import report_tables as tables
from cdpipe.stages import report_words as words
from cdpipe.stages.report_content import PairPage, Report
from cdpipe.stages.report_pair_page import describe_change, review_feature

TOP = 60  # changes in the index's gallery


def describe_index(report: Report) -> dict[str, Any]:
    """Everything that the index's template names."""
    totals = _totals(report.pairs)
    states = {
        "finished": len(report.pairs),
        "failed": sum(bool(each["failed"]) for each in report.problems),
        "skipped": sum(not each["failed"] for each in report.problems),
    }
    pooled = [row for row in report.rows if row["pair_id"] is None]
    run = report.run
    scores = {row["pair_id"]: row for row in report.rows if row["layer"] == "ensemble" and row["pair_id"]}
    every = [describe_change(pair, each) for pair in report.pairs for each in pair.facts["objects"]]
    changes = sorted(every, key=lambda each: (-each["score"], each["pair_id"], each["id"]))[:TOP]
    most = max((changed_share(pair) for pair in report.pairs), default=0.0) or 1.0
    caption = "Pooled over the pairs of each split: every pixel counts once."
    return {
        "run": {**run, "threshold": f"{run['threshold']:.3g}"},
        "sentences": words.summarise(totals, states, pooled, (run["ensemble"], run["threshold"], run["fitted_on"])),
        "numbers": _numbers(totals, states, pooled),
        "pairs": [_pair_row(pair, scores.get(pair.pair_id, {}), most) for pair in report.pairs],
        "splits": sorted({pair.split for pair in report.pairs}),
        "dated": any(any(pair.dates) for pair in report.pairs),
        "scored": bool(scores),
        "changes": [{**each, "rank": rank} for rank, each in enumerate(changes, 1)],
        "object_count": len(every),
        "review": [review_feature(each) for each in changes],
        "tables": [tables.figures_table(pooled, caption, by_split=True)] if pooled else [],
        "curves": tables.evaluation_charts(report.evaluation),
        "training": report.training,
        "audits": tables.audits_table(
            [(pair.page, pair.name, tables.audits_of(report.audits, pair.pair_id)) for pair in report.pairs]
        ),
        "problems": report.problems,
        "models": report.models,
        "log": report.log,
        "configuration": report.configuration,
        "versions": report.versions,
        "files": [{"name": name, "href": f"../{path}"} for name, path in report.files],
    }


def _totals(pairs: Sequence[PairPage]) -> dict[str, float | None]:
    names = ("observed_px", "changed_px", "observed_m2", "changed_m2")
    values = {name: [pair.facts["figures"][name] for pair in pairs] for name in names}
    return {name: None if None in each else math.fsum(each) for name, each in values.items()}


def _numbers(
    totals: Mapping[str, float | None], states: Mapping[str, int], pooled: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """What stands large beside the summary."""
    others = ", ".join(f"{states[state]} {state}" for state in ("failed", "skipped") if states[state])
    numbers = [{"name": "Pairs finished", "value": f"{states['finished']:,}", "note": others}]
    changed = words.area(totals["changed_m2"], totals["changed_px"])
    seen = words.area(totals["observed_m2"], totals["observed_px"])
    part = words.share(totals["changed_px"], totals["observed_px"])
    numbers.append({"name": "Changed", "value": changed, "note": f"{part} of {seen} observed"})
    for split, note in (("test", "pooled over unseen test pairs"), ("val", "pooled over validation pairs")):
        row = next((row for row in pooled if row["split"] == split and row["layer"] == "ensemble"), None)
        if row and row.get("iou") is not None:
            numbers.append({"name": "IoU of the ensemble", "value": words.figure(row["iou"]), "note": note})
            break
    return numbers


def changed_share(pair: PairPage) -> float:
    """Changed share of what was observed, 0 where nothing was."""
    figures = pair.facts["figures"]
    return float(figures["changed_px"] / figures["observed_px"]) if figures["observed_px"] else 0.0


def _pair_row(pair: PairPage, scores: Mapping[str, Any], most: float) -> dict[str, Any]:
    figures = pair.facts["figures"]
    return {
        "id": pair.pair_id,
        "name": pair.name,
        "page": pair.page,
        "split": pair.split or words.UNKNOWN,
        "dates": pair.dates,
        "observed": words.area(figures["observed_m2"], figures["observed_px"]),
        "observed_value": figures["observed_m2"] or figures["observed_px"],
        "changed": words.area(figures["changed_m2"], figures["changed_px"]),
        "changed_value": figures["changed_px"] if figures["changed_m2"] is None else figures["changed_m2"],
        "share": words.share(figures["changed_px"], figures["observed_px"]),
        "share_value": changed_share(pair),
        "meter": round(100 * changed_share(pair) / most, 1),
        **{name: words.figure(scores.get(name)) for name in ("iou", "f1")},
        **{f"{name}_value": "" if scores.get(name) is None else scores[name] for name in ("iou", "f1")},
    }
