"""A pair as it lies in the store: its grid, its statistics, its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError, IntegrityError
from cdpipe.geo.grid import BlockKey, Grid, Window
from cdpipe.geo.tilings import CHUNK, block_keys, block_window, strips_in
from cdpipe.metrics.classes import IGNORE
from cdpipe.store.arrays import cell_window, open_array, read_all, read_window
from cdpipe.store.histograms import Quantiles
from cdpipe.store.normalisation import DateScaling, Recipe, count_channels, date_scaling, model_input
from cdpipe.store.statistics import Moments
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.records import GROUP_RECORD, read_record

BEFORE_BIT, AFTER_BIT = np.uint8(1), np.uint8(2)
BOTH_BITS = BEFORE_BIT | AFTER_BIT
DATES = ("before", "after")
CELL_LAYERS = ("valid", "changed")  # of a label's cells: pixels that are labelled and observed, and those that changed
FACTS = ("grid", "block", "roles", "units", "moments", "levels")  # of a pair in its record


@dataclass(frozen=True, slots=True)
class StoredPair:
    """A finished pair group.

    Attributes:
        pair_id: The pair.
        key: Its content key.
        grid: The scene's grid.
        block: Side of a block in pixels.
        roles: Names of the stored bands.
        units: (scale, offset) of each date's sensor.
        moments: Statistics by ``common`` and ``per_date``, each of both dates.
        levels: Quantiles of each band, likewise.
    """

    pair_id: str
    key: str
    grid: Grid
    block: int
    roles: tuple[str, ...]
    units: tuple[tuple[float, float], tuple[float, float]]
    moments: dict[str, tuple[Moments, Moments]]
    levels: dict[str, tuple[tuple[Quantiles, ...], tuple[Quantiles, ...]]] = field(default_factory=dict)

    def scalings(self, recipe: Recipe) -> tuple[DateScaling, DateScaling]:
        """How each date is normalised."""
        moments = self.moments[recipe.statistics]
        levels = self.levels[recipe.statistics] if recipe.method == "robust" else (None, None)
        before, after = (
            date_scaling(own, self.roles, unit, recipe, quantiles)
            for own, unit, quantiles in zip(moments, self.units, levels, strict=True)
        )
        return before, after

    def blocks(self) -> list[BlockKey]:
        """Keys of all blocks."""
        return block_keys(self.pair_id, self.grid.shape, self.block)

    def window(self, key: BlockKey) -> Window:
        """Pixels of a block."""
        return block_window(key, self.grid.shape, self.block)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`read_pair_facts` understands."""
        return {
            "grid": self.grid.to_json(),
            "block": self.block,
            "roles": list(self.roles),
            "units": [list(unit) for unit in self.units],
            "moments": {name: [date.to_json() for date in dates] for name, dates in self.moments.items()},
            "levels": {name: [[list(band) for band in date] for date in dates] for name, dates in self.levels.items()},
        }


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A stored pair with its label, of which all or a strip counts.

    Attributes:
        pair: The pair.
        label_key: Key of its label.
        within: Pixels whose label counts; None for all.
    """

    pair: StoredPair
    label_key: str
    within: Window | None = None

    @property
    def key(self) -> list[Any]:
        """What decides which labels count of which pixels, as part of a content key; its order is that of its text."""
        strip = self.within
        place = [] if strip is None else [[strip.row, strip.col, strip.height, strip.width]]
        return [self.pair.key, self.label_key, *place]

    def blocks(self) -> list[BlockKey]:
        """Keys of the blocks with pixels whose label counts."""
        keys, within = self.pair.blocks(), self.within
        return keys if within is None else [key for key in keys if within.intersect(self.pair.window(key))]


def load_pair(workspace: Workspace, pair_id: str, key: str) -> StoredPair | None:
    """A pair's facts, or None where its group is not finished.

    Raises:
        InputError: If another version of cdpipe wrote them.
        IntegrityError: If they are damaged.
    """
    record = read_record(workspace.records("pairs", pair_id, key) / GROUP_RECORD)
    if record is None:
        return None
    facts = record.facts
    unknown = [name for name in FACTS if name not in facts]
    if unknown:  # a record is read as it was written, so one that lacks something is no damaged one
        raise InputError(
            f"pair {pair_id}: was ingested by another version of cdpipe, which did not record its {unknown[0]}; "
            "run cdpipe ingest, train and predict again"
        )
    try:
        (before_scale, before_offset), (after_scale, after_offset) = facts["units"]
        return StoredPair(
            pair_id,
            key,
            Grid.from_json(facts["grid"]),
            int(facts["block"]),
            tuple(facts["roles"]),
            ((before_scale, before_offset), (after_scale, after_offset)),
            {
                name: (Moments.from_json(before), Moments.from_json(after))
                for name, (before, after) in facts["moments"].items()
            },
            {
                name: (tuple(map(tuple, before)), tuple(map(tuple, after)))
                for name, (before, after) in facts["levels"].items()
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"pair {pair_id}: damaged record {GROUP_RECORD} of group {key}: {error}") from None


def read_dates(workspace: Workspace, pair: StoredPair, window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels of both dates, each (band, height, width) in its own dtype."""
    group = workspace.group("pairs", pair.pair_id, pair.key)
    before, after = (read_window(open_array(group, date), window) for date in DATES)
    return before, after


def read_scene(
    workspace: Workspace,
    pair: StoredPair,
    window: Window,
    observed: NDArray[np.bool_],
    scalings: tuple[DateScaling, DateScaling],
) -> NDArray[np.float32]:
    """A model's input on a window; see :func:`read_scenes`."""
    (scene,) = read_scenes(workspace, pair, window, observed, [scalings])
    return scene


def read_scenes(
    workspace: Workspace,
    pair: StoredPair,
    window: Window,
    observed: NDArray[np.bool_],
    scalings: Sequence[tuple[DateScaling, DateScaling]],
) -> list[NDArray[np.float32]]:
    """Inputs of models on a window, of which the pixels are read once.

    They are made strip by strip: whole windows of both dates would leave a core's cache.

    Args:
        workspace: Where the pair lies.
        pair: The pair.
        window: Pixels wanted.
        observed: (height, width), see :func:`read_observed`.
        scalings: Of each model, see :meth:`StoredPair.scalings`.

    Returns:
        For each, see :func:`cdpipe.store.normalisation.model_input`.
    """
    scenes = [np.empty((count_channels(each), *window.shape), np.float32) for each in scalings]
    # requests cost more than the cache's misses, so what is far away is read at once
    height = pair.grid.height if workspace.root.far else CHUNK
    for strip in strips_in(window, height):
        rows, _ = strip.slices_in(window)
        dates = read_dates(workspace, pair, strip)
        for scene, each in zip(scenes, scalings, strict=True):
            model_input(dates, observed[rows], each, scene[:, rows])
    return scenes


def read_label(workspace: Workspace, item: LabelledPair, window: Window) -> NDArray[np.uint8]:
    """(height, width): 0 unchanged, 1 changed, 255 ignore, which all is that lies outside of what counts."""
    label = read_window(open_array(workspace.group("labels", item.pair.pair_id, item.label_key), "label"), window)
    return label if item.within is None else np.where(_inside(item.within, window), label, np.uint8(IGNORE))


def _inside(within: Window, window: Window) -> NDArray[np.bool_]:
    mask = np.zeros(window.shape, np.bool_)
    common = within.intersect(window)
    if common is not None:
        mask[common.slices_in(window)] = True
    return mask


def read_cells(workspace: Workspace, item: LabelledPair) -> NDArray[np.uint16]:
    """(2, rows, cols), labelled and changed pixels of each cell that are observed; a strip ends where cells do."""
    cells = read_all(open_array(workspace.group("labels", item.pair.pair_id, item.label_key), "cells"))
    if item.within is None:
        return cells
    inside = _inside(cell_window(item.within), Window(0, 0, *cells.shape[1:]))
    return np.where(inside, cells, np.uint16(0))


def read_observed(workspace: Workspace, pair: StoredPair, window: Window) -> NDArray[np.bool_]:
    """(height, width), True where both dates are observed."""
    group = workspace.group("pairs", pair.pair_id, pair.key)
    return np.asarray(read_window(open_array(group, "valid"), window) == BOTH_BITS)
