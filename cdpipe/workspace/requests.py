"""Requests to object stores (Amazon S3, Google Cloud Storage, Azure Blob), each counted, in Python's own terms."""

import contextlib
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cdpipe.workspace.clients import Address, Taken, count, tried

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
    entries = {str(entry["path"]): entry for page in found for entry in page}
    for key in sorted(entries):
        if key != folder.key:
            yield Address(folder.scheme, folder.bucket, key), _as_head(entries[key])


def list_folder(folder: Address) -> list[Address]:
    """What lies right in a folder: objects, and folders of objects."""
    found = tried(folder, lambda library, store: library.list_with_delimiter(store, folder.key or None))
    keys = [*(str(entry["path"]) for entry in found["objects"]), *map(str, found["common_prefixes"])]
    count("LIST", max(1, -(-len(keys) // PAGE)))
    return [Address(folder.scheme, folder.bucket, key) for key in sorted(keys) if key != folder.key]


def _as_head(meta: Any) -> Head:
    modified = meta.get("last_modified")
    return Head(
        int(meta["size"]), modified.timestamp() if modified else time.time(), str(meta["e_tag"]), meta.get("version")
    )


class ObjectReader(io.RawIOBase):
    """An object as a file that Python's buffered files read by ranges: all of one content, or an error."""

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
