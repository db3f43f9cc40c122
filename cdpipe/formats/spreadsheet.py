"""Reads the cells of an Excel workbook (.xlsx, .xls) as text."""

import datetime
import io
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook

SUFFIXES = (".xlsx", ".xls")

Cell = int | float | str | bool | datetime.time | datetime.date | datetime.datetime | datetime.timedelta


def read_sheet(path: Path) -> list[list[str]]:
    """Read the first sheet that has any cells, each row from the first column on.

    What the file is tells its content, not its name: old programs save either format under either.

    Returns:
        Rows from the sheet's first, so that row n of the sheet is item n - 1; empty ones included.

    Raises:
        ValueError: If the file is not a workbook that can be read.
        OSError: If it cannot be opened.
    """
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(path.read_bytes()))
        sheets = (book.get_sheet_by_index(number) for number in range(len(book.sheet_names)))
        filled = next((sheet for sheet in sheets if sheet.total_height), None)
        rows: list[list[Cell]] = filled.to_python(skip_empty_area=False) if filled else []
    except CalamineError as error:
        raise ValueError(f"expected an Excel workbook: {error}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what the reader, in Rust, does about some damaged files
            raise
        raise ValueError(f"expected an Excel workbook, got a damaged one: {error}") from None
    return [[_as_text(cell) for cell in row] for row in rows]


def _as_text(value: Cell) -> str:
    """A cell as a table in text would have it: 7 for the number 7.0, 2018-09-22 for that day's midnight."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value).strip()
