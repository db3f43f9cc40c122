"""Features of a stored pair: the same for every stored block and window, measured and cleaned on the ground."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from rasters import GEOGRAPHIC, UTM33
from scipy import ndimage
from stored import Bytes, store_change, store_probability

from cdpipe.config.schema import Vectors
from cdpipe.errors import InputError, RefusedError
from cdpipe.formats.vectors import decode
from cdpipe.geo.crs import canonical_wkt
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.ground import pixel_steps, row_areas
from cdpipe.objects import features
from cdpipe.objects.features import SCHEMA, ChangeScene, read_state
from cdpipe.objects.morphology import clean_mask, ground_disc
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (150, 210)
UTM = Grid(*SHAPE, (10.0, 0.0, 500_000.0, 0.0, -10.0, 6_500_000.0), UTM33)
DEGREES = Grid(*SHAPE, (1e-4, 0.0, 13.0, 0.0, -1e-4, 60.0), GEOGRAPHIC)  # 5.6 m wide, 11.1 m high


def blobs(seed: int) -> tuple[NDArray[np.float32], Bytes]:
    """A probability with blobs, holes and specks, and its change; a corner was not observed."""
    random = np.random.default_rng(seed)
    coarse = random.random((20, 28)).repeat(8, 0).repeat(8, 1)[: SHAPE[0], : SHAPE[1]]
    probability = (0.8 * coarse + 0.2 * random.random(SHAPE)).astype(np.float32)
    probability[:30, 100:140] = np.nan
    change = np.where(np.isnan(probability), 255, probability >= 0.5).astype(np.uint8)
    return probability, change


def store(folder: Path, grid: Grid = UTM, block: int = 512, **options: Any) -> ChangeScene:
    """A pair's change and the probabilities of two models."""
    workspace = Workspace(here(folder))
    pair = StoredPair("p", f"{block:012d}", grid, block, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})
    probability, change = blobs(0)
    store_change(workspace, pair, "change", probability, change)
    store_probability(workspace, pair, "one", probability)
    store_probability(workspace, pair, "two", np.where(np.isnan(probability), np.nan, blobs(1)[0]).astype(np.float32))
    members = (("one", 0.5), ("two", 0.7))
    return ChangeScene(workspace, pair, "change", members, Vectors(**options), ("2018-05-01", None))


def collect(scene: ChangeScene, folder: Path, step: int = 2048) -> pa.Table:
    folder.mkdir()
    return pa.Table.from_batches(features.change_features(scene, folder, step), SCHEMA)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"opening_m": 21, "closing_m": 15, "min_area_m2": 900},
    {"simplify_m": 12, "min_area_m2": 300},
]


@pytest.mark.parametrize("grid", [UTM, DEGREES], ids=["utm", "degrees"])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "cleaned", "simplified"])
def test_features_do_not_depend_on_blocks_and_windows(
    tmp_path: Path, grid: Grid, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "GROUND_TILE", 64)
    whole = collect(store(tmp_path / "a", grid, **options), tmp_path / "a" / "spill")
    blocks = store(tmp_path / "b", grid, block=256, **options)
    assert len(whole) >= 10
    for number, step in enumerate((33, 64, 101)):
        assert collect(blocks, tmp_path / f"spill{number}", step).equals(whole)


@pytest.mark.parametrize("grid", [UTM, DEGREES], ids=["utm", "degrees"])
def test_attributes_are_what_their_names_say(tmp_path: Path, grid: Grid) -> None:
    scene = store(tmp_path, grid)
    table = collect(scene, tmp_path / "spill")
    (first, change), (second, _) = blobs(0), blobs(1)
    framed = np.pad(change, 1, constant_values=255)
    geod = Geod(ellps="WGS84")
    degrees = decode_degrees(table)
    assert table["id"].to_pylist() == sorted(
        set(table["id"].to_pylist()), key=lambda text: (*map(int, text.split("_")[1:]),)
    )
    for row, polygon, on_earth in zip(table.to_pylist(), decode(table.to_batches()[0]), degrees, strict=True):
        inside = burn(polygon, grid)
        assert (change[inside] == 1).all()
        assert row["pixels"] == inside.sum()
        assert tuple(map(int, row["id"].split("_")[1:])) == tuple(np.argwhere(inside)[0])
        area, _ = geod.geometry_area_perimeter(on_earth)
        assert row["area_m2"] == pytest.approx(area, rel=1e-5, abs=0.1 * shapely.get_num_coordinates(polygon))
        assert row["probability_mean"] == pytest.approx(first[inside].mean(dtype=np.float64), abs=1e-6)
        assert row["probability_max"] == pytest.approx(first[inside].max(), abs=1e-6)
        votes = (first[inside] >= np.float32(0.5)).astype(int) + (second[inside] >= np.float32(0.7))
        assert row["agreement"] == pytest.approx(votes.mean() / 2, abs=1e-6)
        rows, cols = np.nonzero(inside)
        beside = np.stack([framed[rows + r, cols + c] for r, c in ((0, 1), (2, 1), (1, 0), (1, 2))])
        assert row["observed"] == pytest.approx(1 - (beside == 255).sum() / (beside != 1).sum(), abs=1e-6)
        assert (row["pair_id"], row["before_date"], row["after_date"]) == ("p", date(2018, 5, 1), None)


def decode_degrees(table: pa.Table) -> list[Any]:
    """Polygons in degrees."""
    from cdpipe.geo.shapes import transform_polygons  # noqa: PLC0415

    [batch] = table.combine_chunks().to_batches()
    crs = UTM33 if shapely.bounds(decode(batch))[0][0] > 400 else GEOGRAPHIC
    return list(transform_polygons(decode(batch), crs, "EPSG:4326"))


def burn(polygon: Any, grid: Grid) -> NDArray[np.bool_]:
    """Pixels whose centre lies in a polygon."""
    a, _, c, _, e, f = grid.transform
    rows, cols = np.mgrid[: grid.height, : grid.width]
    shapely.prepare(polygon)
    return np.asarray(shapely.contains_xy(polygon, c + a * (cols + 0.5), f + e * (rows + 0.5)))


def test_cleaning_is_that_of_the_whole_scene(tmp_path: Path) -> None:
    scene = store(tmp_path, DEGREES, opening_m=21, closing_m=15)
    steps = pixel_steps(DEGREES, 75, 105)
    _, change = blobs(0)
    expected = clean_mask(change, ground_disc(steps, 21), ground_disc(steps, 15))
    assert ground_disc(steps, 21).shape == (3, 7)
    assert 0 < (expected != change).sum() < change.size / 2
    for window in (Window(0, 0, *SHAPE), Window(40, 70, 50, 60)):
        framed = np.pad(expected, 1, constant_values=255)[
            window.row : window.stop_row + 2, window.col : window.stop_col + 2
        ]
        assert np.array_equal(read_state(scene, window), framed)


def test_a_radius_is_told_for_each_place_of_a_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Degrees of longitude are shorter further north."""
    monkeypatch.setattr(features, "GROUND_TILE", 64)
    features._disc.cache_clear()
    tall = Grid(*SHAPE, (1e-2, 0.0, 13.0, 0.0, -0.2, 75.0), GEOGRAPHIC)  # 30 degrees from top to bottom
    sides = [features._disc(tall, row, 0, 3000.0).shape[1] for row in range(3)]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == 3
    features._disc.cache_clear()


def test_a_radius_beyond_all_reason_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 128 pixels"):
        collect(store(tmp_path, opening_m=1e5), tmp_path / "spill")


def test_small_objects_are_left_out(tmp_path: Path) -> None:
    everything = collect(store(tmp_path), tmp_path / "spill")
    large = collect(store(tmp_path, min_area_m2=1000), tmp_path / "spill2")
    assert 0 < len(large) < len(everything)
    assert large["id"].to_pylist() == [row["id"] for row in everything.to_pylist() if row["area_m2"] >= 1000]


@pytest.mark.parametrize("options", [{}, {"min_area_m2": 900}, {"closing_m": 15}], ids=["all", "large", "closed"])
@pytest.mark.parametrize("step", [16, 100, 2048])
def test_more_objects_than_allowed_are_refused(tmp_path: Path, options: dict[str, Any], step: int) -> None:
    """Those that would be written count, however they lie in the windows."""
    count = len(collect(store(tmp_path, **options), tmp_path / "spill", step))
    assert count > 2
    allowed = collect(store(tmp_path, **options, max_objects=count), tmp_path / "spill2", step)
    assert len(allowed) == count
    scene = store(tmp_path, **options, max_objects=count - 1)
    (tmp_path / "spill3").mkdir()
    with pytest.raises(RefusedError, match=f"more than {count - 1:,} change objects .vectors.max_objects.") as error:
        next(features.change_features(scene, tmp_path / "spill3", step))
    assert "predict.threshold" in str(error.value)
    assert "\n" not in str(error.value)


def test_objects_wait_in_a_file_as_they_are(tmp_path: Path) -> None:
    """What is left of the small ones is counted before the first is given, and is what it would be."""
    everything = collect(store(tmp_path), tmp_path / "spill")
    waited = collect(store(tmp_path, min_area_m2=0.001), tmp_path / "spill2")
    assert waited.equals(everything)


def test_simplification_keeps_to_pixel_corners_and_lets_nothing_overlap(tmp_path: Path) -> None:
    plain = decode(collect(store(tmp_path), tmp_path / "spill").to_batches()[0])
    simple = decode(collect(store(tmp_path, simplify_m=12), tmp_path / "spill2").to_batches()[0])
    assert shapely.get_num_coordinates(simple).sum() < 0.8 * shapely.get_num_coordinates(plain).sum()
    assert shapely.is_valid(simple).all()
    assert (shapely.get_num_interior_rings(simple) == shapely.get_num_interior_rings(plain)).all()
    for one, other in zip(plain, simple, strict=True):
        corners = {tuple(point) for point in shapely.get_coordinates(one)}
        assert {tuple(point) for point in shapely.get_coordinates(other)} <= corners
    assert shapely.union_all(simple).area == pytest.approx(shapely.area(simple).sum())


def test_without_a_georeference_coordinates_are_pixels(tmp_path: Path) -> None:
    table = collect(store(tmp_path, Grid(*SHAPE), min_area_m2=20), tmp_path / "spill")
    assert table["area_m2"].null_count == len(table) > 0
    assert min(table["pixels"].to_pylist()) >= 20
    for row, polygon in zip(table.to_pylist(), decode(table.to_batches()[0]), strict=True):
        assert polygon.area == row["pixels"]
        assert polygon.exterior.is_ccw


def test_a_real_city_has_the_area_of_its_pixels(tmp_path: Path, shared: Path) -> None:
    """Saclay's pixels are square in degrees, 8.4 m wide and 12.7 m high; areas by rows are told in another way."""
    with rasterio.open(shared / "data" / "oscd" / "saclay_e" / "mask.tif") as dataset:
        mask = dataset.read(1)
        grid = Grid(dataset.height, dataset.width, dataset.transform[:6], canonical_wkt(dataset.crs))
    workspace = Workspace(here(tmp_path))
    pair = StoredPair("saclay", "0" * 12, grid, 512, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})
    change = (mask == 1).astype(np.uint8)
    store_change(workspace, pair, "change", change.astype(np.float32), change)
    store_probability(workspace, pair, "m", change.astype(np.float32))
    scene = ChangeScene(workspace, pair, "change", (("m", 0.5),), Vectors(), ("2016-03-15", "2017-08-29"))
    table = collect(scene, tmp_path / "spill")
    _, count = ndimage.label(change)
    assert len(table) == count > 20
    assert sum(table["area_m2"].to_pylist()) == pytest.approx((change.sum(1) * row_areas(grid)).sum(), rel=1e-4)
