"""What the report's first page shows, as its template names it."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cdpipe.report import charts, tables, words
from cdpipe.report.changes import TO_LABEL
from cdpipe.report.facts import PairPage, Report
from cdpipe.report.locator import draw_locator
from cdpipe.report.pair_page import changed_share, describe_change, describe_worth, review_features, strip_map
from cdpipe.report.worth import judge_run

MAPS = 6  # of scenes that are cut, in the index
TOP = 60  # changes in the index's gallery


def describe_index(report: Report) -> dict[str, Any]:
    """Everything that the index's template names."""
    totals = _totals(report.pairs)
    states = {
        "finished": len(report.pairs),
        "failed": sum(bool(problem["failed"]) for problem in report.problems),
        "skipped": sum(not problem["failed"] for problem in report.problems),
    }
    pooled = tables.without_twins(row for row in report.rows if row["pair_id"] is None)
    run = report.run
    # of a pair that is cut the last strip's: that of test, where there is one
    scores = {row["pair_id"]: row for row in report.rows if row["layer"] == "ensemble" and row["pair_id"]}
    cut = [each for pair in report.pairs if (each := strip_map(pair)) is not None]
    cut_splits = list(dict.fromkeys(split for pair in report.pairs for split in pair.strips))
    every = _ranked(report)
    changes = every[: TO_LABEL if report.to_label else TOP]
    most = max((changed_share(pair) for pair in report.pairs), default=0.0) or 1.0
    caption = "Pooled over the pairs of each split: every pixel counts once."
    return {
        "run": {**run, "threshold": f"{run['threshold']:.3g}"},
        "sentences": words.summarise(
            totals,
            states,
            pooled,
            (run["ensemble"], run["threshold"], run["fitted_on"]),
            ([each["name"] for each in cut], cut_splits),
            models=len(report.models),
        ),
        "worth": describe_worth(judge_run(report)),
        "numbers": _run_numbers(
            totals,
            states,
            pooled,
            cut=cut_splits,
            doubted=bool(tables.evaluation_doubts(report.evaluation)),
        ),
        "cut": cut[:MAPS],
        "map": draw_locator(report.pairs),
        "pairs": [_pair_row(pair, scores.get(pair.pair_id, {}), most) for pair in report.pairs],
        "splits": sorted({pair.splits for pair in report.pairs}),
        "dated": any(any(pair.dates) for pair in report.pairs),
        "scored": bool(scores),
        "changes": [{**change, "rank": rank} for rank, change in enumerate(changes, 1)],
        "object_count": len(every),
        "to_label": report.to_label,
        "no_objects": [
            {"page": pair.page, "name": pair.name, "reason": pair.no_objects}
            for pair in report.pairs
            if pair.no_objects
        ],
        "review": review_features(changes),
        "tables": [tables.figures_table(pooled, caption, by_split=True)] if pooled else [],
        "curves": charts.evaluation_charts(report.evaluation),
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


def _ranked(report: Report) -> list[dict[str, Any]]:
    """All changes with chips, best first; where they are to be labelled by turns of each pair, so that all are seen."""
    turns = [
        (turn if report.to_label else 0, describe_change(pair, change))
        for pair in report.pairs
        for turn, change in enumerate(pair.facts["objects"])
    ]
    order = sorted(turns, key=lambda each: (each[0], -each[1]["score"], each[1]["pair_id"], each[1]["id"]))
    return [change for _, change in order]


def _totals(pairs: Sequence[PairPage]) -> dict[str, float | None]:
    names = ("observed_px", "changed_px", "observed_m2", "changed_m2")
    values = {name: [pair.facts["figures"][name] for pair in pairs] for name in names}
    return {name: None if None in of_pairs else math.fsum(of_pairs) for name, of_pairs in values.items()}


def _run_numbers(
    totals: Mapping[str, float | None],
    states: Mapping[str, int],
    pooled: Sequence[Mapping[str, Any]],
    *,
    cut: Collection[str],
    doubted: bool,
) -> list[dict[str, str]]:
    """What stands large beside the summary; an area never stands alone that its labels say is none."""
    others = ", ".join(f"{states[state]} {state}" for state in ("failed", "skipped") if states[state])
    numbers = [{"name": "Pairs finished", "value": f"{states['finished']:,}", "note": others}]
    changed = words.area(totals["changed_m2"], totals["changed_px"])
    seen = words.area(totals["observed_m2"], totals["observed_px"])
    part = words.share(totals["changed_px"], totals["observed_px"])
    rows = [
        (row, f"{meaning} {'strips' if split in cut else 'pairs'}")
        for split, meaning in (("test", "unseen test"), ("val", "validation"), ("unsplit", "labelled"))
        for row in _judged(pooled, split)
        if row.get("iou") is not None
    ]
    doubt = f"; not to be believed, with an IoU of {words.figure(rows[0][0]['iou'])}" if rows and doubted else ""
    numbers.append({"name": "Changed", "value": changed, "note": f"{part} of {seen} observed{doubt}"})
    for row, meaning in rows[:1]:
        name = f"IoU of the {'ensemble' if row['layer'] == words.ENSEMBLE else 'model'}"
        numbers.append({"name": name, "value": words.figure(row["iou"]), "note": f"pooled over {meaning}"})
    return numbers


def _judged(pooled: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    """The row of a split's ensemble; of an ensemble of one model, which has none, that of the model."""
    own = [row for row in pooled if row["split"] == split and row["layer"] != words.BASELINE]
    return [row for row in own if row["layer"] == words.ENSEMBLE] or (own if len(own) == 1 else [])


def _pair_row(pair: PairPage, scores: Mapping[str, Any], most: float) -> dict[str, Any]:
    figures = pair.facts["figures"]
    return {
        "id": pair.pair_id,
        "name": pair.name,
        "page": pair.page,
        "split": pair.splits or words.UNKNOWN,
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
