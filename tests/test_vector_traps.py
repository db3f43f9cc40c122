"""Vector files that are made to mislead: each known trap is refused in one line, and leads nowhere."""

import contextlib
import json
import sqlite3
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import make_config
from test_gate_traps import listener
from vector_labels import GRID, box, burnt, to_degrees, write_geojson, write_layer, zipped

from cdpipe.errors import InputError
from cdpipe.formats import vector_gate
from cdpipe.formats.polygons import open_layer
from cdpipe.workspace.location import here

SQUARE = box(5, 5, 25, 25)
POSITIONS = " ".join(f"{x},{y}" for x, y in np.array(to_degrees(SQUARE).exterior.coords).tolist())
KML = (
    '<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{before}<Placemark>{within}<Polygon><outerBoundaryIs>'
    "<LinearRing><coordinates>{points}</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark></Document></kml>"
)
SPACES = 'xmlns:gml="http://www.opengis.net/gml" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
RING = " ".join(f"{x} {y}" for x, y in np.array(SQUARE.exterior.coords).tolist())
GML = (
    "{before}<gml:FeatureCollection {spaces} {root}><gml:featureMember><f>{geometry}</f></gml:featureMember>"
    "</gml:FeatureCollection>"
)
POLYGON = (
    '<gml:Polygon srsName="EPSG:32633"><gml:exterior><gml:LinearRing><gml:posList>{ring}</gml:posList>'
    "</gml:LinearRing></gml:exterior></gml:Polygon>"
)


def kml(before: str = "", within: str = "", points: str = POSITIONS) -> str:
    return KML.format(before=before, within=within, points=points)


def gml(geometry: str = POLYGON, ring: str = RING, before: str = "", root: str = "") -> str:
    return GML.format(geometry=geometry.format(ring=ring), before=before, root=root, spaces=SPACES)


LAUGHS = (
    '<!DOCTYPE kml [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{n} "{"&a" + str(n - 1) + ";" if n > 1 else "&a;"}">' for n in range(1, 9))
    + "]>"
)
ARC = (
    "<gml:Polygon><gml:exterior><gml:Ring><gml:curveMember><gml:Curve><gml:segments><gml:Arc><gml:posList>{ring}"
    "</gml:posList></gml:Arc></gml:segments></gml:Curve></gml:curveMember></gml:Ring></gml:exterior></gml:Polygon>"
)

GEOJSONS = {
    "deep JSON": ('{"type": "Feature", "properties": ' + '{"a":' * 100_000, "nested too deeply|damaged JSON"),
    "deep arrays": ('{"type": "Feature", "properties": ' + "[" * 100_000, "nested too deeply|damaged JSON"),
    "deep collections": (
        '{"type": "GeometryCollection", "geometries": [' * 50 + "]}" * 50,
        "expected a polygon, got 'GeometryCollection'",
    ),
    "a pipeline": ('{"type": "gdal_streamed_alg", "command_line": "gdal vector read /x"}', "expected GeoJSON"),
    "a list": ("[1]", "expected {"),
    "two crs": ('{"crs": null, "crs": null, "type": "FeatureCollection", "features": []}', "two members crs"),
    "a rest": ('{"type": "FeatureCollection", "features": []} x', "damaged JSON"),
    "no features": ('{"type": "FeatureCollection", "features": [1]}', "expected features"),
    "JSON-FG": ('{"type": "Feature", "geometry": null, "place": {"type": "Polygon"}}', "JSON-FG"),
    "UTF-16": ("\udcff\udcfe{", "expected text in UTF-8"),
    "infinite": (
        '{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 0], [1, 1], [0, 0]]]}',
        "expected finite numbers",
    ),
    "many digits": ('{"type": "Polygon", "coordinates": [[[' + "9" * 5000 + ", 0]]]}", "too many digits"),
    "objects for numbers": ('{"type": "Polygon", "coordinates": [[[{}, 0], [1, 0], [1, 1]]]}', "geometry of"),
    "text for rings": ('{"type": "Polygon", "coordinates": "abc"}', "geometry of feature 1"),
    "no type": ('{"type": "Feature", "geometry": {"coordinates": []}}', "geometry of feature 1"),
}
TEXTS: dict[str, tuple[str, str, str]] = {
    "entities": ("kml", LAUGHS + kml(within="<name>&a8;</name>"), "document type"),
    "an external entity": ("kml", '<!DOCTYPE kml SYSTEM "ADDRESS">' + kml(), "document type"),
    "an entity of a file": (
        "gml",
        gml(before='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
        "document type",
    ),
    "a network link": (
        "kml",
        kml(before="<NetworkLink><Link><href>ADDRESS</href></Link></NetworkLink>"),
        "NetworkLink",
    ),
    "another root": ("kml", "<html><body/></html>", "expected KML, got <html>"),
    "no GML": ("gml", "<OGRVRTDataSource><OGRVRTLayer/></OGRVRTDataSource>", "expected GML, got <OGRVRTDataSource>"),
    "a link to an outline": (
        "gml",
        gml('<gml:MultiSurface><gml:surfaceMember xlink:href="ADDRESS"/></gml:MultiSurface>'),
        "refers to an outline",
    ),
    "a link to a ring": (
        "gml",
        gml('<gml:Polygon><gml:exterior xlink:href="ADDRESS"/></gml:Polygon>'),
        "refers to an outline",
    ),
    "a curve": ("gml", gml(ARC), "its outline is curved"),
    "a linked CRS": (
        "gml",
        gml(POLYGON.replace("EPSG:32633", "ADDRESS")),
        "expected a coordinate reference system by its code",
    ),
    "no CRS": (
        "gml",
        gml(POLYGON.replace(' srsName="EPSG:32633"', "")),
        "expected a coordinate reference system, got none",
    ),
    "odd numbers": ("gml", gml(ring=RING + " 5"), "expected points of 2 numbers"),
    "no numbers": ("gml", gml(ring="1 2 nan 3 4 5 1 2"), "expected finite numbers"),
    "two points": ("kml", kml(points="15,36 15.1,36"), "geometry of feature 1"),
    "words": ("kml", kml(points="here,there"), "geometry of feature 1"),
    "cut off": ("kml", kml()[:-100], "damaged XML"),
    "not UTF-8": ("kml", kml(within="<name>\udcff</name>"), "damaged XML"),
    "deep": ("kml", "<kml>" + "<Folder>" * 5000, "nested too deeply"),
    "TopoJSON": ("json", '{"type": "Topology", "objects": {}}', "expected GeoJSON, got TopoJSON"),
    "Esri JSON": ("json", '{"geometryType": "esriGeometryPolygon", "features": []}', "expected GeoJSON, got Esri JSON"),
    "Parquet by name": ("parquet", "PAR1", "not readable as polygons"),
    "a zip by name": ("zip", "PK\3\4", "not readable as a zip"),
    "a table by name": ("tab", "!table\n!version 300\nDefinition Table\n Type LINKED", "are missing beside it"),
    **{name: ("geojson", *row) for name, row in GEOJSONS.items()},
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_mislead_are_refused(tmp_path: Path, name: str) -> None:
    suffix, text, expected = TEXTS[name]
    path = tmp_path / f"m.{suffix}"
    with listener() as (address, heard):
        path.write_bytes(text.replace("ADDRESS", address).encode("utf-8", "surrogateescape"))
        with pytest.raises(InputError, match=expected) as error:
            burnt(path)
    assert heard == []
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_harmless_links_and_schemas_are_not_followed(tmp_path: Path) -> None:
    with listener() as (address, heard):
        (tmp_path / "m.gml").write_text(gml(root=f'xsi:schemaLocation="urn:a {address}"'))
        (tmp_path / "m.kml").write_text(
            kml(within=f"<styleUrl>{address}#s</styleUrl><description>{address}</description>")
        )
        link = {"rel": "self", "href": address}
        write_geojson(tmp_path / "m.geojson", [to_degrees(SQUARE)], links=[link], stac_version="1.0.0")
        for suffix in ("gml", "kml", "geojson"):
            assert burnt(tmp_path / f"m.{suffix}").sum() == 400, suffix
    assert heard == []


BOMB = bytes(300 * 2**20)


def many_members(archive: zipfile.ZipFile) -> None:
    for number in range(10_001):
        archive.writestr(f"{number}.txt", "")


def link_member(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("m.geojson")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


ZIPS: dict[str, tuple[Callable[[zipfile.ZipFile], Any], str]] = {
    "a bomb": (lambda archive: archive.writestr("m.geojson", BOMB), r"expected at most .* 200 : 1"),
    "many files": (many_members, "a zip of 10001 files"),
    "above": (lambda archive: archive.writestr("../m.geojson", "{}"), "would lie outside"),
    "absolute": (lambda archive: archive.writestr("/m.geojson", "{}"), "would lie outside"),
    "a drive": (lambda archive: archive.writestr("C:/m.geojson", "{}"), "would lie outside"),
    "a link": (link_member, "a zip with a link"),
    "a zip within": (lambda archive: archive.writestr("m.zip", b"PK"), "one vector file, got none"),
    "not what it says": (lambda archive: archive.writestr("m.gpkg", "hello"), "does not begin like one"),
    "a part alone": (lambda archive: archive.writestr("m.shp", b"\0\0\x27\x0a" + bytes(96)), ".shx are missing"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_zips_that_mislead_are_refused(tmp_path: Path, name: str) -> None:
    make, expected = ZIPS[name]
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        make(archive)
    started = time.perf_counter()
    with pytest.raises(InputError, match=expected):
        burnt(tmp_path / "m.zip")
    assert time.perf_counter() - started < 10


def test_zips_that_lie_or_are_locked_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.zip", write_geojson(tmp_path / "m.geojson", [to_degrees(SQUARE)]))
    data = path.read_bytes()
    for find, size in ((b"PK\1\2", 24), (b"PK\3\4", 22)):  # where each header keeps the unpacked size
        at = data.rindex(find) + size
        data = data[:at] + (20).to_bytes(4, "little") + data[at + 4 :]
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"not readable as a zip|not readable as polygons"):
        burnt(path)
    locked = bytearray(zipped(tmp_path / "n.zip", tmp_path / "m.geojson").read_bytes())
    for find, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        locked[locked.rindex(find) + flags] |= 1
    (tmp_path / "n.zip").write_bytes(locked)
    with pytest.raises(InputError, match=r"not readable as a zip: .*(encrypted|password)"):
        burnt(tmp_path / "n.zip")


def test_a_geopackage_s_views_reach_nothing(tmp_path: Path) -> None:
    with listener() as (address, heard):
        for number, column in enumerate(
            (
                f"ogr_geocode('x', 'geometry', '{address}')",
                "load_extension('/x')",
                f"gdal_get_pixel_value('/vsicurl/{address}', 1, 'georef', 0, 0)",
            )
        ):
            path = write_layer(tmp_path / f"{number}.gpkg", [SQUARE], layer="own")
            with sqlite3.connect(path) as base:
                base.execute(f"CREATE VIEW seen AS SELECT fid, geom, {column} AS a FROM own")  # noqa: S608
                base.execute(
                    "INSERT INTO gpkg_contents(table_name, data_type, srs_id) VALUES ('seen', 'features', 32633)"
                )
                base.execute("INSERT INTO gpkg_geometry_columns VALUES ('seen', 'geom', 'POLYGON', 32633, 0, 0)")
            base.close()
            labels: tuple[dict[str, Any], ...] = ({}, {"layer": "seen"}, {"layer": "seen", "where": "a = 1 or 1"})
            for label in labels:
                with contextlib.suppress(InputError):
                    burnt(path, **label)
    assert heard == []


def test_a_table_that_refers_to_others_is_refused(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "m.tab", [SQUARE])
    assert burnt(path).sum() == 400
    text = path.read_text()
    for wrong in (text.replace("NATIVE", "LINKED"), text + 'begin_metadata\n"\\IsSeamless" = "TRUE"\nend_metadata\n'):
        path.write_text(wrong)
        with pytest.raises(InputError, match="expected a native MapInfo table"):
            burnt(path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "m.shp", [SQUARE])
    (tmp_path / "m.shx").rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"m\.shp: \.shx are missing beside it; copy all files of that name along"):
        burnt(path)
    (tmp_path / "kept").rename(tmp_path / "m.shx")
    (tmp_path / "m.prj").unlink()
    with pytest.raises(InputError, match=r"expected a coordinate reference system, got none; add it as a \.prj file"):
        burnt(path)
    with pytest.raises(InputError, match="expected a folder, as a file geodatabase is one, got nothing"):
        burnt(tmp_path / "m.gdb")
    (tmp_path / "n.gdb").mkdir()
    (tmp_path / "n.gdb" / "x").write_text("")
    with pytest.raises(InputError, match=r"a00000001\.gdbtable is missing"):
        burnt(tmp_path / "n.gdb")


@pytest.mark.parametrize("suffix", ["shp", "gpkg", "fgb", "gdb", "gml", "kml", "geojson", "parquet", "geojsonl"])
@pytest.mark.parametrize("label", [{}, {"where": "number >= 0"}])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, suffix: str, label: dict[str, Any]) -> None:
    many = [box(row, col, row + 0.9, col + 0.9) for row in range(60) for col in range(80)]
    path = write_layer(tmp_path / f"m.{suffix}", many)
    file = max(path.glob("*.gdbtable"), key=lambda table: table.stat().st_size) if path.is_dir() else path
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    with pytest.raises(InputError):
        burnt(path, **label)


def test_parquet_that_declares_too_much_or_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"geometry": pa.array([shapely.to_wkb(SQUARE)], pa.binary())}), path)
    with pytest.raises(InputError, match="expected GeoParquet, got Parquet without its metadata"):
        burnt(path)
    for about in ("x", "[]", '{"primary_column": "geometry", "columns": {}}', "[" * 10_000):
        table = pa.table({"geometry": pa.array([shapely.to_wkb(SQUARE)], pa.binary())})
        pq.write_table(table.replace_schema_metadata({"geo": about}), path)
        with pytest.raises(InputError, match="its metadata 'geo' is damaged"):
            burnt(path)
    write_layer(path, [SQUARE])
    assert burnt(path).sum() == 400
    monkeypatch.setattr("cdpipe.formats.geoparquet.MOST", 10)
    path.touch()
    with pytest.raises(InputError, match="save less of it, or save it as a GeoPackage"):
        burnt(path)


def test_a_feature_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdpipe.formats.geojson.MOST", 1000)
    monkeypatch.setattr("cdpipe.formats.geojson.CHUNK", 100)
    monkeypatch.setattr("cdpipe.formats.markup.MOST", 1000)
    small = [to_degrees(SQUARE)] * 30
    assert burnt(write_geojson(tmp_path / "a.geojson", small)).sum() == 400
    large = shapely.Point(15.001, 36.14).buffer(0.001, 64)
    for path in (write_geojson(tmp_path / "b.geojson", [large]), tmp_path / "c.kml"):
        if path.suffix == ".kml":
            path.write_text(kml(points=POSITIONS * 50))
        with pytest.raises(InputError, match="a feature is larger than"):
            burnt(path)


def test_features_and_tokens_without_an_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdpipe.formats.geojson.MOST_FEATURES", 30)
    monkeypatch.setattr("cdpipe.formats.markup.MOST_OUTSIDE", 30)
    monkeypatch.setattr("cdpipe.formats.markup.MOST", 1000)
    monkeypatch.setattr("cdpipe.formats.markup.CHUNK", 100)
    feature = '{"type": "Feature", "properties": {}, "geometry": null}'
    empty, attribute = "<Folder></Folder>", f'<Placemark a="{"x" * 5000}"/>'
    texts = {
        "a.geojson": ('{"type": "FeatureCollection", "features": [' + ",".join([feature] * 31) + "]}", "30 features"),
        "b.geojsonl": ("\n".join([feature] * 31), "30 features"),
        "c.kml": (f"<kml>{empty * 31}</kml>", "30 elements around features"),
        "d.kml": (f"<kml>{attribute}</kml>", "a feature is larger than"),
        "e.kml": (f"<kml><!-- {'x' * 5000} --></kml>", "a feature is larger than"),
    }
    for name, (text, reason) in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=reason):
            burnt(tmp_path / name)
    (tmp_path / "f.kml").write_text(f"<kml>{empty * 20}<!-- {'x' * 300} --></kml>")
    assert burnt(tmp_path / "f.kml").sum() == 0


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_json_and_xml_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No other error than InputError, in one line."""
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from(["geojson", "kml", "gml"]))
    collection = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {"crs": 1}, "geometry": shapely.geometry.mapping(to_degrees(SQUARE))}
        ],
    }
    text = {"geojson": json.dumps(collection), "kml": kml(), "gml": gml()}[suffix].encode()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.binary(max_size=3)) + text[at + data.draw(st.integers(0, 20)) :]
    (folder / f"m.{suffix}").write_bytes(text)
    message = ""
    try:
        burnt(folder / f"m.{suffix}")
    except InputError as refused:
        message = str(refused)
    assert "\n" not in message


def test_threads_that_are_first_share_the_folder_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    vector_gate._scratch.cache_clear()
    made = tempfile.TemporaryDirectory

    def slowly(**options: Any) -> Any:
        time.sleep(0.05)
        return made(**options)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", slowly)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: vector_gate.PrivateFolder(), range(8)))
    assert len({folder.path.parent for folder in folders}) == 1
    assert all(folder.path.is_dir() for folder in folders)


def test_a_layer_is_looked_at_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    path, config = write_geojson(tmp_path / "m.geojson", [to_degrees(SQUARE)]), make_config(tmp_path)
    first = open_layer(here(path), config)
    assert open_layer(here(path), config) is first
    folder = first.folder.path
    assert folder.is_dir()
    write_geojson(path, [to_degrees(SQUARE)] * 2)
    assert open_layer(here(path), config).count == 2
    assert GRID.shape == (60, 80)


def test_the_number_of_polygons_that_a_geopackage_keeps_besides_is_not_believed(tmp_path: Path) -> None:
    for number in (0, 1, 10**15):
        path = write_layer(tmp_path / f"{number}.gpkg", [SQUARE, box(40, 40, 50, 50)])
        with sqlite3.connect(path) as base:
            base.execute("UPDATE gpkg_ogr_contents SET feature_count = ?", (number,))
        base.close()
        for label in ({}, {"where": "number >= 0"}):
            assert burnt(path, **dict[str, Any](label)).sum() == 500


def test_other_kinds_of_outlines_are_named(tmp_path: Path) -> None:
    for name, text in (("m.topojson", "{}"), ("m.csv", "WKT"), ("m.geojson.gz", "x")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=r"expected a raster, or polygons in a file of \.gpkg"):
            burnt(tmp_path / name)
    (tmp_path / "m.json").write_text('{"shapes": [], "imagePath": "m.png"}')
    with pytest.raises(InputError, match="expected GeoJSON, got other JSON; save it as GeoJSON or GeoPackage"):
        burnt(tmp_path / "m.json")
