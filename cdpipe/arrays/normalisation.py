"""From stored pixels to what a model eats: z-scored grey or colour, zero where not observed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.statistics import Moments

GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)

InputKind = Literal["difference", "stacked"]


@dataclass(frozen=True, slots=True)
class DateScaling:
    """How one date's stored bands become normalised ones: ``value * gain + bias``.

    Attributes:
        bands: Positions of red, green and blue among the stored bands.
        colour: (gain, bias) of each of the three.
        grey: (gain, bias) of their luma.
    """

    bands: tuple[int, int, int]
    colour: tuple[tuple[float, float], ...]
    grey: tuple[float, float]


def date_scaling(moments: Moments, roles: Sequence[str], unit: tuple[float, float], together: bool) -> DateScaling:
    """Derive a date's scaling from its statistics.

    Args:
        moments: Statistics of the stored bands.
        roles: Names of the stored bands; red, green and blue must be among them.
        unit: The sensor's (scale, offset): ``stored * scale + offset`` is the physical value.
        together: Whether the three bands share one mean and deviation.

    Raises:
        ValueError: If a band is missing or there are no pixels.
    """
    missing = [role for role in ("red", "green", "blue") if role not in roles]
    if missing:
        raise ValueError(f"bands {', '.join(missing)} are not among {', '.join(roles)}")
    red, green, blue = (list(roles).index(role) for role in ("red", "green", "blue"))
    bands = (red, green, blue)
    figures = [moments.pool(bands)] * 3 if together else [moments.combine([(band, 1.0)]) for band in bands]
    grey = moments.combine(zip(bands, GREY, strict=True))
    return DateScaling(bands, tuple(_gain(*figure, unit) for figure in figures), _gain(*grey, unit))


def _gain(mean: float, deviation: float, unit: tuple[float, float]) -> tuple[float, float]:
    # a scene of one value has no deviation; it becomes 0 everywhere. The offset cancels: luma weights add up to 1.
    gain = float(np.sign(unit[0])) / deviation if deviation > 0 else 0.0
    return gain, -mean * gain


def model_input(
    kind: InputKind,
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_],
    scalings: tuple[DateScaling, DateScaling],
) -> NDArray[np.float32]:
    """What a model sees.

    Args:
        kind: ``difference`` (normalised grey, before minus after) or ``stacked`` (colours of both dates).
        dates: Before and after, each (band, height, width) as stored.
        observed: (height, width), True where both dates are observed; the rest becomes 0.
        scalings: One for each date.

    Returns:
        (1 or 6, height, width).
    """
    # what is not observed may hold anything, infinity too
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "difference":
            before, after = (_grey(pixels, scaling) for pixels, scaling in zip(dates, scalings, strict=True))
            return np.where(observed, before - after, np.float32(0))[None]
        colours = [_colours(pixels, scaling) for pixels, scaling in zip(dates, scalings, strict=True)]
        return np.where(observed, np.concatenate(colours), np.float32(0))


def _grey(pixels: NDArray[Any], scaling: DateScaling) -> NDArray[np.float32]:
    gain, bias = scaling.grey
    luma = sum(
        (
            pixels[band].astype(np.float32) * np.float32(weight)
            for band, weight in zip(scaling.bands, GREY, strict=True)
        ),
        start=np.zeros(pixels.shape[1:], np.float32),
    )
    return np.asarray(luma * np.float32(gain) + np.float32(bias), np.float32)


def _colours(pixels: NDArray[Any], scaling: DateScaling) -> NDArray[np.float32]:
    return np.stack(
        [
            pixels[band].astype(np.float32) * np.float32(gain) + np.float32(bias)
            for band, (gain, bias) in zip(scaling.bands, scaling.colour, strict=True)
        ]
    )
