"""Scores that forgive a border that is a pixel or two off."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.sums import Sums


@dataclass(frozen=True, slots=True)
class NearCounts(Sums):
    """Pixels of change, and how many of them have their counterpart nearby; counts of disjoint pixels add up.

    Attributes:
        said: Pixels predicted to have changed.
        said_near: Those of them with a truly changed pixel within the tolerance.
        true: Pixels that have changed.
        true_near: Those of them with a predicted pixel within the tolerance.
    """

    said: int = 0
    said_near: int = 0
    true: int = 0
    true_near: int = 0


def count_near(
    said: NDArray[np.bool_], true: NDArray[np.bool_], inner: tuple[slice, slice], tolerance: int
) -> NearCounts:
    """Count the pixels of a block whose counterpart lies at most so many pixels away (Euclidean, pixel centres).

    Args:
        said: Predicted change of the block and of as many pixels around it as the tolerance has, inside the scene.
        true: True change there.
        inner: The block in these.
        tolerance: In pixels; 0 gives the plain counts.
    """
    near_true, near_said = (_dilate(mask, tolerance)[inner] for mask in (true, said))
    said, true = said[inner], true[inner]
    return NearCounts(*(int(np.count_nonzero(mask)) for mask in (said, said & near_true, true, true & near_said)))


def _dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    steps = np.arange(-radius, radius + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0)
