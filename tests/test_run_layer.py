"""The layer of a run: all objects of all pairs in one CRS, those that several scenes show once."""

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasters import GEOGRAPHIC, UTM33
from stored import Bytes, store_change, store_probability

from cdpipe.config.schema import Vectors
from cdpipe.errors import ConfigError
from cdpipe.formats.vectors import SUFFIXES, decode, read_features
from cdpipe.formats.web_vectors import largest_zoom
from cdpipe.geo.crs import WGS84
from cdpipe.geo.grid import Grid
from cdpipe.geo.shapes import transform_polygons
from cdpipe.objects.features import ChangeScene
from cdpipe.runs.products import is_written, recorded, refusal, write_product
from cdpipe.runs.run_layer import RunLayer, keep_best, plan_run_layer, run_layer_product
from cdpipe.runs.vectors import PairLayer, pair_layer_product
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here
from cdpipe.workspace.records import damaged_objects, read_record

PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
YEARS = ("2018-01-01", "2020-01-01")


def make_layer(
    folder: Path, pair_id: str, change: Bytes, level: float, grid: Grid | None = None, **given: Any
) -> PairLayer:
    """A pair whose changed pixels all have one probability, with its layer written."""
    workspace = Workspace(here(folder))
    grid = grid or Grid(change.shape[0], change.shape[1], PLACE, UTM33)
    pair = StoredPair(pair_id, "0" * 12, grid, 512, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})
    probability = np.where(change == 1, level, 0.1).astype(np.float32)
    store_change(workspace, pair, f"c{level}", probability, change)
    store_probability(workspace, pair, "m", probability)
    dates = given.pop("dates", YEARS)
    scene = ChangeScene(workspace, pair, f"c{level}", (("m", 0.5),), Vectors(**given), dates)
    layer = PairLayer("run", scene, {"threshold": "0.5"})
    write_product(pair_layer_product(layer))
    return layer


def squares(*corners: tuple[int, int], side: int = 6, shape: tuple[int, int] = (40, 60)) -> Bytes:
    change = np.zeros(shape, np.uint8)
    for row, col in corners:
        change[row : row + side, col : col + side] = 1
    return change


def plan(*pairs: PairLayer) -> RunLayer:
    layer = plan_run_layer(list(pairs))
    assert layer is not None
    return layer


def write(*pairs: PairLayer) -> list[dict[str, Any]]:
    """Attributes of a layer's features."""
    layer = plan(*pairs)
    write_product(run_layer_product(layer))
    return [row for batch in read_features(layer.path) for row in batch.to_pylist()]


SUFFIX = pytest.mark.parametrize("format_", SUFFIXES)


@SUFFIX
def test_what_several_scenes_show_is_there_once(tmp_path: Path, format_: Any) -> None:
    """The second scene lies 20 pixels further east; one object is seen by both, a pixel further up by the second."""
    east = (10.0, 0.0, 500_200.0, 0.0, -10.0, 4_000_000.0)
    first = make_layer(tmp_path, "a", squares((5, 5), (20, 30)), 0.7, format=format_)
    other = squares((19, 10), (30, 30), shape=(40, 60))
    second = make_layer(tmp_path, "b", other, 0.9, Grid(40, 60, east, UTM33), format=format_)
    rows = write(first, second)
    assert [(row["id"], row["pairs"]) for row in rows] == [("a_5_5", "a"), ("b_19_10", "a,b"), ("b_30_30", "b")]
    assert [row["pair_id"] for row in rows] == ["a", "b", "b"]


def test_other_times_are_other_changes(tmp_path: Path) -> None:
    """The same square, built before the second pair's dates begin: two changes."""
    change = squares((5, 5))
    for dates, count in (
        (("2020-01-01", "2022-01-01"), 2),
        (("2019-12-31", "2022-01-01"), 1),
        ((None, "2022-01-01"), 1),
    ):
        pairs = make_layer(tmp_path, "a", change, 0.7), make_layer(tmp_path, "b", change, 0.8, dates=dates)
        assert len(write(*pairs)) == count


@pytest.mark.parametrize(("shift", "count"), [(1, 1), (2, 2), (3, 2)])
def test_more_than_half_in_common_is_the_same(tmp_path: Path, shift: int, count: int) -> None:
    """Squares of 6 pixels: shifted by one 30 of 42 are common, by two 24 of 48, which is a half and no more."""
    pairs = make_layer(tmp_path, "a", squares((5, 5)), 0.7), make_layer(tmp_path, "b", squares((5, 5 + shift)), 0.8)
    assert len(write(*pairs)) == count


@SUFFIX
def test_pairs_without_change_have_layers_too(tmp_path: Path, format_: Any) -> None:
    empty = make_layer(tmp_path, "empty", squares(), 0.7, format=format_)
    assert write(empty) == []
    other = make_layer(tmp_path, "other", squares((5, 5)), 0.7, format=format_)
    for pairs in ((empty, other), (other, empty), (empty, empty)):
        assert [row["pair_id"] for row in write(*pairs)] == ["other"] * (other in pairs)


def test_objects_of_one_pair_are_never_the_same(tmp_path: Path) -> None:
    ring = squares((5, 5), side=9)
    ring[6:13, 6:13] = 0
    ring[7:12, 7:12] = 1
    assert len(write(make_layer(tmp_path, "a", ring, 0.7))) == 2


def test_pairs_of_several_crs_are_brought_to_degrees(tmp_path: Path) -> None:
    change = squares((5, 5), (20, 30))
    first = make_layer(tmp_path, "a", change, 0.7)
    box = transform_polygons(np.array([shapely.box(500_000, 3_999_600, 500_600, 4_000_000)]), UTM33, WGS84)
    left, bottom, right, top = shapely.bounds(box)[0]
    grid = Grid(40, 60, ((right - left) / 60, 0.0, left, 0.0, (bottom - top) / 40, top), GEOGRAPHIC)
    second = make_layer(tmp_path, "b", change, 0.9, grid)
    rows = write(first, second)
    assert plan(first, second).crs == GEOGRAPHIC
    assert plan(first).crs == UTM33
    assert [(row["pair_id"], row["pairs"]) for row in rows] == [("b", "a,b")] * 2


def test_a_chosen_crs_is_taken_and_an_unknown_one_refused(tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "a", squares((5, 5)), 0.7, crs="EPSG:3857")
    [row] = write(layer)
    [batch] = read_features(layer.path)
    expected = transform_polygons(decode(batch), UTM33, "EPSG:3857")[0]
    assert shapely.from_wkb(row["geometry"]).equals_exact(expected, 1e-6)
    with pytest.raises(ConfigError, match=r"vectors\.crs: expected auto or a known CRS"):
        plan(make_layer(tmp_path, "a", squares((5, 5)), 0.7, crs="EPSG:999999"))


def test_pairs_without_a_georeference_are_left_out(tmp_path: Path) -> None:
    bare = make_layer(tmp_path, "bare", squares((5, 5)), 0.7, Grid(40, 60))
    assert plan_run_layer([bare]) is None
    assert [row["pair_id"] for row in write(bare, make_layer(tmp_path, "a", squares((5, 5)), 0.7))] == ["a"]


@SUFFIX
def test_layers_are_recorded_and_the_same_bytes_each_time(tmp_path: Path, format_: Any) -> None:
    pairs = [make_layer(tmp_path, name, squares((5, 5)), 0.7, format=format_) for name in ("a", "b")]
    layer = plan(*pairs)
    product = run_layer_product(layer)
    assert not is_written(product)
    write(*pairs)
    assert is_written(product)
    record = read_record(product.record)
    assert record is not None
    assert list(record.objects) == [f"runs/run/vectors/change{suffix}" for suffix in (SUFFIXES[format_], ".qml")]
    assert damaged_objects(record, here(tmp_path)) == []
    before = [path.read_bytes() for path in (layer.path, pairs[0].path)]
    write_product(pair_layer_product(pairs[0]))
    write(*pairs)
    assert [path.read_bytes() for path in (layer.path, pairs[0].path)] == before


def test_another_format_replaces_files_and_records(tmp_path: Path) -> None:
    first = make_layer(tmp_path, "a", squares((5, 5)), 0.7)
    write(first)
    second = make_layer(tmp_path, "a", squares((5, 5)), 0.7, format="geojson")
    write(second)
    names = {path.name for path in first.path.parent.iterdir()}
    assert names == {"a_change.geojson", "a_change.qml", "change.geojson", "change.qml"}
    assert (is_written(pair_layer_product(first)), is_written(pair_layer_product(second))) == (False, True)
    assert tuple(is_written(run_layer_product(plan(layer))) for layer in (first, second)) == (False, True)


def test_every_ingredient_makes_another_key(tmp_path: Path) -> None:
    change = squares((5, 5))
    layers = [
        make_layer(tmp_path, "a", change, 0.7),
        make_layer(tmp_path, "a", change, 0.8),
        make_layer(tmp_path, "a", change, 0.7, dates=(None, None)),
        make_layer(tmp_path, "a", change, 0.7, min_area_m2=1),
        make_layer(tmp_path, "a", change, 0.7, opening_m=1),
        make_layer(tmp_path, "a", change, 0.7, format="geojson"),
    ]
    assert len({layer.key for layer in layers}) == len({plan(layer).key for layer in layers}) == len(layers)
    other = make_layer(tmp_path, "a", change, 0.7, crs="EPSG:3857")
    assert other.key == layers[0].key
    assert plan(other).key != plan(layers[0]).key


def test_a_pair_of_noise_has_no_objects_and_the_others_have_theirs(tmp_path: Path) -> None:
    corners = [(5, 5), (5, 20), (20, 5)]
    noisy = make_layer(tmp_path, "a", squares(*corners), 0.7, max_objects=2)
    product = pair_layer_product(noisy)
    assert not list(noisy.path.parent.iterdir())
    assert is_written(product)
    assert recorded(product) == {}
    assert str(refusal(product)).startswith("more than 2 change objects")
    calm = make_layer(tmp_path, "b", squares((25, 40)), 0.8, max_objects=2)
    assert refusal(pair_layer_product(calm)) is None
    layer = plan(noisy, calm)
    write_product(run_layer_product(layer))
    (batch,) = read_features(layer.path)
    assert batch.column("pair_id").to_pylist() == ["b"]
    # going on to allow them, and back
    allowed = make_layer(tmp_path, "a", squares(*corners), 0.7, max_objects=3)
    assert (refusal(pair_layer_product(allowed)), allowed.path.is_file()) == (None, True)
    write_product(product)
    assert not list(noisy.path.parent.glob("a_*"))
    assert not is_written(pair_layer_product(allowed))
    alone = run_layer_product(plan(noisy))
    write_product(alone)
    assert (is_written(alone), recorded(alone), layer.path.exists()) == (True, {}, False)
    assert str(refusal(alone)) == "the objects of all its pairs were refused"


def test_the_default_bound_is_not_part_of_keys(tmp_path: Path) -> None:
    """So layers that were written before there was one are not written again."""
    given, same, other = (
        make_layer(tmp_path, "a", squares((5, 5)), 0.7, max_objects=most).key
        for most in (Vectors().max_objects, 100_000, 99_999)
    )
    assert given == same != other
    assert given == make_layer(tmp_path, "a", squares((5, 5)), 0.7).key


@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda edge: edge[0] < edge[1])))
def test_the_best_of_those_that_are_the_same_is_kept(edges: set[tuple[int, int]]) -> None:
    rank = {node: -node for edge in edges for node in edge}
    out = keep_best(sorted(edges), rank)
    kept = set(rank) - set(out)
    assert not any(one in kept and other in kept for one, other in edges)
    for left_out, best in out.items():
        better = [sum(edge) - left_out for edge in edges if left_out in edge]
        assert best == max(node for node in better if node in kept and node > left_out)


def test_the_ends_of_a_chain_are_kept_whatever_the_order() -> None:
    for edges in ([(1, 2), (2, 3)], [(2, 3), (1, 2)], [(3, 2), (2, 1)]):
        assert keep_best(edges, {1: 0, 2: 1, 3: 2}) == {2: 1}


WEB: dict[str, Any] = {"also": ("flatgeobuf", "pmtiles")}


@SUFFIX
@pytest.mark.parametrize("crs", [UTM33, GEOGRAPHIC])
def test_web_maps_get_the_same_objects(tmp_path: Path, format_: Any, crs: str) -> None:
    """FlatGeobuf has the same polygons in any order; tiles have them as far as their units are fine."""
    place = PLACE if crs == UTM33 else (0.0001, 0.0, 15.0, 0.0, -0.0001, 48.0)
    change = squares((5, 5), (20, 30), side=3)
    change[39, 59] = 1  # a single pixel
    layer = plan(make_layer(tmp_path, "a", change, 0.7, Grid(40, 60, place, crs), format=format_, **WEB))
    files = write_product(run_layer_product(layer))
    rows = [row for batch in read_features(layer.path) for row in batch.to_pylist()]
    polygons = np.concatenate([decode(batch) for batch in read_features(layer.path)])
    plain = layer.crs if format_ != "geojson" else WGS84
    for suffix, to in ((".fgb", plain), (".pmtiles", "EPSG:3857")):
        path = layer.path.with_suffix(suffix)
        assert files[path] == path.sha256()
        meta, _, shapes, columns = pyogrio.raw.read(path.local(), layer="change")
        found = dict(zip(columns[list(meta["fields"]).index("id")], shapely.from_wkb(shapes), strict=True))
        assert set(found) == {row["id"] for row in rows}
        assert pyproj.CRS(meta["crs"]) == pyproj.CRS(to) or suffix == ".fgb"
        for row, polygon in zip(rows, transform_polygons(polygons, plain, to), strict=True):
            both = shapely.intersection(found[row["id"]], polygon).area
            either = shapely.union(found[row["id"]], polygon).area
            assert both > (0.999999 if suffix == ".fgb" else 0.7) * either
    again = {path: path.read_bytes() for path in files}
    write_product(run_layer_product(layer))
    assert {path: path.read_bytes() for path in files} == again
    assert (layer.path.with_suffix(".pmtiles").read_bytes()[:8]) == b"PMTiles\x03"


def test_web_maps_that_are_wanted_no_more_go(tmp_path: Path) -> None:
    """Without them the layer has the key that it had when there were none; nothing of a pair is made again."""
    changes = squares((5, 5))
    plain = plan(make_layer(tmp_path, "a", changes, 0.7))
    more = plan(make_layer(tmp_path, "a", changes, 0.7, **WEB))
    assert plain.pairs[0].key == more.pairs[0].key
    assert plain.key != more.key
    write_product(run_layer_product(plain))
    write_product(run_layer_product(more))
    assert not is_written(run_layer_product(plain))
    assert is_written(run_layer_product(more))
    write_product(run_layer_product(plain))
    assert {path.name for path in plain.path.parent.iterdir()} == {
        *("change.gpkg", "change.qml", "a_change.gpkg", "a_change.qml"),
    }


@SUFFIX
def test_web_maps_of_no_change_are_empty(tmp_path: Path, format_: Any) -> None:
    layer = plan(make_layer(tmp_path, "a", squares(), 0.7, format=format_, **WEB))
    files = write_product(run_layer_product(layer))
    assert {path.suffix for path in files} == {SUFFIXES[format_], ".qml", ".fgb"}  # tiles would be none
    assert len(pyogrio.raw.read(layer.path.with_suffix(".fgb").local())[2]) == 0


@pytest.mark.parametrize(("pixel_m", "zoom"), [(1e9, 0), (40_075_017 / 4096 / 4, 4), (10, 12), (0.5, 17), (0.01, 18)])
def test_tiles_tell_apart_a_quarter_of_a_pixel(pixel_m: float, zoom: int) -> None:
    assert largest_zoom(pixel_m) == zoom
