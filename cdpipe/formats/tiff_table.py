"""Checks that a TIFF lists all of its blocks: libtiff takes those beyond a list that is too short for sparse.

Format: TIFF 6.0, section 2 (image file directory), and BigTIFF (https://www.awaresystems.be/imaging/tiff/bigtiff.html).
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdpipe.errors import InputError

WIDTH, HEIGHT, SAMPLES, ROWS_PER_STRIP, PLANAR, TILE_WIDTH, TILE_HEIGHT = 256, 257, 277, 278, 284, 322, 323
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
SEPARATE = 2  # value of PLANAR: every band has blocks of its own
BIG = 43  # version in the header of a BigTIFF; a classic one has 42
NUMBERS = {3: "H", 4: "I", 16: "Q"}  # types of a single number


def verify_block_table(dataset: Any, path: Path) -> None:
    """Compare the number of blocks that a TIFF's directory lists with the number that its size demands.

    Files of other formats pass. GDAL's own block shape does not tell: it takes a large strip for several small ones.

    Raises:
        InputError: If blocks are missing from the list.
    """
    directory = dataset.get_tag_item("IFD_OFFSET", "TIFF", bidx=1) if dataset.driver == "GTiff" else None
    if directory is None:
        return
    expected, listed = _count_blocks(path, int(directory))
    if listed is not None and listed < expected:
        raise InputError(
            f"{path}: not readable as a raster: {dataset.width}x{dataset.height} pixels need {expected} blocks, "
            f"the file lists {listed}"
        )


def _count_blocks(path: Path, directory: int) -> tuple[int, int | None]:
    """Blocks that the size demands, and the length of the list of block offsets (None where there is none)."""
    listed, tags = None, {SAMPLES: 1, PLANAR: 1}
    for tag, kind, values, number in _entries(path, directory):
        if tag in (STRIP_OFFSETS, TILE_OFFSETS):
            listed = values
        elif kind in NUMBERS and values == 1:
            tags[tag] = number
    height, width = tags.get(HEIGHT, 0), tags.get(WIDTH, 0)
    rows = tags.get(TILE_HEIGHT) or min(tags.get(ROWS_PER_STRIP) or height, height)
    across = math.ceil(width / tags[TILE_WIDTH]) if tags.get(TILE_WIDTH) else 1
    expected = across * math.ceil(height / rows) if rows else 0
    return expected * (tags[SAMPLES] if tags[PLANAR] == SEPARATE else 1), listed


def _entries(path: Path, directory: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type and number of values of each entry of a directory, and the value itself if it is one number."""
    with path.open("rb") as file:
        head = file.read(4)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(f"{order}H", head[2:])[0] == BIG
        count, entry = (f"{order}Q", f"{order}HHQ8s") if big else (f"{order}H", f"{order}HHI4s")
        file.seek(directory)
        [entries] = struct.unpack(count, file.read(struct.calcsize(count)))
        table = file.read(entries * struct.calcsize(entry))
    whole = len(table) // struct.calcsize(entry) * struct.calcsize(entry)
    for tag, kind, values, data in struct.iter_unpack(entry, table[:whole]):
        form = f"{order}{NUMBERS.get(kind, 'H')}"
        # eight bytes in a classic TIFF lie elsewhere; no tag that counts here is so large
        yield tag, kind, values, struct.unpack_from(form, data)[0] if struct.calcsize(form) <= len(data) else 0
