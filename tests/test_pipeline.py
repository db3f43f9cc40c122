"""All jobs on a tiny project: what they leave behind, what they redo and what they leave alone."""

import json
import os
import re
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from project import (
    CONFIG,
    PRODUCTS,
    SCENES,
    SIAMESE,
    Project,
    array,
    call,
    contents,
    make_project,
    snapshot,
    succeed,
    untrained_model,
)
from rio_cogeo.cogeo import cog_validate

import cdpipe
from cdpipe.errors import EXIT_INPUT
from cdpipe.models.folder import read_card
from cdpipe.runs.manifest import ManifestPair
from cdpipe.runs.products import PRODUCT_KINDS
from cdpipe.workspace.location import here

(MODEL,) = CONFIG["train"]["models"]
PUBLISHED = set(PRODUCT_KINDS) - {"evaluations", "tables", "audits", "pictures", "pages"}  # by predict
# What is made once; beside it lie only the log, what the last call said of failures, and the report.
MADE = ("store.zarr/**/*", "records/**/*", "models/**/*", *PRODUCTS, "runs/run/manifest.json")
pytestmark = [pytest.mark.usefixtures("in_threads"), pytest.mark.timeout(900)]


def probabilities(project: Project) -> dict[tuple[str, str], NDArray[Any]]:
    """Every model's probability and the ensemble's, by pair and model."""
    found = {}
    for pair in project.manifest.pairs:
        for model, key in pair.probabilities.items():
            found[pair.pair_id, model] = array(project, "probabilities", pair.pair_id, key, "probability")
        found[pair.pair_id, "ensemble"] = array(project, "changes", pair.pair_id, pair.change, "probability")
    return found


def changes(project: Project) -> dict[str, NDArray[Any]]:
    pairs = project.manifest.pairs
    return {pair.pair_id: array(project, "changes", pair.pair_id, pair.change, "change") for pair in pairs}


def listed(project: Project, pair_id: str) -> ManifestPair:
    return next(pair for pair in project.manifest.pairs if pair.pair_id == pair_id)


def trained(project: Project, name: str = MODEL) -> Path:
    """Folder of a trained model."""
    (folder,) = (project.workspace / "models" / name).iterdir()
    return folder


def use_models(*folders: Path) -> tuple[str, str]:
    return "--set", f"predict.models={json.dumps([str(folder) for folder in folders])}"


def test_rasters_are_valid_and_lie_where_the_first_date_lies(finished: Project) -> None:
    assert [pair.pair_id for pair in finished.manifest.pairs] == list(SCENES)
    for pair in finished.manifest.pairs:
        layers = {"change": 255.0, "probability": float("nan")}
        assert len(pair.rasters) == 2 * len(layers)  # each with its style
        for layer, nodata in layers.items():
            path = finished.outputs / "rasters" / f"{pair.pair_id}_{layer}.tif"
            assert cog_validate(path, quiet=True)[:2] == (True, [])
            stored = array(finished, "changes", pair.pair_id, pair.change, layer)
            before = finished.config.parent / pair.pair_id / "before.tif"
            with rasterio.open(path) as raster, rasterio.open(before) as first:
                assert (raster.crs, raster.transform, raster.shape) == (first.crs, first.transform, first.shape)
                np.testing.assert_equal(raster.nodata, nodata)
                np.testing.assert_array_equal(raster.read(1), stored)
                assert raster.dtypes == (stored.dtype.name,)


def test_change_is_the_thresholded_probability_and_not_observed_stays_so(finished: Project) -> None:
    found, manifest = probabilities(finished), finished.manifest
    for pair in manifest.pairs:
        ensemble, change = found[pair.pair_id, "ensemble"], changes(finished)[pair.pair_id]
        np.testing.assert_array_equal(ensemble, found[pair.pair_id, MODEL])
        observed = array(finished, "pairs", pair.pair_id, pair.pair, "valid") == 3
        np.testing.assert_array_equal(np.isfinite(ensemble), observed)
        assert not observed[:, :5].any()
        expected = np.where(observed, ensemble >= manifest.threshold, 255)
        np.testing.assert_array_equal(change, expected)


def test_the_manifest_lists_everything_with_its_hash(finished: Project) -> None:
    manifest = finished.manifest
    products = {name: sha for pair in manifest.pairs for name, sha in (pair.rasters | pair.vectors).items()}
    products |= manifest.vectors | manifest.mosaic | manifest.stac | manifest.handed_on
    assert set(products) == set(contents(finished.workspace, *PRODUCTS))
    assert all(here(finished.workspace / name).sha256() == sha for name, sha in products.items())
    assert [model["key"] for model in manifest.models] == [read_card(here(trained(finished))).key]
    assert [finished.workspace / model["folder"] for model in manifest.models] == [trained(finished)]
    splits = {pair.pair_id: pair.split or "" for pair in manifest.pairs}
    assert splits == {name: split for name, (_, split) in SCENES.items()}
    for pair in manifest.pairs:
        groups = {"pairs": [pair.pair], "probabilities": [*pair.probabilities.values()], "changes": [pair.change]}
        groups |= {"labels": [pair.label]} if pair.label else {}
        for kind, keys in groups.items():
            for key in keys:
                assert (finished.workspace / "records" / kind / pair.pair_id / key / "group.json").is_file()
    assert manifest.failed == {}


def test_nothing_half_made_is_left(finished: Project) -> None:
    assert not list(finished.workspace.rglob("*.partial"))
    assert not list(finished.workspace.glob("models/*/*/checkpoints"))


def test_the_report_has_figures_and_a_picture_of_every_pair(finished: Project) -> None:
    report = finished.outputs / "report"
    assert {path.stem for path in (report / "pictures").iterdir()} == set(SCENES)
    rows = json.loads((report / "evaluation.json").read_text())["rows"]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {row["layer"] for row in rows} == {MODEL, "ensemble", "grey difference"}
    assert (report / "summary.csv").read_text().count("\n") == len(rows) + 1
    assert "ensemble" in (report / "evaluation.md").read_text()
    change, key = changes(finished)["test"], listed(finished, "test").label
    label = array(finished, "labels", "test", str(key), "label")
    both, either = ((label == 1) & (change == 1)).sum(), ((label == 1) | (change == 1))[change != 255].sum()
    iou = next(row["iou"] for row in rows if row["pair_id"] == "test" and row["layer"] == "ensemble")
    assert iou == pytest.approx(both / either)


def test_a_second_run_touches_nothing(branch: Project) -> None:
    before, report = snapshot(branch.workspace, *MADE[:-1]), contents(branch.outputs, "report/**/*", "*.json")
    succeed(branch.arguments("pipeline"))
    assert snapshot(branch.workspace, *MADE[:-1]) == before
    del report["log.json"]
    assert report.items() <= contents(branch.outputs, "report/**/*", "*.json").items()


def test_another_threshold_redoes_changes_and_rasters_alone(branch: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine with a GPU: what was predicted without one is all there."""
    monkeypatch.setattr("cdpipe.cluster.needs.plan_device", lambda _run: "cuda")
    before = snapshot(branch.workspace, *MADE)
    old = branch.manifest
    said = succeed(branch.arguments("predict", "--set", "predict.threshold=auto")).out
    assert "uses the probabilities that are stored already, computed by openvino on cpu" in said
    after = snapshot(branch.workspace, *MADE)
    new = {name for name in after if name not in before}
    assert {name.split("/")[1] for name in new if not name.startswith("runs")} == {"changes", *PUBLISHED}
    gone = set(before) - set(after)
    assert {name.split("/")[1] for name in gone} == PUBLISHED  # records of files that are others now
    changed = {name for name in set(before) - gone if after[name] != before[name]}
    # products and manifest of that name, and the store's list of its groups
    assert {name.split("/")[1] for name in changed} == {"run", "zarr.json"}
    assert branch.manifest.fitted_on.endswith("on validation pairs val")
    assert all(one.change != other.change for one, other in zip(old.pairs, branch.manifest.pairs, strict=True))
    for pair_id, change in changes(branch).items():
        ensemble = probabilities(branch)[pair_id, "ensemble"]
        np.testing.assert_array_equal(change == 1, ensemble >= np.float32(branch.manifest.threshold))
    succeed(branch.arguments("verify"))


@pytest.mark.heavy
def test_a_further_model_alone_is_run(branch: Project, tmp_path: Path) -> None:
    third = untrained_model(tmp_path, "third")
    before = snapshot(branch.workspace, "store.zarr/probabilities/**/*")
    options = ("--set", "predict.model_rasters=true", "--set", "predict.weights={third: 3}")
    succeed(branch.arguments("predict", *use_models(trained(branch), third), *options))
    after = snapshot(branch.workspace, "store.zarr/probabilities/**/*")
    assert before.items() <= after.items()
    new = {tuple(Path(name).parts[2:4]) for name in set(after) - set(before)}
    assert new == {(pair.pair_id, pair.probabilities["third"]) for pair in branch.manifest.pairs}
    found = probabilities(branch)
    for pair in branch.manifest.pairs:
        members = {name: found[pair.pair_id, name] for name in (MODEL, "third")}
        mean = (members[MODEL] + 3 * members["third"]) / 4
        np.testing.assert_allclose(found[pair.pair_id, "ensemble"], mean, atol=1e-6)
        assert len(pair.rasters) == 2 * (2 + len(members))  # each with its style
        for name, values in members.items():
            with rasterio.open(branch.outputs / "rasters" / f"{pair.pair_id}_probability_{name}.tif") as raster:
                np.testing.assert_array_equal(raster.read(1), values)


@pytest.mark.heavy
def test_a_vote_and_a_choice_of_pairs_need_no_model_to_run(branch: Project, tmp_path: Path) -> None:
    third, fourth = (untrained_model(tmp_path, name, seed) for seed, name in enumerate(("third", "fourth")))
    models = use_models(trained(branch), third, fourth)
    chosen = ("--split", "test", "--split", "val")
    succeed(branch.arguments("predict", *models, *chosen))
    before = snapshot(branch.workspace, "store.zarr/probabilities/**/*", "models/**/*")
    thresholds = {MODEL: 0.3, "third": 0.5, "fourth": 0.6}
    options = ["--set", "predict.ensemble=vote", "--set", f"predict.threshold={json.dumps(thresholds)}"]
    succeed(branch.arguments("predict", *models, *options, *chosen))
    assert snapshot(branch.workspace, "store.zarr/probabilities/**/*", "models/**/*") == before
    assert {pair.pair_id for pair in branch.manifest.pairs} == {"test", "val"}
    assert (branch.manifest.ensemble, branch.manifest.threshold) == ("vote", 0.5)
    found = probabilities(branch)
    for pair_id, change in changes(branch).items():
        votes = sum(found[pair_id, name] >= np.float32(own) for name, own in thresholds.items())
        np.testing.assert_array_equal(change == 1, votes >= 2)
    none = call(branch.arguments("predict", *models, "--pair", "nowhere"))
    assert none.code == EXIT_INPUT
    assert "--pair: no pair nowhere in the store" in none.err


def test_results_do_not_depend_on_the_size_of_blocks(finished: Project, tmp_path: Path) -> None:
    other = Project(finished.config, tmp_path / "work")
    options = ["--set", "align.block=1024", *use_models(trained(finished))]
    succeed(other.arguments("ingest", *options))
    succeed(other.arguments("predict", *options))
    expected, found = probabilities(finished), probabilities(other)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, rtol=0, err_msg=str(name))
    for pair_id, change in changes(finished).items():
        np.testing.assert_array_equal(changes(other)[pair_id], change)


def test_a_dry_run_writes_nothing(branch: Project, tmp_path: Path) -> None:
    fresh = Project(branch.config, tmp_path / "elsewhere")
    plan = succeed(fresh.arguments("pipeline", "--dry-run"))
    assert "5 pair(s), 7 block(s) of 512 pixels" in plan.out
    assert not fresh.workspace.exists()
    before = snapshot(branch.workspace)
    assert "missing: 0 block(s)" in succeed(branch.arguments("predict", "--dry-run")).out
    # another overlap: every block of both models
    assert "missing: 7 block(s)" in succeed(branch.arguments("predict", "--dry-run", "--set", "predict.overlap=0")).out
    assert "epochs" not in succeed(branch.arguments("train", "--dry-run")).out
    assert "1 pair(s), up to 4 epochs" in succeed(branch.arguments("train", "--dry-run", "--set", "train.epochs=4")).out
    assert "3 labelled pair(s) of 5" in succeed(branch.arguments("evaluate", "--dry-run")).out
    assert snapshot(branch.workspace) == before


def test_status_tells_what_is_done_and_what_is_left(branch: Project) -> None:
    done = succeed(branch.arguments("status")).out
    assert next(line.split() for line in done.splitlines() if "ingest: blocks" in line).count("7") == 1
    assert "complete" in done
    assert done.count("validation IoU") == 1
    assert re.search(r"ingest: of its workers' time read \d+ %, write \d+ %; .* written\n", done)
    assert re.search(
        r"predict: of its workers' time read \d+ %, model \d+ %, write \d+ %; .* written; .* patches/s", done
    )
    shutil.rmtree(branch.workspace / "models" / MODEL)
    next((branch.workspace / "records" / "pairs" / "wide").glob("*/0_1.json")).unlink()
    left = succeed(branch.arguments("status")).out
    assert "unfinished" in left
    assert "not trained" in left
    assert "no models yet" in left


def test_status_while_a_run_goes_on(branch: Project) -> None:
    """The rate is of records of the last minutes; a model in training tells how far it is."""
    records = sorted((branch.workspace / "records" / "probabilities").glob("*/*/?_?.json"))
    records.pop().unlink()
    for number, path in enumerate(records):
        moment = time.time() - 100 * number  # six of them lie in the last ten minutes
        os.utime(path, (moment, moment))
    assert "0.012/s" in row_of("predict: ", succeed(branch.arguments("status")).out)
    [card] = (branch.workspace / "models" / MODEL).glob("*/model.json")
    card.unlink()
    card.with_name("progress.json").write_text(json.dumps({"epoch": 2, "step": 5, "loss": 0.25}))
    assert "in epoch 3 of" in row_of("train: ", succeed(branch.arguments("status")).out)


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_status_of_a_run_by_another_backend(branch: Project) -> None:
    """Of which nothing is predicted yet."""
    said = succeed(branch.arguments("status", "--set", "predict.backend=torch")).out
    assert row_of("predict: ", said).split("│")[2:4] == [" 0    ", " 7    "]


def row_of(stage: str, said: str) -> str:
    return next(line for line in said.splitlines() if stage in line)


def test_one_pair_without_a_configuration(finished: Project, tmp_path: Path) -> None:
    """The pair's rasters come out as from the store, although nothing but files is given."""
    scenes, model = finished.config.parent / "test", trained(finished)
    dates = ["--before", str(scenes / "before.tif"), "--after", str(scenes / "after.tif")]
    out = ["--model", str(model), "--out", str(tmp_path / "out"), "--set", "predict.tta=none"]
    succeed(["predict", *dates, *out])
    expected = probabilities(finished)["test", MODEL]
    with rasterio.open(tmp_path / "out" / "probability.tif") as raster:
        np.testing.assert_allclose(raster.read(1), expected, atol=1e-6)
    with rasterio.open(tmp_path / "out" / "change.tif") as raster:
        threshold = read_card(here(model)).threshold or 0.0
        np.testing.assert_array_equal(raster.read(1), np.where(np.isnan(expected), 255, expected >= threshold))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"work", "report.html"} | {
        *(f"{name}{suffix}" for name in ("probability", "change") for suffix in (".tif", ".qml")),
        *(f"objects{suffix}" for suffix in (".gpkg", ".qml")),
    }


def test_arrays_in_python_give_what_is_stored(finished: Project) -> None:
    key = listed(finished, "test").pair
    before, after, valid = (array(finished, "pairs", "test", key, name) for name in ("before", "after", "valid"))
    found = cdpipe.predict_array(before, after, trained(finished), observed=valid == 3, tta="none")
    np.testing.assert_allclose(found, probabilities(finished)["test", MODEL], atol=1e-6)


@pytest.mark.heavy
def test_two_trained_models_with_what_is_configured_by_default(tmp_path: Path) -> None:
    train = {**CONFIG["train"], "models": {**CONFIG["train"]["models"], "siamese_resnet18": SIAMESE}}
    project = make_project(tmp_path, train=train, predict={"model_rasters": True})
    succeed(project.arguments("pipeline"))
    found, manifest = probabilities(project), project.manifest
    assert [model["name"] for model in manifest.models] == [MODEL, "siamese_resnet18"]
    assert manifest.fitted_on.endswith("on validation pairs val")
    for pair in manifest.pairs:
        mean = np.mean([found[pair.pair_id, name] for name in train["models"]], axis=0)
        np.testing.assert_allclose(found[pair.pair_id, "ensemble"], mean, atol=1e-6)
        assert len(pair.rasters) == 8
    succeed(project.arguments("verify"))
