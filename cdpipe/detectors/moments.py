"""Weighted means and covariances of many pixels, exact whatever their order, grouping, or the number of threads.

Pixels become whole numbers of 15 bits in units of their band's spread, weights whole numbers of 7 bits. Products of
three of these, added up over 2^18 pixels, stay below 2^53: doubles hold them exactly, so BLAS may add in any order it
likes, and the pieces are added as integers of 64 bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIT = 512  # codes a spread: finer than the noise of any sensor, whose pixels are means of nine besides
MOST_CODE = 2**14  # 32 spreads; what lies further off counts as that
MOST_WEIGHT = 2**7 - 1
PIECE = 2**18  # pixels


@dataclass(frozen=True, slots=True)
class Scale:
    """How pixels of each band become codes.

    Attributes:
        middles: Median of each band.
        spreads: Its spread in units of a normal distribution's deviation; 0 of a band that has a single value.
    """

    middles: tuple[float, ...]
    spreads: tuple[float, ...]

    @property
    def varying(self) -> list[int]:
        """The bands that have more than a single value."""
        return [band for band, spread in enumerate(self.spreads) if spread > 0]


def measure_scale(pixels: NDArray[np.float32]) -> Scale:
    """Median and spread of each band.

    Args:
        pixels: (band, pixel), all finite, at least one pixel.
    """
    found = [robust_figures(band) for band in pixels]
    return Scale(tuple(middle for middle, _ in found), tuple(spread for _, spread in found))


# By how much quantiles of a normal distribution lie apart: the quartiles, and further out for bands of which most
# pixels have one value.
_PAIRS = ((0.25, 1.3489795), (0.05, 3.2897073), (0.01, 4.6526957))


def robust_figures(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median and spread of some values, in units of a normal distribution's deviation.

    Args:
        values: (n,), all finite, at least one.

    Returns:
        The spread is that between quartiles, or further out where these are alike, or the deviation where 98 % of the
        values are one; 0 where all are.
    """
    shares = [share for low, _ in _PAIRS for share in (low, 1 - low)]
    middle, *ends = np.quantile(values.astype(np.float64), [0.5, *shares]).tolist()
    spreads = [(high - low) / normal for low, high, (_, normal) in zip(ends[::2], ends[1::2], _PAIRS, strict=True)]
    spread = next((each for each in spreads if each > 0), 0.0)
    if not spread:
        spread = float(np.sqrt(np.square(values - np.float32(middle), dtype=np.float64).mean()))
    return middle, spread


def encode(pixels: NDArray[np.float32], scale: Scale) -> NDArray[np.float64]:
    """Codes of the bands that vary.

    Args:
        pixels: (band, pixel).
        scale: Of these bands.

    Returns:
        (varying band, pixel) whole numbers.
    """
    chosen = scale.varying
    middles = np.array(scale.middles)[chosen, None]
    gains = UNIT / np.array(scale.spreads)[chosen, None]
    return np.asarray(np.clip(np.rint((pixels[chosen] - middles) * gains), -MOST_CODE, MOST_CODE))


def covariance(
    codes: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and covariance.

    Args:
        codes: (variable, pixel), see :func:`encode`.
        weights: (pixel,) whole numbers from 0 to ``MOST_WEIGHT``; default: all alike.

    Returns:
        (variable,) and (variable, variable), in spreads and their squares.

    Raises:
        ValueError: If no pixel has any weight.
    """
    variables = len(codes)
    total, sums, products = 0, np.zeros(variables, np.int64), np.zeros((variables, variables), np.int64)
    for first in range(0, codes.shape[1], PIECE):
        piece = codes[:, first : first + PIECE]
        own = np.ones(piece.shape[1]) if weights is None else weights[first : first + PIECE]
        weighted = piece * own
        total += int(own.sum())
        sums += weighted.sum(1).astype(np.int64)
        products += (weighted @ piece.T).astype(np.int64)
    if not total:
        raise ValueError("expected pixels with any weight")
    mean = sums / total
    return mean / UNIT, (products / total - np.outer(mean, mean)) / UNIT**2
