"""The original's tree, nested and named as its users have it, becomes a catalog."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from workbooks import write_xls, write_xlsx

from cdpipe.errors import InputError
from cdpipe.pairs.layouts.original import find_original
from cdpipe.pairs.layouts.search import FoundPair, FoundPairs

A, B, C, D = "KVI_20180922_SCN3_UN91", "KV1_20190804_SCN2_UN92", "KV3_20170101_SCN1_UN2", "KV3_20200101_SCN1_UN1"
COMPOSITES = "Images_composit/Images_composit/8_ch"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images; a composite with a mask of the first two; the other two are matched by the table, and to test."""
    folder = tmp_path / "data"
    touch(folder, *(f"Images/{name}.tif" for name in (A, B, C, D)))
    touch(folder, f"{COMPOSITES}/{A}__{B}.tif", f"mask/mask/{A}__{B}.tif")
    write_xls(folder / "Rucode.xls", [["№", "снимок 1", "снимок 2", "код"], [1, A, B, "RU1"], [2, C, D, "RU2"]])
    (folder / "sample_submission.csv").write_text(f"Id,mask\n{C}__{D},\n")
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def by_name(found: FoundPairs) -> dict[str, FoundPair]:
    return {pair.name: pair for pair in found.pairs}


def rows_of(*rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [["n", "first", "second"], *rows]


@pytest.mark.parametrize("where", [".", ".."])
def test_composites_masks_and_test_ids_come_together(where: str, data: Path) -> None:
    found = find_original((data / where).resolve())
    first, second = found.pairs
    assert first == FoundPair(
        f"{A}__{B}",
        composite=data / COMPOSITES / f"{A}__{B}.tif",
        label=data / "mask" / "mask" / f"{A}__{B}.tif",
        split="train",
        before_date="2018-09-22",
        after_date="2019-08-04",
    )
    assert second == FoundPair(
        f"{C}__{D}",
        data / "Images" / f"{C}.tif",
        data / "Images" / f"{D}.tif",
        split="test",
        before_date="2017-01-01",
        after_date="2020-01-01",
    )
    assert found.notes == {}
    assert (found.preset, found.bands) == ("original", {"red": 1, "green": 2, "blue": 3, "nir": 4})
    assert "No pair has split val" in found.hints[0]


def test_names_in_the_tables_may_differ_in_case_suffix_and_blanks(data: Path) -> None:
    write_xls(data / "Rucode.xls", rows_of([1, f" {C.lower()} ", f"Images\\{D}.TIF"]))
    (data / "sample_submission.csv").write_text(f"Id,mask\n{C.lower()}__{D}.tif,\n")
    assert by_name(find_original(data))[f"{C}__{D}"].split == "test"


def test_a_test_pair_stays_one_even_with_a_mask(data: Path) -> None:
    runs = " ".join(f"{start} 1" for start in range(1, 10**5, 3))  # longer than Python's csv reads by itself
    (data / "sample_submission.csv").write_text(f"Id,mask\n{A}__{B},{runs}\nX__Y,\n")
    found = find_original(data)
    assert by_name(found)[f"{A}__{B}"].split == "test"
    assert found.notes["named in sample_submission.csv, but no pair has that name"] == ["x__y"]
    assert found.notes["without a label"] == [f"{C}__{D}"]


@pytest.mark.parametrize("name", ["Rucode.xlsx", "other.xlsx", "rucode.csv"])
def test_the_table_may_be_newer_and_have_another_name(name: str, data: Path) -> None:
    (data / "Rucode.xls").unlink()
    touch(data, "~$Rucode.xlsx")  # what a spreadsheet leaves while it is open
    if name.endswith("csv"):
        (data / name).write_text(f"a;b\n{C};{D}\n")
    else:
        write_xlsx(data / name, rows_of([1, C, D]))
    assert f"{C}__{D}" in by_name(find_original(data))


def test_a_table_without_header_loses_no_row(data: Path) -> None:
    write_xls(data / "Rucode.xls", [[C, D], [A, B]])
    assert len(find_original(data).pairs) == 2


def test_columns_may_be_named_and_swapped(data: Path) -> None:
    write_xls(data / "Rucode.xls", rows_of([C, C, D]))  # three columns of images: which are meant?
    with pytest.raises(InputError, match=r"got 3; share of image names in each: .*'second' \(50%\)"):
        find_original(data, data / "Rucode.xls")
    assert f"{D}__{C}" in by_name(find_original(data, columns=("second", " FIRST ")))
    found = find_original(data, columns=("3", "2"))
    assert f"{D}__{C}" in by_name(found)
    assert any(f"the later one ({D}__{C})" in hint for hint in found.hints)
    with pytest.raises(InputError, match="has no column 'third'; it has 'n', 'first', 'second'"):
        find_original(data, columns=("first", "third"))
    write_xls(data / "Rucode.xls", [["n", "9"], [1, 2]])
    with pytest.raises(InputError, match="no cell of the columns n and 9 is the name of an image"):
        find_original(data, columns=("1", "2"))


def test_a_table_that_says_nothing_is_not_needed_beside_composites(data: Path) -> None:
    write_xls(data / "Rucode.xls", [["a", "b"], [1, 2]])
    found = find_original(data)
    assert list(by_name(found)) == [f"{A}__{B}"]
    assert found.notes["not used, no two of its columns hold image names (--columns BEFORE,AFTER)"] == ["Rucode.xls"]
    assert found.notes["left out, images in no pair"] == [C, D]
    with pytest.raises(InputError, match="expected two columns whose cells are names of images, got 0"):
        find_original(data, data / "Rucode.xls")


def test_a_composite_is_not_found_a_second_time_as_two_images(data: Path) -> None:
    write_xls(data / "Rucode.xls", rows_of([1, B, A], [2, C, D], [3, C, D], [4, D, C], [5, C, "gone"], [6, "", D]))
    found = find_original(data)
    assert list(by_name(found)) == [f"{A}__{B}", f"{C}__{D}"]
    assert found.notes["named in Rucode.xls, but no image has that name"] == ["gone"]


def test_pairs_that_share_an_image_are_one_group(data: Path) -> None:
    touch(data, f"{COMPOSITES}/E__F.tif", f"{COMPOSITES}/G__H.tif", f"{COMPOSITES}/I__J.tif")
    write_xls(data / "Rucode.xls", rows_of([1, B, C], [2, C, D], [3, "F", "G"]))
    groups = {name: pair.group for name, pair in by_name(find_original(data)).items()}
    assert groups[f"{A}__{B}"] == groups[f"{B}__{C}"] == groups[f"{C}__{D}"] is not None
    assert groups["E__F"] == groups["G__H"] is not None  # by a row of the table alone
    assert groups["E__F"] != groups[f"{A}__{B}"]
    assert groups["I__J"] is None


def test_dates_are_given_where_both_are(data: Path) -> None:
    touch(data, f"{COMPOSITES}/X_20189999_1__Y_20190804_1.tif", f"{COMPOSITES}/20180922__Z_1_20190804.tif")
    dates = {name: (pair.before_date, pair.after_date) for name, pair in by_name(find_original(data)).items()}
    assert dates["X_20189999_1__Y_20190804_1"] == (None, None)
    assert dates["20180922__Z_1_20190804"] == ("2018-09-22", "2019-08-04")


def test_without_a_sample_submission_nothing_is_a_test_pair(data: Path) -> None:
    (data / "sample_submission.csv").unlink()
    found = find_original(data)
    assert {pair.split for pair in found.pairs} == {"train", None}
    assert found.notes["not found, so that no pair has split test"] == ["sample_submission.csv"]
    (data / "sample_submission.csv").write_text("name,mask\n")
    with pytest.raises(
        InputError, match=r"sample_submission\.csv: .*\s+expected the columns Id and mask, got name, mask"
    ):
        find_original(data)


def test_nothing_found_says_what_was_looked_for(data: Path) -> None:
    touch(data, "mask/mask/unknown.tif")
    assert find_original(data).notes["left out, masks without a pair"] == ["unknown"]
    shutil.rmtree(data / "Images_composit")
    (data / "Rucode.xls").unlink()
    with pytest.raises(InputError, match=r"found 4 image\(s\), but no composites .* name it with --match"):
        find_original(data)
    shutil.rmtree(data / "Images")
    with pytest.raises(InputError, match="expected GeoTIFFs in a folder 8_ch"):
        find_original(data)
