"""A path in object storage: looks like any other ``Path`` to those who use it, and is read by requests."""

import fnmatch
import hashlib
import io
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any

from cdpipe.errors import ConfigError
from cdpipe.formats import object_requests
from cdpipe.formats.object_reader import ObjectReader
from cdpipe.formats.object_requests import Head
from cdpipe.formats.object_stores import Address, Taken, redacted
from cdpipe.formats.remembered import Remembered

SCHEMES = ("s3", "gs", "az")
BUFFER = 64 * 2**10  # bytes that a file read in small steps asks for at once
FRESH = 2.0  # seconds that an answer about an object holds; opening one file asks several times

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})://?(?!/)(.*)", re.DOTALL)
# no user, no query, no escape, and nothing that a bucket's name or a key on the way through GDAL could be taken for
_ODD = re.compile(r"[@?#%\\\0-\x1f\x7f]")

_HEADS: Remembered[Address, Head] = Remembered(FRESH)


class ObjectPath(PosixPath):
    """The path of an object, or of a folder of objects: a prefix that some have.

    There are no folders to be made, no renaming, and no file that the system could open: a library that tries gets a
    :class:`ConfigError` that says so.
    """

    def __str__(self) -> str:
        """As users write it: with both slashes, of which a path keeps one."""
        return super().__str__().replace(":/", "://", 1) if self.is_absolute() else super().__str__()

    def __fspath__(self) -> str:
        """Refuse to be a file of this machine.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{self}: lies in object storage, which this step cannot read or write; give a path of this machine"
        )

    @property
    def address(self) -> Address:
        """Bucket and name."""
        parts = self.parts
        if len(parts) < 2 or not self.is_absolute() or ".." in parts:
            raise ConfigError(f"{self}: expected an address such as s3://bucket/folder")
        return Address(parts[0][:-1], parts[1], "/".join(parts[2:]))

    def is_absolute(self) -> bool:
        """Whether it names a bucket; a part of an address does not."""
        return self.parts[:1] in [(f"{scheme}:",) for scheme in SCHEMES]

    def absolute(self) -> "ObjectPath":
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> "ObjectPath":  # noqa: ARG002 (Path's)
        """Without ``..``; there are no links.

        Raises:
            ConfigError: If it leads out of the bucket.
        """
        scheme, bucket, *rest = self.parts
        key = posixpath.normpath("/".join(rest)) if rest else "."
        if key.startswith(".."):
            raise ConfigError(f"{self}: leads out of the bucket")
        return ObjectPath(scheme, bucket, *([] if key == "." else [key]))

    def expanduser(self) -> "ObjectPath":
        """Itself: there are no homes."""
        return self

    def head(self) -> Head:
        """What the store says of the object, at most two seconds old.

        Raises:
            FileNotFoundError: If there is none.
        """
        return _HEADS.get(self.address, lambda: object_requests.head(self.address))

    def exists(self, **_: Any) -> bool:
        """Whether there is such an object or folder."""
        return self.is_file() or self.is_dir()

    def is_file(self, **_: Any) -> bool:
        """Whether there is such an object."""
        try:
            self.head()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self, **_: Any) -> bool:
        """Whether any object lies beneath."""
        return bool(object_requests.list_folder(self.address))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 (Path's)
        """Size and time; all else is made up."""
        found = self.head()
        return os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, found.size, *[found.modified] * 3))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: folders come with their objects."""

    def rmdir(self) -> None:
        """Nothing to do: folders go with their objects."""

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any, **__: Any) -> Any:
        """Open the object for reading: ``rb`` by ranges as they are wanted, ``r`` as text of all of it.

        Raises:
            ConfigError: In any other mode.
        """
        if mode == "rb":
            return io.BufferedReader(ObjectReader(self.address, self.head()), buffering if buffering > 1 else BUFFER)
        if mode == "r":
            return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding or "utf-8")
        raise ConfigError(f"{self}: lies in object storage, where files cannot be written bit by bit")

    def read_bytes(self) -> bytes:
        """All of the object."""
        return object_requests.read(self.address)

    def sha256(self) -> str:
        """Hash of all of the object, in hexadecimal digits."""
        digest = hashlib.sha256()
        for piece in object_requests.read_pieces(self.address):
            digest.update(piece)
        return digest.hexdigest()

    def write_bytes(self, data: Any) -> int:
        """Store the object at once."""
        _HEADS.forget(self.address)
        return object_requests.write(self.address, data, len(data)).size

    def upload(self, file: Path) -> None:
        """Store the content of a file of this machine at once."""
        with file.open("rb") as stream:
            self.store(stream, file.stat().st_size)

    def store(self, stream: Any, size: int) -> None:
        """Store the content of an open file, of so many bytes, at once."""
        _HEADS.forget(self.address)
        object_requests.write(self.address, stream, size)

    def write_guarded(self, data: bytes) -> None:
        """Store the object unless somebody else does at the same time.

        Raises:
            Taken: If somebody did, and something else.
        """
        _HEADS.forget(self.address)
        try:
            there = object_requests.read_small(self.address)
        except FileNotFoundError:
            there = None
        if there is None or there[0] != data:
            try:
                object_requests.write_if(self.address, data, there[1] if there else None)
            except Taken:
                # perhaps it was this very put, the first answer to which got lost
                if object_requests.read_small(self.address)[0] != data:
                    raise

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok:
            self.head()
        _HEADS.forget(self.address)
        object_requests.delete(self.address)

    def iterdir(self) -> "Iterator[ObjectPath]":  # type: ignore[override]
        """What lies right in the folder.

        Raises:
            FileNotFoundError: If nothing does.
        """
        found = object_requests.list_folder(self.address)
        if not found:
            raise FileNotFoundError(2, "Nothing lies there", str(self))
        return map(ObjectPath, map(str, found))

    def listed(self) -> "Iterator[tuple[ObjectPath, Head]]":
        """Every object beneath."""
        for address, found in object_requests.list_objects(self.address):
            yield ObjectPath(str(address)), found

    def glob(self, pattern: str, **_: Any) -> "Iterator[ObjectPath]":  # type: ignore[override]
        """Objects and folders whose path from here has as many parts as the pattern and matches them."""
        wanted, start = pattern.split("/"), len(self.parts)
        found = {path.parts[start : start + len(wanted)] for path, _ in self.listed()}
        for parts in sorted(found):
            if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
                yield ObjectPath(self, *parts)

    def rglob(self, pattern: str, **_: Any) -> "Iterator[ObjectPath]":  # type: ignore[override]
        """Objects at any depth with such a name."""
        return (path for path, _ in self.listed() if fnmatch.fnmatchcase(path.name, pattern))


def locate(text: str | Path, base: Path | None = None) -> Path:
    """The path that a text means: in object storage where it is an address, else of this machine.

    Args:
        text: An address such as ``s3://bucket/folder``, or a path.
        base: Where a relative path starts.

    Raises:
        ConfigError: If it is an address of another kind, or holds what may be a credential.
    """
    text = str(text)
    found = _ADDRESS.fullmatch(text)
    if found is None:
        if "://" in text or re.match(r"[a-z0-9]+:/[^/]", text):
            raise ConfigError(
                f"{redacted(text)}: expected a file of this machine, or an address that starts with s3://, "
                "gs:// or az://; other addresses are not supported"
            )
        path = Path(text)
        if isinstance(base, ObjectPath) and not path.is_absolute():
            _refuse_odd(str(base / path), base)
            return (base / path).resolve()
        return base / path if base is not None and not isinstance(base, ObjectPath) else path
    bucket = found[2].partition("/")[0]
    _refuse_odd(found[2], f"{found[1]}://...")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
        raise ConfigError(f"{text}: expected the name of a bucket after {found[1]}://")
    return ObjectPath(f"{found[1]}:", *found[2].split("/")).resolve()


def _refuse_odd(text: str, shown: object) -> None:
    # what is refused is not repeated: it may be a secret
    if _ODD.search(text):
        raise ConfigError(
            f"{shown}: expected an address without user, password, query or any of @ ? # % and backslash; "
            "credentials come from the environment or the machine's role"
        )
