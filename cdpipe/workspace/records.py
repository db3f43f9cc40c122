"""Records: one small file says that a block is stored, and what its stored objects hash to.

Completeness comes from records, never from pixels: a missing chunk of a Zarr array reads back as its
fill value without a word.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdpipe.errors import CdpipeError
from cdpipe.geo.grid import BlockKey
from cdpipe.workspace.files import read_sealed, write_sealed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, map_files

MOST_ATTEMPTS = 4  # of a block: one that kills its worker again and again must not go on for ever
GROUP_RECORD = "group.json"  # the record of a finished group, beside those of its blocks


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says.

    Attributes:
        objects: Stored files relative to the workspace, each with its SHA-256.
        facts: What later stages need of the block (statistics, counts), as JSON values.
    """

    objects: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)


def block_record(folder: Location, key: BlockKey) -> Location:
    """File of a block's record."""
    return folder / _name(key)


def _name(key: BlockKey) -> str:
    return f"{key.block_row}_{key.block_col}.json"


def hash_stored(paths: Iterable[Location]) -> dict[Location, str]:
    """SHA-256 of files read back, for a record of those whose hash is not known from making them."""
    return {path: path.sha256() for path in paths}


def write_record(
    path: Location, root: Location, stored: Mapping[Location, str], facts: dict[str, Any] | None = None
) -> Record:
    """Say what was stored.

    Args:
        path: The record's file.
        root: The workspace.
        stored: The files that were stored, each with its SHA-256.
        facts: See :class:`Record`.
    """
    record = Record({file.relative_to(root): digest for file, digest in stored.items()}, facts or {})
    write_sealed(path, {"objects": record.objects, "facts": record.facts})
    return record


def read_record(path: Location) -> Record | None:
    """A record, or None where there is none or it is damaged."""
    value = read_sealed(path)
    if value is None:
        return None
    try:
        return Record(dict(value["objects"]), dict(value["facts"]))
    except (TypeError, KeyError, ValueError):
        return None


def missing_blocks(folder: Location, keys: Iterable[BlockKey]) -> list[BlockKey]:
    """Those of the blocks that have no record; the folder is listed once."""
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        names = set()
    return [key for key in keys if _name(key) not in names]


def all_records(folder: Location) -> Iterator[tuple[Location, Record | None]]:
    """Every record of a folder in the order of names, damaged ones as None."""
    paths = sorted(folder.glob("*.json"))
    yield from zip(paths, map_files(read_record, paths), strict=True)


def record_times(folder: Location) -> list[float]:
    """When each record was written, in seconds since the epoch, in any order."""
    return [found.modified for file, found in folder.walk() if file.suffix == ".json" and file.name != GROUP_RECORD]


def withdraw_records(record: Location, root: Location, paths: Iterable[Location]) -> None:
    """Remove the records of other results that lie under the names that a group's record is going to speak of.

    Args:
        record: The group's record that is about to be written.
        root: The workspace.
        paths: What it is going to speak of.
    """
    names = {path.relative_to(root) for path in paths}
    for path in record.parent.parent.glob(f"*/{record.name}"):
        found = read_record(path)
        if found is None or names & found.objects.keys():
            path.unlink()


def damaged_objects(record: Record, root: Location) -> list[str]:
    """Those of a record's objects that are missing or hash to something else."""
    return [
        name
        for name, expected in record.objects.items()
        if not (root / name).is_file() or (root / name).sha256() != expected
    ]


def begin_attempt(workspace: Workspace, key: BlockKey) -> Location:
    """Count an attempt at a block.

    Returns:
        The file to remove when the attempt has ended.

    Raises:
        CdpipeError: If the block ended its worker too often already.
    """
    file = _folder(workspace) / key.pair_id / f"{key.block_row}_{key.block_col}"
    before = file.stat().size if file.is_file() else 0
    if before >= MOST_ATTEMPTS:
        raise CdpipeError(
            f"ended its worker {before} times (killed, out of memory, or a crash in a library) and was given up; "
            "give workers more memory, or look at the scene there"
        )
    file.append(b".")
    return file


def forget_attempts(workspace: Workspace) -> None:
    """Start counting anew; only for the holder of the workspace's lock."""
    _folder(workspace).remove_tree()


def _folder(workspace: Workspace) -> Location:
    return workspace.root / "records" / "attempts"
