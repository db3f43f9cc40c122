"""Connected components of a scene that is seen block by block: those that cross a border become one.

Only the edges of the latest blocks are kept, and which numbers touch across them: a graph, whose connected components
are the scene's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED

Numbers = NDArray[np.int64]

CONNECTIVITY = 4  # pixels of an object share sides, where it is published and where it is scored

# Columns of figures. Sums of whole numbers are the same in any order, which those of floats are not.
PIXELS, PROBABILITY, VOTES, SIDES, UNSEEN, MAXIMUM = range(6)
SUMS = slice(PIXELS, MAXIMUM)  # the last one is a maximum
UNIT = 1 << 30  # what a probability of 1 counts; sums of 2^23 pixels are still exact in float64


class Components:
    """Numbers the components of a mask; blocks must come row by row, as :func:`block_keys` lists them.

    Each block's components get numbers of their own, in one run of consecutive ones. When all blocks are there,
    :meth:`roots` says which numbers are one component.
    """

    def __init__(self, width: int) -> None:
        """Begin a scene of so many columns."""
        self._count = 1  # of the numbers given so far; 0 is outside the mask
        self._touching: list[Numbers] = []
        self._above: Numbers = np.zeros(width, np.int64)  # of the lowest row so far
        self._stops: Numbers = np.zeros(width, np.int64)  # first row of each column that has not come yet
        self._left: Numbers = np.zeros(0, np.int64)  # of the last column of the block before
        self._next_col = 0

    def add(self, window: Window, mask: NDArray[np.bool_]) -> Numbers:
        """Number the components of the next block.

        Args:
            window: Where the block lies.
            mask: (height, width).

        Returns:
            (height, width): 0 outside the mask, else a number above all of the blocks before.

        Raises:
            ValueError: If the block above or on the left has not come, or its shape is another.
        """
        cols = window.slices[1]
        if (
            mask.shape != window.shape
            or self._next_col not in (window.col, 0)
            or (self._stops[cols] != window.row).any()
        ):
            raise ValueError(f"expected whole blocks row by row, got {window} with a mask of {mask.shape}")
        if window.col == 0:
            self._left = np.zeros(window.height, np.int64)
        count, own = cv2.connectedComponents(mask.astype(np.uint8), connectivity=CONNECTIVITY, ltype=cv2.CV_32S)
        ids = np.where(own > 0, own.astype(np.int64) + (self._count - 1), 0)
        self._count += count - 1
        self._join(ids[0], self._above[cols])
        self._join(ids[:, 0], self._left)
        self._above[cols] = ids[-1]
        self._stops[cols] = window.stop_row
        self._left = ids[:, -1].copy()
        self._next_col = window.stop_col % len(self._stops)
        return ids

    def roots(self) -> Numbers:
        """(numbers,): for every number the one that stands for its component, the smallest of it; 0 for 0."""
        return join_pieces(self._count, self._touching)

    def _join(self, edge: Numbers, beyond: Numbers) -> None:
        """Note what touches across a border."""
        both = (edge > 0) & (beyond > 0)
        self._touching.append(np.unique(np.stack([edge[both], beyond[both]], 1), axis=0))


def join_pieces(count: int, touching: Sequence[Numbers]) -> Numbers:
    """Join pieces that touch into components.

    Args:
        count: Number of pieces, which are numbered from 0.
        touching: Each (pairs, 2): numbers of pieces that touch.

    Returns:
        (count,): for every piece the smallest number of its component.
    """
    one, other = np.concatenate([np.zeros((0, 2), np.int64), *touching]).T
    if not len(one):
        return np.arange(count)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    smallest = np.unique(component, return_index=True)[1]  # where each component occurs first
    return np.asarray(smallest[component], np.int64)


def sum_by_component(roots: Numbers, parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over whole components.

    Args:
        roots: (numbers,), see :meth:`Components.roots`.
        parts: (numbers,), for every number, such as its pixels; the element of number 0 is left out.

    Returns:
        (components,), ordered by their smallest numbers.
    """
    sums = np.zeros(len(roots), np.int64)
    np.add.at(sums, roots, parts)
    return sums[np.unique(roots)][1:]


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of components that lie in a window, and what is measured of them in numbers that add up.

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
    """Label what is 1 in a window, and measure it.

    Args:
        state: (height + 2, width + 2) of 0 unchanged, 1 changed, 255 not observed: the window with a border of one
            pixel.
        probability: (height, width) in 0 to 1.
        votes: (height, width), how many models predict change.
        window: Where it lies.
        width: Of the scene, in pixels.
    """
    inner = state[1:-1, 1:-1]
    change = np.ascontiguousarray(inner == CHANGED).view(np.uint8)
    count, labels = cv2.connectedComponents(change, connectivity=CONNECTIVITY, ltype=cv2.CV_32S)
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    whole = np.ones(count, np.bool_)
    for edge in edges:
        whole[edge] = False
    at = np.flatnonzero(labels)
    of = labels.ravel()[at].astype(np.intp)
    outline, unknown = np.zeros(inner.shape, np.uint8), np.zeros(inner.shape, np.uint8)
    for beside in (state[:-2, 1:-1], state[1:-1, :-2], state[1:-1, 2:], state[2:, 1:-1]):
        outline += beside != CHANGED
        unknown += beside == NOT_OBSERVED
    scaled = np.rint(probability.ravel()[at].astype(np.float64) * UNIT).astype(np.int64)
    figures, highest = np.zeros((count, 6), np.int64), np.zeros(count, np.int64)
    measured: list[NDArray[Any]] = [np.ones(len(at)), scaled]
    measured += [each.ravel()[at] for each in (votes, outline, unknown)]
    for column, values in zip(range(PIXELS, MAXIMUM), measured, strict=True):  # sums that float64 holds exactly
        figures[:, column] = np.bincount(of, values, count)
    np.maximum.at(highest, of, scaled)
    figures[:, MAXIMUM] = highest
    first = np.zeros(count, np.int64)
    first[of[::-1]] = at[::-1]  # of what is assigned to one place the last stays
    rows, cols = np.divmod(first[1:], window.width)
    return Pieces(
        np.asarray(labels, np.int32),
        (rows + window.row) * width + cols + window.col,
        figures[1:],
        whole[1:],
    )


def merge_figures(roots: Numbers, first: Numbers, figures: Numbers) -> tuple[Numbers, Numbers]:
    """First pixel and figures of what pieces make up together.

    Args:
        roots: (pieces,), the piece that stands for each one's component, the first of it.
        first: (pieces,), see :class:`Pieces`.
        figures: (pieces, 6), likewise.

    Returns:
        (pieces,) and (pieces, 6) in the order of the pieces; only those at ``roots`` are of whole components.
    """
    all_first, total = first.copy(), figures.copy()
    rest = np.flatnonzero(roots != np.arange(len(roots)))
    np.minimum.at(all_first, roots[rest], first[rest])
    np.add.at(total[:, SUMS], roots[rest], figures[rest, SUMS])
    np.maximum.at(total[:, MAXIMUM], roots[rest], figures[rest, MAXIMUM])
    return all_first, total
