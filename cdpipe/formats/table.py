"""Reads a table of text cells from CSV or Parquet, remembering where each row stood."""

import csv
import datetime
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cdpipe.values.errors import InputError

SURPLUS = ""  # the column under which cells beyond the last column are kept

Row = tuple[str, dict[str, str]]


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """Read a table; every value comes as text, an empty one as "".

    Args:
        path: A Parquet file (ending in .parquet or .pq), or else CSV in UTF-8 that is separated by
            commas, semicolons or tabs.

    Returns:
        Column names; and for each row its place ("line 3" of a CSV file, "row 2" of a Parquet file)
        and its cells by column.

    Raises:
        InputError: If there is no such file or it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a table in CSV or Parquet; there is no such file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path)
        return _parse_csv(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8: {error}") from None
    except (csv.Error, pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable table: {error}") from None


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    table = pq.ParquetFile(path).read()
    rows = [{name: _as_text(value) for name, value in row.items()} for row in table.to_pylist()]
    return table.column_names, [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime.date) else str(value).strip()


def _parse_csv(text: str) -> tuple[list[str], list[Row]]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets write semicolons where commas mark decimals
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [name.strip() for name in next(reader, [])]
    rows = []
    for line in reader:
        cells = [cell.strip() for cell in line]
        named = dict(zip(columns, cells, strict=False))
        surplus = " ".join(filter(None, cells[len(columns) :]))
        if surplus:
            named[SURPLUS] = surplus
        if any(cells):
            rows.append((f"line {reader.line_num}", named))
    return columns, rows
