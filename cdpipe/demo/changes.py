"""What is built, cleared and demolished between the dates of a synthetic pair."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.land import Land
from cdpipe.demo.things import (
    FREE,
    GONE,
    NEW,
    PAVED,
    Outline,
    Site,
    Thing,
    blob,
    claim,
    dated,
    direction,
    fill,
    flats,
    ground,
    hall,
    house,
    random_point,
    rectangle,
    strip,
    winding_line,
)

_LARGEST_NUMBER = 60
_ATTEMPTS = 50

_Change = tuple[list[Thing], list[Thing]]  # below the buildings, and buildings; both empty where there is no room
_Kind = Callable[[Site, Land], _Change]


@dataclass(frozen=True)
class Changes:
    """Things that stand at one date only, in painting order: below the buildings, and among them."""

    grounds: list[Thing]
    buildings: list[Thing]

    @property
    def things(self) -> list[Thing]:
        """All of them."""
        return self.grounds + self.buildings


def change_land(site: Site, land: Land, share: float) -> Changes:
    """Add changes of mixed kinds until they cover `share` of the visible part.

    Args:
        site: The site, with the lasting things marked in `site.use`.
        land: The lasting things.
        share: Part of the visible pixels to change, 0 to 1.

    Returns:
        The changes, none overlapping another nor a lasting building.
    """
    grounds: list[Thing] = []
    buildings: list[Thing] = []
    changed = np.zeros(site.use.shape, np.uint8)
    visible = changed[site.margin : -site.margin, site.margin : -site.margin]
    kinds: list[_Kind] = []
    for _ in range(_LARGEST_NUMBER):
        if visible.mean() >= share:
            break
        kinds = kinds or list(site.rng.permutation(np.array(_KINDS, dtype=object)))
        below, standing = _fit(kinds.pop(), site, land)
        grounds += below
        buildings += standing
        _mark(changed, below + standing)
    return Changes(grounds, buildings)


def _fit(kind: _Kind, site: Site, land: Land) -> _Change:
    """Look for room for a change of one kind; in a crowded place there may be none."""
    for _ in range(_ATTEMPTS):
        change = kind(site, land)
        if any(change):
            return change
    return [], []


def _mark(changed: NDArray[np.uint8], things: list[Thing]) -> None:
    for thing in things:
        fill(changed, thing.outline, 1)


def _works(site: Site, land: Land) -> _Change:
    """A fenced building site or yard with a hall on it."""
    del land
    rng = site.rng
    centre, turn = random_point(site, 40.0), site.angle + rng.normal(0, 0.15)
    length, width = rng.uniform(46, 66) * site.scale, rng.uniform(30, 42) * site.scale
    yard = rectangle(centre, length + 18, width + 18, turn)
    if not claim(site, yard, gap=4, mark=PAVED):
        return [], []
    site_ground = str(rng.choice(("building_site", "concrete", "gravel")))
    built = hall(site, centre, turn, (length, width), over=PAVED)
    return [ground(yard, site_ground, NEW)], dated(built, NEW)


def _new_hall(site: Site, land: Land) -> _Change:
    """A hall in the open."""
    del land
    sides = (site.rng.uniform(40, 62) * site.scale, site.rng.uniform(26, 38) * site.scale)
    turn = site.angle + site.rng.normal(0, 0.3)
    return [], dated(hall(site, random_point(site, 30.0), turn, sides), NEW)


def _new_flats(site: Site, land: Land) -> _Change:
    """A block of flats in the open."""
    del land
    return [], dated(flats(site, random_point(site, 30.0), site.angle + site.rng.normal(0, 0.3)), NEW)


def _new_street(site: Site, land: Land) -> _Change:
    """A street with large houses on both sides."""
    del land
    rng = site.rng
    centre, turn = random_point(site, 50.0), site.angle + rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.1)
    along, across = direction(turn), direction(turn + np.pi / 2)
    length = rng.uniform(88, 118)
    street = rectangle(centre, length, 11.0, turn)
    if not claim(site, rectangle(centre, length, 58, turn), gap=0, mark=FREE):
        return [], []
    claim(site, street, gap=0)
    houses: list[Thing] = []
    for offset in np.arange(-length / 2 + 15, length / 2 - 8, 32.0):
        for side in (-1, 1):
            spot = np.asarray(centre) + along * offset + across * side * 22
            houses += house(site, (float(spot[0]), float(spot[1])), turn, scale=1.35)
    return [ground(street, "concrete", NEW)], dated(houses, NEW)


def _new_road(site: Site, land: Land) -> _Change:
    """A road with bright shoulders; it may cross older ones."""
    del land
    rng = site.rng
    middle = np.asarray(random_point(site, 60.0))
    # Slantwise, since along an older road most of it would be no change.
    turn = site.angle + rng.choice((1, 3)) * np.pi / 4 + rng.uniform(-0.4, 0.4)
    half = direction(turn) * min(rng.uniform(80, 190), 0.4 * site.size)
    start, end = middle - half, middle + half
    line = winding_line(rng, (start[0], start[1]), (end[0], end[1]), 0.03 * float(np.hypot(*half)))
    shoulders, lanes = strip(line, 16.0), strip(line, 8.0)
    if not claim(site, shoulders, gap=3, over=PAVED):
        return [], []
    return [ground(shoulders, "gravel", NEW), ground(lanes, "asphalt", NEW)], []


def _demolition(site: Site, land: Land) -> _Change:
    """A hall of the first date; bare rubble at the second."""
    del land
    rng = site.rng
    sides = (rng.uniform(38, 58) * site.scale, rng.uniform(26, 36) * site.scale)
    gone = dated(hall(site, random_point(site, 30.0), site.angle + rng.normal(0, 0.2), sides), GONE)
    return [ground(thing.outline, "rubble", NEW) for thing in gone[:1]], gone


def _quarry(site: Site, land: Land) -> _Change:
    """A pit of bright, rough rock or a pond with a bank of sand, dug in the open."""
    del land
    outline = blob(site.rng, random_point(site, 35.0), site.rng.uniform(20, 28) * site.scale)
    if not claim(site, outline, gap=4):
        return [], []
    centre = outline.mean(axis=0)
    rim, floor = ("quarry", "rubble") if site.rng.random() < 0.6 else ("sand", "water")
    return [ground(outline, rim, NEW), ground(centre + 0.72 * (outline - centre), floor, NEW)], []


def _clearing(site: Site, land: Land) -> _Change:
    """Felled trees inside a forest."""
    rng = site.rng
    forests = [thing for thing in land.nature if thing.looks[0] == "forest_summer"]
    forest = forests[rng.integers(len(forests))].outline
    spot = forest.mean(axis=0) + rng.normal(0, 6, 2)
    outline: Outline = rectangle((spot[0], spot[1]), rng.uniform(40, 52), rng.uniform(32, 42), site.angle)
    inside = np.all((outline > site.margin) & (outline < np.array(site.use.shape[::-1]) - site.margin))
    if not inside or not claim(site, outline, gap=3):
        return [], []
    return [ground(outline, "felled", NEW)], []


_KINDS: tuple[_Kind, ...] = (
    _works, _works, _works, _new_hall, _new_hall, _new_hall, _new_flats, _new_street,
    _new_road, _demolition, _demolition, _demolition, _quarry, _clearing,
)  # fmt: skip
