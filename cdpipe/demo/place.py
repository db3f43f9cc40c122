"""A synthetic place at two dates, whose every change is known: made-up land, seen through made-up air."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cdpipe.demo import render
from cdpipe.demo.changes import Changes, change_land
from cdpipe.demo.land import lay_out_land
from cdpipe.demo.things import Site, Thing

Value = TypeVar("Value", bound=np.generic)

MARGIN = 40  # pixels around what is shown, on each side


@dataclass(frozen=True)
class Place:
    """A place at two dates.

    Attributes:
        shape: Rows and columns of the map: the visible part with `MARGIN` pixels around it.
        things: What stands there, in painting order.
        textures: Patterns of the ground.
    """

    shape: tuple[int, int]
    things: tuple[Thing, ...]
    textures: render.Textures


def draw_place(rng: np.random.Generator, shape: tuple[int, int], *, changed_share: float) -> Place:
    """Lay out a place.

    Args:
        rng: Source of randomness.
        shape: Visible rows and columns; a pixel stands for about 1 m.
        changed_share: Part of the visible pixels that changes, 0 to 1.

    Returns:
        The place; with a small shape the changed part can miss the aim by the size of one building.
    """
    whole = (shape[0] + 2 * MARGIN, shape[1] + 2 * MARGIN)
    site = Site(rng, np.zeros(whole, np.uint8), MARGIN, angle=rng.uniform(-0.5, 0.5))
    land = lay_out_land(site)
    changes = change_land(site, land, changed_share) if changed_share else Changes([], [])
    things = land.nature + land.roads + changes.grounds + land.buildings + changes.buildings + land.trees
    return Place(whole, tuple(things), render.draw_textures(rng, whole))


def change_label(place: Place) -> NDArray[np.uint8]:
    """Return 1 where another surface lies on top at the second date, else 0: uint8 of `place.shape`.

    Where a new road crosses an old one of the same asphalt, nothing changed.
    """
    kinds: dict[tuple[object, ...], int] = {}
    kind = np.array([0, *(kinds.setdefault(_surface_kind(thing), len(kinds) + 1) for thing in place.things)])
    before, after = (kind[render.paint(place.things, place.shape, date)] for date in (0, 1))
    return np.asarray(before != after, np.uint8)


def _surface_kind(thing: Thing) -> tuple[object, ...]:
    """Return all that decides how a thing looks from above."""
    return thing.looks, thing.gain, thing.furrow


def bare_surface(place: Place, date: int, *, season: int) -> NDArray[np.float32]:
    """Return the ground of `date` in the season of `season`, without shadows, air or sensor.

    Args:
        place: The place.
        date: 0 or 1: whose things stand.
        season: 0 or 1: whose crops and leaves are shown.

    Returns:
        float32 (4, rows, columns) in 10-bit digital numbers. In one season, the two dates differ exactly
        where `change_label` is 1.
    """
    return render.surface(place.things, render.paint(place.things, place.shape, date), place.textures, season)


def photograph(place: Place, date: int, conditions: render.Conditions) -> NDArray[np.float32]:
    """Return `place` at `date` (0 or 1) as it reaches the sensor: float32 (4, rows, columns), no noise yet."""
    top = render.paint(place.things, place.shape, date)
    ground = render.surface(place.things, top, place.textures, date)
    return render.observe(ground, render.shadows(place.things, top, conditions.sun), conditions)


def visible(image: NDArray[Value]) -> NDArray[Value]:
    """Cut the margin off an image (..., rows, columns)."""
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
