"""Folds through the whole pipeline: every training pair is predicted, and judged, by models that never saw it."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from project import CONFIG, Project, array, call, contents, make_project, succeed

from cdpipe.errors import EXIT_INPUT
from cdpipe.runs.manifest import ManifestPair

FOLDS = 3
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.heavy]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three labelled places to learn from, a test pair without a label."""
    train = {**CONFIG["train"], "epochs": 1, "folds": FOLDS}
    project = make_project(tmp_path_factory.mktemp("folds"), train=train, predict={"tta": "none"})
    table = project.config.with_name("pairs.csv")
    rows = list(csv.DictReader(table.open()))
    for row in rows:
        row["split"] = "train" if row["label"] else ""
    with table.open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    succeed(project.arguments("pipeline"))
    return project


def probability(project: Project, pair: ManifestPair, layer: str) -> np.ndarray:
    return array(project, "probabilities", pair.pair_id, pair.probabilities[layer], "probability")


def test_training_pairs_have_one_layer_and_others_one_of_each_fold(project: Project) -> None:
    manifest = project.manifest
    models = [f"unetplusplus-fold{number}" for number in range(1, FOLDS + 1)]
    assert [model["name"] for model in manifest.models] == models
    assert {model["layer"] for model in manifest.models} == {"unetplusplus"}
    for pair in manifest.pairs:
        assert list(pair.probabilities) == (["unetplusplus"] if pair.split == "train" else models)
        ensemble = array(project, "changes", pair.pair_id, pair.change, "probability")
        mean = np.mean([probability(project, pair, layer) for layer in pair.probabilities], axis=0)
        np.testing.assert_allclose(ensemble, mean, atol=1e-6)


def test_no_model_predicts_a_pair_that_it_learned_from(project: Project) -> None:
    learned = {}
    for folder in (project.workspace / "models").glob("*/*"):
        lines = (folder / "model.md").read_text().splitlines()
        said = [line.partition(": ")[2].split(", ") for line in lines if "learned from" in line or "chosen by" in line]
        learned[folder.parent.name] = {name for names in said for name in names}
    trained_on = {pair.pair_id for pair in project.manifest.pairs if pair.split == "train"}
    assert len(trained_on) == FOLDS
    for pair in project.manifest.pairs:
        if pair.split == "train":
            unseen = [name for name, pairs in learned.items() if pair.pair_id not in pairs]
            assert len(unseen) == 1
    assert project.manifest.fitted_on.endswith(f"on out-of-fold pairs {', '.join(sorted(trained_on))}")


def test_a_second_run_trains_nothing_and_figures_are_out_of_fold(project: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in (project.workspace / "models").rglob("*") if path.is_file()}
    succeed(project.arguments("pipeline"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "unetplusplus" in (project.outputs / "report" / "evaluation.md").read_text()


def test_what_training_ends_with_predicts_elsewhere_as_it_does_here(project: Project, tmp_path: Path) -> None:
    """The ensemble, copied to an empty folder, gives two files what the run gave a pair of no fold."""
    said = succeed(project.arguments("predict")).out
    folder = project.outputs / "ensemble"
    assert str(folder) in said
    shutil.copytree(folder, tmp_path / "handed on")
    manifest, scenes = project.manifest, project.config.parent
    pair = next(pair for pair in manifest.pairs if pair.pair_id == "small")
    dates = ["--before", str(scenes / "small" / "before.tif"), "--after", str(scenes / "small" / "after.tif")]
    found = succeed(["predict", *dates, "--model", str(tmp_path / "handed on"), "--out", str(tmp_path / "out")])
    assert f"threshold {manifest.threshold:.3f}" in (tmp_path / "handed on" / "ensemble.md").read_text()
    for name, values in (("probability", "probability"), ("change", "change")):
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as raster:
            np.testing.assert_array_equal(raster.read(1), array(project, "changes", "small", pair.change, values))
    assert not (tmp_path / "out" / "work" / "runs" / "prediction" / "ensemble").exists()
    assert "Traceback" not in found.err


def test_another_catalog_takes_it_with_its_threshold(project: Project, tmp_path: Path) -> None:
    """Although there are labelled validation pairs that another could be fitted on, and only options are left out."""
    other = make_project(tmp_path, ("val", "test"), predict={"models": [str(project.outputs)]})
    said = succeed(other.arguments("pipeline")).out
    manifest = other.manifest
    assert manifest.threshold == project.manifest.threshold
    assert manifest.fitted_on == f"of the ensemble run: {project.manifest.fitted_on}"
    assert [model["name"] for model in manifest.models] == [model["name"] for model in project.manifest.models]
    assert {model["layer"] for model in manifest.models} == {"unetplusplus"}
    for pair in manifest.pairs:
        ensemble = array(other, "changes", pair.pair_id, pair.change, "probability")
        mean = np.mean([probability(other, pair, layer) for layer in pair.probabilities], axis=0)
        np.testing.assert_allclose(ensemble, mean, atol=1e-6)
    assert "to hand on" not in said
    for verb in ("status", "audit", "threshold", "verify"):
        succeed(other.arguments(verb))


def test_a_damaged_ensemble_is_refused_in_a_line_and_made_again(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.outputs / "ensemble", tmp_path / "e")
    shutil.rmtree(tmp_path / "e" / "unetplusplus-fold2")
    scene = project.config.parent / "small"
    dates = ["--before", str(scene / "before.tif"), "--after", str(scene / "after.tif")]
    found = call(["predict", *dates, "--model", str(tmp_path / "e"), "--out", str(tmp_path / "out")])
    assert (found.code, found.err.count("\n")) == (EXIT_INPUT, 1)
    assert "its member unetplusplus-fold2 is missing" in found.err
    before = contents(project.outputs, "ensemble/**/*")
    (project.outputs / "ensemble" / "unetplusplus-fold2" / "model.safetensors").write_bytes(b"?")
    assert "ensemble/unetplusplus-fold2/model.safetensors" in call(project.arguments("verify")).err
    succeed(project.arguments("predict"))
    assert contents(project.outputs, "ensemble/**/*") == before
