"""Submissions are judged beside the run or on their own: figures are those of whole arrays."""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from project import SCENES, Project, array, by_threads, call, make_project, succeed
from stored import bright_squares, store_pair
from submitted import MASKS, Mask, changes, guesses, write_masks, write_rows

from cdpipe.errors import EXIT_INPUT
from cdpipe.evaluation.scores import BASELINE, ENSEMBLE, Results, evaluate_pair
from cdpipe.evaluation.tables import UNSPLIT, tabulate
from cdpipe.formats.submission import encode_strips
from cdpipe.metrics.counts import Counts
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

pytestmark = [pytest.mark.usefixtures("in_threads"), pytest.mark.timeout(900)]


def labels(project: Project) -> dict[str, Mask]:
    pairs = project.manifest.pairs
    return {pair.pair_id: array(project, "labels", pair.pair_id, pair.label, "label") for pair in pairs if pair.label}


def judged(mask: Mask, other: Mask, counted: NDArray[np.bool_]) -> Counts:
    """Counts of whole arrays."""
    pairs = [(1, 1), (1, 0), (0, 1), (0, 0)]
    return Counts(*(int((counted & (mask == one) & (other == two)).sum()) for one, two in pairs))


def table(project: Project) -> dict[tuple[str | None, str], dict[str, Any]]:
    """Rows of the evaluation by pair (the split where pooled) and layer."""
    rows = json.loads((project.outputs / "report" / "evaluation.json").read_text())["rows"]
    return {(row["pair_id"] or row["split"], row["layer"]): row for row in rows}


def same(row: Mapping[str, Any], counts: Counts) -> bool:
    return [row[name] for name in ("tp", "fp", "fn", "tn")] == [counts.tp, counts.fp, counts.fn, counts.tn]


def check_agreement(project: Project, masks: Mapping[str, Mapping[str, Mask]], counted: Mapping[str, Any]) -> None:
    """``agreement.csv`` is what whole arrays say: ``masks`` by layer and pair, pairs first and pooled rows last."""
    expected: list[list[str]] = []
    pooled = {both: [0, 0, 0, 0, 0] for both in combinations(masks, 2)}
    for pair_id in sorted(counted):
        for one, two in combinations((name for name in masks if pair_id in masks[name]), 2):
            counts = judged(masks[one][pair_id], masks[two][pair_id], counted[pair_id])
            figures = [1, counts.tp, counts.fp, counts.fn, counts.tn]
            pooled[one, two] = [a + b for a, b in zip(pooled[one, two], figures, strict=True)]
            expected.append([pair_id, one, two, *map(str, figures)])
    with (project.outputs / "report" / "agreement.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    columns = ("pair_id", "first", "second", "pairs", "both", "only_first", "only_second", "neither")
    found = [[row[name] for name in columns] for row in rows]
    assert found[: len(expected)] == expected
    assert sorted(found[len(expected) :]) == sorted(
        ["", *both, *map(str, figures)] for both, figures in pooled.items() if figures[0]
    )
    for row in rows:
        both, first, second = (int(row[name]) for name in ("both", "only_first", "only_second"))
        assert int(row["differing"]) == first + second
        assert row["iou"] == (str(both / (both + first + second)) if both + first + second else "")


def test_submissions_are_judged_beside_the_run(branch: Project, tmp_path: Path) -> None:
    own, truth = changes(branch), labels(branch)
    shapes = {name: shape for name, (shape, _) in SCENES.items()}
    one, two = guesses(shapes, 1), guesses({name: shapes[name] for name in ("wide", "test", "small")}, 2)
    files = [write_masks(tmp_path / "one.csv", one), write_masks(tmp_path / "two.csv", two)]
    before = {key: row for key, row in table(branch).items() if key[1] != BASELINE}
    told = succeed(branch.arguments("evaluate", *(f"--submission={path}" for path in files)))
    rows = table(branch)
    assert {key: row for key, row in rows.items() if key[1] not in ("one", "two", BASELINE)} == before
    for name, masks in (("one", one), ("two", two)):
        pooled: dict[str, Counts] = {}
        for pair_id in masks.keys() & truth.keys():
            counted = (own[pair_id] != 255) & (truth[pair_id] != 255)
            assert not counted.all()
            counts = judged(masks[pair_id], truth[pair_id], counted)
            assert same(rows[pair_id, name], counts)
            assert rows[pair_id, name]["iou"] == counts.tp / (counts.tp + counts.fp + counts.fn) > 0
            split = SCENES[pair_id][1]
            pooled[split] = pooled.get(split, Counts()) + counts
        assert {split for split in ("train", "val", "test") if (split, name) in rows} == set(pooled)
        assert all(same(rows[split, name], counts) for split, counts in pooled.items())
    counted = {pair_id: (mask != 255) & (truth.get(pair_id, mask) != 255) for pair_id, mask in own.items()}
    check_agreement(branch, {"one": one, "two": two, ENSEMBLE: own}, counted)
    assert "Agreement of masks" in told.out
    assert "one" in (branch.outputs / "report" / "evaluation.md").read_text()
    assert "one" in (branch.outputs / "report" / "summary.csv").read_text()
    succeed(branch.arguments("evaluate"))
    assert {key: row for key, row in table(branch).items() if key[1] != BASELINE} == before
    assert not (branch.outputs / "report" / "agreement.csv").exists()


def test_a_run_agrees_with_its_own_submission(branch: Project) -> None:
    succeed(branch.arguments("submission"))
    path = branch.outputs / "submission.csv"
    succeed(branch.arguments("evaluate", "--submission", str(path)))
    rows = table(branch)
    for place in ("test", "val"):
        assert rows[place, "submission"] == {**rows[place, ENSEMBLE], "layer": "submission"}
    with (branch.outputs / "report" / "agreement.csv").open() as stream:
        assert {row["differing"] for row in csv.DictReader(stream)} == {"0"}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which nothing but the store is there."""
    project = make_project(
        tmp_path_factory.mktemp("ingested"), ("wide", "small", "row"), splits={"allow_leak": True, "by": "places"}
    )
    with by_threads():
        succeed(project.arguments("ingest"))
    return project


def test_two_submissions_are_compared_without_any_model(ingested: Project, tmp_path: Path) -> None:
    shapes = {name: SCENES[name][0] for name in ("wide", "small")}
    one, two = guesses(shapes, 3), guesses(shapes, 4)
    files = [write_masks(tmp_path / "one.csv", one), write_masks(tmp_path / "two.csv", two)]
    options = [f"--submission={path}" for path in files]
    plan = succeed(ingested.arguments("evaluate", *options, "--dry-run")).out
    assert "1 labelled pair(s) of 2" in plan
    assert not (ingested.outputs / "report").exists()
    succeed(ingested.arguments("evaluate", *options))
    stored = {
        pair_id: next((ingested.workspace / "store.zarr" / "pairs" / pair_id).glob("*/")).name for pair_id in shapes
    }
    observed = {pair_id: array(ingested, "pairs", pair_id, key, "valid") == 3 for pair_id, key in stored.items()}
    (label_group,) = (ingested.workspace / "store.zarr" / "labels" / "wide").glob("*/")
    label = array(ingested, "labels", "wide", label_group.name, "label")
    counted = {"small": observed["small"], "wide": observed["wide"] & (label != 255)}
    check_agreement(ingested, {"one": one, "two": two}, counted)
    rows = table(ingested)
    assert set(rows) == {(place, layer) for place in ("wide", "train") for layer in ("one", "two", BASELINE)}
    assert same(rows["wide", "one"], judged(one["wide"], label, counted["wide"]))
    assert same(rows["train", "two"], judged(two["wide"], label, counted["wide"]))
    assert not (ingested.outputs / "report" / "pictures").exists()


def test_neither_colours_nor_a_split_are_needed(tmp_path: Path) -> None:
    """To judge a submission; the baseline has nothing to say then, and no row."""
    workspace = Workspace(here(tmp_path))
    dates, label = bright_squares((300, 530), 0)
    label[:20] = 255
    item = store_pair(workspace, "p", dates, label, block=256)
    pair = dataclasses.replace(item.pair, roles=("nir", "green", "blue"))
    mask = guesses({"p": label.shape}, 6)["p"]
    results = Results(pair, item.label_key, (), None, (("one", encode_strips([mask == 1])),))
    rows = tabulate({"p": evaluate_pair(workspace, results)}, {"p": UNSPLIT})
    assert [(row["pair_id"], row["layer"]) for row in rows] == [("p", "one"), (None, "one")]
    for row in rows:
        assert same(row, judged(mask, label, label != 255))
        assert (row["split"], row["pairs"], math.isnan(row["iou"])) == (UNSPLIT, 1, False)
    with pytest.raises(ValueError, match="pair p: expected a label"):
        evaluate_pair(workspace, dataclasses.replace(results, label_key=None))


def test_names_that_stand_for_two_things_are_refused(finished: Project, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first, second = (write_rows(folder / "one.csv", MASKS) for folder in (tmp_path, tmp_path / "a"))
    ensemble = write_rows(tmp_path / f"{ENSEMBLE}.csv", MASKS)
    for files in ([first, second], [ensemble]):
        options = [f"--submission={path}" for path in files]
        found = call(finished.arguments("evaluate", *options, "--dry-run"))
        assert found.code == EXIT_INPUT
        assert f"{files[-1]}: something else is called {files[-1].stem} in the tables" in found.err
