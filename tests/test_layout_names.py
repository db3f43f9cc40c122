"""Names in any script become identifiers that are valid, different, and always the same."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rasters import make_config

from cdpipe.formats.tables import FORMULA
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.layouts.search import FoundPair
from cdpipe.pairs.layouts.write import format_catalog, make_ids, natural_key, slug

# Few letters, so that names meet; letters of which some have accents, some no Latin form, some two cases.
CLOSE = st.text(alphabet="aAbé1-_. КиЯ東", max_size=6)
ANY = st.text(max_size=200)
VALID = st.from_regex(ID_PATTERN, fullmatch=True)
NAMES = st.lists(CLOSE | ANY | VALID, unique=True, max_size=20)


@given(NAMES)
@example(["é", "e\u0301", "e", "E"])
@example(["", " ", "..", "-"])
@example(["é", next(iter(make_ids(["é"]).values()))])  # a valid name that looks like another's identifier
def test_ids_are_valid_and_differ_regardless_of_case(names: list[str]) -> None:
    ids = make_ids(names)
    assert list(ids) == names
    assert all(ID_PATTERN.fullmatch(identifier) for identifier in ids.values())
    assert len({identifier.casefold() for identifier in ids.values()}) == len(names)


@given(NAMES.flatmap(lambda names: st.tuples(st.just(names), st.permutations(names))))
def test_ids_do_not_depend_on_the_order(both: tuple[list[str], list[str]]) -> None:
    names, shuffled = both
    assert make_ids(shuffled) == make_ids(names)


@given(st.lists(VALID, unique_by=str.casefold, max_size=10))
def test_valid_names_stay(names: list[str]) -> None:
    assert make_ids(names) == {name: name for name in names}


@given(CLOSE | ANY, st.lists(VALID, max_size=5))
def test_an_id_does_not_depend_on_the_rest_of_the_folder(name: str, others: list[str]) -> None:
    alone = make_ids([name])[name]
    if alone.casefold() not in {other.casefold() for other in others}:
        assert make_ids([*others, name])[name] == alone


def test_ids_keep_what_can_be_read() -> None:
    assert slug("Čáslav 2018–2020 (výřez)") == "Caslav-2018-2020-vyrez"
    assert slug("Кама") == ""
    assert make_ids(["Кама 1"])["Кама 1"].startswith("1-")
    assert make_ids(["Кама"])["Кама"].startswith("pair-")
    assert make_ids(["São Paulo"]) == {"São Paulo": "Sao-Paulo-f00fd81d"}  # on every machine
    assert make_ids(["A", "a", "b"])["b"] == "b"


def test_names_are_sorted_as_people_sort_them() -> None:
    names = ["b10", "B2", "a", "b2", "1", "10", "9", "тест 2", "тест 10"]
    assert sorted(names, key=natural_key) == ["1", "9", "10", "a", "B2", "b2", "b10", "тест 2", "тест 10"]


FILE_NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


@given(st.lists(FILE_NAMES, unique=True, min_size=1, max_size=8))
@example(["a\\b", "\\", "a\u00a0b", "\u00a0"])
def test_the_catalog_reads_back_as_it_was_found(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    pairs = [FoundPair(name, folder / "A" / f"{name}.tif", folder / "B" / f"{name}.png") for name in names]
    for name in names:  # one with a backslash is a name only where it is there
        for file in (folder / "A" / f"{name}.tif", folder / "B" / f"{name}.png"):
            file.parent.mkdir(exist_ok=True)
            file.touch()
    (folder / "pairs.csv").write_text(format_catalog(pairs, folder), encoding="utf-8")
    read = read_catalog(make_config(folder))
    expected = sorted(pairs, key=lambda pair: natural_key(pair.name))
    assert [(pair.before.path.local(), pair.after.path.local()) for pair in read] == [
        (pair.before, pair.after) for pair in expected
    ]
    ids = make_ids(names)
    kept = {name: ids[name] if FORMULA.match(name.strip()) else name.strip() or ids[name] for name in names}
    assert [(pair.pair_id, pair.name) for pair in read] == [(ids[pair.name], kept[pair.name]) for pair in expected]


def test_only_columns_with_a_value_and_paths_from_the_table(tmp_path: Path) -> None:
    pairs = [
        FoundPair("b", composite=tmp_path / "data" / "x.tif", split="test"),
        FoundPair("a", Path("/elsewhere/a.tif"), tmp_path.parent / "b.tif", before_date="2018-09-22"),
    ]
    rows = list(csv.DictReader(io.StringIO(format_catalog(pairs, tmp_path))))
    empty = dict.fromkeys(("before", "after", "composite", "split", "before_date"), "")
    first = {"pair_id": "a", "before": "/elsewhere/a.tif", "after": "../b.tif", "before_date": "2018-09-22"}
    assert rows == [empty | first, empty | {"pair_id": "b", "composite": "data/x.tif", "split": "test"}]


def test_paths_lead_out_of_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "deep")
    pair = FoundPair("a", tmp_path / "images" / "a.tif", tmp_path / "images" / "b.tif")
    [row] = csv.DictReader(io.StringIO(format_catalog([pair], link)))
    (tmp_path / "images" / "a.tif").touch()
    assert (link / row["before"]).is_file()
