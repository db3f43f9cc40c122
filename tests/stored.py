"""Stored pairs made straight from arrays, and small networks to train on them."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasters import make_config, utm_grid

from cdpipe.config.schema import Config
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, TILE
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.plan import PlannedPair
from cdpipe.prediction.block import Member
from cdpipe.runs.plan import RunPair
from cdpipe.store.arrays import cell_window, write_block
from cdpipe.store.groups import (
    CHANGE_ARRAYS,
    LABEL_ARRAYS,
    PROBABILITY_ARRAYS,
    ArrayTemplate,
    create_group,
    pair_arrays,
)
from cdpipe.store.histograms import Quantiles, count_values, quantiles
from cdpipe.store.pair import LabelledPair, StoredPair
from cdpipe.store.statistics import measure
from cdpipe.training.job import Worker
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here
from cdpipe.workspace.records import GROUP_RECORD, write_record

RGB = ("red", "green", "blue")
Dates = tuple[NDArray[Any], NDArray[Any]]
Bytes = NDArray[np.uint8]

# The smallest networks there are: a forward and a backward of two patches of 32 pixels take 40 ms.
TINY_NET = {"encoder": "mobilenet_v2", "arguments": {"encoder_depth": 3, "decoder_channels": [16, 16, 16]}}
# In float32, so that they are the same on every machine.
TINY_TRAIN = {
    "models": {"unetplusplus": TINY_NET},
    "patch": 32,
    "global_batch": 2,
    "samples_per_epoch": 4,
    "epochs": 3,
    "precision": "float32",
}


def store_pair(
    workspace: Workspace,
    pair_id: str,
    dates: Dates,
    label: Bytes | None = None,
    valid: Bytes | None = None,
    block: int = TILE,
) -> LabelledPair:
    """Store a finished pair and its label.

    Args:
        workspace: Where to.
        pair_id: Its name.
        dates: Before and after, each (3, height, width).
        label: (height, width) of 0, 1, 255; by default nothing changed.
        valid: (height, width), bit 0 observed before, bit 1 after; by default both everywhere.
        block: Side of a block in pixels.
    """
    grid = utm_grid(*dates[0].shape[1:])
    label = np.zeros(grid.shape, np.uint8) if label is None else label
    valid = np.full(grid.shape, 3, np.uint8) if valid is None else valid
    key, label_key = _key(*dates, valid, np.array(block)), _key(*dates, valid, label, np.array(block))
    masks = valid & 1 == 1, valid & 2 == 2
    whole = Window(0, 0, *grid.shape)
    both = masks[0] & masks[1]
    moments = {
        "common": (measure(dates[0], both, whole), measure(dates[1], both, whole)),
        "per_date": (measure(dates[0], masks[0], whole), measure(dates[1], masks[1], whole)),
    }
    levels = {"common": (_levels(dates[0], both), _levels(dates[1], both))}
    levels["per_date"] = (_levels(dates[0], masks[0]), _levels(dates[1], masks[1]))
    pair = StoredPair(pair_id, key, grid, block, RGB, ((1.0, 0.0), (1.0, 0.0)), moments, levels)
    layers = pair_arrays(RGB, dates[0].dtype.name, dates[1].dtype.name)
    store_layers(workspace.group("pairs", pair_id, key).local(), layers, pair, [*dates, valid])
    write_record(workspace.records("pairs", pair_id, key) / GROUP_RECORD, workspace.root, {}, pair.to_json())
    counted = np.where(both, label, np.uint8(255))
    store_layers(
        workspace.group("labels", pair_id, label_key).local(), LABEL_ARRAYS, pair, [label, count_cells(counted)]
    )
    facts = {"valid": int((counted != 255).sum()), "changed": int((counted == 1).sum())}
    write_record(workspace.records("labels", pair_id, label_key) / GROUP_RECORD, workspace.root, {}, facts)
    return LabelledPair(pair, label_key)


def _levels(date: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[Quantiles, ...]:
    return tuple(quantiles(histogram, date.dtype) for histogram in count_values(date, mask))


def store_probability(workspace: Workspace, pair: StoredPair, key: str, probability: NDArray[np.float32]) -> None:
    """Store what a model says about a pair."""
    store_layers(workspace.group("probabilities", pair.pair_id, key).local(), PROBABILITY_ARRAYS, pair, [probability])


def store_change(
    workspace: Workspace, pair: StoredPair, key: str, probability: NDArray[np.float32], change: Bytes
) -> None:
    """Store what an ensemble says about a pair."""
    store_layers(workspace.group("changes", pair.pair_id, key).local(), CHANGE_ARRAYS, pair, [probability, change])


def store_layers(group: Path, layers: list[ArrayTemplate], pair: StoredPair, values: list[NDArray[Any]]) -> None:
    """Make a group and fill each of its arrays, block by block."""
    create_group(here(group), layers, pair.grid, pair.block, {})
    for layer, array in zip(layers, values, strict=True):
        for key in pair.blocks():
            window = pair.window(key) if layer.cell == 1 else cell_window(pair.window(key))
            write_block(here(group), layer.name, window, np.ascontiguousarray(array[..., *window.slices]))


def count_cells(label: Bytes) -> NDArray[np.uint16]:
    """Labelled and changed pixels of every cell, one cell after the other."""
    height, width = label.shape
    cells = [
        [label[row : row + CELL, col : col + CELL] for col in range(0, width, CELL)] for row in range(0, height, CELL)
    ]
    valid = [[np.count_nonzero(cell != 255) for cell in row] for row in cells]
    changed = [[np.count_nonzero(cell == 1) for cell in row] for row in cells]
    return np.array([valid, changed], np.uint16)


def bright_squares(shape: tuple[int, int], seed: int, squares: int = 6, side: int = 24) -> tuple[Dates, Bytes]:
    """Two noisy dates and their label: what changed is much brighter at the second."""
    random = np.random.default_rng(seed)
    before, after = (random.normal(1000, 40, (3, *shape)) for _ in range(2))
    label = np.zeros(shape, np.uint8)
    for _ in range(squares):
        row, col = (int(random.integers(0, max(1, length - side))) for length in shape)
        label[row : row + side, col : col + side] = 1
    after += 600.0 * label
    return (before.astype(np.uint16), after.astype(np.uint16)), label


def train_config(folder: Path, **options: Any) -> Config:
    """A configuration that trains one tiny network, with other options of its section ``train``."""
    return make_config(folder, train=TINY_TRAIN | options)


def worker(
    save: Callable[[dict[str, Any] | None, dict[str, Any] | None], None] = lambda *_: None,
    checkpoint: Location | None = None,
    rank: int = 0,
    world: int = 1,
    wrap: Callable[[Any], Any] = lambda network: network,
) -> Worker:
    """A worker of this process; the global batch has a part for each worker."""
    return Worker(rank, world, world, "cpu", 2, wrap, checkpoint, save, lambda *_: None, lambda: False)


def _key(*arrays: NDArray[Any]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:12]


def run_pair(stored: StoredPair, members: Sequence[Member] = (), label_key: str | None = None) -> RunPair:
    """A stored pair in a run, as if a catalog had named it."""
    sensors = make_config(Path()).sensors
    name, sensor = next(iter(sensors.items()))
    source = Source(here(Path()), name, sensor, (1, 2, 3))
    row = Pair(stored.pair_id, stored.pair_id, source, source, stored.roles)
    planned = PlannedPair(row, stored.grid, ("uint16", "uint16"), stored.key, label_key, {})
    return RunPair(planned, stored, None, tuple(members))
