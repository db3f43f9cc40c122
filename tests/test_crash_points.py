"""Killed at every named point, a run loses nothing: the same command ends with the bytes of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from project import PRODUCTS, REPORTED, Project, contents, make_project, succeed, untrained_model

from cdpipe.errors import EXIT_DONE, EXIT_PARTIAL
from cdpipe.workspace.crash import ALWAYS, ARMED, POINTS

REPOSITORY = Path(__file__).resolve().parents[1]
MADE = ("store.zarr/**/*", "records/*/**/*.json", "models/**/*", *PRODUCTS, *REPORTED, "runs/run/manifest.json")
TIMES = 5
TRAINING = {"checkpoint-unreported", "weights-without-card", "model-with-checkpoints"}
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(1800)]


def run(project: Project, charges: Path, verb: str = "pipeline", expected: int = EXIT_DONE) -> int:
    """A job in a process of its own, with crash points armed by the files of a folder."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, f"jobs/{verb}.py", *project.arguments(verb)[1:]]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**environment, ARMED: str(charges)}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (expected, -signal.SIGKILL), done.stderr[-2000:]
    return done.returncode


@pytest.fixture(scope="module")
def undisturbed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same configuration, run likewise, in a Ray of its own: other numbers of threads give weights other bits."""
    folder = tmp_path_factory.mktemp("undisturbed")
    project = Project(finished.config, folder / "work")
    assert run(project, folder) == EXIT_DONE
    return project


@pytest.mark.heavy
@pytest.mark.parametrize("point", POINTS)
def test_killed_five_times_at_a_point(point: str, undisturbed: Project, tmp_path: Path) -> None:
    project, charges, killed = Project(undisturbed.config, tmp_path / "work"), tmp_path / "charges", 0
    charges.mkdir()
    for _ in range(2 * TIMES):  # of some points a resumed run meets none
        if killed == TIMES:
            break
        if point not in TRAINING and not project.workspace.exists():  # training takes longer than the rest
            shutil.copytree(undisturbed.workspace / "models", project.workspace / "models")
        (charges / point).touch()
        ended = run(project, charges)
        killed += not (charges / point).exists()
        if ended == EXIT_DONE:
            assert contents(project.workspace, *MADE) == contents(undisturbed.workspace, *MADE)
            shutil.rmtree(project.workspace)  # begin anew, where all points are met
    assert killed == TIMES
    if project.workspace.exists():
        assert run(project, charges) == EXIT_DONE
        assert contents(project.workspace, *MADE) == contents(undisturbed.workspace, *MADE)


@pytest.mark.heavy
def test_a_block_that_kills_its_worker_is_given_up_and_named(tmp_path: Path) -> None:
    """The others are done; and without the poison the same command does the rest."""
    charges = tmp_path / "charges"
    charges.mkdir()
    project = make_project(tmp_path, ("small", "val"), predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    untrained_model(tmp_path, "third")
    succeed(project.arguments("ingest"))
    (charges / "block-begun val 0_0").write_text(ALWAYS)
    # that it ends at all is the point: Ray Data alone would restart its workers for ever
    assert run(project, charges, "predict", EXIT_PARTIAL) == EXIT_PARTIAL
    assert [pair.pair_id for pair in project.manifest.pairs] == ["small"]
    assert "block 0,0: ended its worker 4 times" in project.manifest.failed["val"]
    succeed(project.arguments("predict"))
    assert {pair.pair_id for pair in project.manifest.pairs} == {"small", "val"}


@pytest.mark.heavy
def test_a_source_that_kills_its_worker_is_given_up_and_named(tmp_path: Path) -> None:
    """Likewise while ingesting."""
    charges = tmp_path / "charges"
    charges.mkdir()
    project = make_project(tmp_path, ("small", "val"))
    (charges / "ingest-begun small 0_0").write_text(ALWAYS)
    assert run(project, charges, "ingest", EXIT_PARTIAL) == EXIT_PARTIAL
    assert "block 0,0" in json.loads((project.outputs / "failed.json").read_text())["small"]
    succeed(project.arguments("ingest"))
