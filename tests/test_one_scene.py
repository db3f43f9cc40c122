"""One labelled scene through the whole pipeline: what is fitted and judged where, the same whatever the blocks."""

import json
from pathlib import Path

import pytest
from project import CONFIG, Project, array, contents, make_project, succeed, write_catalog, write_pair

from cdpipe.metrics.counts import best_threshold, score_histogram

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900)]


def make_scene(folder: Path) -> Project:
    """A project whose catalog is one labelled pair without a split."""
    folder.mkdir()
    train = {**CONFIG["train"], "epochs": 2, "patch": 32}
    project = make_project(folder, [], splits={}, train=train, predict={"tta": "none"})
    row = write_pair(folder, "scene", (420, 150), split="train")
    write_catalog(folder / "pairs.csv", [{**row, "split": ""}])
    return project


@pytest.mark.heavy
def test_one_scene_trains_is_judged_and_shown_and_blocks_make_no_difference(tmp_path: Path) -> None:
    project = make_scene(tmp_path / "one")
    told = succeed(project.arguments("check")).out
    result = succeed(project.arguments("pipeline"))
    for split in ("train", "val", "test"):
        (line,) = [line.strip() for line in told.splitlines() if line.strip().startswith(f"{split}: scene (")]
        assert f"train: {line}" in result.out, "training does what the check said"
    assert "strips of the same scene (scene)" in " ".join(result.out.split())

    (pair,) = project.manifest.pairs
    assert set(pair.strips) == {"train", "val", "test"}
    label = array(project, "labels", "scene", str(pair.label), "label")
    probability = array(project, "changes", "scene", pair.change, "probability")
    row, col, height, width = pair.strips["val"]
    inside = slice(row, row + height), slice(col, col + width)
    threshold, f1 = best_threshold(score_histogram(probability[inside], label[inside]))
    assert project.manifest.threshold == pytest.approx(threshold)
    assert project.manifest.fitted_on == f"best F1, {f1:.3f}, on validation strips of scene"

    evaluation = json.loads((project.outputs / "report" / "evaluation.json").read_text())
    change = array(project, "changes", "scene", pair.change, "change")
    for split, (row, col, height, width) in pair.strips.items():
        inside = slice(row, row + height), slice(col, col + width)
        (found,) = [
            each
            for each in evaluation["rows"]
            if (each["split"], each["pair_id"], each["layer"]) == (split, "scene", "ensemble")
        ]
        assert found["tp"] == int(((change[inside] == 1) & (label[inside] == 1)).sum())
        assert found["fp"] == int(((change[inside] == 1) & (label[inside] == 0)).sum())
    assert 'class="strips"' in (project.outputs / "report" / "index.html").read_text()

    succeed(project.arguments("verify"))
    again = Project(project.config, tmp_path / "again")
    succeed(again.arguments("pipeline", "--set", "align.block=1024"))
    assert [each.strips for each in again.manifest.pairs] == [pair.strips]
    weights = [list(contents(each.workspace, "models/**/model.safetensors").values()) for each in (project, again)]
    assert weights[0] == weights[1]
