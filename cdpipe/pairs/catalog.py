"""Reads a catalog: the table of pairs, with all its mistakes at once."""

import contextlib
import dataclasses
import difflib
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cdpipe.config.place import WINDOWS
from cdpipe.config.schema import Config, Sensor
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.tables import FORMULA, SURPLUS
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.pairs.table import DATES, SPLITS, read_catalog_table
from cdpipe.workspace.location import Location, locate

VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\S+://\S+|\b\d{4}-\d{2}-\d{2}\b|\bline \d+|\brow \d+")
SAME = 3  # mistakes of rows in the same words, before they become one line


@dataclass(frozen=True, slots=True)
class Source:
    """The bands of one date.

    Attributes:
        path: The raster, absolute.
        sensor_name: The sensor's name in the configuration.
        sensor: What the bands mean.
        bands: 1-based band numbers as the sensor counts them, in the order of the pair's roles.
        half: For a composite, which half of its bands this date is (0 or 1); else None.
    """

    path: Location
    sensor_name: str
    sensor: Sensor
    bands: tuple[int, ...]
    half: Literal[0, 1] | None = None

    def band_numbers(self, count: int) -> tuple[int, ...]:
        """1-based band numbers in a file of ``count`` bands.

        Raises:
            InputError: If the file has too few bands, or a composite has an odd number of them.
        """
        if self.half is not None and count % 2:
            raise InputError(f"{self.path}: expected an even number of bands in a composite, got {count}")
        own = count if self.half is None else count // 2
        if max(self.bands) > own:
            per_date = "" if self.half is None else " for each date"
            raise InputError(
                f"{self.path}: sensor {self.sensor_name} needs band {max(self.bands)}, "
                f"the file has {own} band(s){per_date}"
            )
        return tuple(band + own * (self.half or 0) for band in self.bands)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two dates of one place, as a row of the catalog names them.

    Attributes:
        pair_id: Its identifier, good as a folder's name.
        name: What its owner calls it, in any script; the identifier where the catalog has no other.
        before: The first date, whose grid is the pair's grid.
        after: The second date.
        roles: Band roles that both sensors have, in the first sensor's order.
        label: Raster or vector file of what changed.
        split: "train", "val", "test" or None.
        group: Pairs of one group, such as neighbours, fall into the same fold; the pair alone where there is none.
        before_date: ISO 8601, as the catalog has it; so is ``after_date``.
        before_valid: Raster that says which pixels of the first date to use; so is ``after_valid``.
    """

    pair_id: str
    name: str
    before: Source
    after: Source
    roles: tuple[str, ...]
    label: Location | None = None
    split: str | None = None
    group: str | None = None
    before_date: str | None = None
    after_date: str | None = None
    before_valid: Location | None = None
    after_valid: Location | None = None

    @property
    def dates(self) -> tuple[tuple[Source, Location | None], tuple[Source, Location | None]]:
        """Both dates, each with the raster that says which of its pixels to use."""
        return (self.before, self.before_valid), (self.after, self.after_valid)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The pairs of a catalog.

    Attributes:
        pairs: A pair for each row without a mistake.
        remarks: What of the table was left out, or understood in a certain way.
        mistakes: All that is wrong with the table, in some lines; empty where nothing is.
    """

    pairs: list[Pair]
    remarks: tuple[str, ...]
    mistakes: str = ""


def read_catalog(config: Config) -> list[Pair]:
    """The pairs of :func:`load_catalog`."""
    return load_catalog(config).pairs


def load_catalog(config: Config) -> Catalog:
    """The catalog of :func:`scan_catalog`, without any mistake.

    Raises:
        InputError: If it cannot be read; or naming every mistake.
    """
    catalog = scan_catalog(config)
    if catalog.mistakes:
        raise InputError(catalog.mistakes)
    return catalog


def scan_catalog(config: Config) -> Catalog:
    """Read the configuration's catalog; only the table is read, none of the files that it names.

    Mistakes are told by line (CSV) or row (Excel, Parquet), pair, column and what was expected.

    Raises:
        InputError: If it cannot be read.
    """
    table = read_catalog_table(config.catalog)
    mistakes: list[tuple[str, str]] = []  # of rows: where, and what
    pairs = []
    places = dict[str, str]()
    for place, cells in table.rows:
        own = [f"{column}: {table.bad_dates[place, column]}" for column in DATES if (place, column) in table.bad_dates]
        pair = _read_pair(cells, table.columns, config, own)
        if "pair_id" in table.columns:
            earlier = places.setdefault(cells["pair_id"].casefold(), place)
            if earlier != place:
                own.append(f"pair_id: expected unique ids, also regardless of case; {earlier} has it too")
        shown = repr(cells.get("pair_id", ""))[1:-1][:64] or "?"  # in one line, whatever it is
        mistakes += [(f"{place}, pair {shown}", text) for text in own]
        if pair is not None and not own and "pair_id" in table.columns:
            pairs.append(pair)
    lines = [*table.mistakes, *_in_few_lines(mistakes)]
    if not lines and not pairs:
        lines = ["expected at least one pair, got none"]
    count = len(table.mistakes) + len(mistakes) or 1
    head = [f"{config.catalog}: {count} mistake(s)"] if lines else []
    return Catalog(pairs, table.remarks, "\n  ".join([*head, *lines]))


def _in_few_lines(mistakes: Sequence[tuple[str, str]]) -> list[str]:
    """Mistakes of rows; those that differ in what the cells hold alone become one line where they are many."""
    same: dict[str, list[tuple[str, str]]] = {}
    for place, text in mistakes:
        same.setdefault(VARIABLE.sub("", text), []).append((place, text))
    lines: dict[str, None] = {}
    for place, text in mistakes:
        alike = same[VARIABLE.sub("", text)]
        more = f" (and {len(alike) - 1} more rows likewise)" if len(alike) > SAME else ""
        first, shown = alike[0] if more else (place, text)
        lines.setdefault(f"{first}, {shown}{more}")
    return list(lines)


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else f"expected {', '.join(known)}"


def _read_pair(cells: Mapping[str, str], columns: Sequence[str], config: Config, mistakes: list[str]) -> Pair | None:
    """The pair of a row; mistakes are appended to ``mistakes``, None means that no pair can be made."""
    if cells.get(SURPLUS):
        mistakes.append(f"(beyond the last column): expected nothing, got {cells[SURPLUS]!r}")
    pair_id, split = cells.get("pair_id", ""), cells.get("split") or None
    if "pair_id" in columns and not ID_PATTERN.fullmatch(pair_id):
        mistakes.append(f"pair_id: expected {ID_PATTERN.pattern}, got {pair_id!r}")
    if FORMULA.match(cells.get("name", "")):
        mistakes.append(f"name: expected a text that no spreadsheet takes for a formula, got {cells['name']!r}")
    if split is not None and split not in SPLITS:
        mistakes.append(f"split: expected {', '.join(SPLITS)} or nothing, got {split!r}")
    base = config.catalog.parent
    optional = {
        "label": _read_path(cells, "label", base, mistakes),
        "before_valid": _read_path(cells, "before_valid", base, mistakes),
        "after_valid": _read_path(cells, "after_valid", base, mistakes),
    }
    sources = _read_sources(cells, columns, config, mistakes)
    if sources is None:
        return None
    before, after, roles = sources
    return Pair(
        pair_id,
        cells.get("name") or pair_id,
        before,
        after,
        roles,
        split=split,
        group=cells.get("group") or None,
        before_date=cells.get("before_date") or None,
        after_date=cells.get("after_date") or None,
        **optional,
    )


def _read_sources(
    cells: Mapping[str, str], columns: Sequence[str], config: Config, mistakes: list[str]
) -> tuple[Source, Source, tuple[str, ...]] | None:
    """Both dates' rasters and bands, and the roles that these have."""
    first, second = (_read_sensor(cells, date, config, mistakes) for date in ("before", "after"))
    if "composite" not in columns and not {"before", "after"} <= set(columns):
        return None  # which is told of the columns
    paths = _read_rasters(cells, config.catalog.parent, mistakes)
    if first is None or second is None or paths is None:
        return None
    roles = tuple(role for role in config.sensors[first].bands if role in config.sensors[second].bands)
    if not roles:
        mistakes.append(f"after_sensor: expected a band role that {first} has too, {second} has none of them")
        return None
    before, after = (
        Source(path, name, config.sensors[name], tuple(config.sensors[name].bands[role] for role in roles))
        for path, name in zip(paths, (first, second), strict=True)
    )
    if cells.get("composite"):
        return dataclasses.replace(before, half=0), dataclasses.replace(after, half=1), roles
    return before, after, roles


def _read_rasters(cells: Mapping[str, str], base: Location, mistakes: list[str]) -> tuple[Location, Location] | None:
    before, after, composite = (bool(cells.get(name)) for name in ("before", "after", "composite"))
    if before != after or before == composite:
        mistakes.append("before: expected a file here and one for after, or one for composite alone")
        return None
    names = ("composite", "composite") if composite else ("before", "after")
    first, second = (_read_path(cells, name, base, mistakes) for name in names)
    return (first, second) if first and second else None


def _read_path(cells: Mapping[str, str], column: str, base: Location, mistakes: list[str]) -> Location | None:
    text = cells.get(column)
    if not text:
        return None
    try:
        return find_file(text, base)
    except ConfigError as error:
        mistakes.append(f"{column}: {error}")
        return None


def find_file(text: str, base: Location) -> Location:
    """The file that a cell names.

    Args:
        text: A path, a ``file://`` address of this machine, or an address in object storage.
        base: Where a relative path starts.

    Raises:
        ConfigError: If it is none of these.
    """
    if text.startswith("/vsi") or "\0" in text:
        raise ConfigError(f"expected a file of this machine, or an address in object storage, got {text!r}")
    if text.lower().startswith("file:"):
        text = _path_of_address(text)
    if ("\\" in text or WINDOWS.match(text)) and (base.far or not (base.local() / text).exists()):
        todo = f"; here it is {text.replace(chr(92), '/')!r}"
        if WINDOWS.search(text):
            todo = "; name the file as this machine has it, best from the catalog's folder"
        raise ConfigError(
            f"expected a path of this machine, with / between folders, got one of Windows, {text!r}{todo}"
        )
    if text.startswith("~") and not base.far and not (base.local() / text).exists():
        with contextlib.suppress(RuntimeError):  # no such user: a file's name, then
            text = str(Path(text).expanduser())
    return locate(text, base)


def _path_of_address(text: str) -> str:
    """The path of a ``file://`` address (RFC 8089), escaped or not."""
    machine, slash, path = text[len("file:") :].removeprefix("//").partition("/")
    if not text.lower().startswith("file:/") or machine.lower() not in ("", "localhost") or not slash:
        raise ConfigError(f"expected a file of this machine, as file:///data/before.tif, got {text!r}")
    path = f"/{path}"
    if not Path(path).exists():
        path = urllib.parse.unquote(path)
    return path[1:] if WINDOWS.match(path[1:]) else path


def _read_sensor(cells: Mapping[str, str], date: str, config: Config, mistakes: list[str]) -> str | None:
    own, both = cells.get(f"{date}_sensor"), cells.get("sensor")
    column, name = (f"{date}_sensor", own) if own else ("sensor", both)
    if own and both:
        mistakes.append(f"{column}: expected either this or sensor, got {own!r} and {both!r}")
    elif not name and len(config.sensors) == 1:
        return next(iter(config.sensors))
    elif not name:
        mistakes.append(f"{date}_sensor: expected one of the configuration's sensors: {', '.join(config.sensors)}")
    elif name in config.sensors:
        return name
    elif own or date == "before":  # an unknown name for both dates is one mistake
        mistakes.append(f"{column}: the configuration has no sensor {name!r}; {_hint(name, config.sensors)}")
    return None
