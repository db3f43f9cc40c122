"""Excel workbooks, new and old, are tables like any other."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
import xlsxwriter
from rasters import make_config
from workbooks import Rows, write_xls, write_xlsx

from cdpipe.errors import InputError
from cdpipe.formats.spreadsheet import read_sheet
from cdpipe.formats.tables import read_lines, read_table
from cdpipe.pairs.catalog import read_catalog
from cdpipe.workspace.location import here

Write = Callable[[Path, Rows], Path]
both = pytest.mark.parametrize(("write", "suffix"), [(write_xlsx, ".xlsx"), (write_xls, ".xls")])


@both
def test_cells_are_what_people_see(write: Write, suffix: str, tmp_path: Path) -> None:
    cells = ["Кама 1", 7, 2.5, datetime.date(2018, 9, 22), datetime.datetime(2018, 9, 22, 10, 30)]  # noqa: DTZ001
    path = write(tmp_path / f"t{suffix}", [[None, None], cells, [None, " padded "]])
    assert read_sheet(path.read_bytes())[1] == ["Кама 1", "7", "2.5", "2018-09-22", "2018-09-22T10:30:00"]
    assert read_lines(here(path)) == [
        ("row 2", ["Кама 1", "7", "2.5", "2018-09-22", "2018-09-22T10:30:00"]),
        ("row 3", ["", "padded", "", "", ""]),
    ]


@both
def test_a_catalog_in_excel_says_the_same_as_in_csv(write: Write, suffix: str, tmp_path: Path) -> None:
    header = ["pair_id", "name", "before", "after", "split", "before_date"]
    rows: Rows = [[7, "Кама", "a.tif", "b.tif", "val", datetime.date(2018, 9, 22)], ["b", None, "c.tif", "d.tif"]]
    write(tmp_path / f"pairs{suffix}", [header, *rows])
    text = f"{','.join(header)}\n7,Кама,a.tif,b.tif,val,2018-09-22\nb,,c.tif,d.tif,,\n"
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    assert read_catalog(make_config(tmp_path, catalog=f"pairs{suffix}")) == read_catalog(make_config(tmp_path))


@both
def test_mistakes_name_the_row_as_the_spreadsheet_counts(write: Write, suffix: str, tmp_path: Path) -> None:
    rows: Rows = [["pair_id", "before", "after"], [], ["a", "a.tif", "b.tif"], ["a b", "a.tif", "b.tif", "beside"]]
    write(tmp_path / f"pairs{suffix}", rows)
    with pytest.raises(InputError) as caught:
        read_catalog(make_config(tmp_path, catalog=f"pairs{suffix}"))
    assert "row 4, pair a b, pair_id: expected" in str(caught.value)
    assert "row 4, pair a b, (beyond the last column): expected nothing, got 'beside'" in str(caught.value)
    assert "row 3" not in str(caught.value)


def test_the_sheet_that_has_the_catalog_is_read_from_its_header_on(tmp_path: Path) -> None:
    """Others come first, and a title stands above it."""
    path = tmp_path / "pairs.xlsx"
    with xlsxwriter.Workbook(path) as book:
        for name, rows in (
            ("read me", [["These are", "my pairs"]]),
            (
                "pairs",
                [
                    ["Pairs of 2018"],
                    [],
                    ["Pair_ID", "before", "after"],
                    ["p", "b.tif", "a.tif"],
                    ["q r", "b.tif", "a.tif"],
                ],
            ),
        ):
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
    with pytest.raises(InputError, match="row 5, pair q r, pair_id: expected"):
        read_catalog(make_config(tmp_path, catalog="pairs.xlsx"))
    assert read_lines(here(path))[0] == ("row 1", ["These are", "my pairs"])


@both
def test_a_workbook_is_known_by_its_content(write: Write, suffix: str, tmp_path: Path) -> None:
    other = {".xlsx": ".xls", ".xls": ".xlsx"}[suffix]
    path = write(tmp_path / f"t{suffix}", [["a"], ["1"]]).rename(tmp_path / f"t{other}")
    assert read_table(here(path)) == (["a"], [("row 2", {"a": "1"})])


@both
def test_a_damaged_workbook_is_refused(write: Write, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"t{suffix}", [["pair_id", "before"]] * 20)
    for data in (b"", b"no workbook", path.read_bytes()[:2000], path.read_bytes()[:600]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"t\{suffix}: not a readable table: expected an Excel workbook"):
            read_table(here(path))


@both
def test_an_empty_workbook_is_an_empty_table(write: Write, suffix: str, tmp_path: Path) -> None:
    assert read_table(here(write(tmp_path / f"t{suffix}", []))) == ([], [])


def test_a_workbook_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    """Its reader asks for 514 GB of memory, which no handler catches."""
    rows = [["pair_id", "before", "after"], *([f"p{i}", f"{i}/before.tif", f"{i}/after.tif"] for i in range(40))]
    path = write_xls(tmp_path / "t.xls", rows)
    data = bytearray(path.read_bytes())
    data[3353] = 0x7F
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected an Excel workbook, got a damaged one"):
        read_table(here(path))
