"""Two training workers share the global batch, train one network, and validate it together."""

import json
import signal
from pathlib import Path

import pytest
import torch
from project import CONFIG, call, make_project, succeed, untrained_model

from cdpipe.cluster.train import cpus_of_each
from cdpipe.models.folder import load_network, read_card
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus"),
    [
        ([8], 1, 8),
        ([8], 3, 2),
        ([0, 2, 1, 1], 2, 1),
        ([0, 16, 16, 4], 2, 16),
        ([0, 16, 16, 4], 3, 8),
        ([2], 5, 1),
        ([0], 1, 1),
    ],
)
def test_each_worker_fits_on_a_node(nodes: list[int], workers: int, cpus: int) -> None:
    assert cpus_of_each(nodes, workers) == cpus


def test_two_workers_train_as_one_and_keep_a_frozen_encoder(tmp_path: Path) -> None:
    start = untrained_model(tmp_path, "start")
    model = {**CONFIG["train"]["models"]["unetplusplus"], "init_from": str(start), "frozen_epochs": 1}
    models = {"unetplusplus": model}
    train = {"models": models, "patch": 32, "global_batch": 4, "epochs": 1, "samples_per_epoch": 8}
    project = make_project(tmp_path, ("wide", "val"), train=train, resources={"workers": 2})
    succeed(project.arguments("ingest"))
    interrupt = signal.getsignal(signal.SIGINT)
    succeed(project.arguments("train"))
    assert signal.getsignal(signal.SIGINT) == interrupt
    (card,) = (Workspace(here(project.workspace)).root / "models").glob("unetplusplus/*/model.json")
    values = json.loads(card.read_text())
    entry = json.loads((project.outputs / "log.json").read_text())[-1]
    assert entry["workers"] == 2
    assert len((card.parent / "history.csv").read_text().splitlines()) == 2
    assert 0 <= values["metrics"]["val_iou"] <= 1
    assert not (card.parent / "checkpoints").exists()
    # the first worker alone writes curves
    assert len(list((project.workspace / "tensorboard" / "unetplusplus" / card.parent.name).iterdir())) == 1
    before, after = (load_network(folder, read_card(folder)).state_dict() for folder in (here(start), card.parent))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if name.startswith("encoder.")]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, ("wide", "val"), resources={"workers": 3})
    succeed(project.arguments("ingest"))
    result = call(project.arguments("train"))
    assert result.code == 2
    assert "global_batch" in result.err
