"""Two training workers share the global batch, train one network, and validate it together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from project import CONFIG, Project, by_threads, call, contents, make_project, succeed, untrained_model
from torch.autograd.graph import saved_tensors_hooks

from cdpipe.cluster import train
from cdpipe.cluster.train import Shares, cpus_of_each, share_out
from cdpipe.config.resources import Resources
from cdpipe.models.folder import load_network, read_card
from cdpipe.models.networks import build_model
from cdpipe.training.memory import PROCESS, training_memory
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here


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


@pytest.mark.parametrize(
    ("gpus", "nodes", "memory", "resources", "shares"),
    [
        (0, [8], 64, {}, Shares(3, 1, 2, use_gpu=False)),
        (0, [2], 64, {}, Shares(2, 1, 1, use_gpu=False)),
        (0, [8], 5, {}, Shares(2, 1, 4, use_gpu=False)),  # as many as there is memory for
        (0, [8], 1, {}, Shares(1, 1, 8, use_gpu=False)),
        (0, [8], 64, {"workers": 2}, Shares(1, 2, 4, use_gpu=False)),
        (1, [8], 1, {}, Shares(1, 1, 1, use_gpu=True)),
        (2, [8], 1, {}, Shares(2, 1, 1, use_gpu=True)),
        (8, [8], 1, {}, Shares(3, 2, 1, use_gpu=True)),
        (8, [8], 1, {"workers": 4}, Shares(2, 4, 1, use_gpu=True)),
        (2, [8], 1, {"workers": 4}, Shares(1, 2, 1, use_gpu=True)),
    ],
)
def test_trainings_share_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    nodes: list[int],
    memory: int,
    resources: dict[str, int],
    shares: Shares,
) -> None:
    """Three models of which each takes 1.5 of the machine's gibibytes."""
    jobs = [SimpleNamespace(model=name, options=SimpleNamespace(global_batch=8)) for name in "abc"]
    machine = SimpleNamespace(memory=memory * 2**30)
    monkeypatch.setattr(train, "node_cpus", lambda: nodes)
    monkeypatch.setattr(train, "inspect_machine", lambda: machine)
    monkeypatch.setattr(train, "training_memory", lambda *_: 3 * 2**29)
    assert share_out(Resources(**resources), jobs, gpus) == shares  # type: ignore[arg-type]  # as much of jobs as is asked


def test_the_memory_of_a_training_is_not_less_than_what_autograd_keeps() -> None:
    options = SimpleNamespace(global_batch=4, patch=64)
    arguments: dict[str, Any] = {"encoder": "plain8", "bands": ["red"]}
    job = SimpleNamespace(
        architecture="siamese_unet", built=arguments, options=options, recipe=SimpleNamespace(channels=2)
    )
    kept: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept.append(value)
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        build_model("siamese_unet", **arguments).train()(torch.zeros(4, 2, 64, 64))
    whole = sum({value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in kept}.values())
    found = training_memory(job, 1)  # type: ignore[arg-type]  # as much of a job as is asked
    assert PROCESS + whole < found < PROCESS + 3 * whole
    assert training_memory(job, 2) < found  # type: ignore[arg-type]


@pytest.mark.usefixtures("local_ray")
def test_ray_trains_as_one_process_alone_does(finished: Project, tmp_path: Path) -> None:
    project = Project(finished.config, tmp_path / "work")
    shutil.copytree(finished.workspace, project.workspace)
    shutil.rmtree(project.workspace / "models")
    succeed(project.arguments("train"))
    assert contents(project.workspace, "models/**/*") == contents(finished.workspace, "models/**/*")


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_ray")
def test_trainings_side_by_side_go_on_after_a_kill_with_the_bytes_of_undisturbed_ones(tmp_path: Path) -> None:
    """Killed by SIGTERM once both have begun, and by SIGKILL once one is done: what goes on has its old threads."""
    model = CONFIG["train"]["models"]["unetplusplus"]
    two = {"unetplusplus": model, "another": {**model, "architecture": "unetplusplus", "input": "stacked"}}
    changed = {**CONFIG["train"], "models": two}
    scenes = make_project(tmp_path, train=changed, resources={"workers": "auto", "gpus": 0})
    whole, cut = (Project(scenes.config, tmp_path / name) for name in ("whole", "cut"))
    succeed(whole.arguments("ingest"))
    shutil.copytree(whole.workspace, cut.workspace)
    succeed(whole.arguments("train"))
    entries = [entry for entry in json.loads((whole.outputs / "log.json").read_text()) if entry["stage"] == "train"]
    assert [entry["side_by_side"] for entry in entries] == [2, 2]
    models = cut.workspace / "models"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    moments: list[tuple[signal.Signals, Callable[[], bool]]] = [
        (signal.SIGTERM, lambda: len(list(models.glob("*/*/checkpoints/checkpoint_*/history.json"))) >= 2),
        (signal.SIGKILL, lambda: len(list(models.glob("*/*/model.json"))) >= 1),
    ]
    for number, reached in moments:
        with (tmp_path / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", "cdpipe.cli.main", *cut.arguments("train")]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        while not reached():
            assert process.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.02)
        os.killpg(process.pid, number) if number == signal.SIGKILL else process.send_signal(number)
        process.wait()
    succeed(cut.arguments("train"))
    made = [contents(project.workspace, "models/*/*/*") for project in (whole, cut)]
    assert made[0] == made[1]
    assert len(made[0]) >= 2


@pytest.mark.usefixtures("local_ray")
def test_two_workers_train_as_one_and_keep_a_frozen_encoder(tmp_path: Path) -> None:
    start = untrained_model(tmp_path, "start")
    model = {**CONFIG["train"]["models"]["unetplusplus"], "init_from": str(start), "frozen_epochs": 1}
    models = {"unetplusplus": model}
    train = {"models": models, "patch": 32, "global_batch": 4, "epochs": 1, "samples_per_epoch": 8}
    project = make_project(tmp_path, ("wide", "val"), train=train, resources={"workers": 2})
    with by_threads():
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
    with by_threads():
        succeed(project.arguments("ingest"))
    result = call(project.arguments("train"))
    assert result.code == 2
    assert "global_batch" in result.err
