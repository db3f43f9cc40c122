"""The gate: what is let in says truly what it is, all else is refused in one line."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasters import GEOGRAPHIC, NORTH_UP, utm_grid, write_raster

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import (
    MAX_BANDS,
    describe_raster,
    grid_of,
    open_raster,
    raster_errors,
    read_values,
    require_imagery,
)
from cdpipe.formats.masks import FileMask
from cdpipe.geo.crs import canonical_wkt, covered_share, crs_name, pixel_ratio
from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid, Transform, Window
from cdpipe.geo.ground import pixel_metres
from cdpipe.workspace.location import here

ROTATED: Transform = (9.5, 2.5, 500_000.0, 1.5, -10.25, 4_000_000.0)
SOUTH_UP: Transform = (10.0, 0.0, 500_000.0, 0.0, 10.0, 4_000_000.0)
PIXELS = np.arange(3 * 5 * 7, dtype=np.uint16).reshape(3, 5, 7)


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, SOUTH_UP])
def test_a_raster_is_described_as_it_was_written(tmp_path: Path, transform: Transform) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, utm_grid(5, 7, transform), nodata=7)
    info = describe_raster(here(path), Input())
    assert info.grid.same_pixels(utm_grid(5, 7, transform))
    assert (info.driver, info.count, info.dtype, info.nodata, info.mask) == ("GTiff", 3, "uint16", 7, FileMask())
    with open_raster(here(path), Input()) as dataset:
        window = Window(1, 2, 3, 4)
        assert np.array_equal(read_values(dataset, here(path), [3, 1], window), PIXELS[[2, 0]][:, *window.slices])


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
def test_usual_types_are_let_in(tmp_path: Path, dtype: str) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS[0].astype(dtype), utm_grid(5, 7))
    assert describe_raster(here(path), Input()).dtype == dtype


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_other_types_are_refused_with_what_to_do(tmp_path: Path, dtype: str) -> None:
    values = PIXELS[0].astype("complex64" if dtype == "complex_int16" else dtype)
    path = write_raster(tmp_path / "a.tif", values, utm_grid(5, 7), dtype=dtype)
    with pytest.raises(InputError, match=f"values are {dtype}; expected .* convert to amplitude"):
        describe_raster(here(path), Input())


def test_missing_files_folders_and_gdals_own_names_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a.tif", Path("/vsimem/a.tif"), Path("/vsicurl/http://127.0.0.1/a.tif")):
        with pytest.raises(InputError, match="there is no such file"):
            describe_raster(here(path), Input())


def test_a_vrt_that_is_named_tif_reads_no_other_file(tmp_path: Path) -> None:
    write_raster(tmp_path / "secret.tif", PIXELS, utm_grid(5, 7))
    path = tmp_path / "a.tif"
    with rasterio.open(tmp_path / "secret.tif") as dataset:
        rasterio.shutil.copy(dataset, path, driver="VRT")
    assert path.read_bytes().startswith(b"<VRTDataset")
    with pytest.raises(InputError, match=r"expected a raster in GTiff \(input.drivers\)"):
        describe_raster(here(path), Input())


def test_other_formats_need_the_configurations_leave(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.png", PIXELS.astype(np.uint8), driver="PNG")
    with pytest.raises(InputError, match="expected a raster in GTiff"):
        describe_raster(here(path), Input())
    assert describe_raster(here(path), Input(drivers=("GTiff", "PNG"))).driver == "PNG"
    with pytest.raises(InputError, match="GDAL has no driver Foo"):
        describe_raster(here(path), Input(drivers=("Foo",)))


def test_sidecars_act_only_with_the_configurations_leave(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS[0], utm_grid(5, 7))
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert describe_raster(here(path), Input()).nodata is None
    assert describe_raster(here(path), Input(sidecars=True)).nodata == 3


def test_a_bomb_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    sparse: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "sparse_ok": True, "bigtiff": "yes", "tiled": True}
    cases: dict[str, dict[str, int]] = {
        "px a side": {"width": 1_000_001, "height": 1, "count": 1},
        "bands": {"width": 2, "height": 2, "count": MAX_BANDS + 1},
        "in blocks of 1024 MiB": {
            "width": 40_000,
            "height": 40_000,
            "count": 4,
            "blockxsize": 16384,
            "blockysize": 16384,
        },
        "declares 466 GiB of pixels in a file of": {
            "width": 500_000,
            "height": 1_000_000,
            "count": 1,
            "blockxsize": 8192,
            "blockysize": 8192,
        },
    }
    for expected, shape in cases.items():
        path = tmp_path / "bomb.tif"
        rasterio.open(path, "w", **sparse, **shape).close()
        with pytest.raises(InputError, match=expected):
            describe_raster(here(path), Input())


def test_a_missing_georeference_is_refused_or_pixel_coordinates_by_choice(tmp_path: Path) -> None:
    no_transform = Grid(5, 7, PIXEL_TRANSFORM, utm_grid(5, 7).crs)
    for number, (grid, unused) in enumerate(((None, ""), (no_transform, r" \(EPSG:32633, but no transform\)"))):
        info = describe_raster(here(write_raster(tmp_path / f"{number}.tif", PIXELS, grid)), Input())
        assert info.grid == Grid(5, 7)
        with pytest.raises(InputError, match=f"got no georeference that can be used{unused}; add it"):
            require_imagery(info, Input())
        assert require_imagery(info, Input(pixel_coordinates=True)) is info


@pytest.mark.parametrize("leave", [False, True])
def test_points_and_camera_models_want_orthorectifying(tmp_path: Path, leave: bool) -> None:
    points = [GroundControlPoint(row, col, col * 10, -row * 10) for row in (0, 5) for col in (0, 7)]
    path = write_raster(tmp_path / "a.tif", PIXELS, gcps=points, crs=CRS.from_epsg(32633))
    with pytest.raises(InputError, match="ground control points only; expected a map grid: orthorectify"):
        describe_raster(here(path), Input(pixel_coordinates=leave))


def test_no_warning_of_rasterio_reaches_the_user(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS)
    code = (
        "from cdpipe.workspace.location import locate; from cdpipe.formats.gate import describe_raster;"
        f"from cdpipe.config.schema import Input; print(describe_raster(locate({str(path)!r}), Input()).count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_masks_of_the_file_are_noticed(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", np.zeros((4, 5, 7), np.uint8), utm_grid(5, 7), photometric="RGB", alpha="YES"
    )
    assert describe_raster(here(path), Input()).mask == FileMask(alpha=(4,))


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)
    path = write_raster(tmp_path / "a.tif", values, utm_grid(512, 512), compress="deflate")
    path.write_bytes(path.read_bytes()[:50_000])
    with open_raster(here(path), Input()) as dataset, pytest.raises(InputError) as caught:
        read_values(dataset, here(path), [1], Window(0, 0, 512, 512))
    assert str(caught.value).startswith(f"{path}: not readable as a raster: ")
    assert "\n" not in str(caught.value)
    assert "previous exception" not in str(caught.value)


def test_errors_of_programmers_are_not_the_users(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), raster_errors(here(tmp_path)):
        _ = 1 / 0


def test_rasters_without_georeference_lie_on_the_grid_of_their_size(tmp_path: Path) -> None:
    grid = utm_grid(5, 7)
    info = describe_raster(here(write_raster(tmp_path / "m.tif", PIXELS[0])), Input())
    assert grid_of(info, grid, "'before'") == grid
    with pytest.raises(InputError, match=r"7 x 5 px without georeference; expected 8 x 6 px, the size of 'before'"):
        grid_of(info, utm_grid(6, 8), "'before'")
    placed = describe_raster(here(write_raster(tmp_path / "n.tif", PIXELS[0], utm_grid(5, 7, SOUTH_UP))), Input())
    assert grid_of(placed, grid, "'before'") == placed.grid
    with pytest.raises(InputError, match="has a georeference, but 'before' has none"):
        grid_of(placed, Grid(5, 7), "'before'")


def test_one_crs_has_one_text(tmp_path: Path) -> None:
    spellings = [
        CRS.from_epsg(32633).to_wkt(),
        CRS.from_epsg(32633).to_wkt(version="WKT2_2019"),
        CRS.from_epsg(32633).to_wkt(version="WKT1_ESRI"),
    ]
    assert len(set(spellings)) == 3
    assert len({canonical_wkt(CRS.from_wkt(text)) for text in spellings}) == 1
    path = write_raster(tmp_path / "a.tif", PIXELS, Grid(5, 7, NORTH_UP, spellings[2]))
    assert describe_raster(here(path), Input()).grid.crs == canonical_wkt(CRS.from_epsg(32633))


def test_a_datum_shift_of_the_files_own_is_kept() -> None:
    plain = CRS.from_epsg(31467).to_wkt(version="WKT1_GDAL")
    spheroid = 'SPHEROID["Bessel 1841",6377397.155,299.1528128,AUTHORITY["EPSG","7004"]]'
    own = CRS.from_wkt(plain.replace(spheroid, f"{spheroid},TOWGS84[598.1,73.7,418.2,0,0,0,0]"))
    assert "TOWGS84[598.1," in canonical_wkt(own)


def test_names_and_sizes_for_people() -> None:
    geographic = Grid(10, 10, (0.001, 0.0, 15.0, 0.0, -0.001, 60.005), GEOGRAPHIC)
    assert crs_name(utm_grid(1, 1).crs) == "EPSG:32633"
    assert crs_name(None) == "none"
    assert crs_name(CRS.from_string("+proj=laea +lat_0=50 +lon_0=10").to_wkt()) == "unknown"
    assert pixel_metres(utm_grid(1, 1)) == (10, 10)
    assert pixel_metres(Grid(1, 1)) is None
    width, height = pixel_metres(geographic) or (0, 0)
    assert (width, height) == pytest.approx((55.8, 111.4), rel=0.01)  # WGS 84 at 60 degrees north


def test_overlap_and_pixel_ratio() -> None:
    grid = utm_grid(100, 100)
    right_half = utm_grid(300, 100, (10.0, 0.0, 500_500.0, 0.0, -10.0, 4_001_000.0))
    finer = utm_grid(300, 200, (5.0, 0.0, 500_000.0, 0.0, -10 / 3, 4_000_000.0))
    far = Grid(100, 100, NORTH_UP, CRS.from_epsg(32651).to_wkt())
    assert covered_share(grid, grid) == 1
    assert covered_share(right_half, grid) == pytest.approx(0.5, abs=0.02)
    assert covered_share(far, grid) == 0
    assert pixel_ratio(finer, grid) == pytest.approx((3, 2))
    assert pixel_ratio(Grid(100, 100, (1e-4, 0, 15, 0, -1e-4, 36.1), GEOGRAPHIC), grid) == pytest.approx(
        (0.9, 1.1), rel=0.02
    )


def test_overlap_of_places_that_have_no_image() -> None:
    polar = Grid(100, 100, (1.0, 0.0, 0.0, 0.0, -1.0, 1000.0), GEOGRAPHIC)  # latitudes beyond the pole
    assert covered_share(utm_grid(10, 10), polar) == 0


def test_odd_files_are_read_or_refused(shared: Path) -> None:
    """What a plain open and full read of rasterio gave stands in the index; a refusal is one line."""
    folder = shared / "data" / "oddtiffs"
    with (folder / "index.tsv").open(encoding="utf-8") as file:
        index = {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert len(index) > 100
    refusals = []
    for name, row in index.items():
        try:
            info = describe_raster(here(folder / name), Input())
        except InputError as error:
            refusals.append(str(error))
            continue
        assert row["open"].startswith(("ok", "OPENS"))
        got = (info.grid.width, info.grid.height, info.count, info.dtype)
        assert got == (int(row["width"]), int(row["height"]), int(row["bands"]), row["dtypes"])
        if info.grid.crs is not None:
            expected = Affine(*info.grid.transform)
            with rasterio.open(folder / name) as dataset:
                assert dataset.transform == expected
    assert all(text.startswith(str(folder)) and "\n" not in text for text in refusals)
