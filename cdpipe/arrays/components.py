"""Connected components of a scene that is seen block by block: those that cross a border become one.

Only the edges of the latest blocks are kept, and one number for each component of a block; a union-find structure
(Tarjan 1975) joins the numbers of parts that touch.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window

Ids = NDArray[np.int64]


class Components:
    """Numbers the components of a mask; blocks must come row by row, as :func:`block_keys` lists them.

    Each block's components get numbers of their own, in one run of consecutive ones. When all blocks are there,
    :meth:`roots` says which numbers are one component.
    """

    def __init__(self, width: int, connectivity: Literal[4, 8] = 8) -> None:
        """Begin a scene.

        Args:
            width: Columns of the scene.
            connectivity: 8 if pixels that share a corner belong together, 4 if only those that share a side.
        """
        self._connectivity = connectivity
        self._parents = [0]
        self._above: Ids = np.zeros(width + 2, np.int64)  # of the lowest row so far; a column on either side
        self._stops: Ids = np.zeros(width, np.int64)  # first row of each column that has not come yet
        self._left: Ids = np.zeros(0, np.int64)  # of the last column of the block before
        self._corner = 0  # above the left column
        self._next_col = 0

    def add(self, window: Window, mask: NDArray[np.bool_]) -> Ids:
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
            self._left, self._corner = np.zeros(window.height, np.int64), 0
        count, own = cv2.connectedComponents(mask.astype(np.uint8), connectivity=self._connectivity, ltype=cv2.CV_32S)
        first = len(self._parents)
        ids = np.where(own > 0, own.astype(np.int64) + (first - 1), 0)
        self._parents.extend(range(first, first + count - 1))
        above = self._above[window.col : window.stop_col + 2].copy()
        above[0] = self._corner
        self._join(ids[0], above)
        self._join(ids[:, 0], np.concatenate([[0], self._left, [0]]))
        self._corner = int(above[-2])
        self._above[window.col + 1 : window.stop_col + 1] = ids[-1]
        self._stops[cols] = window.stop_row
        self._left = ids[:, -1].copy()
        self._next_col = window.stop_col % len(self._stops)
        return ids

    def roots(self) -> Ids:
        """For every number the one that stands for its component: the smallest of it; 0 for 0."""
        return flatten(self._parents)

    def _join(self, edge: Ids, beyond: Ids) -> None:
        """Join what touches across a border; ``beyond`` has one more pixel at either end."""
        shifts = (0, 1, 2) if self._connectivity == 8 else (1,)
        for shift in shifts:
            other = beyond[shift : shift + len(edge)]
            both = (edge > 0) & (other > 0)
            for a, b in np.unique(np.stack([edge[both], other[both]]), axis=1).T.tolist():
                unite(self._parents, a, b)


def unite(parents: list[int], a: int, b: int) -> None:
    """Note that two numbers are one component; each number's parent is itself at first."""
    low, high = sorted((_find(parents, a), _find(parents, b)))
    parents[high] = low


def flatten(parents: list[int]) -> Ids:
    """For every number the smallest of its component."""
    roots = np.array(parents, np.int64)
    while True:
        further = roots[roots]
        if (further == roots).all():
            return roots
        roots = further


def _find(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def sum_by_component(roots: Ids, parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over whole components.

    Args:
        roots: See :meth:`Components.roots`.
        parts: For every number, such as its pixels; the element of number 0 is left out.

    Returns:
        One value for each component, ordered by its smallest number.
    """
    sums = np.zeros(len(roots), np.int64)
    np.add.at(sums, roots, parts)
    return sums[np.unique(roots)][1:]
