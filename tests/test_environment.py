"""Another installation's PROJ in the environment is named, instead of blaming the first file with a CRS."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from cdpipe.api.doctor import examine
from cdpipe.errors import EXIT_CONFIG, EXIT_DONE

OWN = Path(rasterio.__file__).parent / "proj_data"


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run cdpipe in an environment that has these variables besides."""
    plain = {name: value for name, value in os.environ.items() if name not in {"PROJ_DATA", "PROJ_LIB", "GDAL_DATA"}}
    command = [sys.executable, "-m", "cdpipe.cli.main", *arguments]
    return subprocess.run(command, env=plain | variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a PROJ whose database is laid out in an older way."""
    path = tmp_path / "old" / "proj.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("create table metadata(key text, value text)")
        versions = [("DATABASE.LAYOUT.VERSION.MAJOR", "1"), ("DATABASE.LAYOUT.VERSION.MINOR", "0")]
        database.executemany("insert into metadata values(?, ?)", versions)
    database.close()
    return path.parent


@pytest.mark.parametrize("variable", ["PROJ_DATA", "PROJ_LIB"])
def test_an_older_proj_is_named(old: Path, variable: str) -> None:
    found = call("check", "missing.yaml", **{variable: str(old)})
    assert (found.returncode, found.stdout) == (EXIT_CONFIG, "")
    assert found.stderr.count("\n") == 1
    assert f"environment variable {variable}={old}: expected the data of the PROJ that rasterio has" in found.stderr
    assert "LAYOUT.VERSION.MINOR = 0" in found.stderr
    assert f"run cdpipe without it: unset {variable}\n" in found.stderr


@pytest.mark.parametrize(
    ("verb", "folder", "reason"),
    [
        (["doctor"], ".", "there is no proj.db in it"),
        (["check", "missing.yaml"], "gone", "there is no such folder"),
        (["check", "missing.yaml"], "", "no proj.db"),
    ],
)
def test_a_folder_without_proj_is_named(tmp_path: Path, verb: list[str], folder: str, reason: str) -> None:
    value = str(tmp_path / folder) if folder else ""
    found = call(*verb, PROJ_DATA=value, PROJ_LIB=str(OWN))  # the first of both counts
    assert (found.returncode, found.stderr.count("\n")) == (EXIT_CONFIG, 1)
    assert f"PROJ_DATA={value}: " in found.stderr
    assert reason in found.stderr


def test_what_needs_no_proj_does_not_ask_for_it(tmp_path: Path) -> None:
    assert call("--help", PROJ_DATA=str(tmp_path)).returncode == EXIT_DONE


@pytest.mark.skipif(not OWN.is_dir(), reason="a rasterio without data of its own")
def test_a_good_folder_is_taken(tmp_path: Path) -> None:
    found = call("check", str(tmp_path / "missing.yaml"), PROJ_DATA=str(OWN))
    assert "expected a readable YAML file" in found.stderr


def test_doctor_tells_variables_that_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_DATA", "/opt/qgis/share/gdal")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert any("GDAL_DATA=/opt/qgis/share/gdal: read instead of" in line for line in examine().advice)
