"""From a finished run to points, labels and an area; what is stale or not labelled is refused."""

import json
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
from project import Project, array, call, succeed

from cdpipe.evaluation.area_sample import read_facts
from cdpipe.workspace.location import here

pytestmark = [pytest.mark.usefixtures("in_threads"), pytest.mark.timeout(900)]


def label_points(path: Path, project: Project) -> None:
    """Answer as somebody would who sees the labels; where there is none, nothing changed."""
    _, points = read_facts(here(path.with_suffix(".json")))
    meta, _, shapes, fields = pyogrio.raw.read(path)
    truth = {
        pair.pair_id: array(project, "labels", pair.pair_id, pair.label, "label")
        for pair in project.manifest.pairs
        if pair.label
    }
    answers = [str(int(p.pair_id in truth and truth[p.pair_id][p.row, p.col] == 1)) for p in points]
    path.unlink()
    values = [fields[0], fields[1], np.array(answers, object)]
    place = {"geometry_type": "Point", "crs": meta["crs"]}
    pyogrio.raw.write(str(path), shapes, values, meta["fields"], layer="sample", driver="GPKG", **place)


def test_a_sample_becomes_an_area(branch: Project) -> None:
    path = branch.outputs / "area" / "sample.gpkg"
    probability = [array(branch, "changes", p.pair_id, p.change, "probability") for p in branch.manifest.pairs]
    middle = float(np.nanmedian(np.concatenate([each.ravel() for each in probability])))
    succeed(branch.arguments("predict", "--set", f"predict.threshold={middle}"))
    succeed(branch.arguments("sample", "--points", "300", "--buffer", "20"))
    refused = call(branch.arguments("area", str(path)))
    assert refused.code == 3
    assert "300 point(s) without a label in the column change" in refused.err
    assert "may have labels" in call(branch.arguments("sample")).err
    label_points(path, branch)
    shown = succeed(branch.arguments("area", str(path))).out
    assert "95 % interval" in shown
    found = json.loads((path.parent / "area.json").read_text())
    change = {p.pair_id: array(branch, "changes", p.pair_id, p.change, "change") for p in branch.manifest.pairs}
    assert found["mapped_area"] == pytest.approx(sum((mask == 1).sum() for mask in change.values()) * 100, rel=2e-3)
    labels = [array(branch, "labels", p.pair_id, p.label, "label") for p in branch.manifest.pairs if p.label]
    true = sum((label == 1).sum() for label in labels) * 100
    # not observed stripes are in the labels and not in the population
    assert 0.6 * found["area"]["low"] < true < 1.2 * found["area"]["high"]
    stale = call([*branch.arguments("area", str(path)), "--set", "name=other"])
    assert stale.code == 3
    manifest = branch.outputs / "manifest.json"
    manifest.write_text(manifest.read_text().replace(branch.manifest.pairs[0].change, "0123456789ab"))
    stale = call(branch.arguments("area", str(path)))
    assert stale.code == 3
    assert "was drawn from other results" in stale.err


def test_a_wanted_precision_has_its_price_and_can_be_used(branch: Project) -> None:
    shown = succeed(branch.arguments("threshold", "--recall", "0.9")).out
    assert "on 1 validation pair(s)" in shown
    assert "predict.aim={recall: 0.9}" in shown
    assert call(branch.arguments("threshold", "--precision", "1.5")).code == 2
    sets = ["predict.threshold=auto", "predict.aim={recall: 0.9}", "predict.temperature=auto", "predict.weights=auto"]
    options = [part for each in sets for part in ("--set", each)]
    found = succeed(branch.arguments("predict", *options)).out
    assert "temperatures with the least log loss" in found
    assert "recall 0.9 on validation pairs val" in found
    manifest = branch.manifest
    assert manifest.models[0]["temperature"] != 1
    pair = next(each for each in manifest.pairs if each.pair_id == "val")
    change = array(branch, "changes", "val", pair.change, "change")
    label = array(branch, "labels", "val", str(pair.label), "label")
    assert (change[label == 1] == 1).sum() / (change[label == 1] != 255).sum() >= 0.9
    # the second time nothing is fitted, and nothing is done
    again = succeed(branch.arguments("predict", *options)).out
    assert "temperatures" not in again
    assert branch.manifest == manifest
