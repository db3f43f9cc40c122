"""Killing anything at any moment and running the same command again gives the bytes of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from project import CONFIG, Project, call, contents, finished_project, succeed

from cdpipe.values.errors import EXIT_DONE, EXIT_LOCKED

REPOSITORY = Path(__file__).resolve().parents[1]
MADE = ("store.zarr/**/*", "records/*/**/*", "models/**/*")
PUBLISHED = ("rasters/*", "manifest.json", "report/**/*")
pytestmark = pytest.mark.timeout(900)  # a run that is killed four times takes a minute on an idle machine


@pytest.fixture(scope="session")
def finished(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Project:  # noqa: ARG001
    """An undisturbed run of the pipeline; tests leave it as it is."""
    return finished_project(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def undisturbed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with one model and a fixed threshold, which makes runs shorter; tests leave it as it is."""
    config = finished.config.with_name("one.yaml")
    models = {"unetplusplus": CONFIG["train"]["models"]["unetplusplus"]}
    values = {**CONFIG, "train": {**CONFIG["train"], "models": models}, "predict": {"tta": "none", "threshold": 0.5}}
    config.write_text(yaml.safe_dump(values))
    project = Project(config, tmp_path_factory.mktemp("undisturbed") / "work")
    shutil.copytree(finished.workspace, project.workspace)
    succeed(project.arguments("pipeline"))
    return project


@contextmanager
def started(project: Project, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The pipeline in a process group of its own, all of which is killed in the end."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "jobs/pipeline.py", *project.arguments("pipeline")[1:]]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill_when(project: Project, log: Path, reached: Callable[[], bool]) -> None:
    """Start the pipeline and kill it with everything it started as soon as something is reached."""
    with started(project, log) as process:
        wait_until(reached, lambda: process.poll() is None, log)


def wait_until(reached: Callable[[], bool], going_on: Callable[[], bool], log: Path | None = None) -> None:
    while not reached():
        assert going_on(), f"ended before it was to be disturbed: {log.read_text() if log else ''}"
        time.sleep(0.01)


def count(project: Project, pattern: str) -> int:
    return len(list(project.workspace.glob(pattern)))


def assert_same(project: Project, undisturbed: Project) -> None:
    """Byte for byte; the undisturbed workspace also holds what another model said."""
    found, expected = contents(project.workspace, *MADE), contents(undisturbed.workspace, *MADE)
    different = {name for name, sha in found.items() if expected.get(name) != sha}
    assert not different
    assert contents(project.outputs, *PUBLISHED) == contents(undisturbed.outputs, *PUBLISHED)
    succeed(project.arguments("verify"))
    assert not list(project.workspace.rglob("*.partial"))


def test_a_run_killed_again_and_again_ends_as_if_undisturbed(undisturbed: Project, tmp_path: Path) -> None:
    project, log = Project(undisturbed.config, tmp_path / "work"), tmp_path / "log.txt"
    kill_when(project, log, lambda: count(project, "records/pairs/*/*/?_?.json") >= 2)
    assert count(project, "records/pairs/*/*/?_?.json") < 7
    kill_when(project, log, lambda: count(project, "models/*/*/checkpoints/checkpoint_*/history.json") >= 1)
    assert not count(project, "models/*/*/model.json")
    kill_when(project, log, lambda: count(project, "records/probabilities/*/*/?_?.json") >= 2)
    kill_when(project, log, lambda: count(project, "runs/run/rasters/*") >= 1)
    assert not (project.outputs / "manifest.json").exists()
    with started(project, log) as process:
        wait_until(lambda: count(project, "records/rasters/*/*/group.json") >= 2, lambda: process.poll() is None, log)
        if process.poll() is None:  # the lock is held until the end
            assert call(project.arguments("ingest")).code == EXIT_LOCKED
        assert process.wait() == EXIT_DONE, log.read_text()
    assert_same(project, undisturbed)
    assert "Traceback" not in log.read_text()


def children_of(parent: int) -> dict[int, str]:
    """Command lines of all processes that descend from one."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: dict[int, str] = {}
    wanted = {parent}
    while wanted:
        wanted = {pid for pid, above in parents.items() if above in wanted}
        found |= {pid: lines[pid] for pid in wanted}
    return found


def test_neither_a_killed_worker_nor_their_number_bears_on_results(undisturbed: Project, tmp_path: Path) -> None:
    project = Project(undisturbed.config, tmp_path / "work")
    for part in ("store.zarr", "records"):
        for kind in ("pairs", "labels"):
            shutil.copytree(undisturbed.workspace / part / kind, project.workspace / part / kind)
    shutil.copy(undisturbed.workspace / "records" / "sources.json", project.workspace / "records")
    shutil.copytree(undisturbed.workspace / "models", project.workspace / "models")
    ended: list[int] = []
    arguments = project.arguments("predict", "--set", "resources.workers=1")
    run = threading.Thread(target=lambda: ended.append(call(arguments).code))
    run.start()
    wait_until(lambda: count(project, "records/probabilities/*/*/?_?.json") >= 1, run.is_alive)
    workers = [pid for pid, line in children_of(os.getpid()).items() if line.startswith("ray::MapWorker")]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    run.join()
    assert ended == [EXIT_DONE]
    assert len(workers) == 1
    succeed(project.arguments("evaluate"))
    assert_same(project, undisturbed)
