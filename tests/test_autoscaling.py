"""A cluster that grows from nothing: its autoscaler starts nodes of the kind that is asked for, and ends them.

Its GPUs are made up, and networks run on the CPU (``resources.device: cpu``); so results have one machine's bytes.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from autoscaling import Autoscaling, autoscaling, node_type
from processes import REPOSITORY, command_line
from project import (
    PRODUCTS,
    Project,
    by_threads,
    contents,
    make_project,
    succeed,
    untrained_model,
    write_catalog,
    write_pair,
)
from ray.cluster_utils import Cluster
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_nodes, list_tasks

from cdpipe.errors import EXIT_CONFIG, EXIT_DONE, EXIT_INTERRUPTED, EXIT_LOCKED

MADE = ("store.zarr/**/*", "records/*/*/*/*.json", *PRODUCTS, "runs/run/manifest.json")
TYPES = {"cpu": node_type(2, CPU=1), "gpu": node_type(2, CPU=1, GPU=1)}
# by what Ray calls them; Ray's own actors beside them do not matter here
MODELS, INGEST = ("MapWorker(", "RayTrainWorker."), ("hash_one", "do_portion")


def make(folder: Path, blocks: int, **resources: object) -> Project:
    """A pair of many small blocks, a model for it, and what it asks for."""
    untrained_model(folder, "third")
    predict = {"models": ["third"], "tta": "none", "threshold": 0.5, "model_rasters": True}
    project = make_project(folder, ("small",), predict=predict, resources={"device": "cpu", **resources})
    write_catalog(folder / "pairs.csv", [write_pair(folder, "long", (30, blocks * 512))])
    return project


def start(project: Project, cluster: Autoscaling, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "jobs/pipeline.py", *project.arguments("pipeline")[1:]]
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=REPOSITORY, env=cluster.environment, stdout=stream, stderr=stream)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kinds_of_nodes(cluster: Autoscaling, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every node there was, by id."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = list_nodes(address=cluster.dashboard, detail=True)
    return {
        node.node_id: next((kind for kind in ("gpu", "cpu") if kind.upper() in node.resources_total), "head")
        for node in found
    }


def where_it_ran(cluster: Autoscaling, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> Counter[str]:
    """Kinds of the nodes that tasks ran on."""
    kinds = kinds_of_nodes(cluster, monkeypatch)
    tasks = list_tasks(address=cluster.dashboard, limit=10_000)
    nodes = (task.node_id for task in tasks if any(name in str(task.name) for name in names))
    return Counter(kinds[node] for node in nodes if node)


def alive(cluster: Autoscaling) -> int:
    """Raylets of a cluster that run, the head's among them."""
    lines = (command_line(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return sum("raylet/raylet " in line and str(cluster.folder) in line for line in lines)


def test_from_nothing_to_results_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short version: one node of each kind."""
    project = make(tmp_path, 6)
    log = tmp_path / "log.txt"
    with autoscaling({"cpu": node_type(1, CPU=1), "gpu": node_type(1, CPU=1, GPU=1)}, idle_minutes=0.1) as cluster:
        process = start(project, cluster, log)
        assert process.wait(200) == EXIT_DONE, log.read_text()[-3000:]
        said = log.read_text()
        assert "waits: the cluster has 0 CPU(s) on 1 node(s); its autoscaler may start 1 × cpu with 1" in said
        assert "predict: asked at" in said
        assert "predict: begins with 1 of 1 GPU(s)" in said
        assert set(where_it_ran(cluster, monkeypatch, INGEST)) == {"cpu"}
        assert set(where_it_ran(cluster, monkeypatch, MODELS)) == {"gpu"}
        wait_until(lambda: alive(cluster) == 1)
    alone = Project(project.config, tmp_path / "alone")
    with by_threads():
        succeed(alone.arguments("pipeline"))
    assert contents(project.workspace, *MADE) == contents(alone.workspace, *MADE)


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_ray")
def test_a_lost_node_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a prediction."""
    project = make(tmp_path, 60, gpus=2)
    log = tmp_path / "log.txt"
    with autoscaling(TYPES) as cluster:
        process = start(project, cluster, log)
        wait_until(lambda: bool(list(project.workspace.glob("records/changes/long/*/0_*.json"))), 400)
        os.kill(raylet_of_a_gpu(cluster), signal.SIGKILL)
        assert process.wait(400) == EXIT_DONE, log.read_text()[-3000:]
        assert set(where_it_ran(cluster, monkeypatch, MODELS)) == {"gpu"}
        assert list(kinds_of_nodes(cluster, monkeypatch).values()).count("gpu") >= 3
    alone = Project(project.config, tmp_path / "alone")
    succeed(alone.arguments("pipeline", "--set", "resources.gpus=0"))
    assert contents(project.workspace, *MADE) == contents(alone.workspace, *MADE)


def raylet_of_a_gpu(cluster: Autoscaling) -> int:
    """Process id of a node with GPUs."""
    for path in Path("/proc").glob("[0-9]*"):
        line = command_line(int(path.name))
        if "raylet/raylet " in line and str(cluster.folder) in line and "GPU,1" in line:
            return int(path.name)
    raise AssertionError("no node with a GPU is there")


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_submitted_job_trains_and_predicts_on_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and actors are started on nodes with GPUs alone, two of each; at the end none is left."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    project = make_project(tmp_path, ("wide", "val"), resources={"device": "cpu"})
    with autoscaling(TYPES) as cluster:
        client = JobSubmissionClient(cluster.dashboard)
        # no working_dir: these nodes share one folder for it, which the first that ends takes away from all
        runtime = {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}
        command = f"cd {REPOSITORY} && {sys.executable} jobs/pipeline.py {project.config}"
        job = client.submit_job(entrypoint=command, runtime_env=runtime)
        wait_until(lambda: client.get_job_status(job) not in (JobStatus.PENDING, JobStatus.RUNNING), 700)
        said = client.get_job_logs(job)
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, (client.get_job_info(job).message, said[-3000:])
        assert "for 2 GPU(s), of which the first will do" in said
        assert set(where_it_ran(cluster, monkeypatch, MODELS)) == {"gpu"}
        assert where_it_ran(cluster, monkeypatch, INGEST)["gpu"] == 0
        wait_until(lambda: alive(cluster) == 1)
    assert [pair.pair_id for pair in project.manifest.pairs] == ["wide", "val"]


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_gpus_that_do_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their type fails to start for ever: the run waits, says so, and leaves nothing requested, also when stopped."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    broken = node_type(2, CPU=1, GPU=1)
    broken["resources"]["object_store_memory"] = 10**15
    log = tmp_path / "log.txt"
    with autoscaling({"cpu": node_type(2, CPU=1), "gpu": broken}, idle_minutes=1) as cluster:
        short = make(tmp_path / "short", 4, wait_minutes=0.2)
        assert start(short, cluster, log).wait(200) == EXIT_LOCKED, log.read_text()[-3000:]
        assert "predict: asked for 1 GPU(s), and in 12 s 0 came" in log.read_text()
        assert "gpu does not start" in log.read_text()
        assert requested(cluster) == []

        stopped = make(tmp_path / "stopped", 4)
        process = start(stopped, cluster, log)
        wait_until(lambda: "predict: asked at" in log.read_text())
        assert requested(cluster) == [{"GPU": 1.0}]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == EXIT_INTERRUPTED
        assert requested(cluster) == []

        many = make(tmp_path / "many", 4, gpus=4, on_shortage="stop")
        assert start(many, cluster, log).wait(200) == EXIT_CONFIG
        assert "resources.gpus: 4 cannot be had" in log.read_text()
        assert "ask for at most 2" in log.read_text()


def requested(cluster: Autoscaling) -> list[dict[str, float]]:
    """What the cluster's autoscaler is asked for, as it says."""
    from ray.autoscaler.v2.sdk import get_cluster_status  # noqa: PLC0415 (needs the variable above)

    demand = get_cluster_status(cluster.address).resource_demands.cluster_constraint_demand
    return [each.bundle for group in demand for each in group.bundles_by_count for _ in range(each.count)]


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_a_cluster_without_autoscaler_says_at_once_what_it_lacks(tmp_path: Path) -> None:
    project = make(tmp_path, 2, gpus=4)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    try:
        environment["RAY_ADDRESS"] = cluster.address
        command = [sys.executable, "jobs/pipeline.py", *project.arguments("pipeline")[1:]]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == EXIT_CONFIG
        assert "resources.gpus: 4 cannot be had: the cluster has 0 GPU(s) on 1 node(s) and no autoscaler" in done.stderr
    finally:
        with suppress(Exception):
            cluster.shutdown()  # type: ignore[no-untyped-call]
