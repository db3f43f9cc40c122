"""Starting and joining Ray: what goes wrong there is told in a line, after another try where that may help."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from processes import family, kill

from cdpipe.cluster import session
from cdpipe.cluster.session import SETTINGS, STARTS, ray_session
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


@contextlib.contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """The address of something that takes connections and says this, or nothing while the test lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as kept:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = kept.enter_context(listening.accept()[0])
                    if answer is not None:
                        connection.recv(1024)
                        connection.sendall(answer)
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def join(address: str) -> str:
    """Try to join a cluster there; what is said of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError) as error, ray_session(Resources(), verbose=False):
            pass
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"RAY_ADDRESS={address}: expected a Ray cluster that answers")
    return str(error.value)


def test_a_cluster_that_answers_but_cannot_be_joined_is_named(tries: list[Any]) -> None:
    with server(SETTINGS) as address:
        assert join(address).endswith("the current node timed out")
        assert tries == [address]
        assert join(f"ray://{address}").endswith("the current node timed out")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_told_at_once(tries: list[Any], scheme: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    begun = time.monotonic()
    assert "Connection refused" in join(f"{scheme}{address}")
    assert time.monotonic() - begun < 5
    assert tries == []


def test_what_listens_and_is_no_cluster_is_told(tries: list[Any]) -> None:
    for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00\x00"):
        with server(answer) as address:
            assert "what listens there is none" in join(address)
    assert tries == []


def test_what_listens_and_says_nothing_is_not_waited_for(tries: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.ANSWER_SECONDS < 10
    monkeypatch.setattr(session, "ANSWER_SECONDS", 0.3)
    with server(None) as address:
        join(address)
    # a name that takes a minute to be looked up
    monkeypatch.setattr(socket, "create_connection", lambda *_: time.sleep(3))
    begun = time.monotonic()
    assert "it does not answer" in join("nowhere.example:6379")
    assert time.monotonic() - begun < 2
    assert tries == []


def test_addresses_of_other_kinds_are_left_to_ray(tries: list[Any]) -> None:
    for address in ("auto", "https://head.example/x"):
        assert join(address).endswith("the current node timed out")
    assert tries == ["auto", "https://head.example/x"]


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


def test_what_ended_with_an_earlier_stage_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one's Ray is another: only its end is the end of the run."""
    looks: list[Any] = []

    def is_alive(process: Any) -> bool:
        looks.append(process)
        return session_is_alive(process)

    session_is_alive = session._is_alive
    monkeypatch.setattr(session, "_is_alive", is_alive)
    monkeypatch.setattr(session, "WATCH_SECONDS", 0.01)
    earlier, later = (start_as_raylet(tmp_path) for _ in range(2))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        earlier.kill()
        os.waitid(os.P_PID, earlier.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken note
        with session._watched():
            begun = len(looks)
            wait_until(lambda: len(looks) > begun + 20)  # looked at again and again, and nothing is missed
        with pytest.raises(CdpipeError, match="Ray's raylet on this machine was killed") as told, session._watched():
            end_and_wait(later)
        assert isinstance(told.value.__context__, KeyboardInterrupt)  # it was not waited for in vain
    finally:
        signal.signal(signal.SIGTERM, before)
        for each in (earlier, later):
            each.kill()
            each.wait()


def end_and_wait(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    wait_until(lambda: False)


def start_as_raylet(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that lives until it is killed, by the name of Ray's."""
    program = folder / "raylet"
    if not program.exists():
        program.symlink_to(shutil.which("sleep") or "")
    return subprocess.Popen([program, "600"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_failure_is_one_line_without_colours() -> None:
    error = RuntimeError("\x1b[36mray::work()\x1b[39m (pid=1)\n  File x\nValueError: too\x1b[1;31m small\x1b[0m")
    assert describe_failure(error) == "ray::work() (pid=1) File x ValueError: too small"
