"""A catalog is read as it is meant, or refused with every mistake at once."""

import datetime
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rasters import RGB_SENSOR, make_config

from cdpipe.errors import InputError
from cdpipe.pairs.catalog import Pair, parse_time, read_catalog
from cdpipe.workspace.location import here

OTHER_ADDRESS = (
    "expected a file of this machine, or an address that starts with s3://, gs:// or az://; "
    "other addresses are not supported"
)

TWO_SENSORS = {
    "kanopus": {"bands": {"red": 1, "green": 2, "blue": 3, "nir": 4}, "nodata": 0},
    "s2": {"bands": {"blue": 1, "green": 2, "red": 3}},
}


def read(folder: Path, text: str, **sections: Any) -> list[Pair]:
    (folder / "pairs.csv").write_text(text, encoding="utf-8")
    return read_catalog(make_config(folder, **sections))


def mistakes(folder: Path, text: str, **sections: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, text, **sections)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_a_row_becomes_a_pair_with_paths_beside_the_table(tmp_path: Path) -> None:
    [pair] = read(
        tmp_path,
        "pair_id,name,before,after,label,split,group,before_date,after_date,before_valid\n"
        "a.1,Кама 1,img/a.tif,/data/b.tif,m.gpkg,val,river,2018-09-22,2019-08-04T10:00:00Z,ok.tif\n",
    )
    assert (pair.pair_id, pair.name, pair.group) == ("a.1", "Кама 1", "river")
    assert pair.before.path == here(tmp_path / "img/a.tif")
    assert pair.after.path == here(Path("/data/b.tif"))
    assert (pair.label, pair.before_valid, pair.after_valid) == (
        here(tmp_path / "m.gpkg"),
        here(tmp_path / "ok.tif"),
        None,
    )
    assert (pair.split, pair.before_date, pair.after_date) == ("val", "2018-09-22", "2019-08-04T10:00:00Z")
    assert pair.roles == ("red", "green", "blue")
    assert pair.before.bands == (1, 2, 3)


def test_roles_are_those_of_both_sensors_in_the_first_sensors_order(tmp_path: Path) -> None:
    table = "pair_id,before,after,before_sensor,after_sensor\na,a.tif,b.tif,kanopus,s2\n"
    [pair] = read(tmp_path, table, sensors=TWO_SENSORS)
    assert pair.roles == ("red", "green", "blue")
    assert (pair.before.bands, pair.after.bands) == ((1, 2, 3), (3, 2, 1))
    assert pair.before.sensor.nodata == 0
    assert pair.after.sensor_name == "s2"


def test_a_composite_is_two_dates_in_one_file(tmp_path: Path) -> None:
    [pair] = read(tmp_path, "pair_id,composite\na,ab.tif\n")
    assert pair.before.path == pair.after.path == here(tmp_path / "ab.tif")
    assert pair.before.band_numbers(8) == (1, 2, 3)
    assert pair.after.band_numbers(8) == (5, 6, 7)
    with pytest.raises(InputError, match="even number of bands in a composite, got 7"):
        pair.after.band_numbers(7)
    with pytest.raises(InputError, match=r"needs band 3, the file has 2 band\(s\) for each date"):
        pair.before.band_numbers(4)


def test_too_few_bands_are_named(tmp_path: Path) -> None:
    [pair] = read(tmp_path, "pair_id,before,after\na,a.tif,b.tif\n")
    with pytest.raises(InputError, match=r"a\.tif: sensor s needs band 3, the file has 2 band\(s\)"):
        pair.before.band_numbers(2)


@pytest.mark.parametrize("table", ["pair_id;before;after\na;x,1.tif;y.tif\n", "\ufeffpair_id,before,after\na,x,y\n"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, table: str) -> None:
    [pair] = read(tmp_path, table)
    assert pair.pair_id == "a"


def test_empty_lines_are_skipped_and_lines_counted(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "pair_id,before,after\na,x,y\n\n,,\nb,x\n")
    assert found == ["line 5, pair b, before: expected a file here and one for after, or one for composite alone"]


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    rows = {"pair_id": [7, 8], "before": ["a.tif", "c.tif"], "after": ["b.tif", "d.tif"], "label": ["m.tif", None]}
    dates = [datetime.date(2018, 9, 22), None]
    pq.write_table(pa.table({**rows, "before_date": dates}), tmp_path / "pairs.parquet")
    text = "pair_id,before,after,label,before_date\n7,a.tif,b.tif,m.tif,2018-09-22\n8,c.tif,d.tif,,\n"
    assert read_catalog(make_config(tmp_path, catalog="pairs.parquet")) == read(tmp_path, text)


def test_all_mistakes_of_all_rows_are_told_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        "pair_id,before,after,split,before_date,sensor,label\n"
        "a,a.tif,b.tif,training,22.09.2018,s,\n"
        "A,a.tif,,,,t,\n"
        "../x,a.tif,b.tif,,,s,https://host/m.tif\n"
        "ok,a.tif,b.tif,,,s,,surplus\n",
    )
    assert found == [
        "line 2, pair a, split: expected train, val, test or nothing, got 'training'",
        "line 2, pair a, before_date: expected a date in ISO 8601 such as 2018-09-22, got '22.09.2018'",
        "line 3, pair A, sensor: the configuration has no sensor 't'; expected s",
        "line 3, pair A, before: expected a file here and one for after, or one for composite alone",
        "line 3, pair A, pair_id: expected unique ids, also regardless of case; line 2 has it too",
        "line 4, pair ../x, pair_id: expected [A-Za-z0-9][A-Za-z0-9._-]{0,127}, got '../x'",
        f"line 4, pair ../x, label: https://host/m.tif: {OTHER_ADDRESS}",
        "line 5, pair ok, (beyond the last column): expected nothing, got 'surplus'",
    ]


@pytest.mark.parametrize("path", ["/vsicurl/http://host/a.tif", "https://host/a.tif", "a\0.tif"])
def test_only_files_of_this_machine(tmp_path: Path, path: str) -> None:
    assert "expected a file of this machine" in mistakes(tmp_path, f"pair_id,before,after\na,{path},b\n")[0]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("pair_id,befor,after", "column befor: unknown; did you mean before?"),
        ("pair_id,before,after,before", "column before: there twice"),
        ("id,before,after", "column pair_id: missing; this column is required"),
        ("pair_id,before", "expected the columns before and after, or composite"),
    ],
)
def test_columns_are_checked(tmp_path: Path, header: str, expected: str) -> None:
    assert expected in mistakes(tmp_path, f"{header}\na,b,c,d\n")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,x,y,,,", "before_sensor: expected one of the configuration's sensors: kanopus, s2"),
        ("a,x,y,s2,,kanopus", "before_sensor: expected either this or sensor, got 's2' and 'kanopus'"),
        ("a,x,y,,,kanopos", "sensor: the configuration has no sensor 'kanopos'; did you mean kanopus?"),
    ],
)
def test_sensors_are_told_once_and_known(tmp_path: Path, row: str, expected: str) -> None:
    table = f"pair_id,before,after,before_sensor,after_sensor,sensor\n{row}\n"
    assert f"line 2, pair a, {expected}" in mistakes(tmp_path, table, sensors=TWO_SENSORS)


def test_sensors_without_a_common_band_make_no_pair(tmp_path: Path) -> None:
    sensors = {"s": RGB_SENSOR, "sar": {"bands": {"vv": 1}}}
    [found] = mistakes(tmp_path, "pair_id,before,after,before_sensor,after_sensor\na,x,y,s,sar\n", sensors=sensors)
    assert "expected a band role that s has too, sar has none of them" in found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"pair_id,before,after\n\xff\xfe,x,y\n", "expected text in UTF-8"),
        (b'pair_id,before,after\na,"x"y,z\n', "not a readable table"),
        (b"pair_id,before,after\n", "expected at least one pair, got none"),
        (b"", "column pair_id: missing"),
    ],
)
def test_unreadable_tables_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read_catalog(make_config(tmp_path))


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_catalog(make_config(tmp_path))
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match="not a readable table"):
        read_catalog(make_config(tmp_path, catalog="pairs.parquet"))


def test_a_pair_travels_small(tmp_path: Path) -> None:
    [pair] = read(tmp_path, "pair_id,before,after\na,a.tif,b.tif\n")
    packed = pickle.dumps(pair)
    assert pickle.loads(packed) == pair  # noqa: S301 (our own)
    assert len(packed) < 2000


def test_times_compare_with_and_without_zone() -> None:
    assert parse_time("2018-09-22") < parse_time("2018-09-22T00:00:01Z") < parse_time("2018-09-22T00:30:00-01:00")
