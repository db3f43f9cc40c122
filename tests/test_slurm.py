"""deploy/slurm.sh, with stand-ins for Slurm's own commands that do on this machine what they would on others."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import REPOSITORY, kill_all_of
from project import Project, make_project, untrained_model, write_catalog, write_pair

from cdpipe.errors import EXIT_DONE, EXIT_INTERRUPTED

# srun: what comes after its options, without those that say where; each node's Ray keeps its files where the test says
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
if [[ "$1 $2 $3" == "ray start --head" ]]; then exec "$@" --temp-dir "$RAY_HOME" --include-dashboard=false; fi
exec "$@"
"""
SCONTROL = """#!/bin/bash
case "$1" in show) printf 'one\\ntwo\\n' ;; *) echo "$@" >> "$RAY_HOME/scontrol" ;; esac
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on two nodes of a CPU each."""
    home, commands = Path(tempfile.mkdtemp(prefix="cdpipe-")), tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / ".venv").symlink_to(REPOSITORY / ".venv")
    (tmp_path / "job" / "jobs").symlink_to(REPOSITORY / "jobs")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "one,two", "SLURM_CPUS_PER_TASK": "1"}
    environment |= {"SLURM_JOB_ID": str(random.randrange(10_000)), "RAY_AUTH_MODE": "disabled", "RAY_HOME": str(home)}
    environment |= {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    yield environment
    kill_all_of(home)
    shutil.rmtree(home, ignore_errors=True)


def start(project: Project, slurm: dict[str, str], folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = ["bash", str(REPOSITORY / "deploy/slurm.sh"), *project.arguments("pipeline")[1:]]
    with log.open("wb") as stream:
        return subprocess.Popen(command, cwd=folder / "job", env=slurm, stdout=stream, stderr=stream)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_job_that_is_stopped_and_queued_again(slurm: dict[str, str], tmp_path: Path) -> None:
    untrained_model(tmp_path, "third")
    predict = {"models": ["third"], "tta": "none", "threshold": 0.5}
    project = make_project(tmp_path, ("small",), predict=predict)
    write_catalog(tmp_path / "pairs.csv", [write_pair(tmp_path, "long", (30, 60 * 512))])
    log = tmp_path / "log.txt"
    job = start(project, slurm, tmp_path, log)
    while not list(project.workspace.glob("records/pairs/long/*/0_*.json")):
        assert job.poll() is None, log.read_text()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == EXIT_INTERRUPTED, log.read_text()
    assert "2 of 2 node(s)" in log.read_text()
    assert (Path(slurm["RAY_HOME"]) / "scontrol").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    assert start(project, slurm, tmp_path, log).wait(400) == EXIT_DONE, log.read_text()
    assert [pair.pair_id for pair in project.manifest.pairs] == ["long"]
