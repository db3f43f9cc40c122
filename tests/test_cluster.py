"""Starting and joining Ray: what goes wrong there is told in a line, after another try where that may help."""

import os
import subprocess
import sys
from typing import Any

import pytest
import ray
from processes import family, kill

from cdpipe.cluster.session import STARTS, ray_session
from cdpipe.cluster.tasks import describe_failure
from cdpipe.config.resources import Resources
from cdpipe.errors import CdpipeError, ConfigError


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ray is not connected, and every start of it fails."""
    found: list[Any] = []

    def fail(**options: Any) -> None:
        found.append(options["address"])
        raise RuntimeError("the current node\ntimed out")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", fail)
    return found


def test_a_start_is_tried_again_and_then_told(tries: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(CdpipeError, match=f"did not start here, tried {STARTS} times: the current node timed out"),
        ray_session(Resources(), verbose=False),
    ):
        pass
    assert tries == ["local"] * STARTS


def test_a_cluster_that_does_not_answer_is_named(tries: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with (
        pytest.raises(ConfigError, match=r"RAY_ADDRESS=10.0.0.1:6379: expected"),
        ray_session(Resources(), verbose=False),
    ):
        pass
    assert tries == ["10.0.0.1:6379"]


WAITS = """
import signal
import time

import ray
from cdpipe.cluster.session import ray_session
from cdpipe.config.resources import Resources
from cdpipe.errors import CdpipeError

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start what runs in the background
try:
    with ray_session(Resources(workers=1), verbose=False):
        pass  # a stage that has ended: the next one's Ray is another
    with ray_session(Resources(workers=1), verbose=False):
        print("started", flush=True)
        ray.get(ray.remote(lambda: time.sleep(600)).remote())
except CdpipeError as error:
    print(error)
"""


@pytest.mark.timeout(120)
def test_a_run_whose_ray_is_killed_ends_at_once() -> None:
    """Left to itself, Ray would let it wait for minutes."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        known = family(run.pid)
        kill(pid for pid, line in known.items() if "/raylet/raylet" in line.split(" ")[0])
        assert "Ray's raylet on this machine was killed" in run.stdout.read()
        assert run.wait() == 0
    kill(known)


def test_a_failure_is_one_line_without_colours() -> None:
    error = RuntimeError("\x1b[36mray::work()\x1b[39m (pid=1)\n  File x\nValueError: too\x1b[1;31m small\x1b[0m")
    assert describe_failure(error) == "ray::work() (pid=1) File x ValueError: too small"
