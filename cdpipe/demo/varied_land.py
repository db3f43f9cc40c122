"""The lasting part of a varied place: fields or open ground, woods, waters, roads, and towns of several looks."""

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.canvas import BOTH, Canvas, add_surfaces, crossing_line, draw_line, paint
from cdpipe.demo.patterns import Mask, Numbers, fractal_noise, highest_share, lattice, patchwork, turned_axes
from cdpipe.demo.render import smooth_noise
from cdpipe.demo.spectra import asphalt, crops, soils, waters, woods
from cdpipe.demo.streets import build_quarter

_OPEN_GROUNDS = 41  # shades of ground that no field cuts


def lay_out_nature(canvas: Canvas) -> None:
    """Paint everything but towns."""
    rng = canvas.rng
    _ground(canvas)
    if rng.random() < 0.75:
        _woods(canvas, rng.uniform(0.02, 0.5))
    for _ in range(rng.integers(0, 6)):
        surface = asphalt(canvas.materials, 1) if rng.random() < 0.7 else soils(canvas.materials, 1, 1.2)
        road = draw_line(canvas.shape, crossing_line(canvas, rng.uniform(0, 0.15)), canvas.pixels(rng.uniform(5, 30)))
        paint(canvas, road, add_surfaces(canvas, surface, rough=0.03))
    if rng.random() < 0.4:
        _sea(canvas, rng.uniform(0.02, 0.4))
    if rng.random() < 0.4:
        river = draw_line(canvas.shape, crossing_line(canvas, 0.25), canvas.size(60, 0.7, least=3))
        paint(canvas, river, add_surfaces(canvas, waters(canvas.materials), rough=0.02))


def lay_out_towns(canvas: Canvas) -> Mask:
    """Paint towns over a part of the map that differs widely, in quarters of up to five looks.

    Returns:
        (rows, columns), where they are.
    """
    rng = canvas.rng
    share = rng.choice([rng.uniform(0, 0.1), rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.95)])
    town = highest_share(fractal_noise(rng, canvas.shape, canvas.size(1200, 0.6, least=16), fall=0.5), share)
    looks = int(rng.integers(1, 6))
    width = canvas.pixels(600, least=12)
    quarter = np.stack([fractal_noise(rng, canvas.shape, width, octaves=3) for _ in range(looks)]).argmax(axis=0)
    for look in range(looks):
        build_quarter(canvas, town & (quarter == look))
    if rng.random() < 0.5:
        _town_trees(canvas, town)
    return town


def _ground(canvas: Canvas) -> None:
    """Fields of a lattice or a patchwork, or open ground; those that are worked are in any state at either date."""
    rng, materials = canvas.rng, canvas.materials
    kind = rng.choice(["lattice", "patchwork", "open"], p=[0.45, 0.2, 0.35])
    size = canvas.size(150, 0.5, least=6)
    if kind == "patchwork":
        number, count = patchwork(rng, canvas.shape, size)
    elif kind == "lattice":
        axes = turned_axes(rng, canvas.shape, rng.uniform(0, np.pi), size * rng.choice([0, 0.1, 0.4]), 3 * size)
        cells = lattice(rng, axes, (size * np.exp(rng.normal(0.4, 0.4)), size), staggered=True)
        number, count = cells.number, cells.count
    else:
        shades = fractal_noise(rng, canvas.shape, canvas.size(500, 0.6, least=8), octaves=5, fall=0.7)
        number = np.clip(((shades + 3) * rng.uniform(1, 4)).astype(np.int32), 0, _OPEN_GROUNDS - 1)
        count = _OPEN_GROUNDS
    worked = rng.random(count) < (0 if kind == "open" else rng.beta(0.8, 0.8))
    usual = rng.beta(1.2, 1.2, 2)
    if rng.random() < 0.5:
        usual[1] = np.clip(usual[0] + rng.normal(0, 0.15), 0, 1)
    before = np.clip(rng.normal(usual[0], 0.25, count), 0, 1)
    grown = np.clip(before + usual[1] - usual[0] + rng.normal(0, 0.04, count), 0, 1)
    after = np.where(worked, np.clip(rng.normal(usual[1], 0.3, count), 0, 1), grown)
    first = crops(materials, before)
    # the same plants, more of them or fewer
    later = np.clip(first + (after - before)[:, None] * (materials.plants - materials.soil), 0.01, 1)
    second = np.where(worked[:, None], crops(materials, after), later)
    own = add_surfaces(
        canvas, np.stack([first, second], axis=1), rough=rng.uniform(0.02, 0.15, count), green=0.2 + 0.5 * before
    )
    paint(canvas, np.ones(canvas.shape, np.bool_), own + number)


def _woods(canvas: Canvas, share: float) -> None:
    rng, materials, kinds = canvas.rng, canvas.materials, 4
    where = highest_share(fractal_noise(rng, canvas.shape, canvas.size(400, 0.7, least=8), octaves=5), share)
    stands, _ = patchwork(rng, canvas.shape, canvas.pixels(400, least=10))
    season = canvas.season if rng.random() < 0.7 else (1.0, 1.0)
    first = woods(materials, kinds, season[0])
    second = first * woods(materials, 1, season[1]) / woods(materials, 1, season[0])
    rough, height = rng.uniform(0.08, 0.3), rng.uniform(3, 15)
    own = add_surfaces(canvas, np.stack([first, second], axis=1), rough=rough, height=height, green=0.6)
    paint(canvas, where, own + stands % kinds)


def _sea(canvas: Canvas, share: float) -> None:
    """Water with a coast that the tide may move a little."""
    rng = canvas.rng
    sea = highest_share(fractal_noise(rng, canvas.shape, canvas.size(1500, 0.6, least=20), octaves=5, fall=0.45), share)
    water = waters(canvas.materials)
    paint(canvas, sea, add_surfaces(canvas, water, rough=0.02))
    if rng.random() < 0.4:
        near = cv2.dilate(sea.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=int(rng.integers(1, 4))) > 0
        sand = soils(canvas.materials, 1, 1.2)
        looks = sand if rng.random() < 0.5 else np.stack([sand, water[:, 1]], axis=1)
        paint(canvas, near & ~sea, add_surfaces(canvas, looks))


def _town_trees(canvas: Canvas, town: Mask) -> None:
    rng, (before, after) = canvas.rng, canvas.season
    crowns = smooth_noise(rng, canvas.shape, canvas.pixels(8, least=1.5)) > rng.uniform(1.2, 2.2)
    looks = np.stack([woods(canvas.materials, 1, before), woods(canvas.materials, 1, after)], axis=1)
    paint(canvas, crowns & town, add_surfaces(canvas, looks, rough=0.15, height=5, green=0.6))


def place_passers(canvas: Canvas) -> None:
    """Scatter cars, boats and the like, which are elsewhere at the other date; that is no change."""
    rng = canvas.rng
    for date in BOTH:
        count = int(rng.choice([0, 0, 20, 120]))
        own = add_surfaces(canvas, canvas.rng.uniform(0.05, 0.8, (8, 1)) * np.ones((8, 4)), rough=0.02)
        side = max(1, round(canvas.pixels(rng.uniform(4, 12)) / 2))
        spots: NDArray[np.int64] = rng.integers(0, canvas.shape, (count, 2))
        shades: Numbers = rng.integers(own, own + 8, count).astype(np.int32)
        for (row, column), shade in zip(spots, shades, strict=True):
            canvas.top[date][row : row + side, column : column + side] = shade
