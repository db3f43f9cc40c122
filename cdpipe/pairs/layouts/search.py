"""What a layout is, what its search gives, and the steps that all searches share.

The command line lists the layouts for ``--help``: no layout imports anything slow until it searches.
"""

import functools
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cdpipe.errors import InputError

if TYPE_CHECKING:
    from cdpipe.config.schema import Input

DRIVERS = MappingProxyType(
    {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
)
NO_LABEL = "without a label"

Notes = dict[str, list[str]]  # what was left out or is odd: names by the reason


@dataclass(frozen=True, slots=True)
class Option:
    """What a layout's search may be told besides the folder.

    Attributes:
        name: Of the search's argument and, behind two hyphens, of the command line's.
        text: What it says.
        metavar: What stands for its value in the help.
        is_path: Whether it is a file of this machine.
        required: Whether the search needs it.
    """

    name: str
    text: str
    metavar: str | None = None
    is_path: bool = False
    required: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A way in which data sets are laid out in folders.

    Attributes:
        name: What the command line calls it.
        text: What lies in such a folder.
        search: Finds the pairs in a folder, of which a catalog at a path will be written; options go by their names.
        options: What the search may be told.
    """

    name: str
    text: str
    search: "Callable[..., FoundPairs]"
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundPair:
    """A pair as its files are named.

    Attributes:
        name: What its owner calls it, in any script.
        before: The first date's raster; so is ``after`` the second's.
        composite: Or one raster, the first half of its bands the first date.
        label: What changed.
        split: "train", "val", "test" or None.
        group: Pairs of one group show one place.
        before_date: ISO 8601; so is ``after_date``.
        before_sensor: Name of what took the first image, where there are several; so is ``after_sensor``.
        before_valid: Cloud or quality raster of the first date; so is ``after_valid`` of the second.
    """

    name: str
    before: Path | None = None
    after: Path | None = None
    composite: Path | None = None
    label: Path | None = None
    split: str | None = None
    group: str | None = None
    before_date: str | None = None
    after_date: str | None = None
    before_sensor: str | None = None
    after_sensor: str | None = None
    before_valid: Path | None = None
    after_valid: Path | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        """The pair's rasters, without its label and quality rasters."""
        return tuple(path for path in (self.before, self.after, self.composite) if path is not None)


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """What a search found.

    Attributes:
        pairs: At least one, with different names.
        notes: What was left out or is odd: names by the reason.
        hints: What the user should know of the whole, a sentence each.
        sensor: A name for what took the images.
        bands: Band numbers by role, if the layout says what they are.
        label: Values and colours by meaning, if the layout says what they are.
        preset: The configuration's preset.
        sensors: Band numbers by role of each sensor, if the files say what they are.
    """

    pairs: tuple[FoundPair, ...]
    notes: Mapping[str, list[str]]
    hints: tuple[str, ...] = ()
    sensor: str = "my_sensor"
    bands: Mapping[str, int] | None = None
    label: Mapping[str, tuple[int | str, ...]] | None = None
    preset: str | None = None
    sensors: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Images:
    """The images of one folder.

    Attributes:
        where: What to call the folder in notes.
        files: Files by name without suffix.
    """

    where: str
    files: Mapping[str, Path] = field(default_factory=dict)


@functools.cache
def settings() -> "Input":
    """How images of any layout are opened: any of the formats, lying pixel on pixel where they have no georeference."""
    from cdpipe.config.schema import Input

    return Input(drivers=tuple(dict.fromkeys(DRIVERS.values())), pixel_coordinates=True)


def is_image(path: Path) -> bool:
    """Whether a file's suffix is that of an image, and its name none that a system made up."""
    return path.suffix.lower() in DRIVERS and not path.name.startswith(".")


def walk(folder: Path, depth: int = 12) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders beneath ``folder`` and itself, in a fixed order, with the names of their folders and files.

    Hidden ones and Zarr stores are passed by; links are followed no further than to a file.

    Raises:
        InputError: If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder; there is none")
    for name, folders, files in os.walk(folder):
        place = Path(name)
        folders[:] = sorted(item for item in folders if not item.startswith(".") and not item.endswith(".zarr"))
        yield place, list(folders), sorted(files)
        if len(place.relative_to(folder).parts) >= depth:
            folders.clear()


def name_key(name: str) -> str:
    """A file's name without an image's suffix, as it is compared: systems write one accent in two ways."""
    path = Path(name.strip())
    return unicodedata.normalize("NFC", path.stem if path.suffix.lower() in DRIVERS else path.name)


def index_images(folder: Path, where: str, notes: Notes) -> Images:
    """The images in a folder; of two with one name neither is taken, nor one whose name is not Unicode."""
    files: dict[str, list[Path]] = {}
    for path in sorted(filter(is_image, folder.iterdir())):
        files.setdefault(name_key(path.name), []).append(path)
    return Images(where, unambiguous(files, where, notes))


def unambiguous(files: Mapping[str, list[Path]], where: str, notes: Notes) -> dict[str, Path]:
    """Those names that mean one file."""
    chosen = {}
    for name, paths in files.items():
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            note(notes, f"left out, a name in {where} has control characters or is not in UTF-8", ascii(name))
        elif len(paths) > 1:
            note(notes, f"left out, several files of this name in {where}", name)
        else:
            chosen[name] = paths[0]
    return chosen


def pair_up(before: Images, after: Images, label: Images, notes: Notes) -> list[FoundPair]:
    """Pairs of the images that both dates have, with the labels of their names."""
    for one, other in ((before, after), (after, before)):
        alone = [name for name in one.files if name not in other.files]
        note(notes, f"left out, in {one.where} without a partner in {other.where}", *alone)
    common = dict.fromkeys(name for name in before.files if name in after.files)
    note(notes, f"left out, in {label.where} without a pair", *(name for name in label.files if name not in common))
    return [FoundPair(name, before.files[name], after.files[name], label=label.files.get(name)) for name in common]


def note(notes: Notes, reason: str, *names: str) -> None:
    """Note names under a reason, if there are any."""
    if names:
        notes.setdefault(reason, []).extend(names)


def told(notes: Notes) -> str:
    """The notes as the end of a message, to explain why there is nothing."""
    return "".join(f"; {reason}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for reason, names in notes.items())


def note_unlabelled(pairs: Iterable[FoundPair], notes: Notes) -> None:
    """Note which pairs have no label: they can be predicted, and no more."""
    note(notes, NO_LABEL, *(pair.name for pair in pairs if pair.label is None))


def of_one_size(pairs: Iterable[FoundPair], notes: Notes) -> list[FoundPair]:
    """The pairs without those whose dates cannot be laid over each other.

    Only formats that hold no georeference are opened: two such images show the same pixels or nothing can
    be said. What cannot be read stays, for ``cdpipe check`` to say why.
    """
    kept = []
    for pair in pairs:
        sizes = [size for path in pair.images if (size := _size_without_georeference(path))]
        if len(set(sizes)) > 1:
            note(notes, "left out, dates of different size without georeference", f"{pair.name} ({', '.join(sizes)})")
        else:
            kept.append(pair)
    return kept


def _size_without_georeference(path: Path) -> str | None:
    """Width and height of an image that holds no georeference; None if it may hold one, or cannot be read."""
    from cdpipe.formats.gate import describe_raster
    from cdpipe.workspace.location import here

    if DRIVERS.get(path.suffix.lower(), "GTiff") == "GTiff":
        return None
    try:
        grid = describe_raster(here(path), settings()).grid
    except InputError:
        return None
    return None if grid.placed else f"{grid.width} x {grid.height}"
