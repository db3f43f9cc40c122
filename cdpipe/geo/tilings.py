"""Tilings of a scene: blocks, fixed tiles, the patch grid, and what a block reads beyond itself.

Everything is anchored at the scene's origin. Neighbouring blocks therefore mean the same patch when
they compute the one that lies across their border, and no result depends on the size of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import BlockKey, Window

TILE = 512  # side of the fixed tiles in which rasters are warped and labels burnt, in pixels
CELL = 64  # side of the cells in which labels are counted for the sampler, in pixels
CHUNK = 256  # side of a stored chunk, in pixels


def count_tiles(length: int, tile: int) -> int:
    """How many tiles cover ``length`` pixels."""
    return -(-length // tile)


def block_keys(pair_id: str, shape: tuple[int, int], block: int) -> list[BlockKey]:
    """The keys of all blocks of a scene, row by row.

    Args:
        pair_id: The pair.
        shape: Rows and columns of the scene.
        block: Side of a block in pixels.
    """
    rows, cols = (count_tiles(length, block) for length in shape)
    return [BlockKey(pair_id, row, col) for row in range(rows) for col in range(cols)]


def block_window(key: BlockKey, shape: tuple[int, int], block: int) -> Window:
    """The pixels that a block owns; blocks at the lower and right edge may be smaller.

    Raises:
        ValueError: If the scene has no such block.
    """
    row, col = key.block_row * block, key.block_col * block
    if row >= shape[0] or col >= shape[1]:
        raise ValueError(f"{key} lies outside a scene of {shape[0]} x {shape[1]} pixels in blocks of {block}")
    return Window(row, col, min(block, shape[0] - row), min(block, shape[1] - col))


def tiles_in(window: Window, tile: int) -> Iterator[Window]:
    """Cut a window along the lines of a tiling anchored at the scene's origin, row by row."""
    for row in range(window.row // tile * tile, window.stop_row, tile):
        for col in range(window.col // tile * tile, window.stop_col, tile):
            part = window.intersect(Window(row, col, tile, tile))
            if part is not None:
                yield part


def spread_tiles(
    shape: tuple[int, int], side: int, most: int, random: np.random.Generator | None = None
) -> list[Window]:
    """Some whole tiles of a scene, spread evenly over it; of a scene smaller than a tile, all of it.

    Args:
        shape: Rows and columns of the scene.
        side: Of a tile in pixels.
        most: How many are wanted at most; all are taken where there are no more.
        random: Draws one tile from each part of the scene; without it the middle one of each is taken.
    """
    rows, cols = (max(1, length // side) for length in shape)
    down = min(rows, max(1, round((most * rows / cols) ** 0.5)))
    across = min(cols, max(1, most // down))
    down = min(rows, max(1, most // across))
    parts = [
        [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
        for count, parts in ((rows, down), (cols, across))
    ]
    places = [
        tuple((low + high) // 2 if random is None else int(random.integers(low, high)) for low, high in (row, col))
        for row in parts[0]
        for col in parts[1]
    ]
    return [Window(row * side, col * side, min(side, shape[0]), min(side, shape[1])) for row, col in places]


def strips_in(window: Window, rows: int) -> Iterator[Window]:
    """Cut a window into strips of its whole width, along every ``rows``-th row of the scene."""
    for row in range(window.row // rows * rows, window.stop_row, rows):
        top, bottom = max(row, window.row), min(row + rows, window.stop_row)
        yield Window(top, window.col, bottom - top, window.width)


def grow(window: Window, margin: int, shape: tuple[int, int]) -> Window:
    """The window with so many pixels more on every side, as far as the scene has them."""
    top, left = max(0, window.row - margin), max(0, window.col - margin)
    bottom, right = min(shape[0], window.stop_row + margin), min(shape[1], window.stop_col + margin)
    return Window(top, left, bottom - top, right - left)


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Where a model's patches lie on a scene: at ``k * stride`` until the edge is covered.

    Attributes:
        shape: Rows and columns of the scene.
        patch: Side of a patch in pixels.
        stride: Distance between patches in pixels, 1 to ``patch``.
    """

    shape: tuple[int, int]
    patch: int
    stride: int

    def __post_init__(self) -> None:
        """Refuse strides that leave gaps."""
        if not 1 <= self.stride <= self.patch:
            raise ValueError(f"stride must be 1 to {self.patch} (the patch), got {self.stride}")

    def origins(self, axis: int) -> range:
        """First pixel of every patch along an axis (0: rows, 1: columns)."""
        beyond = max(self.shape[axis] - self.patch, 0)
        return range(0, beyond + self.stride, self.stride) if beyond else range(1)

    def touching(self, window: Window) -> list[tuple[int, int]]:
        """Origins ``(row, col)`` of every patch that shares a pixel with the window, row by row."""
        rows, cols = (
            [origin for origin in self.origins(axis) if origin < stop and origin + self.patch > start]
            for axis, start, stop in (
                (0, window.row, window.stop_row),
                (1, window.col, window.stop_col),
            )
        )
        return [(row, col) for row in rows for col in cols]

    def halo(self, window: Window) -> Window:
        """All scene pixels that the patches touching a window are made of, reflections included."""
        origins = self.touching(window)
        spans = []
        for axis in (0, 1):
            first, last = origins[0][axis], origins[-1][axis]
            needed = reflect_indices(first, last + self.patch - first, self.shape[axis])
            spans.append((int(needed.min()), int(needed.max()) + 1))
        (top, bottom), (left, right) = spans
        return Window(top, left, bottom - top, right - left)


def patch_stride(patch: int, overlap: float) -> int:
    """Distance between patches in pixels for an overlap given as a share of the patch (0 to < 1)."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}")
    return max(1, round(patch * (1 - overlap)))


def reflect_indices(start: int, size: int, length: int) -> NDArray[np.intp]:
    """Pixel index for each of ``size`` positions from ``start`` on, mirrored at the edges as often as needed.

    The edge pixel itself is not repeated (``numpy.pad`` calls this "reflect"); an axis of one pixel
    repeats it.

    Args:
        start: First position in pixels, which may lie beyond the edges.
        size: How many.
        length: Of the axis, in pixels.

    Returns:
        (size,) indices from 0 to ``length - 1``.
    """
    if length == 1:
        return np.zeros(size, np.intp)
    period = 2 * (length - 1)
    position = np.arange(start, start + size) % period
    return np.minimum(position, period - position).astype(np.intp)
