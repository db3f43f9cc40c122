"""Training samples straight from the store: which window, read, normalised, turned.

A sample is determined by (seed, epoch, index) alone. Windows are drawn through the stored 64-pixel cells,
so that one with change is found at once, and a scene without change costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.augment import SYMMETRIES
from cdpipe.detectors.detect import HALO, Fit
from cdpipe.detectors.stored import find_shown, show
from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, count_tiles, grow, reflect_indices
from cdpipe.metrics.classes import CHANGED, IGNORE
from cdpipe.store.normalisation import DateScaling, Recipe, combine_dates, normalise_date
from cdpipe.store.pair import LabelledPair, read_cells, read_dates, read_label, read_observed
from cdpipe.training.augment import Augmentation, Sample, augment, make_augmentation
from cdpipe.workspace.layout import Workspace

WEIGHT = {"area": 1.0, "sqrt": 0.5, "equal": 0.0}  # powers of a pair's pixels


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


@dataclass(frozen=True, slots=True)
class PixelPool:
    """Pixels to draw windows around, all alike within a pair.

    Attributes:
        pair: For each pair that has any, its position in the list of pairs.
        until: (pairs,), the chance that one of these or of those before is drawn.
        cells: For each of them (cells,), the flat positions of its cells that have any.
        counts: For each of them (cells,), how many pixels these and the cells before have.
    """

    pair: tuple[int, ...]
    until: NDArray[np.float64]
    cells: tuple[NDArray[np.int64], ...]
    counts: tuple[NDArray[np.int64], ...]

    @property
    def size(self) -> int:
        """Number of pixels."""
        return sum(int(counts[-1]) for counts in self.counts)

    def pick(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw a pixel: its pair, the flat position of its cell, and how many of the cell's come before it."""
        place = int(np.searchsorted(self.until, rng.random(), side="right"))
        counts = self.counts[place]
        number = int(rng.integers(counts[-1]))
        cell = int(np.searchsorted(counts, number, side="right"))
        return self.pair[place], int(self.cells[place][cell]), number - (int(counts[cell - 1]) if cell else 0)


CellPools = tuple[CellPool, CellPool]
PixelPools = tuple[PixelPool, PixelPool]


def index_cells(workspace: Workspace, pairs: Sequence[LabelledPair]) -> CellPools:
    """All cells with a labelled, observed pixel, and those of them with change."""
    counts = _read_cells(workspace, pairs)
    valid, changed = ([np.flatnonzero(count[layer] > 0).astype(np.int64) for count in counts] for layer in (0, 1))
    return _pool(valid), _pool(changed)


def index_pixels(workspace: Workspace, pairs: Sequence[LabelledPair], pair_weight: str) -> PixelPools:
    """All labelled, observed pixels, and those of them that changed.

    Args:
        workspace: Where the pairs lie.
        pairs: The pairs.
        pair_weight: How often a pair is drawn, see :class:`cdpipe.config.schema.Train`.
    """
    counts = _read_cells(workspace, pairs)
    valid, changed = (_pixel_pool([count[layer] for count in counts], WEIGHT[pair_weight]) for layer in (0, 1))
    return valid, changed


def _read_cells(workspace: Workspace, pairs: Sequence[LabelledPair]) -> list[NDArray[np.uint16]]:
    """Of each pair (2, cells): labelled, observed pixels and those that changed."""
    return [read_cells(workspace, item).reshape(2, -1) for item in pairs]


def _pixel_pool(counts: list[NDArray[np.uint16]], power: float) -> PixelPool:
    chosen = [index for index, count in enumerate(counts) if count.any()]
    cells = tuple(np.flatnonzero(counts[index]).astype(np.int64) for index in chosen)
    sums = tuple(np.cumsum(counts[index][own], dtype=np.int64) for index, own in zip(chosen, cells, strict=True))
    shares = np.array([float(each[-1]) for each in sums]) ** power
    until = np.cumsum(shares) / shares.sum() if chosen else shares
    until[-1:] = 1.0
    return PixelPool(tuple(chosen), until, cells, sums)


def _pool(cells: list[NDArray[np.int64]]) -> CellPool:
    chosen = [index for index, places in enumerate(cells) if len(places)]
    return CellPool(tuple(chosen), tuple(cells[index] for index in chosen))


@dataclass(frozen=True, slots=True)
class Sampler:
    """What samples are drawn from and how.

    Attributes:
        workspace: Where the pairs lie.
        pairs: The training pairs.
        pools: See :func:`index_cells` or :func:`index_pixels`.
        patch: Side of a sample in pixels.
        changed_share: Share of the samples drawn where there is change, if there is any.
        recipe: What the model eats.
        seed: Of the training run.
        augmentation: What happens to samples.
    """

    workspace: Workspace
    pairs: tuple[LabelledPair, ...]
    pools: CellPools | PixelPools
    patch: int
    changed_share: float
    recipe: Recipe
    seed: int
    augmentation: Augmentation = field(default_factory=lambda: make_augmentation(SYMMETRIES), compare=False)
    _scalings: dict[int, tuple[DateScaling, DateScaling]] = field(default_factory=dict, init=False, compare=False)
    _fits: dict[int, tuple[Fit, ...]] = field(default_factory=dict, init=False, compare=False)

    def scalings(self, number: int) -> tuple[DateScaling, DateScaling]:
        """How the dates of a pair are normalised: derived once, since exact fractions take as long as reading."""
        if number not in self._scalings:
            self._scalings[number] = self.pairs[number].pair.scalings(self.recipe)
        return self._scalings[number]

    def fits(self, number: int) -> tuple[Fit, ...]:
        """What the detectors that the model is shown found out about a pair."""
        if number not in self._fits:
            self._fits[number] = find_shown(self.workspace, self.pairs[number].pair, self.recipe)
        return self._fits[number]


def draw_sample(sampler: Sampler, epoch: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The sample that (seed, epoch, index) determines.

    Returns:
        Model input (channel, patch, patch), normalised, 0 where not observed; and label (patch, patch): 0 unchanged,
        1 changed, 255 where it must not count.
    """

    def draw_other(number: int) -> Sample:
        other = np.random.default_rng([sampler.seed, epoch, index, 1 + number])  # a last 0 would change nothing
        return _read_sample(sampler, *draw_window(sampler, other))

    rng = np.random.default_rng([sampler.seed, epoch, index])
    number, row, col = draw_window(sampler, rng)
    both, first, second = (int(rng.integers(2**31)) for _ in range(3))
    sample = _read_sample(sampler, number, row, col)
    made = augment(sampler.augmentation, sample, (both, first, second), draw_other)
    x = np.concatenate([combine_dates(made.before, made.after, sampler.scalings(number)), made.shown])
    return x, np.ascontiguousarray(made.label)


def _read_sample(sampler: Sampler, number: int, row: int, col: int) -> Sample:
    """A window of a pair; where the scene is smaller than a patch it is mirrored."""
    item, patch = sampler.pairs[number], sampler.patch
    shape = item.pair.grid.shape
    window = Window(row, col, min(patch, shape[0] - row), min(patch, shape[1] - col))
    held = grow(window, HALO, shape) if sampler.recipe.detectors else window
    inner = window.slices_in(held)
    seen = read_observed(sampler.workspace, item.pair, held)
    stored = read_dates(sampler.workspace, item.pair, held)
    shown, observed = show(sampler.fits(number), stored, item.pair.roles, seen)[:, *inner], seen[inner]
    label = _counting(sampler, item, window, observed)
    dates = zip((date[:, *inner] for date in stored), sampler.scalings(number), strict=True)
    before, after = (normalise_date(*date) for date in dates)
    if not observed.all():
        for date in (before, after):
            np.copyto(date, np.float32(0), where=~observed)
    if window.shape != (patch, patch):
        rows, cols = (
            reflect_indices(start, patch, length) - start for start, length in zip((row, col), shape, strict=True)
        )
        mirror = np.ix_(rows, cols)
        before, after, shown = (each[:, mirror[0], mirror[1]] for each in (before, after, shown))
        label, observed = label[mirror], observed[mirror]
    return Sample(before, after, label, observed, shown)


def _counting(sampler: Sampler, item: LabelledPair, window: Window, observed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A window's label, 255 where not observed at both dates."""
    return np.where(observed, read_label(sampler.workspace, item, window), np.uint8(IGNORE))


def draw_window(sampler: Sampler, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a window: position of its pair, and its first row and column.

    With probability ``changed_share`` the window holds a cell with change, or a changed pixel that is drawn among all;
    otherwise any labelled cell or pixel.
    """
    valid, changed = sampler.pools
    pool = changed if changed.size and rng.random() < sampler.changed_share else valid
    if isinstance(pool, PixelPool):
        number, *pixel = draw_pixel(sampler, pool, changed=pool is changed, rng=rng)
        starts = (place - int(rng.integers(sampler.patch)) for place in pixel)
    else:
        number, cell = pool.pick(int(rng.integers(pool.size)))
        starts = (_draw_start(*each, sampler.patch, rng) for each in _cell_sides(sampler, number, cell))
    row, col = (
        min(max(start, 0), max(length - sampler.patch, 0))
        for start, length in zip(starts, sampler.pairs[number].pair.grid.shape, strict=True)
    )
    return number, row, col


def draw_pixel(sampler: Sampler, pool: PixelPool, *, changed: bool, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a pixel of a pool, of its changed ones or all labelled ones: position of its pair, row and column.

    Raises:
        IntegrityError: If the label has fewer than its cells say.
    """
    number, cell, before = pool.pick(rng)
    (row, bottom), (col, right) = _cell_sides(sampler, number, cell)
    item = sampler.pairs[number]
    window = Window(row, col, bottom - row, right - col)
    label = _counting(sampler, item, window, read_observed(sampler.workspace, item.pair, window))
    wanted = np.flatnonzero(label == CHANGED if changed else label != IGNORE)
    if before >= len(wanted):
        raise IntegrityError(
            f"pair {item.pair.pair_id}: the label does not hold what its cells count; run cdpipe verify, and then the "
            "same command again to repair it"
        )
    down, across = divmod(int(wanted[before]), right - col)
    return number, row + down, col + across


def _cell_sides(sampler: Sampler, number: int, cell: int) -> list[tuple[int, int]]:
    """First and last row and column, the last ones excluded, of a pair's cell."""
    height, width = sampler.pairs[number].pair.grid.shape
    places = zip(divmod(cell, count_tiles(width, CELL)), (height, width), strict=True)
    return [(place * CELL, min((place + 1) * CELL, length)) for place, length in places]


def _draw_start(cell_start: int, cell_stop: int, patch: int, rng: np.random.Generator) -> int:
    """First pixel of a window that holds the cell, or lies within it where the patch is smaller."""
    low, high = sorted((cell_start, cell_stop - patch))
    return int(rng.integers(low, high + 1))
