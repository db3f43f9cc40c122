"""``audits.json``: the audits of every pair and of all pairs together, and the rows of a short table of them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cdpipe.evaluation.audit import STEPS, Difference, SeamScore, StoredAudit
from cdpipe.evaluation.probes import Alarms, Probe
from cdpipe.evaluation.scores import ENSEMBLE
from cdpipe.pairs.coregistration import Shift

PROBED = ("swap", "identity", "identity_shifted")
Audit = dict[str, Any]  # of one pair, by the audit's name; None for one that says nothing of this pair


def describe_stored(audit: StoredAudit) -> Audit:
    """What :func:`cdpipe.evaluation.audit.audit_stored` found, as it stands in ``audits.json``."""
    seams = audit.seams
    total = sum(audit.between.values(), Difference())
    return {
        "seam": {**_seam(seams.both), "patches": _seam(seams.patches), "blocks": _seam(seams.blocks)},
        "disagreement": {
            **_difference(Difference(audit.pixels, audit.split)),
            "mean_difference": _difference(total)["mean_difference"],
            "between": [
                {"first": first, "second": second, **_difference(difference)}
                for (first, second), difference in audit.between.items()
            ],
        }
        if audit.between
        else None,
        "shift": None if audit.shift is None else _shift(audit.shift),
    }


def describe_probes(probes: Mapping[str, Probe], patches: int) -> Audit:
    """What :func:`cdpipe.evaluation.probes.probe_models` found on some patches: the ensemble's, and each model's."""

    def describe(probe: Probe) -> Audit:
        return {
            "swap": _difference(probe.swap),
            "identity": _alarms(probe.identity),
            "identity_shifted": _alarms(probe.identity_shifted),
        }

    layers = {layer: describe(probe) for layer, probe in probes.items()}
    return {
        name: {
            "patches": patches,
            **layers[ENSEMBLE][name],
            "models": {layer: audit[name] for layer, audit in layers.items() if layer != ENSEMBLE},
        }
        for name in PROBED
    }


def pool_audits(audits: Mapping[str, Audit]) -> Audit:
    """The same figures over all pairs: counts added up, each pair's seams compared with that pair alone.

    Args:
        audits: Of every pair, by its name.

    Returns:
        An audit without figures of single models; ``shift`` says how far pairs are off in the middle and at most.
    """
    seams = [audit["seam"] for audit in audits.values()]
    both = {name: _pool_seams([seam[name] for seam in seams]) for name in ("patches", "blocks")}
    shifts = {pair_id: audit["shift"]["length"] for pair_id, audit in audits.items() if audit["shift"]}
    furthest = max(shifts, key=lambda pair_id: (shifts[pair_id], pair_id), default=None)
    return {
        "seam": {**_pool_seams(seams), **both},
        "disagreement": _pool_shares([audit["disagreement"] for audit in audits.values()]),
        "shift": {
            "pairs": len(shifts),
            "median_length": float(np.median(list(shifts.values()))),
            "largest": shifts[furthest],
            "largest_pair": furthest,
        }
        if furthest
        else None,
        **{name: _pool_shares([audit.get(name) for audit in audits.values()]) for name in PROBED},
    }


def table_rows(audits: Mapping[str, Audit], pooled: Audit) -> list[list[str]]:
    """Cells of the table: pair, seam, disagreement, shift, swap and both identities; the last row is of all pairs."""
    rows = [
        [pair_id, *_cells(audit, "-" if audit["shift"] is None else f"{audit['shift']['length']:.2f}")]
        for pair_id, audit in audits.items()
    ]
    median = "-" if pooled["shift"] is None else f"{pooled['shift']['median_length']:.2f} (median)"
    return [*rows, [f"all {len(audits)}", *_cells(pooled, median)]]


def _cells(audit: Audit, shift: str) -> list[str]:
    seam = audit["seam"]
    shown = (
        "-"
        if seam["score"] is None or math.isnan(seam["score"])
        else f"{seam['score']:.2f} ({seam['low']:.2f} to {seam['high']:.2f})"
    )
    shares = ("disagreement", *PROBED)
    first, *others = (_share(audit.get(name)) for name in shares)
    return [shown, first, shift, *others]


def _share(counted: Audit | None) -> str:
    return f"{counted['share']:.2%}" if counted is not None and counted["pixels"] else "-"


def _seam(seam: SeamScore) -> Audit:
    low, high = seam.interval
    return {
        "score": seam.score,
        "low": low,
        "high": high,
        "z": seam.z,
        "lines": seam.lines,
        "neighbours": seam.neighbours,
        "flips": seam.flips,
        "expected": seam.expected,
        "variance": seam.variance,
    }


def _pool_seams(seams: Iterable[Audit]) -> Audit:
    counts = ("lines", "neighbours", "flips", "expected", "variance")
    return _seam(sum((SeamScore(*(seam[name] for name in counts)) for seam in seams), SeamScore()))


def _difference(difference: Difference) -> Audit:
    return {
        **_alarms(Alarms(difference.pixels, difference.flips)),
        "mean_difference": difference.steps / STEPS / difference.pixels if difference.pixels else math.nan,
    }


def _alarms(alarms: Alarms) -> Audit:
    share = alarms.flips / alarms.pixels if alarms.pixels else math.nan
    return {"pixels": alarms.pixels, "flips": alarms.flips, "share": share}


def _pool_shares(shares: Iterable[Audit | None]) -> Audit | None:
    """Counts of several pairs together; differences weigh as many pixels as they were taken of."""
    some = [share for share in shares if share is not None and share["pixels"]]
    if not some:
        return None
    total = Alarms(sum(share["pixels"] for share in some), sum(share["flips"] for share in some))
    pooled = _alarms(total)
    if "mean_difference" in some[0]:
        weighted = math.fsum(share["mean_difference"] * share["pixels"] for share in some)
        pooled["mean_difference"] = weighted / total.pixels
    return {**pooled, "pairs": len(some)}


def _shift(shift: Shift) -> Audit:
    return {
        "rows": shift.rows,
        "cols": shift.cols,
        "length": shift.length,
        "confidence": shift.confidence,
        "spread": shift.spread,
        "agreeing": shift.agreeing,
        "windows": shift.windows,
    }
