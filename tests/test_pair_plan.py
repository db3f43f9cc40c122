"""Keys of pairs and labels: they follow the content of files and options, and nothing else."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import make_config, source_of, utm_grid, write_raster

from cdpipe.config.schema import Config, Quality
from cdpipe.errors import InputError
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.plan import PlannedPair, labelled_pair, plan_pair, plan_pairs, source_files, stored_pair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

GRID = utm_grid(40, 50)
BANDS = (1, 2, 3)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


def make_pair(folder: Path) -> Pair:
    folder.mkdir(exist_ok=True)
    config = make_config(folder)
    image = np.arange(6 * 40 * 50, dtype=np.uint16).reshape(6, 40, 50)  # bands of a composite, for one test
    mask = np.ones((40, 50), np.uint8)
    paths = [write_raster(folder / f"{name}.tif", image + number, GRID) for number, name in enumerate(("a", "b"))]
    before, after = (source_of(path, config, BANDS) for path in paths)
    label, valid = (write_raster(folder / f"{name}.tif", mask, GRID) for name in ("label", "valid"))
    return Pair("p", "p", before, after, ("red", "green", "blue"), label=here(label), after_valid=here(valid))


def plan(pair: Pair, config: Config) -> PlannedPair:
    return plan_pair(pair, config, {path: path.sha256() for path in source_files(pair, config)})


def keys(pair: Pair, folder: Path, **sections: Any) -> tuple[str, str | None]:
    planned = plan(pair, make_config(folder, **sections))
    return planned.key, planned.label_key


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["a", "b", "valid"])
def test_one_bit_of_the_imagery_makes_another_pair_and_label(tmp_path: Path, pair: Pair, name: str) -> None:
    before = keys(pair, tmp_path)
    flip_last_bit(tmp_path / f"{name}.tif")
    after = keys(pair, tmp_path)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_one_bit_of_the_label_makes_another_label_only(tmp_path: Path, pair: Pair) -> None:
    before = keys(pair, tmp_path)
    flip_last_bit(tmp_path / "label.tif")
    after = keys(pair, tmp_path)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_touched_moved_or_renamed_file_is_the_same(tmp_path: Path, pair: Pair) -> None:
    before = keys(pair, tmp_path)
    for path in tmp_path.glob("*.tif"):
        os.utime(path, (1, 1))
    assert keys(pair, tmp_path) == before
    elsewhere = make_pair(tmp_path / "elsewhere")
    renamed = elsewhere.before.path.local().rename(tmp_path / "elsewhere" / "c.tif")
    moved = dataclasses.replace(elsewhere, before=dataclasses.replace(elsewhere.before, path=here(renamed)))
    assert keys(moved, tmp_path / "elsewhere") == before


@pytest.mark.parametrize(
    "section",
    [
        {"align": {"resampling": "cubic"}},
        {"align": {"block": 1024}},
        {"input": {"sidecars": True}},
        {"input": {"pixel_coordinates": True}},
    ],
)
def test_options_that_bear_on_pixels_make_another_pair(tmp_path: Path, pair: Pair, section: dict[str, Any]) -> None:
    before, after = keys(pair, tmp_path), keys(pair, tmp_path, **section)
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("values", [{"changed": [2]}, {"unchanged": [0, 7]}, {"ignore": [9]}])
def test_the_meaning_of_values_makes_another_label_only(tmp_path: Path, pair: Pair, values: dict[str, Any]) -> None:
    before, after = keys(pair, tmp_path), keys(pair, tmp_path, label=values)
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "section",
    [
        {"name": "other"},
        {"workspace": "elsewhere"},
        {"catalog": "other.csv"},
        {"align": {"min_overlap": 0.5}},
        {"input": {"drivers": ["GTiff", "PNG"]}},
        {"normalisation": {"statistics": "per_date"}},
        {"train": {"epochs": 3}},
        {"predict": {"threshold": 0.3}},
        {"resources": {"workers": 3}},
    ],
)
def test_all_other_options_make_no_difference(tmp_path: Path, pair: Pair, section: dict[str, Any]) -> None:
    assert keys(pair, tmp_path, **section) == keys(pair, tmp_path)


def other_sensor(**values: Any) -> Callable[[Pair], Pair]:
    """Changes what the sensor of the second date says."""

    def change(pair: Pair) -> Pair:
        sensor = pair.after.sensor.model_copy(update=values)
        return dataclasses.replace(pair, after=dataclasses.replace(pair.after, sensor=sensor))

    return change


@pytest.mark.parametrize(
    "change",
    [
        other_sensor(nodata=0.0),
        other_sensor(scale=2.0),
        other_sensor(offset=1.0),
        other_sensor(unusable=(0, 1)),
        other_sensor(quality=Quality(preset="scl")),
        other_sensor(quality=Quality(above=0.4)),
        lambda pair: dataclasses.replace(pair, before=pair.after, after=pair.before),
        lambda pair: dataclasses.replace(pair, after=dataclasses.replace(pair.after, bands=(3, 2, 1))),
        lambda pair: dataclasses.replace(pair, after=dataclasses.replace(pair.after, half=1)),
        lambda pair: dataclasses.replace(pair, roles=("red", "green", "nir")),
        lambda pair: dataclasses.replace(pair, before_valid=pair.after_valid),
        lambda pair: dataclasses.replace(pair, after_valid=None),
        lambda pair: dataclasses.replace(pair, before_valid=pair.after_valid, after_valid=None),
    ],
)
def test_what_a_pair_is_read_as_makes_another_pair(tmp_path: Path, pair: Pair, change: Callable[[Pair], Pair]) -> None:
    assert keys(change(pair), tmp_path)[0] != keys(pair, tmp_path)[0]


def test_names_dates_and_splits_make_no_difference(tmp_path: Path, pair: Pair) -> None:
    other = dataclasses.replace(
        pair,
        pair_id="q",
        split="val",
        before_date="2020-01-01",
        after_date="2021-01-01",
        before=dataclasses.replace(pair.before, sensor_name="t"),
    )
    assert keys(other, tmp_path) == keys(pair, tmp_path)


def test_other_places_of_equal_pixels_are_other_pairs(tmp_path: Path, pair: Pair) -> None:
    """Where the georeference lies outside of what is hashed, in a sidecar, the grid itself tells pairs apart."""
    before = plan(pair, make_config(tmp_path))
    hashes = {path: path.sha256() for path in source_files(pair, make_config(tmp_path))}
    moved = utm_grid(40, 50, (10.0, 0.0, 600_000.0, 0.0, -10.0, 4_000_000.0))
    write_raster(pair.before.path.local(), np.zeros((3, 40, 50), np.uint16), moved)
    assert plan_pair(pair, make_config(tmp_path), hashes).key != before.key


def test_a_plan_says_where_the_pair_lies_and_what_of(tmp_path: Path, pair: Pair) -> None:
    planned = plan(pair, make_config(tmp_path))
    assert planned.grid.same_pixels(GRID)
    assert planned.dtypes == ("uint16", "uint16")
    assert set(planned.sources) == {"a.tif", "b.tif", "label.tif", "valid.tif"}
    without = plan(dataclasses.replace(pair, label=None), make_config(tmp_path))
    assert without.label_key is None
    assert without.key == planned.key


def test_sources_of_one_name_are_all_listed(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "later").mkdir()
    path = pair.after.path.local().rename(tmp_path / "later" / "a.tif")
    same = dataclasses.replace(pair, after=dataclasses.replace(pair.after, path=here(path)))
    sources = plan(same, make_config(tmp_path)).sources
    assert sources["a.tif"] == [pair.before.path.sha256(), here(path).sha256()]


def test_a_shapefile_is_all_its_files(tmp_path: Path, pair: Pair) -> None:
    for suffix in (".shp", ".shx", ".prj"):
        (tmp_path / f"outlines{suffix}").write_bytes(suffix.encode())
    outlines = dataclasses.replace(pair, label=here(tmp_path / "outlines.shp"))
    before = keys(outlines, tmp_path)
    flip_last_bit(tmp_path / "outlines.prj")
    after = keys(outlines, tmp_path)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_file_whose_hash_is_not_known_is_named(tmp_path: Path, pair: Pair) -> None:
    hashes = {path: path.sha256() for path in source_files(pair, make_config(tmp_path)) if path.name != "valid.tif"}
    with pytest.raises(InputError, match=r"pair p: not readable, or changed since it was ingested: .*valid.tif$"):
        plan_pair(pair, make_config(tmp_path), hashes)


def test_pairs_that_cannot_be_planned_do_not_stop_the_others(tmp_path: Path, pair: Pair) -> None:
    nowhere = tmp_path / "nowhere.tif"
    lost = dataclasses.replace(pair, pair_id="lost", after=dataclasses.replace(pair.after, path=here(nowhere)))
    gone = dataclasses.replace(pair, pair_id="gone", label=here(tmp_path / "gone.tif"))
    hashes = {path: path.sha256() for path in source_files(pair, make_config(tmp_path))} | {here(nowhere): "0"}
    planned, failed = plan_pairs([lost, pair, gone], make_config(tmp_path), hashes)
    assert [item.pair.pair_id for item in planned] == ["p"]
    assert set(failed) == {"lost", "gone"}
    assert "nowhere.tif: expected a raster file" in failed["lost"]
    assert "gone.tif" in failed["gone"]


def test_what_was_never_ingested_is_not_in_the_store(tmp_path: Path, pair: Pair) -> None:
    planned = plan(pair, make_config(tmp_path))
    assert stored_pair(Workspace(here(tmp_path)), planned) is None
    assert labelled_pair(Workspace(here(tmp_path)), planned) is None
