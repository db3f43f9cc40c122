"""The whole pipeline from bucket to bucket over a bad line: the bytes of a run on a disk, credentials nowhere."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from buckets import SECRET, Proxy, environment, in_environment, new_bucket, running_proxy, running_server
from project import Project, make_project
from test_object_scenes import contents, upload

from cdpipe.workspace.location import here

ROOT = Path(__file__).resolve().parents[1]
# Times, ETags and host names: what a run says of itself, outside of what it promises; and shifts, which are remembered
# of files on this machine alone.
OWN = (
    "records/sources.json",
    "records/shifts.json",
    "runs/run/log.json",
    "runs/run/report/index.html",
    "runs/run/report/index.json",
    ".lock",
)


def run(config: Path, workspace: object, variables: dict[str, str], verb: str = "pipeline") -> str:
    """Run a verb in a process and a Ray of its own; what it printed."""
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "cdpipe.cli.main", verb, str(config), "--set", f"workspace={workspace}"],
        cwd=ROOT,
        env={**known, **variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def kept(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in OWN and not name.startswith("tensorboard/")}


def run_from_bucket_to_bucket(project: Project, tmp_path: Path, proxy: Proxy) -> None:
    bucket = new_bucket(proxy.target)
    upload(project.config.parent, bucket / "data")
    config = tmp_path / "config.yaml"
    values = {**yaml.safe_load(project.config.read_text()), "catalog": f"{bucket}/data/pairs.csv"}
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    variables = environment(proxy.port)
    run(project.config, project.workspace, {})
    proxy.chance = random.Random(5)
    proxy.faults = {"500": 0.02, "503": 0.02, "reset": 0.02, "cut": 0.02, "lost": 0.01, "late": 0.02}
    printed = run(config, bucket / "work", variables)
    assert min(proxy.broken[kind] for kind in proxy.faults) > 0
    proxy.faults = {}
    far = contents(bucket / "work")
    assert kept(far) == kept(contents(here(project.workspace)))
    assert SECRET not in printed
    assert [name for name, data in far.items() if SECRET.encode() in data] == []
    stages = json.loads(far["runs/run/log.json"])
    assert all(stage["requests"]["PUT"] > 0 for stage in stages if stage["stage"] in ("ingest", "predict"))
    # the same command does nothing again
    proxy.seen.clear()
    run(config, bucket / "work", variables)
    assert kept(contents(bucket / "work")) == kept(far)
    run(config, bucket / "work", variables, "verify")


@pytest.mark.heavy
@pytest.mark.timeout(2400)
def test_the_pipeline_from_bucket_to_bucket_gives_the_bytes_of_one_on_a_disk(tmp_path: Path) -> None:
    project = make_project(tmp_path / "near", ("wide", "val", "test"))
    with running_server() as port, running_proxy(port) as proxy, in_environment(port):
        run_from_bucket_to_bucket(project, tmp_path, proxy)
