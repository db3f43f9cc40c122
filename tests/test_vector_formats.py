"""Polygons as people save them: each format burns the same pixels, and leaves the user's folder as it was."""

import json
import shutil
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasters import RGB_SENSOR, make_config, source_of, write_raster
from vector_labels import (
    GRID,
    box,
    burnt,
    to_degrees,
    write_curve,
    write_geojson,
    write_layer,
    write_parquet,
    zipped,
)

from cdpipe.config.load import parse_config
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.features import crs_of_code
from cdpipe.formats.vector_gate import is_vector, vector_files
from cdpipe.geo.crs import WGS84_WKT
from cdpipe.geo.grid import Grid
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_pair
from cdpipe.pairs.plan import plan_pair, source_files
from cdpipe.workspace.location import here

RING = box(2, 3, 30, 40).difference(box(10.0, 10.0, 20.0, 20.0))
SHAPES = [RING, box(35, 5, 50, 25), box(40, 50, 55, 75)]
STATUS = ["changed", "unchanged", "unsure"]
SUFFIXES = ("gpkg", "shp", "fgb", "gml", "geojson", "geojsonl", "kml", "parquet", "tab", "gdb")


def reference(shapes: list[Any]) -> NDArray[np.uint8]:
    burnt: NDArray[np.uint8] = rasterize(
        shapes, GRID.shape, transform=rasterio.Affine(*GRID.transform), default_value=1, dtype=np.uint8
    )
    return burnt


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_burns_the_same_pixels_and_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    path = write_layer(tmp_path / f"m.{suffix}", SHAPES, STATUS)
    there = listing(tmp_path)
    assert is_vector(path)
    assert np.array_equal(burnt(path), reference(SHAPES))
    label = burnt(path, where="status = 'changed' and number < 2", ignore_where="status = 'unsure'")
    expected = reference(SHAPES[:1])
    expected[reference(SHAPES[2:]) == 1] = 255
    assert np.array_equal(label, expected)
    assert listing(tmp_path) == there


def test_what_is_ignored_lies_over_what_changed(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "m.gpkg", [box(5, 5, 40, 40), box(20, 20, 50, 50)], ["changed", "unsure"])
    label = burnt(path, ignore_where="status = 'unsure'")
    assert label[10, 10] == 1
    assert (label[20:50, 20:50] == 255).all()


@pytest.mark.parametrize("folder", ["2020-01-01T10:20:30", "a b", "c#1", "100%25", "q?x", "quote'x", "Łódź"])
def test_folders_have_any_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    for suffix in SUFFIXES:
        path = write_layer(tmp_path / f"m.{suffix}", SHAPES)
        for file in tmp_path.glob("m.*"):
            shutil.move(file, tmp_path / folder / file.name)
        assert np.array_equal(burnt(tmp_path / folder / path.name), reference(SHAPES)), suffix


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    write_layer(tmp_path / "m.shp", SHAPES)
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_suffix(file.suffix.upper()))
    assert np.array_equal(burnt(tmp_path / "m.SHP"), reference(SHAPES))
    assert {file.suffix for file in vector_files(here(tmp_path / "m.SHP"))} == {".SHP", ".SHX", ".DBF", ".PRJ", ".CPG"}


def test_zips_hold_one_vector_file(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    shp, gdb = write_layer(inside / "m.shp", SHAPES, STATUS), write_layer(inside / "n.gdb", SHAPES)
    parts = [file for file in inside.iterdir() if file.stem == "m"]
    readme = tmp_path / "readme.txt"
    readme.write_text("metadata")
    for path in (
        zipped(tmp_path / "a.shp.zip", *parts),
        zipped(tmp_path / "b.zip", readme, *parts, folder="deep/er/"),
        zipped(tmp_path / "c.gdb.zip", gdb),
        zipped(tmp_path / "d.kmz", write_layer(inside / "doc.kml", SHAPES), readme),
        zipped(tmp_path / "e.zip", write_layer(inside / "o.geojsonl", SHAPES)),
    ):
        assert np.array_equal(burnt(path), reference(SHAPES)), path
    assert np.array_equal(burnt(tmp_path / "b.zip", where="number = 0"), reference(SHAPES[:1]))
    both = zipped(tmp_path / "two.zip", *parts, write_layer(inside / "x.fgb", SHAPES[:1]))
    with pytest.raises(InputError, match=r"got m\.shp, x\.fgb; choose one by label\.layer: m"):
        burnt(both)
    assert np.array_equal(burnt(both, layer="x"), reference(SHAPES[:1]))
    with pytest.raises(InputError, match="expected a zip with one vector file, got none"):
        burnt(zipped(tmp_path / "none.zip", readme))
    assert shp.is_file()


def test_a_layer_is_chosen_or_the_only_one_with_areas(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "m.gpkg", SHAPES[:1], layer="one")
    line: dict[str, Any] = {"geometry_type": "LineString", "layer": "roads", "append": True}
    write_layer(path, [shapely.LineString(GRID.xy(np.array([0.0, 9.0]), np.array([0.0, 9.0])))], **line)
    assert np.array_equal(burnt(path), reference(SHAPES[:1]))
    write_layer(path, SHAPES[1:], layer="two", append=True)
    with pytest.raises(InputError, match=r"expected one layer of polygons, got one, roads, two; choose one by label"):
        burnt(path)
    assert np.array_equal(burnt(path, layer="two"), reference(SHAPES[1:]))
    with pytest.raises(InputError, match=r"has no layer three \(label.layer\); expected one of one, roads, two"):
        burnt(path, layer="three")
    with sqlite3.connect(path) as base:  # as QGIS adds styles
        base.execute("CREATE TABLE layer_styles(id INTEGER PRIMARY KEY, styleQML TEXT)")
        base.execute("INSERT INTO gpkg_contents(table_name, data_type) VALUES ('layer_styles', 'attributes')")
    base.close()
    assert np.array_equal(burnt(path, layer="two"), reference(SHAPES[1:]))


def test_a_geopackage_of_pixels_is_no_label_of_polygons(tmp_path: Path) -> None:
    path = tmp_path / "m.gpkg"
    write_raster(path, np.ones(GRID.shape, np.uint8), GRID, driver="GPKG")
    with pytest.raises(InputError, match="it has no layer of polygons"):
        burnt(path)


def test_conditions_name_columns_and_are_told_what_there_is(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "m.gpkg", SHAPES, STATUS)
    for wrong in ("stat = 'changed'", "\"stat\" = 'changed'"):
        with pytest.raises(InputError, match=r"label\.where: no such column: stat; its columns are status, number"):
            burnt(path, where=wrong)
    for wrong in ("status ==", "1; drop table label", "load_extension('x')", "1 in (select 1 from x)"):
        with pytest.raises(InputError, match=r"label\.where: .*its columns are"):
            burnt(path, where=wrong)
    assert np.array_equal(burnt(path, where="\"STATUS\" IN ('changed', 'unsure')"), reference(SHAPES[::2]))
    with pytest.raises(ConfigError):
        parse_config(
            {"name": "t", "catalog": "c", "workspace": "w", "sensors": {"s": RGB_SENSOR}, "label": {"where": ""}},
            tmp_path,
        )


def test_curves_heights_and_outlines_that_cross_themselves(tmp_path: Path) -> None:
    circle = burnt(write_curve(tmp_path / "curve.gpkg"))
    rows, cols = np.mgrid[:60, :80] + 0.5
    assert (circle != (np.hypot(rows - 30, cols - 40) < 20)).mean() < 0.005
    high = [shapely.force_3d(shape, 7.0) for shape in SHAPES]
    assert np.array_equal(burnt(write_layer(tmp_path / "z.gpkg", high, geometry_type="Polygon Z")), reference(SHAPES))
    bow = shapely.Polygon([GRID.xy(*corner) for corner in ((0, 0), (20, 20), (0, 20), (20, 0))])
    expected = burnt(write_layer(tmp_path / "bow.gpkg", [bow]))
    assert expected.sum() == 200  # two triangles
    assert expected[10, 1] == expected[10, 18] == 0 or expected[1, 10] == 0


def test_geoparquet_has_its_own_ways(tmp_path: Path) -> None:
    write_parquet(tmp_path / "native.parquet", SHAPES, STATUS, encoding="polygon")
    assert np.array_equal(burnt(tmp_path / "native.parquet"), reference(SHAPES))
    degrees = [to_degrees(shape) for shape in SHAPES]
    crs84 = {"id": {"authority": "OGC", "code": "CRS84"}}
    write_parquet(tmp_path / "crs84.parquet", degrees, STATUS, crs=crs84)
    assert np.array_equal(burnt(tmp_path / "crs84.parquet"), reference(SHAPES))
    write_parquet(tmp_path / "unknown.parquet", SHAPES, STATUS, crs=None)
    with pytest.raises(InputError, match="expected a coordinate reference system, got none"):
        burnt(tmp_path / "unknown.parquet")


def gml(srs: str, shapes: list[Any], *, swap: bool, patch: bool = False) -> str:
    members = []
    for shape in shapes:
        rings = [np.array(ring.coords)[:, :: -1 if swap else 1] for ring in (shape.exterior, *shape.interiors)]
        tags = ["exterior", *["interior"] * (len(rings) - 1)]
        lists = [
            f"<gml:{tag}><gml:LinearRing><gml:posList>{' '.join(map(repr, ring.ravel().tolist()))}</gml:posList>"
            f"</gml:LinearRing></gml:{tag}>"
            for tag, ring in zip(tags, rings, strict=True)
        ]
        body = f'<gml:Polygon srsName="{srs}">{"".join(lists)}</gml:Polygon>'
        if patch:
            body = (
                f'<gml:MultiSurface srsName="{srs}"><gml:surfaceMember><gml:Surface><gml:patches><gml:PolygonPatch>'
                f"{''.join(lists)}</gml:PolygonPatch></gml:patches></gml:Surface></gml:surfaceMember></gml:MultiSurface>"
            )
        members.append(f"<gml:featureMember><a:f><a:geom>{body}</a:geom></a:f></gml:featureMember>")
    space = 'xmlns:gml="http://www.opengis.net/gml/3.2" xmlns:a="urn:a" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"<gml:FeatureCollection {space}>{''.join(members)}</gml:FeatureCollection>"


@pytest.mark.parametrize(
    ("srs", "degrees", "swap"),
    [
        ("urn:ogc:def:crs:EPSG::4326", True, True),
        ("http://www.opengis.net/def/crs/EPSG/0/4326", True, True),
        ("EPSG:4326", True, False),
        ("http://www.opengis.net/gml/srs/epsg.xml#4326", True, False),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", True, False),
        ("urn:ogc:def:crs:EPSG::32633", False, False),
    ],
)
def test_gml_has_the_order_of_coordinates_that_its_name_asks_for(
    tmp_path: Path, srs: str, degrees: bool, swap: bool
) -> None:
    shapes = [to_degrees(shape) for shape in SHAPES] if degrees else SHAPES
    for patch in (False, True):
        (tmp_path / "m.gml").write_text(gml(srs, shapes, swap=swap, patch=patch))
        assert np.array_equal(burnt(tmp_path / "m.gml"), reference(SHAPES))


@pytest.mark.parametrize(
    "name",
    [
        "EPSG:32633",
        "urn:ogc:def:crs:EPSG::32633",
        "urn:ogc:def:crs:EPSG:6.18:32633",
        "urn:x-ogc:def:crs:EPSG::32633",
        "http://www.opengis.net/def/crs/EPSG/0/32633",
        "https://www.opengis.net/def/crs/EPSG/0/32633",
        "http://www.opengis.net/gml/srs/epsg.xml#32633",
        " epsg:32633 ",
    ],
)
def test_a_crs_goes_by_many_names(name: str) -> None:
    assert crs_of_code(name) == GRID.crs


def test_longitudes_come_first_in_crs84() -> None:
    for name in ("CRS84", "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "http://www.opengis.net/def/crs/OGC/1.3/CRS84"):
        assert crs_of_code(name) == WGS84_WKT
    for name in ("", "/etc/hosts", "EPSG:99999", "http://example.org/32633", "USER:100000", "EPSG:", "WGS 84"):
        assert crs_of_code(name) is None


def test_all_parts_of_a_label_belong_to_its_key(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "i.tif", np.random.default_rng(0).integers(1, 99, (3, 60, 80), np.uint8), GRID)
    config = make_config(tmp_path)
    source = source_of(image, config, (1, 2, 3))

    def key(path: Path, **label: Any) -> str | None:
        pair = Pair("p", "p", source, source, ("red", "green", "blue"), label=here(path))
        hashes = {file: file.sha256() for file in source_files(pair, config)}
        return plan_pair(pair, make_config(tmp_path, label=label), hashes).label_key

    keys = [key(write_layer(tmp_path / "m.gdb", SHAPES)), key(write_layer(tmp_path / "m.shp", SHAPES, STATUS))]
    keys += [key(tmp_path / "m.shp", where="status = 'changed'"), key(tmp_path / "m.shp", layer="m")]
    write_layer(tmp_path / "n.shp", SHAPES, STATUS[::-1])
    shutil.copy(tmp_path / "n.dbf", tmp_path / "m.dbf")
    keys.append(key(tmp_path / "m.shp"))
    table = next(file for file in sorted((tmp_path / "m.gdb").glob("a*.gdbtable")) if file.stat().st_size > 100)
    table.write_bytes(table.read_bytes() + b"\0")
    keys.append(key(tmp_path / "m.gdb"))
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_was_saved_last_may_lie_in_a_journal(tmp_path: Path) -> None:
    """A GeoPackage that QGIS has open."""
    path = write_layer(tmp_path / "m.gpkg", SHAPES[:1])
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.close()
    there = listing(tmp_path)
    assert np.array_equal(burnt(path), reference(SHAPES[:1]))
    assert listing(tmp_path) == there
    base = sqlite3.connect(path)
    base.execute("PRAGMA wal_autocheckpoint = 0")
    base.execute("CREATE TABLE notes(a)")
    base.commit()
    assert [file.name for file in vector_files(here(path))] == ["m.gpkg", "m.gpkg-wal"]
    assert np.array_equal(burnt(path), reference(SHAPES[:1]))
    base.close()
    Path(f"{path}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(504))
    with pytest.raises(InputError, match="is being written, or was left half-written"):
        burnt(path)


def test_the_check_says_what_a_condition_keeps(tmp_path: Path) -> None:
    image = write_raster(tmp_path / "i.tif", np.random.default_rng(0).integers(1, 99, (3, 60, 80), np.uint8), GRID)

    def report(path: Path, **label: Any) -> Any:
        config = make_config(tmp_path, label=label, align={"coregister": "off"})
        source = source_of(image, config, (1, 2, 3))
        return check_pair(Pair("p", "p", source, source, ("red", "green", "blue"), label=here(path)), config)

    path = write_layer(tmp_path / "m.gpkg", SHAPES, STATUS)
    found = report(path, where="status = 'changed'", ignore_where="status = 'unsure'")
    assert (found.changed, found.labelled) == (reference(SHAPES[:1]).sum(), 60 * 80 - reference(SHAPES[2:]).sum())
    assert not [text for text in found.warnings if "m.gpkg" in text]
    found = report(path, where="status = 'Changed'")
    assert found.changed == 0
    assert any("label.where keeps none of its 3 polygons" in text for text in found.warnings)
    empty = write_geojson(tmp_path / "empty.geojson", [])
    assert any("has no polygon; all of the scene counts as unchanged" in text for text in report(empty).warnings)
    assert not [text for text in report(empty, covers=True).warnings if "no polygon" in text]


def test_planes_of_their_own_take_polygons_of_theirs(tmp_path: Path) -> None:
    grid = Grid(60, 80, GRID.transform)
    path = write_layer(tmp_path / "m.shp", SHAPES, crs=None)
    assert np.array_equal(burnt(path, grid=grid), reference(SHAPES))
    with pytest.raises(InputError, match="expected a coordinate reference system, got none"):
        burnt(path)
    with pytest.raises(InputError, match="is in EPSG:32633, but the pair in coordinates without a CRS"):
        burnt(write_layer(tmp_path / "n.shp", SHAPES), grid=grid)


def test_zip_members_of_systems_are_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._m.geojson", "x")
        archive.writestr(".hidden.geojson", "x")
        text = write_geojson(tmp_path / "m.geojson", [to_degrees(shape) for shape in SHAPES]).read_text()
        archive.writestr("m.geojson", json.dumps(json.loads(text)))
    assert np.array_equal(burnt(path), reference(SHAPES))
