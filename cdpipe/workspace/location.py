"""Where a file or folder lies, on this machine or in object storage: its storage and its key there."""

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from cdpipe.errors import ConfigError
from cdpipe.workspace.bucket import Bucket
from cdpipe.workspace.clients import redacted
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.disk import Disk, describe_free
from cdpipe.workspace.remembered import Remembered
from cdpipe.workspace.storage import Stat, Storage

SCHEMES = ("s3", "gs", "az")
GAP = 32 * 2**10  # bytes between two ranges that are read for nothing rather than asked for twice
AT_ONCE = 16  # requests that a process waits for

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})://?(?!/)(.*)", re.DOTALL)
# no user, no query, no escape, and nothing that a bucket's name or a key on the way through GDAL could be taken for
_ODD = re.compile(r"[@?#%\\\0-\x1f\x7f]")
_DISK = Disk()
FRESH = 2.0  # seconds that the list of a folder in object storage holds, for the rasters that lie there together

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Location:
    """A file or folder by its name. It computes as paths do, and is none: nothing of the system takes it for a file.

    A library that needs a file of this machine is given :meth:`local`, which object storage refuses, or a copy.

    Attributes:
        storage: The disk or bucket.
        key: Its name there, with slashes between its parts.
    """

    storage: Storage
    key: str

    def __str__(self) -> str:
        """As users write it: a path, or an address such as ``s3://bucket/folder``."""
        return self.storage.show(self.key)

    def __lt__(self, other: "Location") -> bool:
        return _parts(self) < _parts(other)

    def __truediv__(self, name: str) -> "Location":
        """What lies beneath under a relative name.

        Raises:
            ValueError: If the name is absolute, and so says where it lies by itself; see :func:`locate`.
        """
        if name.startswith("/") or "://" in name:
            raise ValueError(f"{name}: expected a relative name, to be looked up in {self}")
        return self.joinpath(*name.split("/"))

    def joinpath(self, *parts: str) -> "Location":
        """What lies beneath: parts of a name, none with a slash in it."""
        key = self.key
        for part in parts:
            if part and part != ".":
                key = f"{key}/{part}" if key not in ("", ".", "/") else f"/{part}" if key == "/" else part
        return Location(self.storage, key)

    @property
    def name(self) -> str:
        """The last part of the name; of a whole bucket its own."""
        return str(self).rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "Location":
        """The folder that it lies in."""
        head, slash, _ = self.key.rpartition("/")
        return Location(self.storage, head or slash or ("." if self.key and not self.far else ""))

    def with_name(self, name: str) -> "Location":
        """What lies beside it under another name."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> "Location":
        """What lies beside it under a name that ends in another way."""
        return self.with_name(self.stem + suffix)

    def is_relative_to(self, folder: "Location") -> bool:
        """Whether it is a folder or lies beneath it."""
        whole = _parts(folder)
        return self.storage == folder.storage and _parts(self)[: len(whole)] == whole

    def relative_to(self, folder: "Location") -> str:
        """Its name as seen from a folder.

        Raises:
            ValueError: If it does not lie in it.
        """
        if not self.is_relative_to(folder):
            raise ValueError(f"{self}: does not lie in {folder}")
        return "/".join(_parts(self)[len(_parts(folder)) :]) or "."

    def resolve(self) -> "Location":
        """Absolute and without ``..``, links followed.

        Raises:
            ConfigError: If it leads out of its bucket.
        """
        return Location(self.storage, self.storage.resolve(self.key))

    @property
    def far(self) -> bool:
        """Whether it lies in object storage, where every look costs a request."""
        return self.storage.far

    def local(self) -> Path:
        """Its path on this machine.

        Raises:
            ConfigError: If it lies in object storage.
        """
        return self.storage.local(self.key)

    def file_on_disk(self) -> AbstractContextManager[Path]:
        """A file of this machine with the same content, for libraries that only read."""
        return self.storage.file_on_disk(self.key)

    def folder_on_disk(self) -> AbstractContextManager[Path]:
        """The same for a folder."""
        return self.storage.folder_on_disk(self.key)

    def stat(self) -> Stat:
        """Size, age, and what tells another content.

        Raises:
            FileNotFoundError: If there is no such file. Whatever reads one raises this, ``PermissionError`` if it is
                refused, and ``ConnectionError`` if a store gives no answer after many tries.
        """
        return self.storage.stat(self.key)

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return self.storage.is_file(self.key)

    def is_dir(self) -> bool:
        """Whether there is such a folder: in object storage, whether anything lies beneath."""
        return self.storage.is_dir(self.key)

    def iterdir(self) -> Iterator["Location"]:
        """What lies right in the folder.

        Raises:
            FileNotFoundError: If there is no such folder.
        """
        return (Location(self.storage, key) for key in self.storage.names(self.key))

    def walk(self) -> Iterator[tuple["Location", Stat]]:
        """Every file beneath, in the order of names, as far as it is there."""
        return ((Location(self.storage, key), stat) for key, stat in self.storage.walk(self.key))

    def glob(self, pattern: str) -> Iterator["Location"]:
        """What lies beneath under a name of as many parts as the pattern that matches it, in any order."""
        return (Location(self.storage, key) for key in self.storage.glob(self.key, pattern))

    def read_bytes(self) -> bytes:
        """All of a file."""
        return self.storage.read(self.key)

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of a file as text."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding).read()

    def read_ranges(self, ranges: Sequence[tuple[int, int]], gap: int = GAP) -> list[bytes]:
        """Parts of a file, each (start, length); in object storage asked for together."""
        return self.storage.read_ranges(self.key, ranges, gap)

    def read_end(self, length: int) -> tuple[bytes, int]:
        """The last bytes of a file, and its size."""
        return self.storage.read_end(self.key, length)

    def open(self, buffering: int = -1) -> BinaryIO:
        """Open a file for reading its bytes."""
        return self.storage.open(self.key, buffering)

    def sha256(self) -> str:
        """Hash of a file in hexadecimal digits, read in pieces."""
        return self.storage.sha256(self.key)

    def write(self, *pieces: bytes) -> None:
        """Write a file so that readers see all of it or nothing, and a power cut keeps it.

        Raises:
            OSError: If it cannot be written; the file is named.
        """
        self.storage.write(self.key, pieces)

    def write_alone(self, data: bytes) -> None:
        """The same as a workspace's only holder: in object storage the lock is confirmed and the put guarded.

        Raises:
            LockedError: If another run has taken the workspace over.
        """
        self.storage.write_alone(self.key, data)

    def append(self, data: bytes) -> None:
        """Add to a file, which one process at a time may do."""
        self.storage.append(self.key, data)

    def temporary(self, suffix: str = "partial") -> Path:
        """Where it is made: beside its place, from where it can be renamed, or on this machine's disk for an upload."""
        return self.storage.temporary(self.key, suffix)

    def publish(self, temporary: Path, point: str) -> str:
        """Give a finished file its name once it is on the disk.

        Args:
            temporary: The file.
            point: Where tests kill.

        Returns:
            Its sha256 in hexadecimal digits.
        """
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        digest = here(temporary).sha256()
        crash_point(point)
        self.take(temporary)
        return digest

    def describe_free(self) -> str:
        """A sentence about the disk that refused a file that was made for this place."""
        return describe_free(self.temporary())

    def take(self, file: Path) -> None:
        """Give a file of this machine this name; one that is uploaded stays where it is too."""
        self.storage.take(self.key, file)

    def make_folder(self, make: Callable[[Path], None]) -> None:
        """Make a folder with all its files, all at once where that can be; where it exists, put back what it lacks.

        Args:
            make: Makes it where it is told, always the same.
        """
        self.storage.make_folder(self.key, make)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove a file."""
        self.storage.remove(self.key, missing_ok=missing_ok)

    def remove_tree(self) -> None:
        """Remove a folder with all that lies beneath, as far as it is there."""
        self.storage.remove_tree(self.key)

    def remove_empty(self) -> None:
        """Remove a folder if nothing lies in it."""
        self.storage.remove_empty(self.key)

    def sweep(self) -> None:
        """Remove what a killed run left half-written beneath; only for the holder of the workspace's lock."""
        self.storage.sweep(self.key)

    def free_bytes(self) -> int | None:
        """Bytes that are free where it lies or will lie; None in object storage, which has no end."""
        return self.storage.free_bytes(self.key)


_FOLDERS: Remembered[Location, frozenset[str]] = Remembered(FRESH)
Place = str | Path | Location  # as callers of the library name it


def _parts(location: Location) -> list[str]:
    return str(location).rstrip("/").split("/")


def here(path: Path) -> Location:
    """A file or folder of this machine."""
    return Location(_DISK, str(path))


def locate(text: str, base: Location | None = None) -> Location:
    """The location that a text means: in object storage where it is an address, else of this machine.

    Args:
        text: An address such as ``s3://bucket/folder``, or a path.
        base: Where a relative path starts.

    Raises:
        ConfigError: If it is an address of another kind, or holds what may be a credential.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        if "://" in text or re.match(r"[a-z0-9]+:/[^/]", text):
            raise ConfigError(
                f"{redacted(text)}: expected a file of this machine, or an address that starts with s3://, "
                "gs:// or az://; other addresses are not supported"
            )
        path = Path(text)
        if base is None or path.is_absolute():
            return here(path)
        if not base.far:
            return here(base.local() / path)
        _refuse_odd(str(base / str(path)), base)
        return (base / str(path)).resolve()
    bucket, _, key = found[2].partition("/")
    _refuse_odd(found[2], f"{found[1]}://...")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
        raise ConfigError(f"{text}: expected the name of a bucket after {found[1]}://")
    return Location(Bucket(found[1], bucket), key).resolve()


def located(place: Place) -> Location:
    """The location that a caller means by a text, a path or a location.

    Raises:
        ConfigError: See :func:`locate`.
    """
    return place if isinstance(place, Location) else locate(str(place))


def _refuse_odd(text: str, shown: object) -> None:
    # what is refused is not repeated: it may be a secret
    if _ODD.search(text):
        raise ConfigError(
            f"{shown}: expected an address without user, password, query or any of @ ? # % and backslash; "
            "credentials come from the environment or the machine's role"
        )


def map_files(function: Callable[[Any], Result], files: Sequence[Location]) -> Iterator[Result]:
    """A function's results on some files, in order; several at once in object storage, where waiting is most of it."""
    if not any(file.far for file in files):
        yield from map(function, files)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(function, files)


def present(files: Sequence[Location]) -> list[Location]:
    """Those of some files that are there; in object storage each folder is listed once, if that is allowed."""
    folders = {file.parent for file in files if file.far}
    listed = dict(zip(folders, map_files(_listed, [*folders]), strict=True))
    return [file for file in files if (file.key in listed[file.parent] if file.far else file.is_file())]


def _listed(folder: Location) -> frozenset[str]:
    return _FOLDERS.get(folder, lambda: _list(folder))


def _list(folder: Location) -> frozenset[str]:
    try:
        return frozenset(folder.storage.names(folder.key))
    except (FileNotFoundError, PermissionError):
        return frozenset()
