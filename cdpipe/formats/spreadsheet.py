"""Reads the cells of a workbook (.xlsx, .xls, .xlsm, .xlsb, .ods) as text, in a process of its own.

Damaged workbooks can make the reader ask for more memory than there is, which ends its process at once. So this file
is run as a script, too.
"""

import datetime
import json
import resource
import subprocess
import sys
from collections.abc import Iterable

from python_calamine import CalamineError, CalamineWorkbook

SUFFIXES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
ROWS_ABOVE = 20  # of a sheet, in which a header is looked for: titles stand above some tables
MEMORY, SECONDS = 2**30, 30  # 100,000 rows of 9 cells take 4 s
UNREADABLE = 3  # exit code

Cell = int | float | str | bool | datetime.time | datetime.date | datetime.datetime | datetime.timedelta


def read_sheet(data: bytes, key: str | None = None) -> list[list[str]]:
    """Read the first sheet that has any cells, each row from the first column on.

    What the workbook is tells its content, not its name: old programs save either format under either.

    Args:
        data: The workbook.
        key: A column's name: a sheet that has it, in whatever letters, is read, without what stands above.

    Returns:
        Rows from the sheet's first, so that row n of the sheet is item n - 1; empty ones included.

    Raises:
        ValueError: If the file is not a workbook that can be read.
    """
    command = [sys.executable, "-P", __file__, *([key] if key else [])]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603 (this file)
    except subprocess.TimeoutExpired:
        raise ValueError("expected an Excel workbook, got one that takes for ever to read") from None
    if done.returncode == UNREADABLE:
        raise ValueError(f"expected an Excel workbook: {done.stdout.decode()}")
    if done.returncode:
        raise ValueError("expected an Excel workbook, got a damaged one")
    rows: list[list[str]] = json.loads(done.stdout)
    return rows


def _main() -> int:
    """From a workbook on standard input to JSON on standard output."""
    for limit, value in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    try:
        book = CalamineWorkbook.from_filelike(sys.stdin.buffer)
        sheets = (book.get_sheet_by_index(number) for number in range(len(book.sheet_names)))
        tables = (sheet.to_python(skip_empty_area=False) for sheet in sheets if sheet.height)
        rows = _choose_table(tables, sys.argv[1] if len(sys.argv) > 1 else None)
    except CalamineError as error:
        sys.stdout.write(" ".join(str(error).split()))
        return UNREADABLE
    json.dump([[_as_text(cell) for cell in row] for row in rows], sys.stdout)
    return 0


def _choose_table(tables: Iterable[list[list[Cell]]], key: str | None) -> list[list[Cell]]:
    """The first table, or the first that has the key in one of its first rows, without what stands above."""
    first: list[list[Cell]] | None = None
    for table in tables:
        first = table if first is None else first
        if key is None:
            break
        for number, row in enumerate(table[:ROWS_ABOVE]):
            if key in [str(cell).strip().lower() for cell in row]:
                return [[] for _ in range(number)] + table[number:]
    return first or []


def _as_text(value: Cell) -> str:
    """A cell as a table in text would have it: 7 for the number 7.0, 2018-09-22 for that day's midnight."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value).strip()


if __name__ == "__main__":
    sys.exit(_main())
