"""What is built, torn down, cleared and dug at a varied place between its dates, and its like that stays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.canvas import (
    BOTH,
    FINE,
    Canvas,
    Window,
    add_surfaces,
    crossing_line,
    draw_line,
    fill_outline,
    paint,
)
from cdpipe.demo.patterns import Image, Mask, fractal_noise
from cdpipe.demo.spectra import asphalt, concrete, crops, roofs, soils, waters
from cdpipe.demo.streets import build_quarter

_MOST = 400  # tries
_SMALLEST = 2.5  # pixels of the scene
_LARGEST = 0.45  # of the map's side
_SPOTS = 6  # that a change chooses from
_LAWNS = 0.35  # of what lasts
_NEARNESS = 0.7  # how much it prefers towns
_IN_TOWN = 8  # pixels of the map that nearness is worked out for


@dataclass(frozen=True)
class Plan:
    """Where something is put, and what is said of it.

    Attributes:
        mask: (rows, columns) of the window.
        window: Part of the map.
        side: Of what is put there, about, in pixels.
        dates: When it stands.
        changed: Whether it came or went between the dates.
    """

    mask: Mask
    window: Window
    side: float
    dates: Sequence[int]
    changed: bool


def change_place(canvas: Canvas, town: Mask, share: float, *, lasting: float) -> None:
    """Paint what lasts and looks like a change, and then what changes.

    Args:
        canvas: The place.
        town: Where towns are: most changes lie in or beside them.
        share: Of the map that changes, 0 to 1, about.
        lasting: Of the map that such things cover at both dates.
    """
    small = cv2.resize(town.astype(np.float32), None, fx=1 / _IN_TOWN, fy=1 / _IN_TOWN, interpolation=cv2.INTER_AREA)
    nearness = cv2.GaussianBlur(small, (0, 0), 3)
    for wanted, metres, changed in ((lasting, 90.0, False), (share, 70.0, True)):
        median, done = metres * np.exp(canvas.rng.normal(0, 0.5)), 0
        for _ in range(_MOST):
            if done >= wanted * town.size:
                break
            done += _put(canvas, np.asarray(nearness), canvas.size(median, 0.7), changed)


def _put(canvas: Canvas, nearness: Image, side: float, changed: bool) -> int:
    """Put one thing of about `side` pixels somewhere; how many pixels it covers."""
    rng = canvas.rng
    dates = ((1,) if rng.random() < 0.8 else (0,)) if changed else BOTH
    kind = rng.choice(len(_KINDS) + 1, p=(*_FREQUENCY, 1 - sum(_FREQUENCY)))
    lawn = not changed and rng.random() < _LAWNS
    if kind == len(_KINDS) and not lawn:
        return _road(canvas, dates, changed)
    side = float(np.clip(side, _SMALLEST * FINE, _LARGEST * min(canvas.shape)))
    mask, window = _outline(canvas, nearness, side)
    (_lawn if lawn else _KINDS[kind])(canvas, Plan(mask, window, side, dates, changed))
    return int(mask.sum())


def _outline(canvas: Canvas, nearness: Image, side: float) -> tuple[Mask, Window]:
    """A rectangle, a corner, a polygon or a blob, at a spot that is more often than not near a town."""
    rng, (rows, columns) = canvas.rng, canvas.shape
    spots = rng.integers(0, (rows, columns), (_SPOTS, 2))
    near = nearness[tuple(np.minimum(spots // _IN_TOWN, np.array(nearness.shape) - 1).T)]
    row, column = spots[np.argmax(rng.random(_SPOTS) + _NEARNESS * near)]
    aspect = np.exp(rng.normal(0, 0.4))
    sides = np.maximum([side * np.sqrt(aspect), side / np.sqrt(aspect)], 1.5)
    half = int(np.ceil(np.hypot(*sides) / 2)) + 2
    top, left = max(0, row - half), max(0, column - half)
    window = (slice(top, min(rows, row + half)), slice(left, min(columns, column + half)))
    turn = rng.uniform(0, np.pi)
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline = (_unit_outline(rng) * sides) @ turned + (column - left, row - top)
    return fill_outline((window[0].stop - top, window[1].stop - left), outline), window


def _unit_outline(rng: np.random.Generator) -> NDArray[np.float64]:
    """An outline (n, 2) about as large as a square of side 1 around 0."""
    kind = rng.random()
    if kind < 0.5:
        return np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    if kind < 0.7:
        x, y = rng.uniform(0.2, 0.6, 2)
        return np.array([(0, 0), (1, 0), (1, y), (x, y), (x, 1), (0, 1)]) - 0.5
    if kind < 0.85:
        turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 8)))
        reach = np.full(turns.shape, 0.5)
    else:
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        waves = (rng.normal(0, 0.2 / k) * np.cos(k * turns + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
        reach = 0.5 * (1 + np.asarray(sum(waves)))
    return np.asarray(reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1))


def _quarter(canvas: Canvas, plan: Plan) -> None:
    build_quarter(canvas, plan.mask, dates=plan.dates, changed=plan.changed, window=plan.window)


def _hall(canvas: Canvas, plan: Plan) -> None:
    """One building, most with a yard around it."""
    rng, materials = canvas.rng, canvas.materials
    mask = plan.mask
    if rng.random() < 0.6:
        yard = concrete(materials, 1) if rng.random() < 0.6 else soils(materials, 1, 1.3)
        paint(canvas, mask, add_surfaces(canvas, yard, changed=plan.changed), plan.dates, plan.window)
        steps = max(1, int(plan.side * rng.uniform(0.03, 0.2)))
        mask = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=steps) > 0
    roof = roofs(materials, 1, own=0)
    number = add_surfaces(canvas, roof, rough=0.04, height=rng.uniform(4, 25), changed=plan.changed)
    paint(canvas, mask, number, plan.dates, plan.window)


def _site(canvas: Canvas, plan: Plan) -> None:
    """Bright, uneven, bare ground of works."""
    rng, materials = canvas.rng, canvas.materials
    looks = np.concatenate([soils(materials, 3, rng.uniform(1, 1.8)), concrete(materials, 2)])
    first = add_surfaces(canvas, looks, rough=rng.uniform(0.05, 0.25), changed=plan.changed)
    uneven = fractal_noise(rng, (plan.mask.shape[0], plan.mask.shape[1]), max(3.0, plan.side / 3), octaves=3)
    number = first + np.clip(((uneven + 2) * 1.2).astype(np.int32), 0, len(looks) - 1)
    paint(canvas, plan.mask, number, plan.dates, plan.window)


def _clearing(canvas: Canvas, plan: Plan) -> None:
    rough, looks = canvas.rng.uniform(0.1, 0.3), soils(canvas.materials, 1, canvas.rng.uniform(0.7, 1.4))
    paint(canvas, plan.mask, add_surfaces(canvas, looks, rough=rough, changed=plan.changed), plan.dates, plan.window)


def _pond(canvas: Canvas, plan: Plan) -> None:
    looks = waters(canvas.materials)[:, 0]
    paint(canvas, plan.mask, add_surfaces(canvas, looks, rough=0.02, changed=plan.changed), plan.dates, plan.window)


def _lawn(canvas: Canvas, plan: Plan) -> None:
    """A field or sports ground in any state at either date, which is no change."""
    rng, materials = canvas.rng, canvas.materials
    looks = np.stack([crops(materials, rng.random(1)) for _ in BOTH], axis=1)
    number = add_surfaces(canvas, looks, rough=rng.uniform(0.02, 0.15), green=0.4)
    paint(canvas, plan.mask, number, plan.dates, plan.window)


def _rebuilding(canvas: Canvas, plan: Plan) -> None:
    """Other buildings at either date."""
    for dates in ((0,), (1,)) if plan.changed else (BOTH,):
        build_quarter(canvas, plan.mask, dates=dates, changed=plan.changed, window=plan.window)


def _road(canvas: Canvas, dates: Sequence[int], changed: bool) -> int:
    rng, materials = canvas.rng, canvas.materials
    line = crossing_line(canvas, rng.uniform(0, 0.1))
    points = int(rng.integers(4, 24))
    start = int(rng.integers(0, len(line) - points))
    road = draw_line(canvas.shape, line[start : start + points], canvas.pixels(rng.uniform(7, 25), least=1.5))
    makes: list[Callable[[], NDArray[np.float64]]] = [
        partial(asphalt, materials, 1),
        partial(concrete, materials, 1),
        partial(soils, materials, 1, 1.3),
    ]
    looks = makes[rng.choice(len(makes), p=(0.5, 0.25, 0.25))]()
    paint(canvas, road, add_surfaces(canvas, looks, rough=0.04, changed=changed), dates)
    return int(road.sum())


_KINDS: tuple[Callable[[Canvas, Plan], None], ...] = (_quarter, _hall, _site, _clearing, _pond, _rebuilding)
_FREQUENCY = (0.30, 0.22, 0.20, 0.05, 0.03, 0.08)  # the rest are roads
