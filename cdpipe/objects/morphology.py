"""Opening and closing of a change mask by a radius on the ground, among observed pixels alone."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED

SLACK = 1.005  # a projection's metre is not quite the ground's (UTM: 0.1 %), and a radius of 3 pixels is to be 3 pixels


def ground_disc(steps: NDArray[np.float64], radius: float) -> NDArray[np.uint8]:
    """Pixels within a radius of the middle one: an ellipse where pixels are not square.

    Args:
        steps: (2, 2) metres east and north that one row and one column step take.
        radius: In metres.

    Returns:
        (odd, odd) uint8, 1 within; a single 1 where the radius is less than a pixel.
    """
    metric = steps @ steps.T
    (rows, _), (_, cols) = np.linalg.inv(metric)
    high, wide = (math.floor(SLACK * radius * math.sqrt(half)) for half in (rows, cols))
    row, col = np.mgrid[-high : high + 1, -wide : wide + 1]
    square = metric[0, 0] * row**2 + 2 * metric[0, 1] * row * col + metric[1, 1] * col**2
    return np.asarray(square <= (SLACK * radius) ** 2, np.uint8)


def clean_mask(state: NDArray[np.uint8], opening: NDArray[np.uint8], closing: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Open a mask, which removes what is narrower than a disc, then close it, which fills gaps that are narrower.

    What was not observed, and what lies outside, neither adds to change nor gnaws at it: both are the erosion and
    dilation of sets of observed pixels (Serra, Image Analysis and Mathematical Morphology, 1982), so that each is
    idempotent, opening only takes away and closing only adds.

    Args:
        state: (height, width) of 0 unchanged, 1 changed, 255 not observed. A pixel depends on those within twice the
            sum of both discs' radii.
        opening: (odd, odd), see :func:`ground_disc`.
        closing: (odd, odd), likewise.

    Returns:
        (height, width); 255 where it was before and nowhere else.
    """
    observed = state != NOT_OBSERVED
    change = (state == CHANGED).astype(np.uint8)
    if opening.size > 1:
        change = _dilate(_erode(change, observed, opening), observed, opening)
    if closing.size > 1:
        change = _erode(_dilate(change, observed, closing), observed, closing)
    return np.where(observed, change, np.uint8(NOT_OBSERVED))


def _erode(change: NDArray[np.uint8], observed: NDArray[np.bool_], disc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # OpenCV's default border takes no part either
    return np.asarray(cv2.erode(change | ~observed, disc) * observed, np.uint8)


def _dilate(change: NDArray[np.uint8], observed: NDArray[np.bool_], disc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(change, disc) * observed, np.uint8)
