"""Exact histograms of bands that can be merged in any grouping, and the quantiles that follow from them.

A bin is a value of 8- and 16-bit pixels. Of wider types, integers and floating point, it is what the leading 20 bits of
a float32 tell apart, sign, exponent and 11 bits of the mantissa: bins are at most 1/2048 of their values wide (1/8 K
at 290 K), and values count as spread evenly over theirs. Counts are whole numbers, so nothing depends on blocks,
workers or order.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# At which quantiles are kept: the median, the quartiles, and two more pairs for bands of which most have one value.
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# How far apart the outer pairs are in deviations of a normal distribution, from the quartiles outwards.
NORMAL_SPREADS = (1.3489795, 3.2897073, 4.6526957)

EXACT_PIXELS = 2**23  # that are counted at a time

_DROPPED_BITS = np.uint32(12)  # of a float32's 32
_SIGN = np.uint32(1 << 31)

Quantiles = tuple[float, ...]  # at `SHARES`


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often which values occur in a band.

    Attributes:
        bins: (n,) uint32, ascending, those that occur; see :func:`count_values`.
        counts: (n,) int64, pixels in each.
    """

    bins: NDArray[np.uint32]
    counts: NDArray[np.int64]


NOTHING = Histogram(np.empty(0, np.uint32), np.empty(0, np.int64))


def count_values(values: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[Histogram, ...]:
    """Histogram of each band over the pixels that a mask selects.

    Args:
        values: (band, height, width) pixels, any real dtype; those that count are finite.
        mask: (height, width), True where a pixel counts.
    """
    if _is_narrow(values.dtype):
        chosen = None if mask.all() else mask.astype(np.uint8)
        return tuple(_count_narrow(band, chosen) for band in values)
    return tuple(_count(_bins_of(band[mask])) for band in values)


def merge(histograms: Sequence[Histogram]) -> Histogram:
    """Histogram of all sets of pixels together."""
    bins, places = np.unique(np.concatenate([NOTHING.bins, *(each.bins for each in histograms)]), return_inverse=True)
    counts = np.zeros(len(bins), np.int64)
    np.add.at(counts, places, np.concatenate([NOTHING.counts, *(each.counts for each in histograms)]))
    return Histogram(bins, counts)


def _count_narrow(band: NDArray[Any], mask: NDArray[np.uint8] | None) -> Histogram:
    """Of 8- or 16-bit pixels: OpenCV counts six times as fast as NumPy does."""
    bits = 8 * band.dtype.itemsize
    unsigned = np.ascontiguousarray(band).view(f"u{band.dtype.itemsize}")
    if band.dtype.kind == "i":
        unsigned = unsigned ^ unsigned.dtype.type(1 << (bits - 1))
    counts = np.zeros(1 << bits, np.int64)
    step = max(1, EXACT_PIXELS // band.shape[1])
    for top in range(0, band.shape[0], step):
        rows = slice(top, top + step)
        inside = None if mask is None else mask[rows]
        # in single precision, which holds every whole number up to 2^24
        counts += cv2.calcHist([unsigned[rows]], [0], inside, [1 << bits], [0, 1 << bits]).reshape(-1).astype(np.int64)
    found = np.flatnonzero(counts)
    return Histogram(found.astype(np.uint32), counts[found])


def _count(bins: NDArray[np.uint32]) -> Histogram:
    if not bins.size:
        return NOTHING
    first = bins.min()
    counts = np.bincount(bins - first)
    found = np.flatnonzero(counts)
    return Histogram((found + int(first)).astype(np.uint32), counts[found])


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _bins_of(pixels: NDArray[Any]) -> NDArray[np.uint32]:
    """Leading bits of each value, in an order that is the values' own."""
    largest = np.finfo(np.float32).max
    bits = (np.clip(pixels, -largest, largest).astype(np.float32) + np.float32(0)).view(np.uint32)
    return np.asarray(np.where(bits & _SIGN, ~bits, bits | _SIGN) >> _DROPPED_BITS, np.uint32)


def _low_edges(bins: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The least value of each of these bins, or what would be."""
    ordered = bins << _DROPPED_BITS
    bits = np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered)
    edges = np.asarray(bits, np.uint32).view(np.float32).astype(np.float64)
    largest = float(np.finfo(np.float32).max)
    return np.nan_to_num(edges, posinf=largest, neginf=-largest)


def quantiles(histogram: Histogram, dtype: np.dtype[Any]) -> Quantiles:
    """Quantiles at ``SHARES``, as ``numpy.quantile`` interpolates them between pixels.

    Where two that mirror each other fall into one wide bin, both are its middle: how far they lie apart is not known.

    Args:
        histogram: Of a band.
        dtype: The band's.

    Raises:
        ValueError: If there are no pixels.
    """
    if not len(histogram.bins):
        raise ValueError("statistics of no pixels")
    if _is_narrow(dtype):
        low = histogram.bins.astype(np.float64) + float(np.iinfo(dtype).min)
        width = np.zeros_like(low)
    else:
        low = _low_edges(histogram.bins)
        width = _low_edges(histogram.bins + np.uint32(1)) - low
    ends = np.cumsum(histogram.counts)
    positions = (int(ends[-1]) - 1) * np.array(SHARES)
    ranks = np.stack([np.floor(positions), np.ceil(positions)]).astype(np.int64)
    places = np.searchsorted(ends, ranks, side="right")
    counts = histogram.counts[places]
    within = (ranks - (ends[places] - counts) + 0.5) / counts
    ranked = low[places] + within * width[places]
    found = ranked[0] + (ranked[1] - ranked[0]) * (positions - ranks[0])
    middle = len(SHARES) // 2
    one_bin = places[0, :middle] == places[1, :middle:-1]
    one_bin = np.concatenate([one_bin, one_bin[-1:], one_bin[::-1]])
    found = np.where(one_bin, (low + width / 2)[places[0]], found)
    return tuple(found.tolist())


def robust_figures(levels: Quantiles) -> tuple[float, float]:
    """Median and spread in units of a normal distribution's deviation: by the quartiles, or the next pair that differs.

    Args:
        levels: Quantiles of a band.

    Returns:
        The spread is 0 where 98 % of the pixels have one value.
    """
    middle = len(SHARES) // 2
    spreads = (
        (levels[middle + step] - levels[middle - step]) / normal for step, normal in enumerate(NORMAL_SPREADS, start=1)
    )
    return levels[middle], next((spread for spread in spreads if spread > 0), 0.0)


def to_json(histograms: Sequence[Histogram]) -> dict[str, Any]:
    """Histograms of a date's bands as a JSON object that :func:`from_json` reads back unchanged."""
    gaps = np.concatenate([np.diff(each.bins, prepend=np.uint32(0)) for each in histograms])
    counts = np.concatenate([each.counts for each in histograms])
    return {
        "sizes": [len(each.bins) for each in histograms],
        "gaps": _pack(gaps.astype("<u4")),
        "counts": _pack(counts.astype("<i8")),
    }


def from_json(value: dict[str, Any]) -> tuple[Histogram, ...]:
    """Read what :func:`to_json` wrote.

    Raises:
        ValueError: If it is anything else.
    """
    gaps, counts = _unpack(value["gaps"], "<u4"), _unpack(value["counts"], "<i8")
    edges = np.cumsum([0, *value["sizes"]])
    if not len(gaps) == len(counts) == edges[-1]:
        raise ValueError("a histogram is cut off")
    return tuple(
        Histogram(np.cumsum(gaps[first:stop], dtype=np.uint32), counts[first:stop].astype(np.int64))
        for first, stop in pairwise(edges)
    )


def _pack(values: NDArray[Any]) -> str:
    # first bytes first, then second bytes, ...: most of them are 0
    planes = values.view(np.uint8).reshape(-1, values.dtype.itemsize).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()


def _unpack(text: str, dtype: str) -> NDArray[Any]:
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)
