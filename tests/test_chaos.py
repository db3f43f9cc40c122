"""Random kills of anything at any time: however often a run is disturbed, it ends with the undisturbed bytes.

How many kills there are is ``CDPIPE_CHAOS_KILLS`` (``make chaos-short``: 30, ``make chaos``: 300).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from project import Project, contents, make_project, untrained_model, write_catalog, write_pair

from cdpipe.formats.manifest import read_manifest
from cdpipe.stages.integrity import check_manifest
from cdpipe.values.errors import EXIT_DONE

REPOSITORY = Path(__file__).resolve().parents[1]
MADE = ("store.zarr/**/*", "records/*/*/*/*.json", "runs/run/rasters/*", "runs/run/manifest.json")
KILLS = int(os.environ.get("CDPIPE_CHAOS_KILLS", "30"))
LONGEST = 300  # seconds that a run left alone may take
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(4 * 3600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Ingest, predict and export of a few pairs; training has kills of its own."""
    folder = tmp_path_factory.mktemp("chaos")
    untrained_model(folder, "third")
    return make_project(folder, predict={"models": ["third"], "tta": "none", "threshold": 0.5, "model_rasters": True})


def start(project: Project, log: Path) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "jobs/pipeline.py", *project.arguments("pipeline")[1:]]
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )


def family(parent: int) -> dict[int, str]:
    """Command lines of a process and of all that descend from it."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found, wanted = {parent: lines.get(parent, "")}, {parent}
    while wanted:
        wanted = {pid for pid, above in parents.items() if above in wanted}
        found |= {pid: lines.get(pid, "") for pid in wanted}
    return found


def victims(choose: random.Random, process: "subprocess.Popen[bytes]") -> tuple[str, list[int]]:
    """What is killed, and the processes that are."""
    everything = family(process.pid)
    workers = [pid for pid, line in everything.items() if line.startswith("ray::")]
    raylet = [pid for pid, line in everything.items() if "/raylet/raylet" in line.split(" ")[0]]
    kind = choose.choice(["driver", "all", "worker", "worker", "raylet"])
    chosen = {"driver": [process.pid], "all": list(everything), "raylet": raylet}.get(kind)
    if chosen is None:
        chosen = [choose.choice(workers)] if workers else []
    return kind, chosen


def end(process: "subprocess.Popen[bytes]", known: dict[int, str]) -> None:
    """Wait for what a killed driver left behind: Ray's workers notice, and end by themselves; its agents linger."""
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not [pid for pid in known if Path(f"/proc/{pid}/cmdline").exists() and b"ray" in read(pid)]:
            return
        time.sleep(0.2)
    for pid in known:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def read(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_random_kills(project: Project, tmp_path: Path) -> None:
    log, choose = tmp_path / "log.txt", random.Random(KILLS)
    undisturbed = Project(project.config, tmp_path / "undisturbed")
    began = time.monotonic()
    assert start(undisturbed, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    length = time.monotonic() - began
    expected = contents(undisturbed.workspace, *MADE)
    kills: dict[str, int] = {}
    finished = number = 0
    while sum(kills.values()) < KILLS:
        number += 1
        disturbed = Project(project.config, tmp_path / f"work{number}")
        ended = None
        while ended != EXIT_DONE:
            process = start(disturbed, log)
            if sum(kills.values()) < KILLS:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(choose.uniform(0.3, 1.0) * length)
                kind, chosen = victims(choose, process)
                known = family(process.pid)
                if process.poll() is None and chosen:
                    kills[kind] = kills.get(kind, 0) + 1
                    for pid in chosen:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
            else:
                known = family(process.pid)
            ended = process.wait(LONGEST)
            end(process, known)
            assert_honest(disturbed)
        assert contents(disturbed.workspace, *MADE) == expected, f"after {kills}"
        finished += 1
    print(f"{sum(kills.values())} kills ({kills}) over {finished} workspaces: no difference")  # noqa: T201


def test_training_killed_at_random_ends_with_the_same_weights(tmp_path: Path) -> None:
    """As bits: on a CPU every sample and every operation is determined."""
    project, log, choose = make_project(tmp_path), tmp_path / "log.txt", random.Random(KILLS)
    undisturbed = Project(project.config, tmp_path / "undisturbed")
    began = time.monotonic()
    assert start(undisturbed, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    length = time.monotonic() - began
    expected = contents(undisturbed.workspace, "models/**/*", *MADE)
    kills = finished = 0
    while kills < max(2, KILLS // 15):
        finished += 1
        disturbed, ended = Project(project.config, tmp_path / f"work{finished}"), None
        while ended != EXIT_DONE:
            process = start(disturbed, log)
            with suppress(subprocess.TimeoutExpired):
                process.wait(choose.uniform(0.3, 0.9) * length)
            known = family(process.pid)
            training = [pid for pid, line in known.items() if "RayTrainWorker" in line]
            for pid in choose.choice([[process.pid], training, list(known)]) if process.poll() is None else []:
                kills += pid in (process.pid, *training)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
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
    for pid in known:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end(process, known)
    done = len(list(project.workspace.glob("records/changes/long/*/0_*.json")))
    assert start(project, log).wait() == EXIT_DONE, log.read_text()[-3000:]
    entries = json.loads((project.outputs / "log.json").read_text())
    again = next(entry["blocks"] for entry in reversed(entries) if entry["stage"] == "predict")
    assert again == 40 - done <= 4
    assert [entry["blocks"] for entry in entries if entry["stage"] == "ingest"][-1] == 0


def assert_honest(project: Project) -> None:
    """Where there is a manifest, all that it lists is there and is what it says."""
    manifest = read_manifest(project.outputs)
    if manifest is not None:
        assert check_manifest(project.workspace, manifest) == []


def test_three_at_once_end_as_one(project: Project, tmp_path: Path) -> None:
    """One does the work, one gives up (75), one waits and finds all done."""
    shared, log = Project(project.config, tmp_path / "work"), tmp_path / "log.txt"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "jobs/pipeline.py", *shared.arguments("pipeline")[1:]]
    with log.open("ab") as stream:
        runs = [
            subprocess.Popen([*command, *more], cwd=REPOSITORY, stdout=stream, stderr=stream, env=environment)
            for more in (["--wait"], [], ["--wait"], [])
        ]
    codes = [run.wait() for run in runs]
    assert codes[0] == codes[2] == EXIT_DONE, log.read_text()[-3000:]
    assert {codes[1], codes[3]} <= {EXIT_DONE, 75}
    assert_honest(shared)
    assert shared.manifest.pairs
