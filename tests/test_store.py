"""The store: whole blocks in, any window out, and no damage goes unseen."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 (gives arrays their `rio`)
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasters import NORTH_UP, UTM33, utm_grid

from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Grid, Transform, Window
from cdpipe.geo.tilings import CELL, block_keys, block_window
from cdpipe.store.arrays import cell_window, open_array, read_all, read_window, write_block
from cdpipe.store.groups import (
    CHANGE_ARRAYS,
    LABEL_ARRAYS,
    PROBABILITY_ARRAYS,
    ArrayTemplate,
    create_group,
    pair_arrays,
)
from cdpipe.workspace.location import here

BLOCK = 512
GRID = utm_grid(700, 1100)
BLOCKS = [block_window(key, GRID.shape, BLOCK) for key in block_keys("p", GRID.shape, BLOCK)]
RGB = ("red", "green", "blue")
ALL_LAYERS = [*pair_arrays(RGB, "uint16", "float32"), *LABEL_ARRAYS, *PROBABILITY_ARRAYS, CHANGE_ARRAYS[1]]
LAYERS = {layer.name: layer for layer in ALL_LAYERS}


def make_group(path: Path, *names: str, grid: Grid = GRID) -> Path:
    create_group(here(path), [LAYERS[name] for name in names or LAYERS], grid, BLOCK, {"title": "test"})
    return path


def random_values(layer: ArrayTemplate, shape: tuple[int, int], seed: int = 0) -> NDArray[Any]:
    lengths = (*([len(layer.bands)] if layer.bands else []), *shape)
    return np.random.default_rng(seed).integers(0, 200, lengths).astype(layer.dtype)


def window_in(layer: ArrayTemplate, window: Window) -> Window:
    return cell_window(window) if layer.cell > 1 else window


def object_of(group: Path, name: str, window: Window) -> Path:
    """Where Zarr's default chunk keys put a block."""
    leading = ["0"] if LAYERS[name].bands else []
    return group.joinpath(name, "c", *leading, str(window.row // BLOCK), str(window.col // BLOCK))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, NDArray[Any]]]:
    """A group with every layer written block by block, last block first, and what was written."""
    group = make_group(tmp_path_factory.mktemp("store") / "group")
    scenes = {}
    for name, layer in LAYERS.items():
        whole = window_in(layer, Window(0, 0, *GRID.shape))
        scenes[name] = random_values(layer, whole.shape, seed=len(name))
        for block in reversed(BLOCKS):
            part = window_in(layer, block)
            file, digest = write_block(here(group), name, part, scenes[name][..., *part.slices])
            assert file.local() == object_of(group, name, block)
            assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    return group, scenes


@given(data=st.data(), name=st.sampled_from(list(LAYERS)))
def test_any_window_reads_what_the_blocks_were(
    stored: tuple[Path, dict[str, NDArray[Any]]], data: st.DataObject, name: str
) -> None:
    group, scenes = stored
    scene = scenes[name]
    row, col = (data.draw(st.integers(0, length - 1)) for length in scene.shape[-2:])
    height, width = (data.draw(st.integers(1, n - at)) for n, at in zip(scene.shape[-2:], (row, col), strict=True))
    window = Window(row, col, height, width)
    values = read_window(open_array(here(group), name), window)
    assert values.dtype == scene.dtype
    assert np.array_equal(values, scene[..., *window.slices])


def test_a_block_is_one_object_of_each_array(stored: tuple[Path, dict[str, NDArray[Any]]]) -> None:
    group, _ = stored
    for name in LAYERS:
        files = sorted(path for path in (group / name).rglob("*") if path.is_file() and path.name != "zarr.json")
        assert files == sorted(object_of(group, name, block) for block in BLOCKS)


@pytest.mark.parametrize(
    "window",
    [
        *(Window(0, 0, 256, 512), Window(0, 0, 512, 511), Window(0, 256, 512, 512)),
        *(Window(0, 0, 700, 1100), Window(512, 1024, 512, 512), Window(512, 0, 188, 500)),
    ],
)
def test_only_whole_blocks_are_written(tmp_path: Path, window: Window) -> None:
    group = make_group(tmp_path / "g", "valid", "before")
    for name in ("valid", "before"):
        with pytest.raises(ValueError, match="expected the whole block"):
            write_block(here(group), name, window, random_values(LAYERS[name], window.shape))
        assert not (group / name / "c").exists()


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("before", (3, 512, 512), "int16"),
        ("before", (1, 512, 512), "uint16"),
        ("before", (512, 512), "uint16"),
        ("valid", (1, 512, 512), "uint8"),
        ("valid", (512, 512), "bool"),
    ],
)
def test_values_must_be_of_the_array_s_type_and_bands(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: str
) -> None:
    group = make_group(tmp_path / "g", name)
    with pytest.raises(ValueError, match=r"expected the whole block .* got .* one writer"):
        write_block(here(group), name, Window(0, 0, 512, 512), np.ones(shape, dtype))
    assert not (group / name / "c").exists()


@pytest.mark.parametrize("name", ["before", "valid", "cells", "probability"])
def test_no_flipped_bit_goes_unseen(tmp_path: Path, name: str) -> None:
    layer, scene = LAYERS[name], Window(0, 0, 20, 300)
    group = make_group(tmp_path / "g", name, grid=utm_grid(*scene.shape))
    window = window_in(layer, scene)
    values = random_values(layer, window.shape) // 100 * layer.cell
    file, _ = write_block(here(group), name, window, values.astype(layer.dtype))
    sound, array = file.read_bytes(), open_array(here(group), name)
    for position in range(0, len(sound), max(1, len(sound) // 400)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 8
        file.local().write_bytes(damaged)
        with pytest.raises(IntegrityError, match=rf"{name}.*damaged within Window.*checksum.*cdpipe verify"):
            read_window(array, window)
    file.local().write_bytes(sound[: len(sound) // 2])
    with pytest.raises(IntegrityError, match="damaged"):
        read_window(array, window)


@pytest.mark.parametrize("name", ["before", "cells"])
@pytest.mark.parametrize("leftover", [b"", b"torn", bytes(5000)])
def test_a_damaged_leftover_is_written_over(tmp_path: Path, name: str, leftover: bytes) -> None:
    group = make_group(tmp_path / "g", name)
    for block in (BLOCKS[0], BLOCKS[-1]):
        file = object_of(group, name, block)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(leftover)
        window = window_in(LAYERS[name], block)
        values = random_values(LAYERS[name], window.shape)
        write_block(here(group), name, window, values)
        assert np.array_equal(read_window(open_array(here(group), name), window), values)


def test_writing_the_same_block_again_gives_the_same_bytes(tmp_path: Path) -> None:
    values = random_values(LAYERS["before"], BLOCKS[-1].shape)
    files = []
    for name in ("one", "two"):
        group = make_group(tmp_path / name, "before")
        files += [write_block(here(group), "before", BLOCKS[-1], values)[0].read_bytes() for _ in range(2)]
    assert len(set(files)) == 1


def test_neighbouring_blocks_may_be_written_at_once(tmp_path: Path) -> None:
    group = make_group(tmp_path / "g", "before")
    scene = random_values(LAYERS["before"], GRID.shape)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda block: write_block(here(group), "before", block, scene[..., *block.slices]), BLOCKS))
    assert np.array_equal(read_window(open_array(here(group), "before"), Window(0, 0, *GRID.shape)), scene)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_not_there_is_never_read_as_the_fill_value(tmp_path: Path, name: str) -> None:
    group, layer = make_group(tmp_path / "g", name), LAYERS[name]
    for block in BLOCKS:
        window = window_in(layer, block)
        write_block(here(group), name, window, random_values(layer, window.shape))
    array = open_array(here(group), name)
    whole = read_all(array)
    for block in BLOCKS:
        file, window = object_of(group, name, block), window_in(layer, block)
        data = file.read_bytes()
        file.write_bytes(b"")
        with pytest.raises(IntegrityError, match=f"no {file}.*run cdpipe verify"):
            read_window(array, window)
        file.unlink()
        with pytest.raises(IntegrityError, match=f"no {file}.*run cdpipe verify"):
            read_window(array, window)
        for other in (window_in(layer, other) for other in BLOCKS if other != block):
            np.testing.assert_array_equal(read_window(array, other), whole[..., *other.slices])
        file.write_bytes(data)


@pytest.mark.parametrize("block", [BLOCKS[0], BLOCKS[-1]])
@pytest.mark.parametrize("name", LAYERS)
def test_a_block_of_nothing_but_the_fill_value_is_stored_too(tmp_path: Path, name: str, block: Window) -> None:
    layer = LAYERS[name]
    group = make_group(tmp_path / "g", name)
    window = window_in(layer, block)
    values = np.full_like(random_values(layer, window.shape), layer.fill)
    assert write_block(here(group), name, window, values)[0].is_file()
    # with another fill value in its description, the array still holds what was written
    description = json.loads((group / name / "zarr.json").read_text())
    (group / name / "zarr.json").write_text(json.dumps(description | {"fill_value": 7}))
    np.testing.assert_array_equal(read_window(open_array(here(group), name), window), values)


def test_cells_of_a_block_stand_for_64_pixels() -> None:
    assert cell_window(Window(512, 1024, 188, 76)) == Window(8, 16, 3, 2)
    for block in BLOCKS:
        cells = cell_window(block)
        assert (cells.row * CELL, cells.col * CELL) == (block.row, block.col)
        assert cells.shape == (-(-block.height // CELL), -(-block.width // CELL))


def test_a_group_that_exists_is_left_alone(tmp_path: Path) -> None:
    group = make_group(tmp_path / "g")
    write_block(here(group), "valid", BLOCKS[0], random_values(LAYERS["valid"], BLOCKS[0].shape))
    files = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    create_group(here(group), [LAYERS["label"]], utm_grid(5, 5), BLOCK, {"title": "other"})
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == files


def test_a_group_killed_while_it_is_made_is_not_there(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from cdpipe.store import groups
from cdpipe.geo.grid import Grid
from cdpipe.workspace.location import here
def die(*arguments): os.kill(os.getpid(), signal.SIGKILL)
setattr(*((Path, "rename", die) if sys.argv[2] == "rename" else (groups, "_write_coordinates", die)))
groups.create_group(here(Path(sys.argv[1])), groups.LABEL_ARRAYS, Grid(100, 100), 512, {})
"""
    group = tmp_path / "deep" / "g"
    for moment in ("rename", "coordinates"):
        run = subprocess.run([sys.executable, "-c", code, str(group), moment], check=False)
        assert run.returncode == -signal.SIGKILL
        assert not group.exists()
    assert len(list(group.parent.iterdir())) == 2  # half-made ones under names of their own
    make_group(group)
    assert open_array(here(group), "valid").shape == GRID.shape


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, UTM33),
        ((0.1, 0.0, -1 / 3, 0.0, -0.7, 1e7 / 7), None),
        ((0.5, 0.1, 10.0, -0.1, -0.5, 20.0), UTM33),
    ],
)
def test_the_group_says_where_its_pixels_are(tmp_path: Path, transform: Any, crs: str | None) -> None:
    grid = Grid(90, 300, transform, crs)
    group = zarr.open_group(make_group(tmp_path / "g", "before", "cells", grid=grid), mode="r")
    assert group.attrs["title"] == "test"
    attribute: Any = group.attrs["grid"]
    assert Grid.from_json(attribute) == grid
    mapping = group["spatial_ref"].attrs
    numbers = [float(number) for number in str(mapping["GeoTransform"]).split()]
    assert Affine.from_gdal(*numbers) == Affine(*transform)
    assert (CRS.from_wkt(str(mapping["crs_wkt"])) == CRS.from_wkt(crs)) if crs else "crs_wkt" not in mapping
    before: Any = group["before"]
    assert before.attrs["grid_mapping"] == "spatial_ref"
    assert before.attrs["bands"] == list(RGB)
    assert before.metadata.dimension_names == ("band", "y", "x")
    assert group["cells"].attrs["cell_px"] == CELL
    assert ("x" in group) == ("y" in group) == (transform[1] == transform[3] == 0)
    if "x" in group:
        x, y = np.asarray(group["x"]), np.asarray(group["y"])
        assert (len(y), len(x)) == grid.shape
        for row, col in ((0, 0), (89, 299), (40, 7)):
            assert (x[col], y[row]) == pytest.approx(grid.xy(row + 0.5, col + 0.5), rel=1e-12)


def test_xarray_reads_a_group(tmp_path: Path) -> None:
    group = make_group(tmp_path / "g", "before", "valid")
    values = random_values(LAYERS["before"], BLOCKS[1].shape)
    write_block(here(group), "before", BLOCKS[1], values)
    with xarray.open_zarr(group, consolidated=False, chunks=None, decode_coords="all", mask_and_scale=False) as data:
        assert data["before"].dims == ("band", "y", "x")
        corner = data["before"].isel(y=0, x=512)
        assert (float(corner.x), float(corner.y)) == GRID.xy(0.5, 512.5)
        assert np.array_equal(corner, values[:, 0, 0])
        assert CRS.from_wkt(data["spatial_ref"].attrs["crs_wkt"]) == CRS.from_wkt(UTM33)
        assert "spatial_ref" in data["valid"].coords


@pytest.mark.parametrize("transform", [NORTH_UP, (8.0, 6.0, 500_000.0, 6.0, -8.0, 4e6)], ids=["straight", "turned"])
def test_rioxarray_sees_where_a_group_lies(tmp_path: Path, transform: Transform) -> None:
    create_group(here(tmp_path / "g"), CHANGE_ARRAYS, utm_grid(300, 400, transform), BLOCK, {})
    data = xarray.open_zarr(tmp_path / "g", consolidated=False, chunks=None, decode_coords="all")
    for name in ("probability", "change"):
        place = data[name].rio
        assert place.crs == CRS.from_wkt(UTM33)
        assert place.transform()[:6] == pytest.approx(transform)
        assert (place.height, place.width) == (300, 400)
    assert ("x" in data.coords) == (transform == NORTH_UP)


def test_what_is_written_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = make_group(tmp_path / "g", "valid")
    synced: set[int] = set()
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    file, _ = write_block(here(group), "valid", BLOCKS[0], random_values(LAYERS["valid"], BLOCKS[0].shape))
    assert {file.local().stat().st_ino, file.parent.local().stat().st_ino} <= synced
