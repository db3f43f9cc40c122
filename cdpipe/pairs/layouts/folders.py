"""Folders of one date each, as LEVIR-CD, WHU-CD and CDD are published: A/, B/, label/, list/*.txt."""

import dataclasses
import re
from pathlib import Path

from cdpipe.errors import InputError
from cdpipe.pairs.layouts.search import (
    FoundPair,
    FoundPairs,
    Images,
    Layout,
    Notes,
    index_images,
    name_key,
    note,
    note_unlabelled,
    of_one_size,
    pair_up,
    told,
    walk,
)

DATES = (
    *(("a", "b"), ("t1", "t2"), ("time1", "time2"), ("im1", "im2"), ("image1", "image2")),
    *(("before", "after"), ("pre", "post")),
)
LABELS = ("label", "labels", "out", "gt", "mask", "masks", "cm", "change")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
DEPTH = 3  # archives nest a folder or two


def find_folders(folder: Path) -> FoundPairs:
    """Find images of the same name in two folders.

    Splits come from the folders' own place (train/A, val/A, test/A), else from list/train.txt and its like,
    else from names that all begin with train, val or test.

    Raises:
        InputError: If there are no such folders, or nothing in them.
    """
    roots, notes = _find_roots(folder), Notes()
    pairs = [pair for root, split in roots for pair in _pairs_of(root, split, notes)]
    pairs = of_one_size(pairs, notes)
    if not pairs:
        raise InputError(f"{folder}: expected images of one name in both dates' folders, found none{told(notes)}")
    note_unlabelled(pairs, notes)
    return FoundPairs(tuple(pairs), notes)


def _find_roots(folder: Path) -> list[tuple[Path, str | None]]:
    """Folders that hold those of both dates, with the split that their own name means."""
    roots = []
    for here, folders, _ in walk(folder, DEPTH):
        if _date_folders(folders):
            roots.append((here, SPLITS.get(here.name.lower())))
    roots = [(root, split) for root, split in roots if not any(other in root.parents for other, _ in roots)]
    if not roots:
        raise InputError(
            f"{folder}: expected two folders of images such as A and B, here or in train, val, test; "
            f"also known are {', '.join(' and '.join(names) for names in DATES[1:])}. "
            "For any other layout: cdpipe catalog patterns"
        )
    if len(roots) == 1:  # its name says nothing if there is no other
        return [(roots[0][0], roots[0][1] if roots[0][0] != folder else None)]
    splits = [split for _, split in roots]
    if None in splits or len(set(splits)) < len(splits):
        raise InputError(
            f"{folder}: expected one data set, found several: {', '.join(str(root) for root, _ in roots)}; name one"
        )
    return roots


def _date_folders(names: list[str]) -> tuple[str, str] | None:
    known = {name.lower(): name for name in names}
    return next(((known[first], known[second]) for first, second in DATES if {first, second} <= known.keys()), None)


def _pairs_of(root: Path, split: str | None, notes: Notes) -> list[FoundPair]:
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    names = _date_folders(folders)
    if names is None:
        raise ValueError(f"{root} does not hold both dates")
    prefix = "" if split is None else f"{root.name}/"
    before, after = (index_images(root / name, prefix + name, notes) for name in names)
    chosen = next((name for label in LABELS for name in folders if name.lower() == label), None)
    label = Images("label") if chosen is None else index_images(root / chosen, prefix + chosen, notes)
    pairs = pair_up(before, after, label, notes)
    if split is None:
        return _split_by_lists(root, pairs, notes) or _split_by_names(pairs)
    if all(pair.name.lower().startswith(split) for pair in pairs):
        return [dataclasses.replace(pair, split=split) for pair in pairs]
    # train/A/00000.jpg and test/A/00000.jpg are two places
    return [dataclasses.replace(pair, name=f"{split}_{pair.name}", split=split) for pair in pairs]


def _split_by_lists(root: Path, pairs: list[FoundPair], notes: Notes) -> list[FoundPair] | None:
    """Splits from lists of names; None if there are no lists."""
    lists = [path for folder in (root / "list", root / "lists", root) for path in sorted(folder.glob("*.txt"))]
    lists = [path for path in lists if path.stem.lower() in SPLITS]
    if not lists:
        return None
    known, splits = {pair.name for pair in pairs}, dict[str, str]()
    for path in sorted(lists, key=lambda path: list(SPLITS).index(path.stem.lower())):
        where = path.relative_to(root).as_posix()
        for name in _listed(path):
            if name not in known:
                note(notes, f"named in {where}, but no pair has that name", name)
            elif splits.setdefault(name, SPLITS[path.stem.lower()]) != SPLITS[path.stem.lower()]:
                # what was trained on never counts as test
                note(notes, f"named in {where}, but taken as {splits[name]}, whose list has it too", name)
    note(notes, "left out, in none of the lists", *(pair.name for pair in pairs if pair.name not in splits))
    return [dataclasses.replace(pair, split=splits[pair.name]) for pair in pairs if pair.name in splits]


def _listed(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected names in UTF-8: {error}") from None
    names = (re.split(r"[\\/]", line.strip())[-1] for line in lines)
    return list(dict.fromkeys(name_key(name) for name in names if name))


def _split_by_names(pairs: list[FoundPair]) -> list[FoundPair]:
    """Splits from names such as train_36, if all are of that kind."""
    matches = [re.match(rf"({'|'.join(SPLITS)})(?![a-z])", pair.name, re.IGNORECASE) for pair in pairs]
    if not all(matches):
        return pairs
    return [
        dataclasses.replace(pair, split=SPLITS[match[1].lower()])
        for pair, match in zip(pairs, matches, strict=True)
        if match
    ]


def _search(folder: Path, _catalog: Path) -> FoundPairs:
    return find_folders(folder)


LAYOUT = Layout(
    "folders",
    "A, B, label, list/{train,val,test}.txt; also train/A and so on (LEVIR-CD, WHU-CD, CDD)",
    _search,
)
