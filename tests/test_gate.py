"""The gate, fed anything: every file is stored as rasterio reads it, or refused in one line, with nothing written."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from project import call, make_project, untrained_model, write_catalog
from rasterio.errors import RasterioError
from rasters import make_config, source_of, utm_grid, write_raster
from trials import ACCEPTED, Trial, run_trials

from cdpipe.config.schema import Input
from cdpipe.errors import EXIT_INPUT, InputError
from cdpipe.evaluation.tables import write_agreement
from cdpipe.formats.gate import describe_raster
from cdpipe.formats.tables import plain_cell
from cdpipe.geo.grid import Window
from cdpipe.models.folder import load_network, read_card, save_model
from cdpipe.models.reading import read_weights
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.workspace.location import here


def odd_files(shared: Path) -> list[Path]:
    files = sorted((shared / "data" / "oddtiffs").glob("*.tif*"))
    assert len(files) > 100
    return files


def is_large(path: Path) -> bool:
    """Whether it is a good file that takes seconds, which the heavy tests do."""
    try:
        with rasterio.open(path) as dataset:
            return bool(3_000_000 < dataset.height * dataset.width < 10_000_000)
    except RasterioError:
        return False


def test_odd_files_are_stored_right_or_refused(shared: Path, tmp_path: Path) -> None:
    trials = (Trial(path, label=True) for path in odd_files(shared) if not is_large(path))
    outcomes = run_trials(trials, tmp_path)
    assert outcomes.count(ACCEPTED) > 40
    assert len(set(outcomes)) > 10


@pytest.mark.heavy
@pytest.mark.parametrize("pixel_coordinates", [False, True])
@pytest.mark.parametrize("place", ["before", "after", "dates", "label"])
def test_odd_files_in_every_place(shared: Path, tmp_path: Path, place: str, pixel_coordinates: bool) -> None:
    where = {name: place in (name, "dates") for name in ("before", "after")} | {"label": place == "label"}
    trials = (Trial(path, **where, pixel_coordinates=pixel_coordinates) for path in odd_files(shared))
    outcomes = run_trials(trials, tmp_path)
    assert outcomes.count(ACCEPTED) > (30 if place == "label" else 50)
    assert len(set(outcomes)) > 10


def not_a_raster(path: Path) -> None:
    path.write_bytes(b"")


def elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(write_raster(path.parents[2] / "secret.tif", np.ones((3, 101, 83), np.uint16), utm_grid(101, 83)))


def virtual(path: Path) -> None:
    path.write_text('<VRTDataset rasterXSize="83" rasterYSize="101"/>')


def complex_numbers(path: Path) -> None:
    write_raster(path, np.ones((3, 101, 83), np.complex64), utm_grid(101, 83))


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


@pytest.mark.parametrize("spoil", [not_a_raster, elsewhere, virtual, complex_numbers, short])
@pytest.mark.parametrize("name", ["before", "after", "label"])
def test_a_refusal_is_one_line_and_exit_3_and_writes_nothing(tmp_path: Path, spoil: object, name: str) -> None:
    project = make_project(tmp_path / "data", ("test",), input={"roots": ["."]})
    path = project.config.parent / "test" / f"{name}.tif"
    assert callable(spoil)
    spoil(path)
    found = call(project.arguments("ingest"))
    assert found.code == EXIT_INPUT
    assert "Traceback" not in found.out + found.err
    told = [line for line in found.err.splitlines() if str(path) in line]
    assert len(told) == 1
    assert told[0].lstrip().startswith("pair test: ")
    written = {file.name for file in project.workspace.rglob("*") if file.is_file()}
    assert written <= {".lock", "failed.json"}


@pytest.mark.parametrize(
    "pair_id",
    ["../x", "/x", "x/y", ".x", "-x", "x\0y", "x y", "x\ny", "", "a" * 129, "~", "x:y", "=1", "\u0445", "x\\y", "con?"],
)
def test_ids_that_could_leave_their_folder_are_refused(tmp_path: Path, pair_id: str) -> None:
    write_catalog(tmp_path / "pairs.csv", [{"pair_id": pair_id, "before": "a.tif", "after": "b.tif"}])
    with pytest.raises(InputError, match="pair_id: expected") as caught:
        read_catalog(make_config(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


def test_ids_are_compared_regardless_of_case(tmp_path: Path) -> None:
    rows = [{"pair_id": name, "before": "a.tif", "after": "b.tif"} for name in ("Kama.1", "kAMA.1", "a" * 128)]
    write_catalog(tmp_path / "pairs.csv", rows)
    with pytest.raises(InputError, match=r"1 mistake.*\n.*line 3, pair kAMA.1, pair_id: expected unique ids"):
        read_catalog(make_config(tmp_path))


@pytest.mark.parametrize(
    ("name", "good"),
    [("=1+1", False), ("@SUM(A1)", False), ("+cmd|'/C calc'!A0", False), ("-2+3", False)]
    + [(name, True) for name in ("-12.5", "+7", "-", "a=b", "Кама-2", "7@x")],
)
def test_names_that_spreadsheets_would_compute_are_refused(tmp_path: Path, name: str, good: bool) -> None:
    write_catalog(tmp_path / "pairs.csv", [{"pair_id": "p", "name": name, "before": "a.tif", "after": "b.tif"}])
    if good:
        assert read_catalog(make_config(tmp_path))[0].name == plain_cell(name) == name
    else:
        with pytest.raises(InputError, match="name: expected a text that no spreadsheet takes for a formula"):
            read_catalog(make_config(tmp_path))


def test_no_table_of_ours_holds_a_formula(tmp_path: Path) -> None:
    """A submission's file may have any name."""
    write_agreement(here(tmp_path), [{"pair_id": "p", "first": "=1+1", "second": "-5", "iou": -0.5}])
    with (tmp_path / "agreement.csv").open(newline="") as file:
        assert [*csv.reader(file)][1] == ["p", "'=1+1", "-5", "-0.5"]


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    good = write_raster(tmp_path / "a.tif", np.ones((3, 8, 8), np.uint8), utm_grid(8, 8))
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif"))
    shutil.copy(good, bad)
    with pytest.raises(InputError, match=r"caf\\udce9.tif': expected the name of a file in UTF-8"):
        describe_raster(here(bad), Input())
    dates = ["--before", str(bad), "--after", str(good)]
    for where, arguments in ((tmp_path, dates), (tmp_path / os.fsdecode(b"\xe9"), ["--before", "a.tif"])):
        where.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "cdpipe.cli.main", "predict", *arguments, "--model", "m", "--out", "out"]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
        assert done.returncode == EXIT_INPUT
        assert "expected a name in UTF-8" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (where / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    folder = untrained_model(tmp_path, "m")
    card = read_card(here(folder))
    state = load_network(here(folder), card).state_dict()
    next(iter(state.values())).view(-1)[3] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"expected finite weights, got NaN or infinity in encoder.conv1.weight"):
        read_weights(tmp_path / "w.pth")
    broken = save_model(here(tmp_path / "broken"), card, state)
    with pytest.raises(InputError, match="NaN or infinity"):
        load_network(here(tmp_path / "broken"), broken)


@pytest.mark.parametrize(
    ("nodata", "missing"),
    [(None, [0, 0]), (7, [7, 7]), ("none", [None, None]), ({"red": 5}, [5, 0]), ({"red": "none", "nir": 9}, [None, 9])],
)
def test_nodata_is_overridden_for_all_bands_or_for_one(
    tmp_path: Path, nodata: Any, missing: list[float | None]
) -> None:
    grid = utm_grid(64, 64)
    values = np.random.default_rng(0).integers(0, 12, (3, 64, 64), np.uint16)
    path = write_raster(tmp_path / "a.tif", values, grid, nodata=0)
    config = make_config(tmp_path, sensors={"s": {"bands": {"nir": 3, "red": 1}, "nodata": nodata}})
    found, observed = read_on_grid(source_of(path, config, (1, 3)), None, grid, Window(0, 0, 64, 64), config)
    expected = np.ones((64, 64), np.bool_)
    for band, value in zip(values[[0, 2]], missing, strict=True):
        expected &= True if value is None else band != value
    assert np.array_equal(observed, expected)
    assert np.array_equal(found, np.where(expected, values[[0, 2]], 0))
