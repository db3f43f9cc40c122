"""Reads parts of stored blocks in object storage: indexes are asked for once, neighbouring chunks come together."""

from typing import Any

from numpy.typing import NDArray

from cdpipe.formats.array_description import Description
from cdpipe.formats.shards import Index, decode_chunk, index_bytes, parse_index, wanted_chunks
from cdpipe.geo.grid import Window
from cdpipe.workspace.bucket import ObjectPath, Remembered, read_end, read_ranges

GAP = 2**19  # bytes: what a fast line carries in the time that a request takes
# A block's content never changes under its name, except that what was damaged is made again; checksums tell.
_INDEXES: Remembered[ObjectPath, tuple[Index, int]] = Remembered(60.0, most=4096)


def block_index(file: ObjectPath, like: Description) -> tuple[Index, int]:
    """Offset and length of each chunk of a stored block, and where the chunks end.

    Raises:
        FileNotFoundError: If there is no such object.
        ValueError: If it is not what was written.
    """

    def ask() -> tuple[Index, int]:
        if not like.sharded:
            size = file.head().size
            return parse_index(b"", size, like)
        data, size = read_end(file.address, index_bytes(like))
        return parse_index(data, size, like)

    return _INDEXES.get(file, ask)


def read_remote_object(file: ObjectPath, like: Description, window: Window, out: NDArray[Any]) -> None:
    """As :func:`cdpipe.formats.shards.read_object`, of an object in object storage."""
    try:
        _read(file, like, window, out)
    except ValueError:  # the index may be that of an object that has been made again since
        _INDEXES.forget(file)
        _read(file, like, window, out)


def _read(file: ObjectPath, like: Description, window: Window, out: NDArray[Any]) -> None:
    index, end = block_index(file, like)
    chunks = list(wanted_chunks(index, end, like, window))
    parts = read_ranges(file.address, [place for place, _, _ in chunks], GAP)
    for data, (place, target, part) in zip(parts, chunks, strict=True):
        if len(data) != place[1]:
            raise ValueError("it ends too early")
        out[target] = decode_chunk(data, like)[part]
