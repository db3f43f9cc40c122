"""Killed at every named point, a run loses nothing: the same command ends with the bytes of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project, call, contents, make_project, succeed, untrained_model

from cdpipe.values.crash import ALWAYS, ARMED, POINTS
from cdpipe.values.errors import EXIT_DONE, EXIT_PARTIAL

REPOSITORY = Path(__file__).resolve().parents[1]
MADE = ("store.zarr/**/*", "records/*/**/*.json", "models/**/*", "runs/run/rasters/*", "runs/run/manifest.json")
TIMES = 5
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(1800)]


def run(project: Project, charges: Path) -> int:
    """The pipeline in a process of its own, with crash points armed by the files of a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "jobs/pipeline.py", *project.arguments("pipeline")[1:]]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**environment, ARMED: str(charges)}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (EXIT_DONE, -signal.SIGKILL), done.stderr[-2000:]
    return done.returncode


@pytest.mark.heavy
@pytest.mark.parametrize("point", POINTS)
def test_killed_five_times_at_a_point(point: str, finished: Project, tmp_path: Path) -> None:
    project, charges, killed = Project(finished.config, tmp_path / "work"), tmp_path / "charges", 0
    charges.mkdir()
    for _ in range(TIMES):
        (charges / point).touch()
        ended = run(project, charges)
        killed += not (charges / point).exists()
        if ended == EXIT_DONE:
            assert contents(project.workspace, *MADE) == contents(finished.workspace, *MADE)
            shutil.rmtree(project.workspace)  # begin anew, where all points are met
    assert killed == TIMES
    if project.workspace.exists():
        assert run(project, charges) == EXIT_DONE
        assert contents(project.workspace, *MADE) == contents(finished.workspace, *MADE)


def test_a_block_that_kills_its_worker_is_given_up_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are done; and without the poison the same command does the rest."""
    charges = tmp_path / "charges"
    charges.mkdir()
    project = make_project(tmp_path, ("small", "val"), predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    untrained_model(tmp_path, "third")
    for name in ("ingest-begun small 0_0", "block-begun val 0_0"):
        (charges / name).write_text(ALWAYS)
    environment = {**os.environ, ARMED: str(charges)}
    environment.pop("RAY_ADDRESS", None)
    began = time.monotonic()
    for verb, pair_id in (("ingest", "small"), ("predict", "val")):
        command = [sys.executable, f"jobs/{verb}.py", *project.arguments(verb)[1:]]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (EXIT_PARTIAL, 3), done.stderr[-2000:]
        assert f"pair {pair_id}: block 0,0: " in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
    assert time.monotonic() - began < 600  # it ended at all: Ray Data alone would restart its workers for ever
    monkeypatch.delenv(ARMED, raising=False)
    succeed(project.arguments("pipeline"))
    assert {pair.pair_id for pair in project.manifest.pairs} == {"small", "val"}
    assert call(project.arguments("verify")).code == EXIT_DONE
