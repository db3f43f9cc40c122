"""The lock of a workspace in a bucket: one holder at a time, and a dead one's successor needs nobody's help."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import Proxy, environment, new_bucket

from cdpipe.errors import LockedError
from cdpipe.workspace import lock
from cdpipe.workspace.clients import Address
from cdpipe.workspace.files import json_bytes, read_json
from cdpipe.workspace.layout import Workspace, locked
from cdpipe.workspace.location import Location
from cdpipe.workspace.lock import confirm, leased

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import sys, time
from cdpipe.workspace import lock
from cdpipe.workspace.location import locate
from cdpipe.workspace.layout import Workspace, locked
lock.RENEWAL, lock.LOOK = 0.2, 0.05
with locked(Workspace(locate(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def workspace(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(lock, "RENEWAL", 0.2)
    monkeypatch.setattr(lock, "LEASE", 1.5)
    monkeypatch.setattr(lock, "LOOK", 0.05)
    proxy.faults = {}
    yield Workspace(new_bucket(proxy.target) / "work")
    proxy.faults = {}


def lock_of(workspace: Workspace) -> Location:
    return workspace.root / ".lock"


def address_of(workspace: Workspace) -> Address:
    bucket, _, key = str(lock_of(workspace)).removeprefix("s3://").partition("/")
    return Address("s3", bucket, key)


def test_a_living_holder_is_seen_and_a_released_lock_taken_at_once(workspace: Workspace) -> None:
    with locked(workspace), pytest.raises(LockedError, match=r"another run.*--wait"), locked(workspace):
        pass
    begun = time.monotonic()
    with locked(workspace):
        assert time.monotonic() - begun < 1
    assert read_json(lock_of(workspace))["released"]


def test_waiting_gets_the_lock_when_its_holder_lets_go(workspace: Workspace) -> None:
    order = []

    def wait() -> None:
        with locked(workspace, wait=True):
            order.append("second")

    with locked(workspace):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(2)  # longer than the lease: a holder that renews keeps it
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_a_killed_holders_lock_is_taken_over(workspace: Workspace, proxy: Proxy) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workspace.root)],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), **environment(proxy.port)},
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError), locked(workspace):
            pass
        holder.kill()
    begun = time.monotonic()
    with locked(workspace):
        assert 1.4 < time.monotonic() - begun < 5


def test_of_many_that_take_over_one_holds_at_a_time(workspace: Workspace) -> None:
    lock_of(workspace).write(json.dumps({"holder": "dead"}).encode())
    inside, most, ended = [0], [0], []
    turn = threading.Lock()

    def contend() -> None:
        with locked(workspace, wait=True):
            with turn:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.1)
            with turn:
                inside[0] -= 1
        ended.append(True)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 4
    assert most == [1]


def test_lost_answers_do_not_lose_the_lock(workspace: Workspace, proxy: Proxy) -> None:
    proxy.faults = {"lost": 0.3, "500": 0.1}
    with locked(workspace, wait=True):
        time.sleep(1)
        confirm(address_of(workspace))
    assert proxy.broken["lost"] > 0


def test_who_lost_the_lock_writes_no_manifest(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWAL", 60.0)  # so that only the manifest's own look finds out
    manifest = workspace.run("run") / "manifest.json"

    def run() -> None:
        with leased(address_of(workspace), wait=False):
            manifest.write_alone(json_bytes({"of": "me"}))
            lock_of(workspace).write(json.dumps({"holder": "another"}).encode())
            manifest.write_alone(json_bytes({"of": "me too"}))

    with pytest.raises(LockedError, match="lock was lost"):
        run()
    assert read_json(manifest) == {"of": "me"}
    assert read_json(lock_of(workspace)) == {"holder": "another"}  # nor is the other's lock let go of


def test_who_loses_the_lock_is_interrupted(workspace: Workspace) -> None:
    def run() -> None:
        with locked(workspace):
            lock_of(workspace).write(json.dumps({"holder": "another"}).encode())
            time.sleep(20)

    # as in a shell's foreground, whatever the tests before and the shell have made of it
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    begun = time.monotonic()
    try:
        with pytest.raises(LockedError, match="lock was lost"):
            run()
    finally:
        signal.signal(signal.SIGINT, found)
    assert time.monotonic() - begun < 5
