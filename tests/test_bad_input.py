"""What is wrong with the input is told in one line that names pair and file, before anything is written."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from project import SENSOR, Call, Project, call, make_project, snapshot, succeed, untrained_model, write_catalog
from rasters import NORTH_UP, utm_grid, write_raster

from cdpipe.cluster.ingest import hash_files
from cdpipe.cluster.spread import done_by
from cdpipe.errors import EXIT_CONFIG, EXIT_INPUT, EXIT_LOCKED, EXIT_PARTIAL
from cdpipe.geo.grid import Grid
from cdpipe.workspace.files import read_json
from cdpipe.workspace.layout import Workspace, locked
from cdpipe.workspace.location import here

PAIRS = ("val", "test", "small")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three good pairs and a model that needs no training."""
    return make_project(tmp_path, PAIRS, predict={"models": ["third"], "tta": "none", "threshold": 0.5})


@pytest.fixture
def with_model(project: Project) -> Project:
    untrained_model(project.config.parent, "third")
    return project


def scene(project: Project, pair_id: str, name: str) -> Path:
    return project.config.parent / pair_id / f"{name}.tif"


def rewrite_config(project: Project, **sections: Any) -> None:
    values = yaml.safe_load(project.config.read_text())
    project.config.write_text(yaml.safe_dump({**values, **sections}))


def refuse(project: Project, code: int, *parts: str, verb: str = "pipeline") -> Call:
    """Run a job that must end with a code and say all the parts in one line, with nothing written."""
    result = call(project.arguments(verb))
    assert result.code == code, result
    assert "Traceback" not in result.out + result.err
    assert result.err.startswith("cdpipe: ")
    assert len([line for line in result.err.splitlines() if all(part in line for part in parts)]) == 1, result.err
    written = {path.relative_to(project.workspace).name for path in project.workspace.rglob("*") if path.is_file()}
    assert written <= {".lock", "failed.json"}
    return result


def remove(project: Project) -> None:
    scene(project, "test", "after").unlink()


def scribble(project: Project) -> None:
    scene(project, "test", "after").write_bytes(b"II*\0 this is no image")


def move_far(project: Project) -> None:
    a, b, c, d, e, f = NORTH_UP
    grid = Grid(101, 83, (a, b, c + 75 * a, d, e, f), utm_grid(1, 1).crs)
    write_raster(scene(project, "test", "after"), np.ones((3, 101, 83), np.uint16), grid)


def drop_a_role(project: Project) -> None:
    sensors = {"s": SENSOR, "panchromatic": {"bands": {"red": 1, "green": 2}}}
    rewrite_config(project, sensors=sensors)
    text = (project.config.parent / "pairs.csv").read_text().splitlines()
    rows = [text[0] + ",before_sensor,after_sensor", *(f"{row},s,s" for row in text[1:])]
    rows[2] = rows[2].removesuffix("s") + "panchromatic"
    (project.config.parent / "pairs.csv").write_text("\n".join(rows) + "\n")


def shrink_label(project: Project) -> None:
    write_raster(scene(project, "test", "label"), np.zeros((50, 50), np.uint8))


def undeclared_value(project: Project) -> None:
    write_raster(scene(project, "test", "label"), np.full((101, 83), 7, np.uint8), utm_grid(101, 83))


@pytest.mark.parametrize(
    ("spoil", "file", "says"),
    [
        (remove, "after.tif", "no such file"),
        (scribble, "after.tif", "not readable as a raster"),
        (move_far, "after.tif", "expected at least 10%"),
        (drop_a_role, "before.tif", "no band blue"),
        (shrink_label, "label.tif", "50 x 50 px without georeference; expected 83 x 101 px"),
        (undeclared_value, "label.tif", "value(s) 7"),
    ],
)
def test_a_pair_that_cannot_be_used(
    with_model: Project, spoil: Callable[[Project], None], file: str, says: str
) -> None:
    spoil(with_model)
    refuse(with_model, EXIT_INPUT, "pair test", f"test/{file}", says)
    refuse(with_model, EXIT_INPUT, "pair test", f"test/{file}", says, verb="ingest")


def test_all_bad_pairs_are_told_at_once(with_model: Project) -> None:
    remove(with_model)
    scene(with_model, "small", "before").write_bytes(b"")
    result = refuse(with_model, EXIT_INPUT, "pair small", "small/before.tif")
    assert "2 problem(s)" in result.err
    assert "pair test" in result.err
    assert "--keep-going" in result.err


def test_a_misspelt_key(project: Project) -> None:
    rewrite_config(project, predict={"overlapp": 0.1})
    refuse(project, EXIT_CONFIG, "predict.overlapp", "unknown key", "did you mean overlap?")


def test_a_model_that_is_not_there(project: Project) -> None:
    refuse(project, EXIT_INPUT, "third", "expected a model folder")


def test_labels_without_any_change(tmp_path: Path) -> None:
    project = make_project(tmp_path, ("wide", "val"))
    write_raster(scene(project, "wide", "label"), np.zeros((60, 1101), np.uint8), utm_grid(60, 1101))
    refuse(project, EXIT_INPUT, "no label of a training pair has a changed pixel")


def test_pairs_that_are_no_pairs(shared: Path, tmp_path: Path) -> None:
    """Another zone half a world away; 26 km apart in a projection without a name."""
    folder = shared / "data" / "mismatched"
    project = make_project(tmp_path, (), sensors={"s": {"bands": {"red": 1, "green": 1, "blue": 1}}})
    dates = {"ms": ("multispectral_t1.tif", "multispectral_t2.tif"), "sar": ("sar_t1.tiff", "sar_t2.tiff")}
    rows = [
        {"pair_id": pair_id, "before": str(folder / before), "after": str(folder / after)}
        for pair_id, (before, after) in dates.items()
    ]
    write_catalog(tmp_path / "pairs.csv", rows)
    for pair_id, (_, after) in dates.items():
        refuse(project, EXIT_INPUT, f"pair {pair_id}", after, "expected at least 10%")


def test_a_workspace_that_ray_will_throw_away(project: Project) -> None:
    copy = project.config.parent / "runtime_resources" / "working_dir_files" / "_ray_pkg_0" / "work"
    refuse(Project(project.config, copy), EXIT_CONFIG, str(copy), "absolute path")
    assert not copy.exists()


def test_a_second_run_in_the_same_workspace(with_model: Project) -> None:
    with locked(Workspace(here(with_model.workspace))):
        refuse(with_model, EXIT_LOCKED, str(with_model.workspace), "another run")


@pytest.mark.usefixtures("in_threads")
def test_a_pair_without_a_valid_pixel_is_gone_around(with_model: Project) -> None:
    """Only reading all of it shows it: the other pairs are in the store by then."""
    write_raster(scene(with_model, "test", "after"), np.zeros((3, 101, 83), np.uint16), utm_grid(101, 83), nodata=0)
    result = call(with_model.arguments("ingest"))
    assert result.code == EXIT_PARTIAL
    failed = [line for line in result.out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert failed[0].startswith("failed: pair test: no pixel is observed at both dates")
    assert "Traceback" not in result.out + result.err
    finished = {path.parts[-3] for path in with_model.workspace.glob("records/pairs/*/*/group.json")}
    assert finished == {"val", "small"}


@pytest.mark.usefixtures("in_threads")
def test_bad_pairs_are_gone_around_and_later_repaired_alone(with_model: Project) -> None:
    project, good = with_model, scene(with_model, "test", "after").read_bytes()
    scribble(project)
    ingested = call(project.arguments("ingest", "--keep-going"))
    assert ingested.code == EXIT_PARTIAL
    assert "failed: pair test: " in ingested.out
    stored = next(project.workspace.glob("store.zarr/pairs/small/*/before/c/0/0/0"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")

    predicted = call(project.arguments("predict"))
    assert predicted.code == EXIT_PARTIAL
    assert "failed: pair small: block 0,0: " in predicted.out
    assert [pair.pair_id for pair in project.manifest.pairs] == ["val"]
    assert project.manifest.failed.keys() == {"small", "test"}
    assert "test/after.tif" in project.manifest.failed["test"]
    assert str(stored.relative_to(project.workspace)) in call(project.arguments("verify")).err
    val = snapshot(project.workspace, "store.zarr/*/val/**/*", "records/*/val/**/*", "runs/run/rasters/val_*")

    scene(project, "test", "after").write_bytes(good)
    repaired = succeed(project.arguments("pipeline", "--failed"))
    assert "2 pair(s) in" in repaired.out
    assert [pair.pair_id for pair in project.manifest.pairs] == list(PAIRS)
    now = snapshot(project.workspace, "store.zarr/*/val/**/*", "records/*/val/**/*", "runs/run/rasters/val_*")
    assert {name: now[name] for name in val} == val  # its figures and pages are new
    assert read_json(here(project.outputs / "failed.json")) == {}
    assert json.loads((project.outputs / "manifest.json").read_text())["failed"] == {}
    again = call(project.arguments("pipeline", "--failed"))
    assert again.code == EXIT_INPUT
    assert "no pair of run run failed last time" in again.err


def test_a_file_that_is_gone_before_it_is_hashed_is_named_with_the_reason(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.write_bytes(b"abc")
    with done_by(2):
        hashed = list(hash_files([here(there), here(gone)], lambda _: None))
    found = {path.local(): (sha256, reason) for path, sha256, reason in hashed}
    assert (found[there][0] or ("", []))[0] == hashlib.sha256(b"abc").hexdigest()
    assert found[gone][0] is None
    assert found[gone][1].startswith(f"{gone}: ")
    assert "No such file" in found[gone][1]
