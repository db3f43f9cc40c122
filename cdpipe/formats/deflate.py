"""Checks the deflate streams of a GeoTIFF, since GDAL reads past their checksums.

A damaged stream that yields more bytes than its block holds is not noticed: libtiff stops where the block ends, before
the Adler-32 checksum (RFC 1950), and what lies in the block's last pixels may be left over from anything in memory.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.windows
from isal import isal_zlib
from numpy.typing import NDArray
from rasterio.enums import Interleaving

from cdpipe.errors import InputError
from cdpipe.formats.gdal_names import read_pixels
from cdpipe.geo.grid import Window
from cdpipe.workspace.storage import read_parts

STRIP = 64  # rows that are encoded at a time: a core's cache holds them, and few calls are made
STEP = 2**20  # bytes to inflate at a time: a stream may hold a thousand times its own length

Block = tuple[int, int]  # row and column among the blocks


def verify_deflate(dataset: Any, path: Path, bands: Sequence[int], window: Window, values: NDArray[Any]) -> None:
    """Compare the blocks of a window, which GDAL has just read and still holds, with their checksums.

    Files of other formats and compressions pass.

    Args:
        dataset: The open raster.
        path: Its file.
        bands: Numbers of the bands that were read.
        window: The pixels that were read.
        values: (band, height, width) of them.

    Raises:
        InputError: If a block is damaged.
    """
    if dataset.driver != "GTiff" or dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") != "DEFLATE":
        return
    parts = [[*dataset.indexes]] if dataset.interleaving is Interleaving.pixel else [[band] for band in bands]
    for part in parts:
        places = {block: _place(dataset, part, block) for block in _blocks(window, *dataset.block_shapes[0])}
        stored = {block: place for block, place in places.items() if place[1] >= 4}  # others hold zeros
        sums = read_parts(path, [(offset + length - 4, 4) for offset, length in stored.values()])
        for (block, place), expected in zip(stored.items(), sums, strict=True):
            tile = _read_block(dataset, path, part, block, (bands, window, values))
            if tile is not None and _has_sum(dataset, tile, expected):
                continue
            if not _is_whole(dataset, part, block, *read_parts(path, [place])):
                raise InputError(f"{path}: not readable as a raster: damaged block {block[0]},{block[1]}")


def _blocks(window: Window, height: int, width: int) -> Iterator[Block]:
    for row in range(window.row // height, (window.stop_row - 1) // height + 1):
        for col in range(window.col // width, (window.stop_col - 1) // width + 1):
            yield row, col


def _place(dataset: Any, part: list[int], block: Block) -> tuple[int, int]:
    """First byte and length of a block; 0, 0 where it is not stored."""
    names = (f"BLOCK_{what}_{block[1]}_{block[0]}" for what in ("OFFSET", "SIZE"))
    offset, length = (int(dataset.get_tag_item(name, "TIFF", bidx=part[0]) or 0) for name in names)
    return offset, length


def _read_block(
    dataset: Any, path: Path, part: list[int], block: Block, known: tuple[Sequence[int], Window, NDArray[Any]]
) -> NDArray[Any] | None:
    """(band, height, width) of a block, from pixels that are known or from GDAL; None where it hangs over the edge."""
    height, width = dataset.block_shapes[0]
    place = Window(block[0] * height, block[1] * width, height, width)
    if place.stop_row > dataset.height or place.stop_col > dataset.width:
        return None
    bands, window, values = known
    if place.intersect(window) == place and set(part) <= set(bands):
        rows, cols = place.slices_in(window)
        first = list(bands).index(part[0])
        if [*bands[first : first + len(part)]] == part:
            return values[first : first + len(part), rows, cols]
        return values[[list(bands).index(band) for band in part], rows, cols]
    return read_pixels(dataset, path, part, rasterio.windows.Window(place.col, place.row, width, height))


def _has_sum(dataset: Any, tile: NDArray[Any], expected: bytes) -> bool:
    """Whether a block's pixels, encoded as they were before they were compressed, have the checksum."""
    bands, height, width = tile.shape
    differences = dataset.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR") == "2"
    encoded = np.empty((min(STRIP, height), width, bands), f"u{tile.itemsize}")
    total = 1
    for top in range(0, height, STRIP):
        strip = encoded[: height - top]
        for band, values in enumerate(tile[:, top : top + STRIP].view(encoded.dtype)):
            strip[:, :, band] = np.diff(values, prepend=values.dtype.type(0)) if differences else values
        total = isal_zlib.adler32(strip.data, total)
    return total.to_bytes(4, "big") == expected


def _is_whole(dataset: Any, part: list[int], block: Block, data: bytes) -> bool:
    """Whether a stream has the right checksum, and inflates to as many bytes as its block has."""
    height, width = dataset.block_shapes[0]
    bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(dataset.dtypes[0]).itemsize))
    row_bytes = math.ceil(width * bits * len(part) / 8)
    rows = min(height, dataset.height - block[0] * height)  # the last strip may be cut off, or not
    stream, size = zlib.decompressobj(), 0
    try:
        while not stream.eof and size <= height * row_bytes:
            found = len(stream.decompress(data, STEP))
            if not found and not stream.eof:
                return False
            size, data = size + found, stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof and rows * row_bytes <= size <= height * row_bytes
