"""Exact band statistics that can be merged in any grouping.

Sums and cross-products are rational numbers: those of 8- and 16-bit pixels are exact, those of wider types
are rounded once per fixed 256 x 256 cell of the scene. Adding them is exact, so nothing depends on blocks,
workers or order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CHUNK, tiles_in

# Of the mean square: less is what rounding leaves of a constant scene in floating point (it may even be negative),
# and a deviation that float32, in which pixels are normalised, could not tell from 0.
NEGLIGIBLE = Fraction(1, 2**46)
DOT_PIXELS = 2**13  # so few that BLAS takes one thread, and that a core's cache holds all bands of them


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, sums and cross-products of the bands of some pixels.

    Attributes:
        count: Number of pixels.
        sums: Sum of each band.
        products: ``products[i][j]`` is the sum of band i times band j.
    """

    count: int
    sums: tuple[Fraction, ...]
    products: tuple[tuple[Fraction, ...], ...]

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both sets of pixels together."""
        return Moments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.products, other.products, strict=True)
            ),
        )

    def combine(self, weights: Iterable[tuple[int, float]]) -> tuple[float, float]:
        """Mean and population standard deviation of a weighted sum of bands.

        Args:
            weights: Band index and weight of each band that takes part.

        Raises:
            ValueError: If there are no pixels.
        """
        if not self.count:
            raise ValueError("statistics of no pixels")
        terms = [(band, Fraction(weight)) for band, weight in weights]
        mean = sum((w * self.sums[i] for i, w in terms), Fraction()) / self.count
        square = sum((v * w * self.products[i][j] for i, v in terms for j, w in terms), Fraction()) / self.count
        return float(mean), _deviation(mean, square)

    def pool(self, bands: Iterable[int]) -> tuple[float, float]:
        """Mean and population standard deviation of the values of several bands taken together."""
        chosen = list(bands)
        number = self.count * len(chosen)
        if not number:
            raise ValueError("statistics of no pixels")
        mean = sum((self.sums[i] for i in chosen), Fraction()) / number
        square = sum((self.products[i][i] for i in chosen), Fraction()) / number
        return float(mean), _deviation(mean, square)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back unchanged."""
        return {
            "count": self.count,
            "sums": [str(value) for value in self.sums],
            "products": [[str(value) for value in row] for row in self.products],
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Moments":
        """Read what :meth:`to_json` wrote."""
        return Moments(
            int(value["count"]),
            tuple(Fraction(text) for text in value["sums"]),
            tuple(tuple(Fraction(text) for text in row) for row in value["products"]),
        )


def _deviation(mean: Fraction, square: Fraction) -> float:
    """Population standard deviation from the mean and the mean square."""
    variance = square - mean**2
    return float(variance) ** 0.5 if variance > square * NEGLIGIBLE else 0.0


def no_pixels(bands: int) -> Moments:
    """Moments of an empty set of pixels."""
    zeros = (Fraction(),) * bands
    return Moments(0, zeros, (zeros,) * bands)


def measure(values: NDArray[Any], mask: NDArray[np.bool_], window: Window) -> Moments:
    """Moments of the pixels of a block that a mask selects.

    Args:
        values: (band, height, width) pixels, any real dtype; those that count are finite.
        mask: (height, width), True where a pixel counts.
        window: Where the block lies on the scene; cells are anchored at the scene's origin.
    """
    narrow = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    return _measure_narrow(values, mask, window) if narrow else _measure_wide(values, mask, window)


def _measure_narrow(values: NDArray[Any], mask: NDArray[np.bool_], window: Window) -> Moments:
    """Of 8- or 16-bit pixels: whole numbers, exact in any order."""
    bands, count = len(values), 0
    sums, products = [0] * bands, [[0] * bands for _ in range(bands)]
    pairs = [(i, j) for i in range(bands) for j in range(i, bands)]
    for cell, inside in _cells(mask, window):
        # 2^16 pixels of squares below 2^32 stay below 2^53, so sums of doubles are exact
        pixels = _flat(values[:, *cell], inside)
        count += int(np.count_nonzero(inside))
        for band, added in enumerate(pixels.sum(axis=1).tolist()):
            sums[band] += int(added)
        for start in range(0, pixels.shape[1], DOT_PIXELS):
            piece = pixels[:, start : start + DOT_PIXELS]
            for i, j in pairs:
                products[i][j] += int(np.dot(piece[i], piece[j]))
    return Moments(
        count,
        tuple(map(Fraction, sums)),
        tuple(tuple(Fraction(products[min(i, j)][max(i, j)]) for j in range(bands)) for i in range(bands)),
    )


def _measure_wide(values: NDArray[Any], mask: NDArray[np.bool_], window: Window) -> Moments:
    """Of wider pixels: each cell's sums are rounded, in an order that depends on nothing else."""
    total = no_pixels(len(values))
    for cell, inside in _cells(mask, window):
        pixels = _flat(values[:, *cell], inside)
        # a BLAS product would add in an order that depends on its threads
        products = {
            (i, j): Fraction(float((a * pixels[j]).sum())) for i, a in enumerate(pixels) for j in range(i, len(pixels))
        }
        total += Moments(
            int(np.count_nonzero(inside)),
            tuple(map(Fraction, pixels.sum(axis=1).tolist())),
            tuple(tuple(products[min(i, j), max(i, j)] for j in range(len(pixels))) for i in range(len(pixels))),
        )
    return total


def _cells(mask: NDArray[np.bool_], window: Window) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
    """Slices of each cell of a block in which a pixel counts, and which do."""
    for cell in tiles_in(window, CHUNK):
        slices = cell.slices_in(window)
        if mask[slices].any():
            yield slices, mask[slices]


def _flat(values: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(band, pixels) in double precision, 0 where a pixel does not count."""
    chosen = values if inside.all() else np.where(inside, values, values.dtype.type(0))
    return np.ascontiguousarray(chosen, np.float64).reshape(len(values), -1)
