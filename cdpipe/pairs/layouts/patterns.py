"""Any folders: patterns of paths for both dates and the label, with a shared {id}."""

import re
from pathlib import Path, PurePosixPath

from cdpipe.errors import ConfigError, InputError
from cdpipe.pairs.layouts.search import (
    FoundPairs,
    Images,
    Layout,
    Notes,
    Option,
    note_unlabelled,
    of_one_size,
    pair_up,
    told,
    unambiguous,
    walk,
)

ID = "{id}"


def find_patterns(folder: Path, before: str, after: str, label: str | None) -> FoundPairs:
    """Find pairs by patterns such as ``A/{id}.tif``, relative to a folder.

    ``{id}`` stands for one or more letters, anything but ``/``, and the same ones wherever it occurs; ``*`` for
    any number of them. Patterns without ``{id}`` name one pair, which gets the folder's name.

    Raises:
        ConfigError: If some of the patterns have an ``{id}`` and others have not.
        InputError: If nothing matches.
    """
    patterns = {"--before": before, "--after": after} | ({"--label": label} if label else {})
    if len({ID in pattern for pattern in patterns.values()}) > 1:
        given = ", ".join(f"{option} {pattern!r}" for option, pattern in patterns.items())
        raise ConfigError(f"expected {ID} in every pattern, or in none to name a single pair; got {given}")
    notes = Notes()
    images = {option: _match(folder, pattern, option, notes) for option, pattern in patterns.items()}
    for option in ("--before", "--after"):
        if not images[option].files:
            raise InputError(f"{folder}: no file matches {option} {patterns[option]!r}, relative to this folder")
    pairs = pair_up(images["--before"], images["--after"], images.get("--label", Images("--label")), notes)
    pairs = of_one_size(pairs, notes)
    if not pairs:
        raise InputError(f"{folder}: no {ID} of one date is also one of the other{told(notes)}")
    note_unlabelled(pairs, notes)
    return FoundPairs(tuple(pairs), notes)


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


def _search(folder: Path, _catalog: Path, *, before: str, after: str, label: str | None) -> FoundPairs:
    return find_patterns(folder, before, after, label)


LAYOUT = Layout(
    "patterns",
    "any folders, by patterns with a shared {id}",
    _search,
    (
        Option("before", "first date, relative to DIR, such as A/{id}.tif", required=True),
        Option("after", "second date", required=True),
        Option("label", "label, where there is one"),
    ),
)
