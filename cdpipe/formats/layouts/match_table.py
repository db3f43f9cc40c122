"""Reads which images show the same place from a table whose columns are not known beforehand."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cdpipe.errors import InputError
from cdpipe.formats.tables import Line, read_lines

LEAST_SHARE = 0.5  # of a column's cells that are image names, for a column of image names


def read_matches(
    table: Path, columns: Sequence[str] | None, known: set[str], key: Callable[[str], str]
) -> list[tuple[str, str]]:
    """Read two columns of image names.

    Args:
        table: A table as :func:`cdpipe.formats.tables.read_lines` reads it; it need not have a header.
        columns: The first date's column and the second's, as the header calls them, or by number from 1. By
            default the two whose cells are names of images.
        known: Keys of all images.
        key: What a name is compared by.

    Returns:
        Keys of both images of each row that has both, without repetitions.

    Raises:
        InputError: If the table cannot be read, or it can't be told which columns are meant.
    """
    lines = read_lines(table)
    if not lines:
        raise InputError(f"{table}: expected a table of image names, got an empty one")
    header = lines[0][1]
    first, second = _named(table, header, columns) if columns else _searched(table, lines, known, key)
    rows = [(key(_cell(cells, first)), key(_cell(cells, second))) for _, cells in lines]
    if not known.intersection(rows[0]):
        rows = rows[1:]  # else there is no header, and the first row is a pair too
    matches = list(dict.fromkeys((one, other) for one, other in rows if one and other and one != other))
    if not known.intersection(name for match in matches for name in match):
        names = f"{header[first] or first + 1} and {header[second] or second + 1}"
        raise InputError(f"{table}: no cell of the columns {names} is the name of an image")
    return matches


def _cell(cells: Sequence[str], column: int) -> str:
    return cells[column].replace("\\", "/").rpartition("/")[2] if column < len(cells) else ""


def _named(table: Path, header: Sequence[str], columns: Sequence[str]) -> tuple[int, int]:
    names = [name.strip().casefold() for name in header]
    found = []
    for column in columns:
        wanted = column.strip().casefold()
        if wanted in names:
            found.append(names.index(wanted))
        elif wanted.isdecimal() and 1 <= int(wanted) <= len(header):
            found.append(int(wanted) - 1)
        else:
            raise InputError(f"{table}: has no column {column!r}; it has {', '.join(map(repr, header))}")
    first, second = found
    return first, second


def _searched(table: Path, lines: Sequence[Line], known: set[str], key: Callable[[str], str]) -> tuple[int, int]:
    """The columns whose cells are names of images, if there are two of them."""
    width = max(len(cells) for _, cells in lines)
    shares = []
    for column in range(width):
        cells = list(filter(None, (_cell(cells, column) for _, cells in lines)))
        shares.append(sum(key(cell) in known for cell in cells) / len(cells) if cells else 0.0)
    found = [column for column, share in enumerate(shares) if share >= LEAST_SHARE]
    if len(found) != 2:
        header = lines[0][1]
        told = ", ".join(f"{name!r} ({share:.0%})" for name, share in zip(header, shares, strict=False))
        raise InputError(
            f"{table}: expected two columns whose cells are names of images, got {len(found)}; share of image names "
            f"in each: {told}. Say which they are with --columns BEFORE,AFTER"
        )
    return found[0], found[1]
