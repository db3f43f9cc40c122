"""The sample scenes are what their table claims: repeatable, exactly labelled, and hard for a threshold."""

import csv
import hashlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject, transform

from cdpipe.demo.place import MARGIN, bare_surface, change_label, draw_place, visible
from cdpipe.demo.render import cloud_holes, digitise, shadows
from cdpipe.demo.scenes import COLUMNS, RECIPES, Recipe, _after_grid, _before_grid, _resample, make_sample_scenes
from cdpipe.demo.things import Thing, rectangle
from cdpipe.geo.grid import ID_PATTERN

GREY = (0.299, 0.587, 0.114)
Row = dict[str, str]


def read_rows(table: Path) -> list[Row]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the table of the scenes at the size the demo uses."""
    return make_sample_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def rows(table: Path) -> dict[str, Row]:
    return {row["pair_id"]: row for row in read_rows(table)}


def read(table: Path, row: Row, column: str) -> NDArray[np.uint16]:
    with rasterio.open(table.parent / row[column]) as dataset:
        image: NDArray[np.uint16] = dataset.read()
    return image


def read_after_on_before(table: Path, row: Row) -> NDArray[np.uint16]:
    """Read the second scene on the first one's grid, by rasterio's own warp."""
    with rasterio.open(table.parent / row["before"]) as before, rasterio.open(table.parent / row["after"]) as after:
        warped = np.zeros((4, *before.shape), np.uint16)
        reproject(
            rasterio.band(after, [1, 2, 3, 4]),
            warped,
            dst_transform=before.transform,
            dst_crs=before.crs,
            dst_nodata=0,
            resampling=Resampling.bilinear,
        )
    return warped


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_gives_the_same_bytes_and_another_seed_other_scenes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        make_sample_scenes(tmp_path / name, seed=seed, size=128)
    one, two, three = (hashes(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert len(one) == 8 * 3 + 1
    scenes = [name for name in one if name.endswith(("before.tif", "after.tif"))]
    assert not [name for name in scenes if one[name] == three[name]]


def test_fewer_pairs_are_the_first_of_more_and_hold_one_of_each_split(tmp_path: Path) -> None:
    few = read_rows(make_sample_scenes(tmp_path / "few", pairs=3, size=128))
    many = read_rows(make_sample_scenes(tmp_path / "many", pairs=10, size=128))
    assert [row["split"] for row in few] == ["train", "val", "test"]
    assert many[:3] == few
    assert len({row["pair_id"] for row in many}) == 10
    few_hashes, many_hashes = hashes(tmp_path / "few"), hashes(tmp_path / "many")
    assert all(many_hashes[name] == digest for name, digest in few_hashes.items() if name.endswith(".tif"))


def test_table_lists_files_that_exist_with_dates_and_splits(table: Path, rows: dict[str, Row]) -> None:
    assert [row["split"] for row in rows.values()].count("train") == 5
    assert {row["split"] for row in rows.values()} == {"train", "val", "test"}
    for pair_id, row in rows.items():
        assert tuple(row) == COLUMNS
        assert ID_PATTERN.fullmatch(pair_id)
        assert date.fromisoformat(row["before_date"]) < date.fromisoformat(row["after_date"])
        assert (row["before_sensor"], row["after_sensor"]) == ("demo", "demo")
        for column in ("before", "after", "label"):
            assert not Path(row[column]).is_absolute()
            assert (table.parent / row[column]).is_file()


def test_scenes_are_tiled_deflated_ten_bit_with_bands_dates_and_a_projection(table: Path, rows: dict[str, Row]) -> None:
    for row in rows.values():
        for column in ("before", "after"):
            with rasterio.open(table.parent / row[column]) as dataset:
                assert dataset.dtypes == ("uint16",) * 4
                assert dataset.descriptions == ("red", "green", "blue", "nir")
                assert dataset.nodata == 0
                assert dataset.crs.is_projected
                assert dataset.profile["tiled"]
                assert dataset.compression.value == "DEFLATE"
                taken = dataset.tags()["TIFFTAG_DATETIME"].split()[0]
                assert taken.replace(":", "-") == row[f"{column}_date"]
                image = dataset.read()
            assert image.max() <= 1023
            assert image[image > 0].mean() > 100


def test_labels_lie_on_the_first_scenes_grid_and_mark_some_percent(table: Path, rows: dict[str, Row]) -> None:
    for pair_id, row in rows.items():
        with rasterio.open(table.parent / row["before"]) as scene, rasterio.open(table.parent / row["label"]) as mask:
            assert (mask.shape, mask.transform, mask.crs) == (scene.shape, scene.transform, scene.crs)
            assert mask.dtypes == ("uint8",)
            label = mask.read(1)
        assert set(np.unique(label)) <= {0, 1}
        assert label.mean() == 0 if pair_id.endswith("unchanged") else 0.05 <= label.mean() <= 0.08


def test_only_clouds_and_the_edge_of_another_zone_are_not_observed(table: Path, rows: dict[str, Row]) -> None:
    for pair_id, row in rows.items():
        assert read(table, row, "before").min() > 0
        hidden = read(table, row, "after") == 0
        np.testing.assert_array_equal(hidden, np.broadcast_to(hidden[:1], hidden.shape))
        share = hidden[0].mean()
        if pair_id.endswith("clouds"):
            assert 0.08 < share < 0.1
        else:
            assert share < (0.02 if pair_id.endswith("other-zone") else 1e-9)


def test_second_scenes_have_other_grids_where_the_name_says_so(table: Path, rows: dict[str, Row]) -> None:
    for pair_id, row in rows.items():
        with rasterio.open(table.parent / row["before"]) as before, rasterio.open(table.parent / row["after"]) as after:
            same = (before.shape, before.transform, before.crs) == (after.shape, after.transform, after.crs)
            assert same == (not pair_id.endswith(("other-zone", "coarser")))
            assert (before.crs != after.crs) == pair_id.endswith("other-zone")
            assert after.res == ((1.25, 1.25) if pair_id.endswith("coarser") else (1.0, 1.0))
            assert before.res == (1.0, 1.0)


@pytest.mark.parametrize("recipe", [RECIPES[0], *RECIPES[3:8]], ids=lambda recipe: recipe.name)
def test_second_scene_lies_where_its_georeference_says_up_to_the_misregistration(recipe: Recipe) -> None:
    before = _before_grid(5, (180, 210))
    after = _after_grid(recipe, before)
    # A map whose values are its own column and row tells where each pixel of the second scene came from.
    rows, columns = np.indices((180 + 2 * MARGIN, 210 + 2 * MARGIN), dtype=np.float32) - MARGIN
    found = _resample(np.stack([columns, rows]), before, after, recipe.shift)
    y, x = np.indices(after.shape) + 0.5
    a, b, c, d, e, f = after.transform
    world = transform(after.crs, before.crs, (a * x + b * y + c).ravel(), (d * x + e * y + f).ravel())[:2]
    easting, northing = (np.array(values).reshape(after.shape) for values in world)
    column, row = easting - before.transform[2], before.transform[5] - northing
    expected = np.stack([column - 0.5 - recipe.shift[0], row - 0.5 - recipe.shift[1]])
    known = ~np.isnan(found)
    assert known.mean() > 0.95
    # GDAL may approximate the warp by an eighth of a pixel.
    np.testing.assert_allclose(found[known], expected[known], atol=0.13)


@given(seed=st.integers(0, 2**32), season=st.integers(0, 1))
@settings(max_examples=10, deadline=None)
def test_label_is_exactly_where_the_surface_differs_in_one_season(seed: int, season: int) -> None:
    place = draw_place(np.random.default_rng(seed), (140, 170), changed_share=0.1)
    before, after = (bare_surface(place, when, season=season) for when in (0, 1))
    label = change_label(place)
    np.testing.assert_array_equal(label == 1, (before != after).any(axis=0))


def test_small_scenes_have_changes_too() -> None:
    for seed in range(15):
        label = visible(change_label(draw_place(np.random.default_rng(seed), (96, 128), changed_share=0.065)))
        assert 0.02 < label.mean() < 0.3, seed


@given(seed=st.integers(0, 2**32))
@settings(max_examples=6, deadline=None)
def test_a_place_without_changes_has_the_same_surface_at_both_dates(seed: int) -> None:
    place = draw_place(np.random.default_rng(seed), (130, 140), changed_share=0.0)
    assert not change_label(place).any()
    np.testing.assert_array_equal(bare_surface(place, 0, season=0), bare_surface(place, 1, season=0))


def test_shadows_fall_away_from_the_sun_as_far_as_height_and_elevation_say() -> None:
    tower = Thing(rectangle((50, 50), 9, 9, 0.0), ("pale_roof", "pale_roof"), height=10.0)
    top = np.zeros((100, 100), np.int32)
    top[46:55, 46:55] = 1
    dark = shadows((tower,), top, (np.pi / 2, np.pi / 4))
    expected = np.zeros((100, 100), bool)
    expected[55:64, 46:55] = True  # rows below the tower; at 45 degrees a shadow is as long as the tower is high
    np.testing.assert_array_equal(dark, expected)


def best_threshold_iou(table: Path, row: Row) -> float:
    """Return the IoU of the best threshold, chosen in hindsight, on the difference of normalised greys."""
    before, after = read(table, row, "before"), read_after_on_before(table, row)
    observed = (after > 0).all(axis=0)
    changed = read(table, row, "label")[0][observed] == 1
    greys = [np.tensordot(GREY, image[:3].astype(np.float64), 1)[observed] for image in (before, after)]
    difference = np.abs(np.subtract(*((grey - grey.mean()) / grey.std() for grey in greys)))
    above = [difference > threshold for threshold in np.linspace(0, 5, 101)]
    return float(max((mask & changed).sum() / (mask | changed).sum() for mask in above))


def test_an_unchanged_pair_still_looks_changed(table: Path, rows: dict[str, Row]) -> None:
    row = rows["08-unchanged"]
    greys = [np.tensordot(GREY, read(table, row, column)[:3].astype(float), 1) for column in ("before", "after")]
    difference = np.subtract(*((grey - grey.mean()) / grey.std() for grey in greys))
    assert (np.abs(difference) > 1).mean() > 0.1


def test_no_threshold_on_the_difference_finds_the_changes(table: Path, rows: dict[str, Row]) -> None:
    scores = {pair_id: best_threshold_iou(table, row) for pair_id, row in rows.items() if row["split"] == "test"}
    assert len(scores) == 2
    assert all(score <= 0.35 for score in scores.values()), scores


def test_noise_keeps_within_ten_bits_and_never_makes_nodata() -> None:
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(-50, 1100, 256, dtype=np.float32), (4, 64, 1))
    scene = digitise(rng, ramp, 5.0)
    assert (scene.min(), scene.max()) == (1, 1023)
    assert abs(scene[:, :, 100:150].astype(float) - ramp[:, :, 100:150]).mean() < 8


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_clouds_hide_the_share_asked_for(share: float) -> None:
    assert cloud_holes(np.random.default_rng(1), (200, 300), share).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("pairs", "size"), [(0, 128), (3, 95)])
def test_impossible_wishes_are_refused(tmp_path: Path, pairs: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"got {pairs} and {size}"):
        make_sample_scenes(tmp_path / "none", pairs=pairs, size=size)
    assert not (tmp_path / "none").exists()


def test_the_margin_hides_the_unfinished_edge() -> None:
    image = np.zeros((4, 100 + 2 * MARGIN, 120 + 2 * MARGIN), np.float32)
    assert visible(image).shape == (4, 100, 120)
