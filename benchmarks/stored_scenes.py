"""Made-up scenes for the benchmarks: as GeoTIFFs, and in a store, written by the functions that ingest uses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from cdpipe.config.load import parse_config
from cdpipe.config.schema import Sensor
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import CELL, tiles_in
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.ingest import IngestJob, create_pair_groups
from cdpipe.pairs.plan import PlannedPair, plan_pair
from cdpipe.prediction.block import Member
from cdpipe.prediction.ensemble import Ensemble
from cdpipe.runs.plan import RunPair
from cdpipe.store.arrays import cell_window, write_block
from cdpipe.store.groups import LABEL_ARRAYS, create_group, pair_arrays
from cdpipe.store.pair import LabelledPair, StoredPair
from cdpipe.store.statistics import measure
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

ROLES = ("red", "green", "blue", "nir")
BLOCK = 2048
UTM = CRS.from_epsg(32633).to_wkt()


def grid_of(side: int) -> Grid:
    """A square scene of 1 m pixels."""
    return Grid(side, side, (1.0, 0.0, 400000.0, 0.0, -1.0, 5000000.0), UTM)


def make_pixels(window: Window, seed: int) -> NDArray[np.uint16]:
    """(4, height, width) of 10-bit land: slow waves, fields with edges, noise; packs as well as real scenes."""
    rng = np.random.default_rng([seed, window.row, window.col])
    y = np.arange(window.row, window.stop_row, dtype=np.float32)[:, None]
    x = np.arange(window.col, window.stop_col, dtype=np.float32)[None, :]
    fields = ((y // 150 * 7 + x // 210 * 11) % 13) * 25
    land = 350 + 90 * np.sin(x / 70) * np.cos(y / 50) + fields
    noise = rng.standard_normal(window.shape, np.float32) * 10
    bands = [land * (1 + 0.1 * band) + np.roll(noise, 97 * band, 0) for band in range(len(ROLES))]
    return np.stack(bands).clip(0, 1023).astype(np.uint16)


def describe_scene(side: int) -> StoredPair:
    """The pair that :func:`store_scene` stores; its statistics are those of the first pixels."""
    corner = Window(0, 0, 512, 512)
    mask = np.ones(corner.shape, np.bool_)
    before, after = (measure(make_pixels(corner, date), mask, corner) for date in (0, 1))
    facts = dict.fromkeys(("common", "per_date"), (before, after))
    return StoredPair("p", f"{side:012d}", grid_of(side), BLOCK, ROLES, ((1.0, 0.0), (1.0, 0.0)), facts)


def run_pair(stored: StoredPair, members: tuple[Member, ...], ensemble: Ensemble | None) -> RunPair:
    """A stored scene in a run, as if a catalog had named it."""
    source = Source(
        here(Path()), "made", Sensor(bands={role: band + 1 for band, role in enumerate(ROLES)}), (1, 2, 3, 4)
    )
    row = Pair(stored.pair_id, stored.pair_id, source, source, stored.roles)
    planned = PlannedPair(row, stored.grid, ("uint16", "uint16"), stored.key, None, {})
    return RunPair(planned, stored, None, members, ensemble)


def store_scene(
    root: Path, side: int, observed: Iterable[tuple[int, int]] | None = None, rows: int = BLOCK
) -> LabelledPair:
    """Store a labelled pair of (4, side, side) uint16.

    Args:
        root: The workspace.
        side: Of the scene, in pixels.
        observed: Rows and columns of the blocks that are observed; by default all. The rest is stored all the same.
        rows: How many of a block's rows of pixels are observed.
    """
    workspace, pair = Workspace(here(root)), describe_scene(side)
    grid = pair.grid
    group, labels = (workspace.group(kind, "p", pair.key) for kind in ("pairs", "labels"))
    create_group(group, pair_arrays(ROLES, "uint16", "uint16"), grid, BLOCK, {})
    create_group(labels, LABEL_ARRAYS, grid, BLOCK, {})
    chosen = None if observed is None else set(observed)
    for key in pair.blocks():
        window = pair.window(key)
        seen = chosen is None or (key.block_row, key.block_col) in chosen
        valid = np.zeros(window.shape, np.uint8)
        valid[: rows if seen else 0] = 3
        for date, name in enumerate(("before", "after")):
            shape = (len(ROLES), *window.shape)
            values: NDArray[Any] = make_pixels(window, date) if seen else np.zeros(shape, np.uint16)
            write_block(group, name, window, values)
        write_block(group, "valid", window, valid)
        label = _make_label(window)
        write_block(labels, "label", window, label)
        write_block(labels, "cells", cell_window(window), _count(label, valid))
    return LabelledPair(pair, pair.key)


def _make_label(window: Window) -> NDArray[np.uint8]:
    y, x = np.mgrid[window.row : window.stop_row, window.col : window.stop_col]
    label: NDArray[np.uint8] = ((y % 190 < 40) & (x % 230 < 35)).astype(np.uint8)
    return label


def _count(label: NDArray[np.uint8], valid: NDArray[np.uint8]) -> NDArray[np.uint16]:
    pad = [(0, -length % CELL) for length in label.shape]
    cells = [
        np.pad(mask & (valid == 3), pad).reshape(-(-label.shape[0] // CELL), CELL, -1, CELL).sum((1, 3))
        for mask in (label < 255, label == 1)
    ]
    return np.stack(cells).astype(np.uint16)


def write_scene(path: Path, size: int, seed: int, *, diagonal: bool = False) -> None:
    """Write a date's raster; with ``diagonal``, blocks that do not lie there stay empty."""
    grid = grid_of(size)
    profile = {"driver": "GTiff", "width": size, "height": size, "count": len(ROLES), "dtype": "uint16"}
    tiling = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 6}
    place: dict[str, Any] = {"crs": grid.crs, "transform": Affine(*grid.transform)}
    with rasterio.open(path, "w", **profile, **tiling, **place) as dataset:
        for window in tiles_in(Window(0, 0, size, size), BLOCK):
            if not diagonal or window.row == window.col:
                dataset.write(make_pixels(window, seed), window=rasterio.windows.Window(*corner(window)))


def corner(window: Window) -> tuple[int, int, int, int]:
    """A window as rasterio takes it: column, row, width, height."""
    return window.col, window.row, window.width, window.height


def make_job(root: Path, work: Path) -> IngestJob:
    """The ingest of the two rasters of a folder, with its groups made."""
    sensor = {"bands": {role: number for number, role in enumerate(ROLES, 1)}}
    values = {"name": "b", "catalog": "pairs.csv", "workspace": str(work), "sensors": {"s": sensor}}
    config = parse_config(values, root)
    before, after = (
        Source(here(root / f"{name}.tif"), "s", config.sensors["s"], (1, 2, 3, 4)) for name in ("before", "after")
    )
    pair = Pair("p", "p", before, after, ROLES)
    job = IngestJob(Workspace(here(work)), config, plan_pair(pair, config, {before.path: "0", after.path: "1"}))
    create_pair_groups(job)
    return job
