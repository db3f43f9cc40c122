"""Submissions: a CSV table ``Id,mask`` with a change mask of each pair as run-length text."""

import contextlib
import csv
import io
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.arrays.run_length import Runs, encode_strips, format_runs, parse_runs
from cdpipe.errors import InputError
from cdpipe.formats.table import SURPLUS, Row, read_table
from cdpipe.workspace.local import write_atomically

_UNKNOWN = "no pair of the catalog has this name"
ID, MASK = COLUMNS = ("Id", "mask")


def read_ids(path: Path) -> list[str]:
    """Ids of a submission in its order, such as of a sample to be filled in; its masks may say anything.

    Raises:
        InputError: Naming every mistake with its line.
    """
    rows, mistakes = _read_rows(path)
    _refuse(path, mistakes)
    return [cells[ID] for _, cells in rows]


def read_submission(path: Path, shapes: Mapping[str, tuple[int, int] | None]) -> dict[str, Runs]:
    """Masks of a submission by id, in its order.

    Args:
        path: CSV (or another table that :func:`cdpipe.formats.table.read_table` understands), or .npz with a mask
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


def _read_arrays(path: Path, shapes: Mapping[str, tuple[int, int] | None]) -> dict[str, Runs]:
    masks, mistakes = {}, []
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                found = _array_mistake(arrays[name], shapes[name]) if name in shapes else _UNKNOWN
                if found:
                    mistakes.append(f"id {name}: {found}")
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


def write_submission(path: Path, masks: Iterable[tuple[str, Runs]]) -> None:
    """Write ids with their masks, in the order given; the file appears at once and complete."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((name, format_runs(runs)) for name, runs in masks)
    write_atomically(path, text.getvalue().encode())


def _read_rows(path: Path) -> tuple[list[Row], list[str]]:
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


def _refuse(path: Path, mistakes: list[str]) -> None:
    if mistakes:
        raise InputError("\n".join([f"{path}: {len(mistakes)} mistake(s)", *(f"  {text}" for text in mistakes)]))
