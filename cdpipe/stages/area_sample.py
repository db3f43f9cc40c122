"""A stratified random sample of a run's pixels: strata from the change mask, points drawn the same for any block size.

A point stands for a pixel. Within a stratum pixels are drawn with probabilities proportional to their area, without
replacement; so they stay right where pixels of different pairs or latitudes differ in area.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.crs import pixel_metres, row_areas
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import grow
from cdpipe.metrics.counts import NOT_OBSERVED
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace

STRATA = ("no change", "change", "near change")
UNCHANGED, CHANGED, NEAR = range(3)
MAPPED = (0, 1, 0)  # the map's class in each stratum

Pixels = list[tuple[int, int, int]]  # stratum, row, column


@dataclass(frozen=True, slots=True)
class Population:
    """Where a sample of a pair is drawn from.

    Attributes:
        workspace: The store.
        pair: The pair.
        change_key: Key of its change.
        buffer: How far the stratum around change reaches, in metres (without a CRS in pixels); 0 for none.
    """

    workspace: Workspace
    pair: StoredPair
    change_key: str
    buffer: float

    @property
    def margin(self) -> tuple[int, int]:
        """The buffer in rows and columns."""
        width, height = pixel_metres(self.pair.grid) or (1.0, 1.0)
        return round(self.buffer / height), round(self.buffer / width)


@dataclass(frozen=True, slots=True)
class StrataSizes:
    """Pixels and area (square metres, without a CRS pixels) of a pair's strata."""

    pixels: tuple[int, ...]
    areas: tuple[float, ...]


def measure_strata(population: Population) -> StrataSizes:
    """Count a pair's strata block by block; pixels not observed are in none."""
    counts, areas = _count_rows(population), _row_areas(population.pair)
    return StrataSizes(tuple(counts.sum(axis=1).tolist()), tuple((counts * areas).sum(axis=1).tolist()))


def share_out(sizes: list[StrataSizes], stratum: int, points: int, seed: int) -> list[int]:
    """How many points of a stratum each pair gets: drawn in proportion to area, never more than it has pixels."""
    random = np.random.default_rng([seed, stratum])
    capacity = np.array([each.pixels[stratum] for each in sizes])
    areas = np.array([each.areas[stratum] for each in sizes])
    given = np.zeros(len(sizes), np.int64)
    wanted = min(points, int(capacity.sum()))
    while (missing := wanted - int(given.sum())) > 0:
        open_areas = np.where(given < capacity, areas, 0.0)
        drawn = random.choice(len(sizes), missing, p=open_areas / open_areas.sum())
        given = np.minimum(given + np.bincount(drawn, minlength=len(sizes)), capacity)
    return [int(number) for number in given]


def draw_pixels(population: Population, points: tuple[int, ...], seed: tuple[int, int]) -> Pixels:
    """Draw so many pixels of each stratum of a pair.

    Args:
        population: The pair.
        points: Of each stratum, at most its pixels.
        seed: Of the sample, and the pair's position in it.
    """
    counts, areas = _count_rows(population), _row_areas(population.pair)
    found: Pixels = []
    for stratum, wanted in enumerate(points):
        random = np.random.default_rng([*seed, stratum])
        for row, place in _draw_places(random, counts[stratum], areas, wanted):
            strata = _read_strata(population, Window(row, 0, 1, population.pair.grid.width))[0]
            found.append((stratum, row, int(np.flatnonzero(strata == stratum)[place])))
    return found


def _draw_places(
    random: np.random.Generator, counts: NDArray[np.int64], areas: NDArray[np.float64], wanted: int
) -> list[tuple[int, int]]:
    """Row, and position among the stratum's pixels of that row, of distinct pixels; ordered by both."""
    ends = np.cumsum(counts)
    if 2 * wanted > (int(ends[-1]) if len(ends) else 0):  # drawing until all differ would take long
        ranks = random.permutation(int(ends[-1]))[:wanted]
        rows = np.searchsorted(ends, ranks, side="right")
        return sorted(zip(rows.tolist(), (ranks - ends[rows] + counts[rows]).tolist(), strict=True))
    reach = np.cumsum(counts * areas)
    found: dict[tuple[int, int], None] = {}
    while len(found) < wanted:
        row = int(np.searchsorted(reach, random.random() * reach[-1], side="right"))
        found[row, int(random.integers(counts[row]))] = None
    return sorted(found)


def _count_rows(population: Population) -> NDArray[np.int64]:
    """Pixels of each stratum in every row: (stratum, height)."""
    pair = population.pair
    counts = np.zeros((len(STRATA), pair.grid.height), np.int64)
    for key in pair.blocks():
        window = pair.window(key)
        strata = _read_strata(population, window)
        for stratum in range(len(STRATA)):
            counts[stratum, window.slices[0]] += (strata == stratum).sum(axis=1)
    return counts


def _read_strata(population: Population, window: Window) -> NDArray[np.uint8]:
    """Stratum of every pixel of a window, 255 where not observed."""
    pair, (rows, cols) = population.pair, population.margin
    group = population.workspace.group("changes", pair.pair_id, population.change_key)
    halo = grow(window, max(rows, cols), pair.grid.shape)
    change = read_window(open_layer(group, "change"), halo)
    inner = window.slices_in(halo)
    if not (rows or cols):
        return np.asarray(change[inner])
    box = np.ones((2 * rows + 1, 2 * cols + 1), np.uint8)
    near = cv2.dilate((change == CHANGED).astype(np.uint8), box, borderType=cv2.BORDER_CONSTANT, borderValue=0)[inner]
    own = change[inner]
    return np.where((own != NOT_OBSERVED) & (own != CHANGED) & (near > 0), np.uint8(NEAR), own)


def _row_areas(pair: StoredPair) -> NDArray[np.float64]:
    return row_areas(pair.grid) if pair.grid.crs else np.ones(pair.grid.height)
