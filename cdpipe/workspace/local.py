"""Files on a disk: written whole or not at all, sealed, hashed."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdpipe.workspace.bucket import ObjectPath
from cdpipe.workspace.crash import crash_point

SEAL = "sha256_of_the_rest"


def write_atomically(path: Path, *data: bytes) -> None:
    """Write a file so that readers see all of it or nothing, and a power cut keeps it.

    Args:
        path: The file.
        data: What it holds, in pieces.

    Raises:
        OSError: If it cannot be written; the path is named.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(b"".join(data))
        crash_point("file-named")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with naming(path), partial.open("wb") as stream:
        stream.writelines(data)
        stream.flush()
        os.fsync(stream.fileno())
    crash_point("block-unnamed" if path.parent.name.isdecimal() else "file-unnamed")
    partial.replace(path)
    crash_point("file-named")
    sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of the system say what was being written: those of a full disk do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, the same bytes for the same value; NaN becomes null."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A JSON file's content, the same bytes for the same value; NaN becomes null."""
    return (json.dumps(_without_nan(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """The same with a hash of the values among them, so that no change of a file goes unseen."""
    write_json(path, {**values, SEAL: _seal(values)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What :func:`write_sealed` wrote, or None where there is nothing or anything else."""
    values = read_json(path)
    if not isinstance(values, dict):
        return None
    seal = values.pop(SEAL, None)
    return values if seal == _seal(values) else None


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_without_nan(values), sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file, or None where there is none or it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written beneath a folder; only for the holder of the workspace's lock."""
    if isinstance(folder, ObjectPath):  # where nothing is ever half-written
        return
    for path in list(folder.rglob("*.partial")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (new names, renames) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits, read in pieces."""
    if isinstance(path, ObjectPath):
        return path.sha256()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def temporary_folder(path: Path, suffix: str = "partial") -> Path:
    """Where a file is made: beside its place, from where it can be renamed, or on this machine's disk for an upload."""
    if isinstance(path, ObjectPath):
        return Path(tempfile.gettempdir(), f"cdpipe-{path.name}.{os.getpid()}.{suffix}")
    return path.with_name(f"{path.name}.{os.getpid()}.{suffix}")


def publish_file(temporary: Path, path: Path, point: str) -> str:
    """Give a finished file its name once it is on the disk; returns its sha256. ``point`` is where tests kill."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    digest = hash_file(temporary)
    crash_point(point)
    if isinstance(path, ObjectPath):
        path.upload(temporary)
        return digest
    temporary.replace(path)
    sync_folder(path.parent)
    return digest


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
