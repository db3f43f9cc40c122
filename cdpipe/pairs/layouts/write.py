"""Writes what a search found: a catalog of the pairs, and a configuration to start with."""

import contextlib
import csv
import hashlib
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cdpipe.config.label import Label, LabelValue
from cdpipe.config.quality import named_presets
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, describe_raster
from cdpipe.formats.tables import FORMULA
from cdpipe.formats.vector_gate import is_vector
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.pairs.label_rasters import MANY, label_values, open_label
from cdpipe.pairs.layouts.search import DRIVERS, FoundPair, FoundPairs, settings
from cdpipe.pairs.table import COLUMNS, FILES
from cdpipe.store.normalisation import RGB
from cdpipe.workspace.location import Location, here

LONGEST = 128  # letters of an identifier
HASH_DIGITS = (8, 16, 32, 64)  # eight tell millions of names apart; more are taken where they do not
LABELS = 20  # that are looked at for their values, and more if they show no change
DEFAULT_LABEL: Mapping[str, tuple[LabelValue, ...]] = {"changed": (1,), "unchanged": (0,)}
BLACK_AND_WHITE = Label(changed=("#ffffff",), unchanged=("#000000",))  # with it, tables of colours are looked up
MODELS = {"unetplusplus": {"encoder": "resnext50_32x4d"}, "siamese_seresnext50": {}}


def make_ids(names: Iterable[str]) -> dict[str, str]:
    """An identifier for each name.

    A name that is a valid identifier stays as it is. Any other loses its accents and what else has no
    place in an identifier, and gets a hash of the name as a suffix, so that it depends on nothing else in
    the folder. Identifiers must differ regardless of case, too: valid names that do not get the suffix.

    Returns:
        Valid identifiers by name, all different regardless of case.
    """
    ids = {name: name if ID_PATTERN.fullmatch(name) else _hashed(name, HASH_DIGITS[0]) for name in names}
    for digits in HASH_DIGITS:
        counts = Counter(identifier.casefold() for identifier in ids.values())
        ids |= {name: _hashed(name, digits) for name, same in ids.items() if counts[same.casefold()] > 1}
    return ids


def slug(name: str) -> str:
    """What of a name can stand in an identifier: no accents, one hyphen for all else; perhaps nothing."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts names as people do: regardless of case, and ``b2`` before ``b10``."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts)), name


def _hashed(name: str, digits: int) -> str:
    suffix = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    return f"{slug(name)[: LONGEST - 1 - digits] or 'pair'}-{suffix}"


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


def relative(path: Location, folder: Location) -> str:
    """A path as seen from a folder, in POSIX; absolute if only the root holds both, or one lies in object storage.

    Links to folders are followed first, since ``..`` leads out of where they point; links to files are not.
    """
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    if path.far or folder.far or os.path.commonpath((path.key, folder.key)) == "/":
        return str(path)
    text = os.path.relpath(path.key, folder.key)
    return f"./{text}" if text != text.strip() or FORMULA.match(text) else text


def _as_row(pair: FoundPair, pair_id: str, folder: Path) -> dict[str, str]:
    row = {column: getattr(pair, column, None) or "" for column in COLUMNS}
    row |= {column: relative(here(path), here(folder)) if (path := getattr(pair, column)) else "" for column in FILES}
    # a name that a spreadsheet would take for a formula is no text that a catalog may have
    known = pair.name == pair_id or FORMULA.match(pair.name.strip())
    return row | {"pair_id": pair_id, "name": "" if known else pair.name}


def format_config(found: FoundPairs, name: str, catalog: Path, config: Path) -> str:
    """A configuration in YAML for what was found; headers of a pair and some labels are read.

    Args:
        found: Pairs, and what their layout says of them.
        name: A name for the runs, in any script.
        catalog: The catalog of the pairs.
        config: Where the configuration will lie.

    Raises:
        InputError: If none of the pairs' rasters can be opened.
    """
    info = _first_raster(found)
    paths = [path for pair in found.pairs for path in (*pair.images, pair.label, *_valid(pair)) if path is not None]
    drivers = sorted({"GTiff"} | {DRIVERS.get(path.suffix.lower(), "GTiff") for path in paths if not is_vector(path)})
    sections: list[tuple[str, dict[str, Any]]] = [
        (
            "cdpipe configuration; relative paths are relative to this file.",
            {
                "name": slug(name)[:100] or "change",
                "catalog": relative(here(catalog), here(config.parent)),
                "workspace": "./work",
            },
        ),
        _with_quality(found, *_sensors(found, info)),
    ]
    opening: dict[str, Any] = {"drivers": drivers} if drivers != ["GTiff"] else {}
    if info.placing is not None:
        opening["sidecars"] = True
    elif not info.grid.placed:
        opening["pixel_coordinates"] = True
    if opening:
        comment = "Formats that may be opened; images without georeference lie pixel on pixel."
        sections.append((comment, {"input": opening}))
    sections += _label_section(found)
    if found.preset:
        sections.append(("What the original program did; keys of your own win.", {"preset": found.preset}))
    sections.append(("The original's two headline models.", {"train": {"models": MODELS}}))
    return "\n".join(f"# {comment}\n{_as_yaml(values)}" for comment, values in sections)


def _as_yaml(values: Mapping[str, Any]) -> str:
    """Lists and the innermost mappings on one line, all else on lines of its own."""
    return "".join(
        yaml.safe_dump(
            {key: value},
            sort_keys=False,
            default_flow_style=None if isinstance(value, Mapping) else False,
            allow_unicode=True,
            width=110,
        )
        for key, value in values.items()
    )


def _first_raster(found: FoundPairs) -> RasterInfo:
    errors = []
    for pair in found.pairs:
        try:
            return describe_raster(here(pair.images[0]), settings())
        except InputError as error:
            errors.append(str(error))
    raise InputError(f"no raster of the pairs can be opened: {errors[0]}")


def _sensors(found: FoundPairs, info: RasterInfo) -> tuple[str, dict[str, Any]]:
    if found.bands is not None:
        return "What the bands are.", {"sensors": {found.sensor: {"bands": dict(found.bands)}}}
    if found.sensors:
        sensors = {name: {"bands": dict(bands)} for name, bands in found.sensors.items()}
        return "What the bands are, as the files say; correct what they have wrong.", {"sensors": sensors}
    count = info.count // (1 if found.pairs[0].composite is None else 2)
    comment = f"What the {count} band(s) are: a guess to correct, as red: 3."
    bands = {role: number if count >= len(RGB) else 1 for number, role in enumerate(RGB, 1)}
    return comment, {"sensors": {found.sensor: {"bands": bands}}}


def _with_quality(found: FoundPairs, comment: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The section of the sensors with what the names of all quality rasters say that they are."""
    presets = {named_presets(path.name) for pair in found.pairs for path in _valid(pair) if path is not None}
    known = presets.pop() if len(presets) == 1 else None
    if known is None or len(known) != 1:
        return comment, values
    sensors = {name: {**sensor, "quality": known[0]} for name, sensor in values["sensors"].items()}
    return f"{comment} The quality rasters' names say {known[0]}.", {"sensors": sensors}


def _valid(pair: FoundPair) -> tuple[Path | None, Path | None]:
    return pair.before_valid, pair.after_valid


def _label_section(found: FoundPairs) -> list[tuple[str, dict[str, Any]]]:
    masks = [pair.label for pair in found.pairs if pair.label is not None and not is_vector(pair.label)]
    if not masks:
        return []
    meaning = found.label or guess_meaning(masks)
    coloured = any(isinstance(value, str) for values in meaning.values() for value in values)
    comment = "What the values of the label rasters mean."
    if coloured:
        comment = "What the colours of the label rasters mean: a guess to correct, all but the background changed."
    return [(comment, {"label": {name: list(values) for name, values in meaning.items()}})]


def _values(path: Path) -> set[LabelValue | float]:
    """Values and colours of a mask; its table's colours where black is not the first of them, and so no index of 0."""
    mask = here(path)
    with open_label(mask, settings(), BLACK_AND_WHITE) as raster:
        turned = raster.table is not None and raster.table[0][0] != 0
    if turned:
        colours = {_as_colour(value) for value in label_values(mask, settings(), BLACK_AND_WHITE)}
        if "#000000" in colours:
            return colours
    return set(label_values(mask, settings(), Label()))


def _as_colour(value: LabelValue | float) -> LabelValue | float:
    """A grey as a colour; colours as they are."""
    return value if isinstance(value, str) else f"#{int(value) * 0x010101:06x}"


def guess_meaning(masks: Iterable[Path]) -> Mapping[str, tuple[LabelValue, ...]]:
    """What the values of masks mean, as far as some of them show: 0 unchanged, 255 nodata beside others.

    Of colours, black is unchanged, or else white; all others changed.
    """
    values, blurred = set[LabelValue | float](), False
    for number, path in enumerate(masks):
        if number >= LABELS and values - {0}:
            break
        with contextlib.suppress(InputError):  # for the check to tell
            values |= _values(path)
        blurred |= DRIVERS.get(path.suffix.lower()) == "JPEG"
    numbers = {value for value in values if not isinstance(value, str)}
    if len(numbers) < len(values):
        return _guess_colours(values)
    if (blurred or len(numbers) > MANY) and max(numbers, default=0) > 1:
        return {"changed": tuple(range(128, 256)), "unchanged": tuple(range(128))}
    known = sorted(int(value) for value in numbers if float(value).is_integer())
    if known in ([1, 2], [2]):
        return {"changed": (2,), "unchanged": (1,)}
    others = [value for value in known if value != 0]
    ignored = [255] if 255 in others and len(others) > 1 else []
    changed = [value for value in others if value not in ignored]
    if not changed:
        return DEFAULT_LABEL
    meaning = {"changed": tuple(changed), "unchanged": (0,)}
    return meaning | ({"ignore": tuple(ignored)} if ignored else {})


def _guess_colours(values: set[LabelValue | float]) -> Mapping[str, tuple[LabelValue, ...]]:
    background = next((value for value in ("#000000", 0, "#ffffff", 255) if value in values), None)
    changed = [value for value in values - {background} if isinstance(value, int | str)]
    if len(values) > MANY or background is None or not changed:  # blurred, or an image: the check tells
        return DEFAULT_LABEL
    ordered = sorted(changed, key=lambda value: (isinstance(value, str), value))
    return {"changed": tuple(ordered), "unchanged": (background,)}
