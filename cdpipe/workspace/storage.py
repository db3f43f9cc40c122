"""What a disk and a bucket have in common: files by name, read whole or in part, written whole or not at all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

LOCK = ".lock"  # the file in a workspace by which one run at a time holds it


@dataclass(frozen=True, slots=True)
class Stat:
    """What a storage says of a file.

    Attributes:
        size: Bytes.
        modified: Seconds since the epoch.
        tag: What another content changes: an ETag, or a time in nanoseconds.
    """

    size: int
    modified: float
    tag: int | str


class Storage(Protocol):
    """A place that keeps files by their keys: a :class:`Disk <cdpipe.workspace.disk.Disk>` or a ``Bucket``.

    Whatever is missing is a ``FileNotFoundError``, whatever is refused a ``PermissionError``; a store that does not
    answer after many tries is a ``ConnectionError``.
    """

    @property
    def far(self) -> bool:
        """Whether every look costs a request, so that answers are remembered and many are asked for at once."""

    @property
    def scheme(self) -> str:
        """What addresses start with, such as ``s3``; nothing for paths."""

    def show(self, key: str) -> str:
        """The file as users write it."""

    def local(self, key: str) -> Path:
        """The file's path on this machine.

        Raises:
            ConfigError: If it has none.
        """

    def resolve(self, key: str) -> str:
        """The key without ``..``, links followed."""

    def stat(self, key: str) -> Stat:
        """Size and age of a file."""

    def is_file(self, key: str) -> bool:
        """Whether there is such a file."""

    def is_dir(self, key: str) -> bool:
        """Whether there is such a folder; in a bucket, whether any object lies beneath."""

    def names(self, key: str) -> list[str]:
        """Keys of what lies right in a folder."""

    def walk(self, key: str) -> Iterator[tuple[str, Stat]]:
        """Every file beneath a folder, as far as it is there."""

    def glob(self, key: str, pattern: str) -> Iterator[str]:
        """Keys beneath a folder that have as many parts as the pattern, and match it."""

    def read(self, key: str) -> bytes:
        """All of a file."""

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]], gap: int) -> list[bytes]:
        """Parts of a file, each (start, length); those with less than a gap between may be read together."""

    def read_end(self, key: str, length: int) -> tuple[bytes, int]:
        """The last bytes of a file, and its size."""

    def open(self, key: str, buffering: int) -> BinaryIO:
        """Open a file for reading."""

    def sha256(self, key: str) -> str:
        """Hash of a file, in hexadecimal digits."""

    def write(self, key: str, pieces: Sequence[bytes]) -> None:
        """Write a file so that readers see all of it or nothing, and a power cut keeps it."""

    def write_alone(self, key: str, data: bytes) -> None:
        """The same as a workspace's only holder.

        Raises:
            LockedError: If another run has taken the workspace over.
        """

    def append(self, key: str, data: bytes) -> None:
        """Add to a file, which one process at a time may do."""

    def temporary(self, key: str, suffix: str) -> Path:
        """Where a file of this machine is made before it is published under a key."""

    def take(self, key: str, file: Path) -> None:
        """Give a finished file of this machine, whose bytes are on the disk, its place."""

    def make_folder(self, key: str, make: Callable[[Path], None]) -> None:
        """Make a folder with all its files at once; where it exists, put back those that it lacks."""

    def remove(self, key: str, *, missing_ok: bool) -> None:
        """Remove a file."""

    def remove_tree(self, key: str) -> None:
        """Remove a folder with all that lies beneath, as far as it is there."""

    def remove_empty(self, key: str) -> None:
        """Remove a folder if nothing lies in it."""

    def sweep(self, key: str) -> None:
        """Remove what a killed run left half-written beneath a folder; only for the holder of the workspace's lock."""

    def free_bytes(self, key: str) -> int | None:
        """Bytes that are free where a file lies or will lie; None where there is no end."""

    def file_on_disk(self, key: str) -> AbstractContextManager[Path]:
        """A file of this machine with the same content, for libraries that only read."""

    def folder_on_disk(self, key: str) -> AbstractContextManager[Path]:
        """The same for a folder."""

    def hold(self, key: str, *, wait: bool) -> AbstractContextManager[None]:
        """Hold a workspace for writing.

        Raises:
            ConfigError: If it cannot be written.
            LockedError: If another process holds it.
        """
