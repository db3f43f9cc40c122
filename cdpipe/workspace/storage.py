"""What is done in one way on a disk and in another in object storage, each under one name."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cdpipe.errors import LockedError
from cdpipe.workspace import bucket
from cdpipe.workspace.bucket import ObjectPath
from cdpipe.workspace.clients import Taken
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.local import json_bytes, temporary_folder, write_json
from cdpipe.workspace.lock import confirm

AT_ONCE = 16  # requests that a process waits for

Result = TypeVar("Result")


def map_files(function: Callable[[Any], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """A function's results on some files, in order; several at once in object storage, where waiting is most of it."""
    if not any(isinstance(path, ObjectPath) for path in paths):
        yield from map(function, paths)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(function, paths)


def read_parts(path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Parts of a file, each (start, length); in object storage asked for together."""
    if isinstance(path, ObjectPath):
        return bucket.read_ranges(path.address, ranges)
    found = []
    with path.open("rb") as file:
        for start, length in ranges:
            file.seek(start)
            found.append(file.read(length))
    return found


def write_json_alone(path: Path, value: Any) -> None:
    """Write a JSON file as a workspace's only holder: in object storage the lock is confirmed and the put guarded.

    Raises:
        LockedError: If another run has taken the workspace over.
    """
    if not isinstance(path, ObjectPath):
        write_json(path, value)
        return
    confirm(path)
    crash_point("file-unnamed")
    try:
        path.write_guarded(json_bytes(value))
    except Taken:
        raise LockedError(f"{path}: another run has written it just now; run the same command again") from None
    crash_point("file-named")


def append_text(path: Path, text: str) -> None:
    """Add lines to a log, which one process at a time may do."""
    if isinstance(path, ObjectPath):
        path.write_bytes((path.read_bytes() if path.is_file() else b"") + text.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that lies beneath, as far as it is there."""
    if not isinstance(folder, ObjectPath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path, _ in folder.listed():
        path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int | None:
    """Bytes that are free where a path lies or will lie; None in object storage, which has no end."""
    if isinstance(path, ObjectPath):
        return None
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


@contextmanager
def on_disk(folder: Path) -> Iterator[Path]:
    """A folder of this machine with the files of one that may lie in object storage, for libraries that only read."""
    if not isinstance(folder, ObjectPath):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for path, _ in folder.listed():
            file = Path(place) / path.relative_to(folder).as_posix()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.read_bytes())
        yield Path(place)


@contextmanager
def file_on_disk(path: Path) -> Iterator[Path]:
    """The same for a single file."""
    if not isinstance(path, ObjectPath):
        yield path
        return
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / path.name
        with file.open("wb") as stream:
            stream.writelines(bucket.read_pieces(path.address))
        yield file


# How much room a disk has, and whether something failed for want of it.

LITTLE = 16 * 2**20  # bytes: a disk that has less and refuses a raster is full


def free_space(path: Path) -> str:
    """A sentence about the disk that refused a file: GDAL's own messages rarely say that it is full."""
    path = temporary_folder(path)
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < LITTLE:
        return f"{os.strerror(errno.ENOSPC)} that holds {existing}: make room, and run again."
    return f"{free / 1e6:,.0f} MB are free in {existing}: make room if that is too little, and run again."


def found_no_room(reason: str) -> bool:
    """Whether a failure is that of a full disk, in the words of the system, which :func:`free_space` uses too."""
    return os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason
