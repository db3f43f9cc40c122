"""Stored objects against zarr-python: the same bytes written, the same pixels read, and no damage read as pixels."""

import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import utm_grid

from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import block_keys, block_window
from cdpipe.store.arrays import open_array, read_all, read_window, write_block
from cdpipe.store.groups import ArrayTemplate, create_group
from cdpipe.workspace.location import here

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
SHAPE = (600, 1100)
BLOCK = 512


def make_values(dtype: str, bands: int, shape: tuple[int, int], seed: int = 0) -> NDArray[Any]:
    """Runs, noise and, in floating point, what is no number."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 40, (bands, *shape))
    values[:, : shape[0] // 3] = 7
    if np.dtype(dtype).kind == "f":
        values[:, ::7, ::5] = np.nan
    values = values if np.dtype(dtype).kind != "u" else np.abs(values)
    return (values if bands > 1 else values[0]).astype(dtype)


def make_array(folder: Path, dtype: str, bands: int, shape: tuple[int, int], block: int = BLOCK) -> Path:
    names = tuple(f"b{band}" for band in range(bands)) if bands > 1 else ()
    fill = float("nan") if np.dtype(dtype).kind == "f" else 3
    create_group(here(folder), [ArrayTemplate("a", dtype, fill, names)], utm_grid(*shape), block, {})
    return folder


def write_all(group: Path, values: NDArray[Any], block: int = BLOCK) -> list[Path]:
    windows = [block_window(key, values.shape[-2:], block) for key in block_keys("p", values.shape[-2:], block)]
    return [write_block(here(group), "a", window, values[..., *window.slices])[0].local() for window in windows]


@pytest.fixture(scope="module", params=list(zip(DTYPES, (1, 2, 4, 1, 1, 2, 1, 3), strict=True)), ids=str)
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[Any]]:
    dtype, bands = request.param
    values = make_values(dtype, bands, SHAPE)
    group = make_array(tmp_path_factory.mktemp("shards") / "g", dtype, bands, SHAPE)
    write_all(group, values)
    return group, values


def draw_window(data: st.DataObject, shape: tuple[int, ...]) -> Window:
    row, col = (data.draw(st.integers(0, length - 1)) for length in shape[-2:])
    height, width = (data.draw(st.integers(1, n - at)) for n, at in zip(shape[-2:], (row, col), strict=True))
    return Window(row, col, height, width)


@given(data=st.data())
def test_any_window_reads_as_zarr_reads_it(written: tuple[Path, NDArray[Any]], data: st.DataObject) -> None:
    group, values = written
    window = draw_window(data, values.shape)
    ours = read_window(open_array(here(group), "a"), window)
    theirs = np.asarray(zarr.open_array(group / "a", mode="r")[(..., *window.slices)])
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert ours.tobytes() == theirs.tobytes() == values[..., *window.slices].tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (300, 257), (600, 1100), (1100, 300)])
@pytest.mark.parametrize(("dtype", "bands"), [("uint8", 1), ("uint16", 4), ("float32", 1)])
def test_objects_are_those_that_zarr_writes(tmp_path: Path, dtype: str, bands: int, shape: tuple[int, int]) -> None:
    values = make_values(dtype, bands, shape)
    for block in (512, 1024):
        ours = make_array(tmp_path / f"ours{block}", dtype, bands, shape, block)
        theirs = make_array(tmp_path / f"theirs{block}", dtype, bands, shape, block)
        files = write_all(ours, values, block)
        array: Any = zarr.open_array(theirs / "a", mode="r+")
        array.with_config({"write_empty_chunks": True})[...] = values
        for file in files:
            assert file.read_bytes() == (theirs / file.relative_to(ours)).read_bytes()


def entries(file: Path, chunks: int) -> NDArray[np.uint64]:
    return np.frombuffer(file.read_bytes()[-4 - 16 * chunks : -4], "<u8").reshape(-1, 2).copy()


def with_index(file: Path, index: NDArray[np.uint64]) -> None:
    """Give an object another index, with the checksum that belongs to it."""
    data = index.astype("<u8").tobytes()
    file.write_bytes(file.read_bytes()[: -4 - len(data)] + data + struct.pack("<I", google_crc32c.value(data)))


@pytest.fixture
def one_block(tmp_path: Path) -> tuple[Path, Path]:
    """A group and the object of its only block, of 2 × 2 chunks."""
    group = make_array(tmp_path / "g", "uint16", 2, (512, 512))
    [file] = write_all(group, make_values("uint16", 2, (512, 512)))
    return group, file


def refused(group: Path, window: Window, match: str) -> None:
    with pytest.raises(IntegrityError, match=f"damaged within.*{match}.*run cdpipe verify"):
        read_window(open_array(here(group), "a"), window)


def test_a_chunk_missing_from_its_shard_is_an_error_and_no_fill_value(one_block: tuple[Path, Path]) -> None:
    group, file = one_block
    whole = read_all(open_array(here(group), "a"))
    index = entries(file, 4)
    index[1] = 2**64 - 1
    with_index(file, index)
    assert (np.asarray(zarr.open_array(group / "a", mode="r")[:, 0, 300]) == 3).all()  # what zarr makes of it
    refused(group, Window(0, 200, 10, 100), "chunk 0,1 is missing")
    for window in (Window(0, 0, 256, 256), Window(256, 0, 256, 512)):
        assert np.array_equal(read_window(open_array(here(group), "a"), window), whole[..., *window.slices])


@pytest.mark.parametrize("entry", [(0, 5), (2**63, 100), (10**6, 1000), (2**64 - 1, 3), (0, 2**40)])
def test_a_chunk_that_lies_nowhere_is_an_error(one_block: tuple[Path, Path], entry: tuple[int, int]) -> None:
    group, file = one_block
    index = entries(file, 4)
    index[0] = entry
    with_index(file, index)
    refused(group, Window(0, 0, 1, 1), "chunk 0,0 lies at")


def test_a_chunk_that_would_inflate_to_more_is_refused_by_its_header(one_block: tuple[Path, Path]) -> None:
    group, file = one_block
    index = entries(file, 4)
    bomb = bytes(numcodecs.blosc.compress(np.zeros(2**26, np.uint8), b"lz4", 5, numcodecs.blosc.BITSHUFFLE))
    assert len(bomb) < 600_000
    bomb += struct.pack("<I", google_crc32c.value(bomb))
    end = len(file.read_bytes()) - 4 - 16 * 4
    file.write_bytes(file.read_bytes()[:end] + bomb + file.read_bytes()[end:])
    index[3] = end, len(bomb)
    with_index(file, index)
    refused(group, Window(511, 511, 1, 1), f"a chunk of {2 * 256 * 256 * 2} bytes claims to have {2**26}")
    read_window(open_array(here(group), "a"), Window(0, 0, 256, 512))


@given(data=st.data())
def test_a_cut_off_or_changed_object_never_reads_as_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    group = make_array(tmp_path_factory.mktemp("cut") / "g", "uint8", 1, (300, 280))
    values = make_values("uint8", 1, (300, 280), seed=1)
    [file] = write_all(group, values)
    sound = file.read_bytes()
    if data.draw(st.booleans()):
        file.write_bytes(sound[: data.draw(st.integers(0, len(sound) - 1))])
    else:
        place = data.draw(st.integers(0, len(sound) - 1))
        file.write_bytes(sound[:place] + bytes([sound[place] ^ data.draw(st.integers(1, 255))]) + sound[place + 1 :])
    with pytest.raises(IntegrityError, match="run cdpipe verify"):
        read_all(open_array(here(group), "a"))


def test_an_array_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """Descriptions are parsed once each, but which one an array has is read every time."""
    for shape in ((300, 400), (500, 200)):
        group = make_array(tmp_path / "g", "int16", 2, shape)
        values = make_values("int16", 2, shape, seed=shape[0])
        write_all(group, values)
        assert np.array_equal(read_all(open_array(here(group), "a")), values)
        group.rename(tmp_path / f"old{shape[0]}")


def test_what_other_programs_write_is_refused(tmp_path: Path) -> None:
    """Other codecs would need a reader that knows them; cdpipe writes one kind."""
    group = zarr.create_group(tmp_path / "g")
    group.create_array("a", shape=(10, 10), dtype="uint8", chunks=(10, 10))
    with pytest.raises(IntegrityError, match=r"not an array that cdpipe wrote: .*codecs"):
        open_array(here(tmp_path / "g"), "a")
