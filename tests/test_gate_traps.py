"""Files that are made to mislead: each known trap is refused, or does nothing."""

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.control import GroundControlPoint
from rasters import GEOGRAPHIC, NORTH_UP, UTM33, make_config, utm_grid, write_raster
from trials import ACCEPTED, Trial, run_trials

from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster, open_raster, read_values
from cdpipe.geo.grid import Grid, Window
from cdpipe.pairs.labels import read_label
from cdpipe.workspace.location import here

GRID = utm_grid(64, 64)
WHOLE = Window(0, 0, 64, 64)
PIXELS = np.arange(1, 1 + 64 * 64, dtype=np.uint16).reshape(1, 64, 64)
LIKE = {"driver": "GTiff", "crs": UTM33, "transform": rasterio.Affine(*NORTH_UP)}


def sparse(path: Path, side: int, block: int) -> None:
    """A file of a few bytes or MiB that declares many more."""
    layout = {"tiled": True, "blockxsize": block, "blockysize": block, "sparse_ok": True, "bigtiff": "yes"}
    size = {"width": side, "height": side, "count": 1, "dtype": "uint8"}
    rasterio.open(path, "w", **LIKE, **layout, **size).close()


def cut(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 512, 512), np.uint8)
    write_raster(path, noise, utm_grid(512, 512))
    path.write_bytes(path.read_bytes()[:200_000])


def points_only(path: Path) -> None:
    points = [GroundControlPoint(row, col, col * 10, -row * 10) for row in (0, 64) for col in (0, 64)]
    write_raster(path, PIXELS, gcps=points, crs=UTM33)


def palette(path: Path) -> None:
    write_raster(path, PIXELS.astype(np.uint8), GRID, photometric="PALETTE")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {value: (value, 255 - value, 0, 255) for value in range(256)})


def overlong_stream(path: Path) -> None:
    """A block whose deflate stream is longer than the block: GDAL stops before its checksum."""
    write_raster(path, PIXELS.astype(np.uint8), GRID, compress="deflate", blockysize=64)
    data = path.read_bytes()
    offset = int.from_bytes(data[4:8], "little")
    for number in range(int.from_bytes(data[offset : offset + 2], "little")):
        entry = offset + 2 + 12 * number
        if data[entry : entry + 2] == (257).to_bytes(2, "little"):  # ImageLength
            path.write_bytes(data[: entry + 8] + (60).to_bytes(4, "little") + data[entry + 12 :])


def with_values(values: Any, **profile: Any) -> Callable[[Path], Any]:
    return lambda path: write_raster(path, values, profile.pop("grid", GRID), **profile)


def with_text(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text)


TRAPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a sparse TB": (lambda path: sparse(path, 1_000_000, 8192), "declares 931 GiB of pixels"),
    "blocks of a GiB": (lambda path: sparse(path, 40_000, 32_768), "stored in blocks of 1024 MiB"),
    "zero bytes": (lambda path: path.write_bytes(b""), "expected a raster in GTiff"),
    "cut off": (cut, "not readable as a raster"),
    "points only": (points_only, "ground control points only"),
    "complex": (with_values(PIXELS.astype(np.complex64)), "values are complex64"),
    "palette": (palette, "indices into a table of colours"),
    "all nodata": (with_values(np.zeros_like(PIXELS), nodata=0), "no pixel is observed at both dates"),
    "all NaN": (with_values(np.full((1, 64, 64), np.nan, np.float32)), "no pixel is observed at both dates"),
    "a VRT": (with_text("<VRTDataset rasterXSize='4' rasterYSize='4'/>"), "expected a raster in GTiff"),
    "int8": (with_values(PIXELS.astype(np.int8)), ACCEPTED),
    "one value": (with_values(np.full_like(PIXELS, 7)), ACCEPTED),
    "infinity": (with_values(np.where(PIXELS > 9, np.inf, PIXELS).astype(np.float32)), ACCEPTED),
    "CMYK": (with_values(np.repeat(PIXELS.astype(np.uint8), 4, 0), photometric="CMYK"), ACCEPTED),
    "south up": (with_values(PIXELS, grid=utm_grid(64, 64, (10.0, 0.0, 0.0, 0.0, 10.0, 0.0))), ACCEPTED),
    "rotated": (with_values(PIXELS, grid=utm_grid(64, 64, (9.0, 2.0, 0.0, 1.0, -8.0, 0.0))), ACCEPTED),
    "nodata beyond the type": (with_values(PIXELS.astype(np.float32), nodata=-3.4028234663852886e38), ACCEPTED),
}


def test_traps_are_stored_right_or_refused(tmp_path: Path) -> None:
    """In processes of their own, with limited memory."""
    trials = []
    for number, (make, _) in enumerate(TRAPS.values()):
        make(tmp_path / f"{number}.tif")
        trials.append(Trial(tmp_path / f"{number}.tif"))
    outcomes = dict(zip(TRAPS, run_trials(trials, tmp_path), strict=True))
    assert {name: found for name, found in outcomes.items() if TRAPS[name][1] not in found} == {}


def test_a_stream_that_goes_on_behind_its_block_is_damage(tmp_path: Path) -> None:
    overlong_stream(tmp_path / "a.tif")
    with (
        open_raster(here(tmp_path / "a.tif"), Input()) as dataset,
        pytest.raises(InputError, match=r"damaged block|not readable"),
    ):
        read_values(dataset, here(tmp_path / "a.tif"), [1], Window(0, 0, 60, 64))


@contextmanager
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """An address of this machine, and all that was asked of it."""
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a", heard
        server.shutdown(socket.SHUT_RDWR)


def test_no_raster_leads_to_the_network(tmp_path: Path) -> None:
    with listener() as (address, heard):
        band = '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>/vsicurl/{}</SourceFilename>'
        texts = (
            '<VRTDataset rasterXSize="4" rasterYSize="4">'
            + band.format(address)
            + "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>",
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{address}</ServerUrl></Service></GDAL_WMS>',
            f"<WCS_GDAL><ServiceURL>{address}</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>",
            json.dumps({"type": "FeatureCollection", "stac_version": "1.0.0", "features": [{"href": address}]}),
        )
        path = tmp_path / "a.tif"
        for text in texts:
            path.write_text(text)
            with pytest.raises(InputError, match="expected a raster in GTiff"):
                describe_raster(here(path), Input())
    assert heard == []


SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
CRS_MEMBERS = {
    "linked": '"crs": {"type": "link", "properties": {"href": "ADDRESS"}}',
    "by its address": '"crs":{"type":"URL","properties":{"url":"ADDRESS"}}',
    "escaped": r'"\u0063Rs": {"type": "link", "properties": {"href": "ADDRESS"}}',
    "with a comment": '\'crs\'/**/: {"type": "link", "properties": {"href": "ADDRESS"}}',
    "unknown": '"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::99999"}}',
    "a file": '"crs": {"type": "name", "properties": {"name": "/etc/hosts"}}',
}


@pytest.mark.parametrize("member", CRS_MEMBERS)
@pytest.mark.parametrize("inside", [False, True])
def test_no_label_leads_to_the_network(tmp_path: Path, member: str, inside: bool) -> None:
    with listener() as (address, heard):
        text = CRS_MEMBERS[member].replace("ADDRESS", address)
        geometry = json.dumps(SQUARE)
        if inside:
            geometry = f"{{{text}, {geometry[1:]}"
            text = '"name": "x"'
        path = tmp_path / "a.geojson"
        feature = f'{{"type": "Feature", "properties": {{}}, "geometry": {geometry}}}'
        path.write_text(f'{{"type": "FeatureCollection", {text}, "features": [{feature}]}}')
        with pytest.raises(InputError, match=r"expected a coordinate reference system by its code|damaged JSON"):
            read_label(here(path), GRID, WHOLE, make_config(tmp_path))
    assert heard == []


def test_a_geojson_may_name_its_crs(tmp_path: Path) -> None:
    square = shapely.box(500_000, 3_999_800, 500_100, 4_000_000)
    for name in ("urn:ogc:def:crs:EPSG::32633", "EPSG:32633"):
        collection = {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": name}},
            "features": [{"type": "Feature", "properties": {"crs": "x"}, "geometry": shapely.geometry.mapping(square)}],
        }
        (tmp_path / "a.geojson").write_text(json.dumps(collection))
        label = read_label(here(tmp_path / "a.geojson"), GRID, WHOLE, make_config(tmp_path))
        assert label.sum() == label[:20, :10].sum() == 200


def auxiliary(text: str) -> Callable[[Path], Any]:
    return lambda path: path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{text}</PAMDataset>")


def beside(suffix: str, values: int) -> Callable[[Path], Any]:
    return lambda path: write_raster(Path(f"{path}{suffix}"), np.full((1, 32, 32), values, np.uint8))


SIDECARS = {
    "nodata": auxiliary('<PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand>'),
    "overview": beside(".ovr", 9),
    "mask": beside(".msk", 0),
}


@pytest.mark.parametrize("name", SIDECARS)
@pytest.mark.parametrize("grid", [GRID, None])
def test_sidecars_change_nothing(tmp_path: Path, name: str, grid: Grid | None) -> None:
    path = write_raster(tmp_path / "a.tif", PIXELS, grid)

    def look() -> tuple[Any, ...]:
        with open_raster(here(path), Input()) as dataset:
            values = dataset.read(1, out_shape=(32, 32)).tobytes() + dataset.read_masks(1).tobytes()
            return describe_raster(here(path), Input()), dataset.overviews(1), values

    plain = look()
    SIDECARS[name](path)
    assert look() == plain


@pytest.mark.parametrize("suffix", [".tfw", ".wld", ".prj", ".tif.aux.xml"])
def test_a_place_in_a_sidecar_never_takes_the_place_of_the_files_own(tmp_path: Path, suffix: str) -> None:
    """Where a file has none, see :mod:`test_places`."""
    path = here(write_raster(tmp_path / "a.tif", PIXELS, GRID))
    plain = describe_raster(path, Input())
    texts = {".prj": GEOGRAPHIC, ".tif.aux.xml": "<SRS>EPSG:4326</SRS><GeoTransform>10,1,0,10,0,-1</GeoTransform>"}
    (tmp_path / f"a{suffix}").write_text(texts.get(suffix, "1\n0\n0\n-1\n10\n10\n"))
    assert describe_raster(path, Input()) == plain


def rooted(folder: Path) -> Config:
    return make_config(folder, input={"roots": ["data"]})


def test_links_out_of_the_roots_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "data-of-others").mkdir()
    data.mkdir()
    secret = write_raster(tmp_path / "data-of-others" / "a.tif", PIXELS, GRID)
    own = write_raster(data / "a.tif", PIXELS, GRID)
    (data / "own.tif").symlink_to(own)
    (data / "out.tif").symlink_to(secret)
    (data / "folder").symlink_to(secret.parent)
    (data / "circle.tif").symlink_to(data / "circle.tif")
    config = rooted(tmp_path)
    for good in (own, data / "own.tif", data / ".." / "data" / "a.tif"):
        assert describe_raster(here(good), config.input).count == 1
    for bad in (secret, data / "out.tif", data / "folder" / "a.tif", data / ".." / "data-of-others" / "a.tif"):
        with pytest.raises(InputError, match=r"lies at .*data-of-others.*outside of .*data \(input.roots\)"):
            describe_raster(here(bad), config.input)
        with pytest.raises(InputError, match=r"\(input.roots\)"):
            read_label(here(bad), GRID, WHOLE, config)
    with pytest.raises(InputError, match="circle"):
        describe_raster(here(data / "circle.tif"), config.input)


def test_polygons_and_their_parts_lie_in_the_roots(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    square = np.array([shapely.to_wkb(shapely.box(500_000, 3_999_800, 500_100, 4_000_000))], object)
    for suffix in ("shp", "gpkg"):
        pyogrio.raw.write(
            tmp_path / f"m.{suffix}", square, [np.array([1])], ["a"], geometry_type="Polygon", crs="EPSG:32633"
        )
    for file in tmp_path.glob("m.*"):
        shutil.copy(file, data)
    for name in ("m.shp", "m.gpkg"):
        assert read_label(here(data / name), GRID, WHOLE, rooted(tmp_path)).sum() == 200
        with pytest.raises(InputError, match=r"\(input.roots\)"):
            read_label(here(tmp_path / name), GRID, WHOLE, rooted(tmp_path))
    (data / "m.prj").unlink()
    (data / "m.prj").symlink_to(tmp_path / "m.prj")
    with pytest.raises(InputError, match=r"m.prj: lies at .* outside of"):
        read_label(here(data / "m.shp"), GRID, WHOLE, rooted(tmp_path))


def test_a_geopackage_s_crs_is_no_address(tmp_path: Path) -> None:
    square = np.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))], object)
    path = tmp_path / "m.gpkg"
    pyogrio.raw.write(path, square, [np.array([1])], ["a"], geometry_type="Polygon", crs="EPSG:4326")
    with listener() as (address, heard):
        with sqlite3.connect(path) as base:
            base.execute("UPDATE gpkg_spatial_ref_sys SET definition=?, organization='x' WHERE srs_id=4326", (address,))
        base.close()
        with pytest.raises(InputError, match="expected a coordinate reference system, got none"):
            read_label(here(path), GRID, WHOLE, make_config(tmp_path))
    assert heard == []
