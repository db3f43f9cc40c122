"""Requests to object stores (Amazon S3, Google Cloud Storage, Azure Blob), each counted, in Python's own terms."""

import contextlib
import fnmatch
import hashlib
import io
import os
import posixpath
import re
import stat
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from cdpipe.errors import ConfigError
from cdpipe.workspace.clients import Address, Taken, count, redacted, tried

PIECE = 16 * 2**20  # bytes of one GET: larger ones come in several, so that a broken one costs little
ONE_PUT = 64 * 2**20  # bytes that go in one PUT; what is larger goes up in parts, and appears at once all the same
PART = 32 * 2**20
GAP = 32 * 2**10  # bytes between two ranges that are read for nothing rather than asked for twice
PAGE = 1000  # names a LIST gives


@dataclass(frozen=True, slots=True)
class Head:
    """What a store says of an object: bytes, seconds since the epoch, and the tag that another content changes."""

    size: int
    modified: float
    e_tag: str
    version: str | None = None


def head(address: Address) -> Head:
    """What the store says of an object.

    Raises:
        FileNotFoundError: If there is none.
        PermissionError: If the store refuses.
        ConnectionError: If it does not answer after many tries. All functions here raise these.
    """
    count("HEAD")
    return _as_head(tried(address, lambda library, store: library.head(store, address.key)))


def read(address: Address) -> bytes:
    """All of an object."""
    return b"".join(read_pieces(address))


def read_pieces(address: Address) -> Iterator[bytes]:
    """All of an object in pieces, which are sure to be of one content."""
    first, known = read_small(address)
    yield first
    for start in range(len(first), known.size, PIECE):
        yield read_range(address, start, min(PIECE, known.size - start), known.e_tag)


def read_small(address: Address) -> tuple[bytes, Head]:
    """All of an object in a single request, or the first piece of a large one."""
    count("GET")

    def get(library: Any, store: Any) -> tuple[bytes, Any]:
        found = library.get(store, address.key, options={"range": (0, PIECE)})
        return bytes(found.bytes()), found.meta

    try:
        data, meta = tried(address, get)
    except ConnectionError as error:
        if "416" in str(error):  # an empty object has no range
            return b"", head(address)
        raise
    return data, _as_head(meta)


def read_range(address: Address, start: int, length: int, e_tag: str | None = None) -> bytes:
    """Part of an object, which must still have the tag that is given."""
    count("GET")
    options: dict[str, Any] = {"range": (start, start + length)} | ({"if_match": e_tag} if e_tag else {})
    try:
        return tried(address, lambda library, store: bytes(library.get(store, address.key, options=options).bytes()))
    except Taken:
        raise ConnectionError(5, "The object was replaced while it was read", str(address)) from None


def read_end(address: Address, length: int) -> tuple[bytes, int]:
    """The last bytes of an object, and its size."""
    if address.scheme == "az":  # has no such request
        size = head(address).size
        start = max(0, size - length)
        return read_range(address, start, size - start), size
    count("GET")

    def get(library: Any, store: Any) -> tuple[bytes, int]:
        found = library.get(store, address.key, options={"range": {"suffix": length}})
        return bytes(found.bytes()), int(found.meta["size"])

    return tried(address, get)


def read_ranges(address: Address, ranges: Sequence[tuple[int, int]], gap: int = GAP) -> list[bytes]:
    """Several parts of an object, at once: each (start, length). Those with less than a gap between share a request."""
    joined = _join(ranges, gap)
    count("GET", len(joined))
    starts, ends = [start for start, _ in joined], [end for _, end in joined]
    parts = tried(
        address,
        lambda library, store: [
            bytes(part) for part in library.get_ranges(store, address.key, starts=starts, ends=ends, coalesce=0)
        ],
    )
    found = []
    for start, length in ranges:
        number = next(index for index, (first, end) in enumerate(joined) if first <= start and start + length <= end)
        found.append(parts[number][start - starts[number] : start - starts[number] + length])
    return found


def _join(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """First byte and end of ranges, those that lie close together as one."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], max(joined[-1][1], start + length)
        else:
            joined.append((start, start + length))
    return joined


def write(address: Address, data: Any, size: int) -> Head:
    """Store an object; nobody ever sees a part of it.

    Args:
        address: Where to.
        data: Bytes, or a file that is open for reading.
        size: How many bytes that is.
    """
    parts = size > ONE_PUT
    count("PUT", -(-size // PART) + 2 if parts else 1)

    def put(library: Any, store: Any) -> Any:
        if hasattr(data, "seek"):
            data.seek(0)
        return library.put(store, address.key, data, use_multipart=parts, chunk_size=PART)

    return _as_head({**tried(address, put), "size": size})


def write_if(address: Address, data: bytes, expected: Head | None, *, quick: bool = False) -> Head:
    """Store an object if what is there is still what is expected: nothing (None), or the content of that tag.

    Args:
        address: Where to.
        data: What to store.
        expected: What was seen there.
        quick: Give up within seconds, as what is to be renewed in time must.

    Raises:
        Taken: If it is not. Since an answer may get lost after the store has acted, a caller reads what is there then:
            it may be its own.
    """
    count("PUT")
    mode: Any = "create"
    if expected is not None:
        mode = {"e_tag": expected.e_tag} | ({"version": expected.version} if expected.version else {})
    found = tried(
        address, lambda library, store: library.put(store, address.key, data, mode=mode, use_multipart=False), quick
    )
    return _as_head({**found, "size": len(data)})


def delete(address: Address) -> None:
    """Remove an object, if it is there."""
    count("DELETE")
    with contextlib.suppress(FileNotFoundError):
        tried(address, lambda library, store: library.delete(store, address.key))


def list_objects(folder: Address) -> Iterator[tuple[Address, Head]]:
    """Every object beneath a folder, in the order of names."""

    def pages(library: Any, store: Any) -> list[Any]:
        return [list(page) for page in library.list(store, folder.key or None, chunk_size=PAGE)]

    found = tried(folder, pages)
    count("LIST", max(1, len(found)))
    entries = {str(each["path"]): each for page in found for each in page}
    for key in sorted(entries):
        if key != folder.key:
            yield Address(folder.scheme, folder.bucket, key), _as_head(entries[key])


def list_folder(folder: Address) -> list[Address]:
    """What lies right in a folder: objects, and folders of objects."""
    found = tried(folder, lambda library, store: library.list_with_delimiter(store, folder.key or None))
    keys = [*(str(each["path"]) for each in found["objects"]), *map(str, found["common_prefixes"])]
    count("LIST", max(1, -(-len(keys) // PAGE)))
    return [Address(folder.scheme, folder.bucket, key) for key in sorted(keys) if key != folder.key]


def _as_head(meta: Any) -> Head:
    modified = meta.get("last_modified")
    return Head(
        int(meta["size"]), modified.timestamp() if modified else time.time(), str(meta["e_tag"]), meta.get("version")
    )


# An object in a store as a file that is read by ranges, as Python's buffered files want it.


class ObjectReader(io.RawIOBase):
    """What is read of an object is all of one content, or an error."""

    def __init__(self, address: Address, head: Head) -> None:
        self._address, self._head, self._position = address, head, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read elsewhere next."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._head.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer by one request; 0 at the end."""
        length = max(0, min(len(buffer), self._head.size - self._position))
        if length:
            data = read_range(self._address, self._position, length, self._head.e_tag)
            buffer[: len(data)] = data
            self._position += len(data)
            return len(data)
        return 0


# Answers that hold for a while: what object storage has said needs not be asked again for every block.

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

_ALL: "WeakSet[Remembered[Hashable, object]]" = WeakSet()


class Remembered(Generic[Key, Answer]):
    """Answers by key, of all threads of this process; errors are not remembered."""

    def __init__(self, seconds: float, most: int = 10_000) -> None:
        """Remember each for so long, and no more than so many."""
        self._seconds, self._most = seconds, most
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[float, Answer]] = {}
        _ALL.add(self)  # type: ignore[arg-type]

    def get(self, key: Key, ask: Callable[[], Answer]) -> Answer:
        """The answer that is remembered, or else the one that ``ask`` gives now."""
        asked = time.monotonic()
        with self._lock:
            known = self._known.get(key)
        if known is not None and asked - known[0] < self._seconds:
            return known[1]
        answer = ask()
        with self._lock:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = asked, answer
        return answer

    def forget(self, key: Key) -> None:
        """Ask again next time."""
        with self._lock:
            self._known.pop(key, None)

    def forget_all(self) -> None:
        """Ask again for everything."""
        with self._lock:
            self._known.clear()


def forget_everything() -> None:
    """Ask again for everything that anything remembers, as a run does that begins."""
    for each in list(_ALL):
        each.forget_all()


# A path in object storage: looks like any other ``Path`` to those who use it, and is read by requests.

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
        return _HEADS.get(self.address, lambda: head(self.address))

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
        return bool(list_folder(self.address))

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
        return read(self.address)

    def sha256(self) -> str:
        """Hash of all of the object, in hexadecimal digits."""
        digest = hashlib.sha256()
        for piece in read_pieces(self.address):
            digest.update(piece)
        return digest.hexdigest()

    def write_bytes(self, data: Any) -> int:
        """Store the object at once."""
        _HEADS.forget(self.address)
        return write(self.address, data, len(data)).size

    def upload(self, file: Path) -> None:
        """Store the content of a file of this machine at once."""
        with file.open("rb") as stream:
            self.store(stream, file.stat().st_size)

    def store(self, stream: Any, size: int) -> None:
        """Store the content of an open file, of so many bytes, at once."""
        _HEADS.forget(self.address)
        write(self.address, stream, size)

    def write_guarded(self, data: bytes) -> None:
        """Store the object unless somebody else does at the same time.

        Raises:
            Taken: If somebody did, and something else.
        """
        _HEADS.forget(self.address)
        try:
            there = read_small(self.address)
        except FileNotFoundError:
            there = None
        if there is None or there[0] != data:
            try:
                write_if(self.address, data, there[1] if there else None)
            except Taken:
                # perhaps it was this very put, the first answer to which got lost
                if read_small(self.address)[0] != data:
                    raise

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok:
            self.head()
        _HEADS.forget(self.address)
        delete(self.address)

    def iterdir(self) -> "Iterator[ObjectPath]":  # type: ignore[override]
        """What lies right in the folder.

        Raises:
            FileNotFoundError: If nothing does.
        """
        found = list_folder(self.address)
        if not found:
            raise FileNotFoundError(2, "Nothing lies there", str(self))
        return map(ObjectPath, map(str, found))

    def listed(self) -> "Iterator[tuple[ObjectPath, Head]]":
        """Every object beneath."""
        for address, found in list_objects(self.address):
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
