"""The manifest: what was written comes back, and half of one is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from cdpipe.runs.manifest import Manifest, ManifestPair, manifest_path, read_manifest, write_manifest
from cdpipe.workspace.location import here

FULL = Manifest(
    name="north",
    models=[{"name": "m", "layer": "m", "key": "0" * 12, "folder": "models/m/k", "weight": 0.5, "threshold": None}],
    ensemble="mean",
    threshold=0.1 + 0.2,
    fitted_on="validation pairs a and ü",
    pairs=[
        ManifestPair("a", "val", "k1", "k2", {"m": "k3"}, "k4", {"runs/north/rasters/a.tif": "ab"}),
        ManifestPair("b", None, "k1", None, {}, "k4", {}),
    ],
    failed={"c": "c.tif: damaged"},
)


@pytest.mark.parametrize("manifest", [FULL, Manifest("empty", [], "vote", 0.5, "nothing", [])])
def test_a_manifest_comes_back(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(here(tmp_path / "run"), manifest)
    assert read_manifest(here(tmp_path / "run")) == manifest
    data = manifest_path(here(tmp_path / "run")).read_bytes()
    write_manifest(here(tmp_path / "run"), manifest)
    assert manifest_path(here(tmp_path / "run")).read_bytes() == data


def test_a_manifest_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    assert read_manifest(here(tmp_path)) is None
    write_manifest(here(tmp_path), FULL)
    data = manifest_path(here(tmp_path)).read_bytes()
    for length in range(len(data) - 1):  # the last character is a line's end
        manifest_path(here(tmp_path)).local().write_bytes(data[:length])
        assert read_manifest(here(tmp_path)) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        [],
        {},
        {"pairs": None},
        {"pairs": [1]},
        {"pairs": [{}]},
        {"pairs": []},
        {"name": "x", "pairs": [], "colour": 1},
    ],
)
def test_another_json_file_is_no_manifest(tmp_path: Path, value: Any) -> None:
    manifest_path(here(tmp_path)).local().write_text(json.dumps(value))
    assert read_manifest(here(tmp_path)) is None
