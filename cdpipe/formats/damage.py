"""Finds the damage that GDAL reads past without a word: in deflate streams, lists of blocks and PNGs that are cut off.

A deflate stream that yields more bytes than its block holds is not noticed: libtiff stops where the block ends, before
the Adler-32 checksum (RFC 1950), and what lies in the block's last pixels may be left over from anything in memory.
Blocks beyond a TIFF's list that is too short are taken for sparse, and the missing rest of a PNG reads as zeros.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from rasterio.enums import Interleaving

from cdpipe.errors import InputError
from cdpipe.formats.gdal import read_pixels
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import Location

STRIP = 64  # rows that are encoded at a time: a core's cache holds them, and few calls are made
STEP = 2**20  # bytes to inflate at a time: a stream may hold a thousand times its own length

# Tags of a TIFF's directory.
WIDTH, HEIGHT, SAMPLES, ROWS_PER_STRIP, PLANAR, TILE_WIDTH, TILE_HEIGHT = 256, 257, 277, 278, 284, 322, 323
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
SUBFILE, REDUCED, MASK = 254, 1, 4  # what a directory describes, as bits: an overview, a mask
MOST_ENTRIES = 2**16  # of a directory; a classic TIFF counts them in 16 bits
MOST_DIRECTORIES = 256  # pages, overviews and their masks
SEPARATE = 2  # value of PLANAR: every band has blocks of its own
BIG = 43  # version in the header of a BigTIFF; a classic one has 42
NUMBERS = {3: "H", 4: "I", 16: "Q"}  # types of a single number

PNG_SIGNATURE = 8  # bytes
PNG_STEP = 2**20  # bytes read at a time

Entry = tuple[int, int, int, int]  # of a directory: tag, type, number of values, the value if it is one number
Block = tuple[int, int]  # row and column among the blocks


def verify_deflate(dataset: Any, path: Location, bands: Sequence[int], window: Window, values: NDArray[Any]) -> None:
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
        sums = path.read_ranges([(offset + length - 4, 4) for offset, length in stored.values()])
        for (block, place), expected in zip(stored.items(), sums, strict=True):
            tile = _read_block(dataset, path, part, block, (bands, window, values))
            if tile is not None and _has_sum(dataset, tile, expected):
                continue
            if not _is_whole(dataset, part, block, *path.read_ranges([place])):
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
    dataset: Any, path: Location, part: list[int], block: Block, known: tuple[Sequence[int], Window, NDArray[Any]]
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
    return read_pixels(dataset, path, part, place)


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
            inflated = len(stream.decompress(data, STEP))
            if not inflated and not stream.eof:
                return False
            size, data = size + inflated, stream.unconsumed_tail
    except zlib.error:
        return False
    return stream.eof and rows * row_bytes <= size <= height * row_bytes


def mask_directory(dataset: Any, path: Location) -> int | None:
    """Where the directory of a TIFF's internal mask lies: the first that is a mask, and none of an overview.

    Returns:
        Its first byte; None in files of other formats, and where there is none.

    Raises:
        InputError: If the directories are damaged, or too many.
    """
    directory = dataset.get_tag_item("IFD_OFFSET", "TIFF", bidx=1) if dataset.driver == "GTiff" else None
    if directory is None:
        return None
    for offset, entries in [*_directories(path, int(directory))][1:]:
        kind = next((number for tag, _, _, number in entries if tag == SUBFILE), 0)
        if kind & MASK and not kind & REDUCED:
            return offset
    return None


def verify_mask(mask: Any, path: Location, window: Window) -> None:
    """Inflate the blocks of a window of a TIFF's mask, which GDAL has just read.

    Args:
        mask: The mask, opened as a raster of its own.
        path: The file that it lies in.
        window: The pixels that were read.

    Raises:
        InputError: If a block is damaged.
    """
    if mask.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") != "DEFLATE":
        return
    together = mask.interleaving is Interleaving.pixel
    for part in [[*mask.indexes]] if together else [[band] for band in mask.indexes]:
        places = {block: _place(mask, part, block) for block in _blocks(window, *mask.block_shapes[0])}
        stored = {block: place for block, place in places.items() if place[1]}
        for block, data in zip(stored, path.read_ranges([*stored.values()]), strict=True):
            if not _is_whole(mask, part, block, data):
                raise InputError(f"{path}: not readable as a raster: damaged block {block[0]},{block[1]} of its mask")


def verify_block_table(dataset: Any, path: Location) -> None:
    """Compare the number of blocks that a TIFF's directory lists with the number that its size demands.

    Files of other formats pass. GDAL's own block shape does not tell: it takes a large strip for several small ones. It
    also does without the directories that a file has lost, and so without its mask.

    Raises:
        InputError: If blocks are missing from the list, or the file ends before its last directory.
    """
    directory = dataset.get_tag_item("IFD_OFFSET", "TIFF", bidx=1) if dataset.driver == "GTiff" else None
    if directory is None:
        return
    directories = [*_directories(path, int(directory))]
    expected, listed = _count_blocks(directories[0][1])
    if listed is not None and listed < expected:
        raise InputError(
            f"{path}: not readable as a raster: {dataset.width}x{dataset.height} pixels need {expected} blocks, "
            f"the file lists {listed}"
        )


def _count_blocks(entries: list[Entry]) -> tuple[int, int | None]:
    """Blocks that the size demands, and the length of the list of block offsets (None where there is none)."""
    listed, tags = None, {SAMPLES: 1, PLANAR: 1}
    for tag, kind, values, number in entries:
        if tag in (STRIP_OFFSETS, TILE_OFFSETS):
            listed = values
        elif kind in NUMBERS and values == 1:
            tags[tag] = number
    height, width = tags.get(HEIGHT, 0), tags.get(WIDTH, 0)
    rows = tags.get(TILE_HEIGHT) or min(tags.get(ROWS_PER_STRIP) or height, height)
    across = math.ceil(width / tags[TILE_WIDTH]) if tags.get(TILE_WIDTH) else 1
    expected = across * math.ceil(height / rows) if rows else 0
    return expected * (tags[SAMPLES] if tags[PLANAR] == SEPARATE else 1), listed


def _directories(path: Location, start: int) -> Iterator[tuple[int, list[Entry]]]:
    """The directories of a TIFF from one on: where each starts, and its entries."""
    seen = set[int]()
    with path.open() as file:
        head = file.read(4)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(f"{order}H", head[2:])[0] == BIG
        count, entry, link = (f"{order}{form}" for form in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
        while start:
            seen.add(start)
            file.seek(start)
            entries = _number(count, file.read(struct.calcsize(count)))
            length = min(entries or 0, MOST_ENTRIES) * struct.calcsize(entry)
            table = file.read(length)
            following = _number(link, file.read(struct.calcsize(link)))
            if len(seen) > 1 and (not entries or len(table) < length):  # GDAL judges the first itself
                raise InputError(f"{path}: not readable as a raster: the file is cut off in its directory at {start}")
            yield start, [*_entries(order, entry, table)]
            if following in seen or len(seen) == MOST_DIRECTORIES:
                raise InputError(
                    f"{path}: not readable as a raster: expected at most {MOST_DIRECTORIES} directories, each once"
                )
            start = following or 0


def _number(form: str, data: bytes) -> int | None:
    """A number, or None where the file ends before it."""
    return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else None


def _entries(order: str, entry: str, table: bytes) -> Iterator[Entry]:
    whole = len(table) // struct.calcsize(entry) * struct.calcsize(entry)
    for tag, kind, values, data in struct.iter_unpack(entry, table[:whole]):
        form = f"{order}{NUMBERS.get(kind, 'H')}"
        # eight bytes in a classic TIFF lie elsewhere; no tag that counts here is so large
        yield tag, kind, values, struct.unpack_from(form, data)[0] if struct.calcsize(form) <= len(data) else 0


def verify_envi(dataset: Any, path: Location) -> None:
    """Compare the size of an ENVI file, whose missing end reads as zeros, with what its header declares.

    Files of other formats, and compressed ones, whose end is noticed, pass.

    Raises:
        InputError: If it is too small.
    """
    tags = dataset.tags(ns="ENVI") if dataset.driver == "ENVI" else {"file_compression": "1"}
    if tags.get("file_compression", "0").strip() != "0":
        return
    pixel = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes if dtype != "complex_int16")
    offset = tags.get("header_offset", "0").strip()
    expected = (int(offset) if offset.isdecimal() else 0) + dataset.height * dataset.width * pixel
    size = path.stat().size
    if size < expected:
        raise InputError(f"{path}: not readable as a raster: cut off after {size:,} bytes of {expected:,}")


def verify_png(dataset: Any, path: Location) -> None:
    """Compare every chunk of a PNG with its checksum, up to the one that ends it (PNG specification, section 5).

    Files of other formats pass.

    Raises:
        InputError: If a chunk is damaged, or the file ends before its last one.
    """
    if dataset.driver != "PNG":
        return
    with path.open(PNG_STEP) as file:
        file.seek(PNG_SIGNATURE)
        kind = b""
        while kind != b"IEND":
            start = file.tell()
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            checksum, expected = _checksum(file, kind, length), file.read(4)
            if len(expected) < 4:
                raise InputError(f"{path}: not readable as a raster: the file is cut off after {start} bytes")
            if checksum != int.from_bytes(expected, "big"):
                raise InputError(f"{path}: not readable as a raster: damaged at byte {start}")


def _checksum(file: BinaryIO, kind: bytes, length: int) -> int:
    checksum = zlib.crc32(kind)
    while length > 0:
        data = file.read(min(length, PNG_STEP))
        if not data:
            break
        checksum, length = zlib.crc32(data, checksum), length - len(data)
    return checksum
