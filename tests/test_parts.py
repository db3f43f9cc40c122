"""Whatever a raster is read from belongs to what is hashed and passes the gate; nothing of it leads GDAL elsewhere."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasters import make_config, source_of, utm_grid, write_mask, write_raster
from test_gate_traps import listener

from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster, open_raster, parts_of, read_values
from cdpipe.geo.grid import Window
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.plan import (
    all_source_files,
    known_hashes,
    plan_pair,
    remember_hashes,
    source_files,
    stamp_before_hashing,
)
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

GRID = utm_grid(40, 50)
PIXELS = np.random.default_rng(0).integers(1, 255, (3, 40, 50), np.uint8)
VRT, SIDECARS = Input(drivers=("GTiff", "VRT")), Input(sidecars=True)


def write_vrt(path: Path, *sources: str, relative: bool = True, extra: str = "", band: str = "") -> Path:
    """A VRT of three bands, each from the same band of a source: the first band of the first, and so on in turn."""
    wkt = rasterio.CRS.from_wkt(GRID.crs or "").to_wkt().replace('"', "&quot;")
    bands = ""
    for number in (1, 2, 3):
        name = sources[(number - 1) % len(sources)]
        bands += (
            f'<VRTRasterBand dataType="Byte" band="{number}">{band}<SimpleSource>'
            f'<SourceFilename relativeToVRT="{int(relative)}">{name}</SourceFilename>'
            f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        )
    path.write_text(
        f'<VRTDataset rasterXSize="50" rasterYSize="40"><SRS>{wkt}</SRS><GeoTransform>500000, 10, 0, 4000000, 0, -10'
        f"</GeoTransform>{extra}{bands}</VRTDataset>"
    )
    return path


def names(path: Path, settings: Input) -> list[str]:
    return [file.name for file in parts_of(here(path), settings)]


def test_a_vrt_is_read_and_is_all_its_sources(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    for name in ("a.tif", "tiles/b.tif"):
        write_raster(tmp_path / name, PIXELS, GRID)
    write_vrt(tmp_path / "tiles" / "inner.vrt", "b.tif")
    path = write_vrt(tmp_path / "outer.vrt", "a.tif", "tiles/inner.vrt")
    with open_raster(here(path), VRT) as dataset:
        assert np.array_equal(read_values(dataset, here(path), (1, 2, 3), Window(0, 0, 40, 50)), PIXELS)
    assert names(path, VRT) == ["a.tif", "inner.vrt", "b.tif"]
    absolute = write_vrt(tmp_path / "absolute.vrt", str(tmp_path / "a.tif"), relative=False)
    assert describe_raster(here(absolute), VRT).grid.same_pixels(GRID)
    assert names(absolute, VRT) == ["a.tif"]


def test_a_vrt_of_gdalbuildvrt_with_a_mask_is_read(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", PIXELS, GRID)
    mask = (
        '<MaskBand><VRTRasterBand dataType="Byte"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
        '</SourceFilename><SourceBand>mask,1</SourceBand><SourceProperties RasterXSize="50" RasterYSize="40" '
        'DataType="Byte" BlockXSize="50" BlockYSize="40" /><SrcRect xOff="0" yOff="0" xSize="50" ySize="40" />'
        '<DstRect xOff="0" yOff="0" xSize="25" ySize="40" /></SimpleSource></VRTRasterBand></MaskBand>'
    )
    info = describe_raster(here(write_vrt(tmp_path / "a.vrt", "a.tif", extra=mask)), VRT)
    assert info.mask.shared


def test_a_link_to_a_vrt_leads_to_what_lies_beside_the_vrt(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_raster(tmp_path / "data" / "a.tif", PIXELS, GRID)
    (tmp_path / "b.vrt").symlink_to(write_vrt(tmp_path / "data" / "a.vrt", "a.tif"))
    with open_raster(here(tmp_path / "b.vrt"), VRT) as dataset:
        assert np.array_equal(dataset.read(), PIXELS)
    assert [str(file) for file in parts_of(here(tmp_path / "b.vrt"), VRT)] == [str(tmp_path / "data" / "a.tif")]


SOURCE = '<SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
NAME, ROOT, SOURCES, CRS = ">a.tif<", "<VRTDataset ", "<SimpleSource>", "<SRS>"
REMOTE = "<SourceFilename>/vsicurl/ADDRESS</SourceFilename>"
SERVICE = '<GDAL_WMS><Service name="TMS"><ServerUrl>ADDRESS</ServerUrl></Service></GDAL_WMS>'
PYTHON = (
    "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    "<PixelFunctionCode>import os</PixelFunctionCode><SimpleSource>"
)
# What is replaced in a good VRT, and by what.
HOSTILE: dict[str, tuple[tuple[str, str], ...]] = {
    "address": ((SOURCE, REMOTE),),
    "relative address": ((NAME, ">/vsicurl/ADDRESS<"),),
    "plain address": ((NAME, ">ADDRESS<"),),
    "zip": ((NAME, ">/vsizip//vsicurl/ADDRESS.zip/a.tif<"),),
    "lower case": ((SOURCE, "<sourcefilename>/vsicurl/ADDRESS</sourcefilename>"),),
    "attribute": ((SOURCES, '<SimpleSource SourceFilename="/vsicurl/ADDRESS">'),),
    "twice": ((SOURCE, SOURCE + REMOTE),),
    "section": ((NAME, "><![CDATA[/vsicurl/ADDRESS]]><"),),
    "comment": ((SOURCE, f"<!-- > {REMOTE} -->{SOURCE}"),),
    "entity": ((ROOT, '<!DOCTYPE a [<!ENTITY x SYSTEM "ADDRESS">]><VRTDataset '), (NAME, ">&x;<")),
    "laughs": ((ROOT, '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><VRTDataset '), (NAME, ">&y;<")),
    "number": ((NAME, ">&#47;vsicurl/ADDRESS<"),),
    "web service": ((NAME, f">{SERVICE.replace('<', '&lt;')}<"),),
    "inline": ((SOURCE, f'<VRTDataset rasterXSize="1" rasterYSize="1">{REMOTE}</VRTDataset>'),),
    "subdataset": ((NAME, '>NETCDF:"/vsicurl/ADDRESS":x<'),),
    "function": ((SOURCES, PYTHON), ('band="1"', 'band="1" subClass="VRTDerivedRasterBand"')),
    "raw": (('band="1"', 'band="1" subClass="VRTRawRasterBand"'),),
    "pansharpened": ((ROOT, '<VRTDataset subClass="VRTPansharpenedDataset" '),),
    "warped": ((ROOT, '<VRTDataset subClass="VRTWarpedDataset" '),),
    "options": ((SOURCE, f'{SOURCE}<OpenOptions><OOI key="x">y</OOI></OpenOptions>'),),
    "overview": ((SOURCES, f"<Overview>{REMOTE}</Overview><SimpleSource>"),),
    "overviews of metadata": (
        (CRS, '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/ADDRESS</MDI></Metadata><SRS>'),
    ),
    "geolocation": (
        (CRS, '<Metadata domain="GEOLOCATION"><MDI key="X_DATASET">/vsicurl/ADDRESS</MDI></Metadata><SRS>'),
    ),
    "CRS": (("PROJCS[", "ADDRESS["),),
    "mask": ((CRS, f"<MaskBand>{REMOTE}</MaskBand><SRS>"),),
    "nul": ((NAME, ">a.tif\0<"),),
    "instruction": ((ROOT, '<?xml version="1.0"?><?x ADDRESS?><VRTDataset '),),
    "no end": (("</VRTDataset>", ""),),
    "another root": ((ROOT, "<x><VRTDataset "), ("</VRTDataset>", "</VRTDataset></x>")),
    "another directory": ((NAME, ">../../etc/hosts<"),),
    "a device": ((NAME, ">/dev/zero<"),),
    "a file that is not there": ((NAME, ">b.tif<"),),
    "text": ((NAME, ">notes.txt<"),),
    "web service in a file": ((NAME, ">service.xml<"),),
    "itself": ((NAME, ">hostile.vrt<"),),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_vrt_leads_elsewhere(tmp_path: Path, name: str) -> None:
    write_raster(tmp_path / "a.tif", PIXELS, GRID)
    (tmp_path / "notes.txt").write_text("nothing")
    path = write_vrt(tmp_path / "hostile.vrt", "a.tif")
    assert describe_raster(here(path), VRT).count == 3
    plain = path.read_text()
    with listener() as (address, heard):
        (tmp_path / "service.xml").write_text(SERVICE.replace("ADDRESS", address))
        text = plain
        for old, new in HOSTILE[name]:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text.replace("ADDRESS", address))
        settings = Input(drivers=("GTiff", "VRT"), roots=(here(tmp_path),))
        with pytest.raises(InputError) as refusal:
            describe_raster(here(path), settings)
    assert "\n" not in str(refusal.value)
    assert heard == []


def test_sources_out_of_the_roots_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_raster(tmp_path / "a.tif", PIXELS, GRID)
    (tmp_path / "data" / "linked.tif").symlink_to(tmp_path / "a.tif")
    settings = Input(drivers=("GTiff", "VRT"), roots=(here(tmp_path / "data"),))
    for source in ("../a.tif", "linked.tif", str(tmp_path / "a.tif")):
        path = write_vrt(tmp_path / "data" / "a.vrt", source)
        with pytest.raises(InputError, match="outside of"):
            describe_raster(here(path), settings)


def test_vrts_in_a_circle_or_too_deep_are_refused(tmp_path: Path) -> None:
    write_vrt(tmp_path / "a.vrt", "b.vrt")
    with pytest.raises(InputError, match="leads back to it"):
        describe_raster(here(write_vrt(tmp_path / "b.vrt", "a.vrt")), VRT)
    write_raster(tmp_path / "0.tif", PIXELS, GRID)
    write_vrt(tmp_path / "1.vrt", "0.tif")
    for number in range(2, 6):
        write_vrt(tmp_path / f"{number}.vrt", f"{number - 1}.vrt")
    assert describe_raster(here(tmp_path / "4.vrt"), VRT).count == 3
    with pytest.raises(InputError, match="VRTs deep"):
        describe_raster(here(tmp_path / "5.vrt"), VRT)


def test_a_source_that_alone_would_be_refused_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((3, 40, 50), np.complex64), GRID)
    with pytest.raises(InputError, match=r"a\.tif: values are complex64"):
        describe_raster(here(write_vrt(tmp_path / "a.vrt", "a.tif")), VRT)


def test_a_vrt_needs_the_configurations_leave(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", PIXELS, GRID)
    with pytest.raises(InputError, match="expected a raster in GTiff"):
        describe_raster(here(write_vrt(tmp_path / "a.vrt", "a.tif")), Input())


def write_msk(path: Path) -> Path:
    return write_mask(path, PIXELS[0] > 100, inside=False)


def test_sidecars_are_parts_if_they_count(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, GRID)
    write_msk(path)
    path.with_name("a.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500005\n3999995\n")
    assert names(path, Input()) == ["a.tfw"]
    assert set(names(path, SIDECARS)) == {"a.tfw", "a.tif.msk", "a.tif.aux.xml"}
    assert describe_raster(here(path), SIDECARS).mask.shared


@pytest.mark.parametrize("suffix", [".msk", ".ovr"])
def test_a_sidecar_of_another_format_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, GRID)
    with listener() as (address, heard):
        path.with_name(f"a.tif{suffix}").write_text(SERVICE.replace("ADDRESS", address))
        with pytest.raises(InputError, match="expected a TIFF beside"):
            describe_raster(here(path), SIDECARS)
    assert heard == []


def test_metadata_that_names_other_files_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, GRID)
    path.with_name("a.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/etc/hosts</MDI></Metadata></PAMDataset>'
    )
    with pytest.raises(InputError, match="may lead to other files"):
        describe_raster(here(path), SIDECARS)


def test_sidecars_out_of_the_roots_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = write_raster(tmp_path / "data" / "a.tif", PIXELS, GRID)
    write_msk(path).rename(tmp_path / "elsewhere.msk")
    path.with_name("a.tif.msk").symlink_to(tmp_path / "elsewhere.msk")
    settings = Input(sidecars=True, roots=(here(tmp_path / "data"),))
    with pytest.raises(InputError, match="outside of"):
        describe_raster(here(path), settings)


def test_a_format_of_several_files_is_all_of_them(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.img", PIXELS, GRID, driver="ENVI")
    assert "a.hdr" in names(path, Input(drivers=("ENVI",), sidecars=True))


def pair_of(folder: Path, config: Config, before: Path) -> Pair:
    after = folder / "after.tif"
    if not after.is_file():
        write_raster(after, PIXELS, GRID)
    first, second = (source_of(path, config, (1, 2, 3)) for path in (before, after))
    return Pair("p", "p", first, second, ("red", "green", "blue"))


def key_of(pair: Pair, config: Config) -> str:
    return plan_pair(pair, config, {path: path.sha256() for path in source_files(pair, config)}).key


def rewrite(path: Path) -> Path:
    return write_raster(path, PIXELS[::-1], GRID)


CHANGES: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "source of a VRT": ({"drivers": ["GTiff", "VRT"]}, lambda folder: rewrite(folder / "a.tif")),
    "source of a VRT in a VRT": ({"drivers": ["VRT", "GTiff"]}, lambda folder: rewrite(folder / "b.tif")),
    "mask that appears": ({"sidecars": True, "drivers": ["GTiff", "VRT"]}, lambda folder: write_msk(folder / "a.tif")),
    "metadata that appears": (
        {"sidecars": True, "drivers": ["GTiff", "VRT"]},
        lambda folder: (folder / "b.tif.aux.xml").write_text("<PAMDataset></PAMDataset>"),
    ),
    "world file that appears": (
        {"drivers": ["GTiff", "VRT"]},
        lambda folder: (folder / "outer.tfw").write_text("1\n0\n0\n-1\n10\n10\n"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_part_is_another_pair(tmp_path: Path, name: str) -> None:
    for tile in ("a.tif", "b.tif"):
        write_raster(tmp_path / tile, PIXELS, GRID)
    write_vrt(tmp_path / "inner.vrt", "b.tif")
    path = write_vrt(tmp_path / "outer.vrt", "a.tif", "inner.vrt")
    if name == "world file that appears":
        path = write_raster(tmp_path / "outer.tif", PIXELS, GRID)
    settings, change = CHANGES[name]
    config = make_config(tmp_path, input=settings)
    pair = pair_of(tmp_path, config, path)
    workspace, files = Workspace(here(tmp_path / "w")), all_source_files([pair], config)
    remember_hashes(workspace, {file: (file.sha256(), stamp_before_hashing(file)) for file in files})
    before = plan_pair(pair, config, known_hashes(workspace, files)).key
    assert before == key_of(pair, config)
    change(tmp_path)
    with pytest.raises(InputError, match="changed since it was ingested"):
        plan_pair(pair, config, known_hashes(workspace, all_source_files([pair], config)))
    assert key_of(pair, config) != before


def test_a_part_that_is_gone_is_another_pair(tmp_path: Path) -> None:
    config = make_config(tmp_path, input={"sidecars": True})
    path = write_raster(tmp_path / "a.tif", PIXELS, GRID)
    pair = pair_of(tmp_path, config, path)
    plain = key_of(pair, config)
    mask = write_msk(path)
    masked = key_of(pair, config)
    mask.unlink()
    assert key_of(pair, config) == plain != masked


def test_many_threads_may_judge_the_sources_of_a_vrt(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", PIXELS, GRID)
    path = write_vrt(tmp_path / "a.vrt", "a.tif")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(describe_raster(here(path), VRT).count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 4
