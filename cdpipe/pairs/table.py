"""The catalog's table as it is meant: its columns whatever their letters, its empty cells, its dates."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cdpipe.formats.dates import day_orders, iso_date
from cdpipe.formats.tables import SURPLUS, Row, read_lines
from cdpipe.workspace.location import Location

KEY = "pair_id"
RASTERS = ("before", "after", "composite")
DATES = ("before_date", "after_date")
FILES = (*RASTERS, "label", "before_valid", "after_valid")  # columns of paths
COLUMNS = (
    *(KEY, "name", *RASTERS, "label", "split", "group"),
    *(*DATES, "before_sensor", "after_sensor", "sensor", "before_valid", "after_valid"),
)
# What people call the columns that a catalog needs, for the message where these are missing.
OTHER_NAMES = {
    **dict.fromkeys(("id", "pair", "pairid", "pair_name", "tile", "tile_id", "scene", "scene_id"), KEY),
    **dict.fromkeys(("pre", "t1", "a", "image1", "image_1", "img1", "image_a", "date1", "image_before"), "before"),
    **dict.fromkeys(("post", "t2", "b", "image2", "image_2", "img2", "image_b", "date2", "image_after"), "after"),
}
# And those of columns that it may lack.
LEFT_OUT = {
    **dict.fromkeys(("mask", "gt", "ground_truth", "truth", "reference", "annotation", "target", "change"), "label"),
    **dict.fromkeys(("set", "subset", "partition"), "split"),
}
NOTHING = ("nan", "nat", "none", "null", "<na>")  # what programs write for an empty cell
NOTHING_ELSE = (*NOTHING, "n/a", "#n/a", "na", "-")  # where it cannot be a name
FILE_WORDS = ("path", "file", "filename", "image", "img", "raster", "tif", "uri", "url", "mask")
LONG_WORD = 9  # letters
SPLITS = ("train", "val", "test")
LINE_BREAKS = re.compile(r"\s*[\x00-\x1f\x7f\x85]\s*")  # and tabs, which no line of a message can hold
WHOLE_FLOAT = re.compile(r"\d+\.0")


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A catalog's cells.

    Attributes:
        columns: Known columns that it has.
        rows: The place of each row and its cells by column; "" where there is nothing.
        mistakes: What is wrong with the columns.
        remarks: What was left out or understood in a certain way.
        bad_dates: Why a date cannot be read, by place and column.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    mistakes: tuple[str, ...]
    remarks: tuple[str, ...]
    bad_dates: dict[tuple[str, str], str]


def read_catalog_table(path: Location) -> CatalogTable:
    """Read a catalog's cells.

    Raises:
        InputError: If there is no such table or it cannot be read.
    """
    (_, given), *lines = read_lines(path, KEY) or [("", [])]
    names = [_plain(name) for name in given]
    width = max((number for number, name in enumerate(names, 1) if name), default=0)
    mistakes, remarks = _judge_columns(names[:width], given)
    rows = []
    for place, cells in lines:
        row = {name: _meant(name, cell) for name, cell in zip(names, cells, strict=False) if name in COLUMNS}
        surplus = " ".join(cell for cell in cells[width:] if cell)
        rows.append((place, row | ({SURPLUS: surplus} if surplus else {})))
    if rows and all(WHOLE_FLOAT.fullmatch(row.get(KEY, "")) for _, row in rows):
        remarks.append(f"column {KEY}: ids such as {rows[0][1][KEY]} look like numbers from a program; they stay so")
    bad_dates = _read_dates(rows, remarks)
    columns = tuple(name for name in names if name in COLUMNS)
    return CatalogTable(columns, tuple(rows), tuple(mistakes), tuple(remarks), bad_dates)


def _plain(name: str) -> str:
    """A column's name as the catalog's are written; any other as it is."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    return plain if plain in COLUMNS else name


def _meant(column: str, cell: str) -> str:
    if column == KEY:
        return cell
    if cell.lower() in (NOTHING if column in ("name", "group") else NOTHING_ELSE):
        return ""
    if column == "split":
        return cell.lower() if cell.lower() in SPLITS else cell
    return LINE_BREAKS.sub(" ", cell) if column == "name" else cell


def _judge_columns(names: Sequence[str], given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is wrong with the columns, and what of them is left out."""
    mistakes = [f"column {name}: there twice" for name, n in Counter(names).items() if n > 1 and name in COLUMNS]
    unknown = [name for name in dict.fromkeys(names) if name and name not in COLUMNS]
    left_out, remarks = [], [f"column {n}: has no name, and is left out" for n, name in enumerate(names, 1) if not name]
    for name in unknown:
        meant = _misspelt(name, names)
        if meant:
            mistakes.append(f"column {name}: unknown; did you mean {meant}?")
        else:
            left_out.append(name)
    if left_out:
        shown = f"column{'s' if len(left_out) > 1 else ''} {', '.join(left_out)}: not known, and left out"
        missing = dict.fromkeys(LEFT_OUT[name.lower()] for name in left_out if name.lower() in LEFT_OUT)
        hints = [f"; a {column} would stand in a column {column}" for column in missing if column not in names]
        remarks.append("".join([shown, *hints]))
    if KEY not in names:
        joined = len(given) == 1 and KEY in given[0].lower()
        todo = "; expected commas, semicolons, tabs or | between columns" if joined else ""
        mistakes.append(f"column {KEY}: missing; this column is required{todo}")
    if "composite" not in names and not {"before", "after"} <= set(names):
        mistakes.append("expected the columns before and after, or composite")
    return mistakes, remarks


def _misspelt(name: str, names: Sequence[str]) -> str | None:
    """The column that an unknown name stands for, if that is missing."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    missing = [column for column in COLUMNS if column not in names]
    if "composite" in names:
        missing = [column for column in missing if column not in RASTERS]
    if OTHER_NAMES.get(plain) in missing:
        return OTHER_NAMES[plain]
    for column in missing:
        if column in (*RASTERS, "label") and plain.startswith(f"{column}_") and plain.split("_")[-1] in FILE_WORDS:
            return column
    return next((column for column in missing if _is_near(plain, column)), None)


def _is_near(one: str, other: str) -> bool:
    """Whether two words differ by a letter, missing, more, another or exchanged with the next; or two in long ones."""
    if abs(len(one) - len(other)) > 2:
        return False
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1] <= (1 if len(other) < LONG_WORD else 2)


def _read_dates(rows: Sequence[Row], remarks: list[str]) -> dict[tuple[str, str], str]:
    """Put the dates of rows into ISO 8601; why some cannot be read, by place and column."""
    orders = day_orders(row[column] for _, row in rows for column in DATES if row.get(column))
    bad, told = {}, False
    for place, row in rows:
        for column in DATES:
            text = row.get(column)
            if not text:
                continue
            try:
                row[column] = iso_date(text, orders)
            except ValueError as error:
                bad[place, column] = str(error)
                continue
            if row[column] != text and not told:
                remarks.append(f"column {column}: dates such as {text} are read as {row[column]}")
                told = True
    return bad
