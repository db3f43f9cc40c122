"""Reads a table of text cells from CSV, Excel or Parquet, remembering where each row stood."""

import codecs
import csv
import datetime
import io
import re
from itertools import takewhile, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cdpipe.errors import InputError
from cdpipe.formats import spreadsheet
from cdpipe.formats.missing_files import why_missing
from cdpipe.workspace.location import Location

FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]*$)")  # what spreadsheets compute, and so may run; numbers do no harm
LINE_END = re.compile(r"\r\n|\r|\n")
DELIMITERS = ",;\t|"
COMMENT = "#"
SURPLUS = ""  # the column under which cells beyond the last column are kept

Row = tuple[str, dict[str, str]]
Line = tuple[str, list[str]]


def read_table(path: Location, key: str | None = None) -> tuple[list[str], list[Row]]:
    """Read a table; every value comes as text, an empty one as "".

    Args:
        path: As for :func:`read_lines`.
        key: Likewise.

    Returns:
        Column names; and for each row its place ("line 3" of a CSV file, "row 2" of another) and its cells
        by column.

    Raises:
        InputError: If there is no such file or it cannot be read.
    """
    (_, columns), *lines = read_lines(path, key) or [("", [])]
    return columns, [(place, _by_column(columns, cells)) for place, cells in lines]


def read_lines(path: Location, key: str | None = None) -> list[Line]:
    """Read a table's lines, its header among them, without those that are empty.

    Args:
        path: A Parquet file (ending in .parquet or .pq), a workbook (.xlsx, .xls, .xlsm, .xlsb or .ods), of which the
            first sheet with any cells counts, or else CSV in UTF-8, or in UTF-16 that says so, that is separated by
            commas, semicolons, tabs or vertical bars.
        key: A column that the table has. Of a workbook the first sheet counts then that has it, from its row on; in
            CSV, lines that begin with # are comments.

    Returns:
        For each line its place and its cells as text. Places count as people see them: from the header in
        CSV and Excel, from the first row in Parquet.

    Raises:
        InputError: If there is no such file or it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a table in CSV, Excel or Parquet; there is no such file{why_missing(path)}")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path)
        if path.suffix.lower() in spreadsheet.SUFFIXES:
            rows = spreadsheet.read_sheet(path.read_bytes(), key)
            return [(f"row {number}", row) for number, row in enumerate(rows, 1) if any(row)]
        return _parse_csv(_decode(path), key)
    except (csv.Error, pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable table: {error}") from None


def read_head_comment(path: Location) -> str:
    """What the comments say that a CSV file begins with, in one line; nothing where it begins with none."""
    if path.suffix.lower() in (".parquet", ".pq", *spreadsheet.SUFFIXES):
        return ""
    head = takewhile(lambda line: line.startswith(COMMENT), LINE_END.split(_decode(path)))
    return " ".join(line.lstrip(f"{COMMENT} \t").rstrip() for line in head)


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
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of numbers with a gap holds floats
    return value.isoformat() if isinstance(value, datetime.date) else str(value).strip()


def _decode(path: Location) -> str:
    """The text of a file in UTF-8, or in the UTF-16 that spreadsheets save as "Unicode text"."""
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        # which of the many others it is, cannot be told: names would be read wrongly
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: expected text in UTF-8, got byte 0x{data[error.start]:02x} in line {line}; save it as CSV UTF-8, "
            "or convert it, as by iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def _parse_csv(text: str, key: str | None = None) -> list[Line]:
    lines = LINE_END.split(text) if key else LINE_END.split(text.lstrip("\r\n"), maxsplit=1)
    given = _clear_before_header(lines, key) if key else None
    header = next((line for line in lines if line.strip()), "")
    delimiter = given or max(DELIMITERS, key=header.count)  # spreadsheets write semicolons where commas mark decimals
    content = io.StringIO("\n".join(lines) if key else text, newline="")
    reader = csv.reader(content, delimiter=delimiter, strict=True)
    rows = ((f"line {reader.line_num}", [cell.strip() for cell in line]) for line in reader)
    return [(place, cells) for place, cells in rows if any(cells) and not (key and cells[0].startswith(COMMENT))]


def _clear_before_header(lines: list[str], key: str) -> str | None:
    """Empty comments and Excel's ``sep=;`` before the header, so that other lines keep their numbers; the separator.

    A header that stands in a comment, as NumPy writes it, is one.
    """
    delimiter = None
    for number, line in enumerate(lines):
        told = re.fullmatch(r"sep=(.)", line.strip('"').lower())
        if told:
            delimiter = told[1]
        elif line.startswith(COMMENT):
            content = line.lstrip(f"{COMMENT} \t")
            if re.split(f"[{DELIMITERS}]", content)[0].strip(' "').lower() == key and len(content) > len(key):
                lines[number] = content
                break
        elif line.strip():
            break
        lines[number] = ""
    return delimiter
