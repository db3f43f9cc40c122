"""Pixels come to the right place, the same whatever the window, and without a trace of what is no data."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform
from rasters import GEOGRAPHIC, NORTH_UP, make_config, source_of, utm_grid, write_raster

from cdpipe.errors import InputError
from cdpipe.formats.observed import has_data
from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.grid import Grid, Transform, Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.workspace.location import here

# Grids about the source's place: another size of pixels, shifted, turned, upside down, finer, in degrees.
TARGETS = {
    "shifted": utm_grid(700, 900, (10.0, 0.0, 500_103.0, 0.0, -10.0, 3_999_876.0)),
    "coarser": utm_grid(300, 290, (25.0, 0.0, 499_900.0, 0.0, -25.0, 4_000_050.0)),
    "finer": utm_grid(800, 700, (4.0, 0.0, 502_000.0, 0.0, -4.0, 3_998_000.0)),
    "turned": utm_grid(600, 600, (8.0, 3.0, 501_000.0, 3.0, -8.0, 3_997_000.0)),
    "south_up": utm_grid(800, 800, (10.0, 0.0, 500_003.0, 0.0, 10.0, 3_991_992.0)),
    "degrees": Grid(900, 1000, (1e-4, 0.0, 14.9995, 0.0, -1e-4, 36.1455), GEOGRAPHIC),
}
SOURCE = utm_grid(800, 900)


def raster_of(values: NDArray[Any], grid: Grid, missing: NDArray[np.bool_] | None = None) -> WarpSource:
    """A raster whose pixels are in memory."""
    present = np.ones(grid.shape, np.bool_) if missing is None else ~missing

    def read(part: Window) -> Pixels:
        return values[:, *part.slices].copy(), present[part.slices].copy()

    return WarpSource("test", grid, len(values), values.dtype, read)


def whole(grid: Grid) -> Window:
    return Window(0, 0, *grid.shape)


@cache
def noise() -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Pixels that all differ from their neighbours, and where they are missing."""
    random = np.random.default_rng(1)
    missing = random.random(SOURCE.shape) < 0.01
    missing[300:420, 200:500] = True
    return random.integers(1, 10_000, (2, *SOURCE.shape), np.uint16), missing


@cache
def whole_scene(target: str, resampling: str) -> Pixels:
    values, missing = noise()
    return read_warped(raster_of(values, SOURCE, missing), TARGETS[target], whole(TARGETS[target]), resampling)


@st.composite
def windows(draw: st.DrawFn, grid: Grid) -> Window:
    row, col = draw(st.integers(0, grid.height - 1)), draw(st.integers(0, grid.width - 1))
    return Window(row, col, draw(st.integers(1, grid.height - row)), draw(st.integers(1, grid.width - col)))


@settings(max_examples=30)
@given(
    target=st.sampled_from(sorted(TARGETS)),
    resampling=st.sampled_from(["nearest", "bilinear", "cubic"]),
    data=st.data(),
)
def test_no_pixel_depends_on_the_window(target: str, resampling: str, data: st.DataObject) -> None:
    window = data.draw(windows(TARGETS[target]))
    values, missing = noise()
    got, present = read_warped(raster_of(values, SOURCE, missing), TARGETS[target], window, resampling)
    expected, expected_present = whole_scene(target, resampling)
    assert np.array_equal(got, expected[:, *window.slices])
    assert np.array_equal(present, expected_present[window.slices])


@pytest.mark.parametrize("target", ["shifted", "degrees"])
@pytest.mark.parametrize("block", [256, 512, 1024, 2048])
def test_no_pixel_depends_on_the_size_of_a_block(target: str, block: int) -> None:
    values, missing = noise()
    expected, expected_present = whole_scene(target, "bilinear")
    assert 0.1 < expected_present.mean() < 0.999
    for window in tiles_in(whole(TARGETS[target]), block):
        got, present = read_warped(raster_of(values, SOURCE, missing), TARGETS[target], window, "bilinear")
        assert np.array_equal(got, expected[:, *window.slices])
        assert np.array_equal(present, expected_present[window.slices])


def exact_places(source: Grid, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns in the source, in pixel centres, of the target's pixel centres, by PROJ for each."""
    rows, cols = np.mgrid[: target.height, : target.width] + 0.5
    a, b, c, d, e, f = target.transform
    x, y = (a * cols + b * rows + c).ravel(), (d * cols + e * rows + f).ravel()
    xs, ys = transform(CRS.from_wkt(target.crs), CRS.from_wkt(source.crs), x, y)
    a, b, c, d, e, f = tuple(~Affine(*source.transform))[:6]
    x, y = np.array(xs).reshape(target.shape), np.array(ys).reshape(target.shape)
    return d * x + e * y + f - 0.5, a * x + b * y + c - 0.5


SOURCES: dict[str, Transform] = {
    "north_up": NORTH_UP,
    "south_up": (10.0, 0.0, 500_000.0, 0.0, 10.0, 3_992_000.0),
    "turned": (9.0, 4.0, 498_000.0, -4.0, 9.0, 3_995_000.0),
}


@pytest.mark.parametrize("source", sorted(SOURCES))
@pytest.mark.parametrize("target", ["shifted", "finer", "turned", "south_up", "degrees"])
def test_a_ramp_has_its_analytic_value_everywhere(source: str, target: str) -> None:
    """Half a pixel off would be 5 and 3.5 units, one row up or down 7."""
    grid = utm_grid(800, 900, SOURCES[source])
    rows, cols = np.mgrid[: grid.height, : grid.width]
    ramp = np.stack([rows * 7 + 1000, cols * 10 + 1000]).astype(np.uint16)
    got, present = read_warped(raster_of(ramp, grid), TARGETS[target], whole(TARGETS[target]), "bilinear")
    at_rows, at_cols = exact_places(grid, TARGETS[target])
    # within half a pixel of the edge the nearest pixels lie to one side only
    inside = (at_rows > 0) & (at_rows < grid.height - 1) & (at_cols > 0) & (at_cols < grid.width - 1)
    assert inside.sum() > 50_000
    assert present[inside].all()
    assert np.abs(got[0][inside] - (at_rows[inside] * 7 + 1000)).max() <= 1
    assert np.abs(got[1][inside] - (at_cols[inside] * 10 + 1000)).max() <= 1


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_nearest_takes_the_pixel_that_holds_the_centre(target: str) -> None:
    values, missing = noise()
    got, present = whole_scene(target, "nearest")
    at_rows, at_cols = exact_places(SOURCE, TARGETS[target])
    row, col = np.rint(at_rows).astype(int), np.rint(at_cols).astype(int)
    # GDAL follows curves to 0.04 px: leave out what lies that near to a border between pixels
    clear = (np.abs(at_rows % 1 - 0.5) > 0.04) & (np.abs(at_cols % 1 - 0.5) > 0.04)
    inside = (row >= 0) & (row < SOURCE.height) & (col >= 0) & (col < SOURCE.width)
    row, col = row.clip(0, SOURCE.height - 1), col.clip(0, SOURCE.width - 1)
    expected_present = inside & ~missing[row, col]
    assert clear.mean() > 0.6
    assert np.array_equal(present[clear], expected_present[clear])
    expected = np.where(expected_present, values[:, row, col], 0)
    assert np.array_equal(got[:, clear], expected[:, clear])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_missing_pixels_have_no_part_in_their_neighbours(dtype: str) -> None:
    """The plain definition: weights of the four nearest pixels, over the sum of the weights that count."""
    random = np.random.default_rng(2)
    source, target = utm_grid(60, 70), utm_grid(50, 55, (10.0, 0.0, 500_023.0, 0.0, -10.0, 3_999_934.0))
    values = random.integers(1, 100, (2, 60, 70)).astype(dtype)
    missing = random.random((60, 70)) < 0.3
    got, present = read_warped(raster_of(values, source, missing), target, whole(target), "bilinear")
    total, weights = np.zeros((2, 50, 55)), np.zeros((50, 55))
    at_rows, at_cols = exact_places(source, target)
    for row in (np.floor(at_rows), np.floor(at_rows) + 1):
        for col in (np.floor(at_cols), np.floor(at_cols) + 1):
            at = row.astype(int), col.astype(int)
            weight = (1 - np.abs(at_rows - row)) * (1 - np.abs(at_cols - col)) * ~missing[at]
            total += weight * values[:, *at]
            weights += weight
    nearest = np.rint(at_rows).astype(int), np.rint(at_cols).astype(int)
    assert np.array_equal(present, ~missing[nearest])
    tolerance = 0.51 if np.dtype(dtype).kind != "f" else 1e-4
    assert np.abs(got - total / np.maximum(weights, 1e-9))[:, present].max() <= tolerance
    assert (got[:, ~present] == 0).all()


@pytest.mark.parametrize("target", ["shifted", "degrees"])
def test_close_to_gdals_warp_of_the_whole_scene(target: str) -> None:
    random = np.random.default_rng(3)
    blocks = np.kron(random.normal(3000, 800, (1, 80, 90)), np.ones((1, 10, 10)))
    smooth = np.mean([np.roll(blocks, (i, j), (1, 2)) for i in range(6) for j in range(6)], 0)
    values = smooth.astype(np.uint16)
    grid = TARGETS[target]
    got, present = read_warped(raster_of(values, SOURCE), grid, whole(grid), "bilinear")
    expected = np.zeros((1, *grid.shape), np.uint16)
    reproject(
        values,
        expected,
        src_transform=Affine(*SOURCE.transform),
        src_crs=SOURCE.crs,
        dst_transform=Affine(*grid.transform),
        dst_crs=grid.crs,
        resampling=Resampling.bilinear,
        XSCALE=1,
        YSCALE=1,
    )
    slope = np.abs(np.diff(smooth, axis=1)).max() + np.abs(np.diff(smooth, axis=2)).max()
    assert np.abs(got.astype(int) - expected).max() <= 1 + 0.25 * slope  # GDAL's eighth of a pixel in rows and columns
    assert (present != (expected[0] > 0)).mean() < 1e-3


def test_a_finer_source_is_averaged_not_sampled() -> None:
    random = np.random.default_rng(4)
    source, target = utm_grid(800, 800), utm_grid(80, 80, (100.0, 0.0, 500_000.0, 0.0, -100.0, 4_000_000.0))
    values = random.normal(1000, 100, (1, 800, 800)).astype(np.float32)
    got, _ = read_warped(raster_of(values, source), target, whole(target), "bilinear")
    means = values.reshape(80, 10, 80, 10).mean((1, 3))
    assert got.std() < 15  # single pixels: 100; means of 10 x 10: 10
    assert np.corrcoef(got.ravel(), means.ravel())[0, 1] > 0.75
    assert abs(got.mean() - values.mean()) < 1


def test_pixels_far_finer_than_the_grids_are_refused() -> None:
    source = utm_grid(20_000, 20_000, (0.25, 0.0, 500_000.0, 0.0, -0.25, 4_000_000.0))
    raster = WarpSource("b.tif", source, 1, np.uint8, lambda _: pytest.fail("nothing may be read"))
    with pytest.raises(InputError, match=r"b\.tif: .* of its pixels lie on one tile .*: resample it first"):
        read_warped(raster, utm_grid(500, 500), Window(0, 0, 500, 500), "bilinear")


def test_what_does_not_meet_the_grid_is_missing_and_not_read() -> None:
    raster = WarpSource("b.tif", utm_grid(100, 100), 2, np.int16, lambda _: pytest.fail("nothing may be read"))
    far = Grid(300, 300, NORTH_UP, CRS.from_epsg(32651).to_wkt())
    values, present = read_warped(raster, far, Window(10, 10, 280, 280), "bilinear")
    assert values.shape == (2, 280, 280)
    assert values.dtype == np.int16
    assert not values.any()
    assert not present.any()


@pytest.mark.parametrize(
    ("source", "grid", "expected"),
    [
        (Grid(10, 12), utm_grid(10, 12), "it has no georeference but the pair's grid has"),
        (utm_grid(10, 12), Grid(10, 12), "the pair's grid has no georeference but it has"),
        (
            Grid(10, 12),
            Grid(10, 13),
            "12 x 10 px without georeference; expected 13 x 10 px, the size of the pair's grid",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused(source: Grid, grid: Grid, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_warped(raster_of(np.zeros((1, 10, 12)), source), grid, Window(0, 0, 5, 5), "bilinear")


# From here on with files.


def test_a_date_is_read_in_the_order_of_its_roles(tmp_path: Path) -> None:
    values = np.arange(4 * 30 * 40, dtype=np.uint16).reshape(4, 30, 40)
    grid = utm_grid(30, 40)
    path = write_raster(tmp_path / "a.tif", values, grid, nodata=5)
    config = make_config(tmp_path)
    got, observed = read_on_grid(source_of(path, config, (3, 1)), None, grid, Window(0, 0, 30, 40), config)
    assert got.dtype == np.uint16
    assert np.array_equal(got[:, observed], values[[2, 0]][:, observed])
    assert (~observed).sum() == 1  # the one 5 in band 1; it takes band 3 with it
    assert (got[:, 0, 5] == 0).all()


@pytest.mark.parametrize(
    ("dtype", "tag", "missing"),
    [("uint8", 0, 0), ("int16", -9999, -9999), ("float32", -3.4028226550889045e38, -3.4028226550889045e38)],
)
def test_the_tag_marks_missing_pixels(tmp_path: Path, dtype: str, tag: float, missing: float) -> None:
    values = np.full((1, 3, 4), 7, dtype)
    values[0, 1, 2] = missing
    path, config = write_raster(tmp_path / "a.tif", values, utm_grid(3, 4), nodata=tag), make_config(tmp_path)
    _, observed = read_on_grid(source_of(path, config, (1,)), None, utm_grid(3, 4), Window(0, 0, 3, 4), config)
    assert np.argwhere(~observed).tolist() == [[1, 2]]


def test_the_sensors_nodata_wins_over_the_tag(tmp_path: Path) -> None:
    values = np.array([[[0, 1, 2]]], np.uint8)
    path = write_raster(tmp_path / "a.tif", values, utm_grid(1, 3), nodata=0)
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1}, "nodata": 2}})
    _, observed = read_on_grid(source_of(path, config, (1,)), None, utm_grid(1, 3), Window(0, 0, 1, 3), config)
    assert observed.tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("values", "nodata", "expected"),
    [
        (np.array([[[np.nan, np.inf, -np.inf, 1.0]]]), None, [[False, False, False, True]]),
        (np.array([[[0.1, 0.2]]], np.float32), 0.1, [[False, True]]),
        (np.array([[[1, 2]]], np.float32), -1.8e308, [[True, True]]),
        (np.array([[[1, 255]]], np.uint8), -9999, [[True, True]]),
        (np.array([[[1, 0]]], np.uint8), 0.5, [[True, True]]),
        (np.array([[[1, 0]]], np.uint8), float("nan"), [[True, True]]),
        (np.array([[[4294967295, 0]]], np.uint32), 4294967295, [[False, True]]),
    ],
)
def test_what_counts_as_data(values: NDArray[Any], nodata: float | None, expected: list[list[bool]]) -> None:
    assert has_data(values, [nodata]).tolist() == expected


LOWEST = (-3.4028234663852886e38, -3.40282346638529e38, -3.402823e38)
TAGS = (*LOWEST, -9999.9, 9.96921e36, 1e20, 0.1, -1.0, 0.0, -0.0, 255.0)


@given(st.sampled_from(TAGS), st.sampled_from(["float32", "float64"]), st.integers(-3, 3))
def test_floats_have_a_nodata_value_as_gdal_sees_it(
    tmp_path_factory: pytest.TempPathFactory, tag: float, dtype: str, steps: int
) -> None:
    """Written with fewer digits, or computed with others; not what lies further off."""
    near = float(np.float32(tag))
    steps = 0 if tag in LOWEST else steps  # where GDAL's own sums overflow
    values = np.array([[tag, near, -tag, 0.0, 1.0, tag * (1 + steps * 1e-5), near * (1 + steps * 3e-8)]]).astype(dtype)
    path = write_raster(tmp_path_factory.mktemp("tags") / "a.tif", values, nodata=tag)
    with rasterio.open(path) as dataset:
        expected = (dataset.read_masks(1) > 0) & np.isfinite(values)
        assert np.array_equal(has_data(dataset.read(), [dataset.nodatavals[0]]), expected)


def test_a_warped_date_leaves_out_nodata_and_nan(tmp_path: Path) -> None:
    values = np.full((2, 90, 90), 100, np.float32)
    values[0, 40:50, 40:50] = -9999
    values[1, 60, 60] = np.nan
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1, "nir": 2}}})
    path = write_raster(tmp_path / "a.tif", values, utm_grid(90, 90), nodata=-9999)
    target = utm_grid(80, 80, (10.0, 0.0, 500_033.0, 0.0, -10.0, 3_999_967.0))
    got, observed = read_on_grid(source_of(path, config, (1, 2)), None, target, Window(0, 0, 80, 80), config)
    assert (got[:, observed] == 100).all()
    assert (got[:, ~observed] == 0).all()
    assert (~observed).sum() == 101


def valid_case(folder: Path, unusable: tuple[int, ...]) -> Callable[[Path], NDArray[np.bool_]]:
    """Reads which pixels are observed of a plain 20 x 20 date with the given valid raster."""
    config = make_config(folder, sensors={"s": {"bands": {"red": 1}, "unusable": list(unusable)}})
    path = write_raster(folder / "a.tif", np.ones((1, 20, 20), np.uint8), utm_grid(20, 20))
    source = source_of(path, config, (1,))
    return lambda valid: read_on_grid(source, here(valid), utm_grid(20, 20), Window(0, 0, 20, 20), config)[1]


def test_unusable_values_of_a_valid_raster_are_not_observed(tmp_path: Path) -> None:
    clouds = np.arange(400, dtype=np.uint16).reshape(20, 20)
    observed = valid_case(tmp_path, (3, 399))(write_raster(tmp_path / "c.tif", clouds, utm_grid(20, 20)))
    assert np.array_equal(observed, (clouds != 3) & (clouds != 399))
    unplaced = valid_case(tmp_path, (3, 399))(write_raster(tmp_path / "d.tif", clouds))
    assert np.array_equal(unplaced, observed)


def test_a_coarser_valid_raster_is_taken_from_the_nearest_pixel_and_ends_where_it_ends(tmp_path: Path) -> None:
    coarse = np.array([[1, 0], [1, 1]], np.uint8)
    grid = utm_grid(2, 2, (80.0, 0.0, 500_000.0, 0.0, -80.0, 4_000_000.0))
    observed = valid_case(tmp_path, (0,))(write_raster(tmp_path / "c.tif", coarse, grid))
    expected = np.zeros((20, 20), np.bool_)
    expected[:16, :16] = np.kron(coarse, np.ones((8, 8), np.uint8)) == 1
    assert np.array_equal(observed, expected)


def test_valid_rasters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    observed = valid_case(tmp_path, (0,))
    with pytest.raises(InputError, match=r"5 x 5 px without georeference; expected 20 x 20 px, the size of its date"):
        observed(write_raster(tmp_path / "c.tif", np.ones((5, 5), np.uint8)))
    with pytest.raises(InputError, match="expected one band in a valid raster, got 2"):
        observed(write_raster(tmp_path / "d.tif", np.ones((2, 20, 20), np.uint8), utm_grid(20, 20)))


def test_the_valid_raster_of_a_warped_date_may_have_that_dates_size(tmp_path: Path) -> None:
    """Without georeference it lies on its own date's pixels, not on the pair's."""
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1}}})
    own = utm_grid(40, 40, (5.0, 0.0, 500_000.0, 0.0, -5.0, 4_000_000.0))
    path = write_raster(tmp_path / "a.tif", np.ones((1, 40, 40), np.uint8), own)
    valid = np.ones((40, 40), np.uint8)
    valid[10:20, 30:] = 0
    mask = write_raster(tmp_path / "v.tif", valid)
    _, observed = read_on_grid(
        source_of(path, config, (1,)), here(mask), utm_grid(20, 20), Window(0, 0, 20, 20), config
    )
    assert np.array_equal(observed, valid[1::2, 1::2] == 1)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    values, _ = noise()
    path = write_raster(tmp_path / "a.tif", values, SOURCE, tiled=True, compress="deflate")
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1, "nir": 2}}})
    source, grid = source_of(path, config, (1, 2)), TARGETS["degrees"]
    expected, _ = read_on_grid(source, None, grid, whole(grid), config)
    parts = list(tiles_in(whole(grid), 200))
    with ThreadPoolExecutor(8) as pool:
        for window, (got, _) in zip(
            parts, pool.map(lambda part: read_on_grid(source, None, grid, part, config), parts), strict=True
        ):
            assert np.array_equal(got, expected[:, *window.slices])


def test_real_dates_on_different_grids(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "oscd" / "abudhabi"
    config = make_config(tmp_path, sensors={"s": {"bands": {"blue": 1, "nir": 4}}})
    with rasterio.open(folder / "before.tif") as before, rasterio.open(folder / "after.tif") as after:
        t = before.transform
        grid = Grid(before.height, before.width, (t.a, t.b, t.c, t.d, t.e, t.f), GEOGRAPHIC)
        expected = np.zeros((2, *grid.shape), np.uint16)
        reproject(
            rasterio.band(after, [1, 4]), expected, dst_transform=t, dst_crs=before.crs, resampling=Resampling.bilinear
        )
    source = source_of(folder / "after.tif", config, (1, 4))
    got, observed = read_on_grid(source, None, grid, whole(grid), config)
    assert observed.mean() > 0.99
    difference = np.abs(got.astype(int) - expected)[:, observed]
    assert np.percentile(difference, 99.9) <= 1
