"""The Onera data set as released: bands are stacked bit by bit, splits, dates and masks are found."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasters import GEOGRAPHIC, write_mask, write_raster

from cdpipe.errors import InputError
from cdpipe.formats import stack
from cdpipe.formats.stack import stack_bands
from cdpipe.geo.grid import Grid
from cdpipe.pairs.layouts.oscd import find_oscd
from cdpipe.pairs.layouts.search import settings

IMAGES, LABELS = (
    "Onera Satellite Change Detection dataset - Images",
    "Onera Satellite Change Detection dataset - {} Labels",
)
BANDS = {"B02": 60, "B03": 60, "B04": 60, "B08": 60, "B8A": 30, "B01": 10}  # rows, by resolution
GRID = Grid(60, 50, (0.0001, 0.0, 54.0, 0.0, -0.0001, 24.0), GEOGRAPHIC)


def write_city(root: Path, city: str, split: str, folders: tuple[str, str] = ("imgs_1", "imgs_2")) -> None:
    """Bands of both dates on grids of their own, and both masks; band values differ everywhere."""
    random = np.random.default_rng(sum(map(ord, city)))
    for number, name in enumerate(folders):
        folder = root / IMAGES / city / name
        folder.mkdir(parents=True)
        for band, rows in BANDS.items():
            size = 0.0001 * 60 / rows
            grid = Grid(rows, 50 + number, (size, 0.0, 54.0, 0.0, -size, 24.0), GEOGRAPHIC)
            file = f"{band}.tif" if "rect" in name else f"S2A_OPER_MSI_L1C_TL_EPA__2016_A01_T39RZH_{band}.tif"
            write_raster(folder / file, random.integers(0, 2**16, grid.shape, np.uint16), grid)
    (root / IMAGES / city / "dates.txt").write_text("date_1: 20160120\ndate_2: 20180328\n")
    masks = root / LABELS.format(split) / city / "cm"
    masks.mkdir(parents=True)
    mask = random.random(GRID.shape) < 0.1
    write_raster(masks / f"{city}-cm.tif", mask + np.uint8(1), GRID)
    write_raster(masks / "cm.png", np.where(mask, 255, 0).astype(np.uint8), GRID, driver="PNG")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "oscd"
    write_city(root, "abudhabi", "Train")
    write_city(root, "rio", "Test")
    (root / IMAGES / "train.txt").write_text("abudhabi,paris")
    (root / IMAGES / "test.txt").write_text("rio\n")
    return root


def read(path: Path) -> NDArray[np.uint16]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def test_cities_are_stacked_with_splits_dates_and_masks(release: Path, tmp_path: Path) -> None:
    found = find_oscd(release, tmp_path / "bands")
    first, second = found.pairs
    assert (first.name, first.split, second.name, second.split) == ("abudhabi", "train", "rio", "test")
    assert (first.before_date, first.after_date) == ("2016-01-20", "2018-03-28")
    assert first.label == release / LABELS.format("Train") / "abudhabi" / "cm" / "abudhabi-cm.tif"
    assert (first.before, first.after) == tuple(
        tmp_path / "bands" / "abudhabi" / f"{d}.tif" for d in ("before", "after")
    )
    assert found.label == {"changed": (2,), "unchanged": (1,)}
    assert found.notes == {"named in train.txt or test.txt, but without a folder": ["paris"]}
    assert found.bands is not None
    for pair in found.pairs:
        for number, path in enumerate((pair.before, pair.after), 1):
            assert path is not None
            for role, band in {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}.items():
                [source] = (release / IMAGES / pair.name / f"imgs_{number}").glob(f"*_{band}.tif")
                assert np.array_equal(read(path)[found.bands[role] - 1], read(source)[0])
            with rasterio.open(path) as stacked, rasterio.open(source) as original:
                assert (stacked.crs, stacked.transform) == (original.crs, original.transform)


def test_stacks_that_are_there_stay(release: Path, tmp_path: Path) -> None:
    find_oscd(release, tmp_path)
    (tmp_path / "rio" / "before.tif").unlink()
    kept = {path: path.stat() for path in tmp_path.glob("*/*.tif") if release not in path.parents}
    find_oscd(release, tmp_path)
    assert len(kept) == 3
    assert all(path.stat() == before for path, before in kept.items())
    assert (tmp_path / "rio" / "before.tif").is_file()


def test_the_resampled_bands_serve_where_the_others_are_missing(tmp_path: Path) -> None:
    write_city(tmp_path, "pisa", "Train", ("imgs_1_rect", "imgs_2_rect"))
    [pair] = find_oscd(tmp_path, tmp_path / "bands").pairs
    assert pair.before is not None
    assert np.array_equal(read(pair.before)[0], read(tmp_path / IMAGES / "pisa" / "imgs_1_rect" / "B04.tif")[0])
    assert pair.split is None


def test_either_kind_of_mask_serves(release: Path, tmp_path: Path) -> None:
    for split, city in (("Train", "abudhabi"), ("Test", "rio")):
        (release / LABELS.format(split) / city / "cm" / f"{city}-cm.tif").unlink()
        found = find_oscd(release, tmp_path)
        both = city == "abudhabi"
        assert found.label == {"changed": (2, 255) if both else (255,), "unchanged": (1, 0) if both else (0,)}


def test_a_city_that_lacks_something_is_left_out(release: Path, tmp_path: Path) -> None:
    [band] = (release / IMAGES / "rio" / "imgs_2").glob("*_B08.tif")
    write_raster(band, np.ones((59, 51), np.uint16), GRID)
    found = find_oscd(release, tmp_path)
    [reason] = found.notes["left out, its bands cannot be stacked"]
    assert reason.startswith(f"rio ({band}: 51 x 59 px")
    band.unlink()
    found = find_oscd(release, tmp_path)
    assert [pair.name for pair in found.pairs] == ["abudhabi"]
    assert found.notes["left out, imgs_1 or imgs_2 lacks one of B04, B03, B02, B08"] == ["rio"]


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "city" / "cm").mkdir(parents=True)
    with pytest.raises(InputError, match=r"<city>/imgs_1 .* found none; left out, a label without images: city"):
        find_oscd(tmp_path, tmp_path / "bands")
    assert not (tmp_path / "bands").exists()


def test_stacking_does_not_depend_on_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    values = {name: random.integers(0, 2**16, GRID.shape, np.uint16) for name in "ab"}
    bands = {name: write_raster(tmp_path / f"{name}.tif", pixels, GRID) for name, pixels in values.items()}
    stack_bands(bands, tmp_path / "whole.tif", settings())
    monkeypatch.setattr(stack, "STEP", 16)
    stack_bands(bands, tmp_path / "steps.tif", settings())
    for name in ("whole", "steps"):
        assert np.array_equal(read(tmp_path / f"{name}.tif"), np.stack(list(values.values())))
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert dataset.descriptions == ("a", "b")


def test_a_stack_that_fails_leaves_nothing(tmp_path: Path) -> None:
    good = write_raster(tmp_path / "a.tif", np.ones(GRID.shape, np.uint16), GRID)
    odd = write_raster(tmp_path / "b.tif", np.ones(GRID.shape, np.uint8), GRID)
    torn = write_raster(tmp_path / "c.tif", np.arange(3000, dtype=np.uint16).reshape(GRID.shape), GRID)
    torn.write_bytes(torn.read_bytes()[:-2000])
    for second, says in (
        (odd, "50 x 60 px uint8"),
        (torn, "not readable as a raster"),
        (tmp_path / "d", "no such file"),
    ):
        with pytest.raises(InputError, match=says):
            stack_bands({"a": good, "b": second}, tmp_path / "out" / "s.tif", settings())
        assert not list((tmp_path / "out").iterdir())


def test_masks_of_the_bands_are_masks_of_the_stack(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    seen = random.random((2, *GRID.shape)) > 0.2
    bands = {}
    for name, mask in zip(("a", "b"), seen, strict=True):
        bands[name] = write_raster(tmp_path / f"{name}.tif", random.integers(1, 9, GRID.shape, np.uint8), GRID)
        write_mask(bands[name], mask)
    bands["c"] = write_raster(tmp_path / "c.tif", random.integers(1, 9, GRID.shape, np.uint8), GRID)
    stack_bands(bands, tmp_path / "s.tif", settings())
    with rasterio.open(tmp_path / "s.tif") as dataset:
        assert np.array_equal(dataset.dataset_mask() > 0, seen.all(0))
        assert not (tmp_path / "s.tif.msk").exists()
    assert (read(tmp_path / "s.tif")[2] == read(bands["c"])[0]).all()
