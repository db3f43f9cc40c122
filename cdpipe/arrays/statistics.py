"""Exact band statistics that can be merged in any grouping.

Sums and cross-products are rational numbers: those of 8- and 16-bit pixels are exact, those of wider types
are rounded once per fixed 256 x 256 cell of the scene. Adding them is exact, so nothing depends on blocks,
workers or order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.values.grid import Window
from cdpipe.values.windows import CHUNK, tiles_in

# Of the mean square: less is what rounding leaves of a constant scene in floating point (it may even be negative),
# and a deviation that float32, in which pixels are normalised, could not tell from 0.
NEGLIGIBLE = Fraction(1, 2**46)


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
    total = no_pixels(len(values))
    for cell in tiles_in(window, CHUNK):
        rows, cols = cell.slices_in(window)
        inside = mask[rows, cols]
        if inside.any():
            total += _measure_cell(values[:, rows, cols], inside)
    return total


def _measure_cell(values: NDArray[Any], inside: NDArray[np.bool_]) -> Moments:
    pixels = np.where(inside, values, values.dtype.type(0)).reshape(len(values), -1).astype(np.float64)
    sums = pixels.sum(axis=1)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        # 2^16 pixels of squares below 2^32 stay below 2^53: exact in any order, so the fast product may be used
        products = pixels @ pixels.T
    else:
        # a BLAS product would add in an order that depends on its threads
        products = np.array([[(a * b).sum() for b in pixels] for a in pixels])
    return Moments(
        int(inside.sum()),
        tuple(map(Fraction, sums.tolist())),
        tuple(tuple(map(Fraction, row)) for row in products.tolist()),
    )
