"""A full disk is loud, publishes nothing, and with room the same command ends as if it had never been full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import PRODUCTS, Project, call, contents, make_project, succeed, untrained_model

from cdpipe.errors import EXIT_DONE
from cdpipe.runs.manifest import read_manifest
from cdpipe.workspace.location import here

MADE = ("store.zarr/**/*", "records/*/*/*/*.json", *PRODUCTS, "runs/run/manifest.json")
ROOM = "64m"
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("full")
    untrained_model(folder, "third")
    predict = {"models": ["third"], "tta": "none", "threshold": 0.5, "model_rasters": True}
    project = make_project(folder, predict=predict)
    succeed(project.arguments("pipeline"))
    return project


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which may be resized."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def test_a_disk_of_any_size_is_enough_or_says_so(project: Project, disk: Path) -> None:
    """From nothing to all that is needed, in ten steps, each beginning anew."""
    needed = sum(path.stat().st_size for path in project.workspace.rglob("*") if path.is_file())
    failed = unfinished = 0
    for step in range(10):
        workspace = disk / f"work{step}"
        small = Project(project.config, workspace)
        resize(disk, f"{max(16, int(needed * (step + 0.5) / 10 / 1024))}k")
        found = call(small.arguments("pipeline"))
        assert "Traceback" not in found.out + found.err
        if found.code != EXIT_DONE:
            failed += 1
            # GDAL's own words rarely say that a disk is full; ours then say how much is free
            assert any(words in found.out + found.err for words in ("No space left on device", "make room")), found
            assert str(workspace) in found.out + found.err
            manifest = read_manifest(here(small.outputs))
            # one that is there vouches for all predictions and products: the report found no room
            assert manifest is None or contents(workspace, *MADE) == contents(project.workspace, *MADE)
            unfinished += manifest is None
            resize(disk, ROOM)
            succeed(small.arguments("pipeline"))
        assert contents(workspace, *MADE) == contents(project.workspace, *MADE)
        succeed(small.arguments("verify"))
        subprocess.run(["rm", "-rf", workspace], check=True)
    assert failed >= unfinished >= 5
