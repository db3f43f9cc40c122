"""Outlines of connected components along pixel sides: corners found window by window, then joined to rings.

A corner is where an outline turns. All corners of a component, in whatever order they were found, determine its rings:
on a line of the pixel grid they pair up to sides. No coordinate is ever computed but whole pixels.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

_BEGINS, _DOWN, _LEAVES = 4, 2, 1  # flags: see _corner_table
_FLAGS, _COL_BITS = 3, 30


def _corner_table() -> NDArray[np.int8]:
    """Corners at a grid point, by which of its four pixels (1, 2, 4, 8: row by row) belong to a component.

    Returns:
        (16, 2, 2): up to two corners, each the position of a pixel whose component it is one of (-1: no corner), and
        flags: whether its horizontal side begins here (or ends), whether its vertical side leads down (or up), and
        whether an outline that has its component on the left, rows counted downwards, leaves by the horizontal side.
    """
    table = np.full((16, 2, 2), -1, np.int8)
    single = {0: 0, 1: _BEGINS | _LEAVES, 2: _DOWN | _LEAVES, 3: _BEGINS | _DOWN}
    for pixel, flags in single.items():
        table[1 << pixel, 0] = pixel, flags
        # around the one pixel that is missing, the other way round
        table[15 - (1 << pixel), 0] = 3 - pixel, flags ^ _LEAVES
    for first, second in ((0, 3), (1, 2)):  # touching at the point alone
        table[1 << first | 1 << second] = (first, single[first]), (second, single[second])
    return table


_TABLE = _corner_table()


def find_corners(ids: Numbers, row: int, col: int) -> tuple[Numbers, Numbers]:
    """The corners of all components around the grid points between some pixels.

    Args:
        ids: (height, width), the component of every pixel, 0 for none. Pixels that share a side must be of components
            that are one in the end.
        row: Of the grid point between the first four pixels.
        col: Likewise.

    Returns:
        (corners,) the component of each corner, and (corners,) its place and kind as :func:`trace_rings` reads them.
    """
    inside = (ids != 0).astype(np.uint8)
    pattern = inside[:-1, :-1] | inside[:-1, 1:] << 1 | inside[1:, :-1] << 2 | inside[1:, 1:] << 3
    rows, cols = np.nonzero(_TABLE[:, 0, 0][pattern] >= 0)
    entries = _TABLE[pattern[rows, cols]]
    owners, corners = [], []
    for number in (0, 1):
        pixel, flags = entries[:, number].T
        there = pixel >= 0
        r, c, p = rows[there], cols[there], pixel[there]
        owners.append(ids[r + (p >> 1), c + (p & 1)])
        corners.append(((r + row) << _COL_BITS | (c + col)) << _FLAGS | flags[there])
    return np.concatenate(owners), np.concatenate(corners)


def trace_rings(owners: Numbers, corners: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Join corners to rings.

    Each component has one outer ring and one for each hole. The component lies on the left of its rings when rows are
    counted downwards: outer rings run counter-clockwise on a screen. Where a component touches itself at a point, two
    rings touch there, and none touches itself, as valid polygons have it (OGC 06-103r4, 6.1.11).

    Args:
        owners: (corners,) components; all corners of each must be there.
        corners: (corners,) see :func:`find_corners`.

    Returns:
        (vertices, 2) row and column of the rings' vertices, one ring after the other, by component, outer ring first,
        then by first vertex, which is the upper left one; (rings,) where each ring ends in them; and (rings,) its
        component.
    """
    order = np.lexsort((corners, owners))
    owners, corners = owners[order], corners[order]
    flags = corners & ((1 << _FLAGS) - 1)
    points = corners >> _FLAGS
    rows, cols = points >> _COL_BITS, points & ((1 << _COL_BITS) - 1)
    # a component that touches itself here has two corners at one point: each takes the other's vertical side
    twice = np.zeros(len(owners), np.bool_)
    twice[1:] = (owners[1:] == owners[:-1]) & (points[1:] == points[:-1])
    twice[:-1] |= twice[1:]
    down = (flags & _DOWN) // _DOWN ^ twice
    across = np.arange(len(owners)) ^ 1  # begin and end of a side follow each other
    along = np.empty_like(across)
    by_col = np.lexsort((down, rows, cols, owners))
    along[by_col] = by_col[np.arange(len(owners)) ^ 1]
    following = np.where(flags & _LEAVES, across, along).tolist()
    walk, ends = _walk(following)
    return np.stack([rows, cols], 1)[walk], ends, owners[walk[ends - 1]]


def _walk(following: list[int]) -> tuple[Numbers, Numbers]:
    """The cycles of a permutation, each from its lowest element on, and where each ends."""
    seen = bytearray(len(following))
    walk, ends = [], []
    for start in range(len(following)):
        if seen[start]:
            continue
        at = start
        while not seen[at]:
            seen[at] = 1
            walk.append(at)
            at = following[at]
        ends.append(len(walk))
    return np.array(walk, np.int64), np.array(ends, np.int64)


def densify(points: Numbers, ends: Numbers, step: int) -> tuple[Numbers, Numbers]:
    """Rings with closing vertices, and further ones on sides that are longer than a step.

    Args:
        points: (vertices, 2) of rings without closing vertex, whose sides follow the pixel grid; in pixels.
        ends: (rings,) where each ring ends.
        step: Longest side wanted, in pixels.

    Returns:
        (vertices, 2) and (rings,) ends, each ring with its first vertex again at its end.
    """
    following = np.arange(1, len(points) + 1)
    starts = np.concatenate([[0], ends[:-1]])
    following[ends - 1] = starts
    delta = points[following] - points
    parts = np.maximum(1, -(-np.abs(delta).max(1) // step))
    of = np.repeat(np.arange(len(points)), parts)
    part = np.arange(len(of)) - np.repeat(np.cumsum(parts) - parts, parts)
    dense = points[of] + delta[of] * part[:, None] // parts[of][:, None]
    new_ends = np.cumsum(parts)[ends - 1]
    where = np.insert(np.arange(len(dense)), new_ends, np.concatenate([[0], new_ends[:-1]]))
    return dense[where], new_ends + np.arange(1, len(ends) + 1)
