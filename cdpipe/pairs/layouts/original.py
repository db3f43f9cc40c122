"""The tree of the original program: Images, Images_composit/.../8_ch, mask, a matching table, sample_submission.csv."""

import contextlib
import dataclasses
import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cdpipe.config.presets import KANOPUS, KANOPUS_BANDS, ORIGINAL
from cdpipe.errors import ConfigError, InputError
from cdpipe.pairs.layouts.search import (
    FoundPair,
    FoundPairs,
    Layout,
    Notes,
    Option,
    is_image,
    name_key,
    note,
    note_unlabelled,
    of_one_size,
    told,
    unambiguous,
    walk,
)

LEAST_SHARE = 0.5  # of a column's cells that are image names, for a column of image names
JOINT = "__"  # between the names of both dates
NO_VALIDATION = (
    "No pair has split val, since this layout has no validation pairs: set it for some of the train pairs, "
    "or train with folds (train.folds)."
)
Line = tuple[str, list[str]]  # where a row stands in its table, and its cells


def read_matches(
    table: Path, columns: Sequence[str] | None, known: set[str], key: Callable[[str], str]
) -> list[tuple[str, str]]:
    """Read two columns of image names, of a table whose columns are not known beforehand.

    Args:
        table: A table as :func:`cdpipe.formats.tables.read_lines` reads it; it need not have a header.
        columns: The first date's column and the second's, as the header calls them, or by number from 1. By
            default the two whose cells are names of images.
        known: Keys of all images.
        key: What a name is compared by.

    Returns:
        Keys of both images of each row that has both, without repetitions.

    Raises:
        InputError: If the table cannot be read, or it can't be told which columns are meant.
    """
    from cdpipe.formats.tables import read_lines
    from cdpipe.workspace.location import here

    lines = read_lines(here(table))
    if not lines:
        raise InputError(f"{table}: expected a table of image names, got an empty one")
    header = lines[0][1]
    first, second = _named(table, header, columns) if columns else _searched(table, lines, known, key)
    rows = [(key(_cell(cells, first)), key(_cell(cells, second))) for _, cells in lines]
    if not known.intersection(rows[0]):
        rows = rows[1:]  # else there is no header, and the first row is a pair too
    matches = list(dict.fromkeys((one, other) for one, other in rows if one and other and one != other))
    if not known.intersection(name for match in matches for name in match):
        names = f"{header[first] or first + 1} and {header[second] or second + 1}"
        raise InputError(f"{table}: no cell of the columns {names} is the name of an image")
    return matches


def _cell(cells: Sequence[str], column: int) -> str:
    return cells[column].replace("\\", "/").rpartition("/")[2] if column < len(cells) else ""


def _named(table: Path, header: Sequence[str], columns: Sequence[str]) -> tuple[int, int]:
    names = [name.strip().casefold() for name in header]
    numbers = []
    for column in columns:
        wanted = column.strip().casefold()
        if wanted in names:
            numbers.append(names.index(wanted))
        elif wanted.isdecimal() and 1 <= int(wanted) <= len(header):
            numbers.append(int(wanted) - 1)
        else:
            raise InputError(f"{table}: has no column {column!r}; it has {', '.join(map(repr, header))}")
    first, second = numbers
    return first, second


def _searched(
    table: Path, lines: Sequence[tuple[str, list[str]]], known: set[str], key: Callable[[str], str]
) -> tuple[int, int]:
    """The columns whose cells are names of images, if there are two of them."""
    width = max(len(cells) for _, cells in lines)
    shares = []
    for column in range(width):
        cells = list(filter(None, (_cell(cells, column) for _, cells in lines)))
        shares.append(sum(key(cell) in known for cell in cells) / len(cells) if cells else 0.0)
    named = [column for column, share in enumerate(shares) if share >= LEAST_SHARE]
    if len(named) != 2:
        header = lines[0][1]
        told = ", ".join(f"{name!r} ({share:.0%})" for name, share in zip(header, shares, strict=False))
        raise InputError(
            f"{table}: expected two columns whose cells are names of images, got {len(named)}; share of image names "
            f"in each: {told}. Say which they are with --columns BEFORE,AFTER"
        )
    return named[0], named[1]


@dataclasses.dataclass(frozen=True, slots=True)
class _Tree:
    """What lies in the tree, by names as :func:`_key` makes them."""

    composites: Mapping[str, Path]
    masks: Mapping[str, Path]
    images: Mapping[str, Path]
    submission: Path | None
    table: Path | None


def find_original(folder: Path, table: Path | None = None, columns: Sequence[str] | None = None) -> FoundPairs:
    """Find the pairs of the original's tree, nested as it may be.

    A pair is a composite, or else two images that the table matches. The ids of the sample submission are
    the test pairs, the others with a mask are for training. Images and table rows that hang together are one group.

    Args:
        folder: The project, or its folder ``data``.
        table: The matching table (.xls, .xlsx or .csv); by default the tree's own.
        columns: Its two columns, first date and second; by default those whose cells are image names.

    Raises:
        InputError: If no pair is found, or the table cannot be used.
    """
    notes = Notes()
    tree = _look(folder, notes)
    known = {*tree.images, *(part for name in tree.composites for part in name.split(JOINT))}
    if not known:
        raise InputError(
            f"{folder}: expected GeoTIFFs in a folder 8_ch (composites) or Images, at any depth; found neither"
        )
    matches = _read_matches(tree, table, columns, known, notes)
    pairs = _composite_pairs(tree) + _matched_pairs(tree, matches, notes)
    pairs = of_one_size(pairs, notes)
    if not pairs:
        raise InputError(
            f"{folder}: found {len(tree.images)} image(s), but no composites (folder 8_ch) and no table that says "
            "which of them show the same place: name it with --match, and its columns with --columns BEFORE,AFTER"
            f"{told(notes)}"
        )
    pairs = _with_groups(_with_splits(pairs, tree.submission, notes), matches)
    note_unlabelled((pair for pair in pairs if pair.split != "test"), notes)
    hints = (NO_VALIDATION, *_doubt_order(pairs))
    meaning = {"changed": (1,), "unchanged": (0,)}
    return FoundPairs(tuple(pairs), notes, hints, KANOPUS, KANOPUS_BANDS, meaning, ORIGINAL)


def _key(name: str) -> str:
    return name_key(name).casefold()


def _look(folder: Path, notes: Notes) -> _Tree:
    rasters: dict[str, dict[str, list[Path]]] = {"8_ch": {}, "mask": {}, "images": {}}
    others: dict[str, Path] = {}
    for place, _, names in walk(folder):
        kind = {"masks": "mask"}.get(place.name.lower(), place.name.lower())
        for path in (place / name for name in names):
            if kind in rasters and is_image(path):
                rasters[kind].setdefault(_key(path.name), []).append(path)
            elif not path.name.startswith(("~$", ".")):  # spreadsheets leave such files while they are open
                others.setdefault(path.name.lower(), path)
    composites, masks, images = (unambiguous(files, kind, notes) for kind, files in rasters.items())
    tables = [path for name, path in others.items() if name.endswith((".xls", ".xlsx"))]
    named = [path for name, path in others.items() if re.fullmatch(r"rucode\.(xlsx?|csv)", name)]
    table = next(iter(named), tables[0] if len(tables) == 1 else None)
    return _Tree(composites, masks, images, others.get("sample_submission.csv"), table)


def _read_matches(
    tree: _Tree, table: Path | None, columns: Sequence[str] | None, known: set[str], notes: Notes
) -> list[tuple[str, str]]:
    """Keys of images that show one place; none where composites do without the table."""
    chosen = table or tree.table
    if chosen is None:
        return []
    try:
        matches = read_matches(chosen, columns, known, _key)
    except InputError:
        if table or columns or not tree.composites:
            raise
        note(notes, "not used, no two of its columns hold image names (--columns BEFORE,AFTER)", chosen.name)
        return []
    unknown = [name for match in matches for name in match if name not in known]
    note(notes, f"named in {chosen.name}, but no image has that name", *dict.fromkeys(unknown))
    return matches


def _composite_pairs(tree: _Tree) -> list[FoundPair]:
    return [
        _dated(FoundPair(name_key(path.name), composite=path, label=tree.masks.get(key)))
        for key, path in tree.composites.items()
    ]


def _matched_pairs(tree: _Tree, matches: Iterable[tuple[str, str]], notes: Notes) -> list[FoundPair]:
    """Pairs of images that have no composite."""
    pairs, used = [], {frozenset(key.split(JOINT)) for key in tree.composites}
    for first, second in matches:
        before, after = tree.images.get(first), tree.images.get(second)
        if before is None or after is None or frozenset((first, second)) in used:
            continue
        used.add(frozenset((first, second)))
        name = f"{name_key(before.name)}{JOINT}{name_key(after.name)}"
        pairs.append(_dated(FoundPair(name, before, after, label=tree.masks.get(_key(name)))))
    paired, named = {key for keys in used for key in keys}, {*tree.composites, *(_key(pair.name) for pair in pairs)}
    for what, files, taken in (("images in no pair", tree.images, paired), ("masks without a pair", tree.masks, named)):
        note(notes, f"left out, {what}", *(name_key(path.name) for key, path in files.items() if key not in taken))
    return pairs


def _dated(pair: FoundPair) -> FoundPair:
    """The pair with the dates of a name such as KVI_20180922_SCN3_UN91__KV1_20190804_SCN2_UN92, if it has both."""
    dates = [next(_dates_in(part), None) for part in pair.name.split(JOINT)]
    if len(dates) != 2 or None in dates:
        return pair
    return dataclasses.replace(pair, before_date=dates[0], after_date=dates[1])


def _dates_in(name: str) -> Iterator[str]:
    for digits in re.findall(r"(?<![^_])\d{8}(?![^_])", name):
        with contextlib.suppress(ValueError):  # a number that is no date
            yield datetime.date.fromisoformat(digits).isoformat()


def _with_splits(pairs: list[FoundPair], submission: Path | None, notes: Notes) -> list[FoundPair]:
    from cdpipe.formats.submission import read_ids
    from cdpipe.workspace.location import here

    tests = set[str]()
    if submission is None:
        note(notes, "not found, so that no pair has split test", "sample_submission.csv")
    else:
        tests = set(map(_key, read_ids(here(submission))))
        missing = sorted(tests - {_key(pair.name) for pair in pairs})
        note(notes, f"named in {submission.name}, but no pair has that name", *missing)
    splits = ("test" if _key(pair.name) in tests else "train" if pair.label else None for pair in pairs)
    return [dataclasses.replace(pair, split=split) for pair, split in zip(pairs, splits, strict=True)]


def _with_groups(pairs: list[FoundPair], matches: Iterable[tuple[str, str]]) -> list[FoundPair]:
    """Pairs that share an image, directly or through others, are of one group, named by its first image."""
    parents = dict[str, str]()

    def root(key: str) -> str:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    ends = [tuple(map(_key, pair.name.split(JOINT))) for pair in pairs]
    for keys in [*ends, *matches]:
        for key in keys:
            first, second = sorted((root(keys[0]), root(key)))
            parents[second] = first
    roots = [root(keys[0]) for keys in ends]
    sizes = Counter(roots)
    return [
        dataclasses.replace(pair, group=name if sizes[name] > 1 else None)
        for pair, name in zip(pairs, roots, strict=True)
    ]


def _doubt_order(pairs: Iterable[FoundPair]) -> list[str]:
    late = [p.name for p in pairs if p.composite is None and (p.before_date or "") > (p.after_date or "")]
    if not late:
        return []
    return [f"The first date of {len(late)} pair(s) is the later one ({late[0]}): --columns AFTER,BEFORE swaps them."]


def _search(folder: Path, _catalog: Path, *, match: Path | None, columns: str | None) -> FoundPairs:
    return find_original(folder, match, None if columns is None else _two_columns(columns))


def _two_columns(text: str) -> tuple[str, str]:
    first, comma, second = text.partition(",")
    if not (comma and first.strip() and second.strip()):
        raise ConfigError(f"--columns: expected the names of two columns as BEFORE,AFTER, got {text!r}")
    return first, second


LAYOUT = Layout(
    "original",
    "Images, Images_composit/8_ch, mask, matching table, sample_submission.csv",
    _search,
    (
        Option("match", "which images show one place: .xls, .xlsx, .csv", "TABLE", is_path=True),
        Option("columns", "the table's columns (default: found by content)", "BEFORE,AFTER"),
    ),
)
