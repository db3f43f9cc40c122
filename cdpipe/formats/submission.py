"""Submissions: a CSV table ``Id,mask`` with a change mask of each pair as run-length text.

Runs are counted from 1 down the columns: ``start length start length ...``. Masks are encoded strip by strip and
decoded window by window, so that no scene need lie in memory.
"""

import contextlib
import csv
import io
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.formats.tables import SURPLUS, Row, read_table
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import Location

Runs = NDArray[np.int64]  # (runs, 2): first pixel, counted from 1 down the columns, and length

ID, MASK = COLUMNS = ("Id", "mask")
_NUMBER = re.compile(r"[0-9]{1,18}")  # up to 18 digits fit into 64 bits
_UNKNOWN = "no pair of the catalog has this name"


def encode_strips(strips: Iterable[NDArray[np.bool_]]) -> Runs:
    """Encode a mask that comes as strips of full height, from left to right; their widths change nothing.

    Args:
        strips: Each (height, some columns), True where changed.

    Returns:
        (runs, 2), ascending and apart from each other.

    Raises:
        ValueError: If the strips differ in height.
    """
    runs, begin, height = [np.empty((0, 2), np.int64)], 0, 0
    for strip in strips:
        height = height or strip.shape[0]
        if strip.shape[0] != height:
            raise ValueError(f"expected strips of {height} rows, got one of {strip.shape[0]}")
        runs.append(_runs_of(strip.T.ravel(), begin))
        begin += strip.size
    return _merge(np.concatenate(runs))


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

    Returns:
        (runs, 2).

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
    _refuse_runs(runs.min(axis=1, initial=1) < 1, runs, "expected a start and a length of at least 1")
    stops = runs.sum(axis=1)
    late = np.append(np.int64(1), stops[:-1])[: len(runs)]
    _refuse_runs(runs[:, 0] < late, runs, "expected ascending runs that do not overlap", "the one before goes further")
    if shape is not None:
        size = f"{shape[0]} x {shape[1]} pixels"
        _refuse_runs(stops - 1 > shape[0] * shape[1], runs, f"expected runs within {size}", "it ends beyond them")
    return runs


def _refuse_runs(wrong: NDArray[np.bool_], runs: Runs, expected: str, why: str = "") -> None:
    if wrong.any():
        place = int(np.argmax(wrong))
        start, length = runs[place].tolist()
        raise ValueError(f"run {place + 1}: {expected}, got {start} {length}" + (f": {why}" if why else ""))


def _short(word: str) -> str:
    return repr(word if len(word) <= 30 else f"{word[:30]}...")


def read_ids(path: Location) -> list[str]:
    """Ids of a submission in its order, such as of a sample to be filled in; its masks may say anything.

    Raises:
        InputError: Naming every mistake with its line.
    """
    rows, mistakes = _read_rows(path)
    _refuse(path, mistakes)
    return [cells[ID] for _, cells in rows]


def read_submission(path: Location, shapes: Mapping[str, tuple[int, int] | None]) -> dict[str, Runs]:
    """Masks of a submission by id, in its order.

    Args:
        path: CSV (or another table that :func:`cdpipe.formats.tables.read_table` understands), or .npz with a mask
            of (height, width) for each id, True or 1 where changed.
        shapes: Rows and columns of every pair by the ids that are known; None where the size is not known.

    Raises:
        InputError: Naming every mistake with its line and id.
    """
    if path.suffix == ".npz":
        return _read_arrays(path, shapes)
    rows, mistakes = _read_rows(path)
    masks = {}
    for place, cells in rows:
        name = cells[ID]
        try:
            if name in shapes:
                masks[name] = parse_runs(cells[MASK], shapes[name])
            else:
                mistakes.append(f"{place}, id {name}: {_UNKNOWN}")
        except ValueError as error:
            mistakes.append(f"{place}, id {name}: {error}")
    _refuse(path, mistakes)
    return masks


def _read_arrays(path: Location, shapes: Mapping[str, tuple[int, int] | None]) -> dict[str, Runs]:
    masks, mistakes = {}, []
    try:
        with np.load(path.local(), allow_pickle=False) as arrays:
            for name in arrays.files:
                mistake = _array_mistake(arrays[name], shapes[name]) if name in shapes else _UNKNOWN
                if mistake:
                    mistakes.append(f"id {name}: {mistake}")
                else:
                    masks[name] = encode_strips([arrays[name] != 0])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a readable .npz of masks: {error}") from None
    _refuse(path, mistakes)
    return masks


def _array_mistake(mask: NDArray[Any], shape: tuple[int, int] | None) -> str | None:
    if mask.ndim != 2 or (shape is not None and mask.shape != shape):
        return f"expected a mask of {shape or '(height, width)'} pixels, got {mask.shape}"
    if mask.dtype.kind not in "bui" or mask.max(initial=0) > 1 or mask.min(initial=0) < 0:
        return f"expected 0 and 1, got {mask.dtype}; of probabilities make masks by a threshold first"
    return None


def write_submission(path: Location, masks: Iterable[tuple[str, Runs]]) -> None:
    """Write ids with their masks, in the order given; the file appears at once and complete."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((name, format_runs(runs)) for name, runs in masks)
    path.write(text.getvalue().encode())


def _read_rows(path: Location) -> tuple[list[Row], list[str]]:
    """The rows that can be used, and what is wrong with the others."""
    with _long_cells():
        columns, rows = read_table(path)
    if sorted(columns) != sorted(COLUMNS):
        return [], [f"expected the columns {' and '.join(COLUMNS)}, got {', '.join(columns) or 'none'}"]
    mistakes, places, usable = [], dict[str, str](), []
    for place, cells in rows:
        name = cells.get(ID, "")
        earlier = places.setdefault(name, place)
        if SURPLUS in cells or MASK not in cells:
            mistakes.append(f"{place}, id {name or '?'}: expected {len(COLUMNS)} cells, an id and a mask")
        elif not name:
            mistakes.append(f"{place}: expected an id, got none")
        elif earlier != place:
            mistakes.append(f"{place}, id {name}: expected unique ids; {earlier} has it too")
        else:
            usable.append((place, cells))
    if not rows:
        mistakes.append("expected at least one row, got none")
    return usable, mistakes


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells be of any length: masks exceed the limit of 131,072 characters, which holds for all of Python."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _refuse(path: Location, mistakes: list[str]) -> None:
    if mistakes:
        raise InputError("\n".join([f"{path}: {len(mistakes)} mistake(s)", *(f"  {text}" for text in mistakes)]))
