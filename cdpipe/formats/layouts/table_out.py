"""Writes the pairs that a search found as a catalog."""

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from cdpipe.formats.layouts.found import FoundPair
from cdpipe.formats.layouts.names import make_ids, natural_key
from cdpipe.formats.tables import FORMULA
from cdpipe.pairs.catalog import COLUMNS
from cdpipe.workspace.bucket import ObjectPath

PATHS = ("before", "after", "composite", "label")


def format_catalog(pairs: Iterable[FoundPair], folder: Path) -> str:
    """A catalog in CSV: pairs in the natural order of their names, and the columns that have a value somewhere.

    Args:
        pairs: Pairs of different names.
        folder: Where the table will lie; the pairs' paths become relative to it.
    """
    pairs = sorted(pairs, key=lambda pair: natural_key(pair.name))
    ids = make_ids(pair.name for pair in pairs)
    rows = [_as_row(pair, ids[pair.name], folder) for pair in pairs]
    columns = [column for column in COLUMNS if any(row.get(column) for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, in POSIX; absolute if only the root holds both, or one lies in object storage.

    Links to folders are followed first, since ``..`` leads out of where they point; links to files are not.
    """
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    if isinstance(path, ObjectPath) or isinstance(folder, ObjectPath):
        return str(path)
    if os.path.commonpath((path, folder)) == path.anchor:
        return path.as_posix()
    text = Path(os.path.relpath(path, folder)).as_posix()
    return f"./{text}" if text != text.strip() or FORMULA.match(text) else text


def _as_row(pair: FoundPair, pair_id: str, folder: Path) -> dict[str, str]:
    row = {column: getattr(pair, column, None) or "" for column in COLUMNS}
    row |= {column: relative(path, folder) if (path := getattr(pair, column)) else "" for column in PATHS}
    # a name that a spreadsheet would take for a formula is no text that a catalog may have
    known = pair.name == pair_id or FORMULA.match(pair.name.strip())
    return row | {"pair_id": pair_id, "name": "" if known else pair.name}
