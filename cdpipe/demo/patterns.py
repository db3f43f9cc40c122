"""Patterns that fill a map: fractal noise, lattices of cells, patchworks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.render import smooth_noise

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]
Shape = tuple[int, int]


@dataclass(frozen=True)
class Cells:
    """A map cut into cells.

    Attributes:
        number: (rows, columns), which cell a pixel lies in, from 0.
        along: (rows, columns), where in it along its first side, 0 to 1.
        across: Likewise, along the second.
        count: How many numbers there are; not all of them need occur.
    """

    number: Numbers
    along: Image
    across: Image
    count: int


def fractal_noise(
    rng: np.random.Generator, shape: Shape, width: float, *, octaves: int = 4, fall: float = 0.6
) -> Image:
    """Return noise of deviation 1 or so, whose largest features are about `width` pixels wide.

    Args:
        rng: Source of randomness.
        shape: Rows and columns.
        width: Of the largest features, pixels.
        octaves: How many sizes of features there are, each 2.3 times smaller than the one before.
        fall: Amplitude of each relative to the one before.
    """
    amplitudes = fall ** np.arange(octaves)
    layers = (
        np.float32(amplitude) * smooth_noise(rng, shape, max(width / 2.3**octave, 1.5))
        for octave, amplitude in enumerate(amplitudes)
    )
    return np.asarray(sum(layers) / np.float32(np.hypot.reduce(amplitudes)), np.float32)


def highest_share(field: Image, share: float) -> Mask:
    """Return where a field is among the highest `share` of its values."""
    return np.asarray(field > np.quantile(field[::4, ::4], 1 - share))


def turned_axes(rng: np.random.Generator, shape: Shape, angle: float, sway: float, width: float) -> tuple[Image, Image]:
    """Return coordinates along `angle` and across it, pixels, bent by about `sway` over some `width` pixels."""
    y, x = np.indices(shape, dtype=np.float32)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = cosine * x + sine * y, cosine * y - sine * x
    if sway:
        along += np.float32(sway) * smooth_noise(rng, shape, width)
        across += np.float32(sway) * smooth_noise(rng, shape, width)
    return along, across


def lattice(
    rng: np.random.Generator, axes: tuple[Image, Image], sides: tuple[float, float], *, staggered: bool
) -> Cells:
    """Cut a map into cells of `sides` pixels along its axes, as bricks lie where they are staggered."""
    across = axes[1] / np.float32(sides[1])
    row = np.floor(across)
    rows = (row - row.min()).astype(np.int32)
    along = axes[0] / np.float32(sides[0])
    if staggered:
        along = along + rng.random(int(rows.max()) + 1, dtype=np.float32)[rows]
    column = np.floor(along)
    columns = (column - column.min()).astype(np.int32)
    wide = int(columns.max()) + 1
    return Cells(rows * wide + columns, along - column, across - row, (int(rows.max()) + 1) * wide)


def patchwork(rng: np.random.Generator, shape: Shape, size: float) -> tuple[Numbers, int]:
    """Cut a map into the Voronoi cells of random points, each about `size` pixels wide, with bent edges.

    Returns:
        The number of each pixel's cell, from 0, and how many numbers there are.
    """
    pad = int(size) + 1
    rows, columns = shape[0] + 2 * pad, shape[1] + 2 * pad
    points = max(3, int(rows * columns / size**2))
    free = np.ones((rows, columns), np.uint8)
    free[rng.integers(0, rows, points), rng.integers(0, columns, points)] = 0
    # a mask of 5 keeps the order of what it labels and is exact enough for pictures
    _, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    y, x = np.indices(shape, dtype=np.float32)
    x += pad + np.float32(0.2 * size) * smooth_noise(rng, shape, size)
    y += pad + np.float32(0.2 * size) * smooth_noise(rng, shape, size)
    moved = cv2.remap(nearest.astype(np.float32), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.int32) - 1, points
