"""Submissions: a run's masks as text, in the order of a template, and any masks back as rasters."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from project import SCENES, Project, by_threads, call, make_project, snapshot, succeed, write_catalog
from submitted import MASKS, changes, guesses, plain_text, write_masks, write_rows

from cdpipe.errors import EXIT_CONFIG, EXIT_INPUT, EXIT_PARTIAL, InputError
from cdpipe.formats.submission import encode_strips, format_runs, read_submission, write_submission
from cdpipe.workspace.location import here

pytestmark = [pytest.mark.usefixtures("in_threads"), pytest.mark.timeout(900)]


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def named_catalog(project: Project, folder: Path) -> tuple[dict[str, str], tuple[str, str]]:
    """Names in another script for all pairs but one, and the option that sets their catalog."""
    with (project.config.parent / "pairs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    files = [
        {key: str(project.config.parent / row[key]) for key in ("before", "after", "label") if row[key]} for row in rows
    ]
    names = {row["pair_id"]: "" if row["pair_id"] == "val" else f"Снимок {row['pair_id']}" for row in rows}
    rows = [{**row, **paths, "name": names[row["pair_id"]]} for row, paths in zip(rows, files, strict=True)]
    write_catalog(folder / "named.csv", rows)
    return {pair_id: name or pair_id for pair_id, name in names.items()}, ("--set", f"catalog={folder / 'named.csv'}")


def test_a_submission_is_the_runs_change(branch: Project) -> None:
    told = succeed(branch.arguments("submission"))
    path = branch.outputs / "submission.csv"
    masks = changes(branch)
    assert read_rows(path) == [["Id", "mask"], *([name, plain_text(mask)] for name, mask in masks.items())]
    assert list(masks) == list(SCENES)
    assert any(plain_text(mask) for mask in masks.values())
    not_observed = sum(int((mask == 255).sum()) for mask in masks.values())
    assert f"{not_observed} pixel(s) were not observed" in told.out
    before = path.read_bytes()
    path.unlink()
    succeed(branch.arguments("submission"))
    assert path.read_bytes() == before


def test_rasters_of_a_submission_are_those_of_the_run(branch: Project) -> None:
    succeed(branch.arguments("submission", "--out", str(branch.workspace / "mine.csv")))
    succeed(branch.arguments("submission", "--rasters", str(branch.workspace / "mine.csv")))
    folder = branch.outputs / "submissions" / "mine"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{pair_id}.tif" for pair_id in SCENES)
    for pair_id in SCENES:
        published = branch.outputs / "rasters" / f"{pair_id}_change.tif"
        with rasterio.open(folder / f"{pair_id}.tif") as found, rasterio.open(published) as expected:
            assert (found.crs, found.transform, found.shape) == (expected.crs, expected.transform, expected.shape)
            values = expected.read(1)
            assert (values == 255).any()
            np.testing.assert_array_equal(found.read(1), np.where(values == 255, 0, values))
            assert found.tags()["id"] == pair_id
    assert not (branch.outputs / "failed.json").read_text().strip("{}\n ")


def test_a_template_gives_ids_and_their_order(branch: Project, tmp_path: Path) -> None:
    names, catalog = named_catalog(branch, tmp_path)
    order = ["small", "wide", "val"]
    template = write_rows(tmp_path / "sample.csv", {names[pair_id]: "1 1" for pair_id in order})
    out = tmp_path / "new" / "filled.csv"
    succeed(branch.arguments("submission", *catalog, "--template", str(template), "--out", str(out)))
    masks = changes(branch)
    assert read_rows(out)[1:] == [[names[pair_id], plain_text(masks[pair_id])] for pair_id in order]
    succeed(branch.arguments("submission", *catalog, "--rasters", str(out), "--out", str(tmp_path / "rasters")))
    assert {path.stem for path in (tmp_path / "rasters").iterdir()} == set(order)
    write_rows(template, {names["wide"]: "", "elsewhere": "", "unknown": ""})
    before = out.read_bytes()
    found = call(branch.arguments("submission", *catalog, "--template", str(template), "--out", str(out)))
    assert found.code == EXIT_INPUT
    assert "no finished pair for 2 id(s), nothing was written: elsewhere, unknown" in found.err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Id,mask\nrow,\nsmall,1 2\nrow,3 1\n", "line 4, id row: expected unique ids; line 2 has it too"),
        ("Id,EncodedPixels\nrow,\n", "expected the columns Id and mask, got Id, EncodedPixels"),
        ("Id,mask,mask\nrow,,\n", "expected the columns Id and mask, got Id, mask, mask"),
        ("Id,mask\n", "expected at least one row, got none"),
        ("", "expected the columns Id and mask, got none"),
        ("Id,mask\nrow,1 2 3\n", "line 2, id row: run 2: expected a start and a length, got 3 alone"),
        ("Id,mask\nrow,\nsmall,5 9 6 1\n", "line 3, id small: run 2: expected ascending runs"),
        ("Id,mask\nrow,70 9\n", "line 2, id row: run 1: expected runs within 1 x 77 pixels, got 70 9"),
        ("Id,mask\nrow,1 2\nelsewhere,\n", "line 3, id elsewhere: no pair of the catalog has this name"),
        ("Id,mask\nrow\n", "line 2, id row: expected 2 cells, an id and a mask"),
        ("Id,mask\nrow,1,2\n", "line 2, id row: expected 2 cells, an id and a mask"),
        ("Id,mask\n,1 2\n", "line 2: expected an id, got none"),
    ],
)
def test_what_is_wrong_with_a_submission_is_named(finished: Project, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    before = snapshot(finished.outputs)
    for options in (("evaluate", "--submission"), ("submission", "--rasters")):
        found = call(finished.arguments(*options, str(path), "--dry-run"))
        assert found.code == EXIT_INPUT
        assert f"{path}: 1 mistake(s)\n  {says}" in found.err
    assert snapshot(finished.outputs) == before


def test_masks_of_any_length_are_read_and_written(tmp_path: Path) -> None:
    mask = np.indices((500, 500)).sum(axis=0) % 2 == 1
    path = tmp_path / "long.csv"
    limit = csv.field_size_limit()
    write_submission(here(path), [("Снимок, 1", encode_strips([mask])), ("b", encode_strips([]))])
    lines = path.read_bytes().decode().splitlines()
    assert lines == ["Id,mask", f'"Снимок, 1",{plain_text(mask)}', "b,"]
    assert len(lines[1]) > 5 * limit
    found = read_submission(here(path), {"Снимок, 1": mask.shape, "b": None})
    assert [(name, format_runs(runs)) for name, runs in found.items()] == [("Снимок, 1", plain_text(mask)), ("b", "")]
    assert csv.field_size_limit() == limit


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which nothing but the store is there."""
    project = make_project(tmp_path_factory.mktemp("ingested"), ("wide", "small", "row"))
    with by_threads():
        succeed(project.arguments("ingest"))
    return project


def test_rasters_need_no_model_either(ingested: Project, tmp_path: Path) -> None:
    mask = guesses({"wide": SCENES["wide"][0]}, 5)["wide"]
    path = write_masks(tmp_path / "theirs.csv", {"wide": mask})
    succeed(ingested.arguments("submission", "--rasters", str(path), "--out", str(tmp_path / "out")))
    with rasterio.open(tmp_path / "out" / "wide.tif") as found:
        np.testing.assert_array_equal(found.read(1), mask)
    missing = call(ingested.arguments("submission"))
    assert missing.code == EXIT_INPUT
    assert "run cdpipe predict first" in missing.err


def test_a_mask_of_a_pair_that_is_not_there_is_a_failure_of_that_pair(tmp_path: Path) -> None:
    project = make_project(tmp_path, ("row", "small"))
    shutil.rmtree(tmp_path / "row")
    found = call(project.arguments("ingest", "--keep-going"))
    assert found.code == EXIT_PARTIAL
    path = write_rows(tmp_path / "both.csv", MASKS)
    found = call(project.arguments("submission", "--rasters", str(path)))
    assert found.code == EXIT_PARTIAL
    assert "row" in found.out
    assert [path.name for path in (project.outputs / "submissions" / "both").iterdir()] == ["small.tif"]


def test_a_template_and_rasters_exclude_each_other(finished: Project, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "one.csv", MASKS)
    with pytest.raises(SystemExit) as ended:
        call(finished.arguments("submission", "--template", str(path), "--rasters", str(path)))
    assert ended.value.code == EXIT_CONFIG
    found = call(finished.arguments("submission", "--template", str(tmp_path / "nowhere.csv")))
    assert found.code == EXIT_INPUT
    assert f"{tmp_path / 'nowhere.csv'}: expected a table" in found.err


def test_two_pairs_of_one_name_cannot_be_told_apart(branch: Project, tmp_path: Path) -> None:
    _, catalog = named_catalog(branch, tmp_path)
    table = (tmp_path / "named.csv").read_text().replace("Снимок wide", "Снимок row")
    (tmp_path / "named.csv").write_text(table)
    path = write_rows(tmp_path / "one.csv", {"val": ""})
    for options in ((), ("--rasters", str(path))):
        found = call(branch.arguments("submission", *catalog, *options))
        assert found.code == EXIT_INPUT
        assert "wide and row are both called Снимок row" in found.err


def test_a_dry_run_writes_nothing(finished: Project, tmp_path: Path) -> None:
    before = snapshot(finished.workspace)
    assert "submission: 5 mask(s) to" in succeed(finished.arguments("submission", "--dry-run")).out
    path = write_rows(tmp_path / "one.csv", MASKS)
    assert "2 raster(s)" in succeed(finished.arguments("submission", "--rasters", str(path), "--dry-run")).out
    plan = succeed(finished.arguments("evaluate", "--submission", str(path), "--dry-run")).out
    assert "submission one: 2 mask(s)" in plan
    assert snapshot(finished.workspace) == before


def test_arrays_are_a_submission_too(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    masks = {"a": random.random((20, 30)) < 0.3, "ü": random.integers(0, 2, (7, 9))}
    np.savez_compressed(tmp_path / "old.npz", allow_pickle=False, **masks)
    found = read_submission(here(tmp_path / "old.npz"), {"a": (20, 30), "ü": None})
    assert {name: format_runs(runs) for name, runs in found.items()} == {
        name: plain_text(mask) for name, mask in masks.items()
    }


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"b": np.zeros((2, 2), bool)}, "id b: no pair of the catalog has this name"),
        ({"a": np.zeros((2, 3), bool)}, r"id a: expected a mask of \(2, 2\) pixels, got \(2, 3\)"),
        ({"a": np.full((2, 2), 0.7, np.float16)}, "id a: expected 0 and 1, got float16; of probabilities make masks"),
        ({"a": np.full((2, 2), 2)}, "id a: expected 0 and 1, got int64"),
        ({"a": np.array([[None]])}, "expected a readable .npz of masks"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_submission(here(tmp_path / "old.npz"), {"a": (2, 2)})
