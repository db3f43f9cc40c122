"""From stored pixels to what a model eats: normalised grey or bands of both dates, zero where not observed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cdpipe.store.histograms import Quantiles, robust_figures
from cdpipe.store.statistics import Moments

GREY = (0.299, 0.587, 0.114)  # luma of red, green, blue (ITU-R BT.601)

# Pixels that are worked on at a time: what a step makes is then still in a core's cache at the next.
STRIP_PIXELS = 2**16

RGB = ("red", "green", "blue")

# What a network eats, see :func:`cdpipe.models.networks.input_kind`.
InputKind = Literal["difference", "band_difference", "stacked", "stacked_difference"]


def input_channels(kind: InputKind, bands: int) -> int:
    """Channels of a model's input that is made of so many bands of each date."""
    return {"difference": 1, "band_difference": bands, "stacked": 2 * bands, "stacked_difference": 3 * bands}[kind]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How stored pixels become a model's input.

    Attributes:
        kind: ``difference`` (normalised grey, before minus after), ``band_difference`` (of each band), ``stacked``
            (bands of both dates) or ``stacked_difference`` (these, and their difference).
        roles: Bands that are read, in order; red, green and blue for a grey difference.
        statistics: Pixels that normalisation counts: ``common`` or ``per_date``.
        together: Whether the bands share one mean and deviation.
        clip: What normalised values are clipped to, on either side of 0; None for not at all.
        method: ``moments`` (mean and deviation) or ``robust`` (median and spread).
        optional: Those of ``roles`` that need not be there; they are 0 then, which is what their middle value becomes.
        detectors: Those whose probabilities of the pair follow what is made of the dates, a channel each; see
            :mod:`cdpipe.detectors.stored`.
    """

    kind: InputKind
    roles: tuple[str, ...]
    statistics: str
    together: bool
    clip: float | None = None
    method: str = "moments"
    optional: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return input_channels(self.kind, len(self.roles)) + len(self.detectors)


@dataclass(frozen=True, slots=True)
class DateScaling:
    """How one date's stored bands become normalised ones: ``value * gain + bias``.

    Attributes:
        bands: Positions of a recipe's bands among the stored ones.
        each: (gain, bias) of each of them.
        grey: (gain, bias) of the luma of red, green and blue; None where the recipe needs none.
        kind: What is made of both dates.
        clip: See :class:`Recipe`.
    """

    bands: tuple[int, ...]
    each: tuple[tuple[float, float], ...]
    grey: tuple[float, float] | None
    kind: InputKind
    clip: float | None = None


def date_scaling(
    moments: Moments,
    roles: Sequence[str],
    unit: tuple[float, float],
    recipe: Recipe,
    levels: Sequence[Quantiles] | None = None,
) -> DateScaling:
    """Derive a date's scaling from its statistics.

    Args:
        moments: Statistics of the stored bands.
        roles: Names of the stored bands.
        unit: The sensor's (scale, offset): ``stored * scale + offset`` is the physical value.
        recipe: What is made of them.
        levels: Quantiles of the stored bands, for a robust recipe.

    Raises:
        ValueError: If a band is missing, there are no pixels, or the recipe is robust and needs a grey.
    """
    missing = [role for role in recipe.roles if role not in roles]
    if not set(missing) <= set(recipe.optional):
        raise ValueError(f"bands {', '.join(missing)} are not among {', '.join(roles)}")
    if missing:
        return _without(missing, moments, roles, unit, recipe, levels)
    bands = tuple(list(roles).index(role) for role in recipe.roles)
    if recipe.method == "robust":
        if recipe.kind == "difference" or recipe.together or levels is None:
            raise ValueError("robust normalisation is that of each band: there are no quantiles of greys")
        figures = [_robust(moments, levels[band], band) for band in bands]
    else:
        pooled = [moments.pool(bands)] * len(bands) if recipe.together else None
        figures = pooled or [moments.combine([(band, 1.0)]) for band in bands]
    grey = moments.combine(zip(bands, GREY, strict=True)) if recipe.kind == "difference" else None
    each = tuple(_gain(*figure, unit) for figure in figures)
    return DateScaling(bands, each, _gain(*grey, unit) if grey else None, recipe.kind, recipe.clip)


def _without(
    missing: Sequence[str],
    moments: Moments,
    roles: Sequence[str],
    unit: tuple[float, float],
    recipe: Recipe,
    levels: Sequence[Quantiles] | None,
) -> DateScaling:
    """A date's scaling that makes 0 of the bands which are not there."""
    there = replace(recipe, roles=tuple(role for role in recipe.roles if role not in missing))
    found = date_scaling(moments, roles, unit, there, levels)
    own = dict(zip(there.roles, zip(found.bands, found.each, strict=True), strict=True))
    bands, each = zip(*(own.get(role, (found.bands[0], (0.0, 0.0))) for role in recipe.roles), strict=True)
    return replace(found, bands=bands, each=each)


def _robust(moments: Moments, levels: Quantiles, band: int) -> tuple[float, float]:
    """Median and spread of a band; its deviation where 98 % of the pixels are of one value, or all are."""
    _, deviation = moments.combine([(band, 1.0)])
    median, spread = robust_figures(levels)
    return median, (spread or deviation) if deviation else 0.0


def _gain(mean: float, deviation: float, unit: tuple[float, float]) -> tuple[float, float]:
    # a scene of one value has no deviation; it becomes 0 everywhere. The offset cancels: luma weights add up to 1.
    gain = float(np.sign(unit[0])) / deviation if deviation > 0 else 0.0
    return gain, -mean * gain


def count_channels(scalings: tuple[DateScaling, DateScaling]) -> int:
    """Channels of what :func:`model_input` makes."""
    return input_channels(scalings[0].kind, len(scalings[0].bands))


def model_input(
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_],
    scalings: tuple[DateScaling, DateScaling],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """What a model sees: both dates normalised and combined, 0 where not observed.

    Args:
        dates: Before and after, each (band, height, width) as stored.
        observed: (height, width), True where both dates are observed; the rest becomes 0.
        scalings: One for each date, of the same recipe.
        out: Where to put it; by default a new array.

    Returns:
        (channels, height, width), see :func:`combine_dates`.
    """
    (before, first), (after, second) = zip(dates, scalings, strict=True)
    height, width = observed.shape
    scene = np.empty((count_channels(scalings), height, width), np.float32) if out is None else out
    own = 1 if first.grey else len(first.bands)
    stacked = first.kind.startswith("stacked")
    step = max(1, STRIP_PIXELS // width)
    # what is not observed may hold anything, infinity too
    with np.errstate(over="ignore", invalid="ignore"):
        for top in range(0, height, step):
            rows = slice(top, top + step)
            strip = scene[:, rows]
            _normalise(before[:, rows], first, strip[:own])
            later = strip[own : 2 * own] if stacked else np.empty_like(strip)
            _normalise(after[:, rows], second, later)
            if first.kind != "stacked":
                np.subtract(strip[:own], later, out=strip[2 * own :] if stacked else strip)
            if not observed[rows].all():
                np.copyto(strip, np.float32(0), where=~observed[rows])
    return scene


def normalise_date(pixels: NDArray[Any], scaling: DateScaling) -> NDArray[np.float32]:
    """One date as models know it: its grey where the scaling has one, else its bands; clipped, if the recipe says so.

    Args:
        pixels: (band, height, width) as stored.
        scaling: The date's.

    Returns:
        (1 or bands, height, width); of pixels that are not observed whatever their values give.
    """
    normalised = np.empty((1 if scaling.grey else len(scaling.bands), *pixels.shape[1:]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        _normalise(pixels, scaling, normalised)
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
        (channels, height, width): before minus after, of the greys or of each band; or the bands of the first date and
        those of the second, which their difference may follow.
    """
    kind = scalings[0].kind
    if kind == "stacked":
        return np.concatenate([before, after])
    difference = np.asarray(before - after)
    return np.concatenate([before, after, difference]) if kind == "stacked_difference" else difference


def _normalise(pixels: NDArray[Any], scaling: DateScaling, out: NDArray[np.float32]) -> None:
    if scaling.grey:
        _grey(pixels, scaling.bands, scaling.grey, out[0])
    else:
        _scale_bands(pixels, scaling, out)
    if scaling.clip is not None:
        np.clip(out, np.float32(-scaling.clip), np.float32(scaling.clip), out=out)


def _grey(
    pixels: NDArray[Any], bands: tuple[int, ...], scaling: tuple[float, float], luma: NDArray[np.float32]
) -> None:
    luma[:], part = 0, np.empty(pixels.shape[1:], np.float32)
    for band, weight in zip(bands, GREY, strict=True):
        luma += _scale(pixels[band], weight, part)
    _shift(_scale(luma, scaling[0], luma), scaling[1])


def _scale_bands(pixels: NDArray[Any], scaling: DateScaling, out: NDArray[np.float32]) -> None:
    for place, band, (gain, bias) in zip(out, scaling.bands, scaling.each, strict=True):
        _shift(_scale(pixels[band], gain, place), bias)


def _scale(values: NDArray[Any], gain: float, out: NDArray[np.float32]) -> NDArray[np.float32]:
    np.multiply(values, np.float32(gain), out=out, dtype=np.float32, casting="same_kind")
    return out


def _shift(values: NDArray[np.float32], bias: float) -> None:
    values += np.float32(bias)
