"""Tells whether an array's description is one that cdpipe writes, before memory is given to what it declares."""

import math
from typing import Any

import zarr

# Far beyond what a group is made of. A description that declares more was tampered with, and costs memory to believe.
MAX_BANDS, MAX_CHUNK_BYTES, MAX_SHARD_CHUNKS = 1024, 2**30, 2**16


def find_oddity(array: zarr.Array[Any]) -> str:
    """What an array declares that cdpipe never writes; empty if there is nothing."""
    bands, chunk, shard = array.attrs.get("bands", []), array.chunks, array.shards or array.chunks
    lead = (len(bands),) if isinstance(bands, list) and bands else ()
    if len(array.shape) != len(lead) + 2 or array.shape[:-2] != lead or lead > (MAX_BANDS,):
        return f"shape {array.shape} with bands {lead}"
    if min(*array.shape, *chunk, *shard) < 1 or math.prod(chunk) * array.dtype.itemsize > MAX_CHUNK_BYTES:
        return f"shape {array.shape} in chunks of {chunk}"
    if shard[:-2] != lead or math.prod(shard) > math.prod(chunk) * MAX_SHARD_CHUNKS:
        return f"chunks of {chunk} in shards of {shard}"
    return ""
