"""Excel workbooks for tests."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xlsxwriter
import xlwt

Rows = Sequence[Sequence[Any]]


def write_xlsx(path: Path, rows: Rows) -> Path:
    """A workbook whose first sheet is empty."""
    with xlsxwriter.Workbook(path) as book:
        book.add_worksheet("empty")
        sheet = book.add_worksheet("Пары")
        style = book.add_format({"num_format": "yyyy-mm-dd"})
        for row, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                if isinstance(cell, datetime.date):
                    sheet.write_datetime(row, column, cell, style)
                elif cell is not None:
                    sheet.write(row, column, cell)
    return path


def write_xls(path: Path, rows: Rows) -> Path:
    """The same in the format before 2007."""
    book = xlwt.Workbook()
    book.add_sheet("empty")
    sheet = book.add_sheet("Пары")
    style = xlwt.easyxf(num_format_str="YYYY-MM-DD")
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            if isinstance(cell, datetime.date):
                sheet.write(row, column, cell, style)
            elif cell is not None:
                sheet.write(row, column, cell)
    book.save(str(path))
    return path
