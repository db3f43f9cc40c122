"""Streets and buildings of a part of a town, old or new."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdpipe.demo.canvas import BOTH, Canvas, Window, add_surfaces, paint
from cdpipe.demo.patterns import Cells, Mask, lattice, turned_axes
from cdpipe.demo.spectra import asphalt, crops, roofs, soils

Range = tuple[float, float]

_GROUNDS, _ROOFS = 12, 64  # how many of each a quarter draws from
_GABLED = 10.0  # metres; what is higher has a flat roof


@dataclass(frozen=True)
class Look:
    """How a quarter is built.

    Attributes:
        plot: Depth of a plot, metres.
        aspect: Its length relative to that.
        starts, ends: Where a building starts and ends along the plot, 0 to 1.
        near, far: Likewise, across it.
        height: Of the buildings, metres.
    """

    plot: Range
    aspect: Range
    starts: Range
    ends: Range
    near: Range
    far: Range
    height: Range


LOOKS = {
    "houses": Look((14, 30), (1, 1), (0.1, 0.3), (0.6, 0.9), (0.1, 0.3), (0.6, 0.9), (4, 8)),
    "rows": Look((12, 25), (1.5, 4), (0.0, 0.1), (0.85, 1), (0.1, 0.3), (0.5, 0.9), (5, 10)),
    "halls": Look((40, 140), (0.7, 2), (0.03, 0.2), (0.7, 0.97), (0.03, 0.2), (0.7, 0.97), (5, 15)),
    "blocks": Look((40, 90), (0.8, 3), (0.05, 0.2), (0.7, 0.95), (0.1, 0.3), (0.5, 0.8), (12, 60)),
    "dense": Look((8, 20), (0.7, 1.5), (0.0, 0.15), (0.85, 1), (0.0, 0.15), (0.85, 1), (3, 15)),
}
_FREQUENCY = (0.3, 0.2, 0.2, 0.15, 0.15)


def build_quarter(
    canvas: Canvas,
    mask: Mask,
    *,
    dates: Sequence[int] = BOTH,
    changed: bool = False,
    window: Window | None = None,
) -> None:
    """Fill a part of the map with plots, their buildings and streets.

    Args:
        canvas: The place.
        mask: Where, (rows, columns) of the window.
        dates: When it stands.
        changed: Whether it came or went between the dates.
        window: Part of the map that the mask is of; all of it by default.
    """
    if not mask.any():
        return
    rng = canvas.rng
    look = LOOKS[str(rng.choice(list(LOOKS), p=None if changed else _FREQUENCY))]
    plot, aspect = canvas.pixels(rng.uniform(*look.plot), least=2.5), rng.uniform(*look.aspect)
    axes = turned_axes(rng, mask.shape, rng.uniform(0, np.pi), plot * rng.choice([0, 0, 0.5]), 8 * plot)
    cells = lattice(rng, axes, (plot * aspect, plot), staggered=bool(rng.random() < 0.3))
    grounds = _grounds(canvas, changed)
    number = (grounds + rng.integers(0, _GROUNDS, cells.count))[cells.number].astype(np.int32)
    low, high = look.height
    sunny = roofs(canvas.materials, _ROOFS)
    # gables: the far side of each roof has its own light
    sides = np.concatenate([sunny, sunny * (rng.uniform(0.5, 1.0) if high <= _GABLED else 1.0)])
    rough, height = np.tile(rng.uniform(0.02, 0.06, _ROOFS), 2), np.tile(rng.uniform(low, high, _ROOFS), 2)
    first = add_surfaces(canvas, sides, rough=rough, height=height, changed=changed)
    roof_of = (first + rng.integers(0, _ROOFS, cells.count)).astype(np.int32)[cells.number]
    np.copyto(number, roof_of + _ROOFS * (cells.across > 0.5).astype(np.int32), where=_buildings(rng, cells, look))
    if rng.random() < 0.85:
        surface = asphalt(canvas.materials, 1) if rng.random() < 0.8 else soils(canvas.materials, 1, 1.2)
        width = canvas.pixels(rng.uniform(4, 14), least=0.8)
        long, deep = plot * aspect * rng.integers(2, 9), plot * rng.integers(2, 5)
        street = (np.mod(axes[0], long) < width) | (np.mod(axes[1], deep) < width)
        np.copyto(number, np.int32(add_surfaces(canvas, surface, rough=0.03, changed=changed)), where=street)
    paint(canvas, mask, number, dates, window)


def _buildings(rng: np.random.Generator, cells: Cells, look: Look) -> Mask:
    """Where on their plots buildings stand, on a share of them."""
    stands = rng.random(cells.count) < rng.uniform(0.5, 1)
    sides = (look.starts, look.ends, look.near, look.far)
    starts, ends, near, far = (rng.uniform(*side, cells.count).astype(np.float32)[cells.number] for side in sides)
    inside = (cells.along > starts) & (cells.along < ends) & (cells.across > near) & (cells.across < far)
    return np.asarray(inside & stands[cells.number])


def _grounds(canvas: Canvas, changed: bool) -> int:
    """Gardens, grass, paving or bare soil between the buildings; plants go with the season."""
    rng, materials = canvas.rng, canvas.materials
    kind = rng.choice(["garden", "paved", "soil"], p=[0.55, 0.3, 0.15])
    rough = rng.uniform(0.03, 0.2)
    if kind != "garden":
        soil = soils(materials, _GROUNDS, rng.uniform(0.9, 1.5))
        bare = asphalt(materials, _GROUNDS) if kind == "paved" else soil
        return add_surfaces(canvas, bare, rough=rough, changed=changed)
    before, after = canvas.season
    first = crops(materials, np.clip(rng.normal(0.3 + 0.5 * before, 0.15, _GROUNDS), 0, 1))
    growth = 0.5 * (after - before) * rng.uniform(0.5, 1.2, (_GROUNDS, 1)) * (materials.plants - materials.straw)
    looks = np.stack([first, np.clip(first + growth, 0.01, 1)], axis=1)
    return add_surfaces(canvas, looks, rough=rough, green=0.4, changed=changed)
