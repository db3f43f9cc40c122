"""Folders of images, by known names or by patterns, become the pairs that they hold."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rasters import utm_grid, write_raster

from cdpipe.errors import ConfigError, InputError
from cdpipe.pairs.layouts.folders import find_folders
from cdpipe.pairs.layouts.patterns import find_patterns
from cdpipe.pairs.layouts.search import FoundPair


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pair(folder: Path, name: str, paths: Sequence[str], split: str | None = None) -> FoundPair:
    before, after, *label = (folder / path for path in paths)
    return FoundPair(name, before, after, label=label[0] if label else None, split=split)


def test_images_of_one_name_are_a_pair(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.png", "B/1.jpg", "label/1.png", "A/2.PNG", "B/2.png", "A/3.png", "B/4.png", "label/5.png")
    touch(tmp_path, "A/readme.txt", "A/.hidden.png", "B/readme.txt")
    found = find_folders(tmp_path)
    assert found.pairs == (
        pair(tmp_path, "1", ("A/1.png", "B/1.jpg", "label/1.png")),
        pair(tmp_path, "2", ("A/2.PNG", "B/2.png")),
    )
    assert found.notes == {
        "left out, in A without a partner in B": ["3"],
        "left out, in B without a partner in A": ["4"],
        "left out, in label without a pair": ["5"],
        "without a label": ["2"],
    }


@pytest.mark.parametrize(
    "names", [("a", "b", "OUT"), ("T1", "T2", "gt"), ("time1", "time2", "label"), ("Image1", "Image2", "masks")]
)
def test_other_names_of_the_folders_are_known(names: tuple[str, str, str], tmp_path: Path) -> None:
    files = tuple(f"set/{name}/x.tif" for name in names)
    touch(tmp_path, *files)
    assert find_folders(tmp_path).pairs == (pair(tmp_path, "x", files),)


def test_lists_give_the_splits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{name}.png" for folder in ("A", "B", "label") for name in "abcde"))
    (tmp_path / "list").mkdir()
    for split, text in {
        "train": "\ufeffa.png\r\nb\r\n\r\n",
        "val": "A/c.png\nz.png\n",
        "test": "d.png\na.png\n",
    }.items():
        (tmp_path / "list" / f"{split}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "list" / "demo.txt").write_text("e.png")
    found = find_folders(tmp_path)
    splits = {"a": "train", "b": "train", "c": "val", "d": "test"}
    assert {item.name: item.split for item in found.pairs} == splits
    assert found.notes == {
        "named in list/val.txt, but no pair has that name": ["z"],
        "named in list/test.txt, but taken as train, whose list has it too": ["a"],
        "left out, in none of the lists": ["e"],
    }


def test_folders_of_splits_may_repeat_names(tmp_path: Path) -> None:
    touch(tmp_path, *(f"CDD/{split}/{date}/00000.jpg" for split in ("train", "val", "test") for date in "AB"))
    assert find_folders(tmp_path).pairs == tuple(
        pair(tmp_path / "CDD" / split, f"{split}_00000", ("A/00000.jpg", "B/00000.jpg"), split)
        for split in ("test", "train", "val")
    )


def test_names_that_tell_their_split_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{date}/{split}_1.png" for split in ("train", "test") for date in "AB"))
    assert {item.name: item.split for item in find_folders(tmp_path).pairs} == {"train_1": "train", "test_1": "test"}
    touch(tmp_path / "flat", *(f"{date}/{name}.png" for date in "AB" for name in ("train_1", "val_2", "Test-3")))
    splits = {"train_1": "train", "val_2": "val", "Test-3": "test"}
    assert {item.name: item.split for item in find_folders(tmp_path / "flat").pairs} == splits
    touch(tmp_path / "flat", "A/trains.png", "B/trains.png")  # a word that only begins like a split
    assert {item.split for item in find_folders(tmp_path / "flat").pairs} == {None}


def test_one_split_alone_may_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "val/A/1.png", "val/B/1.png")
    assert find_folders(tmp_path).pairs == (pair(tmp_path / "val", "val_1", ("A/1.png", "B/1.png"), "val"),)
    assert find_folders(tmp_path / "val").pairs == (pair(tmp_path / "val", "1", ("A/1.png", "B/1.png")),)


def test_what_has_two_meanings_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.png", "A/1.tif", "B/1.png", "A/2.png", "B/2.png", "A/3\n.png", "B/3\n.png")
    touch(tmp_path / "A", os.fsdecode(b"4\xff.png"))
    found = find_folders(tmp_path)
    assert [item.name for item in found.pairs] == ["2"]
    assert found.notes["left out, several files of this name in A"] == ["1"]
    assert found.notes["left out, a name in A has control characters or is not in UTF-8"] == [r"'3\n'", r"'4\udcff'"]


def test_accents_are_compared_as_letters(tmp_path: Path) -> None:
    touch(tmp_path, "A/caf\u00e9.png", "B/cafe\u0301.png")
    assert [item.name for item in find_folders(tmp_path).pairs] == ["caf\u00e9"]


def test_dates_of_different_size_are_left_out_where_nothing_else_says_where_they_lie(tmp_path: Path) -> None:
    for kind, suffix, grid in (("PNG", "png", None), ("GTiff", "tif", utm_grid)):
        for date, width in (("A", 30), ("B", 31)):
            (tmp_path / date).mkdir(exist_ok=True)
            place = grid(20, width) if grid else None
            write_raster(tmp_path / date / f"{suffix}.{suffix}", np.ones((3, 20, width), "u1"), place, driver=kind)
    found = find_folders(tmp_path)
    assert [item.name for item in found.pairs] == ["tif"]
    reason = "left out, dates of different size without georeference"
    assert found.notes[reason] == ["png (30 x 20, 31 x 20)"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), "expected two folders of images such as A and B"),
        (("A/1.png",), "expected two folders of images such as A and B"),
        (("A/1.png", "B/2.png"), "found none; left out, in A without a partner in B: 1; left out, in B without"),
        (("A/1.txt", "B/1.txt"), "expected images of one name in both dates' folders, found none"),
        (("x/A/1.png", "x/B/1.png", "y/A/1.png", "y/B/1.png"), "expected one data set, found several: "),
    ],
)
def test_nothing_found_says_what_was_looked_for(files: tuple[str, ...], says: str, tmp_path: Path) -> None:
    touch(tmp_path, *files)
    with pytest.raises(InputError) as caught:
        find_folders(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert says in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: expected a folder; there is none"):
        find_folders(tmp_path / "nowhere")


def test_patterns_share_an_id(tmp_path: Path) -> None:
    touch(tmp_path, "2018/Кама_rgb.tif", "2019/Кама/x_Кама.tif", "m/Кама.gpkg", "2018/Ob_rgb.tif", "2018/_rgb.tif")
    touch(tmp_path, "2019/Ob/x_Кама.tif", "2018/deep/Кама_rgb.tif", "2018/Кама_rgbXtif")
    found = find_patterns(tmp_path, "2018/{id}_rgb.tif", "2019/{id}/x_{id}.tif", "m/{id}.gpkg")
    assert found.pairs == (pair(tmp_path, "Кама", ("2018/Кама_rgb.tif", "2019/Кама/x_Кама.tif", "m/Кама.gpkg")),)
    assert found.notes == {"left out, in --before without a partner in --after": ["Ob"]}


def test_a_star_stands_for_what_differs(tmp_path: Path) -> None:
    touch(tmp_path, "p1/2018_a.tif", "p1/2019_a.tif", "p2/2018_b.tif", "p2/2018_c.tif", "p2/2019_d.tif")
    found = find_patterns(tmp_path, "{id}/2018_*.tif", "{id}/2019_*.tif", None)
    assert found.pairs == (pair(tmp_path, "p1", ("p1/2018_a.tif", "p1/2019_a.tif")),)
    assert found.notes["left out, several files of this name in --before"] == ["p2"]


def test_patterns_without_an_id_name_one_pair(tmp_path: Path) -> None:
    folder = tmp_path / "Тайчжоу"
    touch(folder, "A.tif", "B.tif", "mask.tif", "C.tif")
    assert find_patterns(folder, "A.tif", "B.tif", "mask.tif").pairs == (
        pair(folder, "Тайчжоу", ("A.tif", "B.tif", "mask.tif")),
    )


def test_patterns_that_cannot_meet_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.tif", "B/2.tif")
    with pytest.raises(ConfigError, match=r"expected \{id\} in every pattern.*--label 'm\.tif'"):
        find_patterns(tmp_path, "A/{id}.tif", "B/{id}.tif", "m.tif")
    with pytest.raises(InputError, match=r"no file matches --after 'C/\{id\}\.tif'"):
        find_patterns(tmp_path, "A/{id}.tif", "C/{id}.tif", None)
    with pytest.raises(InputError, match=r"no \{id\} of one date is also one of the other; .*: 1; .*: 2"):
        find_patterns(tmp_path, "A/{id}.tif", "B/{id}.tif", None)


def test_quality_rasters_belong_to_their_dates_and_are_no_dates(tmp_path: Path) -> None:
    """Also where the pattern of a date fits them; a pair without one is kept, and said."""
    for folder, name in itertools.product(("A", "B"), ("x", "y")):
        path = tmp_path / folder / f"{name}.tif"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        path.with_name(f"{name}_SCL.tif").touch()
    (tmp_path / "B" / "y_SCL.tif").unlink()
    found = find_patterns(tmp_path, "A/{id}.tif", "B/{id}.tif", None, "A/{id}_SCL.tif", "B/{id}_SCL.tif")
    assert [(pair.name, pair.before, pair.before_valid, pair.after_valid) for pair in found.pairs] == [
        ("x", tmp_path / "A/x.tif", tmp_path / "A/x_SCL.tif", tmp_path / "B/x_SCL.tif"),
        ("y", tmp_path / "A/y.tif", tmp_path / "A/y_SCL.tif", None),
    ]
    assert found.notes["without a quality raster (--after-valid)"] == ["y"]
