"""Several nodes, each with a raylet of its own, on this machine: the same results, whichever come and go."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from processes import REPOSITORY, family
from project import CONFIG, PRODUCTS, Project, contents, make_project, untrained_model, write_catalog, write_pair
from ray.cluster_utils import Cluster

from cdpipe.cluster.train import GRACE_SECONDS
from cdpipe.errors import EXIT_DONE, EXIT_INTERRUPTED

MADE = ("store.zarr/**/*", "records/*/*/*/*.json", *PRODUCTS, "runs/run/manifest.json")
BLOCKS = 60
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that runs no tasks, and two nodes."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "object_store_memory": 10**8})
    for _ in range(2):
        add_node(made, 1)
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


@pytest.fixture
def training(tmp_path: Path) -> Project:
    """Two workers on two nodes share global batches of four."""
    train = {**CONFIG["train"], "patch": 32, "global_batch": 4, "epochs": 4, "patience": 4, "samples_per_epoch": 200}
    return make_project(tmp_path, ("wide", "val"), train=train, resources={"workers": 2})


def has_epoch(project: Project) -> bool:
    return any(project.workspace.glob("models/*/*/checkpoints/checkpoint_*/history.json"))


def figures(project: Project) -> list[tuple[int, float]]:
    """Epochs and validation IoU of the one model of a project."""
    [history] = project.workspace.glob("models/*/*/history.csv")
    with history.open() as stream:
        return [(int(row["epoch"]), float(row["val_iou"])) for row in csv.DictReader(stream)]


def test_training_goes_on_with_fewer_workers(training: Project, cluster: Cluster, tmp_path: Path) -> None:
    """A node is lost, and no other comes: one worker does the parts of two, from the last checkpoint on."""
    log = tmp_path / "log.txt"
    alone = Project(training.config, tmp_path / "alone")
    for verb in ("ingest", "train"):
        assert start(alone, cluster, log, verb).wait() == EXIT_DONE, log.read_text()[-3000:]

    assert start(training, cluster, log, "ingest").wait() == EXIT_DONE, log.read_text()[-3000:]
    process = start(training, cluster, log, "train")
    wait_until(lambda: has_epoch(training), process, log)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert process.wait() == EXIT_DONE, log.read_text()[-3000:]
    found, undisturbed = figures(training), figures(alone)
    assert [epoch for epoch, _ in found] == [epoch for epoch, _ in undisturbed] == [0, 1, 2, 3]
    # within what another seed changes
    assert abs(max(iou for _, iou in found) - max(iou for _, iou in undisturbed)) < 0.1


def test_a_drain_notice_makes_a_checkpoint_first(training: Project, cluster: Cluster, tmp_path: Path) -> None:
    """Between two steps, with the time to the deadline that a cloud gives."""
    log = tmp_path / "log.txt"
    assert start(training, cluster, log, "ingest").wait() == EXIT_DONE, log.read_text()[-3000:]
    process = start(training, cluster, log, "train")
    wait_until(lambda: has_epoch(training), process, log)
    leaving = cluster.worker_nodes.copy().pop()
    notice = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "20",
    ]
    command = [str(Path(sys.executable).parent / "ray"), "drain-node", "--address", cluster.address]
    subprocess.run([*command, "--node-id", leaving.node_id, *notice], check=True, capture_output=True)
    wait_until(lambda: has_steps(training), process, log)
    cluster.remove_node(leaving, allow_graceful=False)
    assert process.wait() == EXIT_DONE, log.read_text()[-3000:]
    assert [epoch for epoch, _ in figures(training)] == [0, 1, 2, 3]


def has_steps(project: Project) -> bool:
    """Whether there is a checkpoint from within an epoch."""
    for path in project.workspace.glob("models/*/*/checkpoints/checkpoint_*/state.pt"):
        with suppress(OSError, RuntimeError, EOFError):
            if torch.load(path, map_location="cpu", weights_only=True)["step"]:
                return True
    return False


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_where_the_same_command_goes_on(
    sent: signal.Signals, training: Project, tmp_path: Path
) -> None:
    """SIGTERM, which Slurm and Kubernetes send half a minute before they kill, makes a checkpoint in the epoch first.

    Ctrl-C does not wait for one: the last epoch is gone on from.
    """
    log = tmp_path / "log.txt"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    jobs = [[sys.executable, f"jobs/{verb}.py", *training.arguments(verb)[1:]] for verb in ("ingest", "train")]
    subprocess.run(jobs[0], cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    with log.open("ab") as stream:
        # a shell that runs this in its background would have it ignore Ctrl-C
        code = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv.pop(0); "
        command = [sys.executable, "-c", f"{code}runpy.run_path(sys.argv[0], run_name='__main__')", *jobs[1][1:]]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=stream, stderr=stream, env=environment)
    wait_until(lambda: has_epoch(training), process, log)
    process.send_signal(sent)
    assert process.wait(GRACE_SECONDS + 30) == EXIT_INTERRUPTED, log.read_text()[-3000:]
    assert has_steps(training) == (sent == signal.SIGTERM)
    assert not list(training.workspace.glob("models/*/*/notice"))
    done = subprocess.run(jobs[1], cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True)
    assert [epoch for epoch, _ in figures(training)] == [0, 1, 2, 3], done.stderr


PLACES = """
import sys
from pathlib import Path
from types import SimpleNamespace

import ray

from cdpipe.cluster.ingest import ingest_pairs
from cdpipe.cluster.needs import Actors
from cdpipe.cluster.predict import predict_and_publish
from cdpipe.workspace.layout import Workspace
from cdpipe.pairs.ingest import BlockTask
from cdpipe.runs.plan import BlockWork
from cdpipe.geo.grid import BlockKey

folder = Path(sys.argv[1])


def note(kind, *_):
    with (folder / kind).open("a") as stream:
        stream.write(ray.get_runtime_context().get_node_id() + " ")


ray.init()
keys = [(pair, BlockKey(f"p{pair}", 0, column)) for pair in range(4) for column in range(10)]
tasks = [BlockTask(pair, key, imagery=True, label=False) for pair, key in keys]
ingested = ingest_pairs(list(range(4)), tasks, lambda *_: None, lambda *_: note("ingest"), lambda _: note("end"))
assert len(list(ingested)) == 4
pairs = [SimpleNamespace(pair_id=f"p{pair}", stored=None, members=()) for pair in range(4)]
job = SimpleNamespace(workspace=Workspace(folder / "work"), pairs=pairs, members=("a",), only=lambda _: None)
work = [BlockWork(pair, key, (), True) for pair, key in keys]
notes = (lambda *_: note("predict"), lambda _: note("publish"))
events = list(predict_and_publish(job, work, Actors(1, gpus=True), [None] * 4, *notes))
assert sum(event.published for event in events) == 4, events
"""


def test_networks_run_where_gpus_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest runs on others, and with GPUs only if those are full; networks ask for no CPU, so neither starves."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    head = {"num_cpus": 0, "num_gpus": 0, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        gpu = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=10**8)
        cpu = cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=10**8)
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        ran = subprocess.run(
            [sys.executable, "-c", PLACES, tmp_path],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        nodes = {kind: (tmp_path / kind).read_text().split() for kind in ("ingest", "end", "predict", "publish")}
        assert {kind: len(found) for kind, found in nodes.items()} == {
            "ingest": 40,
            "end": 4,
            "predict": 40,
            "publish": 4,
        }
        assert set(nodes["predict"]) == {gpu.node_id}
        assert all(cpu.node_id in nodes[kind] for kind in ("ingest", "end", "publish"))
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
