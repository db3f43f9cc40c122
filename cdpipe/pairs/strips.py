"""Strips of a scene as train, val and test, where a catalog has too few places for splits of whole ones.

That is a split by spatial blocks (Roberts et al. 2017, doi:10.1111/ecog.02881) with as few borders as there can be: a
buffer lies along every border between splits, and strips across a scene lose less to buffers than squares would.
"""

import itertools
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, count_tiles

ALL_SPLITS: Mapping[str, int] = MappingProxyType({"train": 3, "val": 1, "test": 1})  # shares of the changed pixels
TRAIN_AND_VAL: Mapping[str, int] = MappingProxyType({"train": 4, "val": 1})

Counts = NDArray[np.int64]


def cut_strips(
    cells: Counts, shape: tuple[int, int], patch: int, shares: Mapping[str, int] = ALL_SPLITS
) -> dict[str, Window] | None:
    """Cut a scene into a strip for each split, all across it, with at least a patch between them.

    Of all cuts along the borders of cells the most even one is taken: that with the largest product of the changed
    pixels of the split that has the fewest for its share, and of the labelled pixels of that which has the fewest of
    these. The same labels give the same strips anywhere.

    Args:
        cells: (2, rows, cols), labelled and changed pixels of every cell, observed at both dates.
        shape: Rows and columns of the scene in pixels.
        patch: Side of a patch in pixels.
        shares: How much of the change, and of the ground, each split should have.

    Returns:
        Pixels of each split's strip; None where no cut leaves each split changed pixels, and the strips together half
        of what is labelled.
    """
    most, found = 0.0, dict[str, Window]()
    for axis in (0, 1):
        lines = cells.sum(axis=2 - axis, dtype=np.int64)
        starts, stops = _all_ends(lines.shape[1], len(shares), count_tiles(patch, CELL))
        for order in itertools.permutations(shares) if starts.size else ():
            fewest = _fewest(lines, starts, stops, [shares[name] for name in order])
            # whole numbers could overflow, and one product of floating-point ones is the same anywhere
            even = fewest[0].astype(np.float64) * fewest[1]
            way = int(even.argmax())  # the first of equals
            if even[way] > most:
                most = float(even[way])
                ends = zip(order, starts[:, way].tolist(), stops[:, way].tolist(), strict=True)
                found = {name: _strip(axis, start, stop, shape) for name, start, stop in ends}
    return {name: found[name] for name in shares} if found else None


def strip_name(strip: Window, shape: tuple[int, int]) -> str:
    """Which rows or columns of a scene a strip is, in words."""
    if strip.width == shape[1]:
        return f"rows {strip.row} to {strip.stop_row - 1}"
    return f"columns {strip.col} to {strip.stop_col - 1}"


def largest_patch(cells: Counts, shape: tuple[int, int], patch: int, shares: Mapping[str, int]) -> int | None:
    """The largest patch of whole cells, smaller than a given one, with which a scene can be cut; None without one."""
    smaller = range((patch - 1) // CELL * CELL, 0, -CELL)
    return next((side for side in smaller if cut_strips(cells, shape, side, shares)), None)


def _all_ends(lines: int, strips: int, buffer: int) -> tuple[Counts, Counts]:
    """All ways to cut so many lines of cells into strips, each of a line at least, with a buffer between them.

    Returns:
        First line of each strip, and the first one after it; each (strip, way).
    """
    free = lines - buffer * (strips - 1)
    ways = list(itertools.combinations(range(1, free), strips - 1))
    cuts = np.array(ways, np.int64).reshape(-1, strips - 1).T
    spread = buffer * np.arange(strips, dtype=np.int64)[:, None]
    borders = np.pad(cuts, ((1, 1), (0, 0)))
    borders[-1] = free
    return borders[:-1] + spread, borders[1:] + spread


def _fewest(lines: Counts, starts: Counts, stops: Counts, shares: list[int]) -> Counts:
    """(2, way), labelled and changed pixels of the strip that has the fewest of them for its share.

    None are left of a cut whose buffers take more than half of what is labelled.
    """
    until = np.pad(lines.cumsum(axis=1), ((0, 0), (1, 0)))
    pixels = until[:, stops] - until[:, starts]
    enough = 2 * pixels[0].sum(axis=0) >= until[0, -1]
    whole = math.lcm(*shares)
    times = np.array([whole // share for share in shares], np.int64)[None, :, None]
    return np.where(enough, (pixels * times).min(axis=1), 0)


def _strip(axis: int, start: int, stop: int, shape: tuple[int, int]) -> Window:
    first, last = start * CELL, min(stop * CELL, shape[axis])
    return Window(first, 0, last - first, shape[1]) if axis == 0 else Window(0, first, shape[0], last - first)
