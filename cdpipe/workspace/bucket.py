"""A bucket of object storage (Amazon S3, Google Cloud Storage, Azure Blob) as a storage of files."""

import contextlib
import fnmatch
import hashlib
import io
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cdpipe.errors import ConfigError, LockedError
from cdpipe.workspace import requests
from cdpipe.workspace.clients import Address, Taken
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.lock import confirm, leased
from cdpipe.workspace.remembered import Remembered, forget_everything
from cdpipe.workspace.requests import Head
from cdpipe.workspace.storage import LOCK, Stat

BUFFER = 64 * 2**10  # bytes that a file read in small steps asks for at once
FRESH = 2.0  # seconds that an answer about an object holds; opening one file asks several times

_HEADS: Remembered[Address, Head] = Remembered(FRESH)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Objects by their names. See :class:`cdpipe.workspace.storage.Storage`.

    There are no folders to be made, no renaming, and no file that the system could open.

    Attributes:
        scheme: ``s3``, ``gs`` or ``az``.
        name: The bucket or container.
    """

    scheme: str
    name: str

    far = True

    def show(self, key: str) -> str:
        """The address."""
        return f"{self.scheme}://{self.name}/{key}" if key else f"{self.scheme}://{self.name}"

    def address(self, key: str) -> Address:
        """What requests are made for.

        Raises:
            ConfigError: If the key leads elsewhere.
        """
        if ".." in key.split("/"):
            raise ConfigError(f"{self.show(key)}: expected an address such as s3://bucket/folder")
        return Address(self.scheme, self.name, key)

    def local(self, key: str) -> Path:
        """Refuse to be a file of this machine.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{self.show(key)}: lies in object storage, which this step cannot read or write; "
            "give a path of this machine"
        )

    def resolve(self, key: str) -> str:
        """Without ``..``; there are no links.

        Raises:
            ConfigError: If it leads out of the bucket.
        """
        normal = posixpath.normpath(key or ".")
        if normal.split("/")[0] == "..":
            raise ConfigError(f"{self.show(key)}: leads out of the bucket")
        return "" if normal == "." else normal

    def head(self, key: str) -> Head:
        """What the store says of the object, at most two seconds old."""
        address = self.address(key)
        return _HEADS.get(address, lambda: requests.head(address))

    def stat(self, key: str) -> Stat:
        """Size, time and ETag, at most two seconds old."""
        found = self.head(key)
        return Stat(found.size, found.modified, found.e_tag)

    def is_file(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self, key: str) -> bool:
        """Whether any object lies beneath."""
        return bool(requests.list_folder(self.address(key)))

    def names(self, key: str) -> list[str]:
        """What lies right in a folder, in the order of names.

        Raises:
            FileNotFoundError: If nothing does.
        """
        found = requests.list_folder(self.address(key))
        if not found:
            raise FileNotFoundError(2, "Nothing lies there", self.show(key))
        return [address.key for address in found]

    def walk(self, key: str) -> Iterator[tuple[str, Stat]]:
        """Every object beneath, in the order of names."""
        for address, found in requests.list_objects(self.address(key)):
            yield address.key, Stat(found.size, found.modified, found.e_tag)

    def glob(self, key: str, pattern: str) -> Iterator[str]:
        """Objects and folders that match, in the order of names."""
        wanted, start = pattern.split("/"), len(key.split("/")) if key else 0
        found = {tuple(name.split("/")[: start + len(wanted)]) for name, _ in self.walk(key)}
        for parts in sorted(found):
            if len(parts) == start + len(wanted) and all(map(fnmatch.fnmatchcase, parts[start:], wanted)):
                yield "/".join(parts)

    def read(self, key: str) -> bytes:
        """All of an object."""
        return requests.read(self.address(key))

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]], gap: int) -> list[bytes]:
        """Parts of an object, asked for together."""
        return requests.read_ranges(self.address(key), ranges, gap)

    def read_end(self, key: str, length: int) -> tuple[bytes, int]:
        """The last bytes of an object, and its size."""
        return requests.read_end(self.address(key), length)

    def open(self, key: str, buffering: int) -> BinaryIO:
        """Open an object, which is read by ranges as they are wanted."""
        reader = requests.ObjectReader(self.address(key), self.head(key))
        return io.BufferedReader(reader, buffering if buffering > 1 else BUFFER)

    def sha256(self, key: str) -> str:
        """Hash of an object, read in pieces."""
        digest = hashlib.sha256()
        for piece in requests.read_pieces(self.address(key)):
            digest.update(piece)
        return digest.hexdigest()

    def write(self, key: str, pieces: Sequence[bytes]) -> None:
        """Store an object at once."""
        self._put(key, b"".join(pieces))
        crash_point("file-named")

    def _put(self, key: str, data: bytes) -> None:
        address = self.address(key)
        _HEADS.forget(address)
        requests.write(address, data, len(data))

    def write_alone(self, key: str, data: bytes) -> None:
        """Store an object when the lock is confirmed, unless somebody else does at the same time."""
        confirm(self.address(key))
        crash_point("file-unnamed")
        try:
            self.write_guarded(key, data)
        except Taken:
            raise LockedError(
                f"{self.show(key)}: another run has written it just now; run the same command again"
            ) from None
        crash_point("file-named")

    def write_guarded(self, key: str, data: bytes) -> None:
        """Store an object unless somebody else does at the same time.

        Raises:
            Taken: If somebody did, and something else.
        """
        address = self.address(key)
        _HEADS.forget(address)
        try:
            there = requests.read_small(address)
        except FileNotFoundError:
            there = None
        if there is None or there[0] != data:
            try:
                requests.write_if(address, data, there[1] if there else None)
            except Taken:
                # perhaps it was this very put, the first answer to which got lost
                if requests.read_small(address)[0] != data:
                    raise

    def append(self, key: str, data: bytes) -> None:
        """Store an object anew with more at its end."""
        there = b""
        with contextlib.suppress(FileNotFoundError):
            there = self.read(key)
        self._put(key, there + data)

    def temporary(self, key: str, suffix: str) -> Path:
        """A path on this machine's disk, from where it is uploaded."""
        return Path(tempfile.gettempdir(), f"cdpipe-{posixpath.basename(key)}.{os.getpid()}.{suffix}")

    def take(self, key: str, file: Path) -> None:
        """Upload a file, which stays where it is."""
        address = self.address(key)
        _HEADS.forget(address)
        with file.open("rb") as stream:
            requests.write(address, stream, file.stat().st_size)

    def make_folder(self, key: str, make: Callable[[Path], None]) -> None:
        """Put files where there is no renaming: all that do so put the same bytes, in the order of names."""
        with tempfile.TemporaryDirectory() as place:
            whole = Path(place) / posixpath.basename(key)
            make(whole)
            for file in sorted(whole.rglob("*")):
                if file.is_file():
                    self.write(f"{key}/{file.relative_to(whole).as_posix()}", [file.read_bytes()])

    def remove(self, key: str, *, missing_ok: bool) -> None:
        """Remove an object."""
        address = self.address(key)
        if not missing_ok:
            self.head(key)
        _HEADS.forget(address)
        requests.delete(address)

    def remove_tree(self, key: str) -> None:
        """Remove every object beneath."""
        for name, _ in self.walk(key):
            self.remove(name, missing_ok=True)

    def remove_empty(self, key: str) -> None:
        """Nothing to do: folders go with their objects."""

    def sweep(self, key: str) -> None:
        """Nothing to do: nothing is ever half-written."""

    def free_bytes(self, key: str) -> int | None:  # noqa: ARG002 (theirs)
        """None: there is no end."""
        return None

    @contextlib.contextmanager
    def file_on_disk(self, key: str) -> Iterator[Path]:
        """A copy of an object."""
        with tempfile.TemporaryDirectory() as place:
            yield self._copy(key, Path(place) / posixpath.basename(key))

    @contextlib.contextmanager
    def folder_on_disk(self, key: str) -> Iterator[Path]:
        """A copy of all that lies beneath."""
        with tempfile.TemporaryDirectory() as place:
            for name, _ in self.walk(key):
                self._copy(name, Path(place) / posixpath.relpath(name, key or "."))
            yield Path(place)

    def _copy(self, key: str, file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.writelines(requests.read_pieces(self.address(key)))
        return file

    @contextlib.contextmanager
    def hold(self, key: str, *, wait: bool) -> Iterator[None]:
        """Hold a workspace by an object that must be renewed: :mod:`cdpipe.workspace.lock`."""
        forget_everything()  # that an earlier run was told
        with leased(self.address(f"{key}/{LOCK}" if key else LOCK), wait=wait):
            yield
