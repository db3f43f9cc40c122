"""`ray job submit` on a cluster of its own: what is uploaded, what runs there, where results go."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import free_ports, kill_all_of, wait_for
from project import Project, make_project, untrained_model, write_catalog, write_pair
from ray.job_submission import JobStatus, JobSubmissionClient

from cdpipe.errors import EXIT_CONFIG, EXIT_DONE

REPOSITORY = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")
VERSION = "0.0.0+submitted"
SCENES = ("small", "val")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A head node without workers.

    Attributes:
        address: Of its job server.
        folder: Where it keeps its files.
        environment: For commands that talk to it.
    """

    address: str
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node on this machine's loopback, apart from any other Ray that runs here."""
    # a socket's path may have 107 characters: tmp_path would be too long
    folder = Path(tempfile.mkdtemp(prefix="cdpipe-"))
    gcs, dashboard, client, agent, agent_grpc = free_ports(5)
    address = f"http://127.0.0.1:{dashboard}"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PATH": f"{RAY.parent}:{os.environ['PATH']}", "RAY_API_SERVER_ADDRESS": address}
    # with a token every command would need it, and making one writes to the home folder
    environment |= {"RAY_AUTH_MODE": "disabled"}
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(gcs)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--temp-dir", str(folder)]
    command += ["--ray-client-server-port", str(client), "--dashboard-agent-listen-port", str(agent)]
    command += ["--dashboard-agent-grpc-port", str(agent_grpc), "--min-worker-port", "0", "--max-worker-port", "0"]
    command += ["--num-cpus", "2", "--num-gpus", "0", "--object-store-memory", "200000000", "--disable-usage-stats"]
    with (folder / "head.txt").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for port in (dashboard, agent):
            wait_for(port, head, folder / "head.txt")
        yield Cluster(address, folder, environment)
    finally:
        kill_all_of(folder)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository as a user may have it: with an environment, data and results in it; of another version."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("cdpipe", "jobs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    package = folder / "cdpipe" / "version.py"
    lines = package.read_text().splitlines()
    package.write_text("\n".join(f'__version__ = "{VERSION}"' if "__version__ =" in line else line for line in lines))
    for name in (".venv/lib/big.so", ".git/objects/pack", "work/store.zarr/c", "data/scene.img", "scene.tif", "w.pth"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1000))
    return folder


def submit(cluster: Cluster, checkout: Path, name: str, *entrypoint: str) -> None:
    command = [str(RAY), "job", "submit", "--no-wait", "--submission-id", name, "--working-dir", str(checkout), "--"]
    command += entrypoint
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
    while "No available agent" in done.stderr:  # it listens, and the head has not heard of it yet
        done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def follow(client: JobSubmissionClient, name: str) -> tuple[int | None, str]:
    """Exit code and output of a job, once it has ended."""
    while client.get_job_status(name) in (JobStatus.PENDING, JobStatus.RUNNING):
        time.sleep(0.2)
    return client.get_job_info(name).driver_exit_code, client.get_job_logs(name)


def test_jobs_on_a_cluster(cluster: Cluster, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    project = make_project(tmp_path / "data", SCENES, predict={"models": ["third"], "tta": "none"})
    untrained_model(tmp_path / "data", "third")
    inside = make_project(checkout / "project", ("small",))
    submit(cluster, checkout, "good", "python", "jobs/pipeline.py", str(project.config))
    client = JobSubmissionClient(cluster.address)
    client.submit_job(
        entrypoint=f"python jobs/ingest.py {inside.config.relative_to(checkout)}",
        submission_id="lost",
        runtime_env={"working_dir": str(checkout)},
    )

    code, output = follow(client, "good")
    assert code == EXIT_DONE, output
    assert_published(project)
    code, output = follow(client, "lost")
    assert code == EXIT_CONFIG, output
    assert "give an absolute path" in output
    assert_small(cluster, checkout)


@pytest.mark.heavy
def test_a_job_stopped_in_the_middle_and_submitted_again(
    cluster: Cluster, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second job finds what the first has stored; its log has lines of progress and nothing for a terminal."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    project = make_project(tmp_path / "data", SCENES, predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    write_catalog(tmp_path / "data" / "pairs.csv", [write_pair(tmp_path / "data", "long", (30, 60 * 512))])
    untrained_model(tmp_path / "data", "third")
    client = JobSubmissionClient(cluster.address)
    submit(cluster, checkout, "stopped", "python", "jobs/pipeline.py", str(project.config))
    while len(list(project.workspace.glob("records/pairs/long/*/0_*.json"))) < 20:
        assert client.get_job_status("stopped") in (JobStatus.PENDING, JobStatus.RUNNING)
        time.sleep(0.1)
    client.stop_job("stopped")
    _, output = follow(client, "stopped")
    assert client.get_job_status("stopped") == JobStatus.STOPPED, output
    done = len(list(project.workspace.glob("records/pairs/long/*/0_*.json")))

    submit(cluster, checkout, "again", "python", "jobs/pipeline.py", str(project.config))
    code, output = follow(client, "again")
    assert code == EXIT_DONE, output
    log = json.loads((project.outputs / "log.json").read_text())
    assert next(entry["blocks"] for entry in reversed(log) if entry["stage"] == "ingest") <= 60 - done
    assert re.search(r"ingest: blocks: \d+/\d+  [\d.,e-]+/s  ETA ", output)
    assert "\x1b" not in output
    assert "Traceback" not in output


def assert_published(project: Project) -> None:
    """Results lie where the configuration says, made by the code that was submitted."""
    assert [pair.pair_id for pair in project.manifest.pairs] == list(SCENES)
    assert [model["name"] for model in project.manifest.models] == ["third"]
    assert project.manifest.fitted_on.endswith("on validation pairs val")
    assert {path.name for path in (project.outputs / "rasters").iterdir()} - {"change.vrt", "change.qml"} == {
        f"{pair_id}_{layer}{suffix}"
        for pair_id in SCENES
        for layer in ("change", "probability")
        for suffix in (".tif", ".qml")
    }
    log = json.loads((project.outputs / "log.json").read_text())
    assert {entry["versions"]["cdpipe"] for entry in log} == {VERSION}


def assert_small(cluster: Cluster, checkout: Path) -> None:
    """What Ray unpacked is the source, and nothing of what lay beside it."""
    (package,) = cluster.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    unpacked = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    found = {path for path in unpacked if "__pycache__" not in path.parts}  # Python's, made there
    source = {path.relative_to(checkout) for name in ("cdpipe", "jobs") for path in (checkout / name).rglob("*.py")}
    assert source <= found
    assert {path.parts[0] for path in found - source} <= {"cdpipe", "project", "pyproject.toml", ".gitignore"}
    assert not [path for path in found if path.suffix == ".tif"]
