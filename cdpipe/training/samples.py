"""Training samples straight from the store: which window, read, normalised, turned.

A sample is determined by (seed, epoch, index) alone. Windows are drawn through the stored 64-pixel cells,
so that one with change is found at once, and a scene without change costs nothing.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import albumentations as A  # noqa: N812 (after the variable above; the name its documentation uses)
import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, count_tiles, reflect_indices
from cdpipe.keys import content_key
from cdpipe.metrics.classes import IGNORE
from cdpipe.store.arrays import open_layer, read_all, read_window
from cdpipe.store.normalisation import DateScaling, Recipe
from cdpipe.store.pair import LabelledPair, read_observed, read_scene
from cdpipe.workspace.layout import Workspace

# The same random flip and rotation for both dates and the label.

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

Value = TypeVar("Value", bound=np.generic)

PROBE = np.arange(4, dtype=np.uint8).reshape(2, 2)
# What each symmetry makes of the probe: quarter turns counter-clockwise, then the same after mirroring left to right.
SYMMETRIES = {
    np.rot90(image, turns).tobytes(): (mirrored, turns)
    for mirrored, image in enumerate((PROBE, PROBE[:, ::-1]))
    for turns in range(4)
}


class _Transform(threading.local):
    """A thread's own transform: one for all would be reseeded by one thread while another draws from it."""

    def __init__(self) -> None:
        # D4 in one transform, since separate flips and rotations draw the same numbers from one seed and reach only 4
        # of the 8
        self.compose = A.Compose([A.D4(p=1.0)])


_TRANSFORM = _Transform()


def augment(
    scene: NDArray[np.float32], label: NDArray[np.uint8], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Turn a square sample by one of the eight symmetries of the square.

    The random crop of the usual recipe is the random window that the sampler draws from the store.

    Args:
        scene: (channel, side, side), the channels of both dates, so that all turn alike.
        label: (side, side).
        seed: Decides which symmetry; equal seeds turn alike.

    Returns:
        Both, turned alike.
    """
    # the symmetry is drawn for a few pixels and then made of views, at a tenth of the time for a 6-band sample
    transform = _TRANSFORM.compose
    transform.set_random_seed(seed)
    mirrored, turns = SYMMETRIES[transform(image=PROBE)["image"].tobytes()]
    # copies, also of what was not turned: the caller may write into them
    return _turn(scene, mirrored, turns), _turn(label, mirrored, turns)


def _turn(values: NDArray[Value], mirrored: int, turns: int) -> NDArray[Value]:
    view = values[..., ::-1] if mirrored else values
    return np.array(np.rot90(view, turns, (-2, -1)), order="C")


@dataclass(frozen=True, slots=True)
class CellPool:
    """Cells to draw windows from.

    Attributes:
        pair: For each pair that has any, its position in the list of pairs.
        cells: For each of those, the flat positions of its cells.
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
        array = open_layer(workspace.group("labels", item.pair.pair_id, item.label_key), "cells")
        counts.append(read_all(array).reshape(2, -1))
    valid, changed = ([np.flatnonzero(count[layer] > 0).astype(np.int64) for count in counts] for layer in (0, 1))
    return _pool(valid), _pool(changed)


def _pool(cells: list[NDArray[np.int64]]) -> CellPool:
    chosen = [index for index, each in enumerate(cells) if len(each)]
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
        Model input (channel, patch, patch) and label (patch, patch), 255 where it must not count.
    """
    rng = np.random.default_rng([sampler.seed, epoch, index])
    number, row, col = draw_window(sampler, rng)
    item = sampler.pairs[number]
    shape = item.pair.grid.shape
    window = Window(row, col, min(sampler.patch, shape[0] - row), min(sampler.patch, shape[1] - col))
    group = sampler.workspace.group("labels", item.pair.pair_id, item.label_key)
    label = read_window(open_layer(group, "label"), window)
    observed = read_observed(sampler.workspace, item.pair, window)
    label = np.where(observed, label, np.uint8(IGNORE))
    x = read_scene(sampler.workspace, item.pair, window, observed, sampler.scalings(number))
    if window.shape != (sampler.patch, sampler.patch):  # a scene smaller than a patch is mirrored
        rows, cols = (
            reflect_indices(start, sampler.patch, length) - start
            for start, length in zip((row, col), shape, strict=True)
        )
        mirror = np.ix_(rows, cols)
        x, label = x[:, mirror[0], mirror[1]], label[mirror]
    return augment(np.ascontiguousarray(x), label, int(rng.integers(2**31)))


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


# What an int8 network is calibrated on: windows of training pairs, the same ones wherever it is built.

WINDOWS = 32
CHANGED_SHARE = 0.5  # windows without change decide what counts as none, those with it how far activations reach


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pairs that windows are drawn from.

    Attributes:
        workspace: Where they lie.
        pairs: The pairs, with labels.
    """

    workspace: Workspace
    pairs: tuple[LabelledPair, ...]

    @property
    def key(self) -> str:
        """Hash of everything that decides which pixels the windows hold."""
        pairs = sorted([each.pair.key, each.label_key] for each in self.pairs)
        return content_key("calibration", {"pairs": pairs, "windows": WINDOWS, "changed": CHANGED_SHARE})


def calibration_windows(calibration: Calibration, recipe: Recipe, patch: int) -> Iterator[NDArray[np.float32]]:
    """Draw the windows as training does, half of them where there is change.

    Args:
        calibration: The pairs, in any order.
        recipe: What the network eats.
        patch: Side of a window in pixels.

    Yields:
        (1, channel, patch, patch), :data:`WINDOWS` times.

    Raises:
        InputError: If no pixel of the pairs is both labelled and observed.
    """
    pairs = tuple(sorted(calibration.pairs, key=lambda each: (each.pair.key, each.label_key)))
    # which imports torch

    pools = index_cells(calibration.workspace, pairs)
    if not pools[0].size:
        raise InputError("predict.precision: int8 is calibrated on training pairs, none of which has a labelled pixel")
    sampler = Sampler(calibration.workspace, pairs, pools, patch, CHANGED_SHARE, recipe, seed=0)
    for index in range(WINDOWS):
        yield draw_sample(sampler, 0, index)[0][None]
