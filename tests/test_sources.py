"""Hashes of sources are remembered as long as the files stay as they were."""

import hashlib
import os
from pathlib import Path

import pytest

from cdpipe.pairs.plan import known_hashes, remember_hashes, stamp_before_hashing
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here


def make_sources(folder: Path) -> list[Path]:
    files = [folder / name for name in ("a.tif", "b.tif")]
    for file in files:
        file.write_bytes(file.name.encode())
    return files


def remember(workspace: Workspace, *files: Path) -> None:
    remember_hashes(workspace, {here(file): (here(file).sha256(), stamp_before_hashing(here(file))) for file in files})


def test_what_was_hashed_is_known(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    one, two = make_sources(tmp_path)
    assert known_hashes(workspace, [here(one), here(two)]) == {}
    remember(workspace, one)
    assert known_hashes(workspace, [here(one), here(two)]) == {here(one): hashlib.sha256(b"a.tif").hexdigest()}
    remember(workspace, two)
    assert known_hashes(Workspace(here(tmp_path / "w")), [here(two), here(one)]) == {
        here(one): here(one).sha256(),
        here(two): here(two).sha256(),
    }
    assert known_hashes(workspace, [here(two)]) == {here(two): here(two).sha256()}


@pytest.mark.parametrize("change", ["size", "time", "older", "gone", "folder"])
def test_what_has_changed_since_is_not_known(tmp_path: Path, change: str) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    one, two = make_sources(tmp_path)
    remember(workspace, one, two)
    when = one.stat().st_mtime_ns
    if change == "size":
        one.write_bytes(b"longer than before")
        os.utime(one, ns=(when, when))
    elif change in ("time", "older"):
        shift = 1 if change == "time" else -(10**9)
        os.utime(one, ns=(when, when + shift))
    else:
        one.unlink()
        if change == "folder":
            one.mkdir()
    assert known_hashes(workspace, [here(one), here(two)]) == {here(two): here(two).sha256()}
    if change == "size":
        remember(workspace, one)
        assert known_hashes(workspace, [here(one)]) == {here(one): hashlib.sha256(b"longer than before").hexdigest()}


def test_a_change_while_hashing_shows(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    one, _ = make_sources(tmp_path)
    stamp = stamp_before_hashing(here(one))
    sha = here(one).sha256()
    one.write_bytes(b"written over while it was read")
    remember_hashes(workspace, {here(one): (sha, stamp)})
    assert known_hashes(workspace, [here(one)]) == {}


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path / "w"))
    one, _ = make_sources(tmp_path)
    remember(workspace, one)
    workspace.sources.local().write_text("{")
    assert known_hashes(workspace, [here(one)]) == {}
    remember(workspace, one)
    assert known_hashes(workspace, [here(one)]) == {here(one): here(one).sha256()}
