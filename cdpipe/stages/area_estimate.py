"""What a labelled sample says of the changed area: estimate, interval, accuracies, and the naive count beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cdpipe.arrays.area import Estimate, estimate
from cdpipe.errors import InputError
from cdpipe.formats.sample_file import SamplePoint
from cdpipe.stages.area_sample import CHANGED, MAPPED, STRATA, UNCHANGED

TOO_FEW = 2  # points of a stratum, below which its variance is unknown
FEW = 30  # below which an interval of the normal distribution is doubtful


def estimate_area(
    areas: Sequence[float], points: Sequence[SamplePoint], answers: Mapping[int, int | None]
) -> dict[str, Any]:
    """Estimate the changed area of all that was sampled.

    Args:
        areas: Area of each stratum.
        points: The sample.
        answers: Of every point: 0, 1, or None for unsure, which is left out.

    Returns:
        ``area``, ``share``, ``users``, ``producers`` (both of change), ``users_unchanged``, ``producers_unchanged``
        and ``overall``, each with value, error, low and high; ``mapped_area``, the naive count; ``counts`` of points
        by stratum and label; ``unsure``; ``warnings``.

    Raises:
        InputError: If a stratum has too few points with a label of 0 or 1.
    """
    counts = np.zeros((len(STRATA), 2), np.int64)
    for point in points:
        answer = answers[point.number]
        if answer is not None:
            counts[point.stratum, answer] += 1
    total = float(sum(areas))
    few = [name for name, area, row in zip(STRATA, areas, counts, strict=True) if area and row.sum() < TOO_FEW]
    if few:
        raise InputError(
            f"stratum {', '.join(few)}: expected at least {TOO_FEW} points labelled 0 or 1, without which there is no "
            "interval; label those marked unsure, or draw a larger sample with --points"
        )
    found = estimate(np.array(areas) / total, counts, np.array(MAPPED))
    changed = found.shares[1]
    unsure = sum(answer is None for answer in answers.values())
    warnings = [
        f"{name}: only {int(row.sum())} points; the interval is rough"
        for name, area, row in zip(STRATA, areas, counts, strict=True)
        if area and row.sum() < FEW
    ]
    if unsure:
        warnings.append(f"{unsure} point(s) marked unsure are left out, as if they were like the others")
    return {
        "area": _described(Estimate(changed.value * total, changed.error * total), total),
        "share": _described(changed),
        "users": _described(found.users[1]),
        "producers": _described(found.producers[1]),
        "users_unchanged": _described(found.users[0]),
        "producers_unchanged": _described(found.producers[0]),
        "overall": _described(found.overall),
        "mapped_area": float(areas[CHANGED]),
        "sampled_area": total,
        "counts": {
            name: {"unchanged": int(row[UNCHANGED]), "changed": int(row[CHANGED])}
            for name, area, row in zip(STRATA, areas, counts, strict=True)
            if area
        },
        "unsure": unsure,
        "warnings": warnings,
    }


def _described(found: Estimate, most: float = 1.0) -> dict[str, float]:
    low, high = found.interval
    return {"value": found.value, "error": found.error, "low": max(0.0, low), "high": min(most, high)}
