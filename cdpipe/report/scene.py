"""A stored pair as pictures are made of it: read a window after the other, shrunk into square cells."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.normalisation import RGB
from cdpipe.store.pair import DATES, StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

STEP = 1024  # side of the windows in which a scene is read, in pixels, at most

Read = Callable[[Window], NDArray[Any]]  # (..., height, width) pixels of a window
Reduce = Callable[[NDArray[Any], int], NDArray[Any]]  # (..., height, width) pixels to (..., rows, cols) cells of a side
Cells = NDArray[np.float64]  # (..., rows, cols)


def open_scene(workspace: Workspace, pair: StoredPair, change_key: str, label_key: str | None) -> dict[str, Read]:
    """How a pair's stored arrays are read, by name: ``before``, ``after``, ``valid``, ``change``, ``probability``.

    Args:
        workspace: Where the pair lies.
        pair: The pair; of its dates come the bands that are shown, see :func:`shown_bands`.
        change_key: Key of its change.
        label_key: Key of its label, which is ``label``; None without one.

    Raises:
        IntegrityError: If a description is damaged; so do the functions, if pixels are.
    """
    stored = workspace.group("pairs", pair.pair_id, pair.key)
    result = workspace.group("changes", pair.pair_id, change_key)
    read = {date: _reader(stored, date, shown_bands(pair.roles)) for date in DATES}
    read |= {"valid": _reader(stored, "valid"), **{name: _reader(result, name) for name in ("change", "probability")}}
    if label_key is not None:
        read["label"] = _reader(workspace.group("labels", pair.pair_id, label_key), "label")
    return read


def shown_bands(roles: tuple[str, ...]) -> list[int]:
    """Numbers of the bands that stand for red, green and blue; without them of the first, as grey."""
    return [roles.index(role) for role in RGB] if set(RGB) <= set(roles) else [0]


def _reader(group: Location, name: str, bands: list[int] | None = None) -> Read:
    array = open_array(group, name)
    return lambda window: read_window(array, window) if bands is None else read_window(array, window)[bands]


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
    # every k-th row to every k-th: many times faster than np.add.reduceat, and of the same bits
    by_row = values[..., ::cell, :].astype(np.float64)
    for row in range(1, cell):
        part = values[..., row::cell, :]
        by_row[..., : part.shape[-2], :] += part
    sums = by_row[..., ::cell].copy()
    for col in range(1, cell):
        part = by_row[..., col::cell]
        sums[..., : part.shape[-1]] += part
    return sums


def first_of_cells(values: NDArray[Any], cell: int) -> NDArray[Any]:
    """The upper left pixel of each cell of ``(..., height, width)`` pixels."""
    return values[..., ::cell, ::cell]


def mean_of(sums: Cells, counts: Cells) -> Cells:
    """Means of cells ``(..., rows, cols)``, NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / counts)


def shrink(
    read: Callable[[Window], Mapping[str, NDArray[Any]]],
    shape: tuple[int, int],
    cell: int,
    reduce: Reduce = sum_cells,
    threads: int = 1,
) -> dict[str, NDArray[Any]]:
    """Shrink rasters of a scene of any size, of which no more than a window for each thread is in memory at a time.

    Args:
        read: Gives ``(..., height, width)`` pixels of a window, by name.
        shape: Rows and columns of the scene.
        cell: Side of a cell in pixels.
        reduce: Makes cells of a window's pixels.
        threads: How many share the work.

    Returns:
        By name ``(..., rows, cols)``, as many as :func:`cell_counts` says.
    """

    def reduce_window(window: Window) -> dict[str, NDArray[Any]]:
        return {name: reduce(pixels, cell) for name, pixels in read(window).items()}

    shrunk: dict[str, NDArray[Any]] = {}
    windows = list(cell_windows(shape, cell))
    with ThreadPoolExecutor(threads, "cdpipe-cells") as pool:
        done = pool.map(reduce_window, (window for window, _ in windows))
        for (_, place), parts in zip(windows, done, strict=True):
            for name, part in parts.items():
                if name not in shrunk:
                    shrunk[name] = np.zeros((*part.shape[:-2], *cell_counts(shape, cell)), part.dtype)
                shrunk[name][..., *place] = part
    return shrunk


def decimate(read: Read, shape: tuple[int, int], max_side: int = 1024) -> NDArray[Any]:
    """Keep every k-th pixel of a scene of any size, so that neither side is longer than ``max_side``.

    Equals ``scene[..., ::k, ::k]`` of the whole scene.

    Args:
        read: Returns the ``(..., height, width)`` pixels of a window.
        shape: Rows and columns of the scene.
        max_side: Longest side of the result.
    """
    cell = cell_side(shape, max_side)
    return shrink(lambda window: {"scene": read(window)}, shape, cell, first_of_cells)["scene"]
