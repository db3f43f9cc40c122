"""Shifts that the check has measured are remembered by what they were measured from, and by nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import make_config, source_of, utm_grid, write_raster

from cdpipe.config.schema import Config
from cdpipe.pairs import shifts
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.coregistration import Shift
from cdpipe.pairs.plan import source_files
from cdpipe.pairs.shifts import Measured, recall_shifts, remember_shifts
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here

GRID = utm_grid(40, 50)
FOUND = Shift(0.1 + 0.2, -1.25, 0.4, 0.05, 1.0, 5)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config(tmp_path)


@pytest.fixture
def pair(tmp_path: Path, config: Config) -> Pair:
    random = np.random.default_rng(0)
    paths = [
        write_raster(tmp_path / f"{name}.tif", random.integers(0, 9, (3, 40, 50), np.uint8), GRID) for name in "ab"
    ]
    before, after = (source_of(path, config, (1, 2, 3)) for path in paths)
    return Pair("p", "p", before, after, ("red", "green", "blue"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pairs that are measured."""
    found: list[str] = []

    def measure(pair: Pair, *_: Any) -> Shift:
        found.append(pair.pair_id)
        return FOUND

    monkeypatch.setattr(shifts, "estimate_shift", measure)
    return found


def hashes(pair: Pair, config: Config) -> dict[Location, str]:
    return {path: path.sha256() for path in source_files(pair, config)}


def ask(workspace: Workspace, pair: Pair, config: Config, known: dict[Location, str]) -> Shift | None:
    """Measure as an ingest does, and remember what was measured."""
    measured: list[Measured] = []
    shift = recall_shifts(workspace, known, measured)(pair, GRID, config)
    remember_shifts(workspace, config, measured, known)
    return shift


def test_what_is_remembered_is_not_measured_again(tmp_path: Path, pair: Pair, config: Config, asked: list[str]) -> None:
    workspace, known = Workspace(here(tmp_path / "work")), hashes(pair, config)
    assert [ask(workspace, pair, config, known) for _ in range(3)] == [FOUND] * 3
    assert asked == ["p"]


def test_that_nothing_could_be_measured_is_remembered(
    tmp_path: Path, pair: Pair, config: Config, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    workspace, known = Workspace(here(tmp_path / "work")), hashes(pair, config)
    with monkeypatch.context() as patch:
        patch.setattr(shifts, "estimate_shift", lambda *_: None)
        assert ask(workspace, pair, config, known) is None
    assert ask(workspace, pair, config, known) is None
    assert asked == []


def test_files_and_options_make_another(tmp_path: Path, pair: Pair, config: Config, asked: list[str]) -> None:
    workspace, known = Workspace(here(tmp_path / "work")), hashes(pair, config)
    ask(workspace, pair, config, known)
    ask(workspace, pair, make_config(tmp_path, align={"resampling": "cubic"}), known)
    assert len(asked) == 2
    with pair.after.path.local().open("ab") as file:
        file.write(b"\0")
    ask(workspace, pair, config, hashes(pair, config))
    assert len(asked) == 3


def test_without_hashes_everything_is_measured(tmp_path: Path, pair: Pair, config: Config, asked: list[str]) -> None:
    workspace = Workspace(here(tmp_path / "work"))
    assert [ask(workspace, pair, config, {}) for _ in range(2)] == [FOUND] * 2
    assert len(asked) == 2
    assert not workspace.shifts.is_file()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]\n"])
def test_a_damaged_memory_is_made_anew(
    tmp_path: Path, pair: Pair, config: Config, asked: list[str], damage: bytes
) -> None:
    workspace, known = Workspace(here(tmp_path / "work")), hashes(pair, config)
    ask(workspace, pair, config, known)
    workspace.shifts.local().write_bytes(damage)
    assert ask(workspace, pair, config, known) == FOUND
    assert ask(workspace, pair, config, known) == FOUND
    assert len(asked) == 2
