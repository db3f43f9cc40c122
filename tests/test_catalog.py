"""A catalog is read as it is meant, or refused with every mistake at once."""

import datetime
import pickle
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import call
from rasters import RGB_SENSOR, make_config

from cdpipe.errors import EXIT_INPUT, InputError
from cdpipe.formats.dates import day_orders, iso_date, parse_time
from cdpipe.pairs.catalog import Catalog, Pair, load_catalog, read_catalog
from cdpipe.workspace.location import here

OTHER_ADDRESS = (
    "expected a file of this machine, or an address that starts with s3://, gs:// or az://; "
    "other addresses are not supported"
)

EXPECTED = "expected a date in ISO 8601 such as 2018-09-22"
NOT_HERE = "expected a path of this machine, with / between folders, got one of Windows"

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
        "a,a.tif,b.tif,training,2018-09,s,\n"
        "A,a.tif,,,,t,\n"
        "../x,a.tif,b.tif,,,s,https://host/m.tif\n"
        "ok,a.tif,b.tif,,,s,,surplus\n",
    )
    assert found == [
        f"line 2, pair a, before_date: {EXPECTED}, got '2018-09', which has no day; give one, or leave the cell empty",
        "line 2, pair a, split: expected train, val, test or nothing, got 'training'",
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
        ("id,before,after", "column id: unknown; did you mean pair_id?"),
        ("pair_id,t1,t2", "column t1: unknown; did you mean before?"),
        ("pair_id,before,after,lable", "column lable: unknown; did you mean label?"),
        ("pair_id,before,after,label_path", "column label_path: unknown; did you mean label?"),
        ("pair_id,before,after,befor_dat", "column befor_dat: unknown; did you mean before_date?"),
        ("Pair_ID,Before,before", "column before: there twice"),
        (
            "pair_id before after",
            "column pair_id: missing; this column is required; expected commas, semicolons, tabs or | between columns",
        ),
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


def test_mistakes_of_columns_and_of_rows_do_not_hide_each_other(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "pair_id,befor,after,split\na,x,y,nowhere\nb c,x,y,\n")
    assert found == [
        "column befor: unknown; did you mean before?",
        "expected the columns before and after, or composite",
        "line 2, pair a, split: expected train, val, test or nothing, got 'nowhere'",
        "line 3, pair b c, pair_id: expected [A-Za-z0-9][A-Za-z0-9._-]{0,127}, got 'b c'",
    ]
    assert mistakes(tmp_path, "before,after,split\nx,y,nowhere\n") == [
        "column pair_id: missing; this column is required",
        "line 2, pair ?, split: expected train, val, test or nothing, got 'nowhere'",
    ]


def test_many_rows_with_the_same_mistake_are_one_line(tmp_path: Path) -> None:
    rows = "".join(f"p{n},b{n}\\{n}.tif,a.tif,training\n" for n in range(400))
    (tmp_path / "pairs.csv").write_text(f"pair_id,before,after,split\n{rows}")
    with pytest.raises(InputError) as caught:
        read_catalog(make_config(tmp_path))
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("800 mistake(s)")
    assert [line.strip() for line in lines] == [
        "line 2, pair p0, split: expected train, val, test or nothing, got 'training' (and 399 more rows likewise)",
        f"line 2, pair p0, before: {NOT_HERE}, 'b0\\\\0.tif'; here it is 'b0/0.tif' (and 399 more rows likewise)",
    ]


def load(folder: Path, content: bytes, name: str = "pairs.csv") -> Catalog:
    (folder / name).write_bytes(content)
    return load_catalog(make_config(folder, catalog=name))


HEAD = "pair_id,before,after\n"
ROW = "p,b.tif,a.tif\n"


@pytest.mark.parametrize(
    ("content", "remarks"),
    [
        ("Pair_ID,BEFORE,After\np,b.tif,a.tif\n", ()),
        ("Pair ID, Before , after\np, b.tif, a.tif\n", ()),
        ("pair_id|before|after\np|b.tif|a.tif\n", ()),
        ("pair_id,before,after\rp,b.tif,a.tif\r", ()),
        ("sep=;\r\npair_id;before;after\r\np;b.tif;a.tif\r\n", ()),
        ('# mine, "odd\n\n' + HEAD + "#q,b.tif,a.tif\n" + ROW, ()),
        ("# pair_id,before,after\n" + ROW, ()),
        (HEAD.strip() + ",\n" + ROW.strip() + ",\n", ()),
        (HEAD.strip() + ",label,split\n" + ROW.strip() + ",nan,NaN\n", ()),
        ("," + HEAD + "0," + ROW, ("column 1: has no name, and is left out",)),
        ("Unnamed: 0," + HEAD + "0," + ROW, ("column Unnamed: 0: not known, and left out",)),
        (
            HEAD.strip() + ",notes,cloud_pct\n" + ROW.strip() + ",x,3\n",
            ("columns notes, cloud_pct: not known, and left out",),
        ),
        (
            HEAD.strip() + ",mask\n" + ROW.strip() + ",m.tif\n",
            ("column mask: not known, and left out; a label would stand in a column label",),
        ),
    ],
)
def test_tables_as_people_and_programs_write_them(tmp_path: Path, content: str, remarks: tuple[str, ...]) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        catalog = load(tmp_path, content.encode(encoding))
        [pair] = catalog.pairs
        assert (pair.pair_id, pair.before.path, pair.after.path) == (
            "p",
            here(tmp_path / "b.tif"),
            here(tmp_path / "a.tif"),
        )
        assert (pair.label, pair.split) == (None, None)
        assert catalog.remarks == remarks


def test_lines_keep_their_numbers_under_comments(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '# one\r\n# "two\r\npair_id,before,after\r\n"a ""b""\r\nc",x,y\r\n')
    assert found[0].startswith('line 5, pair a "b"\\nc, pair_id: expected')


def test_another_encoding_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected text in UTF-8, got byte 0xf6 in line 2; save it as CSV UTF-8, or .*iconv"
    ):
        load(tmp_path, "pair_id,name,before,after\np,K\u00f6ln,b,a\n".encode("cp1252"))


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        *((same, same) for same in ("2018-09-22", "20180922", "20180922T100021", "2018-09-22T10:20:21.024Z")),
        *(
            (day, "2018-09-22")
            for day in ("22.09.2018", "22.9.2018", "09/22/2018", "9/22/2018", "22/09/2018", "2018/09/22")
        ),
        *(
            (day, "2018-09-22")
            for day in ("2018.09.22", "22-09-2018", "22 Sep 2018", "Sep 22, 2018", "22-Sep-2018", "22nd September 2018")
        ),
        ("05.01.2020", "2020-01-05"),
        ("05/05/2020", "2020-05-05"),
        ("22.09.2018 10:30", "2018-09-22T10:30:00"),
        ("9/22/2018 12:05:00 AM", "2018-09-22T00:05:00"),
        ("9/22/2018 1:05 PM", "2018-09-22T13:05:00"),
        *((bad, None) for bad in ("01/05/2020", "01-05-2020", "31.02.2018", "2018-09", "2018", "201809", "09/2018")),
        *(
            (bad, None)
            for bad in ("43365", "43365.0", "22.09.18", "yesterday", "22 Foo 2018", "9/22/2018 13:05 PM", "10122018")
        ),
    ],
)
def test_dates_are_read_where_they_can_be_in_one_way_only(text: str, iso: str | None) -> None:
    if iso is None:
        with pytest.raises(
            ValueError, match=f"expected a date in ISO 8601 such as 2018-09-22, got '{re.escape(text)}'"
        ):
            iso_date(text, day_orders([text]))
    else:
        assert iso_date(text, day_orders([text])) == iso
        parse_time(iso)


@given(st.dates(datetime.date(1990, 1, 1), datetime.date(2040, 1, 1)), st.sampled_from("./-"), st.booleans())
def test_a_numeric_date_is_read_rightly_or_not_at_all(day: datetime.date, mark: str, american: bool) -> None:
    if mark == "." and american:
        return  # dots are no American custom
    text = day.strftime(f"%m{mark}%d{mark}%Y" if american else f"%d{mark}%m{mark}%Y")
    try:
        assert iso_date(text) == day.isoformat() or mark == "."
    except ValueError:
        assert day.day <= 12
    told = [text, "12/31/2018" if american else "31/12/2018", "12-31-2018" if american else "31-12-2018"]
    assert iso_date(text, day_orders(told)) == day.isoformat()


def test_a_tables_other_dates_tell_which_comes_first_unless_they_disagree(tmp_path: Path) -> None:
    table = "pair_id,before,after,before_date,after_date\np,b,a,{},01/05/2020\n"
    catalog = load(tmp_path, table.format("09/22/2018").encode())
    assert (catalog.pairs[0].before_date, catalog.pairs[0].after_date) == ("2018-09-22", "2020-01-05")
    assert catalog.remarks == ("column before_date: dates such as 09/22/2018 are read as 2018-09-22",)
    assert load(tmp_path, table.format("22/09/2018").encode()).pairs[0].after_date == "2020-05-01"
    both = table + "q,b,a,22/09/2018,\n"
    [found] = mistakes(tmp_path, both.format("09/22/2018"))
    assert found.endswith("got '01/05/2020', which may be 2020-01-05 or 2020-05-01")


@pytest.mark.parametrize(
    ("text", "why"), [("43365", "perhaps a spreadsheet's number for 2018-09-22"), ("22.09.18", "a year of four digits")]
)
def test_what_is_no_date_is_explained(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        iso_date(text)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("im\\b.tif", "got one of Windows, 'im\\\\b.tif'; here it is 'im/b.tif'"),
        ("C:\\data\\b.tif", "got one of Windows, 'C:\\\\data\\\\b.tif'"),
        ("D:/data/b.tif", "got one of Windows, 'D:/data/b.tif'"),
        ("\\\\server\\share\\b.tif", "got one of Windows"),
        ("file:///C:/data/b.tif", "got one of Windows, 'C:/data/b.tif'"),
        (
            "file://server/b.tif",
            "expected a file of this machine, as file:///data/before.tif, got 'file://server/b.tif'",
        ),
    ],
)
def test_paths_of_elsewhere_are_explained(tmp_path: Path, cell: str, expected: str) -> None:
    [found] = mistakes(tmp_path, f"{HEAD}p,{cell},a.tif\n")
    assert "line 2, pair p, before: " in found
    assert expected in found


def test_addresses_of_this_machine_and_the_home_folder_are_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = [
        f"p,file://{tmp_path}/b%20c.tif,file:{tmp_path}/a.tif",
        "q,file://localhost/x/b.tif,~/a.tif",
        "r,im\\b.tif,~b/a.tif",
    ]
    (tmp_path / "im\\b.tif").touch()  # a name like any other, where there is one
    first, second, third = load(tmp_path, (HEAD + "\n".join(rows)).encode()).pairs
    assert (first.before.path, first.after.path) == (here(tmp_path / "b c.tif"), here(tmp_path / "a.tif"))
    assert (second.before.path, second.after.path) == (here(Path("/x/b.tif")), here(tmp_path / "home" / "a.tif"))
    assert (third.before.path, third.after.path) == (here(tmp_path / "im\\b.tif"), here(tmp_path / "~b" / "a.tif"))
    (tmp_path / "b%20c.tif").touch()
    assert load(tmp_path, (HEAD + rows[0]).encode()).pairs[0].before.path.name == "b%20c.tif"


def test_ids_stay_as_they_are(tmp_path: Path) -> None:
    catalog = load(tmp_path, f"{HEAD}001,b,a\n1,b,a\n".encode())
    assert [pair.pair_id for pair in catalog.pairs] == ["001", "1"]
    catalog = load(tmp_path, f"{HEAD}1.0,b,a\n2.0,b,a\n".encode())
    assert [pair.pair_id for pair in catalog.pairs] == ["1.0", "2.0"]
    assert "ids such as 1.0 look like numbers" in catalog.remarks[0]
    assert not load(tmp_path, f"{HEAD}v1.0,b,a\n2.0,b,a\n".encode()).remarks


def test_a_float_column_of_parquet_holds_ids(tmp_path: Path) -> None:
    table = pa.table({"pair_id": [7.0, 8.0], "before": ["b", "b"], "after": ["a", "a"], "label": ["l", None]})
    table = table.append_column("__index_level_0__", pa.array([0, 1]))
    pq.write_table(table, tmp_path / "pairs.parquet")
    catalog = load_catalog(make_config(tmp_path, catalog="pairs.parquet"))
    assert [pair.pair_id for pair in catalog.pairs] == ["7", "8"]
    assert catalog.pairs[1].label is None
    assert catalog.remarks == ("column __index_level_0__: not known, and left out",)


def test_the_check_shows_what_was_left_out(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: t\ncatalog: pairs.csv\nworkspace: work\nsensors: {s: {bands: {red: 1, green: 2, blue: 3}}}\n"
    )
    (tmp_path / "pairs.csv").write_text(f",{HEAD}0,{ROW}")
    for verb in (["check"], ["ingest", "--dry-run"]):
        result = call([*verb, str(config)])
        assert result.code == EXIT_INPUT
        assert result.out.count("column 1: has no name, and is left out") == 1


def test_a_pair_travels_small(tmp_path: Path) -> None:
    [pair] = read(tmp_path, "pair_id,before,after\na,a.tif,b.tif\n")
    packed = pickle.dumps(pair)
    assert pickle.loads(packed) == pair  # noqa: S301 (our own)
    assert len(packed) < 2000


def test_times_compare_with_and_without_zone() -> None:
    assert parse_time("2018-09-22") < parse_time("2018-09-22T00:00:01Z") < parse_time("2018-09-22T00:30:00-01:00")
