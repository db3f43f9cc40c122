"""From stored pixels to what a model eats: z-scored grey or colour, zero where not observed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cdpipe.store.statistics import Moments

GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)

# Pixels that are worked on at a time: what a step makes is then still in a core's cache at the next.
STRIP_PIXELS = 2**16

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


def count_channels(scalings: tuple[DateScaling, DateScaling]) -> int:
    """Channels of what :func:`model_input` makes."""
    first, second = scalings
    return 1 if first.grey and second.grey else len(first.bands) + len(second.bands)


def model_input(
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_],
    scalings: tuple[DateScaling, DateScaling],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """What a model sees: the difference of the greys where the scalings have one, else all bands of both dates.

    Args:
        dates: Before and after, each (band, height, width) as stored.
        observed: (height, width), True where both dates are observed; the rest becomes 0.
        scalings: One for each date, of the same recipe.
        out: Where to put it; by default a new array.

    Returns:
        (1, height, width), before minus after; or (bands of both dates, height, width).
    """
    (before, first), (after, second) = zip(dates, scalings, strict=True)
    height, width = observed.shape
    scene = np.empty((count_channels(scalings), height, width), np.float32) if out is None else out
    step = max(1, STRIP_PIXELS // width)
    # what is not observed may hold anything, infinity too
    with np.errstate(over="ignore", invalid="ignore"):
        for top in range(0, height, step):
            rows = slice(top, top + step)
            strip = scene[:, rows]
            if first.grey and second.grey:
                grey = _grey(before[:, rows], first.bands, first.grey)
                np.subtract(grey, _grey(after[:, rows], second.bands, second.grey), out=strip[0])
            else:
                _scale_bands(before[:, rows], first, strip[: len(first.bands)])
                _scale_bands(after[:, rows], second, strip[len(first.bands) :])
            if not observed[rows].all():
                np.copyto(strip, np.float32(0), where=~observed[rows])
    return scene


def normalise_date(pixels: NDArray[Any], scaling: DateScaling) -> NDArray[np.float32]:
    """One date as models know it: its grey where the scaling has one, else its bands.

    Args:
        pixels: (band, height, width) as stored.
        scaling: The date's.

    Returns:
        (1 or bands, height, width); of pixels that are not observed whatever their values give.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if scaling.grey:
            return _grey(pixels, scaling.bands, scaling.grey)[None]
        normalised = np.empty((len(scaling.bands), *pixels.shape[1:]), np.float32)
        _scale_bands(pixels, scaling, normalised)
        return normalised


def combine_dates(
    before: NDArray[np.float32], after: NDArray[np.float32], scalings: tuple[DateScaling, DateScaling]
) -> NDArray[np.float32]:
    """A model's input, as :func:`model_input` makes it, of both normalised dates.

    Args:
        before: See :func:`normalise_date`; 0 where not observed at both dates.
        after: Likewise.
        scalings: One for each date, of the same recipe.

    Returns:
        (channels, height, width).
    """
    first, second = scalings
    return np.asarray(before - after if first.grey and second.grey else np.concatenate([before, after]))


def _grey(pixels: NDArray[Any], bands: tuple[int, ...], scaling: tuple[float, float]) -> NDArray[np.float32]:
    luma, part = np.zeros(pixels.shape[1:], np.float32), np.empty(pixels.shape[1:], np.float32)
    for band, weight in zip(bands, GREY, strict=True):
        luma += _scale(pixels[band], weight, part)
    return _shift(_scale(luma, scaling[0], luma), scaling[1])


def _scale_bands(pixels: NDArray[Any], scaling: DateScaling, out: NDArray[np.float32]) -> None:
    for place, band, (gain, bias) in zip(out, scaling.bands, scaling.each, strict=True):
        _shift(_scale(pixels[band], gain, place), bias)


def _scale(values: NDArray[Any], gain: float, out: NDArray[np.float32]) -> NDArray[np.float32]:
    np.multiply(values, np.float32(gain), out=out, dtype=np.float32, casting="same_kind")
    return out


def _shift(values: NDArray[np.float32], bias: float) -> NDArray[np.float32]:
    values += np.float32(bias)
    return values
