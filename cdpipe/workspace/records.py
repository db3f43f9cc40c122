"""Records: one small file says that a block is stored, and what its stored objects hash to.

Completeness comes from records, never from pixels: a missing chunk of a Zarr array reads back as its
fill value without a word.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdpipe.errors import CdpipeError
from cdpipe.geo.grid import BlockKey
from cdpipe.workspace.bucket import ObjectPath
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import hash_file, read_sealed, write_sealed
from cdpipe.workspace.storage import map_files, remove_tree

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


def block_record(folder: Path, key: BlockKey) -> Path:
    """File of a block's record."""
    return folder / _name(key)


def _name(key: BlockKey) -> str:
    return f"{key.block_row}_{key.block_col}.json"


def hash_stored(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of files read back, for a record of those whose hash is not known from making them."""
    return {path: hash_file(path) for path in paths}


def write_record(path: Path, root: Path, stored: Mapping[Path, str], facts: dict[str, Any] | None = None) -> Record:
    """Say what was stored.

    Args:
        path: The record's file.
        root: The workspace.
        stored: The files that were stored, each with its SHA-256.
        facts: See :class:`Record`.
    """
    record = Record({str(file.relative_to(root)): digest for file, digest in stored.items()}, facts or {})
    write_sealed(path, {"objects": record.objects, "facts": record.facts})
    return record


def read_record(path: Path) -> Record | None:
    """A record, or None where there is none or it is damaged."""
    value = read_sealed(path)
    if value is None:
        return None
    try:
        return Record(dict(value["objects"]), dict(value["facts"]))
    except (TypeError, KeyError, ValueError):
        return None


def missing_blocks(folder: Path, keys: Iterable[BlockKey]) -> list[BlockKey]:
    """Those of the blocks that have no record; the folder is listed once."""
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        names = set()
    return [key for key in keys if _name(key) not in names]


def all_records(folder: Path) -> Iterator[tuple[Path, Record | None]]:
    """Every record of a folder in the order of names, damaged ones as None."""
    paths = sorted(folder.glob("*.json"))
    yield from zip(paths, map_files(read_record, paths), strict=True)


def record_times(folder: Path) -> list[float]:
    """When each record was written, in seconds since the epoch, in any order."""
    if isinstance(folder, ObjectPath):
        return [
            found.modified for path, found in folder.listed() if path.suffix == ".json" and path.name != GROUP_RECORD
        ]
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry.stat().st_mtime for entry in entries if entry.name.endswith(".json") and entry.name != GROUP_RECORD
        ]


def withdraw_records(record: Path, root: Path, paths: Iterable[Path]) -> None:
    """Remove the records of other results that lie under the names that a group's record is going to speak of.

    Args:
        record: The group's record that is about to be written.
        root: The workspace.
        paths: What it is going to speak of.
    """
    names = {str(path.relative_to(root)) for path in paths}
    for path in record.parent.parent.glob(f"*/{record.name}"):
        found = read_record(path)
        if found is None or names & found.objects.keys():
            path.unlink()


def damaged_objects(record: Record, root: Path) -> list[str]:
    """Those of a record's objects that are missing or hash to something else."""
    return [
        name
        for name, expected in record.objects.items()
        if not (root / name).is_file() or hash_file(root / name) != expected
    ]


# How often a block was begun and not ended: one that kills its worker again and again must not go on for ever.

MOST_ATTEMPTS = 4


def begin_attempt(workspace: Workspace, key: BlockKey) -> Path:
    """Count an attempt at a block.

    Returns:
        The file to remove when the attempt has ended.

    Raises:
        CdpipeError: If the block ended its worker too often already.
    """
    path = _folder(workspace) / key.pair_id / f"{key.block_row}_{key.block_col}"
    if isinstance(path, ObjectPath):
        before = path.stat().st_size if path.is_file() else 0
        _refuse(before)
        path.write_bytes(b"." * (before + 1))
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        _refuse(os.fstat(descriptor).st_size)
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)
    return path


def _refuse(before: int) -> None:
    if before >= MOST_ATTEMPTS:
        raise CdpipeError(
            f"ended its worker {before} times (killed, out of memory, or a crash in a library) and was given up; "
            "give workers more memory, or look at the scene there"
        )


def forget_attempts(workspace: Workspace) -> None:
    """Start counting anew; only for the holder of the workspace's lock."""
    remove_tree(_folder(workspace))


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "records" / "attempts"
