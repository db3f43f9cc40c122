"""Random kills of anything at any time: however often a run is disturbed, it ends with the undisturbed bytes.

How many kills there are is ``CDPIPE_CHAOS_KILLS`` (``make chaos-short``: 30, ``make chaos``: 300), and which,
``CDPIPE_CHAOS_SEED``.
"""

import json
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from processes import end, family, kill, start
from project import PRODUCTS, Project, contents, make_project, untrained_model, write_catalog, write_pair

from cdpipe.errors import EXIT_DONE, EXIT_LOCKED, EXIT_PARTIAL
from cdpipe.runs.manifest import read_manifest
from cdpipe.runs.verify import check_manifest
from cdpipe.workspace.location import here

MADE = ("store.zarr/**/*", "records/*/*/*/*.json", *PRODUCTS, "runs/run/manifest.json")
KILLS = int(os.environ.get("CDPIPE_CHAOS_KILLS", "30"))
SEED = int(os.environ.get("CDPIPE_CHAOS_SEED", "0"))
WORKER_KILLS = KILLS * 5 // 6  # the others end the whole run, and cost a start of Ray each
TRAINING_KILLS, TOGETHER = max(2, KILLS // 15), max(2, KILLS // 6)
# Ray's agents take their node with them, and its bookkeepers would get most of the kills: there are always some
WORKER = r"ray::(?!IDLE|\w+Agent|_StatsActor|ActorLocationTracker|DatasetManager|\w*AutoscalingCoordinator)"
LONGEST = 300  # seconds that a run left alone may take
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(4 * 3600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Ingest, predict and export of a few pairs; training has kills of its own."""
    folder = tmp_path_factory.mktemp("chaos")
    untrained_model(folder, "third")
    return make_project(folder, predict={"models": ["third"], "tta": "none", "threshold": 0.5, "model_rasters": True})


def chosen_from(everything: dict[int, str], kind: str, driver: int) -> list[int]:
    """The processes of a run that are killed."""
    patterns = {"raylet": r"\S*/raylet/raylet ", "agent": "ray::(DashboardAgent|RuntimeEnvAgent)"}
    if kind in patterns:
        return [pid for pid, line in everything.items() if re.match(patterns[kind], line)][:1]
    return [driver] if kind == "driver" else list(everything)


def test_random_kills_of_what_a_run_does_not_survive(project: Project, tmp_path: Path) -> None:
    """Driver, raylet, one of its agents, or all at once, when a random share of the files is there."""
    log, choose = tmp_path / "log.txt", random.Random(SEED)
    undisturbed = Project(project.config, tmp_path / "undisturbed")
    assert start(undisturbed, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    expected, files = contents(undisturbed.workspace, *MADE), len(list(undisturbed.workspace.glob("**/*")))
    kills: Counter[str] = Counter()
    finished = 0
    while kills.total() < KILLS - WORKER_KILLS:
        finished += 1
        disturbed, ended = Project(project.config, tmp_path / f"work{finished}"), None
        while ended != EXIT_DONE:
            process, kind = start(disturbed, log), choose.choice(["driver", "all", "raylet", "agent"])
            if kills.total() < KILLS - WORKER_KILLS:
                share = choose.uniform(-0.1, 1)
                while process.poll() is None and len(list(disturbed.workspace.glob("**/*"))) < share * files:
                    time.sleep(0.05)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(choose.uniform(0, 2))
                victims = chosen_from(family(process.pid), kind, process.pid)
                if process.poll() is None and victims:
                    kill(victims)
                    kills[kind] += 1
            known = family(process.pid)
            ended = process.wait(LONGEST)
            end(process, known)
            assert_honest(disturbed)
        assert contents(disturbed.workspace, *MADE) == expected, f"after {kills}"
        shutil.rmtree(disturbed.workspace)
        print(f"{kills.total()} kills ({dict(kills)}) over {finished} workspaces: no difference", flush=True)  # noqa: T201


def test_workers_killed_all_the_time(tmp_path: Path) -> None:
    """A run survives it: whatever its workers are at, one of them is killed every second or so."""
    untrained_model(tmp_path, "third")
    predict = {"models": ["third"], "tta": "none", "threshold": 0.5, "model_rasters": True}
    project = make_project(tmp_path, ("small",), predict=predict)
    write_catalog(tmp_path / "pairs.csv", [write_pair(tmp_path, f"long{n}", (30, 20 * 512)) for n in range(5)])
    log, choose = tmp_path / "log.txt", random.Random(SEED)
    undisturbed = Project(project.config, tmp_path / "undisturbed")
    assert start(undisturbed, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    expected = contents(undisturbed.workspace, *MADE)
    struck: Counter[str] = Counter()
    finished = 0
    while struck.total() < WORKER_KILLS:
        finished += 1
        disturbed, ended = Project(project.config, tmp_path / f"work{finished}"), None
        while ended != EXIT_DONE:
            process = start(disturbed, log)
            while process.poll() is None:
                time.sleep(choose.uniform(0.2, 2))
                busy = [(pid, line) for pid, line in family(process.pid).items() if re.match(WORKER, line)]
                if busy and struck.total() < WORKER_KILLS:
                    pid, line = choose.choice(busy)
                    kill([pid])
                    struck[re.split(r"[ (.]", line)[0]] += 1
            end(process, family(process.pid))
            ended = process.wait()
            # a block whose worker was struck four times is given up, and the same command takes it up again
            assert ended in (EXIT_DONE, EXIT_PARTIAL), log.read_text()[-3000:]
            assert_honest(disturbed)
        assert contents(disturbed.workspace, *MADE) == expected, f"after {struck}"
        shutil.rmtree(disturbed.workspace)
        print(f"{struck.total()} kills ({dict(struck)}) in {finished} runs: no difference", flush=True)  # noqa: T201


def test_training_killed_at_random_ends_with_the_same_weights(tmp_path: Path) -> None:
    """As bits: on a CPU every sample and every operation is determined."""
    project, log, choose = make_project(tmp_path), tmp_path / "log.txt", random.Random(SEED)
    undisturbed = Project(project.config, tmp_path / "undisturbed")
    began = time.monotonic()
    assert start(undisturbed, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    length = time.monotonic() - began
    expected = contents(undisturbed.workspace, "models/**/*", *MADE)
    kills = finished = 0
    while kills < TRAINING_KILLS:
        finished += 1
        disturbed, ended = Project(project.config, tmp_path / f"work{finished}"), None
        while ended != EXIT_DONE:
            process = start(disturbed, log)
            with suppress(subprocess.TimeoutExpired):
                process.wait(choose.uniform(0.3, 0.9) * length)
            known = family(process.pid)
            training = [pid for pid, line in known.items() if "RayTrainWorker" in line]
            if process.poll() is None and kills < TRAINING_KILLS:
                victims = choose.choice([[process.pid], training or [process.pid], list(known)])
                kill(victims)
                kills += 1
            ended = process.wait(LONGEST)
            end(process, known)
        assert contents(disturbed.workspace, "models/**/*", *MADE) == expected
    print(f"{kills} kills over {finished} trainings: no difference")  # noqa: T201


def test_little_is_done_again_after_a_kill_near_the_end(tmp_path: Path) -> None:
    """Killed with nine tenths of the blocks done: at most the rest and what was in flight is done again."""
    untrained_model(tmp_path, "third")
    project = make_project(tmp_path, ("small",), predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    write_catalog(tmp_path / "pairs.csv", [write_pair(tmp_path, "long", (30, 40 * 512))])
    log = tmp_path / "log.txt"
    process = start(project, log)
    while len(list(project.workspace.glob("records/changes/long/*/0_*.json"))) < 36:
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.02)
    known = family(process.pid)
    kill(known)
    end(process, known)
    done = len(list(project.workspace.glob("records/changes/long/*/0_*.json")))
    assert start(project, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    entries = json.loads((project.outputs / "log.json").read_text())
    again = next(entry["blocks"] for entry in reversed(entries) if entry["stage"] == "predict")
    assert again == 40 - done <= 4
    assert [entry["blocks"] for entry in entries if entry["stage"] == "ingest"][-1] == 0


def assert_honest(project: Project) -> None:
    """Where there is a manifest, all that it lists is there and is what it says."""
    manifest = read_manifest(here(project.outputs))
    if manifest is not None:
        assert check_manifest(here(project.workspace), manifest) == []


@pytest.mark.parametrize("time", range(TOGETHER))
def test_several_at_once_end_as_one(time: int, project: Project, tmp_path: Path) -> None:
    """One does the work, others give up (75), or wait and find all done."""
    shared, log = Project(project.config, tmp_path / "work"), tmp_path / "log.txt"
    waits = [["--wait"], [], ["--wait"]] if time % 2 else [[], ["--wait"], []]
    runs = [start(shared, log, *more) for more in waits]
    codes = [run.wait(LONGEST) for run in runs]
    assert EXIT_DONE in codes, log.read_text()[-3000:]
    for code, more in zip(codes, waits, strict=True):
        assert code in ((EXIT_DONE,) if more else (EXIT_DONE, EXIT_LOCKED)), log.read_text()[-3000:]
    assert_honest(shared)
    assert contents(shared.workspace, *MADE) == contents(undisturbed(project).workspace, *MADE)


@cache
def undisturbed(project: Project) -> Project:
    """The same, run alone."""
    alone = Project(project.config, project.config.parent / "alone")
    assert start(alone, project.config.parent / "alone.txt").wait(LONGEST) == EXIT_DONE
    return alone
