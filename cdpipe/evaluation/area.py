"""What a labelled sample says of the changed area: estimate, interval, accuracies, and the naive count beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.evaluation.area_sample import MAPPED, STRATA, SamplePoint
from cdpipe.metrics.classes import CHANGED, UNCHANGED
from cdpipe.metrics.intervals import SIGMAS

# After Olofsson et al. 2014, whose equations the docstrings name.
LEAST = 75  # points of a rare stratum; the paper recommends 50 to 100
TOO_FEW = 2  # points of a stratum, below which its variance is unknown
FEW = 30  # below which an interval of the normal distribution is doubtful

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate and its standard error; NaN where the sample says nothing."""

    value: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval."""
        return self.value - SIGMAS * self.error, self.value + SIGMAS * self.error


@dataclass(frozen=True, slots=True)
class SampleEstimates:
    """What a sample says of a map.

    Attributes:
        shares: Share of each class in the area, by the reference (eqs 8 and 9; standard errors eq. 10).
        users: User's accuracy of each class: how much of what is mapped as such is (eqs 2 and 6).
        producers: Producer's accuracy: how much of what is such is mapped so (eqs 3 and 7).
        overall: Overall accuracy (eqs 1 and 5).
    """

    shares: tuple[Estimate, ...]
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    overall: Estimate


def estimate(weights: Values, counts: NDArray[np.int64], classes: NDArray[np.int64]) -> SampleEstimates:
    """Estimate shares and accuracies.

    Args:
        weights: (stratum,), share of each stratum in the area, which add up to 1.
        counts: (stratum, class), points of the sample by stratum and class of the reference.
        classes: (stratum,), which class the map has in each stratum.

    Raises:
        ValueError: If a stratum with area has fewer than two points: its variance cannot be told.
    """
    if not np.isclose(weights.sum(), 1):
        raise ValueError(f"expected weights that add up to 1, got {weights.tolist()}")
    if (counts.sum(axis=1)[weights > 0] < 2).any():
        raise ValueError(f"expected at least 2 points in every stratum, got {counts.sum(axis=1).tolist()}")
    names = range(counts.shape[1])
    agrees = (classes[:, None] == np.arange(len(names))).astype(np.float64)  # (stratum, class)
    everything = np.ones(counts.shape)

    def ratio(of: Values, among: Values) -> Estimate:
        return _ratio(weights, counts.astype(np.float64), of, among)

    def reference(name: int) -> Values:
        return np.asarray(everything * (np.arange(len(names)) == name))

    def mapped(name: int) -> Values:
        return np.asarray(everything * agrees[:, [name]])

    return SampleEstimates(
        shares=tuple(ratio(reference(name), everything) for name in names),
        users=tuple(ratio(reference(name) * mapped(name), mapped(name)) for name in names),
        producers=tuple(ratio(reference(name) * mapped(name), reference(name)) for name in names),
        overall=ratio(agrees, everything),
    )


def _ratio(weights: Values, counts: Values, of: Values, among: Values) -> Estimate:
    """Ratio of the stratified means of two quantities, given for units by stratum and class of the reference."""
    sizes = np.maximum(counts.sum(axis=1), 2)
    shares = counts / sizes[:, None]
    total = float(weights @ (shares * among).sum(axis=1))
    if total == 0:
        return Estimate(float("nan"), float("nan"))
    value = float(weights @ (shares * of).sum(axis=1)) / total
    residual = of - value * among
    mean = (shares * residual).sum(axis=1, keepdims=True)
    variance = (counts * (residual - mean) ** 2).sum(axis=1) / (sizes - 1)
    return Estimate(value, float(np.sqrt(weights**2 @ (variance / sizes))) / total)


def points_needed(weights: Values, users: Values, standard_error: float) -> int:
    """Size of a sample for a wanted standard error of overall accuracy (eq. 13, for large populations).

    Args:
        weights: (stratum,), share of each stratum in the area.
        users: (stratum,), user's accuracies that are expected.
        standard_error: What is wanted, as a share.
    """
    return ceil((float(weights @ np.sqrt(users * (1 - users))) / standard_error) ** 2)


def allocate(weights: Values, points: int) -> list[int]:
    """Share points out: rare strata get :data:`LEAST` each, the others the rest by their area (section 5.1.2 there).

    A stratum without area gets none; small samples are shared out evenly.

    Args:
        weights: (stratum,), share of each stratum in the area.
        points: Of the whole sample.
    """
    others, given = weights > 0, np.zeros(len(weights), np.int64)
    least = min(LEAST, points // max(1, int(others.sum())))
    while others.any():
        rest = points - int(given.sum())
        ideal = np.where(others, weights / weights[others].sum() * rest, 0.0)
        rare = others & (ideal < least)
        if not rare.any():
            whole = np.floor(ideal).astype(np.int64)
            # what rounding leaves goes to the largest remainders
            whole[np.argsort(whole - ideal, kind="stable")[: rest - int(whole.sum())]] += 1
            given += whole
            break
        given[rare], others = least, others & ~rare
        if not others.any():  # all are as large as each other, but for rounding
            given[np.flatnonzero(weights)[: points - int(given.sum())]] += 1
    return [int(number) for number in given]


def estimate_area(
    areas: Sequence[float], points: Sequence[SamplePoint], answers: Mapping[int, int | None]
) -> dict[str, Any]:
    """Estimate the changed area of all that was sampled.

    Args:
        areas: Area of each stratum, in square metres, or in pixels without a georeference.
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
    estimates = estimate(np.array(areas) / total, counts, np.array(MAPPED))
    changed = estimates.shares[1]
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
        "users": _described(estimates.users[1]),
        "producers": _described(estimates.producers[1]),
        "users_unchanged": _described(estimates.users[0]),
        "producers_unchanged": _described(estimates.producers[0]),
        "overall": _described(estimates.overall),
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


def _described(estimated: Estimate, most: float = 1.0) -> dict[str, float]:
    low, high = estimated.interval
    return {"value": estimated.value, "error": estimated.error, "low": max(0.0, low), "high": min(most, high)}
