"""Reads and writes stored objects: shards of blosc chunks with their checksums, byte for byte as zarr-python does.

Zarr-python reads these too, through a dozen layers made for any codec and any storage; what they cost is most of the
time of a training window. Nothing is skipped here: every chunk's and every index's crc32c is compared, and a
chunk that is missing is an error, never the fill value.
Format: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed (index at the end).
"""

import json
import math
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import count_tiles
from cdpipe.workspace.location import Location
from cdpipe.workspace.remembered import Remembered

# Far beyond what a group is made of. A description that declares more was tampered with, and costs memory to believe.
MAX_BANDS, MAX_CHUNK_BYTES, MAX_SHARD_CHUNKS = 1024, 2**30, 2**16

SUM = 4  # bytes of a crc32c
MISSING = 2**64 - 1  # offset and length in the index of a chunk that is not there
BLOSC_HEADER = 16  # bytes
HEADER = struct.Struct("<4xIII")  # of blosc: bytes as they were, bytes of a block, bytes as they are stored
UINT32 = struct.Struct("<I")
GAP = 2**19  # bytes between chunks in a bucket that are read for nothing: a fast line's load in a request's time
_CHECKSUM = {"name": "crc32c"}

Index = list[list[list[int]]]  # offset and length of each chunk, by row and column
Place = tuple[int, int]  # offset and length
Part = tuple[Any, ...]  # slices

# In object storage. A block's content never changes under its name, except that what was damaged is made again;
# checksums tell.
_INDEXES: Remembered[Location, tuple[Index, int]] = Remembered(60.0, most=4096)

numcodecs.blosc.use_threads = False  # every call in its own thread; blosc's global pool is safe in one only


@dataclass(frozen=True, slots=True)
class Description:
    """What an array of the store is like.

    Attributes:
        lead: (band,), or nothing for an array without bands.
        side: Its rows and columns.
        dtype: Type of its values.
        fill: What lies in a stored chunk beyond the array's edge.
        chunk: Rows and columns of what is compressed at once; all bands lie together.
        block: Rows and columns of a stored object.
        sharded: Whether a stored object is a shard of chunks, with their index at its end; else it is one chunk.
    """

    lead: tuple[int, ...]
    side: tuple[int, int]
    dtype: np.dtype[Any]
    fill: float
    chunk: tuple[int, int]
    block: tuple[int, int]
    sharded: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands (if any), rows and columns."""
        return (*self.lead, *self.side)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Bands (if any), rows and columns of a chunk."""
        return (*self.lead, *self.chunk)

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk in memory."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, int]:
        """How many chunks a stored object has, down and across."""
        return self.block[0] // self.chunk[0], self.block[1] // self.chunk[1]


@lru_cache(maxsize=1024)
def parse_description(text: bytes) -> Description:
    """Parse a ``zarr.json``; equal ones, such as those of a pair's dates, are parsed once.

    Raises:
        ValueError: If it is not one that cdpipe writes. What is no JSON, or lacks something, raises other exceptions.
    """
    value = json.loads(text)
    shape, block = _lengths(value["shape"]), _lengths(value["chunk_grid"]["configuration"]["chunk_shape"])
    dtype = np.dtype(value["data_type"])
    sharded = value["codecs"][0]["name"] == "sharding_indexed"
    chunk = _lengths(value["codecs"][0]["configuration"]["chunk_shape"]) if sharded else block
    bands = value["attributes"].get("bands", [])
    lead = (len(bands),) if bands else ()
    if len(shape) != len(lead) + 2 or shape[:-2] != lead or lead > (MAX_BANDS,):
        raise ValueError(f"shape {shape} with bands {lead}")
    if min(*shape, *chunk, *block) < 1 or math.prod(chunk) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise ValueError(f"shape {shape} in chunks of {chunk}")
    whole = all(large % small == 0 for large, small in zip(block, chunk, strict=True))
    if not (whole and chunk[:-2] == block[:-2] == lead) or math.prod(block) > math.prod(chunk) * MAX_SHARD_CHUNKS:
        raise ValueError(f"chunks of {chunk} in shards of {block}")
    expected = {
        "node_type": "array",
        "zarr_format": 3,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(block)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": _codecs(dtype, chunk if sharded else None),
        "storage_transformers": [],
    }
    odd = next((name for name, each in expected.items() if value.get(name, []) != each), None)
    if odd is not None:
        raise ValueError(f"{odd}: {value.get(odd)}")
    fill = float(value["fill_value"])  # also of "NaN"
    return Description(lead, shape[-2:], dtype, fill, chunk[-2:], block[-2:], sharded)


def _lengths(values: list[int]) -> Any:
    if not all(isinstance(value, int) for value in values):
        raise ValueError(f"lengths {values}")
    return tuple(values)


def _codecs(dtype: np.dtype[Any], chunk: tuple[int, ...] | None) -> list[dict[str, Any]]:
    """The codecs of an array; ``chunk`` is the shape of a shard's chunks."""
    endian: dict[str, Any] = {"configuration": {"endian": "little"}}
    plain: dict[str, Any] = {"name": "bytes"}
    blosc = {"typesize": dtype.itemsize, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    codecs = [plain | (endian if dtype.itemsize > 1 else {}), {"name": "blosc", "configuration": blosc}, _CHECKSUM]
    if chunk is None:
        return codecs
    shard = {
        "chunk_shape": list(chunk),
        "codecs": codecs,
        "index_codecs": [plain | endian, _CHECKSUM],
        "index_location": "end",
    }
    return [{"name": "sharding_indexed", "configuration": shard}]


class _Scratch(threading.local):
    """A thread's memory for a chunk, as it is stored and as it is: new pages for each would cost more than copies."""

    def __init__(self) -> None:
        self.stored = np.empty(0, np.uint8)
        self.values = np.empty(0, np.uint8)

    def grow(self, stored: int, values: int) -> None:
        if len(self.stored) < stored:
            self.stored = np.empty(stored, np.uint8)
        if len(self.values) < values:
            self.values = np.empty(values, np.uint8)


_SCRATCH = _Scratch()


def read_object(file: Location, like: Description, window: Window, out: NDArray[Any]) -> None:
    """Read a part of a stored object.

    Args:
        file: The object.
        like: The array's description.
        window: The pixels wanted, counted from the object's first.
        out: Where they go, (height, width) or (band, height, width) of the window.

    Raises:
        FileNotFoundError: If there is no such object.
        ValueError: If it is not what was written.
    """
    with open(str(file), "rb", buffering=0) as stream:  # noqa: PTH123 (a Path costs more than reading the index)
        descriptor = stream.fileno()
        index, end = _read_index(descriptor, os.fstat(descriptor).st_size, like)
        for (offset, length), target, part in wanted_chunks(index, end, like, window):
            out[target] = _read_chunk(descriptor, offset, length, like)[part]


def wanted_chunks(index: Index, end: int, like: Description, window: Window) -> Iterator[tuple[Place, Part, Part]]:
    """The chunks that a window touches: where each lies, what of the window it fills, and with what of itself.

    Raises:
        ValueError: If the index does not say where one lies.
    """
    height, width = like.chunk
    across = [
        (col, *_overlap(col * width, width, window.col, window.stop_col))
        for col in range(window.col // width, (window.stop_col - 1) // width + 1)
    ]
    for row in range(window.row // height, (window.stop_row - 1) // height + 1):
        to_rows, of_rows = _overlap(row * height, height, window.row, window.stop_row)
        for col, to_cols, of_cols in across:
            offset, length = index[row][col]
            if offset == length == MISSING:
                raise ValueError(f"chunk {row},{col} is missing")
            if offset + length > end or length < BLOSC_HEADER + SUM:
                raise ValueError(f"chunk {row},{col} lies at {offset} to {offset + length} of {end}")
            yield (offset, length), (..., to_rows, to_cols), (..., of_rows, of_cols)


def _overlap(chunk: int, length: int, start: int, stop: int) -> tuple[slice, slice]:
    """Where a chunk and a window share pixels along an axis: slices of the window and of the chunk."""
    first, last = max(chunk, start), min(chunk + length, stop)
    return slice(first - start, last - start), slice(first - chunk, last - chunk)


def _read_index(file: int, size: int, like: Description) -> tuple[Index, int]:
    length = index_bytes(like)
    return parse_index(os.pread(file, length, size - length) if 0 < length <= size else b"", size, like)


def index_bytes(like: Description) -> int:
    """Length of the index at an object's end, with its checksum; 0 where an object is one chunk."""
    return math.prod(like.chunks) * 16 + SUM if like.sharded else 0


def parse_index(data: bytes, size: int, like: Description) -> tuple[Index, int]:
    """Offset and length of each chunk by row and column, and where the chunks end.

    Args:
        data: The index, as it is stored.
        size: Bytes of the whole object.
        like: The array's description.

    Raises:
        ValueError: If it is damaged.
    """
    if not like.sharded:
        return [[[0, size]]], size
    rows, cols = like.chunks
    length = rows * cols * 16
    end = size - length - SUM
    if len(data) != length + SUM or google_crc32c.value(data[:length]) != int.from_bytes(data[length:], "little"):
        raise ValueError("the checksum of its index does not match")
    entries: list[list[list[int]]] = np.frombuffer(data, "<u8", rows * cols * 2).reshape(rows, cols, 2).tolist()
    return entries, end


def _read_chunk(file: int, offset: int, length: int, like: Description) -> NDArray[Any]:
    _SCRATCH.grow(length, like.chunk_bytes)
    stored = _SCRATCH.stored[:length].data
    if os.preadv(file, [stored], offset) != length:
        raise ValueError("it ends too early")
    return decode_chunk(stored, like)


def decode_chunk(stored: bytes | memoryview, like: Description) -> NDArray[Any]:
    """A chunk's values, in memory that the thread's next chunk is decoded into.

    Args:
        stored: The chunk with its checksum, as it is stored.
        like: The array's description.

    Raises:
        ValueError: If it is damaged.
    """
    length, size = len(stored), like.chunk_bytes
    _SCRATCH.grow(0, size)
    values = _SCRATCH.values[:size]
    data = np.frombuffer(stored, np.uint8, length - SUM)
    if google_crc32c.value(data) != UINT32.unpack_from(stored, length - SUM)[0]:
        raise ValueError("the checksum of a chunk does not match")
    # what the chunk says of itself, before it is believed: its length as it was and as it is stored
    claimed, _, packed = HEADER.unpack_from(stored)
    if claimed != size or packed != len(data):
        raise ValueError(f"a chunk of {size} bytes claims to have {claimed}")
    numcodecs.blosc.decompress(data, values)
    return values.view(like.dtype).reshape(like.chunk_shape)


def encode_object(like: Description, values: NDArray[Any]) -> list[bytes]:
    """The stored object of a whole block, in pieces.

    Args:
        like: The array's description.
        values: (height, width) or (band, height, width) of the block, of the array's type.
    """
    rows, cols = (count_tiles(length, side) for length, side in zip(values.shape[-2:], like.chunk, strict=True))
    index = np.full((*like.chunks, 2), MISSING, "<u8")
    pieces, position = [], 0
    for row, col in _chunk_order(*like.chunks):
        if row >= rows or col >= cols:
            continue
        data = _encode_chunk(like, values, row, col)
        index[row, col] = position, len(data) + SUM
        pieces += [data, _checksum(data)]
        position += len(data) + SUM
    if like.sharded:
        pieces += [index.tobytes(), _checksum(index.tobytes())]
    return pieces


def _encode_chunk(like: Description, values: NDArray[Any], row: int, col: int) -> bytes:
    height, width = like.chunk
    part = values[..., row * height : (row + 1) * height, col * width : (col + 1) * width]
    chunk = np.ascontiguousarray(part)
    if part.shape != like.chunk_shape:  # at the array's edge
        chunk = np.full(like.chunk_shape, like.fill, like.dtype)
        chunk[..., : part.shape[-2], : part.shape[-1]] = part
    return bytes(numcodecs.blosc.compress(chunk, b"lz4", 5, numcodecs.blosc.BITSHUFFLE))


def _checksum(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(SUM, "little")


@lru_cache(maxsize=16)
def _chunk_order(rows: int, cols: int) -> list[tuple[int, int]]:
    """The order of a shard's chunks: along a Morton curve, on which the row's bits come first."""

    def code(place: tuple[int, int]) -> int:
        return sum((number >> bit & 1) << 2 * bit + axis for axis, number in enumerate(place) for bit in range(32))

    return sorted(product(range(rows), range(cols)), key=code)


def block_index(file: Location, like: Description) -> tuple[Index, int]:
    """Offset and length of each chunk of a stored block, and where the chunks end.

    Raises:
        FileNotFoundError: If there is no such object.
        ValueError: If it is not what was written.
    """

    def ask() -> tuple[Index, int]:
        if not like.sharded:
            size = file.stat().size
            return parse_index(b"", size, like)
        data, size = file.read_end(index_bytes(like))
        return parse_index(data, size, like)

    return _INDEXES.get(file, ask)


def read_remote_object(file: Location, like: Description, window: Window, out: NDArray[Any]) -> None:
    """As :func:`read_object`, in object storage: the index is asked for once, neighbouring chunks come together."""
    try:
        _read(file, like, window, out)
    except ValueError:  # the index may be that of an object that has been made again since
        _INDEXES.forget(file)
        _read(file, like, window, out)


def _read(file: Location, like: Description, window: Window, out: NDArray[Any]) -> None:
    index, end = block_index(file, like)
    chunks = list(wanted_chunks(index, end, like, window))
    parts = file.read_ranges([place for place, _, _ in chunks], GAP)
    for data, (place, target, part) in zip(parts, chunks, strict=True):
        if len(data) != place[1]:
            raise ValueError("it ends too early")
        out[target] = decode_chunk(data, like)[part]
