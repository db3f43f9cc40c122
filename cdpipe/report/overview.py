"""A pair as its page shows it: both dates, change and label in cells, and what was counted on the way."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.ground import row_areas
from cdpipe.geo.tilings import tiles_in
from cdpipe.report.drawing import compare_with_label
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, StoredPair
from cdpipe.workspace.layout import Workspace

# Scenes shrunk for a page: sums over square cells, window by window.

STEP = 1024  # side of the windows in which a scene is read, in pixels, at most

Cells = NDArray[np.float64]


def cell_side(shape: tuple[int, int], max_side: int) -> int:
    """Smallest side of a cell in pixels with which a scene has at most ``max_side`` rows and columns of cells."""
    return math.ceil(max(shape) / max_side)


def cell_counts(shape: tuple[int, int], cell: int) -> tuple[int, int]:
    """Rows and columns of cells; those at the lower and right edge may be cut off."""
    return math.ceil(shape[0] / cell), math.ceil(shape[1] / cell)


def cell_windows(shape: tuple[int, int], cell: int) -> Iterator[tuple[Window, tuple[slice, slice]]]:
    """Windows of whole cells, and where these lie among all cells.

    Windows depend on the scene and the cell alone, so that sums, and their last bits, do not depend on blocks.
    """
    for window in tiles_in(Window(0, 0, *shape), cell * max(1, STEP // cell)):
        row, col = window.row // cell, window.col // cell
        rows, cols = cell_counts(window.shape, cell)
        yield window, (slice(row, row + rows), slice(col, col + cols))


def sum_cells(values: NDArray[Any], cell: int) -> Cells:
    """Sums over cells of ``(..., height, width)`` numbers, the first cell at the first pixel."""
    height, width = values.shape[-2:]
    by_row = np.add.reduceat(values, np.arange(0, height, cell), axis=-2, dtype=np.float64)
    return np.asarray(np.add.reduceat(by_row, np.arange(0, width, cell), axis=-1))


def mean_of(sums: Cells, counts: Cells) -> Cells:
    """Means of cells, NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / counts)


MAX_SIDE = 1280  # of a page's pictures, in cells
COUNTED = ("observed", "changed")  # in the figures
OUTCOMES = {1: "hit", 2: "missed", 3: "false_alarm", 4: "unlabelled"}

Read = Callable[[Window], NDArray[Any]]


@dataclass(slots=True)
class Overview:
    """A pair in square cells of ``cell`` pixels.

    Attributes:
        cell: Side of a cell in pixels.
        dates: (band, rows, cols) of both dates, means of observed pixels, NaN where none is.
        probability: Mean of the ensemble's, NaN where none is.
        observed: Share of the cell's pixels observed at both dates.
        changed: Share of these that changed.
        outcomes: Share of the cell that is a hit, a miss, ..., by the numbers of ``OUTCOMES``; empty without label.
        labelled: Share of the cell that is labelled as changed; None without label.
        figures: Pixels and square metres (None where not known) observed and changed, and pixels of each outcome.
    """

    cell: int
    dates: tuple[Cells, Cells]
    probability: Cells
    observed: Cells
    changed: Cells
    outcomes: dict[int, Cells] = field(default_factory=dict)
    labelled: Cells | None = None
    figures: dict[str, float | None] = field(default_factory=dict)


def read_overview(
    workspace: Workspace, pair: StoredPair, change_key: str, label_key: str | None, max_side: int = MAX_SIDE
) -> Overview:
    """Read a whole pair once, a window after the other, into cells.

    Neither blocks nor their order bear on the result, and memory does not grow with the scene.

    Args:
        workspace: Where the pair lies.
        pair: The pair.
        change_key: Key of its change.
        label_key: Key of its label, None without one.
        max_side: Largest number of rows and columns of cells.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    stored = workspace.group("pairs", pair.pair_id, pair.key)
    result = workspace.group("changes", pair.pair_id, change_key)
    read = {
        **{name: _reader(workspace_group, name) for workspace_group, name in [(stored, "valid"), (result, "change")]},
        **{date: _reader(stored, date, colours(pair.roles)) for date in ("before", "after")},
        "probability": _reader(result, "probability"),
    }
    if label_key is not None:
        read["label"] = _reader(workspace.group("labels", pair.pair_id, label_key), "label")
    cell = cell_side(pair.grid.shape, max_side)
    sums, rows = _sum_layers(read, pair.grid, cell)
    pixels = sums.pop("pixels")
    return Overview(
        cell,
        (mean_of(sums["before"], sums["seen_before"]), mean_of(sums["after"], sums["seen_after"])),
        mean_of(sums["probability"], sums["observed"]),
        sums["observed"] / pixels,
        np.nan_to_num(mean_of(sums["changed"], sums["observed"])),
        {number: sums[name] / pixels for number, name in OUTCOMES.items() if name in sums},
        sums["labelled"] / pixels if "labelled" in sums else None,
        _count(rows, pair.grid) | {name: float(sums[name].sum()) for name in OUTCOMES.values() if name in sums},
    )


def colours(roles: tuple[str, ...]) -> list[int]:
    """Bands that stand for red, green and blue; without them the first, as grey."""
    wanted = ("red", "green", "blue")
    return [roles.index(role) for role in wanted] if set(wanted) <= set(roles) else [0]


def _reader(group: Any, name: str, bands: list[int] | None = None) -> Read:
    array = open_layer(group, name)
    return lambda window: read_window(array, window) if bands is None else read_window(array, window)[bands]


def _sum_layers(read: dict[str, Read], grid: Grid, cell: int) -> tuple[dict[str, Cells], dict[str, Cells]]:
    """Sums of every layer over each cell, and of what is counted over each row of pixels."""
    sums: dict[str, Cells] = {}
    rows = {name: np.zeros(grid.height) for name in COUNTED}
    for window, place in cell_windows(grid.shape, cell):
        layers = _layers(read, window)
        for name, values in layers.items():
            part = sum_cells(values, cell)
            whole = sums.setdefault(name, np.zeros((*part.shape[:-2], *cell_counts(grid.shape, cell))))
            whole[..., *place] = part
        for name, counts in rows.items():
            counts[window.slices[0]] += layers[name].sum(axis=1)
    return sums, rows


def _count(rows: dict[str, Cells], grid: Grid) -> dict[str, float | None]:
    """Pixels and ground observed and changed."""
    areas = None if grid.crs is None else row_areas(grid)
    metres = {f"{name}_m2": None if areas is None else float(counts @ areas) for name, counts in rows.items()}
    return {**{f"{name}_px": float(counts.sum()) for name, counts in rows.items()}, **metres}


def _layers(read: dict[str, Read], window: Window) -> dict[str, NDArray[Any]]:
    """What is summed of a window: values where they count and 0 elsewhere, or True where something is so."""
    valid, change = read["valid"](window), read["change"](window)
    probability = read["probability"](window)
    layers: dict[str, NDArray[Any]] = {
        "pixels": np.ones(window.shape, np.bool_),
        "observed": change != 255,
        "changed": change == 1,
        "probability": np.where(change != 255, np.nan_to_num(probability), 0),
    }
    for date, bit in (("before", BEFORE_BIT), ("after", AFTER_BIT)):
        seen = valid & bit > 0
        layers |= {date: np.where(seen, np.nan_to_num(read[date](window)), 0), f"seen_{date}": seen}
    if "label" in read:
        label = read["label"](window)
        outcome = compare_with_label(change, label)
        layers |= {name: outcome == number for number, name in OUTCOMES.items()} | {"labelled": label == 1}
    return layers
