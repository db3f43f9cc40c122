"""Training samples straight from the store: which window, read, normalised, turned.

A sample is determined by (seed, epoch, index) alone. Windows are drawn through the stored 64-pixel cells,
so that one with change is found at once, and a scene without change costs nothing.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, count_tiles, reflect_indices
from cdpipe.metrics.classes import IGNORE
from cdpipe.store.arrays import open_array, read_all, read_window
from cdpipe.store.normalisation import DateScaling, Recipe, model_input
from cdpipe.store.pair import LabelledPair, read_dates, read_observed
from cdpipe.training.augment import augment_dates, augment_sample
from cdpipe.workspace.layout import Workspace


@dataclass(frozen=True, slots=True)
class CellPool:
    """Cells to draw windows from.

    Attributes:
        pair: For each pair that has any, its position in the list of pairs.
        cells: For each of those (cells,), the flat positions of its cells.
    """

    pair: tuple[int, ...]
    cells: tuple[NDArray[np.int64], ...]

    @property
    def size(self) -> int:
        """Number of cells."""
        return sum(len(cells) for cells in self.cells)

    def pick(self, number: int) -> tuple[int, int]:
        """Pair and flat cell position of the ``number``-th cell."""
        for pair, cells in zip(self.pair, self.cells, strict=True):
            if number < len(cells):
                return pair, int(cells[number])
            number -= len(cells)
        raise ValueError(f"a pool of {self.size} cells has no such cell")


def index_cells(workspace: Workspace, pairs: tuple[LabelledPair, ...]) -> tuple[CellPool, CellPool]:
    """All cells with a labelled, observed pixel, and those of them with change."""
    counts = []
    for item in pairs:
        array = open_array(workspace.group("labels", item.pair.pair_id, item.label_key), "cells")
        counts.append(read_all(array).reshape(2, -1))
    valid, changed = ([np.flatnonzero(count[layer] > 0).astype(np.int64) for count in counts] for layer in (0, 1))
    return _pool(valid), _pool(changed)


def _pool(cells: list[NDArray[np.int64]]) -> CellPool:
    chosen = [index for index, places in enumerate(cells) if len(places)]
    return CellPool(tuple(chosen), tuple(cells[index] for index in chosen))


@dataclass(frozen=True, slots=True)
class Sampler:
    """What samples are drawn from and how.

    Attributes:
        workspace: Where the pairs lie.
        pairs: The training pairs.
        pools: See :func:`index_cells`.
        patch: Side of a sample in pixels.
        changed_share: Share of the samples drawn where there is change, if there is any.
        recipe: What the model eats.
        seed: Of the training run.
    """

    workspace: Workspace
    pairs: tuple[LabelledPair, ...]
    pools: tuple[CellPool, CellPool]
    patch: int
    changed_share: float
    recipe: Recipe
    seed: int
    _scalings: dict[int, tuple[DateScaling, DateScaling]] = field(default_factory=dict, init=False, compare=False)

    def scalings(self, number: int) -> tuple[DateScaling, DateScaling]:
        """How the dates of a pair are normalised: derived once, since exact fractions take as long as reading."""
        if number not in self._scalings:
            self._scalings[number] = self.pairs[number].pair.scalings(self.recipe)
        return self._scalings[number]


def draw_sample(sampler: Sampler, epoch: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The sample that (seed, epoch, index) determines.

    Returns:
        Model input (channel, patch, patch), normalised, 0 where not observed; and label (patch, patch): 0 unchanged,
        1 changed, 255 where it must not count.
    """
    rng = np.random.default_rng([sampler.seed, epoch, index])
    number, row, col = draw_window(sampler, rng)
    seed, *date_seeds = (int(rng.integers(2**31)) for _ in range(3))
    item = sampler.pairs[number]
    shape = item.pair.grid.shape
    window = Window(row, col, min(sampler.patch, shape[0] - row), min(sampler.patch, shape[1] - col))
    group = sampler.workspace.group("labels", item.pair.pair_id, item.label_key)
    label = read_window(open_array(group, "label"), window)
    observed = read_observed(sampler.workspace, item.pair, window)
    label = np.where(observed, label, np.uint8(IGNORE))
    dates = augment_dates(read_dates(sampler.workspace, item.pair, window), (date_seeds[0], date_seeds[1]))
    x = model_input(dates, observed, sampler.scalings(number))
    if window.shape != (sampler.patch, sampler.patch):  # a scene smaller than a patch is mirrored
        rows, cols = (
            reflect_indices(start, sampler.patch, length) - start
            for start, length in zip((row, col), shape, strict=True)
        )
        mirror = np.ix_(rows, cols)
        x, label = x[:, mirror[0], mirror[1]], label[mirror]
    return augment_sample(x, label, seed)


def draw_window(sampler: Sampler, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a window: position of its pair, and its first row and column.

    With probability ``changed_share`` the window holds a cell with change; otherwise any labelled cell.
    """
    valid, changed = sampler.pools
    pool = changed if changed.size and rng.random() < sampler.changed_share else valid
    number, cell = pool.pick(int(rng.integers(pool.size)))
    height, width = sampler.pairs[number].pair.grid.shape
    cell_row, cell_col = divmod(cell, count_tiles(width, CELL))
    row, col = (
        _draw_start(position * CELL, length, sampler.patch, rng)
        for position, length in ((cell_row, height), (cell_col, width))
    )
    return number, row, col


def _draw_start(cell_start: int, length: int, patch: int, rng: np.random.Generator) -> int:
    """First pixel of a window that holds the cell, or lies within it where the patch is smaller."""
    cell_stop = min(cell_start + CELL, length)
    low, high = sorted((cell_start, cell_stop - patch))
    start = int(rng.integers(low, high + 1))
    return min(max(start, 0), max(length - patch, 0))
