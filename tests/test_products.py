"""What a run publishes: recorded as what it is; and a pair's rasters: what is stored, under names that people find."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from stored import Bytes, bright_squares, store_change, store_pair, store_probability

from cdpipe.errors import IntegrityError
from cdpipe.runs.products import Product, ensure_written, is_written, recorded, write_product
from cdpipe.runs.rasters import PairRasters, raster_product
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here
from cdpipe.workspace.records import damaged_objects, hash_stored, read_record

SHAPE = (300, 560)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(here(tmp_path))


@pytest.fixture
def pair(workspace: Workspace) -> StoredPair:
    return store_pair(workspace, "p", *bright_squares(SHAPE, 0), block=256).pair


def store_results(workspace: Workspace, pair: StoredPair, key: str, seed: int) -> tuple[NDArray[np.float32], Bytes]:
    """A made-up probability, its change, and the same probability as that of a model."""
    probability = np.random.default_rng(seed).random(SHAPE, np.float32)
    probability[:40, :90] = np.nan
    change = np.where(np.isnan(probability), 255, probability >= 0.5).astype(np.uint8)
    store_change(workspace, pair, key, probability, change)
    store_probability(workspace, pair, key, probability)
    return probability, change


def make_rasters(workspace: Workspace, pair: StoredPair, key: str = "k", *, models: bool = False) -> PairRasters:
    members = (("net", key),) if models else ()
    return PairRasters(workspace, "run", pair, key, members, {"threshold": "0.5", "models": "net abc"})


def make_product(workspace: Workspace, pair: StoredPair, key: str = "k", *, models: bool = False) -> Product:
    return raster_product(make_rasters(workspace, pair, key, models=models))


def read(path: Path) -> NDArray[np.float32]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def test_rasters_hold_what_is_stored(workspace: Workspace, pair: StoredPair) -> None:
    probability, change = store_results(workspace, pair, "k", 1)
    product = make_product(workspace, pair, models=True)
    assert not is_written(product)
    paths = list(write_product(product))
    folder = workspace.run("run") / "rasters"
    names = ("change", "probability", "probability_net")
    assert paths == [folder / f"p_{name}{suffix}" for suffix in (".tif", ".qml") for name in names]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert is_written(product)
    assert np.array_equal(read(paths[0].local()), change)
    for path in paths[1:3]:
        assert np.array_equal(read(path.local()), probability, equal_nan=True)


def test_rasters_lie_where_the_pair_lies_and_say_what_they_are(workspace: Workspace, pair: StoredPair) -> None:
    store_results(workspace, pair, "k", 1)
    change, probability, *_ = write_product(make_product(workspace, pair))
    for path in (change, probability):
        with rasterio.open(path.local()) as dataset:
            assert dataset.crs == CRS.from_wkt(str(pair.grid.crs))
            assert dataset.transform[:6] == pair.grid.transform
            assert {"threshold": "0.5", "models": "net abc"}.items() <= dataset.tags().items()
    with rasterio.open(change.local()) as dataset:
        assert (dataset.nodata, dataset.dtypes) == (255, ("uint8",))
        assert dataset.descriptions == ("change: 0 no, 1 yes, 255 not observed",)
        assert len({dataset.colormap(1)[value] for value in (0, 1, 255)}) == 3
    with rasterio.open(probability.local()) as dataset:
        assert np.isnan(dataset.nodata)
        assert dataset.dtypes == ("float32",)


def test_the_record_holds_the_hashes_and_writing_again_the_bytes(workspace: Workspace, pair: StoredPair) -> None:
    store_results(workspace, pair, "k", 1)
    product = make_product(workspace, pair)
    paths = list(write_product(product))
    first = [path.read_bytes() for path in (*paths, product.record)]
    record = read_record(product.record)
    assert record is not None
    assert set(record.objects) == {str(path.relative_to(workspace.root)) for path in paths}
    assert damaged_objects(record, workspace.root) == []
    assert recorded(product) == record.objects
    write_product(product)
    assert [path.read_bytes() for path in (*paths, product.record)] == first


@pytest.mark.parametrize("name", ["p_change.tif", "p_probability.tif", "p_change.qml"])
def test_a_raster_that_is_gone_is_missed(workspace: Workspace, pair: StoredPair, name: str) -> None:
    store_results(workspace, pair, "k", 1)
    product = make_product(workspace, pair)
    write_product(product)
    (workspace.run("run") / "rasters" / name).unlink()
    assert not is_written(product)


def test_going_back_to_an_earlier_result_writes_its_rasters_again(workspace: Workspace, pair: StoredPair) -> None:
    """Both have the same names, and a record that outlived its raster would say that nothing is to be done."""
    found = {key: store_results(workspace, pair, key, seed)[1] for seed, key in enumerate(("k", "other"))}
    first, second = (make_product(workspace, pair, key) for key in found)
    write_product(first)
    path = next(iter(write_product(second)))
    assert np.array_equal(read(path.local()), found["other"])
    assert not is_written(first)
    assert is_written(second)
    write_product(first)
    assert np.array_equal(read(path.local()), found["k"])
    assert is_written(first)
    assert not is_written(second)


def test_other_runs_and_pairs_keep_their_rasters(workspace: Workspace, pair: StoredPair) -> None:
    other = store_pair(workspace, "p2", *bright_squares(SHAPE, 1), block=256).pair
    for stored in (pair, other):
        store_results(workspace, stored, "k", 1)
    rasters = make_rasters(workspace, pair)
    specs = [dataclasses.replace(rasters, run="another"), make_rasters(workspace, other), rasters]
    products = list(map(raster_product, specs))
    for product in products:
        write_product(product)
    assert all(map(is_written, products))


def test_every_ingredient_makes_other_rasters(workspace: Workspace, pair: StoredPair) -> None:
    rasters = make_rasters(workspace, pair)
    specs = [
        rasters,
        dataclasses.replace(rasters, run="another"),
        dataclasses.replace(rasters, tags={}),
        make_rasters(workspace, pair, models=True),
        make_rasters(workspace, pair, "other"),
    ]
    assert len({raster_product(spec).key for spec in specs}) == len(specs)


@dataclasses.dataclass(frozen=True)
class Text:
    """A product of one file, which says what it found when it was written."""

    path: Path
    records: Path
    fails: bool = False


def write_text(text: Text) -> dict[Location, str]:
    text.path.write_text(f"{len(list(text.records.rglob('*.json')))} record(s)")
    if text.fails:
        raise IntegrityError("disk full")
    return hash_stored([here(text.path)])


def text_product(workspace: Workspace, key: str, *, fails: bool = False) -> Product:
    path = workspace.root / "text"
    spec = Text(path.local(), (workspace.records("vectors", "p", "").parent).local(), fails)
    return Product(workspace, "vectors", "p", key, (path,), spec, write_text)


def test_a_product_is_recorded_last_and_what_it_replaces_is_withdrawn_first(workspace: Workspace) -> None:
    first, second = (text_product(workspace, key) for key in "ab")
    for product, other in ((first, second), (second, first)):
        assert recorded(product) == {}
        [path] = write_product(pickle.loads(pickle.dumps(product)))  # noqa: S301 (our own)
        assert path.read_text() == "0 record(s)"
        assert (is_written(product), is_written(other)) == (True, False)
    with pytest.raises(IntegrityError):
        write_product(text_product(workspace, "c", fails=True))
    assert not any(is_written(text_product(workspace, key)) for key in "abc")


def test_a_product_that_is_there_is_not_written_again(workspace: Workspace) -> None:
    ensure_written(text_product(workspace, "a"))
    ensure_written(text_product(workspace, "a", fails=True))
    with pytest.raises(IntegrityError):
        ensure_written(text_product(workspace, "b", fails=True))
