"""One trial of the gate: whatever a file is, a pair made of it is stored as rasterio reads it, or refused."""

import os
import resource
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import zarr
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasters import make_config, source_of, utm_grid, write_raster

from cdpipe.config.schema import Config
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_pair
from cdpipe.pairs.ingest import IngestJob, create_pair_groups, finish_label, finish_pair, ingest_block
from cdpipe.pairs.plan import plan_pair, source_files
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

MEMORY, SECONDS = 2 * 2**30, 60  # of a worker, and for one trial: what needs more ends the worker, which fails the test
ROLES = ("red", "green", "blue")
ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Trial:
    """A file in some of the places that a pair has; good rasters of its size and place take the others."""

    path: Path
    before: bool = True
    after: bool = True
    label: bool = False
    pixel_coordinates: bool = True


def run_trials(trials: Iterable[Trial], folder: Path) -> list[str]:
    """What became of each trial, as :func:`attempt` has it.

    Each runs in one of two processes, whose end by a crash, by memory or by the clock is an error here, too.
    """
    outcomes = []
    with ProcessPoolExecutor(2, get_context("spawn"), _limit) as pool:
        running = [(trial, pool.submit(attempt, trial, folder)) for trial in trials]
        for trial, future in running:
            try:
                outcomes.append(future.result())
            except Exception as error:
                last = [file.read_text() for file in folder.glob("last-*")]
                raise AssertionError(f"{trial}: {error}; the workers were at {last}") from error
    return outcomes


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def attempt(trial: Trial, folder: Path) -> str:
    """``ACCEPTED`` if what is stored is what rasterio reads; else the reason why the pair was refused."""
    (folder / f"last-{os.getpid()}").write_text(str(trial))
    signal.alarm(SECONDS)
    with TemporaryDirectory(dir=folder) as scratch:
        result = _attempt(trial, Path(scratch))
    signal.alarm(0)
    return result


def _attempt(trial: Trial, folder: Path) -> str:
    bands = min(_count(trial.path), len(ROLES))
    mate = _write_mate(trial.path, folder / "mate.tif", bands)
    config = make_config(
        folder,
        sensors={"s": {"bands": {role: number for number, role in enumerate(ROLES[:bands], 1)}}},
        align={"block": 512},
        input={"pixel_coordinates": trial.pixel_coordinates},
        label=_meaning(trial.path) if trial.label else {},
    )
    before, after = (
        source_of(trial.path if own else mate, config, tuple(range(1, bands + 1)))
        for own in (trial.before, trial.after)
    )
    pair = Pair("p", "p", before, after, ROLES[:bands], label=here(trial.path) if trial.label else None)
    problems = check_pair(pair, config, ROLES[:bands], read_all=True).problems
    if problems:
        assert not [problem for problem in problems if "\n" in problem or "Traceback" in problem]
        written = {path.name for path in folder.iterdir()} - {"mate.tif", "mate.tif.aux.xml"}
        assert not written, "something was written for a pair that is refused"
        return problems[0].replace(str(trial.path), "FILE").replace(str(folder), "")[:90]
    _compare(_ingest(pair, config, folder), pair)
    return ACCEPTED


def _ingest(pair: Pair, config: Config, folder: Path) -> IngestJob:
    hashes = {path: path.sha256() for path in source_files(pair, config)}
    job = IngestJob(Workspace(here(folder / "work")), config, plan_pair(pair, config, hashes))
    create_pair_groups(job)
    for key in block_keys(pair.pair_id, job.planned.grid.shape, config.align.block):
        ingest_block(job, key, imagery=True, label=pair.label is not None)
    finish_pair(job)
    if pair.label is not None:
        finish_label(job)
    return job


def _compare(job: IngestJob, pair: Pair) -> None:
    planned, observed = job.planned, []
    group = job.workspace.group("pairs", pair.pair_id, planned.key).local()
    for name, source in (("before", pair.before), ("after", pair.after)):
        with rasterio.open(source.path.local(), driver="GTiff") as dataset:
            values = dataset.read(source.bands)
            tags = [dataset.nodatavals[band - 1] for band in source.bands]
            transparent = _is_transparent(dataset, source.bands)
            if planned.grid.crs is not None:
                assert dataset.transform.to_gdal() == rasterio.Affine(*planned.grid.transform).to_gdal()
        present = np.all([_has_data(band, tag) for band, tag in zip(values, tags, strict=True)], axis=0)
        present &= ~transparent
        stored = np.asarray(zarr.open_array(group / name, mode="r")[...])
        narrow = {"int64": "int32", "uint64": "uint32"}
        assert stored.dtype == np.dtype(narrow.get(str(values.dtype), str(values.dtype)))
        assert np.array_equal(stored, np.where(present, values, 0)), f"{name} is not what rasterio reads"
        observed.append(present)
    assert np.array_equal(
        zarr.open_array(group / "valid", mode="r")[...], observed[0] + 2 * observed[1].astype(np.uint8)
    )
    if pair.label is not None:
        with rasterio.open(pair.label.local(), driver="GTiff") as dataset:
            raw, transparent = dataset.read(1), _is_transparent(dataset, (1,))
        meaning = job.config.label
        known = [transparent, np.isin(raw, meaning.changed), np.isin(raw, meaning.unchanged)]
        expected = np.select(known, [255, 1, 0], 255)
        group = job.workspace.group("labels", pair.pair_id, str(planned.label_key)).local()
        assert np.array_equal(zarr.open_array(group / "label", mode="r")[...], expected), (
            "the label is not what rasterio reads"
        )


def _is_transparent(dataset: Any, bands: tuple[int, ...]) -> NDArray[np.bool_]:
    """What rasterio reads as masked, beside nodata; a band that is read is data."""
    flags = dataset.mask_flag_enums[0]
    transparent = np.zeros(dataset.shape, np.bool_)
    for band, kind in zip(dataset.indexes, dataset.colorinterp, strict=True):
        if kind is ColorInterp.alpha and band not in bands:
            transparent |= dataset.read(band) == 0
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        transparent |= dataset.dataset_mask() == 0
    return transparent


def _has_data(band: NDArray[Any], tag: float | None) -> NDArray[np.bool_]:
    present: NDArray[np.bool_] = np.isfinite(band)
    if tag is None or not np.isfinite(tag):
        return present
    with np.errstate(over="ignore"):
        return np.asarray(present & (band != (np.float32(tag) if band.dtype == np.float32 else tag)))


def _count(path: Path) -> int:
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            return int(dataset.count)
    except RasterioError:
        return 1


def _write_mate(path: Path, mate: Path, bands: int) -> Path:
    """A good raster of the file's size and place, as far as they can be told and are not absurd."""
    shape, place = (20, 20), {"transform": utm_grid(1, 1).transform, "crs": utm_grid(1, 1).crs}
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            if dataset.height * dataset.width < 2**23:
                shape = dataset.shape
                place = {"transform": dataset.transform, "crs": dataset.crs}
    except (RasterioError, rasterio._err.CPLE_BaseError):
        pass
    values = np.random.default_rng(0).integers(1, 60_000, (bands, *shape), np.uint16)
    return write_raster(mate, values, None, **place)


def _meaning(path: Path) -> dict[str, list[int]]:
    """A meaning for every value of a label, if there are few."""
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            values = np.unique(dataset.read(1)) if dataset.height * dataset.width < 2**23 else np.arange(0)
    except (RasterioError, rasterio._err.CPLE_BaseError):
        return {}
    whole = values[np.isfinite(values)].real
    if not 0 < len(whole) < 1000 or not np.array_equal(whole, np.rint(whole)) or np.iscomplexobj(values):
        return {}
    integers = [int(value) for value in whole]
    return {"changed": integers[::2], "unchanged": integers[1::2]}
