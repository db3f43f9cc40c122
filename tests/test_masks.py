"""Alpha bands and masks that come with a file say what was not observed, as rasterio reads them."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasters import make_config, source_of, utm_grid, write_raster

from cdpipe.cli.check_tables import pair_table
from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster, open_raster
from cdpipe.formats.masks import FileMask
from cdpipe.formats.observed import open_mask
from cdpipe.geo.grid import Window
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.check import check_pair
from cdpipe.pairs.imagery import date_bands, read_on_grid
from cdpipe.pairs.mask_check import MaskFound, sample_mask
from cdpipe.workspace.location import here

HEIGHT, WIDTH = 40, 50
GRID, WHOLE = utm_grid(HEIGHT, WIDTH), Window(0, 0, HEIGHT, WIDTH)
RNG = np.random.default_rng(0)
SEEN = RNG.random((HEIGHT, WIDTH)) > 0.3
RGB, ALPHA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue], ColorInterp.alpha


def pixels(count: int, dtype: str = "uint8") -> NDArray[Any]:
    """Values that are never nodata."""
    return RNG.integers(1, 120, (count, HEIGHT, WIDTH)).astype(dtype)


def write_interpreted(path: Path, values: NDArray[Any], kinds: list[ColorInterp], **profile: Any) -> Path:
    """A raster whose bands are declared as what ``kinds`` say, in the file itself."""
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype, "crs": GRID.crs}
    place = rasterio.Affine(*GRID.transform)
    with rasterio.open(path, "w", **({"driver": "GTiff", "transform": place} | shape | profile)) as dataset:
        dataset.colorinterp = kinds
        dataset.write(values)
    return path


def write_masked(path: Path, values: NDArray[Any], mask: NDArray[np.bool_], **profile: Any) -> Path:
    """A GeoTIFF with an internal mask."""
    count, height, width = values.shape
    place = {"crs": GRID.crs, "transform": rasterio.Affine(*GRID.transform)}
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **(place | shape | profile)) as dataset,
    ):
        dataset.write(values)
        dataset.write_mask(mask)
    return path


def observed(path: Path, half: Literal[0, 1] | None = None, **sensor: Any) -> NDArray[np.bool_]:
    """Which pixels of a date are observed."""
    sensors = {"s": {"bands": {"red": 1, "green": 2, "blue": 3}} | sensor}
    config = make_config(path.parent, sensors=sensors)
    source = source_of(path, config, (1, 2, 3))
    source = Source(source.path, source.sensor_name, source.sensor, source.bands, half)
    values, seen = read_on_grid(source, None, GRID, WHOLE, config)
    assert (values[:, ~seen] == 0).all()
    return seen


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_transparent_is_not_observed(tmp_path: Path, dtype: str, interleave: str) -> None:
    alpha = np.where(SEEN, RNG.integers(1, 100, SEEN.shape), 0).astype(dtype)
    path = tmp_path / "a.tif"
    write_interpreted(path, np.stack([*pixels(3, dtype), alpha]), [*RGB, ALPHA], interleave=interleave)
    assert np.array_equal(observed(path), SEEN)
    assert observed(path, mask="ignore").all()
    if dtype in ("uint8", "uint16"):  # GDAL reads no other alpha as a mask
        with rasterio.open(path) as dataset:
            assert np.array_equal(dataset.dataset_mask() > 0, SEEN)


def test_alpha_counts_among_any_number_of_bands_and_together_with_nodata(tmp_path: Path) -> None:
    values = pixels(5)
    values[4], values[0, 3, 4] = np.where(SEEN, 255, 0), 0
    path = write_interpreted(tmp_path / "a.tif", values, [*RGB, ColorInterp.undefined, ALPHA], nodata=0)
    expected = SEEN.copy()
    expected[3, 4] = False
    assert np.array_equal(observed(path), expected)


def test_a_band_that_has_a_role_is_data(tmp_path: Path) -> None:
    values = pixels(4)
    values[3] = np.where(SEEN, 200, 0)
    path = write_raster(tmp_path / "a.tif", values, GRID)  # GDAL declares the fourth of four bytes as alpha
    assert describe_raster(here(path), Input()).mask == FileMask(alpha=(4,))
    assert observed(path, bands={"red": 1, "green": 2, "blue": 3, "nir": 4}).all()
    assert np.array_equal(observed(path), SEEN)


@pytest.mark.parametrize(
    ("description", "is_alpha"),
    [
        *(("nir", False), ("B08", False), ("B8", False), ("Near infrared", False)),
        *(("", True), ("alpha", True), ("Band 4", True), ("Band_4", True), ("transparency", True), ("B04", True)),
    ],
)
def test_a_description_may_say_another_thing(tmp_path: Path, description: str, is_alpha: bool) -> None:
    values = pixels(4)
    values[3] = np.where(SEEN, 200, 0)
    path = write_raster(tmp_path / "a.tif", values, GRID)
    with rasterio.open(path, "r+") as dataset:
        dataset.set_band_description(4, description)
    assert np.array_equal(observed(path), SEEN if is_alpha else np.ones_like(SEEN))


@pytest.mark.parametrize("compress", ["none", "deflate", "lzw", "packbits"])
@pytest.mark.parametrize("tag", [None, 0])
def test_a_mask_inside_a_tiff_is_honoured(tmp_path: Path, compress: str, tag: int | None) -> None:
    values = pixels(3)
    values[1, 5, 6] = 0
    path = write_masked(tmp_path / "a.tif", values, SEEN, compress=compress, nodata=tag)
    expected = SEEN.copy()
    expected[5, 6] &= tag is None
    assert np.array_equal(observed(path), expected)
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.dataset_mask() > 0, SEEN)


def test_a_jpeg_in_a_tiff_has_a_mask(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.tif", pixels(3), SEEN, compress="jpeg", photometric="ycbcr")
    assert np.array_equal(observed(path), SEEN)


def test_the_masks_of_overviews_are_not_the_mask(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.tif", pixels(3), SEEN, compress="deflate")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    assert np.array_equal(observed(path), SEEN)


@pytest.mark.parametrize(("count", "declared"), [(8, (4, 8)), (8, (4,)), (7, (7,)), (8, (8,))])
@pytest.mark.parametrize("half", [0, 1])
def test_halves_of_a_composite_have_their_own_alpha_or_share_one(
    tmp_path: Path, count: int, declared: tuple[int, ...], half: Literal[0, 1]
) -> None:
    values = pixels(count)
    first, second = SEEN, np.roll(SEEN, 7)
    if count == 8:
        values[3], values[7] = np.where(first, 255, 0), np.where(second, 255, 0)
    else:
        values[6] = np.where(first, 255, 0)
    kinds = [ALPHA if band in declared else ColorInterp.gray for band in range(1, count + 1)]
    path = write_interpreted(tmp_path / "a.tif", values, kinds)
    expected = first if half == 0 or count == 7 else second
    if half == 0 and declared == (8,):
        expected = np.ones_like(SEEN)
    assert np.array_equal(observed(path, half), expected)


def test_a_mask_counts_for_both_halves_of_a_composite(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.tif", pixels(6), SEEN)
    assert np.array_equal(observed(path, 0), SEEN)
    assert np.array_equal(observed(path, 1), SEEN)


def test_nodata_values_of_all_bands_count_together(tmp_path: Path) -> None:
    values = pixels(3)
    values[:, ~SEEN] = np.array([7, 8, 9])[:, None]
    values[0, 0] = 7
    path = write_raster(tmp_path / "a.tif", values, GRID)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="7 8 9")
    expected = SEEN | (values != np.array([7, 8, 9])[:, None, None]).any(0)
    assert np.array_equal(observed(path), expected)
    assert observed(path, nodata="none").all()


@settings(max_examples=15, deadline=None)
@given(row=st.integers(0, 30), col=st.integers(0, 40), kind=st.sampled_from(["alpha", "mask"]))
def test_a_warped_date_takes_the_nearest(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("warp")
    seen = np.ones((HEIGHT, WIDTH), np.bool_)
    seen[row : row + 9, col : col + 8] = False
    values = pixels(3)
    if kind == "alpha":
        alpha = np.where(seen, 255, 0).astype(np.uint8)
        path = write_interpreted(folder / "a.tif", np.stack([*values, alpha]), [*RGB, ALPHA])
    else:
        path = write_masked(folder / "a.tif", values, seen)
    config = make_config(folder)
    target = GRID.moved(0.3, -0.2)
    _, got = read_on_grid(source_of(path, config, (1, 2, 3)), None, target, WHOLE, config)
    inside = np.zeros_like(seen)
    inside[1:-1, 1:-1] = True
    assert np.array_equal(got[inside], seen[inside])


def test_a_mask_is_read_by_itself(tmp_path: Path) -> None:
    alpha = np.where(SEEN, 255, 0).astype(np.uint8)
    path = write_interpreted(tmp_path / "a.tif", np.stack([pixels(1)[0], alpha]), [ColorInterp.gray, ALPHA])
    window = Window(3, 4, 20, 30)
    with open_raster(here(path), Input()) as dataset:
        mask = describe_raster(here(path), Input()).mask
        assert str(mask) == "alpha band 2"
        with open_mask(dataset, here(path), mask) as read:
            assert np.array_equal(read(window), SEEN[3:23, 4:34])


def test_ignoring_a_mask_leaves_the_bands_as_they_are(tmp_path: Path) -> None:
    path = write_masked(tmp_path / "a.tif", pixels(3), SEEN)
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1, "green": 2, "blue": 3}, "mask": "ignore"}})
    info = describe_raster(here(path), Input())
    assert info.mask == FileMask(shared=True)
    assert date_bands(source_of(path, config, (3, 1)), info) == ((3, 1), FileMask())


def looked_at(path: Path, **sensor: Any) -> MaskFound | None:
    config = make_config(path.parent, sensors={"s": {"bands": {"red": 1, "green": 2, "blue": 3}} | sensor})
    return sample_mask(source_of(path, config, (1, 2, 3)), config)


def test_the_check_tells_how_much_is_transparent(tmp_path: Path) -> None:
    found = looked_at(write_masked(tmp_path / "a.tif", pixels(3), SEEN))
    assert found == MaskFound(FileMask(shared=True), float((~SEEN).mean()))
    assert looked_at(write_masked(tmp_path / "a.tif", pixels(3), SEEN), mask="ignore") is None
    assert looked_at(write_raster(tmp_path / "b.tif", pixels(3), GRID)) is None


def test_a_large_mask_is_sampled_from_edge_to_edge(tmp_path: Path) -> None:
    seen = np.zeros((2100, 2100), np.bool_)
    seen[:1050] = True
    found = looked_at(write_masked(tmp_path / "a.tif", np.ones((3, 2100, 2100), np.uint8), seen, compress="deflate"))
    assert found is not None
    assert found.share == pytest.approx(0.5, abs=0.15)


def test_odd_masks_are_pointed_out(tmp_path: Path) -> None:
    def doubt(values: NDArray[Any], seen: NDArray[np.bool_], **profile: Any) -> str:
        found = looked_at(write_masked(tmp_path / "a.tif", values, seen, **profile))
        assert found is not None
        return "; ".join(found.doubts)

    nothing, values = np.zeros_like(SEEN), pixels(3)
    assert doubt(values, SEEN) == doubt(values, ~nothing) == ""
    assert "marks every pixel" in doubt(values, nothing)
    values[:, SEEN] = 0
    assert "the wrong way round" in doubt(values, SEEN, nodata=0)
    values = pixels(3)
    values[:, :4, :10] = 0
    assert "have the nodata value" in doubt(values, ~nothing, nodata=0)
    near_infrared = np.concatenate([pixels(3), RNG.integers(0, 255, (1, HEIGHT, WIDTH))]).astype(np.uint8)
    found = looked_at(write_raster(tmp_path / "b.tif", near_infrared, GRID))
    assert found is not None
    assert "near infrared" in found.doubts[0]


def test_the_table_of_the_check_has_a_column_where_there_are_masks(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    paths = [write_masked(tmp_path / "a.tif", pixels(3), SEEN), write_raster(tmp_path / "b.tif", pixels(3), GRID)]
    before, after = (source_of(path, config, (1, 2, 3)) for path in paths)
    report = check_pair(Pair("p", "p", before, after, ("red", "green", "blue")), config)
    column = next(c for c in pair_table([report], read=False).columns if c.header == "transparent")
    assert [*column.cells] == [f"{(~SEEN).mean():.1%} > -"]


def test_odd_files_are_observed_where_rasterio_reads_them(shared: Path) -> None:
    """Also those that nothing but a mask of their own makes odd."""
    masked = []
    for path in sorted((shared / "data" / "oddtiffs").glob("*.tif*")):
        try:
            info = describe_raster(here(path), Input())
            with open_raster(here(path), Input()) as dataset, open_mask(dataset, here(path), info.mask) as read:
                seen = read(Window(0, 0, *info.grid.shape)) if info.mask else None
        except InputError:
            continue
        if seen is None:
            continue
        masked.append(path.name)
        with rasterio.open(path) as dataset:
            by_alpha = np.all([dataset.read(band) > 0 for band in info.mask.alpha] or [seen], axis=0)
            # GDAL takes alpha for a mask in bytes and 16 bits alone
            if not info.mask.alpha or dataset.dtypes[0] in ("uint8", "uint16"):
                assert np.array_equal(seen, dataset.dataset_mask() > 0) or dataset.nodata is not None, path.name
        assert np.array_equal(seen, by_alpha)
    assert len(masked) >= 8
