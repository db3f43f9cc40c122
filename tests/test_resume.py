"""Killing anything at any moment and running the same command again gives the bytes of an undisturbed run."""

import os
import re
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
import ray
from processes import family, kill
from project import Project, call, contents

from cdpipe.errors import EXIT_DONE, EXIT_LOCKED

REPOSITORY = Path(__file__).resolve().parents[1]
MADE = ("store.zarr/**/*", "records/*/**/*", "models/**/*")
# of the report all but its first page and index.json, its hash: it says when what was done, as log.json does
REPORT = (
    "report/[!i]*.json",
    "report/*.csv",
    "report/*.md",
    "report/pairs/*",
    "report/images/**/*",
    "report/pictures/*",
)
PUBLISHED = ("rasters/*", "vectors/*", "stac/**/*", "manifest.json", *REPORT)
# a run that is killed four times takes a minute on an idle machine
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900)]


@contextmanager
def started(project: Project, log: Path, *, alone: bool) -> Iterator["subprocess.Popen[bytes]"]:
    """The pipeline in a process group of its own, all of which is killed in the end.

    Args:
        project: What to run.
        log: Where its output goes.
        alone: Whether it starts Ray itself; else it joins that of the tests, which saves seconds.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if not alone:
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
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


def kill_when(project: Project, log: Path, reached: Callable[[], bool], *, alone: bool = False) -> None:
    """Start the pipeline and kill it with everything it started as soon as something is reached."""
    with started(project, log, alone=alone) as process:
        wait_until(reached, lambda: process.poll() is None, log)


def wait_until(reached: Callable[[], bool], going_on: Callable[[], bool], log: Path | None = None) -> None:
    while not reached():
        assert going_on(), f"ended before it was to be disturbed: {log.read_text() if log else ''}"
        time.sleep(0.01)


def found(project: Project, pattern: str) -> set[Path]:
    try:
        return set(project.workspace.glob(pattern))
    except FileNotFoundError:  # a temporary folder left while it was looked through
        return set()


def count(project: Project, pattern: str) -> int:
    return len(found(project, pattern))


def assert_same(project: Project, undisturbed: Project) -> None:
    """Byte for byte."""
    assert contents(project.workspace, *MADE) == contents(undisturbed.workspace, *MADE)
    assert contents(project.outputs, *PUBLISHED) == contents(undisturbed.outputs, *PUBLISHED)
    assert not list(project.workspace.rglob("*.partial"))


def test_a_run_killed_again_and_again_ends_as_if_undisturbed(finished: Project, tmp_path: Path) -> None:
    """All but the training, which takes longer than the rest."""
    project, log = Project(finished.config, tmp_path / "work"), tmp_path / "log.txt"
    shutil.copytree(finished.workspace / "models", project.workspace / "models")
    kill_when(project, log, lambda: count(project, "records/pairs/*/*/?_?.json") >= 2, alone=True)
    assert count(project, "records/pairs/*/*/?_?.json") < 7
    with started(project, log, alone=False) as process:
        wait_until(
            lambda: count(project, "records/probabilities/*/*/?_?.json") >= 2, lambda: process.poll() is None, log
        )
        process.send_signal(signal.SIGSTOP)  # so that it cannot end while another run tries
        assert call(project.arguments("ingest")).code == EXIT_LOCKED
    published = "runs/run/rasters/*.tif", "runs/run/vectors/*.gpkg"
    kill_when(project, log, lambda: all(count(project, pattern) >= 2 for pattern in published))
    assert not (project.outputs / "manifest.json").exists()
    finish(project, finished, log)


@pytest.mark.heavy
def test_a_run_killed_while_training_ends_as_if_undisturbed(finished: Project, tmp_path: Path) -> None:
    project, log = Project(finished.config, tmp_path / "work"), tmp_path / "log.txt"
    for _ in range(2):
        kill_when(project, log, another_checkpoint(project))
        assert not count(project, "models/*/*/model.json")
    finish(project, finished, log)


def another_checkpoint(project: Project) -> Callable[[], bool]:
    """Says whether training has made a checkpoint that is not there now."""
    histories = "models/*/*/checkpoints/checkpoint_*/history.json"
    known = found(project, histories)
    return lambda: bool(found(project, histories) - known)


def finish(project: Project, undisturbed: Project, log: Path) -> None:
    """Let a disturbed run come to its end, and compare it."""
    with started(project, log, alone=False) as process:
        assert process.wait() == EXIT_DONE, log.read_text()
    assert_same(project, undisturbed)
    said = log.read_text()
    assert "Traceback" not in said
    assert not [line for line in said.splitlines() if re.search(r"\(pid=|WARNING|INFO|core_worker|raylet", line)]


def test_neither_a_killed_worker_nor_their_number_bears_on_results(finished: Project, tmp_path: Path) -> None:
    project = Project(finished.config, tmp_path / "work")
    shutil.copytree(finished.workspace, project.workspace)
    for kind in ("probabilities", "changes"):
        shutil.rmtree(project.workspace / "store.zarr" / kind)
        shutil.rmtree(project.workspace / "records" / kind)
    ended: list[int] = []
    arguments = project.arguments("predict", "--set", "resources.workers=2")
    run = threading.Thread(target=lambda: ended.append(call(arguments).code))
    run.start()
    wait_until(lambda: count(project, "records/probabilities/*/*/?_?.json") >= 1, run.is_alive)
    half_written = next(project.workspace.glob("store.zarr/probabilities/wide/*/probability"))
    (half_written / "2.1.partial").write_text("what a worker that is killed while it writes leaves behind")
    kill([pid for pid, line in family(os.getpid()).items() if line.startswith("ray::MapWorker")][:1])
    run.join()
    assert ended == [EXIT_DONE]
    assert_same(project, finished)


@pytest.mark.heavy
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_run_killed_at_any_time(share: float, finished: Project, tmp_path: Path) -> None:
    """Killed with all of Ray after a share of the files is there, wherever in the pipeline that is."""
    project, log = Project(finished.config, tmp_path / "work"), tmp_path / "log.txt"
    wanted = share * len(contents(finished.workspace))
    kill_when(project, log, lambda: count(project, "**/*") >= wanted, alone=True)
    finish(project, finished, log)
