"""Means, minima and maxima over the observed pixels of 3 x 3, the same bit for bit in whatever window they are asked.

OpenCV's box filter keeps running sums, whose last bits depend on where a window begins; here every pixel's nine values
are added in one order.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MARGIN = 1  # pixels that a neighbourhood reaches beyond its pixel
SIDE = 2 * MARGIN + 1

Plane = NDArray[np.float32]

_BOX = np.ones((SIDE, SIDE), np.uint8)


Chosen = tuple[slice, slice]  # rows and columns
ALL = (slice(None), slice(None))


def count_observed(observed: NDArray[np.bool_], chosen: Chosen = ALL) -> Plane:
    """How many of the nine pixels around each pixel are observed, at least 1: (height, width) float32."""
    return np.asarray(np.maximum(_nine(observed.astype(np.float32), chosen), np.float32(1)), np.float32)


def mean_of_observed(
    plane: NDArray[Any], observed: NDArray[np.bool_], chosen: Chosen = ALL, counts: Plane | None = None
) -> Plane:
    """Mean over the observed pixels among the nine around each pixel.

    Args:
        plane: (height, width), any real dtype; what is not observed may hold anything.
        observed: (height, width), True where a pixel counts; beyond the edge none does.
        chosen: The rows and columns that are wanted; default: all.
        counts: What :func:`count_observed` gives for them, where it is known already.

    Returns:
        (height, width) float32, or of the chosen pixels alone; 0 where none of the nine is observed.
    """
    # whole numbers of up to 16 bits add up without rounding in single precision, and others nearly so in double
    exact = plane.dtype.kind in "iu" and plane.dtype.itemsize <= 2
    values = np.where(observed, plane, plane.dtype.type(0)).astype(np.float32 if exact else np.float64)
    total = _nine(values, chosen)
    return np.asarray(total / (count_observed(observed, chosen) if counts is None else counts), np.float32)


def _nine(values: NDArray[Any], chosen: Chosen) -> NDArray[Any]:
    """Sum of the nine values around each of the chosen pixels, 0 beyond the edge."""
    padded = np.zeros([length + 2 * MARGIN for length in values.shape], values.dtype)  # np.pad takes twice as long
    padded[MARGIN:-MARGIN, MARGIN:-MARGIN] = values
    above, here, below = (padded[first : len(values) + first][chosen[0]] for first in range(SIDE))
    rows = above + here
    rows += below
    left, middle, right = (rows[:, first : values.shape[1] + first][:, chosen[1]] for first in range(SIDE))
    total = left + middle
    total += right
    return np.asarray(total)


def range_of_observed(plane: Plane, observed: NDArray[np.bool_]) -> tuple[Plane, Plane]:
    """Least and greatest value among the observed of the nine pixels around each pixel.

    Args:
        plane: (height, width).
        observed: (height, width), True where a pixel counts; beyond the edge none does.

    Returns:
        Two of (height, width) float32; plus and minus infinity where none of the nine is observed.
    """
    infinity = np.float32(np.inf)
    low = cv2.erode(np.where(observed, plane, infinity), _BOX, borderType=cv2.BORDER_CONSTANT, borderValue=np.inf)
    high = cv2.dilate(np.where(observed, plane, -infinity), _BOX, borderType=cv2.BORDER_CONSTANT, borderValue=-np.inf)
    return np.asarray(low, np.float32), np.asarray(high, np.float32)
