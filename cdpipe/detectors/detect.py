"""What a detector finds out from a pair's own pixels, and the probability of change that follows.

Every detector makes variates of each date, linear combinations of its bands, and looks at how far those of the dates
lie apart, in units of what they do where nothing changed:

- ``mad``: the MAD variates (Nielsen, Conradsen and Simpson, 1998), which gain, offset and haze do not touch;
- ``irmad``: the same, iteratively reweighted (Nielsen, 2007), for scenes of which much has changed;
- ``cva``: every band by its median and spread, change vector analysis (Malila, 1980; Bruzzone and Prieto, 2000);
- ``difference``: one grey of each date, by its median and spread.

Bands are means of 3 x 3 pixels before, and probabilities after that. A pixel is also compared with the range of values
that its neighbours have at the other date, so that dates which lie part of a pixel off do not look changed at edges.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.alteration import ITERATIONS, Matrix, alteration
from cdpipe.detectors.moments import Scale, encode, measure_scale, robust_figures
from cdpipe.detectors.neighbours import MARGIN, Plane, count_observed, mean_of_observed, range_of_observed
from cdpipe.detectors.thresholds import kittler_illingworth
from cdpipe.errors import InputError
from cdpipe.geo.grid import Window
from cdpipe.store.normalisation import GREY, RGB

HALO = 3 * MARGIN  # pixels around a window that its probabilities depend on
MOST_PIXELS = 2**19  # of a scene that a detector looks at to find out how to compare its dates
LEAST_PIXELS = 64
LEAST_SPREAD = 0.01  # of a difference, where variates have deviation 1: less than half a level of most cameras
ALPHA = 1e-7  # no threshold marks more of a scene in which nothing but normal noise has changed
SHIFTED = 1.5  # how much of a distance the neighbours' range may take away: a third
STEEPNESS = 2  # power of the chi-square that a probability follows
STRIP = 256  # rows that are worked on at a time
BINS, BIN = 2000, 0.01  # of the fourth root of the chi-square
DIGITS = 9  # significant, of what a detector finds out: linear algebra has other last bits on other machines


@dataclass(frozen=True, slots=True)
class Fit:
    """What a detector found out about a pair.

    Attributes:
        detector: Its name.
        bands: Names of the bands that it compares.
        middles: Of each date, the value of each band that counts as 0.
        combinations: Of each date, (variate, band): how variates follow from its bands.
        offsets: (variate,) what is added to the second date's.
        threshold: From which distance between variates a pixel counts as changed.
        pixels: How many it looked at.
        step: Every so many rows and columns of the scene.
    """

    detector: str
    bands: tuple[str, ...]
    middles: tuple[tuple[float, ...], tuple[float, ...]]
    combinations: tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]
    offsets: tuple[float, ...]
    threshold: float
    pixels: int
    step: int

    def swapped(self) -> "Fit":
        """The same of the pair with its dates swapped."""
        middles, combinations = self.middles[::-1], self.combinations[::-1]
        offsets = tuple(-offset for offset in self.offsets)
        return replace(self, middles=middles, combinations=combinations, offsets=offsets)


Dates = tuple[NDArray[np.float32], NDArray[np.float32]]
Scales = tuple[Scale, Scale]
# Of the dates' pixels (band, pixel), their scales and the bands' names: combinations of values in the bands' own units.
Compare = Callable[[Dates, Scales, Sequence[str]], tuple[Matrix, Matrix]]


def _mad(dates: Dates, scales: Scales, _roles: Sequence[str], iterations: int = 1) -> tuple[Matrix, Matrix]:
    codes = [encode(date, scale) for date, scale in zip(dates, scales, strict=True)]
    one, other = alteration(np.concatenate(codes), len(codes[0]), iterations)
    return one / np.array(scales[0].spreads), other / np.array(scales[1].spreads)


def _irmad(dates: Dates, scales: Scales, roles: Sequence[str]) -> tuple[Matrix, Matrix]:
    return _mad(dates, scales, roles, ITERATIONS)


def _cva(_dates: Dates, scales: Scales, _roles: Sequence[str]) -> tuple[Matrix, Matrix]:
    one, other = (np.diag(1 / np.array(scale.spreads)) for scale in scales)
    return one, other


def _difference(dates: Dates, scales: Scales, roles: Sequence[str]) -> tuple[Matrix, Matrix]:
    """The grey of red, green and blue, or of all bands alike where one of these is missing."""
    luma = np.array([GREY[RGB.index(role)] if role in RGB else 0.0 for role in roles])
    one, other = ((luma if set(RGB) <= set(roles) else 1 / np.array(scale.spreads))[None] for scale in scales)
    spreads = [
        robust_figures((grey @ date.astype(np.float64))[0])[1] for grey, date in zip((one, other), dates, strict=True)
    ]
    return one / (spreads[0] or 1.0), other / (spreads[1] or 1.0)


DETECTORS: dict[str, Compare] = {"mad": _mad, "irmad": _irmad, "cva": _cva, "difference": _difference}


def sample_step(observed: int) -> int:
    """Every so many rows and columns of a scene are looked at, so that about ``MOST_PIXELS`` observed pixels are."""
    return max(1, math.ceil(math.sqrt(observed / MOST_PIXELS)))


@dataclass(frozen=True, slots=True)
class Lattice:
    """The pixels of a scene, or of a window, that a detector looks at: those whose row and column are multiples.

    Attributes:
        before: (band, row, column) float32, means of the observed neighbours.
        after: Likewise.
        seen: (row, column), True where both dates are observed.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    seen: NDArray[np.bool_]

    @property
    def pixels(self) -> Dates:
        """Of each date the observed ones, (band, pixel) in the order of rows."""
        return self.before[:, self.seen], self.after[:, self.seen]


def sample(
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_],
    step: int,
    places: tuple[Window, Window] | None = None,
) -> Lattice:
    """The pixels of a window that a detector looks at.

    They are chosen by their rows and columns on the scene, so that every tiling gives the same.

    Args:
        dates: (band, height, width) of each.
        observed: (height, width), True where both dates are observed.
        step: See :func:`sample_step`.
        places: The window, and what the arrays hold: ``MARGIN`` pixels more on each side, as far as the scene has them;
            by default the arrays are a whole scene.
    """
    window, held = places or (Window(0, 0, *observed.shape),) * 2
    inner = window.slices_in(held)
    rows, cols = (
        slice(own.start + -first % step, own.stop, step)
        for own, first in zip(inner, (window.row, window.col), strict=True)
    )
    counts = count_observed(observed, (rows, cols))
    before, after = (
        np.stack([mean_of_observed(band, observed, (rows, cols), counts) for band in date]) for date in dates
    )
    return Lattice(before, after, observed[rows, cols])


def fit_detector(detector: str, dates: Dates, roles: Sequence[str], *, step: int = 1, opposite: bool = False) -> Fit:
    """Find out how to compare two dates, and from where on they differ.

    Args:
        detector: One of ``DETECTORS``.
        dates: (band, pixel) of each, see :func:`sample`.
        roles: The bands' names.
        step: With which they were sampled.
        opposite: Whether one date's values fall where the other's rise.

    Raises:
        InputError: If there are too few pixels, or every band has a single value.
    """
    pixels = dates[0].shape[1]
    if pixels < LEAST_PIXELS:
        raise InputError(f"{detector}: {pixels} pixel(s) are observed at both dates, expected at least {LEAST_PIXELS}")
    scales = measure_scale(dates[0]), measure_scale(dates[1])
    chosen = [band for band in scales[0].varying if band in scales[1].varying]
    if not chosen:
        raise InputError(
            f"{detector}: there is nothing to compare: each of the bands {', '.join(roles)} has one value everywhere, "
            "at one date or the other; is nodata declared, and are these the bands that were meant?"
        )
    dates = dates[0][chosen], dates[1][chosen]
    scales = _only(scales[0], chosen), _only(scales[1], chosen)
    names = tuple(roles[band] for band in chosen)
    one, other = DETECTORS[detector](dates, scales, names)
    if opposite and detector not in ("mad", "irmad"):
        other = -other
    variates = [
        combination @ (date - np.array(scale.middles, np.float64)[:, None])
        for combination, date, scale in zip((one, other), dates, scales, strict=True)
    ]
    found = [robust_figures(difference) for difference in variates[0] - variates[1]]
    offsets = np.array([middle for middle, _ in found])
    spreads = np.array([max(spread, LEAST_SPREAD) for _, spread in found])
    square = np.square((variates[0] - variates[1] - offsets[:, None]) / spreads[:, None]).sum(0)
    return Fit(
        detector,
        names,
        (scales[0].middles, scales[1].middles),
        (_rounded(one / spreads[:, None]), _rounded(other / spreads[:, None])),
        tuple(map(_round, (offsets / spreads).tolist())),
        _round(find_threshold(square, len(spreads))),
        pixels,
        step,
    )


def _only(scale: Scale, bands: Sequence[int]) -> Scale:
    return Scale(tuple(scale.middles[band] for band in bands), tuple(scale.spreads[band] for band in bands))


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _rounded(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(_round, row)) for row in matrix.tolist())


def find_threshold(square: NDArray[np.float64], variates: int) -> float:
    """From which distance on pixels count as changed.

    The fourth root of a chi-square is normal, nearly (Hawkins and Wixley, 1986), as Kittler and Illingworth's minimum
    error wants both classes to be. Where nothing has changed it parts noise in two, so no threshold lies where noise
    alone would exceed it.

    Args:
        square: (pixel,) squared distances in units of their spread: a chi-square where nothing changed.
        variates: Its degrees of freedom.
    """
    from scipy.special import chdtri

    roots = np.minimum(np.sqrt(np.sqrt(square)) / BIN, BINS - 1).astype(np.int64)
    middles = (np.arange(BINS, dtype=np.float64) + 0.5) * BIN
    first = kittler_illingworth(np.bincount(roots, minlength=BINS), middles)
    noise = math.sqrt(float(chdtri(variates, ALPHA)))
    return max(noise, (first * BIN) ** 2) if first < BINS else noise


def compared(fit: Fit, dates: tuple[NDArray[Any], NDArray[Any]], roles: Sequence[str]) -> Dates:
    """The bands of both dates that a detector compares, (band, height, width) of each, of all those that are named."""
    chosen = [list(roles).index(band) for band in fit.bands]
    return dates[0][chosen], dates[1][chosen]


def change_probability(
    fit: Fit, before: NDArray[Any], after: NDArray[Any], observed: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Probability of change: 0.5 where the dates are as far apart as the detector's threshold.

    Args:
        fit: What the detector found out.
        before: (band, height, width), the bands of ``fit.bands``.
        after: Likewise.
        observed: (height, width), True where both dates are observed.

    Returns:
        (height, width) float32, NaN where not observed. What lies within ``HALO`` pixels of an edge of the window that
        is none of the scene's is not right.
    """
    height, width = observed.shape
    probability = np.full((height, width), np.nan, np.float32)
    for top in range(0, height, STRIP):
        first, stop = max(0, top - HALO), min(height, top + STRIP + HALO)
        seen = observed[first:stop]
        inner = slice(top - first, min(top + STRIP, height) - first)
        if seen[inner].any():
            counts = count_observed(seen)
            square = _distance(fit, (before[:, first:stop], after[:, first:stop]), seen, counts)
            power = np.minimum(square / np.float32(fit.threshold**2), np.float32(1e3)) ** STEEPNESS
            smooth = mean_of_observed(power / (1 + power), seen, counts=counts)
            probability[top : top + STRIP] = np.where(seen, smooth, np.float32(np.nan))[inner]
    return probability


def _distance(fit: Fit, dates: tuple[NDArray[Any], NDArray[Any]], observed: NDArray[np.bool_], counts: Plane) -> Plane:
    """Squared distance between the dates' variates, as far as a shift of less than a pixel does not explain it.

    That is told by the distance from the first date to the range of the pixel's neighbours at the second, and the
    other way round. Of these the greater counts: something a pixel wide that is at one date alone stays.
    """
    centred = [
        [
            mean_of_observed(band, observed, counts=counts) - np.float32(middle)
            for band, middle in zip(date, middles, strict=True)
        ]
        for date, middles in zip(dates, fit.middles, strict=True)
    ]
    plain, beyond = np.zeros(observed.shape, np.float32), np.zeros(observed.shape, np.float32)
    for one, other, offset in zip(*fit.combinations, fit.offsets, strict=True):
        first, second = _combine(centred[0], one), _combine(centred[1], other) + np.float32(offset)
        plain += np.square(first - second)
        beyond += np.square(np.maximum(_outside(first, second, observed), _outside(second, first, observed)))
    return np.asarray(np.minimum(plain, np.float32(SHIFTED**2) * beyond))


def _combine(bands: Sequence[Plane], weights: Sequence[float]) -> Plane:
    """Weighted sum, added in the bands' order: a matrix product's last bits depend on the machine."""
    total = bands[0] * np.float32(weights[0])
    for band, weight in zip(bands[1:], weights[1:], strict=True):
        total += band * np.float32(weight)
    return total


def _outside(plane: Plane, other: Plane, observed: NDArray[np.bool_]) -> Plane:
    """How far each pixel lies outside the range of its neighbours in another plane; 0 within."""
    low, high = range_of_observed(other, observed)
    return np.asarray(np.maximum(np.maximum(low - plane, plane - high), np.float32(0)))
