"""Folds through the whole pipeline: every training pair is predicted, and judged, by models that never saw it."""

import csv

import numpy as np
import pytest
from project import CONFIG, Project, array, make_project, succeed

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
