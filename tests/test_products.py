"""A pair's rasters: what is stored, under names that people find, and recorded as what they are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from stored import Bytes, bright_squares, store_change, store_pair, store_probability

from cdpipe.runs.products import RasterJob, rasters_are_written, write_rasters
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.records import damaged_objects, read_record

SHAPE = (300, 560)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


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


def make_job(workspace: Workspace, pair: StoredPair, key: str = "k", *, models: bool = False) -> RasterJob:
    members = (("net", key),) if models else ()
    return RasterJob(workspace, "run", pair, key, members, {"threshold": "0.5", "models": "net abc"})


def read(path: Path) -> NDArray[np.float32]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def test_rasters_hold_what_is_stored(workspace: Workspace, pair: StoredPair) -> None:
    probability, change = store_results(workspace, pair, "k", 1)
    job = make_job(workspace, pair, models=True)
    assert not rasters_are_written(job)
    paths = write_rasters(job)
    folder = workspace.run("run") / "rasters"
    names = ("change", "probability", "probability_net")
    assert paths == [folder / f"p_{name}{suffix}" for suffix in (".tif", ".qml") for name in names]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert rasters_are_written(job)
    assert np.array_equal(read(paths[0]), change)
    for path in paths[1:3]:
        assert np.array_equal(read(path), probability, equal_nan=True)


def test_rasters_lie_where_the_pair_lies_and_say_what_they_are(workspace: Workspace, pair: StoredPair) -> None:
    store_results(workspace, pair, "k", 1)
    change, probability, *_ = write_rasters(make_job(workspace, pair))
    for path in (change, probability):
        with rasterio.open(path) as dataset:
            assert dataset.crs == CRS.from_wkt(str(pair.grid.crs))
            assert dataset.transform[:6] == pair.grid.transform
            assert {"threshold": "0.5", "models": "net abc"}.items() <= dataset.tags().items()
    with rasterio.open(change) as dataset:
        assert (dataset.nodata, dataset.dtypes) == (255, ("uint8",))
        assert dataset.descriptions == ("change: 0 no, 1 yes, 255 not observed",)
        assert len({dataset.colormap(1)[value] for value in (0, 1, 255)}) == 3
    with rasterio.open(probability) as dataset:
        assert np.isnan(dataset.nodata)
        assert dataset.dtypes == ("float32",)


def test_the_record_holds_the_hashes_and_writing_again_the_bytes(workspace: Workspace, pair: StoredPair) -> None:
    store_results(workspace, pair, "k", 1)
    job = make_job(workspace, pair)
    paths = write_rasters(job)
    first = [path.read_bytes() for path in (*paths, job.record)]
    record = read_record(job.record)
    assert record is not None
    assert set(record.objects) == {str(path.relative_to(workspace.root)) for path in paths}
    assert damaged_objects(record, workspace.root) == []
    write_rasters(job)
    assert [path.read_bytes() for path in (*paths, job.record)] == first


@pytest.mark.parametrize("name", ["p_change.tif", "p_probability.tif", "p_change.qml"])
def test_a_raster_that_is_gone_is_missed(workspace: Workspace, pair: StoredPair, name: str) -> None:
    store_results(workspace, pair, "k", 1)
    job = make_job(workspace, pair)
    write_rasters(job)
    (workspace.run("run") / "rasters" / name).unlink()
    assert not rasters_are_written(job)


def test_going_back_to_an_earlier_result_writes_its_rasters_again(workspace: Workspace, pair: StoredPair) -> None:
    """Both have the same names, and a record that outlived its raster would say that nothing is to be done."""
    found = {key: store_results(workspace, pair, key, seed)[1] for seed, key in enumerate(("k", "other"))}
    first, second = (make_job(workspace, pair, key) for key in found)
    write_rasters(first)
    path = write_rasters(second)[0]
    assert np.array_equal(read(path), found["other"])
    assert not rasters_are_written(first)
    assert rasters_are_written(second)
    write_rasters(first)
    assert np.array_equal(read(path), found["k"])
    assert rasters_are_written(first)
    assert not rasters_are_written(second)


def test_other_runs_and_pairs_keep_their_rasters(workspace: Workspace, pair: StoredPair) -> None:
    other = store_pair(workspace, "p2", *bright_squares(SHAPE, 1), block=256).pair
    for each in (pair, other):
        store_results(workspace, each, "k", 1)
    job = make_job(workspace, pair)
    jobs = [dataclasses.replace(job, run="another"), make_job(workspace, other), job]
    for wanted in jobs:
        write_rasters(wanted)
    assert all(rasters_are_written(wanted) for wanted in jobs)


def test_every_ingredient_makes_other_rasters(workspace: Workspace, pair: StoredPair) -> None:
    job = make_job(workspace, pair)
    jobs = [
        job,
        dataclasses.replace(job, run="another"),
        dataclasses.replace(job, tags={}),
        make_job(workspace, pair, models=True),
        make_job(workspace, pair, "other"),
    ]
    assert len({each.key for each in jobs}) == len(jobs)
