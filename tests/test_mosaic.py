"""The mosaic of a run: every pair's mask where it lies, the last on top where it was observed."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasters import GEOGRAPHIC, UTM33, write_raster

from cdpipe.formats.cog import CHANGE_COLORS
from cdpipe.geo.grid import Grid, Transform
from cdpipe.runs.mosaic import Mosaic, mosaic_product
from cdpipe.runs.products import Product, is_written, recorded, write_product
from cdpipe.runs.rasters import PairRasters, raster_product
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

PLACE: Transform = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)


def at(row: float, col: float, height: int, width: int, pixel: float = 10.0, crs: str | None = UTM33) -> Grid:
    """A grid whose corner lies so many pixels of 10 m from ``PLACE``."""
    return Grid(height, width, (pixel, 0.0, PLACE[2] + 10 * col, 0.0, -pixel, PLACE[5] - 10 * row), crs)


def products(folder: Path, *pairs: tuple[Grid, NDArray[np.uint8]]) -> list[tuple[Product, ...]]:
    """Products of pairs whose masks lie where they would be published."""
    made: list[tuple[Product, ...]] = []
    for number, (grid, mask) in enumerate(pairs):
        pair = StoredPair(f"p{number}", "0" * 12, grid, 512, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})
        rasters = PairRasters(Workspace(here(folder)), "run", pair, "change", (), {})
        rasters.paths[0].parent.local().mkdir(parents=True, exist_ok=True)
        write_raster(rasters.paths[0].local(), mask, grid, nodata=255)
        made.append((raster_product(rasters),))
    return made


def write(folder: Path, *pairs: tuple[Grid, NDArray[np.uint8]]) -> list[Path]:
    product = mosaic_product(products(folder, *pairs))
    assert product is not None
    return sorted(path.local() for path in write_product(product) if path.suffix == ".vrt")


def masks(shape: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), shape)


place = st.tuples(st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=20, deadline=None)
@given(places=st.lists(place, min_size=2, max_size=4))
def test_it_is_the_pairs_painted_one_over_the_other(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int, int, int]]
) -> None:
    pairs = [(at(*each), masks(each[2:], seed)) for seed, each in enumerate(places)]
    (file,) = write(tmp_path_factory.mktemp("mosaic"), *pairs)
    top, left = min(row for row, *_ in places), min(col for _, col, *_ in places)
    shape = max(r + h for r, _, h, _ in places) - top, max(c + w for _, c, _, w in places) - left
    expected = np.full(shape, 255, np.uint8)
    for (row, col, height, width), (_, mask) in zip(places, pairs, strict=True):
        part = expected[row - top : row - top + height, col - left : col - left + width]
        part[mask != 255] = mask[mask != 255]
    with rasterio.open(file) as raster:
        assert np.array_equal(raster.read(1), expected)
        assert raster.transform[:6] == at(top, left, 1, 1).transform
        assert (raster.crs, raster.nodata) == (CRS.from_wkt(UTM33), 255)
        assert {value: raster.colormap(1)[value] for value in CHANGE_COLORS} == dict(CHANGE_COLORS)


def test_the_finest_pixels_decide(tmp_path: Path) -> None:
    """A pixel of 20 m becomes four of 10 m."""
    coarse, fine = masks((3, 4), 0), masks((2, 2), 1)
    (file,) = write(tmp_path, (at(0, 0, 3, 4, 20.0), coarse), (at(0, 8, 2, 2), fine))
    with rasterio.open(file) as raster:
        found = raster.read(1)
    assert found.shape == (6, 10)
    assert np.array_equal(found[:, :8], coarse.repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(found[:2, 8:], fine)
    assert (found[2:, 8:] == 255).all()


def test_each_crs_has_its_own(tmp_path: Path) -> None:
    """And what is of CRSs that no pair has any more goes, as soon as the mosaic is written again."""
    degrees = Grid(5, 5, (0.001, 0.0, 15.0, 0.0, -0.001, 48.0), GEOGRAPHIC)
    mask = masks((5, 5), 0)
    pairs = [(at(0, 0, 5, 5), mask), (degrees, mask), (at(9, 9, 5, 5), mask)]
    files = write(tmp_path, *pairs)
    assert [file.name for file in files] == ["change_EPSG_32633.vrt", "change_EPSG_4326.vrt"]
    for file, crs in zip(files, (UTM33, GEOGRAPHIC), strict=True):
        with rasterio.open(file) as raster:
            assert raster.crs == CRS.from_wkt(crs)
            assert (raster.read(1) != 255).sum() == (mask != 255).sum() * (2 if crs == UTM33 else 1)
    (alone,) = write(tmp_path, pairs[0], pairs[2])
    assert sorted(path.name for path in alone.parent.iterdir() if path.suffix != ".tif") == ["change.qml", "change.vrt"]


def test_there_is_none_of_fewer_than_two_that_have_a_place(tmp_path: Path) -> None:
    mask = masks((5, 5), 0)
    turned = Grid(5, 5, (8.0, 6.0, 500_000.0, 6.0, -8.0, 4e6), UTM33)
    made = products(
        tmp_path, (at(0, 0, 5, 5), mask), (Grid(5, 5), mask), (turned, mask), (at(0, 0, 5, 5, crs=None), mask)
    )
    assert mosaic_product(made) is None


def test_it_is_a_product_that_moves_with_its_folder(tmp_path: Path) -> None:
    pairs = [(at(0, 0, 5, 5), masks((5, 5), 0)), (at(2, 2, 5, 5), masks((5, 5), 1))]
    product = mosaic_product(products(tmp_path / "work", *pairs))
    assert product is not None
    assert isinstance(product.spec, Mosaic)
    write_product(product)
    assert is_written(product)
    assert set(recorded(product)) == {"runs/run/rasters/change.vrt", "runs/run/rasters/change.qml"}
    (tmp_path / "work" / "runs" / "run" / "rasters").rename(tmp_path / "elsewhere")
    with rasterio.open(tmp_path / "elsewhere" / "change.vrt") as raster:
        assert (raster.read(1) != 255).any()
