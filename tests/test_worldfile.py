"""World files and .prj files beside rasters: read as GDAL reads them, or refused in words."""

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.crs import CRS
from rasters import write_raster

from cdpipe.errors import InputError
from cdpipe.formats.worldfile import georeference_files, placing_pam, read_prj, read_world_files
from cdpipe.geo.crs import canonical_wkt
from cdpipe.workspace.location import here

LINES = "10.0\n0.5\n-0.25\n-10.0\n500005.0\n5399995.0\n"


def bare_raster(path: Path, driver: str = "GTiff") -> Path:
    return write_raster(path, np.ones((6, 8), np.uint8), driver=driver)


@pytest.mark.parametrize(
    ("raster", "driver", "beside"),
    [
        ("a.tif", "GTiff", "a.tfw"),
        ("a.tif", "GTiff", "a.tifw"),
        ("a.tif", "GTiff", "a.wld"),
        ("a.TIF", "GTiff", "a.TFW"),
        ("a.v1.tiff", "GTiff", "a.v1.tfw"),
        ("a.tiff", "GTiff", "a.tiffw"),
        ("a.png", "PNG", "a.pgw"),
        ("a.jpg", "JPEG", "a.jgw"),
        ("a.jpeg", "JPEG", "a.wld"),
        ("a.bmp", "BMP", "a.bpw"),
    ],
)
@pytest.mark.parametrize(
    "text", [LINES, LINES.replace("\n", "\r\n"), f"\ufeff{LINES}", "1e1 0.5 -2.5E-1 -10 500005. 5399995"]
)
def test_what_gdal_finds_is_found_and_gives_gdals_transform(
    tmp_path: Path, raster: str, driver: str, beside: str, text: str
) -> None:
    path = bare_raster(tmp_path / raster, driver)
    (tmp_path / beside).write_bytes(text.encode())
    if text.startswith("10"):
        with rasterio.open(path) as dataset:
            assert read_world_files(georeference_files(here(path))) == dataset.transform[:6]
    found = georeference_files(here(path))
    assert [file.name for file in found] == [beside]
    assert read_world_files(found) == (10, -0.25, 500000.125, 0.5, -10, 5399999.75)


def test_without_one_there_is_no_place(tmp_path: Path) -> None:
    path = here(bare_raster(tmp_path / "a.tif"))
    assert georeference_files(path) == []
    assert read_world_files([]) is None
    assert read_prj([]) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LINES.replace(".0", ",0"), "decimal point"),
        ("", "six lines"),
        (LINES + "3\n", "six lines"),
        (LINES.replace("10.0", "nan", 1), "six lines"),
        (LINES.replace("10.0", "inf", 1), "six lines"),
        (LINES.replace("10.0", "1_0", 1), "six lines"),
        (LINES.replace("10.0", "0x1p4", 1), "six lines"),
        ("1e999\n0\n0\n-1\n0\n0", "transform of a map"),
        ("0\n0\n0\n0\n0\n0", "transform of a map"),
        ("1\n0\n0\n0\n5\n5", "transform of a map"),
        ("1\n0\n0\n-1\n1e300\n5", "transform of a map"),
        ("1\n0\n0\n-1\n5\n" + "9" * 5000, "at most 4096"),
        ("<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>", "six lines"),
        (b"\xff\xfe1\0", "no text"),
    ],
)
def test_what_is_no_world_file_is_refused_in_a_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = bare_raster(tmp_path / "a.tif")
    (tmp_path / "a.tfw").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"a\.tfw: expected .*{told}") as caught:
        read_world_files(georeference_files(here(path)))
    assert len(str(caught.value).splitlines()) == 1


def test_two_that_differ_are_refused_and_two_that_do_not_are_one(tmp_path: Path) -> None:
    path = here(bare_raster(tmp_path / "a.tif"))
    (tmp_path / "a.tfw").write_text(LINES)
    (tmp_path / "a.wld").write_text(LINES)
    assert read_world_files(georeference_files(path)) is not None
    (tmp_path / "a.wld").write_text(LINES.replace("500005", "500015"))
    with pytest.raises(InputError, match=r"a\.wld: says another place than a\.tfw"):
        read_world_files(georeference_files(path))


@pytest.mark.parametrize("code", [4326, 32633, 2154, 25832, 2056, 32760])
@pytest.mark.parametrize("dialect", ["WKT1_ESRI", "WKT1_GDAL", "WKT2_2019"])
def test_a_prj_beside_names_the_crs(tmp_path: Path, code: int, dialect: str) -> None:
    path = here(bare_raster(tmp_path / "a.tif"))
    (tmp_path / "a.prj").write_text(pyproj.CRS.from_epsg(code).to_wkt(dialect))
    assert read_prj(georeference_files(path)) == canonical_wkt(CRS.from_epsg(code))


def test_a_shapefiles_prj_is_not_the_rasters(tmp_path: Path) -> None:
    path = here(bare_raster(tmp_path / "a.tif"))
    for suffix in (".prj", ".shp"):
        (tmp_path / f"a{suffix}").write_text(pyproj.CRS.from_epsg(4326).to_wkt("WKT1_ESRI"))
    assert georeference_files(path) == []


@pytest.mark.parametrize(
    "text", ["", "EPSG:32633", "http://example.org/crs", "GEOGCS[", "(" * 5000, "x" * 70_000, "é\0"]
)
def test_what_is_no_crs_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    path = here(bare_raster(tmp_path / "a.tif"))
    (tmp_path / "a.prj").write_text(text)
    with pytest.raises(InputError, match=r"a\.prj: expected a (coordinate reference system|CRS) as WKT") as caught:
        read_prj(georeference_files(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("<PAMDataset>\n  <SRS>EPSG:4326</SRS></PAMDataset>", True),
        ("<PAMDataset><GeoTransform> 1, 2</GeoTransform></PAMDataset>", True),
        ("<PAMDataset><PAMRasterBand band='1'/></PAMDataset>", False),
        ("", False),
    ],
)
def test_it_is_seen_whether_a_pam_file_has_a_georeference(tmp_path: Path, text: str, places: bool) -> None:
    path = here(bare_raster(tmp_path / "a.tif"))
    (tmp_path / "a.tif.aux.xml").write_text(text)
    assert (placing_pam(path) is not None) == places
    (tmp_path / "a.tif.aux.xml").unlink()
    assert placing_pam(path) is None
