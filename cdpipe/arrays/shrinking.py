"""Scenes shrunk for a page: sums over square cells, window by window."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import tiles_in

STEP = 1024  # side of the windows in which a scene is read, in pixels, at most

Cells = NDArray[np.float64]


def cell_side(shape: tuple[int, int], max_side: int) -> int:
    """Smallest side of a cell in pixels with which a scene has at most ``max_side`` rows and columns of cells."""
    return math.ceil(max(shape) / max_side)


def cell_counts(shape: tuple[int, int], cell: int) -> tuple[int, int]:
    """Rows and columns of cells; those at the lower and right edge may be cut off."""
    return math.ceil(shape[0] / cell), math.ceil(shape[1] / cell)


def cell_windows(shape: tuple[int, int], cell: int) -> Iterator[tuple[Window, tuple[slice, slice]]]:
    """Windows of whole cells, and where these lie among all cells.

    Windows depend on the scene and the cell alone, so that sums, and their last bits, do not depend on blocks.
    """
    for window in tiles_in(Window(0, 0, *shape), cell * max(1, STEP // cell)):
        row, col = window.row // cell, window.col // cell
        rows, cols = cell_counts(window.shape, cell)
        yield window, (slice(row, row + rows), slice(col, col + cols))


def sum_cells(values: NDArray[Any], cell: int) -> Cells:
    """Sums over cells of ``(..., height, width)`` numbers, the first cell at the first pixel."""
    height, width = values.shape[-2:]
    by_row = np.add.reduceat(values, np.arange(0, height, cell), axis=-2, dtype=np.float64)
    return np.asarray(np.add.reduceat(by_row, np.arange(0, width, cell), axis=-1))


def mean_of(sums: Cells, counts: Cells) -> Cells:
    """Means of cells, NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / counts)
