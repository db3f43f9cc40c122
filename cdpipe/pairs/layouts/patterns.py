"""Any folders: patterns of paths for both dates, the label and quality rasters, with a shared {id}."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cdpipe.errors import ConfigError, InputError
from cdpipe.pairs.layouts.search import (
    FoundPair,
    FoundPairs,
    Images,
    Layout,
    Notes,
    Option,
    note,
    note_unlabelled,
    of_one_size,
    pair_up,
    told,
    unambiguous,
    walk,
)

ID = "{id}"
VALID = ("--before-valid", "--after-valid")


def find_patterns(
    folder: Path,
    before: str,
    after: str,
    label: str | None = None,
    before_valid: str | None = None,
    after_valid: str | None = None,
) -> FoundPairs:
    """Find pairs by patterns such as ``A/{id}.tif``, relative to a folder.

    ``{id}`` stands for one or more letters, anything but ``/``, and the same ones wherever it occurs; ``*`` for
    any number of them. Patterns without ``{id}`` name one pair, which gets the folder's name.

    Raises:
        ConfigError: If some of the patterns have an ``{id}`` and others have not.
        InputError: If nothing matches.
    """
    optional = {"--label": label, "--before-valid": before_valid, "--after-valid": after_valid}
    patterns = {"--before": before, "--after": after} | {key: text for key, text in optional.items() if text}
    if len({ID in pattern for pattern in patterns.values()}) > 1:
        given = ", ".join(f"{option} {pattern!r}" for option, pattern in patterns.items())
        raise ConfigError(f"expected {ID} in every pattern, or in none to name a single pair; got {given}")
    notes = Notes()
    images = {option: _match(folder, pattern, option, notes) for option, pattern in patterns.items()}
    # the pattern of a date often fits its quality rasters, too
    masks = {path for option in VALID if option in images for path in images[option].files.values()}
    for option in ("--before", "--after"):
        own = {name: path for name, path in images[option].files.items() if path not in masks}
        images[option] = Images(option, own)
        if not images[option].files:
            raise InputError(f"{folder}: no file matches {option} {patterns[option]!r}, relative to this folder")
    pairs = pair_up(images["--before"], images["--after"], images.get("--label", Images("--label")), notes)
    pairs = of_one_size(pairs, notes)
    pairs = _with_valid(pairs, images, notes)
    if not pairs:
        raise InputError(f"{folder}: no {ID} of one date is also one of the other{told(notes)}")
    note_unlabelled(pairs, notes)
    return FoundPairs(tuple(pairs), notes)


def _with_valid(pairs: list[FoundPair], images: Mapping[str, Images], notes: Notes) -> list[FoundPair]:
    """The pairs with the quality rasters of their names."""
    before, after = (images.get(option, Images(option)).files for option in VALID)
    for option in VALID:
        if option in images:
            alone = [pair.name for pair in pairs if pair.name not in images[option].files]
            note(notes, f"without a quality raster ({option})", *alone)
    return [replace(pair, before_valid=before.get(pair.name), after_valid=after.get(pair.name)) for pair in pairs]


def _match(folder: Path, pattern: str, option: str, notes: Notes) -> Images:
    """The files that a pattern means, by their ``{id}``."""
    parts = PurePosixPath(pattern).parts
    fixed = next((n for n, part in enumerate(parts[:-1]) if ID in part or "*" in part), len(parts) - 1)
    base = folder.joinpath(*parts[:fixed])
    expression = re.compile(_as_expression("/".join(parts[fixed:])))
    files: dict[str, list[Path]] = {}
    for here, _, names in walk(base, len(parts) - fixed - 1) if base.is_dir() else ():
        for name in names:
            match = expression.fullmatch((here / name).relative_to(base).as_posix())
            if match:
                files.setdefault(match.groupdict().get("id", folder.resolve().name), []).append(here / name)
    return Images(option, unambiguous(files, option, notes))


def _as_expression(pattern: str) -> str:
    pieces = re.split(r"(\{id\}|\*)", pattern)
    first = pieces.index(ID) if ID in pieces else -1
    known = {ID: "(?P=id)", "*": "[^/]*"}
    return "".join(
        "(?P<id>[^/]+)" if number == first else known.get(piece, re.escape(piece))
        for number, piece in enumerate(pieces)
    )


def _search(folder: Path, _catalog: Path, **patterns: str) -> FoundPairs:
    return find_patterns(folder, **patterns)


LAYOUT = Layout(
    "patterns",
    "any folders, by patterns with a shared {id}",
    _search,
    (
        Option("before", "first date, relative to DIR, such as A/{id}.tif", required=True),
        Option("after", "second date", required=True),
        Option("label", "label, where there is one"),
        Option("before_valid", "cloud or quality raster of the first date, such as A/{id}_SCL.tif"),
        Option("after_valid", "cloud or quality raster of the second date"),
    ),
)
