"""ENVI rasters and netCDF variables, where the configuration lets their drivers in."""

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.shutil import copy
from rasters import UTM33, make_config, source_of, utm_grid, write_raster
from scipy.io import netcdf_file

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster, parts_of
from cdpipe.geo.grid import Window
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.labels import read_label
from cdpipe.workspace.location import Location, here

GRID = utm_grid(40, 60)
WHOLE = Window(0, 0, 40, 60)
PIXELS = np.random.default_rng(1).integers(0, 3000, (3, 40, 60)).astype(np.int16)
MASK = (PIXELS[0] > 2500).astype(np.uint8)
ENVI, NETCDF = Input(drivers=("GTiff", "ENVI")), Input(drivers=("GTiff", "netCDF"))


def read(path: Path, drivers: Sequence[str], **options: Any) -> Any:
    config = make_config(path.parent, input={"drivers": list(drivers), **options})
    return read_on_grid(source_of(path, config, (1, 2, 3)), None, GRID, WHOLE, config)


def write_netcdf(path: Path, layers: dict[str, NDArray[Any]], version: int = 2, records: bool = False) -> Path:
    """Write variables (time, y, x) or (y, x) as xarray does, in UTM; with records, times are of unlimited number."""
    with netcdf_file(path, "w", version=version) as file:
        file.Conventions = b"CF-1.8"
        for name, size in (("time", None if records else 3), ("y", 40), ("x", 60)):
            file.createDimension(name, size)
        for name, numbers, role in (
            ("y", 4_000_000 - 10 * (np.arange(40) + 0.5), "projection_y_coordinate"),
            ("x", 500_000 + 10 * (np.arange(60) + 0.5), "projection_x_coordinate"),
        ):
            axis = file.createVariable(name, "f8", (name,))
            axis[:], axis.standard_name, axis.units = numbers, role, "m"
        file.createVariable("crs", "i4", ("y",)).spatial_ref = UTM33  # a scalar would lie among the records
        for name, values in layers.items():
            layer = file.createVariable(name, values.dtype, ("time", "y", "x")[-values.ndim :])
            layer[:], layer.grid_mapping = values, "crs"
    return path


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize(("name", "header"), [("a.dat", "a.hdr"), ("a.img", "a.img.hdr"), ("scene", "scene.hdr")])
def test_envi_is_read_with_its_header(tmp_path: Path, interleave: str, name: str, header: str) -> None:
    path = write_raster(tmp_path / name, PIXELS, GRID, driver="ENVI", interleave=interleave)
    written = next(iter(tmp_path.glob("*.hdr")))
    written.rename(tmp_path / header)
    values, observed = read(path, ENVI.drivers)
    assert observed.all()
    assert np.array_equal(values, PIXELS)


def test_envi_takes_no_other_file_beside_it(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.dat", PIXELS, GRID, driver="ENVI")
    shutil.rmtree(tmp_path / "a.dat.aux.xml", ignore_errors=True)
    (tmp_path / "a.dat.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>5</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert describe_raster(here(path), ENVI).nodata is None
    assert describe_raster(here(path), ENVI.model_copy(update={"sidecars": True})).nodata == 5


def test_envi_is_refused_where_it_is_not_let_in_or_not_whole(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.dat", PIXELS, GRID, driver="ENVI")
    with pytest.raises(InputError, match=r"expected a raster in GTiff \(input.drivers\), got something else"):
        describe_raster(here(path), Input())
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"a\.dat: not readable as a raster: cut off after 14,399 bytes of 14,400"):
        describe_raster(here(path), ENVI)
    path.write_bytes(data)
    header = path.with_suffix(".hdr").read_text()
    path.with_suffix(".hdr").write_text(header.replace("header offset = 0", "header offset = 1"))
    with pytest.raises(InputError, match="cut off after 14,400 bytes of 14,401"):
        describe_raster(here(path), ENVI)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(InputError, match="expected a raster in GTiff or ENVI"):
        describe_raster(here(path), ENVI)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples", "900000000"),
        ("samples", "-5"),
        ("bands", "1024"),
        ("header offset", "9" * 30),
        ("header offset", "-100"),
        ("data type", "6"),
        ("data type", "99"),
        ("interleave", "bip\nfile compression = 1"),
    ],
)
def test_headers_that_lie_are_refused_in_a_line(tmp_path: Path, key: str, value: str) -> None:
    path = write_raster(tmp_path / "a.dat", PIXELS, GRID, driver="ENVI")
    header = path.with_suffix(".hdr").read_text()
    path.with_suffix(".hdr").write_text(re.sub(rf"(?m)^{key} .*$", f"{key} = {value}", header))
    with pytest.raises(InputError, match=r"a\.dat: (not readable as a raster|values are complex64)") as raised:
        describe_raster(here(path), ENVI)
    assert "\n" not in str(raised.value)


def test_a_label_may_be_envi(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "m.img", MASK, GRID, driver="ENVI")
    config = make_config(tmp_path, input={"drivers": ["ENVI"]})
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), MASK)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("records", [False, True])
def test_one_variable_of_netcdf_needs_no_name(tmp_path: Path, version: int, records: bool) -> None:
    path = write_netcdf(tmp_path / "a.nc", {"reflectance": PIXELS}, version, records)
    values, observed = read(path, NETCDF.drivers)
    assert observed.all()
    assert np.array_equal(values, PIXELS)
    info = describe_raster(here(path), NETCDF)
    assert (info.driver, info.grid.transform) == ("netCDF", GRID.transform)


@pytest.mark.parametrize("name", ["a.nc", "a b:c's.nc"])
def test_of_several_variables_one_is_named(tmp_path: Path, name: str) -> None:
    path = write_netcdf(tmp_path / name, {"other": PIXELS[::-1], "reflectance": PIXELS, "change": MASK.astype(np.int8)})
    for options in ({}, {"variables": ["B04", "missing"]}):
        with pytest.raises(InputError, match=r"change, other, reflectance, got .*: input.variables: \[change\]"):
            read(path, NETCDF.drivers, **options)
    assert np.array_equal(read(path, NETCDF.drivers, variables=["missing", "reflectance", "other"])[0], PIXELS)
    config = make_config(tmp_path, input={"drivers": ["netCDF"], "variables": ["change"]})
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), MASK)


def test_gdal_s_way_to_name_a_variable_is_explained(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "a.nc", {"reflectance": PIXELS})
    for text in (f'NETCDF:"{path}":reflectance', f"NETCDF:{path}:reflectance"):
        with pytest.raises(InputError, match=r"name the file alone, and the variable in input\.variables"):
            describe_raster(here(Path(text)), NETCDF)


@pytest.mark.parametrize("records", [False, True])
def test_a_cut_off_netcdf_is_refused(tmp_path: Path, records: bool) -> None:
    """libnetcdf reads past the end without a word."""
    path = write_netcdf(tmp_path / "a.nc", {"first": PIXELS, "reflectance": PIXELS[::-1]}, records=records)
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    message = rf"a\.nc: not readable as a raster: cut off after {len(data) - 5:,} bytes of {len(data):,}"
    with pytest.raises(InputError, match=message):
        read(path, NETCDF.drivers, variables=["reflectance"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_is_read_right_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = write_netcdf(tmp_path / "a.nc", {"reflectance": PIXELS})
    spoilt = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        spoilt[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    path.write_bytes(spoilt[: data.draw(st.sampled_from([len(spoilt), 300, 5, 1]))])
    with suppress(InputError):
        assert describe_raster(here(path), NETCDF).count


def test_other_files_are_not_netcdf(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    for content in (b"", b"CDF", b"CDF\1" + b"\xff" * 400, b"CDF\7" + bytes(400), b"\x89HDF\r\n\x1a\n" + bytes(600)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.nc: (not readable as a raster|expected a raster in)"):
            describe_raster(here(path), NETCDF)
    tiff = write_raster(tmp_path / "t.tif", PIXELS, GRID)
    assert describe_raster(here(tiff), Input(drivers=("netCDF", "GTiff"))).driver == "GTiff"
    assert Affine(*describe_raster(here(tiff), NETCDF).grid.transform) == Affine(*GRID.transform)


def test_in_a_bucket_they_are_refused_in_words(bucket: Location, tmp_path: Path) -> None:
    (bucket / "a.nc").take(write_netcdf(tmp_path / "a.nc", {"reflectance": PIXELS}))
    (bucket / "a.dat").take(write_raster(tmp_path / "a.dat", PIXELS, GRID, driver="ENVI"))
    (bucket / "a.tif").take(write_raster(tmp_path / "a.tif", PIXELS, GRID))
    allowed = Input(drivers=("ENVI", "netCDF", "GTiff"))
    with pytest.raises(InputError, match=r"a\.nc: .*; netCDF are not read in object storage: make a GeoTIFF of it"):
        describe_raster(bucket / "a.nc", NETCDF)
    with pytest.raises(InputError, match=r"a\.dat: .*; ENVI and netCDF are not read in object storage: make a"):
        describe_raster(bucket / "a.dat", allowed)
    assert describe_raster(bucket / "a.tif", allowed).driver == "GTiff"


def test_a_header_beside_the_pixels_is_one_of_the_files(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.dat", PIXELS, GRID, driver="ENVI")
    assert parts_of(here(path), ENVI) == [here(tmp_path / "a.hdr")]
    netcdf = write_netcdf(tmp_path / "b.nc", {"reflectance": PIXELS, "other": PIXELS})
    for sidecars in (False, True):
        allowed = Input(drivers=("netCDF",), variables=("reflectance",), sidecars=sidecars)
        assert parts_of(here(netcdf), allowed) == []


@pytest.mark.parametrize(("driver", "named"), [("PNG", "PNG"), ("JP2OpenJPEG", "JP2OpenJPEG"), ("VRT", "VRT")])
def test_a_format_that_is_not_let_in_is_named_with_the_way_out(tmp_path: Path, driver: str, named: str) -> None:
    source = write_raster(tmp_path / "a.tif", PIXELS.astype(np.uint8), GRID)
    copy(source, tmp_path / "b", driver=driver)
    with pytest.raises(InputError, match=rf"got {named}; set input.drivers: \[GTiff, {named}\], or make a GeoTIFF"):
        describe_raster(here(tmp_path / "b"), Input())
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(InputError, match="got something else"):
        describe_raster(here(tmp_path / "b"), Input())
