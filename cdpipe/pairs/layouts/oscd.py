"""The Onera Satellite Change Detection data set as it is released: a folder a city, a file a band.

Source of the layout: https://rcdaudt.github.io/oscd (R. Caye Daudt et al., IGARSS 2018). Its masks are 1 and 2
in ``<city>-cm.tif``, 0 and 255 in ``cm.png``.
"""

import contextlib
import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from cdpipe.errors import InputError
from cdpipe.pairs.layouts.search import (
    FoundPair,
    FoundPairs,
    Layout,
    Notes,
    note,
    note_unlabelled,
    settings,
    told,
    walk,
)

BANDS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}  # those of 10 m
DATES = ("before", "after")
FOLDERS = (("imgs_1", "imgs_2"), ("imgs_1_rect", "imgs_2_rect"))  # as observed; resampled onto one grid
LABEL_VALUES = {".tif": (2, 1), ".png": (255, 0)}  # changed, unchanged


@dataclass(slots=True)
class _City:
    """What the release has of a city, which may lie in several folders."""

    images: Path | None = None
    label: Path | None = None


def find_oscd(folder: Path, stacks: Path) -> FoundPairs:
    """Find the cities, and stack the four 10 m bands of each date into a GeoTIFF.

    Args:
        folder: Where the parts "... - Images", "... - Train Labels" and "... - Test Labels" lie, or what they
            were merged into.
        stacks: Where the stacked files go, as ``<city>/before.tif``; those that are there stay as they are.

    Raises:
        InputError: If there is no city with both dates.
    """
    cities, splits, notes = dict[str, _City](), dict[str, str](), Notes()
    for here, folders, files in walk(folder):
        if any({*pair} <= {*folders} for pair in FOLDERS):
            cities.setdefault(here.name, _City()).images = here
        if here.name == "cm":
            city = cities.setdefault(here.parent.name, _City())
            city.label = city.label or _label_of(here, here.parent.name, files)
        for split in ("train", "test"):
            if f"{split}.txt" in files:
                names = re.split(r"[,;\s]+", (here / f"{split}.txt").read_text(encoding="utf-8-sig"))
                splits |= dict.fromkeys(filter(None, names), split)
    note(notes, "left out, a label without images", *(name for name, city in cities.items() if city.images is None))
    pairs = [pair for name, city in cities.items() if (pair := _pair_of(name, city, splits, stacks, notes))]
    if not pairs:
        raise InputError(
            f"{folder}: expected folders <city>/imgs_1 and <city>/imgs_2 with the bands {', '.join(BANDS.values())}, "
            f"a file each, at any depth; found none{told(notes)}"
        )
    note(
        notes, "named in train.txt or test.txt, but without a folder", *(name for name in splits if name not in cities)
    )
    return _summed_up(pairs, stacks, notes)


def _summed_up(pairs: list[FoundPair], stacks: Path, notes: Notes) -> FoundPairs:
    note(notes, "in neither train.txt nor test.txt", *(pair.name for pair in pairs if pair.split is None))
    note_unlabelled(pairs, notes)
    kinds = sorted({pair.label.suffix for pair in pairs if pair.label}, reverse=True) or [".tif"]
    changed, unchanged = zip(*(LABEL_VALUES[kind] for kind in kinds), strict=True)
    hints = (
        f"Both dates' bands {', '.join(BANDS.values())} are stacked in {stacks}, where they stay.",
        "No city has split val: set it for some of the train cities, or train with folds (train.folds).",
    )
    numbers = {role: number for number, role in enumerate(BANDS, 1)}
    return FoundPairs(tuple(pairs), notes, hints, "sentinel2", numbers, {"changed": changed, "unchanged": unchanged})


def _label_of(folder: Path, city: str, files: list[str]) -> Path | None:
    masks = [name for name in (f"{city}-cm.tif", *files, "cm.png") if name in files]
    return next((folder / name for name in masks if name.endswith("-cm.tif") or name == "cm.png"), None)


def _pair_of(name: str, city: _City, splits: dict[str, str], stacks: Path, notes: Notes) -> FoundPair | None:
    from cdpipe.formats.stack import stack_bands

    if city.images is None:
        return None
    dates = [[_bands_in(city.images / date) for date in pair] for pair in FOLDERS]
    bands = next((pair for pair in dates if all(pair)), None)
    if bands is None:
        note(notes, f"left out, {' or '.join(FOLDERS[0])} lacks one of {', '.join(BANDS.values())}", name)
        return None
    targets = [stacks / name / f"{date}.tif" for date in DATES]
    try:
        for files, target in zip(bands, targets, strict=True):
            if not target.exists():
                stack_bands(files, target, settings())
    except InputError as error:
        note(notes, "left out, its bands cannot be stacked", f"{name} ({error})")
        return None
    first, second = _dates(city.images / "dates.txt")
    before, after = targets
    return FoundPair(
        name, before, after, label=city.label, split=splits.get(name), before_date=first, after_date=second
    )


def _bands_in(folder: Path) -> dict[str, Path]:
    """Files of the four bands by role; nothing if one is missing."""
    files = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in (".tif", ".tiff")]
    bands = {
        role: path
        for role, band in BANDS.items()
        for path in files
        if re.fullmatch(rf"(?:.*_)?{band}", path.stem, re.IGNORECASE)
    }
    return {role: bands[role] for role in BANDS} if len(bands) == len(BANDS) else {}


def _dates(path: Path) -> tuple[str | None, str | None]:
    """Both dates as ``date_1: 20160120`` or ``date_1: 160120`` gives them; none if one is missing."""
    text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    first, second = (re.search(rf"date_{number}\s*:\s*(?:20)?(\d\d)-?(\d\d)-?(\d\d)\b", text) for number in (1, 2))
    if first and second:
        with contextlib.suppress(ValueError):  # digits that are no date
            return _as_date(first), _as_date(second)
    return None, None


def _as_date(match: re.Match[str]) -> str:
    return datetime.date.fromisoformat(f"20{'-'.join(match.groups())}").isoformat()


def _search(folder: Path, catalog: Path) -> FoundPairs:
    return find_oscd(folder, catalog.with_name(f"{catalog.stem}_bands"))


LAYOUT = Layout(
    "oscd",
    "the Onera data set as released: <city>/imgs_1, imgs_2, cm, train.txt, test.txt",
    _search,
)
