"""From stored pixels to what a model eats: z-scored grey or colour, zero where not observed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.statistics import Moments

GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)

RGB = ("red", "green", "blue")

InputKind = Literal["difference", "stacked"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How stored pixels become a model's input.

    Attributes:
        kind: ``difference`` (normalised grey, before minus after) or ``stacked`` (bands of both dates).
        roles: Bands that are read, in order; red, green and blue for a difference.
        statistics: Pixels that normalisation counts: ``common`` or ``per_date``.
        together: Whether the bands share one mean and deviation.
    """

    kind: InputKind
    roles: tuple[str, ...]
    statistics: str
    together: bool

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return 1 if self.kind == "difference" else 2 * len(self.roles)


@dataclass(frozen=True, slots=True)
class DateScaling:
    """How one date's stored bands become normalised ones: ``value * gain + bias``.

    Attributes:
        bands: Positions of a recipe's bands among the stored ones.
        each: (gain, bias) of each of them.
        grey: (gain, bias) of the luma of red, green and blue; None where the recipe needs none.
    """

    bands: tuple[int, ...]
    each: tuple[tuple[float, float], ...]
    grey: tuple[float, float] | None


def date_scaling(moments: Moments, roles: Sequence[str], unit: tuple[float, float], recipe: Recipe) -> DateScaling:
    """Derive a date's scaling from its statistics.

    Args:
        moments: Statistics of the stored bands.
        roles: Names of the stored bands.
        unit: The sensor's (scale, offset): ``stored * scale + offset`` is the physical value.
        recipe: What is made of them.

    Raises:
        ValueError: If a band is missing or there are no pixels.
    """
    missing = [role for role in recipe.roles if role not in roles]
    if missing:
        raise ValueError(f"bands {', '.join(missing)} are not among {', '.join(roles)}")
    bands = tuple(list(roles).index(role) for role in recipe.roles)
    pooled = [moments.pool(bands)] * len(bands) if recipe.together else None
    figures = pooled or [moments.combine([(band, 1.0)]) for band in bands]
    grey = moments.combine(zip(bands, GREY, strict=True)) if recipe.kind == "difference" else None
    return DateScaling(bands, tuple(_gain(*each, unit) for each in figures), _gain(*grey, unit) if grey else None)


def _gain(mean: float, deviation: float, unit: tuple[float, float]) -> tuple[float, float]:
    # a scene of one value has no deviation; it becomes 0 everywhere. The offset cancels: luma weights add up to 1.
    gain = float(np.sign(unit[0])) / deviation if deviation > 0 else 0.0
    return gain, -mean * gain


def model_input(
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_],
    scalings: tuple[DateScaling, DateScaling],
) -> NDArray[np.float32]:
    """What a model sees: the difference of the greys where the scalings have one, else all bands of both dates.

    Args:
        dates: Before and after, each (band, height, width) as stored.
        observed: (height, width), True where both dates are observed; the rest becomes 0.
        scalings: One for each date, of the same recipe.

    Returns:
        (1, height, width), before minus after; or (bands of both dates, height, width).
    """
    (before, first), (after, second) = zip(dates, scalings, strict=True)
    # what is not observed may hold anything, infinity too
    with np.errstate(over="ignore", invalid="ignore"):
        if first.grey and second.grey:
            difference = _grey(before, first.bands, first.grey) - _grey(after, second.bands, second.grey)
            return np.where(observed, difference, np.float32(0))[None]
        stacked = np.concatenate([_bands(before, first), _bands(after, second)])
        return np.where(observed, stacked, np.float32(0))


def _grey(pixels: NDArray[Any], bands: tuple[int, ...], scaling: tuple[float, float]) -> NDArray[np.float32]:
    gain, bias = scaling
    luma = sum(
        (pixels[band].astype(np.float32) * np.float32(weight) for band, weight in zip(bands, GREY, strict=True)),
        start=np.zeros(pixels.shape[1:], np.float32),
    )
    return np.asarray(luma * np.float32(gain) + np.float32(bias), np.float32)


def _bands(pixels: NDArray[Any], scaling: DateScaling) -> NDArray[np.float32]:
    return np.stack(
        [
            pixels[band].astype(np.float32) * np.float32(gain) + np.float32(bias)
            for band, (gain, bias) in zip(scaling.bands, scaling.each, strict=True)
        ]
    )
