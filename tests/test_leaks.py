"""Distances between places against the geodesic, and splits that leak."""

import inspect
import math
from pathlib import Path

import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasters import GEOGRAPHIC, UTM33, make_config, utm_grid, write_raster

from cdpipe.config.schema import Sensor
from cdpipe.demo import scenes
from cdpipe.errors import InputError
from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid
from cdpipe.geo.shapes import Near, find_near
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.check import check_catalog
from cdpipe.pairs.splits import find_leaks, group_places, refuse_leaks, same_group
from cdpipe.workspace.location import here

SOURCE = Source(here(Path("scene.tif")), "s", Sensor(bands={"red": 1}), (1,))
GEOD = pyproj.Geod(ellps="WGS84")


def at(east: float, north: float, side: int = 50) -> Grid:
    return utm_grid(side, side, (10.0, 0.0, 500_000.0 + east, 0.0, -10.0, 4_000_000.0 + north))


def pair(name: str, grid: Grid, group: str | None = None) -> tuple[Pair, Grid]:
    return Pair(name, name, SOURCE, SOURCE, ("red",), label=here(Path("l.tif")), group=group), grid


@given(st.integers(-3000, 3000), st.integers(-3000, 3000), st.sampled_from([0, 16, 100, 256]))
def test_what_is_near_is_nearer_than_a_patch(east: int, north: int, patch: int) -> None:
    gap = math.hypot(max(0, abs(east) - 500), max(0, abs(north) - 500)) / 0.9996  # on the ground
    found = find_near({"b": at(east, north), "a": at(0, 0)}, patch)
    if abs(gap - 10 * patch) < 5:
        return
    assert bool(found) == (gap < 10 * patch or gap == 0)
    for each in found:
        assert (each.one, each.other, each.needed) == ("a", "b", 10 * patch)
        assert each.distance == pytest.approx(gap, rel=2e-3, abs=0.5)


@pytest.mark.parametrize(("longitude", "latitude"), [(15.0, 36.0), (-179.999, -17.0), (179.999, 66.0), (10.0, 80.0)])
def test_distances_are_geodesic_wherever_they_are(longitude: float, latitude: float) -> None:
    size, gap = 1e-4, 0.01
    one = Grid(20, 20, (size, 0, longitude, 0, -size, latitude), GEOGRAPHIC)
    east = longitude + 20 * size + gap
    other = Grid(20, 20, (size, 0, east - 360 if east > 180 else east, 0, -size, latitude), GEOGRAPHIC)
    expected = GEOD.inv(longitude + 20 * size, latitude, east, latitude)[2]
    found = find_near({"a": one, "b": other}, 1000)
    assert [each.distance for each in found] == pytest.approx([expected], rel=3e-3)


def test_the_larger_pixel_decides_and_systems_may_differ() -> None:
    west, south, east, north = transform_bounds(UTM33, GEOGRAPHIC, 501_000, 3_999_500, 501_500, 4_000_000)
    degrees = Grid(10, 10, ((east - west) / 10, 0.0, west, 0.0, -(north - south) / 10, north), GEOGRAPHIC)
    found = find_near({"a": at(0, 0), "b": degrees}, 15)  # 500 m between; 15 patches of 50 m, but not of 10 m
    assert [(each.one, each.other) for each in found] == [("a", "b")]
    assert found[0].distance == pytest.approx(500, rel=0.02)
    assert found[0].needed == pytest.approx(750, rel=0.3)
    assert find_near({"a": at(0, 0), "b": degrees}, 5) == []


def test_many_pairs_are_compared_with_neighbours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(*outlines: "np.ndarray") -> float:
        asked.append(outlines)
        return 1e9

    monkeypatch.setattr("cdpipe.geo.shapes._distance", noted)
    find_near({f"{row}-{col}": at(5000 * col, 5000 * row) for row in range(20) for col in range(20)}, 256)
    assert not asked


def test_chains_and_groups_are_one_place() -> None:
    assert group_places("dcba", [("a", "c"), ("c", "d")]) == [["a", "c", "d"], ["b"]]
    assert same_group({"b": "g", "a": "g", "c": None, "d": "h"}) == [("a", "b")]


def test_a_split_that_leaks_is_refused_with_its_distance() -> None:
    placed = [pair("a", at(0, 0)), pair("b", at(600, 0)), pair("c", at(0, 200)), pair("d", at(90_000, 0), "g")]
    placed += [pair("e", at(0, 90_000), "g"), pair("f", Grid(9, 9, PIXEL_TRANSFORM, None))]
    splits = {"a": "train", "b": "test", "c": "val", "d": "train", "e": "test", "f": "train"}
    found = find_leaks(placed, splits, 32)
    assert found.unplaced == ("f",)
    assert found.leaks == (
        "a (train) and b (test) lie 100 m apart; a patch needs 320 m",
        "a (train) and c (val) share ground, 0 m apart; a patch needs 320 m",
        "d (train) and e (test) are both of group g",
    )
    with pytest.raises(InputError, match=r"100 m apart.*splits\.allow_leak: true"):
        refuse_leaks(found.leaks)
    # val and test both judge, and pairs without a split take no part
    assert find_leaks(placed, {"b": "test", "c": "val"}, 32).leaks == ()
    refuse_leaks(())


def test_the_check_tells_a_leak_before_any_work(tmp_path: Path) -> None:
    for name, east in (("a", 0.0), ("b", 600.0)):
        write_raster(tmp_path / f"{name}.tif", np.full((3, 50, 50), 7, np.uint16), at(east, 0))
        write_raster(tmp_path / f"{name}_label.tif", np.eye(50, dtype=np.uint8), at(east, 0))
    for allowed in (False, True):
        config = make_config(tmp_path, splits={"allow_leak": allowed})
        pairs = []
        for name, split in (("a", "train"), ("b", "test")):
            source = Source(here(tmp_path / f"{name}.tif"), "s", config.sensors["s"], (1, 2, 3))
            pairs.append(
                Pair(
                    name,
                    name,
                    source,
                    source,
                    ("red", "green", "blue"),
                    here(tmp_path / f"{name}_label.tif"),
                    split=split,
                )
            )
        problems = check_catalog(config, pairs).problems
        assert [("a (train) and b (test) lie 100 m apart" in text) for text in problems] == ([] if allowed else [True])


def test_near_is_told_apart_from_touching_across_the_antimeridian() -> None:
    zones = [CRS.from_epsg(code).to_wkt() for code in (32660, 32601)]
    x, _, _, y = transform_bounds(GEOGRAPHIC, zones[0], 179.99, 10.0, 179.995, 10.01)
    other_x, _, _, _ = transform_bounds(GEOGRAPHIC, zones[1], -179.99, 10.0, -179.98, 10.01)
    one = Grid(10, 10, (10.0, 0.0, x, 0.0, -10.0, y), zones[0])
    other = Grid(10, 10, (10.0, 0.0, other_x, 0.0, -10.0, y), zones[1])
    found: list[Near] = find_near({"a": one, "b": other}, 500)
    assert len(found) == 1
    assert found[0].distance == pytest.approx(0.02 * 111_320 * math.cos(math.radians(10)) - 100, rel=0.03)


def test_the_demos_places_lie_apart() -> None:
    """Of all recipes, at the size that is made by default, with the demo's patch and with the default one."""
    defaults = inspect.signature(scenes.make_sample_scenes).parameters
    size = defaults["size"].default
    grids = {}
    for number in range(defaults["pairs"].default):
        recipe = scenes.RECIPES[min(number, len(scenes.RECIPES) - 1)]
        shape = round(size * recipe.stretch[0]), round(size * recipe.stretch[1])
        grids[str(number)] = scenes._before_grid(number, shape)
    assert find_near(grids, 128) == find_near(grids, 256) == []
