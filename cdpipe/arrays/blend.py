"""Overlapping patches become one raster: a weighted mean whose weights fall off towards a patch's edges."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window

# scene row and column of a patch's origin, and its (patch, patch) values
Placed = tuple[int, int, NDArray[np.float32]]


def blend_weights(patch: int, stride: int) -> NDArray[np.float32]:
    """Separable weights: 1 in the middle, a linear ramp across the overlap with the next patch.

    Symmetric and above 0 everywhere; all ones without overlap. Ramps of neighbouring patches add up to 1
    where two patches overlap.

    Args:
        patch: Side of a patch in pixels.
        stride: Distance between patches in pixels.

    Returns:
        (patch, patch).
    """
    overlap = patch - stride
    if overlap == 0:
        return np.ones((patch, patch), np.float32)
    edge = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    ramp = np.minimum(edge / overlap, 1).astype(np.float32)
    return np.asarray(ramp[:, None] * ramp[None, :], np.float32)


def lay(patches: Iterable[Placed], window: Window) -> NDArray[np.float32]:
    """Patches that do not overlap, side by side: the bits of :func:`blend` without its two sums.

    Args:
        patches: See :func:`blend`.
        window: The pixels wanted.

    Returns:
        (height, width) of the window; NaN where no patch lies.
    """
    result = np.full(window.shape, np.nan, np.float32)
    for row, col, values in patches:
        place = Window(row, col, *values.shape)
        common = place.intersect(window)
        if common is not None:
            # a sum turns -0 into 0
            np.add(values[common.slices_in(place)], np.float32(0), out=result[common.slices_in(window)])
    return result


def blend(patches: Iterable[Placed], weights: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Weighted mean of patches over a window.

    Each pixel adds up its patches in the order given, so that equal patches in equal order give equal
    bits whatever the window.

    Args:
        patches: Scene row and column of each patch's origin, and its (patch, patch) values.
        weights: (patch, patch), see :func:`blend_weights`.
        window: The pixels wanted.

    Returns:
        (height, width) of the window; NaN where no patch lies.
    """
    total = np.zeros(window.shape, np.float32)
    weight = np.zeros(window.shape, np.float32)
    for row, col, values in patches:
        place = Window(row, col, *values.shape)
        common = place.intersect(window)
        if common is None:
            continue
        here, there = common.slices_in(window), common.slices_in(place)
        total[here] += values[there] * weights[there]
        weight[here] += weights[there]
    with np.errstate(invalid="ignore"):
        return np.divide(total, weight, out=total)
