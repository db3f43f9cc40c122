"""What a result is worth, in a line on top of its page: what labels, audits and models' experience say against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdpipe.config.detectors import DETECTORS
from cdpipe.report import tables, words
from cdpipe.report.facts import PairPage, Report

SHIFTED = 1.0  # pixels between the dates from which on edges look like change
SEAMS, CERTAIN = 1.2, 3.0  # times as many flips at borders as elsewhere, and deviations above chance
CLEAR = 0.02  # of IoU: by less a pair's result is not called worse than another
TELLING = {"test": "unseen test", "val": "validation", "unsplit": "labelled", "train": "training"}
CAUTIONS = {
    "train": " Models learned from them, so expect less elsewhere.",
    "val": " Epochs and threshold were chosen on them, so expect a little less elsewhere.",
}
NAMED = 3  # pairs that a line names


@dataclass(frozen=True, slots=True)
class Worth:
    """A judgement of a result.

    Attributes:
        line: It in a sentence or two.
        bad: Whether the result is not to be believed as it is; seams and shifts alone are no reason.
        reasons: What speaks against it.
    """

    line: str
    bad: bool
    reasons: Sequence[str]


def judge_run(report: Report) -> Worth:
    """What a run's result is worth."""
    against = [*tables.evaluation_doubts(report.evaluation), *report.doubts]
    return Worth(_measured(report), bool(against), [*against, *_audited(report)])


def judge_pair(report: Report, pair: PairPage) -> Worth:
    """What a pair's result is worth: how right it is where it has a label, else what is known of the run."""
    audits = tables.audits_of(report.audits, pair.pair_id)
    rows = [row for row in report.rows if row["pair_id"] == pair.pair_id]
    reasons = [*pair.doubts, *_outdone(rows)]
    bad = bool(reasons)
    length, seams = _shift(audits), _seams(audits)
    if length is not None:
        reasons.append(f"the dates lie {length:.1f} pixels apart here, so some of the edges are no change")
    if seams is not None:
        reasons.append(f"change begins or ends {seams:.1f} times as often at the borders of patches as elsewhere")
    own = _own_row(rows)
    if own is not None and words.is_known(own.get("iou")):
        seen = own["split"] == "train" and _learned(report)
        caution = " Models learned from this pair, so other pairs say more." if seen else ""
        return Worth(f"Against its label, {_right(own)}.{caution}", bad, reasons)
    if own is not None:
        return Worth("No pixel of its label changed, so nothing says how right this is.", bad, reasons)
    return Worth(f"This pair has no label. {_measured(report)}", bad, reasons)


def _learned(report: Report) -> bool:
    """Whether any of its models learned from labels."""
    return not all(model["name"] in DETECTORS for model in report.models)


def _measured(report: Report) -> str:
    """How right a run is, by the most telling split that has change."""
    pooled = tables.without_twins(row for row in report.rows if row["pair_id"] is None)
    cut = {split for pair in report.pairs for split in pair.strips}
    for split, meaning in TELLING.items():
        own = _own_row([row for row in pooled if row["split"] == split])
        if own is None or not words.is_known(own.get("iou")) or not own.get("tp", 1) + own.get("fn", 1):
            continue
        count = words.count(own["pairs"], f"{meaning} {'strip' if split in cut else 'pair'}")
        few = " Too few to say how far that carries." if own.get("iou_low") is None else ""
        caution = CAUTIONS.get(split, "") if _learned(report) else ""
        return f"On {count}, {_right(own)}.{few}{caution}"
    return (
        "No label says how right this is: what is marked differs between the dates, whatever it is. It says where to "
        "look first; a changed area to report needs labels."
    )


def _right(row: Mapping[str, Any]) -> str:
    """Precision and recall as people count."""
    precision, recall = row.get("precision"), row.get("recall")
    if not words.is_known(precision) or not words.is_known(recall):
        return f"IoU {words.figure(row['iou'])}"
    low, high = row.get("iou_low"), row.get("iou_high")
    interval = f", 95 % interval {low:.2f} to {high:.2f}" if low is not None and high is not None else ""
    return (
        f"of 100 pixels marked as change {100 * float(precision or 0):.0f} are change by the labels, and of 100 that "
        f"changed {100 * float(recall or 0):.0f} are marked (IoU {row['iou']:.2f}{interval})"
    )


def _own_row(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The ensemble's row, or that of the one model; of the last split where there are several."""
    own = [row for row in rows if row["layer"] == words.ENSEMBLE]
    return own[-1] if own else next((row for row in reversed(rows) if row["layer"] != words.BASELINE), None)


def _outdone(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """That one threshold would have done as well on a pair, where it would."""
    own, base = _own_row(rows), next((row for row in rows if row["layer"] == words.BASELINE), None)
    if own is None or base is None or not words.is_known(own.get("iou")) or not own["iou"] < base["iou"] - CLEAR:
        return []
    reached, could = f"{own['iou']:.2f}", f"{base['iou']:.2f}"
    return [f"one threshold on the difference of the dates could reach IoU {could} here, this result has {reached}"]


def _audited(report: Report) -> list[str]:
    """What audits found against a run."""
    of_pairs = [(pair.name, tables.audits_of(report.audits, pair.pair_id)) for pair in report.pairs]
    shifted = [(name, length) for name, audits in of_pairs if (length := _shift(audits)) is not None]
    reasons = []
    if shifted:
        most = max(length for _, length in shifted)
        reasons.append(
            f"{_names([name for name, _ in shifted])}: the dates lie up to {most:.1f} pixels apart, so some of the "
            "edges are no change; align.coregister: auto would move the second"
        )
    pooled = report.audits.get("pooled") if isinstance(report.audits, dict) else None
    seams = _seams(pooled) if isinstance(pooled, dict) else None
    if seams is not None:
        reasons.append(
            f"change begins or ends {seams:.1f} times as often at the borders of patches and blocks as elsewhere: a "
            "larger predict.overlap makes that less"
        )
    return reasons


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} pairs ({', '.join(names[:NAMED])}, ...)"


def _shift(audits: Mapping[str, Any]) -> float | None:
    """Pixels by which the dates are off, if they are."""
    length = (audits.get("shift") or {}).get("length")
    return float(length) if words.is_known(length) and length >= SHIFTED else None


def _seams(audits: Mapping[str, Any]) -> float | None:
    """How many times as much change ends at borders, if it surely does so more often."""
    seam = audits.get("seam") or {}
    score, z = (float(seam[name]) if words.is_known(seam.get(name)) else 0.0 for name in ("score", "z"))
    return score if z >= CERTAIN and score >= SEAMS else None
