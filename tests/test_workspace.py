"""The workspace's small files survive a kill at any moment, and one run at a time holds it."""

import errno
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.errors import EXIT_LOCKED, ConfigError, LockedError
from cdpipe.workspace.disk import LITTLE, describe_free, found_no_room, sync_folder
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace, locked, refuse_job_copy
from cdpipe.workspace.location import here

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def test_everything_has_a_place_of_its_own() -> None:
    workspace = Workspace(here(Path("/w")))
    places = [
        workspace.group("pairs", "p", "k"),
        workspace.group("labels", "p", "k"),
        workspace.group("pairs", "p", "l"),
        workspace.group("pairs", "q", "k"),
        workspace.records("pairs", "p", "k"),
        workspace.sources,
        workspace.model("m", "k"),
        workspace.run("m"),
    ]
    assert len(set(places)) == len(places)
    assert all(place.is_relative_to(here(Path("/w"))) for place in places)


KILLED = """
import os, signal, sys
from pathlib import Path
from cdpipe.workspace import disk
from cdpipe.workspace.location import here
def die(*arguments, **named): os.kill(os.getpid(), signal.SIGKILL)
target, moment = Path(sys.argv[1]), sys.argv[2]
places = {"write": (os, "fsync"), "replace": (Path, "replace"), "sync": (disk, "sync_folder")}
setattr(*places[moment], die)
here(target).write(b"new" * 100_000)
"""


@pytest.mark.parametrize(("moment", "content"), [("write", b"old"), ("replace", b"old"), ("sync", b"new" * 100_000)])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, moment: str, content: bytes) -> None:
    target = tmp_path / "record.json"
    here(target).write(b"old")
    run = subprocess.run([sys.executable, "-c", KILLED, str(target), moment], check=False)
    assert run.returncode == -signal.SIGKILL
    assert target.read_bytes() == content
    here(tmp_path).sweep()
    assert list(tmp_path.iterdir()) == [target]
    here(target).write(b"newer")
    assert target.read_bytes() == b"newer"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "record.json"
    here(target).write(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            here(target).write(b"new")
    assert target.read_bytes() == b"old"


def test_a_full_disk_is_told_from_other_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_no_room(f"block 0,0: OSError: {OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'store/c/0/0')}")
    assert not found_no_room("a.tif: not readable as a raster: Read error at scanline 300")
    raster = tmp_path / "rasters" / "a.tif"
    usage = shutil.disk_usage(tmp_path)
    for free, full in ((LITTLE - 1, True), (LITTLE, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        assert (
            found_no_room(f"{raster} could not be written: Write error. {describe_free(here(raster).temporary())}")
            == full
        )
        assert "make room" in describe_free(here(raster).temporary())
        assert str(tmp_path) in describe_free(here(raster).temporary())


@given(value=JSON)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("j") / "value.json"
    write_json(here(path), value)
    assert read_json(here(path)) == value
    data = path.read_bytes()
    write_json(here(path), dict(reversed(value.items())) if isinstance(value, dict) else value)
    assert path.read_bytes() == data


def test_no_number_is_null_in_json(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(here(path), {"a": math.nan, "b": [1.0, (math.nan, {"c": math.nan})]})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.0, [None, {"c": None}]]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(here(path), [math.inf])
    assert json.loads(path.read_text())["a"] is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"a": 1} x', b"nope"])
def test_a_damaged_json_file_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "value.json"
    assert read_json(here(path)) is None
    path.write_bytes(data)
    assert read_json(here(path)) is None
    assert read_json(here(path / "below.json")) is None


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_file_s_hash_is_its_sha256(tmp_path: Path, size: int) -> None:
    data = bytes(index % 251 for index in range(1000)) * (size // 1000) + b"x" * (size % 1000)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert here(path).sha256() == hashlib.sha256(data).hexdigest()


def test_sweeping_removes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / "a.json", tmp_path / "deep" / "partial", tmp_path / "deep" / "b.partial.json"]
    leftovers = [tmp_path / "a.json.12.partial", tmp_path / "deep" / "group.7.partial" / "c" / "0.partial"]
    for path in (*kept, *leftovers):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    here(tmp_path).sweep()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not (tmp_path / "deep" / "group.7.partial").exists()
    here(tmp_path / "nothing").sweep()


def test_a_folder_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nothing")


HOLDER = """
import sys
from pathlib import Path
from cdpipe.workspace.layout import Workspace, locked
from cdpipe.workspace.location import locate
with locked(Workspace(locate(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the workspace until it is told to end."""
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_processes_never_hold_one_workspace(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    with holder(workspace.root.local()):
        with pytest.raises(LockedError, match="another run is writing to it") as raised, locked(workspace):
            pass
        assert raised.value.exit_code == EXIT_LOCKED == 75
        with locked(Workspace(here(tmp_path / "other"))):
            pass


@pytest.mark.parametrize("end", ["kill", "return"])
def test_the_lock_ends_with_its_holder_however_that_ends(tmp_path: Path, end: str) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    with holder(workspace.root.local()) as process:
        if end == "kill":
            process.kill()
        elif process.stdin:
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(60) == (-signal.SIGKILL if end == "kill" else 0)
        with locked(workspace):
            pass


def test_the_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    with pytest.raises(KeyError), locked(workspace):
        raise KeyError("bug")
    with locked(workspace), pytest.raises(LockedError), locked(workspace):
        pass


def test_a_workspace_that_cannot_be_written_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for root in (file, file / "below"):
        with pytest.raises(ConfigError, match="expected a folder that can be written"), locked(Workspace(here(root))):
            pass


def test_a_submitted_job_s_copy_of_the_folder_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "package" / "work"
    with pytest.raises(ConfigError, match="outputs would be lost; give an absolute path"):
        refuse_job_copy(here(copy))
    with pytest.raises(ConfigError, match="outputs would be lost"), locked(Workspace(here(copy))):
        pass
    assert not copy.exists()
    for path in ("/data/work", "/data/working_dir_files/work", "/data/runtime_resources/work"):
        refuse_job_copy(here(Path(path)))
