"""This machine's disks: files written whole or not at all, and what is free for them."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from cdpipe.errors import ConfigError, LockedError
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.storage import LOCK, Stat

LITTLE = 16 * 2**20  # bytes: a disk that has less and refuses a raster is full


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of this machine; keys are paths. See :class:`cdpipe.workspace.storage.Storage`."""

    far = False
    scheme = ""

    def show(self, key: str) -> str:
        """The path."""
        return key

    def local(self, key: str) -> Path:
        """The path."""
        return Path(key)

    def resolve(self, key: str) -> str:
        """The absolute path, links followed."""
        return str(Path(key).resolve())

    def stat(self, key: str) -> Stat:
        """Size and time."""
        found = Path(key).stat()
        return Stat(found.st_size, found.st_mtime, found.st_mtime_ns)

    def is_file(self, key: str) -> bool:
        """Whether there is such a file."""
        return Path(key).is_file()

    def is_dir(self, key: str) -> bool:
        """Whether there is such a folder."""
        return Path(key).is_dir()

    def names(self, key: str) -> list[str]:
        """What lies right in a folder, in any order."""
        return [str(path) for path in Path(key).iterdir()]

    def walk(self, key: str) -> Iterator[tuple[str, Stat]]:
        """Every file beneath, in the order of names; links to folders are not followed."""
        try:
            with os.scandir(key) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self.walk(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = entry.stat()
                    yield entry.path, Stat(status.st_size, status.st_mtime, status.st_mtime_ns)

    def glob(self, key: str, pattern: str) -> Iterator[str]:
        """What matches, in any order."""
        return (str(path) for path in Path(key).glob(pattern))

    def read(self, key: str) -> bytes:
        """All of a file."""
        return Path(key).read_bytes()

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]], gap: int) -> list[bytes]:  # noqa: ARG002 (theirs)
        """Parts of a file."""
        found = []
        with Path(key).open("rb") as file:
            for start, length in ranges:
                file.seek(start)
                found.append(file.read(length))
        return found

    def read_end(self, key: str, length: int) -> tuple[bytes, int]:
        """The last bytes of a file, and its size."""
        with Path(key).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - length))
            return file.read(), size

    def open(self, key: str, buffering: int) -> BinaryIO:
        """Open a file for reading."""
        return Path(key).open("rb", buffering)

    def sha256(self, key: str) -> str:
        """Hash of a file, read in pieces."""
        with Path(key).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def write(self, key: str, pieces: Sequence[bytes]) -> None:
        """Write a file beside its place, and give it its name when it is on the disk.

        Raises:
            OSError: If it cannot be written; the path is named.
        """
        path = Path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.temporary(key, "partial")
        with naming(path), partial.open("wb") as stream:
            stream.writelines(pieces)
            stream.flush()
            os.fsync(stream.fileno())
        crash_point("block-unnamed" if path.parent.name.isdecimal() else "file-unnamed")
        partial.replace(path)
        crash_point("file-named")
        sync_folder(path.parent)

    def write_alone(self, key: str, data: bytes) -> None:
        """Write a file: the system's lock cannot be lost."""
        self.write(key, [data])

    def append(self, key: str, data: bytes) -> None:
        """Add to a file."""
        path = Path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(data)

    def temporary(self, key: str, suffix: str) -> Path:
        """A path beside the place, from where it can be renamed."""
        path = Path(key)
        return path.with_name(f"{path.name}.{os.getpid()}.{suffix}")

    def take(self, key: str, file: Path) -> None:
        """Rename a file."""
        file.replace(key)
        sync_folder(Path(key).parent)

    def make_folder(self, key: str, make: Callable[[Path], None]) -> None:
        """Make a folder beside its place. Of several that do so at once, the first to rename its own is the one."""
        path = Path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")  # two machines may have the same process ids
        with naming(path):
            make(partial)
        crash_point("group-unnamed")
        try:
            partial.rename(path)
        except OSError:
            if not path.exists():
                raise
            _put_back(partial, path)
        sync_folder(path.parent)

    def remove(self, key: str, *, missing_ok: bool) -> None:
        """Remove a file."""
        Path(key).unlink(missing_ok=missing_ok)

    def remove_tree(self, key: str) -> None:
        """Remove a folder with all that lies beneath, as far as it is there."""
        shutil.rmtree(key, ignore_errors=True)

    def remove_empty(self, key: str) -> None:
        """Remove a folder if nothing lies in it."""
        with contextlib.suppress(OSError):
            Path(key).rmdir()

    def sweep(self, key: str) -> None:
        """Remove what is named as if it were being written."""
        for path in list(Path(key).rglob("*.partial")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def free_bytes(self, key: str) -> int | None:
        """Bytes that are free on the disk that holds a path, or will."""
        path = Path(key)
        return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free

    @contextlib.contextmanager
    def file_on_disk(self, key: str) -> Iterator[Path]:
        """The path itself."""
        yield Path(key)

    folder_on_disk = file_on_disk

    @contextlib.contextmanager
    def hold(self, key: str, *, wait: bool) -> Iterator[None]:
        """Hold a workspace; the system lets go of the lock when the process ends, however it ends."""
        folder = Path(key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stream = (folder / LOCK).open("a")
        except OSError as error:
            raise ConfigError(f"workspace {key}: expected a folder that can be written: {error}") from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(f"workspace {key}: another run is writing to it; --wait waits for it") from None
            yield


def _put_back(whole: Path, path: Path) -> None:
    """Give a folder the files that it lacks, and remove what they were taken from."""
    for file in sorted(whole.rglob("*")):
        target = path / file.relative_to(whole)
        if file.is_file() and not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
            sync_folder(target.parent)
    shutil.rmtree(whole)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of the system say what was being written: those of a full disk do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (new names, renames) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_free(path: Path) -> str:
    """A sentence about the disk that refused a file: GDAL's own messages rarely say that it is full."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < LITTLE:
        return f"{os.strerror(errno.ENOSPC)} that holds {existing}: make room, and run again."
    return f"{free / 1e6:,.0f} MB are free in {existing}: make room if that is too little, and run again."


def found_no_room(reason: str) -> bool:
    """Whether a failure is that of a full disk, in the words of the system, which :func:`describe_free` uses too."""
    return os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason
