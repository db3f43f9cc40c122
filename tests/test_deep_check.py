"""Reading all of a pair shows what headers and samples do not; nothing is cried out over a good pair."""

import dataclasses
import datetime
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from project import call
from rasters import make_config, source_of, utm_grid, write_raster
from test_check import texture

from cdpipe.errors import EXIT_DONE, EXIT_INPUT
from cdpipe.formats.gate import describe_raster
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.deep_check import DeepReport, file_date, inspect_pair
from cdpipe.workspace.location import here

SHAPE = (700, 600)
GRID = utm_grid(*SHAPE)
RGB = ("red", "green", "blue")


def land(seed: int = 0) -> NDArray[np.uint16]:
    image = texture(SHAPE, seed).astype(np.float64)
    return np.asarray(600 + 900 * (image - image.min()) / np.ptp(image), np.uint16)


def inspected(folder: Path, before: NDArray[Any], after: NDArray[Any], **more: Any) -> DeepReport:
    names = more.pop("names", ("before.tif", "after.tif"))
    tags = more.pop("tags", ({}, {}))
    sections = more.pop("sections", {})
    config = make_config(folder, **sections)
    first, second = (
        source_of(write_tagged(folder / name, image, own), config, (1, 2, 3))
        for name, image, own in zip(names, (before, after), tags, strict=True)
    )
    return inspect_pair(Pair("p", "p", first, second, RGB, **more), GRID, config)


def write_tagged(path: Path, image: NDArray[Any], tags: dict[str, str]) -> Path:
    write_raster(path, image, GRID, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**tags)
    return path


def test_a_good_pair_raises_no_doubt(tmp_path: Path) -> None:
    report = inspected(tmp_path, land(), land(), before_date="2018-01-01", after_date="2020-01-01")
    assert report.warnings == ()
    assert report.shift is not None
    assert report.shift.agreeing == 1
    assert [date.observed for date in report.dates] == [1, 1]


def test_figures_do_not_depend_on_windows(tmp_path: Path) -> None:
    before, after = land(), land(1)
    before[:, :, :70] = 0
    after[:, 200:260, 300:420] = 9000
    small, large = (inspected(tmp_path, before, after, sections={"align": {"block": block}}) for block in (512, 1024))
    assert small == large
    assert small.dates[0].observed == 1 - 70 / 600
    assert small.dates[1].cloud_like == pytest.approx(60 * 120 / (700 * 600))
    assert small.dates[1].saturated == pytest.approx(60 * 120 / (700 * 600))


def test_clouds_are_bright_and_white_at_one_date_alone(tmp_path: Path) -> None:
    before, after = land(), land()
    before[:, 500:600, 300:420] = after[:, 500:600, 300:420] = 8000  # a white roof
    after[0, 100:200, 100:200], after[1:, 100:200, 100:200] = 9000, 2000  # bright, but red
    report = inspected(tmp_path, before, after)
    assert [date.cloud_like for date in report.dates] == [0, 0]
    after[:, 250:350, 100:200] = 7000 + np.random.default_rng(1).integers(0, 900, (3, 100, 100))
    cloudy = inspected(tmp_path, before, after)
    assert cloudy.dates[1].cloud_like == pytest.approx(100 * 100 / (700 * 600))
    assert [warning for warning in cloudy.warnings if "after.tif: 2.4% of its pixels are bright and white" in warning]


@pytest.mark.parametrize("ceiling", [65535, 4095])
def test_saturation_is_found_at_any_ceiling(tmp_path: Path, ceiling: int) -> None:
    before = land()
    before[1, :30, :30] = ceiling
    report = inspected(tmp_path, before, land())
    assert report.dates[0].saturated == 900 / (700 * 600)
    [warning] = report.warnings
    assert "before.tif: 0.21% of its pixels have a band's highest value" in warning


@pytest.mark.parametrize("date", ["before", "after"])
def test_an_offset_of_one_date_is_found_and_what_to_do_is_said(tmp_path: Path, date: str) -> None:
    images = {"before": land(), "after": land()}
    images[date] = images[date] + np.uint16(1000)
    [warning] = inspected(tmp_path, images["before"], images["after"]).warnings
    assert re.search(rf"{date}.tif: its dark .* [(]red \+?-?1000, .* sensor of its own with offset: -1000", warning)
    both = inspected(tmp_path, land() + np.uint16(1000), land() + np.uint16(1000))
    assert both.warnings == ()


def test_an_offset_that_the_sensor_names_is_no_jump(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    before = source_of(write_raster(tmp_path / "before.tif", land(), GRID), config, (1, 2, 3))
    after = source_of(write_raster(tmp_path / "after.tif", land() + np.uint16(1000), GRID), config, (1, 2, 3))
    told = dataclasses.replace(after, sensor=after.sensor.model_copy(update={"scale": 1e-4, "offset": -0.1}))
    assert len(inspect_pair(Pair("p", "p", before, after, RGB), GRID, config).warnings) == 1
    assert inspect_pair(Pair("p", "p", before, told, RGB), GRID, config).warnings == ()


@pytest.mark.parametrize("factor", [1.5, 2.0])
def test_brighter_light_is_no_offset(tmp_path: Path, factor: float) -> None:
    report = inspected(tmp_path, land(), (land() * factor).astype(np.uint16))
    assert not [warning for warning in report.warnings if "dark pixels" in warning]


def test_a_shift_is_told_with_how_many_windows_agree(tmp_path: Path) -> None:
    matrix = np.array([[1, 0, -0.6], [0, 1, 1.4]], np.float32)
    moved = (cv2.warpAffine(band, matrix, band.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=4) for band in land())
    after = np.array([*moved])
    report = inspected(tmp_path, land(), after)
    assert report.shift is not None
    assert (report.shift.rows, report.shift.cols) == pytest.approx((1.4, -0.6), abs=0.1)
    [warning] = report.warnings
    assert f"100% of {report.shift.windows} windows agree); align.coregister: auto" in warning


S2 = "T33UUP_{}T101021_B04.tif"


@pytest.mark.parametrize(
    ("name", "tags", "day", "where"),
    [
        ("S2A_MSIL1C_20170816T102021_N0205_R065.tif", {}, "2017-08-16", "name"),
        (S2.format("20200501"), {"TIFFTAG_DATETIME": "2021:01:01 00:00:00"}, "2020-05-01", "name"),
        ("a.tif", {"ACQUISITIONDATETIME": "2019-07-03T10:11:12Z"}, "2019-07-03", "ACQUISITIONDATETIME"),
        ("a.tif", {"TIFFTAG_DATETIME": "2021:01:02 03:04:05"}, "2021-01-02", "TIFFTAG_DATETIME"),
        ("a_20209901T101021.tif", {"TIFFTAG_DATETIME": "soon"}, None, None),
        ("a_20200101.tif", {}, None, None),  # a name that says no more may mean anything
    ],
)
def test_the_date_of_a_file(
    tmp_path: Path, name: str, tags: dict[str, str], day: str | None, where: str | None
) -> None:
    path = write_tagged(tmp_path / name, land(), tags)
    found = file_date(here(path), make_config(tmp_path).input)
    assert (None if found is None else (found.day, found.where)) == (day and (datetime.date.fromisoformat(day), where))


def test_dates_that_contradict_are_told(tmp_path: Path) -> None:
    names = S2.format("20200501"), S2.format("20180501")
    swapped, after = inspected(
        tmp_path, land(), land(), names=names, before_date="2020-05-02", after_date="2019-05-01"
    ).warnings
    assert "its name says 2020-05-01, after the second date, 2018-05-01; are the dates swapped?" in swapped
    assert "its name says 2018-05-01, the catalog says 2019-05-01" in after
    # when a file was written says nothing against the catalog, and two kinds of dates nothing about their order
    written = ({"TIFFTAG_DATETIME": "2022:01:01 00:00:00"}, {"ACQUISITIONDATETIME": "2019-01-01"})
    assert inspected(tmp_path, land(), land(), tags=written, before_date="2018-01-01").warnings == ()


def test_tiny_and_unseen_scenes_do_not_stumble(tmp_path: Path) -> None:
    config, grid = make_config(tmp_path), utm_grid(7, 9)
    first, second = (
        source_of(
            write_raster(tmp_path / f"{name}.tif", np.full((3, 7, 9), value, np.uint16), grid, nodata=0),
            config,
            (1, 2, 3),
        )
        for name, value in (("before", 5), ("after", 0))
    )
    report = inspect_pair(Pair("p", "p", first, second, RGB), grid, config)
    assert report.shift is None
    assert [date.observed for date in report.dates] == [1, 0]


def test_real_clouds_are_pointed_out(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "oscd" / "paris"
    config = make_config(tmp_path, sensors={"s": {"bands": {"blue": 1, "green": 2, "red": 3}}})
    before, after = (source_of(folder / f"{date}.tif", config, (1, 2, 3)) for date in ("before", "after"))
    report = inspect_pair(
        Pair("p", "p", before, after, ("blue", "green", "red")), describe_raster(before.path, config.input).grid, config
    )
    assert report.dates[0].cloud_like is not None
    assert report.dates[1].cloud_like is not None
    assert report.dates[1].cloud_like > 10 * report.dates[0].cloud_like


@pytest.mark.usefixtures("in_threads")
@pytest.mark.timeout(900)
def test_the_verb_shows_what_it_found_and_ends_as_check_does(tmp_path: Path) -> None:
    write_raster(tmp_path / "before.tif", land(), GRID)
    write_raster(tmp_path / "after.tif", land() + np.uint16(1000), GRID)
    (tmp_path / "pairs.csv").write_text("pair_id,before,after\np,before.tif,after.tif\nq,before.tif,after.tif\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        "name: t\ncatalog: pairs.csv\nworkspace: work\nsensors: {s: {bands: {red: 1, green: 2, blue: 3}}}\n"
    )
    told = call(["check", str(config), "--deep"])
    assert told.code == EXIT_DONE, told
    assert "cloud-like" in told.out
    assert told.out.count("give this date a sensor of its own with offset: -1000") == 1  # one line for both pairs
    assert re.search("p, q +.*after.tif: its dark pixels", told.out)
    broken = (tmp_path / "after.tif").read_bytes()
    (tmp_path / "after.tif").write_bytes(broken[:200_000])
    assert call(["check", str(config), "--deep"]).code == EXIT_INPUT
    assert not (tmp_path / "work").exists()
