"""Pieces of connected components within a window, and what is measured of them in numbers that add up."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.morphology import NOT_OBSERVED
from cdpipe.geo.grid import Window

Numbers = NDArray[np.int64]

# Columns of figures. Sums of whole numbers are the same in any order, which those of floats are not.
PIXELS, PROBABILITY, VOTES, SIDES, UNSEEN, MAXIMUM = range(6)
SUMS = slice(PIXELS, MAXIMUM)  # the last one is a maximum
UNIT = 1 << 30  # what a probability of 1 counts; sums of 2^23 pixels are still exact in float64


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of components that lie in a window.

    Attributes:
        labels: (height, width) int32; 0 for none, else the number of the piece.
        first: (pieces,) first pixel of each, as pixels of the scene are counted row by row.
        figures: (pieces, 6): pixels; sum of probabilities in ``1 / UNIT``; sum of votes; pixel sides that are outline;
            those of them beyond which nothing was observed; and the highest probability in ``1 / UNIT``.
        whole: (pieces,) whether it does not reach the window's border, and so is a component.
    """

    labels: NDArray[np.int32]
    first: Numbers
    figures: Numbers
    whole: NDArray[np.bool_]


def find_pieces(
    state: NDArray[np.uint8], probability: NDArray[np.float32], votes: NDArray[np.uint8], window: Window, width: int
) -> Pieces:
    """Label what is 1 in a window, 4-connected, and measure it.

    Args:
        state: (height + 2, width + 2) of 0, 1 and 255: the window with a border of one pixel.
        probability: (height, width) in 0 to 1.
        votes: (height, width) how many models see change.
        window: Where it lies.
        width: Of the scene, in pixels.
    """
    change = np.ascontiguousarray(state[1:-1, 1:-1] == 1).view(np.uint8)
    count, labels = cv2.connectedComponents(change, connectivity=4, ltype=cv2.CV_32S)
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    whole = np.ones(count, np.bool_)
    for edge in edges:
        whole[edge] = False
    at = np.flatnonzero(labels)
    of = labels.ravel()[at]
    order = np.argsort(of, kind="stable")
    at, of = at[order], of[order]
    starts = np.searchsorted(of, np.arange(1, count))
    rows, cols = np.divmod(at, window.width)
    beside = np.stack([state[rows + r, cols + c] for r, c in ((0, 1), (1, 0), (1, 2), (2, 1))])
    scaled = np.rint(probability.ravel()[at].astype(np.float64) * UNIT).astype(np.int64)
    measured = [
        np.ones_like(at),
        scaled,
        votes.ravel()[at].astype(np.int64),
        np.count_nonzero(beside != 1, 0),
        np.count_nonzero(beside == NOT_OBSERVED, 0),
    ]
    figures = np.zeros((count - 1, 6), np.int64)
    if count > 1:
        figures[:, SUMS] = np.stack([np.add.reduceat(values, starts) for values in measured], 1)
        figures[:, MAXIMUM] = np.maximum.reduceat(scaled, starts)
    first = (rows[starts] + window.row) * width + cols[starts] + window.col
    return Pieces(np.asarray(labels, np.int32), first, figures, whole[1:])


def merge_figures(roots: Numbers, first: Numbers, figures: Numbers) -> tuple[Numbers, Numbers]:
    """First pixel and figures of what pieces make up together.

    Args:
        roots: (pieces,) the piece that stands for each one's component, the first of it.
        first: (pieces,).
        figures: (pieces, 6).

    Returns:
        Both in the order of the pieces; only those at ``roots`` are of whole components.
    """
    all_first, total = first.copy(), figures.copy()
    rest = np.flatnonzero(roots != np.arange(len(roots)))
    np.minimum.at(all_first, roots[rest], first[rest])
    np.add.at(total[:, SUMS], roots[rest], figures[rest, SUMS])
    np.maximum.at(total[:, MAXIMUM], roots[rest], figures[rest, MAXIMUM])
    return all_first, total
