"""A damaged mask or alpha band is refused like damaged pixels: it is read as it was written, or not at all."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasters import make_config, source_of, utm_grid, write_mask, write_raster

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.damage import mask_directory
from cdpipe.formats.gate import open_raster
from cdpipe.geo.grid import Window
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.workspace.location import here

SIDE = 96
GRID, WHOLE = utm_grid(SIDE, SIDE), Window(0, 0, SIDE, SIDE)
RNG = np.random.default_rng(5)
PIXELS = RNG.integers(1, 255, (3, SIDE, SIDE), np.uint8)
SEEN = RNG.random((SIDE, SIDE)) > 0.5
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"compress": "deflate"},
    {"compress": "deflate", "tiled": True, "blockxsize": 32, "blockysize": 32},
    {"compress": "deflate", "bigtiff": "YES", "endianness": "big"},
    {"compress": "jpeg", "photometric": "ycbcr"},
    {"compress": "lzw"},
    {},
)


def write_masked(path: Path, **profile: Any) -> Path:
    return write_mask(write_raster(path, PIXELS, GRID, **profile), SEEN)


def observed(path: Path) -> NDArray[np.bool_]:
    config = make_config(path.parent)
    return read_on_grid(source_of(path, config, (1, 2, 3)), None, GRID, WHOLE, config)[1]


def refusal(path: Path, expected: NDArray[np.bool_] = SEEN) -> str:
    """Why the file is not read; empty where it is read as expected."""
    try:
        assert np.array_equal(observed(path), expected)
    except InputError as error:
        return str(error)
    return ""


def directory_of(path: Path) -> int:
    """First byte of the mask's directory."""
    with open_raster(here(path), Input()) as dataset:
        found = mask_directory(dataset, here(path))
    assert found is not None
    return found


def block_of(path: Path) -> tuple[int, int]:
    """First byte and length of the mask's first block."""
    with rasterio.open(f"GTIFF_DIR:off:{directory_of(path)}:{path}") as mask:
        numbers = [int(mask.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]
    return numbers[0], numbers[1]


@pytest.mark.parametrize("layout", LAYOUTS[:4])
def test_no_damaged_byte_of_a_deflated_mask_is_read_past(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = write_masked(tmp_path / "a.tif", **layout)
    assert np.array_equal(observed(path), SEEN)
    offset, length = block_of(path)
    whole, refused = path.read_bytes(), 0
    places = [*RNG.integers(0, length, 25).tolist(), *range(length - 4, length)]
    for place in places:
        data = bytearray(whole)
        data[offset + place] ^= 1 << int(RNG.integers(8))
        path.write_bytes(data)
        reason = refusal(path)
        assert "\n" not in reason
        refused += bool(reason)
    assert refused >= len(places) - 3  # a few bits of a stream's header mean nothing


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_is_cut_off_keeps_its_mask_or_is_refused(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = write_masked(tmp_path / "a.tif", **layout)
    whole = path.read_bytes()
    for end in [*RNG.integers(8, len(whole), 30).tolist(), *range(len(whole) - 20, len(whole)), directory_of(path) + 9]:
        path.write_bytes(whole[:end])
        assert "\n" not in refusal(path)


def test_a_damaged_alpha_band_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    shape = {"count": 4, "height": SIDE, "width": SIDE, "dtype": "uint8", "interleave": "band", "compress": "deflate"}
    place = {"crs": GRID.crs, "transform": rasterio.Affine(*GRID.transform)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        dataset.write(np.stack([*PIXELS, np.where(SEEN, 255, 0).astype(np.uint8)]))
    assert np.array_equal(observed(path), SEEN)
    with rasterio.open(path) as dataset:
        offset, length = (int(dataset.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=4)) for what in ("OFFSET", "SIZE"))
    data = bytearray(path.read_bytes())
    data[offset + length - 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match="not readable as a raster"):
        observed(path)


def patched(path: Path, tag: int, value: int) -> None:
    """Give a number of the mask's directory another value."""
    data, start = bytearray(path.read_bytes()), directory_of(path)
    [entries] = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            [kind] = struct.unpack_from("<H", data, entry + 2)
            struct.pack_into("<H" if kind == 3 else "<I", data, entry + 8, value)
    path.write_bytes(data)


@pytest.mark.parametrize(("tag", "value"), [(256, 90), (257, 200), (258, 32), (339, 3)])
def test_a_mask_of_another_shape_is_refused_or_read_as_gdal_does(tmp_path: Path, tag: int, value: int) -> None:
    path = write_masked(tmp_path / "a.tif", compress="deflate")
    patched(path, tag, value)
    with rasterio.open(path) as dataset:
        assert "\n" not in refusal(path, dataset.dataset_mask() > 0)


@pytest.mark.parametrize(("tag", "value"), [(278, 2**16 - 1), (277, 3)])
def test_a_mask_that_gdal_cannot_read_is_refused(tmp_path: Path, tag: int, value: int) -> None:
    path = write_masked(tmp_path / "a.tif", compress="deflate")
    patched(path, tag, value)
    assert str(path) in refusal(path)


def test_directories_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.tif")
    data, start = bytearray(path.read_bytes()), directory_of(path)
    [entries] = struct.unpack_from("<H", data, start)
    data[start + 2 + 12 * entries : start + 6 + 12 * entries] = data[4:8]
    path.write_bytes(data)
    with pytest.raises(InputError, match="each once"):
        observed(path)


def test_a_directory_that_was_lost_is_missed(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.tif")
    start = directory_of(path)
    path.write_bytes(path.read_bytes()[:start])
    with rasterio.open(path) as dataset:  # what is guarded against: it opens as if there had been no mask
        assert dataset.dataset_mask().all()
    with pytest.raises(InputError, match="the file is cut off"):
        observed(path)


def test_a_damaged_mask_beside_a_tiff_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, GRID)
    mask, config = write_mask(path, SEEN, inside=False), make_config(tmp_path, input={"sidecars": True})

    def seen() -> NDArray[np.bool_]:
        return read_on_grid(source_of(path, config, (1, 2, 3)), None, GRID, WHOLE, config)[1]

    assert np.array_equal(seen(), SEEN)
    with rasterio.open(mask) as dataset:
        assert dataset.compression.name == "deflate"
        offset, length = (int(dataset.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    data = bytearray(mask.read_bytes())
    data[offset + length - 1] ^= 1
    mask.write_bytes(data)
    with pytest.raises(InputError, match="not readable as a raster"):
        seen()
