"""Several nodes, each with a raylet of its own, on this machine: the same results, whichever come and go."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import REPOSITORY, family
from project import CONFIG, Project, contents, make_project, untrained_model, write_catalog, write_pair
from ray.cluster_utils import Cluster

from cdpipe.formats.model_io import read_card
from cdpipe.values.errors import EXIT_DONE

MADE = ("store.zarr/**/*", "records/*/*/*/*.json", "runs/run/rasters/*", "runs/run/manifest.json")
BLOCKS = 60
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that runs no tasks, and two nodes of different size."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "object_store_memory": 10**8})
    for cpus in (2, 1):
        add_node(made, cpus)
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


def add_node(cluster: Cluster, cpus: int) -> object:
    return cluster.add_node(num_cpus=cpus, num_gpus=0, object_store_memory=10**8)


def start(project: Project, cluster: Cluster, log: Path, verb: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, f"jobs/{verb}.py", *project.arguments(verb)[1:]]
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=stream, stderr=stream, env={**os.environ, "RAY_ADDRESS": cluster.address}
        )


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)


def records(project: Project, kind: str) -> int:
    return len(list(project.workspace.glob(f"records/{kind}/long/*/0_*.json")))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    untrained_model(tmp_path, "third")
    predict = {"models": ["third"], "tta": "none", "threshold": 0.5, "model_rasters": True}
    made = make_project(tmp_path, ("small",), predict=predict)
    write_catalog(tmp_path / "pairs.csv", [write_pair(tmp_path, "long", (30, BLOCKS * 512))])
    return made


def test_nodes_that_go_and_come_bear_on_no_byte(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    """One is lost while ingesting and one while predicting; another joins, and is used."""
    log = tmp_path / "log.txt"
    alone = Project(project.config, tmp_path / "alone")
    command = [sys.executable, "jobs/pipeline.py", *alone.arguments("pipeline")[1:]]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)

    several = Project(project.config, tmp_path / "several")
    ingest = start(several, cluster, log, "ingest")
    wait_until(lambda: records(several, "pairs") >= 5, ingest, log)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert ingest.wait() == EXIT_DONE, log.read_text()[-3000:]

    predict = start(several, cluster, log, "predict")
    wait_until(lambda: records(several, "changes") >= 5, predict, log)
    lost = cluster.worker_nodes.copy().pop()
    joined = add_node(cluster, 2)
    cluster.remove_node(lost, allow_graceful=False)
    # only the node that joined is left to do the rest
    raylet = joined.all_processes["raylet"][0].process.pid  # type: ignore[attr-defined]
    wait_until(lambda: any("_Predictor" in line for line in family(raylet).values()), predict, log)
    assert predict.wait() == EXIT_DONE, log.read_text()[-3000:]
    assert contents(several.workspace, *MADE) == contents(alone.workspace, *MADE)


def test_training_goes_on_without_a_node_that_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    """From the last checkpoint, with another node in its place: the same epochs, at the same global batch."""
    log = tmp_path / "log.txt"
    train = {**CONFIG["train"], "patch": 32, "global_batch": 4, "epochs": 4, "patience": 4, "samples_per_epoch": 200}
    made = make_project(tmp_path, ("wide", "val"), train=train, resources={"workers": 2})
    assert start(made, cluster, log, "ingest").wait() == EXIT_DONE, log.read_text()[-3000:]
    training = start(made, cluster, log, "train")
    wait_until(lambda: any(made.workspace.glob("models/*/*/checkpoints/checkpoint_*/history.json")), training, log)
    add_node(cluster, 2)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert training.wait() == EXIT_DONE, log.read_text()[-3000:]
    [card] = made.workspace.glob("models/*/*/model.json")
    history = (card.parent / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in history[1:]] == ["0", "1", "2", "3"]
    assert 0 <= read_card(card.parent).metrics["val_iou"] <= 1
