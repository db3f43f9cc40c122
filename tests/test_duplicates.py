"""One visible result per block: the same work twice, and a worker that wakes up after all was done, change nothing."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from project import Project, contents, make_project, succeed, untrained_model

MADE = ("store.zarr/**/*", "records/*/*/*/*.json")
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.heavy, pytest.mark.timeout(900)]

# All blocks of the project, again, whatever is stored of them already.
AGAIN = """
import sys
from pathlib import Path
from cdpipe.config.load import load_config
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.plan import known_hashes
from cdpipe.workspace.layout import Workspace
from cdpipe.prediction.ensemble import ensemble_block
from cdpipe.pairs.ingest import IngestJob, ingest_block
from cdpipe.pairs.plan import all_source_files, plan_pairs, stored_pair
from cdpipe.prediction.block import load_forward, predict_block
from cdpipe.runs.members import ModelSource, plan_members
from cdpipe.runs.plan import RunPair, Thresholds, pair_ensemble
import torch
torch.set_num_threads(1)
config = load_config(Path(sys.argv[1]))
workspace = Workspace(config.workspace)
pairs = read_catalog(config)
planned, _ = plan_pairs(pairs, config, known_hashes(workspace, all_source_files(pairs, config)))
stored = tuple(stored_pair(workspace, item) for item in planned)
members = plan_members(config, [ModelSource(config.predict.models[0], "third")], "cpu")
thresholds = Thresholds(0.5, {"third": 0.5}, "")
forward = load_forward(members[0])
print("ready", flush=True)
for item, pair in zip(planned, stored, strict=True):
    ensemble = pair_ensemble(config, RunPair(item, pair, None, members), thresholds)
    for key in pair.blocks():
        ingest_block(IngestJob(workspace, config, item), key, imagery=True, label=item.label_key is not None)
        predict_block(workspace, pair, key, members[0], forward)
        ensemble_block(workspace, pair, key, ensemble)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("twice")
    untrained_model(folder, "third")
    project = make_project(folder, predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    succeed(project.arguments("pipeline"))
    return project


def again(project: Project) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", AGAIN, str(project.config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_everything_done_twice_at_once_is_as_done_once(project: Project) -> None:
    expected = contents(project.workspace, *MADE)
    runs = [again(project) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert contents(project.workspace, *MADE) == expected
    assert not list(project.workspace.rglob("*.partial"))


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_was_stopped_past_a_rerun_changes_nothing(project: Project, seed: int) -> None:
    expected, choose = contents(project.workspace, *MADE), random.Random(seed)
    stopped = again(project)
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "ready\n"
    time.sleep(choose.uniform(0, 0.5))
    os.kill(stopped.pid, signal.SIGSTOP)
    assert again(project).wait() == 0
    os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.wait() == 0
    assert contents(project.workspace, *MADE) == expected
    assert not list(project.workspace.rglob("*.partial"))
