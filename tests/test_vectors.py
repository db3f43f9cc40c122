"""Vector layers: what is read back is what was written, the same bytes each time, as each format's standard has it."""

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from rasters import UTM33

from cdpipe.errors import IntegrityError
from cdpipe.formats import vectors
from cdpipe.formats.vectors import SUFFIXES, decode, encode, read_features, write_features
from cdpipe.geo.crs import WGS84, known_crs
from cdpipe.geo.shapes import transform_polygons
from cdpipe.workspace.location import here

SCHEMA = pa.schema(
    [
        ("geometry", pa.binary()),
        ("id", pa.string()),
        ("area_m2", pa.float64()),
        ("day", pa.string()),
        ("n", pa.int64()),
        ("date", pa.date32()),
    ]
)
HOLED = shapely.Polygon(
    [(500_000, 4e6), (500_100, 4e6), (500_100, 4_000_100), (500_000, 4_000_100)],
    [[(500_020, 4_000_020), (500_020, 4_000_040), (500_040, 4_000_040), (500_040, 4_000_020)]],
)
SQUARE = shapely.box(500_200.25, 4e6, 500_233.5, 4_000_010, ccw=True)


def batches(count: int = 3) -> Iterator[pa.RecordBatch]:
    for number in range(count):
        columns: dict[str, Any] = {
            "geometry": encode(np.array([HOLED, SQUARE])),
            "id": [f"a_{number}", "ü,\"'"],
            "area_m2": [0.1 + number, None],
            "day": ["2018-05-01", "2018-05-01T10:00:00+02:00"],
            "n": [1 << 40, number],
            "date": [date(2018, 5, 1 + number), None],
        }
        yield pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def write(path: Path, crs: str | None = UTM33, count: int = 3) -> Path:
    write_features(here(path), batches(count), SCHEMA, crs, {"threshold": "0.5"})
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for batch in read_features(here(path)) for row in batch.to_pylist()]


@pytest.mark.parametrize("suffix", SUFFIXES.values())
@pytest.mark.parametrize("crs", [UTM33, None], ids=["utm", "pixels"])
def test_what_is_read_is_what_was_written(tmp_path: Path, suffix: str, crs: str | None) -> None:
    path = write(tmp_path / f"x{suffix}", crs)
    expected = [row for batch in batches() for row in batch.to_pylist()]
    found = rows(path)
    assert [list(row) for row in found] == [SCHEMA.names] * 6
    same = SCHEMA.names[1:] if suffix == ".geojson" else SCHEMA.names
    if suffix == ".geojson":  # which has no dates
        expected = [{**row, "date": row["date"] and row["date"].isoformat()} for row in expected]
    assert [[row[name] for name in same] for row in found] == [[row[name] for name in same] for row in expected]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_the_same_features_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = write(tmp_path / f"x{suffix}").read_bytes()
    time.sleep(1.1)  # GeoPackage's time of change counts seconds
    assert write(tmp_path / f"y{suffix}").read_bytes() == first
    assert write(tmp_path / f"x{suffix}").read_bytes() == first  # over the old one


def test_threads_that_write_at_once_write_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "alone.gpkg").read_bytes()
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda number: write(tmp_path / f"{number}.gpkg"), range(40)))
    assert {path.read_bytes() for path in written} == {first}


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_layer_without_features_can_be_opened(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", count=0)
    assert rows(path) == []
    if suffix != ".parquet":
        assert pyogrio.read_info(path)["features"] == 0


def test_a_geopackage_says_where_it_lies_and_what_it_is(tmp_path: Path) -> None:
    info = pyogrio.read_info(write(tmp_path / "x.gpkg"))
    assert (info["layer_name"], info["geometry_type"], info["crs"]) == ("change", "Polygon", "EPSG:32633")
    assert info["layer_metadata"]["threshold"] == "0.5"
    assert info["capabilities"]["fast_spatial_filter"]


def test_a_geopackage_is_of_a_version_that_older_programs_know_and_has_dates(tmp_path: Path) -> None:
    with sqlite3.connect(write(tmp_path / "x.gpkg")) as base:
        assert base.execute("pragma user_version").fetchone() == (10200,)  # 1.2
        kinds = {name: kind for _, name, kind, *_ in base.execute("pragma table_info(change)")}
        assert base.execute("select distinct date from change order by 1").fetchall()[:2] == [(None,), ("2018-05-01",)]
    assert (kinds["date"], kinds["day"]) == ("DATE", "TEXT")


def test_geojson_is_that_of_the_standard(tmp_path: Path) -> None:
    """RFC 7946: WGS 84, longitude first, no member crs, outer rings counter-clockwise."""
    values = json.loads(write(tmp_path / "x.geojson").read_text())
    assert "crs" not in values
    assert [feature["properties"]["date"] for feature in values["features"][:2]] == ["2018-05-01", None]
    [holed, square, *_] = [shapely.geometry.shape(feature["geometry"]) for feature in values["features"]]
    assert square.bounds == pytest.approx((15.0022, 36.1447, 15.0026, 36.1448), abs=1e-4)
    assert holed.exterior.is_ccw
    assert not holed.interiors[0].is_ccw
    texts = json.dumps(values["features"][0]["geometry"]).replace("[", "").replace("]", "").split(",")
    assert max(len(text.partition(".")[2].rstrip("}")) for text in texts) <= 7


def test_geoparquet_has_the_metadata_of_the_standard(tmp_path: Path) -> None:
    """GeoParquet 1.1: https://geoparquet.org/releases/v1.1.0."""
    metadata = pq.read_schema(write(tmp_path / "x.parquet")).metadata
    geo = json.loads(metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["orientation"] == "counterclockwise"
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633}
    assert metadata[b"threshold"] == b"0.5"
    assert (
        json.loads(pq.read_schema(write(tmp_path / "y.parquet", None)).metadata[b"geo"])["columns"]["geometry"]["crs"]
        is None
    )


def test_outer_rings_are_counter_clockwise_in_every_format(tmp_path: Path) -> None:
    for suffix in SUFFIXES.values():
        for batch in read_features(here(write(tmp_path / f"x{suffix}"))):
            assert shapely.is_ccw(shapely.get_exterior_ring(decode(batch))).all()


def test_what_crosses_the_antimeridian_stays_small(tmp_path: Path) -> None:
    """Beyond 180 degrees in a layer in degrees; cut in two in GeoJSON, as its standard has it."""
    crs = str(known_crs("EPSG:32760"))
    across = np.array(
        [shapely.box(819_401, 8_117_998, 819_501, 8_118_028), shapely.box(819_951, 8e6, 820_001, 8e6 + 9)]
    )
    moved = transform_polygons(across, crs, WGS84)
    assert shapely.is_valid(moved).all()
    assert (np.ptp(shapely.bounds(moved)[:, ::2], 1) < 1e-3).all()
    batch = pa.RecordBatch.from_pydict({"geometry": encode(across)})
    for suffix in SUFFIXES.values():
        write_features(here(tmp_path / f"x{suffix}"), [batch], batch.schema, crs, {})
    [read] = read_features(here(tmp_path / "x.geojson"))
    first, second = decode(read)
    assert (first.geom_type, second.geom_type) == ("MultiPolygon", "Polygon")
    assert first.area == pytest.approx(moved[0].area, rel=1e-3)
    assert first.bounds[0] == -180
    assert first.bounds[2] == 180


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_file_that_reads_back_otherwise_is_not_published(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / f"x{suffix}")
    before = path.read_bytes()
    monkeypatch.setattr(vectors, "read_features", lambda path: list(read_features(path))[:-1])
    with pytest.raises(IntegrityError, match="read back"):
        write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IntegrityError, match=r"file/x.* could not be written"):
        write(tmp_path / "file" / f"x{suffix}")
