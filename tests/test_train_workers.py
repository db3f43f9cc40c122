"""Two training workers share the global batch, train one network, and validate it together."""

import json
from pathlib import Path

import pytest
from project import call, make_project, succeed

from cdpipe.formats.workspace import Workspace

pytestmark = pytest.mark.usefixtures("local_ray")

ONE_MODEL = {"unetplusplus": {"encoder": "resnet18", "arguments": {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}}}


def test_two_workers_train_as_one(tmp_path: Path) -> None:
    train = {"models": ONE_MODEL, "patch": 32, "global_batch": 4, "epochs": 2, "samples_per_epoch": 8}
    project = make_project(tmp_path, ("wide", "val"), train=train, resources={"workers": 2})
    succeed(project.arguments("ingest"))
    succeed(project.arguments("train"))
    (card,) = (Workspace(project.workspace).root / "models").glob("unetplusplus/*/model.json")
    values = json.loads(card.read_text())
    entry = json.loads((project.outputs / "log.json").read_text())[-1]
    assert entry["workers"] == 2
    assert len((card.parent / "history.csv").read_text().splitlines()) == 3
    assert 0 <= values["metrics"]["val_iou"] <= 1
    assert not (card.parent / "checkpoints").exists()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, ("wide", "val"), resources={"workers": 3})
    succeed(project.arguments("ingest"))
    result = call(project.arguments("train"))
    assert result.code == 2
    assert "global_batch" in result.err
