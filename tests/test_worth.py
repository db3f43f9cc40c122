"""The line on top of a report: what a result is worth, and what speaks against it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from reports import figures, make_report

from cdpipe.report.facts import PairPage, Report
from cdpipe.report.worth import judge_pair, judge_run

FACTS = {"labelled": True}
BOTH = ({"name": "net"}, {"name": "mad"})


def page(pair_id: str = "p", **changes: Any) -> PairPage:
    return replace(PairPage(pair_id, f"Name {pair_id}", "test", ("", ""), ("s", "s"), FACTS, []), **changes)


def row(split: str, pair_id: str | None, layer: str, iou: float | None, **changes: Any) -> dict[str, Any]:
    """Whose precision and recall are as given."""
    return {**figures(split, pair_id, layer, iou), "tp": 5, "fn": 5, "fp": 5, "pairs": 5} | changes


def run(*rows: dict[str, Any], **changes: Any) -> Report:
    return make_report([], **{"evaluation": {"rows": list(rows)}, "audits": None, "models": BOTH, **changes})


def test_labels_say_how_many_pixels_are_right() -> None:
    worth = judge_run(
        run(row("val", None, "ensemble", 0.9), row("test", None, "ensemble", 0.5, precision=0.6, recall=0.75))
    )
    assert worth.line == (
        "On 5 unseen test pairs, of 100 pixels marked as change 60 are change by the labels, and of 100 that changed "
        "75 are marked (IoU 0.50, 95 % interval 0.40 to 0.60)."
    )
    assert not worth.bad


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"iou_low": None, "iou_high": None, "pairs": 2},
            "2 unseen test pairs, .*[(]IoU 0.50[)]. Too few to say how far",
        ),
        ({"split": "train"}, "5 training pairs, .* Models learned from them"),
        ({"split": "val"}, "5 validation pairs, .* were chosen on them"),
        ({"split": "unsplit"}, r"5 labelled pairs, .*0.60\)\.$"),
        ({"tp": 0, "fn": 0, "iou": 0.0}, "^No label says how right this is"),
    ],
)
def test_what_figures_cannot_say_is_said(changes: dict[str, Any], words: str) -> None:
    worth = judge_run(run(row("test", None, "ensemble", 0.5) | changes))
    assert re.search(words, worth.line), worth.line


def test_detectors_have_learned_from_nothing() -> None:
    rows = row("train", None, "ensemble", 0.5), row("train", "p", "ensemble", 0.5)
    alone = run(*rows, models=[{"name": "mad"}, {"name": "cva"}])
    assert "earned" not in judge_run(alone).line + judge_pair(alone, page()).line
    assert "earned" in judge_pair(run(*rows), page()).line


def test_strips_are_called_strips() -> None:
    cut = page(strips={"test": None})
    assert "5 unseen test strips" in judge_run(replace(run(row("test", None, "ensemble", 0.5)), pairs=[cut])).line


def test_without_labels_nobody_knows() -> None:
    report = run()
    assert judge_run(report).line.startswith("No label says how right this is")
    assert judge_pair(report, page(facts={"labelled": False})).line.startswith("This pair has no label. No label says")


def test_what_speaks_against_a_run_is_listed() -> None:
    seam = {"seam": {"score": 1.8, "z": 4.0}}
    audits = {"pairs": {"p": {"shift": {"length": 1.4}}, "q": {"shift": {"length": 0.3}}}, "pooled": seam}
    evaluation = {"rows": [], "doubts": ["the IoU is below that of thresholding"]}
    report = run(evaluation=evaluation, audits=audits, doubts=["pair p: its pixels are 50 m wide"])
    worth = judge_run(replace(report, pairs=[page(), page("q")]))
    assert worth.bad
    assert [reason[:20] for reason in worth.reasons] == [
        "the IoU is below tha",
        "pair p: its pixels a",
        "Name p: the dates li",
        "change begins or end",
    ]
    assert "1.4 pixels apart" in worth.reasons[2]


@pytest.mark.parametrize("seam", [{"score": 1.8, "z": 2.5}, {"score": 1.1, "z": 5.0}, {"score": None, "z": None}])
def test_seams_that_may_be_chance_or_hardly_matter_are_none(seam: dict[str, Any]) -> None:
    assert not judge_run(run(audits={"pairs": {}, "pooled": {"seam": seam, "shift": None}})).reasons


def test_a_pair_is_judged_by_its_own_label() -> None:
    rows = (
        row("test", "p", "ensemble", 0.3),
        row("test", "p", "grey difference", 0.4),
        row("test", "q", "ensemble", 0.9),
    )
    worth = judge_pair(run(*rows), page(doubts=("its values lie outside",)))
    assert worth.line.startswith("Against its label, of 100 pixels marked")
    assert worth.reasons == [
        "its values lie outside",
        "one threshold on the difference of the dates could reach IoU 0.40 here, this result has 0.30",
    ]
    assert worth.bad
    even = judge_pair(run(row("test", "p", "ensemble", 0.3), row("test", "p", "grey difference", 0.31)), page())
    assert (even.bad, even.reasons) == (False, [])
    assert judge_pair(run(row("test", "p", "ensemble", None)), page()).line.startswith("No pixel of its label changed")
