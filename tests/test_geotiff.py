"""GeoTIFFs are valid COGs, hold what was to be written, and appear complete or not at all."""

import hashlib
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from cdpipe.errors import IntegrityError
from cdpipe.formats.cog import CHANGE_COLORS, Band, write_cog
from cdpipe.geo.grid import Grid, Transform
from cdpipe.workspace.location import here

NORTH_UP: Transform = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
ROTATED: Transform = (9.5, 2.5, 500_000.0, 1.5, -10.25, 4_000_000.0)
CHANGE = Band("uint8", 255, "change", CHANGE_COLORS, {"threshold": "0.5", "model": "unet"})
PROBABILITY = Band("float32", float("nan"), "probability of change")


def grid_of(pixels: NDArray[Any], transform: Transform = NORTH_UP, epsg: int | None = 32636) -> Grid:
    """A grid for an array."""
    crs = None if epsg is None else CRS.from_epsg(epsg).to_wkt()
    height, width = pixels.shape
    return Grid(height, width, transform, crs)


def make_change(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Classes with a corner that was not observed."""
    pixels = (np.random.default_rng(0).random(shape) < 0.1).astype(np.uint8)
    pixels[: shape[0] // 3, : shape[1] // 3] = 255
    return pixels


def make_probability(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Probabilities with a corner that was not observed, zeros of both signs among them."""
    pixels = np.random.default_rng(1).random(shape).astype(np.float32)
    pixels[: shape[0] // 3, : shape[1] // 3] = np.nan
    pixels[-1, :] = -0.0
    return pixels


def write(path: Path, pixels: NDArray[Any], band: Band, grid: Grid | None = None) -> str:
    """Write a whole array."""
    return write_cog(here(path), lambda window: pixels[window.slices], grid or grid_of(pixels), band)


def read(path: Path) -> NDArray[Any]:
    """Read a whole file with rasterio."""
    with rasterio.open(path) as dataset:
        pixels: NDArray[Any] = dataset.read(1)
    return pixels


# (700, 2100) takes more than one window and has overviews; (513, 1) is too narrow for one.
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (513, 1), (512, 512), (700, 2100)])
@pytest.mark.parametrize(("band", "make"), [(CHANGE, make_change), (PROBABILITY, make_probability)])
def test_is_a_valid_cog_with_the_same_pixels(
    tmp_path: Path, shape: tuple[int, int], band: Band, make: Callable[..., NDArray[Any]]
) -> None:
    """Bits, nodata, layout and name of the band survive at every size."""
    path, pixels = tmp_path / "new" / "out.tif", make(shape)
    digest = write(path, pixels, band)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [file.name for file in path.parent.iterdir()] == ["out.tif"]
    assert read(path).tobytes() == pixels.tobytes()
    lacks_overviews = shape == (513, 1)  # of which the validator only warns
    valid, errors, warnings = cog_validate(path, quiet=True)
    assert (valid, errors, len(warnings)) == (True, [], int(lacks_overviews))
    with rasterio.open(path) as dataset:
        assert dataset.dtypes == (band.dtype,)
        np.testing.assert_equal(dataset.nodata, band.nodata)
        assert dataset.descriptions == (band.description,)
        assert (dataset.scales, dataset.offsets) == ((1.0,), (0.0,))
        assert dataset.profile["compress"] == "deflate"
        assert dataset.block_shapes == [(512, 512)]
        assert bool(dataset.overviews(1)) == (max(shape) > 512 and not lacks_overviews)
        observed = pixels != 255 if band is CHANGE else ~np.isnan(pixels)
        np.testing.assert_array_equal(dataset.read_masks(1) == 255, observed)


@pytest.mark.parametrize("epsg", [32636, 4326, 3857])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_place_survives(tmp_path: Path, epsg: int, transform: Transform) -> None:
    """CRS and transform come back, rotation included."""
    pixels = make_change((40, 30))
    write(tmp_path / "out.tif", pixels, CHANGE, grid_of(pixels, transform, epsg))
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.crs == CRS.from_epsg(epsg)
        np.testing.assert_allclose(dataset.transform[:6], transform, rtol=1e-12)


def test_no_crs_means_no_georeference(tmp_path: Path) -> None:
    """Pixel coordinates stay pixel coordinates: nothing is made up."""
    pixels = make_change((40, 30))
    write(tmp_path / "out.tif", pixels, CHANGE, Grid(40, 30))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        dataset = rasterio.open(tmp_path / "out.tif")
    with dataset:
        assert dataset.crs is None
        assert dataset.transform.is_identity


def test_place_that_a_geotiff_cannot_hold_is_refused(tmp_path: Path) -> None:
    """A rotated pole has no GeoTIFF keys; a file that lies elsewhere is worse than none."""
    pole = "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +to_meter=0.0174532925199433"
    grid = Grid(4, 4, NORTH_UP, CRS.from_string(pole).to_wkt(version="WKT2_2019"))
    with pytest.raises(IntegrityError, match="cannot hold this pair's place"):
        write(tmp_path / "out.tif", make_change((4, 4)), CHANGE, grid)
    assert list(tmp_path.iterdir()) == []


def test_colours_and_tags_survive(tmp_path: Path) -> None:
    """The colour table is in the file itself, with nodata transparent, and so are the tags."""
    write(tmp_path / "out.tif", make_change((600, 600)), CHANGE)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        stored = dataset.colormap(1)
        assert {value: stored[value] for value in CHANGE_COLORS} == dict(CHANGE_COLORS)
        assert dataset.colorinterp == (rasterio.enums.ColorInterp.palette,)
        assert dataset.tags().items() >= dict(CHANGE.tags).items()


def test_overviews_leave_out_what_was_not_observed(tmp_path: Path) -> None:
    """A probability beside a gap is averaged over observed pixels alone; classes stay classes."""
    probability = np.full((1024, 1024), np.nan, np.float32)
    probability[:, 1::2] = 0.75
    write(tmp_path / "p.tif", probability, PROBABILITY)
    with rasterio.open(tmp_path / "p.tif", overview_level=0) as overview:
        assert np.unique(overview.read(1)).tolist() == [0.75]
    change = make_change((1024, 1024))
    write(tmp_path / "c.tif", change, CHANGE)
    with rasterio.open(tmp_path / "c.tif", overview_level=0) as overview:
        pixels = overview.read(1)
    assert set(np.unique(pixels)) == {0, 1, 255}
    assert (pixels == 1).mean() == pytest.approx((change == 1).mean(), abs=0.005)


@pytest.mark.parametrize(("band", "make"), [(CHANGE, make_change), (PROBABILITY, make_probability)])
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, band: Band, make: Callable[..., NDArray[Any]]) -> None:
    """Neither the name, the order of the tags, nor a file that is there already enters the bytes."""
    pixels = make((700, 1100))
    turned = Band(
        band.dtype,
        band.nodata,
        band.description,
        band.colormap,
        dict(sorted(band.tags.items(), reverse=True)),
    )
    digests = {
        write(tmp_path / "a.tif", pixels, band),
        write(tmp_path / "a.tif", pixels, band),
        write(tmp_path / "b.tif", pixels, turned),
    }
    assert len(digests) == 1


@settings(max_examples=25, deadline=None)
@given(
    npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=2, max_dims=2, max_side=40),
        elements=st.floats(width=32, allow_nan=True),
    )
)
def test_any_float_survives(pixels: NDArray[np.float32]) -> None:
    """Infinities, denormals and zeros of either sign included."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "out.tif", pixels, PROBABILITY)
        np.testing.assert_array_equal(read(Path(folder) / "out.tif"), pixels)


def flip_byte(path: str) -> None:
    """Damage the middle of a file."""
    file = Path(path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_damaged_copy_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped byte leaves an older file as it was, and nothing else behind."""
    path, pixels = tmp_path / "out.tif", make_probability((300, 300))
    write(path, pixels, PROBABILITY)
    before, copy = path.read_bytes(), rasterio.shutil.copy

    def damaged_copy(src: str, dst: str, **options: Any) -> None:
        copy(src, dst, **options)
        flip_byte(dst)

    monkeypatch.setattr(rasterio.shutil, "copy", damaged_copy)
    with pytest.raises(IntegrityError, match=r"out\.tif.*MB are free"):
        write(path, pixels, PROBABILITY)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_pixel_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that decodes but holds another value is caught by the comparison."""
    pixels, copy = make_change((300, 300)), rasterio.shutil.copy

    def meddling_copy(src: str, dst: str, **options: Any) -> None:
        with rasterio.open(src, "r+") as dataset:
            dataset.write(1 - pixels[-1:, -1:], 1, window=rasterio.windows.Window(299, 299, 1, 1))
        copy(src, dst, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", meddling_copy)
    with pytest.raises(IntegrityError, match=r"out\.tif: 1 pixels of Window"):
        write(tmp_path / "out.tif", pixels, CHANGE)
    assert list(tmp_path.iterdir()) == []


def test_damaged_overview_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overviews lie at the front of a COG; what people see first is read back too."""
    pixels, copy = make_probability((1024, 1024)), rasterio.shutil.copy

    def damaged_copy(src: str, dst: str, **options: Any) -> None:
        copy(src, dst, **options)
        file = Path(dst)
        data = bytearray(file.read_bytes())
        data[len(data) // 10] ^= 0xFF
        file.write_bytes(data)
        assert read(file).tobytes() == pixels.tobytes()  # full resolution is intact

    monkeypatch.setattr(rasterio.shutil, "copy", damaged_copy)
    with pytest.raises(IntegrityError, match=r"out\.tif"):
        write(tmp_path / "out.tif", pixels, PROBABILITY)
    assert list(tmp_path.iterdir()) == []


def test_signs_of_zero_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal is not enough: the bits count."""
    pixels, copy = np.full((4, 4), -0.0, np.float32), rasterio.shutil.copy

    def meddling_copy(src: str, dst: str, **options: Any) -> None:
        with rasterio.open(src, "r+") as dataset:
            dataset.write(abs(pixels), 1)
        copy(src, dst, **options)

    monkeypatch.setattr(rasterio.shutil, "copy", meddling_copy)
    with pytest.raises(IntegrityError, match=r"out\.tif: 16 pixels of Window"):
        write(tmp_path / "out.tif", pixels, PROBABILITY)


# In a process of its own, since the limit cannot be lifted again. The plain file takes 2.1 MB, and the COG
# of pixels that do not compress more, for its overview.
FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from cdpipe.formats.cog import Band, write_cog
from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Grid
from cdpipe.workspace.location import here
pixels = np.random.default_rng(0).random((1024, 512)).astype(np.float32)
band = Band("float32", float("nan"), "noise")
try:
    write_cog(here(Path(sys.argv[1])), lambda window: pixels[window.slices], Grid(1024, 512), band)
except IntegrityError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [1_000_000, 2_200_000, None])
def test_full_disk_is_reported(tmp_path: Path, limit: int | None) -> None:
    """GDAL hides a failed write of plain pixels; the user reads of it all the same."""

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    path = tmp_path / "out.tif"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=Path(__file__).parent.parent,
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        check=True,
    )
    if limit is None:
        assert (done.stdout, path.exists()) == ("", True)
    else:
        assert str(path) in done.stdout
        assert "Nothing was published" in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_error_while_reading_leaves_nothing(tmp_path: Path) -> None:
    """An error of the caller's own comes through as it is."""

    def broken(window: object) -> NDArray[Any]:
        raise KeyError(window)

    with pytest.raises(KeyError):
        write_cog(here(tmp_path / "out.tif"), broken, Grid(4, 4), CHANGE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.int16), np.zeros((4, 5), np.uint8)])
def test_wrong_blocks_are_refused(tmp_path: Path, pixels: NDArray[Any]) -> None:
    """GDAL would cast or stretch them."""
    with pytest.raises(ValueError, match=r"expected \(4, 4\) uint8"):
        write_cog(here(tmp_path / "out.tif"), lambda _: pixels, Grid(4, 4), CHANGE)


def test_layers_that_no_geotiff_holds_are_refused() -> None:
    """NaN is no byte, and a palette needs bytes."""
    with pytest.raises(ValueError, match="nodata"):
        Band("uint8", float("nan"), "change")
    with pytest.raises(ValueError, match="colour table"):
        Band("float32", float("nan"), "probability", CHANGE_COLORS)
