"""What scenes a model learned from, and how far another scene is from them: facts for its card, doubts for people."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdpipe.geo.grid import Grid
from cdpipe.geo.ground import pixel_metres
from cdpipe.store.histograms import SHARES, Quantiles
from cdpipe.store.pair import StoredPair

WARNING = "do not rely on what it finds without a look"
FAR = 2.0  # times as large, or as small, as any pixels that were learned from
LOW, MIDDLE, HIGH = 0, len(SHARES) // 2, len(SHARES) - 1  # among a band's quantiles: 1 %, median, 99 %


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """What is measured of a scene.

    Attributes:
        pixel_m: Side of a pixel in metres, None where that is not known.
        values: Quantiles of each band of each date, in the sensors' units, see
            :data:`cdpipe.store.histograms.SHARES`.
    """

    pixel_m: float | None
    values: Mapping[str, tuple[Quantiles, ...]]


def pixel_side(grid: Grid) -> float | None:
    """Side of a grid's pixels in metres, the geometric mean of width and height; None where that is not known."""
    sides = pixel_metres(grid)
    return None if sides is None else math.sqrt(sides[0] * sides[1])


def stored_facts(pair: StoredPair) -> SceneFacts:
    """What is recorded of a stored pair."""
    values = {
        role: tuple(
            tuple(level * scale + offset for level in date[number])
            for date, (scale, offset) in zip(pair.levels["common"], pair.units, strict=True)
        )
        for number, role in enumerate(pair.roles)
    }
    return SceneFacts(pixel_side(pair.grid), values)


def describe_learned(pairs: Sequence[StoredPair], roles: Sequence[str], sensors: Sequence[str]) -> dict[str, Any]:
    """What a model's card says of the pairs that it learned from.

    Args:
        pairs: The pairs.
        roles: Bands that the model reads.
        sensors: Names of the pairs' sensors.

    Returns:
        ``pixel_m``, the least and the largest side of a pixel, None where it is not known; ``values``, of each band the
        least 1 % and the largest 99 % quantile of any date, in the sensors' units; and ``sensors``.
    """
    facts = [stored_facts(pair) for pair in pairs]
    sides = [each.pixel_m for each in facts if each.pixel_m is not None]
    values = {role: [date for each in facts for date in each.values.get(role, ())] for role in roles}
    return {
        "pixel_m": [min(sides), max(sides)] if sides else None,
        "values": {
            role: [min(date[LOW] for date in dates), max(date[HIGH] for date in dates)]
            for role, dates in values.items()
            if dates
        },
        "sensors": sorted(set(sensors)),
    }


def doubt_scene(name: str, learned: Mapping[str, Any] | None, scene: SceneFacts) -> list[str]:
    """In which ways a scene is unlike all that a model learned from: none where it is not, or that is not known.

    Args:
        name: The model's.
        learned: What its card says, see :func:`describe_learned`.
        scene: The scene.
    """
    if not learned:
        return []
    doubts = []
    of = f"those that model {name} learned from"
    sides = learned.get("pixel_m")
    if sides and scene.pixel_m and not sides[0] / FAR <= scene.pixel_m <= sides[1] * FAR:
        doubts.append(f"its pixels are {scene.pixel_m:.3g} m wide, {of} {span_text(sides)} m: {WARNING}")
    strange = [
        f"{role} {span_text((min(middles), max(middles)))}, learned {span_text(span)}"
        for role, span in learned.get("values", {}).items()
        if (middles := [date[MIDDLE] for date in scene.values.get(role, ())])
        and not span[0] <= min(middles) <= max(middles) <= span[1]
    ]
    if strange:
        medians = f"medians: {'; '.join(strange)}"
        doubts.append(f"its values lie outside of {of} ({medians}): check the sensor's scale and bands; {WARNING}")
    return doubts


def span_text(ends: Sequence[float]) -> str:
    """Two numbers, or one where they look alike."""
    return " to ".join(dict.fromkeys(f"{end:.3g}" if abs(end) < 1000 else f"{end:,.0f}" for end in ends))
