"""Run-length encoding of change masks, strip by strip out and window by window back.

The format is that of submissions, ``start length start length ...``: a mask is read column by column, from the top
of the first column (the order of the transposed mask, flattened); pixels are numbered from 1; every run of changed
pixels is its first pixel's number and its length; a mask without change is the empty string. A run may go on from
the foot of one column to the head of the next.

Here runs are an int64 array of shape (runs, 2) with the very numbers of the text.
"""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window

Runs = NDArray[np.int64]

_NUMBER = re.compile(r"[0-9]{1,18}")  # up to 18 digits fit into 64 bits


def encode_strips(strips: Iterable[NDArray[np.bool_]]) -> Runs:
    """Encode a mask that comes as strips of full height, from left to right; their widths change nothing.

    Args:
        strips: Each (height, some columns), True where changed.

    Raises:
        ValueError: If the strips differ in height.
    """
    found, begin, height = [np.empty((0, 2), np.int64)], 0, 0
    for strip in strips:
        height = height or strip.shape[0]
        if strip.shape[0] != height:
            raise ValueError(f"expected strips of {height} rows, got one of {strip.shape[0]}")
        found.append(_runs_of(strip.T.ravel(), begin))
        begin += strip.size
    return _merge(np.concatenate(found))


def _runs_of(pixels: NDArray[np.bool_], begin: int) -> Runs:
    """Runs of consecutive pixels, the first of which has ``begin`` before it."""
    edges = np.flatnonzero(np.diff(pixels, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    return np.stack([starts + (begin + 1), stops - starts], axis=1, dtype=np.int64)


def _merge(runs: Runs) -> Runs:
    """Make one of runs that follow each other without a gap, as at the borders of strips."""
    starts, stops = runs[:, 0], runs.sum(axis=1)
    apart = starts[1:] != stops[:-1]
    first, last = (np.ones(len(runs), np.bool_) for _ in range(2))
    first[1:], last[:-1] = apart, apart
    return np.stack([starts[first], stops[last] - starts[first]], axis=1)


def decode_window(runs: Runs, height: int, window: Window) -> NDArray[np.bool_]:
    """Decode the pixels of one window; what is needed grows with the window and the runs in its columns.

    Args:
        runs: Of the whole mask, ascending and apart from each other.
        height: Rows of the whole mask.
        window: Where to look.

    Returns:
        (height, width) of the window, True where changed.

    Raises:
        ValueError: If the window reaches below the mask.
    """
    if window.stop_row > height:
        raise ValueError(f"expected a window of a mask of {height} rows, got {window}")
    # the last run that starts before the window's columns may reach into them
    first, last = np.searchsorted(runs[:, 0], [window.col * height + 1, window.stop_col * height + 1])
    near = runs[max(first - 1, 0) : last]
    starts = near[:, 0] - 1
    # how many of the window's own pixels come before each edge of a run
    column, row = np.divmod(np.stack([starts, starts + near[:, 1]], axis=1).ravel(), height)
    inside = (column - window.col) * window.height + np.clip(row - window.row, 0, window.height)
    size = window.height * window.width
    edges = np.concatenate([[0], np.clip(inside, 0, size), [size]])
    changed = np.arange(len(edges) - 1) % 2 == 1
    return np.repeat(changed, np.diff(edges)).reshape(window.width, window.height).T


def format_runs(runs: Runs) -> str:
    """Runs as text."""
    return " ".join(map(str, runs.ravel().tolist()))


def parse_runs(text: str, shape: tuple[int, int] | None = None) -> Runs:
    """Read runs from text.

    Args:
        text: Numbers with blanks between them; nothing for a mask without change.
        shape: Rows and columns of the mask; None where they are not known, and runs may end anywhere.

    Raises:
        ValueError: Naming a run that is not two whole numbers from 1 on, begins before the end of the one before
            it, or ends beyond the mask.
    """
    words = text.split()
    for place, word in enumerate(words):
        if not _NUMBER.fullmatch(word):
            raise ValueError(f"run {place // 2 + 1}: expected a whole number of up to 18 digits, got {_short(word)}")
    if len(words) % 2:
        raise ValueError(f"run {len(words) // 2 + 1}: expected a start and a length, got {words[-1]} alone")
    runs = np.array(list(map(int, words)), np.int64).reshape(-1, 2)
    _refuse(runs.min(axis=1, initial=1) < 1, runs, "expected a start and a length of at least 1")
    stops = runs.sum(axis=1)
    late = np.append(np.int64(1), stops[:-1])[: len(runs)]
    _refuse(runs[:, 0] < late, runs, "expected ascending runs that do not overlap", "the one before goes further")
    if shape is not None:
        size = f"{shape[0]} x {shape[1]} pixels"
        _refuse(stops - 1 > shape[0] * shape[1], runs, f"expected runs within {size}", "it ends beyond them")
    return runs


def _refuse(wrong: NDArray[np.bool_], runs: Runs, expected: str, why: str = "") -> None:
    if wrong.any():
        place = int(np.argmax(wrong))
        start, length = runs[place].tolist()
        raise ValueError(f"run {place + 1}: {expected}, got {start} {length}" + (f": {why}" if why else ""))


def _short(word: str) -> str:
    return repr(word if len(word) <= 30 else f"{word[:30]}...")
