"""Checks that a PNG is whole: GDAL reads the missing rest of one that was cut off as zeros, without a word."""

import zlib
from pathlib import Path
from typing import Any, BinaryIO

from cdpipe.errors import InputError

SIGNATURE = 8  # bytes
STEP = 2**20


def verify_png(dataset: Any, path: Path) -> None:
    """Compare every chunk of a PNG with its checksum, up to the one that ends it (PNG specification, section 5).

    Files of other formats pass.

    Raises:
        InputError: If a chunk is damaged, or the file ends before its last one.
    """
    if dataset.driver != "PNG":
        return
    with path.open("rb", buffering=STEP) as file:
        file.seek(SIGNATURE)
        kind = b""
        while kind != b"IEND":
            start = file.tell()
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            found, expected = _checksum(file, kind, length), file.read(4)
            if len(expected) < 4:
                raise InputError(f"{path}: not readable as a raster: the file is cut off after {start} bytes")
            if found != int.from_bytes(expected, "big"):
                raise InputError(f"{path}: not readable as a raster: damaged at byte {start}")


def _checksum(file: BinaryIO, kind: bytes, length: int) -> int:
    found = zlib.crc32(kind)
    while length > 0:
        data = file.read(min(length, STEP))
        if not data:
            break
        found, length = zlib.crc32(data, found), length - len(data)
    return found
