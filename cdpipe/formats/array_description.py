"""Parses an array's description; one that cdpipe never writes is refused before memory is given to what it declares."""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

# Far beyond what a group is made of. A description that declares more was tampered with, and costs memory to believe.
MAX_BANDS, MAX_CHUNK_BYTES, MAX_SHARD_CHUNKS = 1024, 2**30, 2**16

_CHECKSUM = {"name": "crc32c"}


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
