"""A TIFF whose directory lists too few blocks for its size is refused; a sparse one, which lists them all, is read."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasters import utm_grid, write_raster

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import open_raster, read_values
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import here

SIDE, HEIGHT_TAG = 96, 257
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"blockysize": 16},
    {"tiled": True, "blockxsize": 32, "blockysize": 32},
    {"tiled": True, "blockxsize": 32, "blockysize": 32, "bigtiff": "YES", "compress": "zstd"},
    {"blockysize": 16, "interleave": "band", "compress": "lzma"},
    {"blockysize": 16, "endianness": "big"},
    {"blockysize": 16, "interleave": "band", "bigtiff": "YES"},
)
# GDAL shows strips of more than 8 KB as several, and those of fax compression row by row
WHOLE: tuple[dict[str, Any], ...] = (
    {"blockysize": SIDE},
    {"blockysize": SIDE, "interleave": "band"},
    {"blockysize": SIDE, "bigtiff": "YES", "endianness": "big"},
    {"blockysize": 40},
)


def write(path: Path, layout: dict[str, Any], *, sparse: bool = False) -> Path:
    values = np.arange(2 * SIDE * SIDE).reshape(2, SIDE, SIDE).astype(np.uint16)
    return write_raster(path, values * (not sparse), utm_grid(SIDE, SIDE), nodata=None, sparse_ok=sparse, **layout)


def with_height(data: bytearray, height: int) -> bytes:
    order, big = "<" if data[:2] == b"II" else ">", data[2] == 43 or data[3] == 43
    [start] = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    [entries] = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    for number in range(entries):
        entry = start + (8 + 20 * number if big else 2 + 12 * number)
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag == HEIGHT_TAG:
            struct.pack_into(f"{order}{'H' if kind == 3 else 'I'}", data, entry + (12 if big else 8), height)
    return bytes(data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_height_that_was_raised_is_refused(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", layout)
    with open_raster(here(path), Input()) as dataset:
        read_values(dataset, here(path), (1, 2), Window(0, 0, SIDE, SIDE))
    path.write_bytes(with_height(bytearray(path.read_bytes()), 2 * SIDE))
    with rasterio.open(path) as dataset:  # what is guarded against: it opens as if nothing were wrong
        assert dataset.height == 2 * SIDE
    with pytest.raises(InputError, match="blocks, the file lists"), open_raster(here(path), Input()):
        pass


@pytest.mark.parametrize("layout", WHOLE)
def test_a_file_of_large_strips_is_read(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", layout)
    with rasterio.open(path) as dataset:
        expected = dataset.read()
    with open_raster(here(path), Input()) as dataset:
        assert np.array_equal(read_values(dataset, here(path), (1, 2), Window(0, 0, SIDE, SIDE)), expected)


def test_a_fax_of_one_strip_is_read(tmp_path: Path) -> None:
    bits = (np.indices((SIDE, SIDE)).sum(0) % 3 == 0).astype(np.uint8)[None]
    path = write_raster(tmp_path / "a.tif", bits, utm_grid(SIDE, SIDE), nbits=1, compress="ccittfax4", blockysize=SIDE)
    with open_raster(here(path), Input()) as dataset:
        assert np.array_equal(read_values(dataset, here(path), (1,), Window(0, 0, SIDE, SIDE)), bits)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_file_is_read(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", layout, sparse=True)
    with open_raster(here(path), Input()) as dataset:
        assert not read_values(dataset, here(path), (1, 2), Window(0, 0, SIDE, SIDE)).any()
