"""Submissions: a CSV table ``Id,mask`` with a change mask of each pair as run-length text."""

import contextlib
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cdpipe.arrays.run_length import Runs, format_runs, parse_runs
from cdpipe.formats.table import SURPLUS, Row, read_table
from cdpipe.formats.workspace import write_atomically
from cdpipe.values.errors import InputError

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
        path: CSV (or another table that :func:`cdpipe.formats.table.read_table` understands).
        shapes: Rows and columns of every pair by the ids that are known; None where the size is not known.

    Raises:
        InputError: Naming every mistake with its line and id.
    """
    rows, mistakes = _read_rows(path)
    masks = {}
    for place, cells in rows:
        name = cells[ID]
        try:
            if name in shapes:
                masks[name] = parse_runs(cells[MASK], shapes[name])
            else:
                mistakes.append(f"{place}, id {name}: no pair of the catalog has this name")
        except ValueError as error:
            mistakes.append(f"{place}, id {name}: {error}")
    _refuse(path, mistakes)
    return masks


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
