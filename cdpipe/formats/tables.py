"""Reads a table of text cells from CSV, Excel or Parquet, remembering where each row stood."""

import csv
import datetime
import io
import re
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cdpipe.errors import InputError
from cdpipe.formats import spreadsheet
from cdpipe.workspace.location import Location

FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]*$)")  # what spreadsheets compute, and so may run; numbers do no harm
SURPLUS = ""  # the column under which cells beyond the last column are kept

Row = tuple[str, dict[str, str]]
Line = tuple[str, list[str]]


def read_table(path: Location) -> tuple[list[str], list[Row]]:
    """Read a table; every value comes as text, an empty one as "".

    Args:
        path: As for :func:`read_lines`.

    Returns:
        Column names; and for each row its place ("line 3" of a CSV file, "row 2" of another) and its cells
        by column.

    Raises:
        InputError: If there is no such file or it cannot be read.
    """
    (_, columns), *lines = read_lines(path) or [("", [])]
    return columns, [(place, _by_column(columns, cells)) for place, cells in lines]


def read_lines(path: Location) -> list[Line]:
    """Read a table's lines, its header among them, without those that are empty.

    Args:
        path: A Parquet file (ending in .parquet or .pq), an Excel workbook (.xlsx or .xls), of which the first
            sheet with any cells counts, or else CSV in UTF-8 that is separated by commas, semicolons or tabs.

    Returns:
        For each line its place and its cells as text. Places count as people see them: from the header in
        CSV and Excel, from the first row in Parquet.

    Raises:
        InputError: If there is no such file or it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a table in CSV, Excel or Parquet; there is no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path)
        if path.suffix.lower() in spreadsheet.SUFFIXES:
            rows = spreadsheet.read_sheet(path.read_bytes())
            return [(f"row {number}", row) for number, row in enumerate(rows, 1) if any(row)]
        return _parse_csv(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8: {error}") from None
    except (csv.Error, pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable table: {error}") from None


def plain_cell(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def _by_column(columns: list[str], cells: list[str]) -> dict[str, str]:
    named = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
    surplus = " ".join(cell for column, cell in zip_longest(columns, cells, fillvalue="") if cell and not column)
    if surplus:
        named[SURPLUS] = surplus
    return named


def _read_parquet(path: Location) -> list[Line]:
    with path.open() as file:
        table = pq.ParquetFile(file).read()
    columns = [column.to_pylist() for column in table.columns]
    rows = [[_as_text(value) for value in row] for row in zip(*columns, strict=True)]
    return [("header", table.column_names), *((f"row {number}", row) for number, row in enumerate(rows, 1))]


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime.date) else str(value).strip()


def _parse_csv(text: str) -> list[Line]:
    header = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets write semicolons where commas mark decimals
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = ((f"line {reader.line_num}", [cell.strip() for cell in line]) for line in reader)
    return [(place, cells) for place, cells in lines if any(cells)]
