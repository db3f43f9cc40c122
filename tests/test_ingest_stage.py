"""Ingest: what lies in the store is what lies in the files, and measured right, however it is cut into blocks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasters import make_config, source_of, utm_grid, write_raster
from stored import count_cells

from cdpipe.errors import InputError, IntegrityError
from cdpipe.geo.grid import BlockKey, Grid, Window
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.ingest import IngestJob, create_pair_groups, finish_label, finish_pair, ingest_block
from cdpipe.pairs.labels import read_label
from cdpipe.pairs.outlook import cells_of_files
from cdpipe.pairs.plan import labelled_pair, plan_pair, source_files, stored_cells
from cdpipe.store.histograms import SHARES
from cdpipe.store.pair import StoredPair, load_pair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here
from cdpipe.workspace.records import GROUP_RECORD, damaged_objects, read_record

GRID = utm_grid(600, 1100)
BANDS = (3, 1, 2)  # the order of red, green, blue in the files
SENSOR = {"bands": {"red": 3, "green": 1, "blue": 2}, "nodata": 0}


def noise(shape: tuple[int, int], seed: int, count: int = 3) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 60_000, (count, *shape), np.uint16)


def moved(rows: float, cols: float, pixel: float = 10.0) -> Grid:
    """A grid of the same zone that is shifted, by pixels, and may have other pixels."""
    a, b, x, d, e, y = GRID.transform
    return utm_grid(620, 1130, (pixel, b, x + cols * a, d, -pixel, y + rows * e))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Two dates on one grid with holes, a cloud raster for the second, a label with values of its own."""
    before, after = noise(GRID.shape, 1), noise(GRID.shape, 2)
    before[0, :50, :70] = 0
    after[:, 500:, 1000:] = 0
    cloud = np.ones(GRID.shape, np.uint8)
    cloud[200:300, 400:700] = 0
    label = np.full(GRID.shape, 3, np.uint8)
    label[40:260, 30:520] = 7
    label[:, 900:] = 9
    return make_pair(tmp_path, before, after, GRID, label=label, cloud=cloud)


def make_pair(
    folder: Path, before: NDArray[Any], after: NDArray[Any], after_grid: Grid, **masks: NDArray[np.uint8]
) -> Pair:
    config = make_config(folder, sensors={"s": SENSOR})
    paths = {name: here(write_raster(folder / f"{name}.tif", mask, GRID)) for name, mask in masks.items()}
    return Pair(
        "p",
        "p",
        source_of(write_raster(folder / "before.tif", before, GRID, tiled=True), config, BANDS),
        source_of(write_raster(folder / "after.tif", after, after_grid, tiled=True), config, BANDS),
        ("red", "green", "blue"),
        label=paths.get("label"),
        after_valid=paths.get("cloud"),
    )


def make_job(folder: Path, pair: Pair, block: int = 512) -> IngestJob:
    label = {"changed": [7], "unchanged": [3], "ignore": [9]}
    config = make_config(folder, sensors={"s": SENSOR}, align={"block": block}, label=label)
    hashes = {path: path.sha256() for path in source_files(pair, config)}
    return IngestJob(Workspace(here(folder / f"work{block}")), config, plan_pair(pair, config, hashes))


def blocks_of(job: IngestJob) -> list[BlockKey]:
    return block_keys(job.planned.pair.pair_id, job.planned.grid.shape, job.config.align.block)


def ingest(job: IngestJob) -> StoredPair:
    create_pair_groups(job)
    for key in blocks_of(job):
        ingest_block(job, key, imagery=True, label=job.planned.label_key is not None)
    stored = finish_pair(job)
    if job.planned.label_key is not None:
        finish_label(job)
    return stored


def layer(job: IngestJob, name: str) -> NDArray[Any]:
    """A whole stored array."""
    pair_id, key, label_key = "p", job.planned.key, job.planned.label_key
    kind: Any = "labels" if name in ("label", "cells") else "pairs"
    group = job.workspace.group(kind, pair_id, str(label_key) if kind == "labels" else key)
    return np.asarray(zarr.open_array((group / name).local(), mode="r")[...])


def plain_observed(job: IngestJob) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    valid = layer(job, "valid")
    return valid & 1 == 1, valid & 2 == 2


def test_what_is_stored_is_what_rasterio_reads(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    ingest(job)
    observed = []
    for name in ("before", "after"):
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            expected = dataset.read(BANDS)
        present = (expected != 0).all(axis=0)
        assert np.array_equal(layer(job, name), np.where(present, expected, 0))
        observed.append(present)
    with rasterio.open(tmp_path / "cloud.tif") as dataset:
        observed[1] &= dataset.read(1) == 1
    assert np.array_equal(layer(job, "valid"), observed[0] + 2 * observed[1].astype(np.uint8))
    assert 0 < observed[1].sum() < observed[0].sum() < GRID.height * GRID.width


def test_the_check_counts_cells_as_they_will_be_stored(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    ingest(job)
    counted = cells_of_files(job.config)(pair, GRID)
    np.testing.assert_array_equal(counted, layer(job, "cells"))
    np.testing.assert_array_equal(stored_cells(job.workspace, [job.planned])(pair, GRID), counted)


def test_labels_and_cells_are_those_of_the_whole_scene(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    ingest(job)
    with rasterio.open(tmp_path / "label.tif") as dataset:
        raw = dataset.read(1)
    label = np.select([raw == 7, raw == 3], [np.uint8(1), np.uint8(0)], np.uint8(255))
    assert np.array_equal(layer(job, "label"), label)
    before, after = plain_observed(job)
    counted = np.where(before & after, label, np.uint8(255))
    assert np.array_equal(layer(job, "cells"), count_cells(counted))
    totals = {"valid": int((counted != 255).sum()), "changed": int((counted == 1).sum())}
    record = read_record(job.workspace.records("labels", "p", str(job.planned.label_key)) / GROUP_RECORD)
    assert record is not None
    assert record.facts == totals
    assert 0 < totals["changed"] < totals["valid"]


def test_statistics_are_those_of_the_whole_scene(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    stored = ingest(job)
    masks = plain_observed(job)
    common = masks[0] & masks[1]
    for number, name in enumerate(("before", "after")):
        for kind, mask in (("common", common), ("per_date", masks[number])):
            pixels = layer(job, name)[:, mask].astype(np.float64)  # sums of squares stay below 2^53: exact
            moments = stored.moments[kind][number]
            assert moments.count == pixels.shape[1]
            assert moments.sums == tuple(pixels.sum(axis=1).tolist())
            assert moments.products == tuple(map(tuple, (pixels @ pixels.T).tolist()))
            assert moments.combine([(0, 1.0)]) == pytest.approx((pixels[0].mean(), pixels[0].std()), rel=1e-12)
            expected = np.quantile(pixels, SHARES, axis=1).T
            np.testing.assert_allclose(stored.levels[kind][number], expected, rtol=1e-12)


@pytest.mark.parametrize("after_grid", [moved(-5.3, -7.6), moved(-5.5, -8.5, 10.4)], ids=["shifted", "scaled"])
def test_a_date_on_another_grid_comes_out_the_same_whatever_the_blocks(tmp_path: Path, after_grid: Grid) -> None:
    after = noise(after_grid.shape, 3)
    after[:, 300:320, 480:530] = 0
    pair = make_pair(tmp_path, noise(GRID.shape, 1), after, after_grid)
    jobs = [make_job(tmp_path, pair, block) for block in (512, 1024)]
    stored = [ingest(job) for job in jobs]
    for name in ("before", "after", "valid"):
        assert np.array_equal(layer(jobs[0], name), layer(jobs[1], name))
    assert (stored[0].moments, stored[0].levels) == (stored[1].moments, stored[1].levels)
    whole = Window(0, 0, *GRID.shape)
    values, observed = read_on_grid(pair.after, None, GRID, whole, jobs[0].config)
    assert np.array_equal(layer(jobs[0], "after"), values)
    assert np.array_equal(plain_observed(jobs[0])[1], observed)


def test_a_shifted_date_is_what_gdal_makes_of_the_whole_scene(tmp_path: Path) -> None:
    """One call of GDAL for the whole scene: within one projection only rounding may tell the two apart."""
    after_grid = moved(-5.3, -7.6)
    after = noise(after_grid.shape, 3)
    pair = make_pair(tmp_path, noise(GRID.shape, 1), after, after_grid)
    job = make_job(tmp_path, pair)
    ingest(job)
    expected = np.zeros((3, *GRID.shape), np.uint16)
    place: dict[str, Any] = {"src_crs": after_grid.crs, "dst_crs": GRID.crs, "resampling": Resampling.bilinear}
    transforms = {
        f"{side}_transform": rasterio.Affine(*grid.transform) for side, grid in (("src", after_grid), ("dst", GRID))
    }
    reproject(after[[band - 1 for band in BANDS]], expected, **place, **transforms)
    assert plain_observed(job)[1].all()
    difference = np.abs(layer(job, "after").astype(np.int64) - expected)
    assert difference.max() <= 1


def test_a_label_on_another_grid_comes_out_the_same_whatever_the_blocks(tmp_path: Path, pair: Pair) -> None:
    coarse = utm_grid(150, 300, (40.0, 0.0, GRID.transform[2] - 35.0, 0.0, -40.0, GRID.transform[5] + 25.0))
    write_raster(tmp_path / "label.tif", np.random.default_rng(0).choice([3, 7], coarse.shape).astype(np.uint8), coarse)
    jobs = [make_job(tmp_path, pair, block) for block in (512, 1024)]
    for job in jobs:
        ingest(job)
    whole = read_label(here(tmp_path / "label.tif"), GRID, Window(0, 0, *GRID.shape), jobs[0].config)
    for job in jobs:
        assert np.array_equal(layer(job, "label"), whole)
    assert np.array_equal(layer(jobs[0], "cells"), layer(jobs[1], "cells"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_ingesting_again_in_another_order_gives_the_same_bytes(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    ingest(job)
    first = contents(job.workspace.root.local())
    assert not [name for name in first if "partial" in name]
    other = IngestJob(Workspace(here(tmp_path / "again")), job.config, job.planned)
    create_pair_groups(other)
    for key in reversed(blocks_of(other)):
        ingest_block(other, key, imagery=True, label=False)
        ingest_block(other, key, imagery=False, label=True)
        ingest_block(other, key, imagery=True, label=True)  # at least once, says Ray
    finish_label(other)
    finish_pair(other)
    assert contents(other.workspace.root.local()) == first
    ingest(job)
    assert contents(job.workspace.root.local()) == first


def test_records_name_every_stored_object_with_its_hash(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    ingest(job)
    root = job.workspace.root
    records = [read_record(here(path)) for path in (root / "records").local().rglob("*.json")]
    found = {name for record in records if record for name in record.objects}
    stored = {
        str(path.relative_to(root.local())) for path in (root / "store.zarr").local().rglob("*") if path.is_file()
    }
    assert all(record and not damaged_objects(record, root) for record in records)
    assert found == stored
    assert len(records) == 2 * (len(blocks_of(job)) + 1)


def test_a_finished_pair_is_read_back_as_it_was(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    assert labelled_pair(job.workspace, job.planned) is None
    stored = ingest(job)
    assert load_pair(job.workspace, "p", job.planned.key) == stored == finish_pair(job)
    found = labelled_pair(job.workspace, job.planned)
    assert found is not None
    assert (found.pair, found.label_key) == (stored, job.planned.label_key)


def test_dates_that_have_no_observed_pixel_in_common_are_named(tmp_path: Path) -> None:
    before, after = noise(GRID.shape, 1), noise(GRID.shape, 2)
    before[:, :, 550:] = 0
    after[:, :, :550] = 0
    job = make_job(tmp_path, make_pair(tmp_path, before, after, GRID))
    with pytest.raises(InputError, match="pair p: no pixel is observed at both dates; check nodata"):
        ingest(job)
    assert load_pair(job.workspace, "p", job.planned.key) is None
    assert not (job.workspace.records("pairs", "p", job.planned.key) / GROUP_RECORD).exists()


def test_a_truncated_file_is_named_and_leaves_no_record(tmp_path: Path, pair: Pair) -> None:
    path = tmp_path / "after.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    job = make_job(tmp_path, pair)
    create_pair_groups(job)
    records = job.workspace.records("pairs", "p", job.planned.key)
    for key in blocks_of(job)[-2:]:
        with pytest.raises(InputError, match=rf"^{path}: not readable as a raster"):
            ingest_block(job, key, imagery=True, label=True)
    ingest_block(job, blocks_of(job)[0], imagery=True, label=True)  # which lies before the cut
    assert [each.name for each in records.glob("*")] == ["0_0.json"]


def test_a_value_without_meaning_in_the_label_is_named(tmp_path: Path, pair: Pair) -> None:
    label = np.full(GRID.shape, 3, np.uint8)
    label[500, 1000] = 42
    write_raster(tmp_path / "label.tif", label, GRID)
    with pytest.raises(InputError, match=r"label.tif: value\(s\) 42 are in none of label"):
        ingest(make_job(tmp_path, pair))


def test_a_damaged_record_is_not_taken_for_a_finished_block(tmp_path: Path, pair: Pair) -> None:
    job = make_job(tmp_path, pair)
    create_pair_groups(job)
    for block in blocks_of(job):
        ingest_block(job, block, imagery=True, label=True)
    for kind, key, finish in (("labels", job.planned.label_key, finish_label), ("pairs", job.planned.key, finish_pair)):
        records = job.workspace.root / "records" / kind / "p" / str(key)
        (records / "0_1.json").local().write_text("{")
        with pytest.raises(IntegrityError, match="a block's record is damaged"):
            finish(job)
        assert not (records / GROUP_RECORD).exists()
