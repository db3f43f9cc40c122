"""Features of a vector file in memory: outlines, the attributes that are asked for, and a private copy on disk."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.formats.ogr import ogr, ogr_errors
from cdpipe.geo.crs import known_crs
from cdpipe.workspace.location import Location

BATCH = 10_000  # features that are turned into Arrow at a time
SHOWN = 12  # names in a message

_CODE = (
    re.compile(r"(?:urn:(?:x-)?ogc:def:crs:)(\w+):[\w.]*:(\w+)", re.IGNORECASE),
    re.compile(r"https?://(?:www\.)?opengis\.net/def/crs/(\w+)/[\w.]+/(\w+)", re.IGNORECASE),
    re.compile(r"https?://(?:www\.)?opengis\.net/gml/srs/(epsg)\.xml#(\d+)", re.IGNORECASE),
    re.compile(r"(?:urn:(?:x-)?ogc:def:crs:)?([A-Za-z]\w*):(\w+)", re.IGNORECASE),
)
_OGC = {"CRS84": "EPSG:4326", "CRS83": "EPSG:4269", "CRS27": "EPSG:4267"}  # longitudes first, as GDAL has these, too
_ROW = "row of cdpipe"
_QUOTED = re.compile(r"'(?:[^']|'')*'")


@dataclass(slots=True)
class Features:
    """What a file holds, with ``columns`` of those attributes that are wanted.

    Attributes:
        crs: WKT, None where the file says none.
        names: Of all attributes.
        wkb: Outlines in two dimensions; no empty ones.
        columns: Values of the wanted attributes, as long as ``wkb``.
    """

    crs: str | None = None
    names: list[str] = field(default_factory=list)
    wkb: list[bytes] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, shape: Any, attributes: Mapping[str, Any], wanted: Callable[[str], bool]) -> None:
        """Add an outline with its attributes; an empty one is left out."""
        for name in attributes:
            if name not in self.columns and name not in self.names:
                self.names.append(name)
                if wanted(name):
                    self.columns[name] = [None] * len(self.wkb)
        if shape is None or shapely.is_empty(shape):
            return
        for name, values in self.columns.items():
            values.append(plain(attributes.get(name)))
        self.wkb.append(shapely.to_wkb(shapely.force_2d(shape)))


def unreadable(path: Location, why: str) -> InputError:
    """The error of a file whose outlines cannot be read."""
    return InputError(f"{path}: not readable as polygons: {why}")


def plain(value: Any) -> int | float | str | None:
    """An attribute as SQL has it: truth as 1 and 0, what has parts and what is no number as text."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, int | np.integer):
        return int(value) if -(2**63) <= int(value) < 2**63 else str(value)
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def crs_of_code(text: str) -> str | None:
    """WKT of what a file calls its coordinate reference system, by a code in any of the usual forms; None if unknown.

    EPSG:32633, urn:ogc:def:crs:EPSG::32633, http://www.opengis.net/def/crs/EPSG/0/32633, CRS84 and their like.
    """
    text = text.strip()
    if text.upper() in _OGC:
        return known_crs(_OGC[text.upper()])
    for pattern in _CODE:
        found = pattern.fullmatch(text)
        if found:
            authority, code = found[1].upper(), found[2]
            if authority in ("OGC", "CRS") and code.upper() in _OGC:
                return known_crs(_OGC[code.upper()])
            return known_crs(f"{authority}:{code}")
    return None


def northing_first(text: str) -> bool:
    """Whether coordinates come with northings or latitudes first: under the URNs and addresses of some EPSG codes."""
    if not text.strip().lower().startswith(("urn:", "http://www.opengis.net/def", "https://www.opengis.net/def")):
        return False
    if text.upper().rstrip().endswith(tuple(_OGC)):
        return False
    authority, code = next(found for pattern in _CODE if (found := pattern.fullmatch(text.strip()))).groups()
    return bool(pyproj.CRS.from_user_input(f"{authority.upper()}:{code}").axis_info[0].direction == "north")


def mentioned(*conditions: str | None) -> Callable[[str], bool]:
    """Whether a condition may speak of an attribute."""
    text = "\n".join(filter(None, conditions)).lower()
    return lambda name: name.lower().replace('"', '""') in text


def select(path: Location, features: Features, option: str, condition: str) -> NDArray[np.bool_]:
    """Which features meet a condition, (features,), as SQLite understands it.

    SQLite, since GDAL's drivers each have another SQL: some compare text by case, some do not.

    Args:
        path: What the file is called.
        features: With the columns that the condition mentions.
        option: The condition's name, for messages.
        condition: Such as ``status = 'changed'``.

    Raises:
        InputError: If it is not understood, or names another column.
    """
    names = list(features.columns)
    known = {name.lower() for name in names}
    for quoted in re.findall(r'"((?:[^"]|"")*)"', _QUOTED.sub("", condition)):
        if quoted.replace('""', '"').lower() not in known:  # SQLite would take it for text
            raise InputError(_misunderstood(path, features, option, f"no such column: {quoted}"))
    # NUMERIC: a number is one whether the file keeps it as such or, as KML and GML do, as text
    quotes = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" NUMERIC' for name in [_ROW, *names])
    base = sqlite3.connect(":memory:")
    try:
        base.execute(f"CREATE TABLE label ({quotes})")
        places = ", ".join("?" * (1 + len(names)))
        rows = zip(range(len(features.wkb)), *features.columns.values(), strict=True)
        base.executemany(f"INSERT INTO label VALUES ({places})", rows)  # noqa: S608 (question marks)
        base.set_authorizer(_only_reads)
        met = base.execute(f'SELECT "{_ROW}" FROM label WHERE (\n{condition}\n)').fetchall()  # noqa: S608 (the user's own)
    except (sqlite3.Error, ValueError) as error:
        raise InputError(_misunderstood(path, features, option, str(error))) from None
    finally:
        base.close()
    kept = np.zeros(len(features.wkb), np.bool_)
    kept[[row for (row,) in met]] = True
    return kept


def _only_reads(action: int, *_: Any) -> int:
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def _misunderstood(path: Location, features: Features, option: str, why: str) -> str:
    return f"{path}: {option}: {' '.join(why.split())}; its columns are {listed(features.names) or 'none'}"


def listed(names: Sequence[str]) -> str:
    """Some names, the first few of many."""
    return ", ".join(map(str, names[:SHOWN])) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")


def write_copy(wkb: NDArray[Any], crs: str | None, file: Path) -> None:
    """Write outlines, (features,) of WKB, as a FlatGeobuf, whose index finds those of a window."""
    schema = pa.schema([("geometry", pa.binary())])

    def batches() -> Iterable[pa.RecordBatch]:
        for start in range(0, len(wkb), BATCH):
            yield pa.record_batch([pa.array(wkb[start : start + BATCH], pa.binary())], schema)

    table = pa.RecordBatchReader.from_batches(schema, batches())
    kind = {"driver": "FlatGeobuf", "geometry_name": "geometry", "geometry_type": "Unknown"}
    try:
        ogr().raw.write_arrow(table, file, crs=crs or "EPSG:4326", **kind)
    except ogr_errors() as error:
        raise OSError(f"{file}: {error}") from None
