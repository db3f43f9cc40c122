"""Checks that a TIFF lists all of its blocks: libtiff takes those beyond a list that is too short for sparse.

Format: TIFF 6.0, section 2 (image file directory), and BigTIFF (https://www.awaresystems.be/imaging/tiff/bigtiff.html).
"""

import math
import struct
from pathlib import Path
from typing import Any

from rasterio.enums import Interleaving

from cdpipe.values.errors import InputError

STRIP_OFFSETS, TILE_OFFSETS = 273, 324
BIG = 43  # version in the header of a BigTIFF; a classic one has 42


def verify_block_table(dataset: Any, path: Path) -> None:
    """Compare the number of blocks that a TIFF's directory lists with the number that its size demands.

    Files of other formats pass.

    Raises:
        InputError: If blocks are missing from the list.
    """
    directory = dataset.get_tag_item("IFD_OFFSET", "TIFF", bidx=1) if dataset.driver == "GTiff" else None
    if directory is None:
        return
    height, width = dataset.block_shapes[0]
    expected = math.ceil(dataset.height / height) * math.ceil(dataset.width / width)
    if dataset.interleaving is not Interleaving.pixel:
        expected *= dataset.count
    listed = _listed_blocks(path, int(directory))
    if listed is not None and listed < expected:
        raise InputError(
            f"{path}: not readable as a raster: {dataset.width}x{dataset.height} pixels need {expected} blocks, "
            f"the file lists {listed}"
        )


def _listed_blocks(path: Path, directory: int) -> int | None:
    """Length of the list of block offsets; None where there is none."""
    with path.open("rb") as file:
        head = file.read(4)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(f"{order}H", head[2:])[0] == BIG
        count, entry = (f"{order}Q", f"{order}HHQ8x") if big else (f"{order}H", f"{order}HHI4x")
        file.seek(directory)
        [entries] = struct.unpack(count, file.read(struct.calcsize(count)))
        table = file.read(entries * struct.calcsize(entry))
    whole = len(table) // struct.calcsize(entry) * struct.calcsize(entry)
    for tag, _, values in struct.iter_unpack(entry, table[:whole]):
        if tag in (STRIP_OFFSETS, TILE_OFFSETS):
            return int(values)
    return None
