"""What stands in the synthetic scenes: a thing is one painted outline; houses and halls are a few of them."""

from dataclasses import dataclass, replace

import numpy as np

from cdpipe.arrays.scenery_materials import HALL_ROOFS, HOUSE_ROOFS
from cdpipe.arrays.scenery_shapes import FREE, Outline, Point, Site, claim, direction, rectangle


@dataclass(frozen=True)
class Thing:
    """One outline of one material, at one or both dates.

    Attributes:
        outline: Where it lies; what is painted later lies above.
        looks: Material in the season of the first and of the second date.
        height: Metres above the ground; it casts a shadow.
        gain: Brightness relative to the material.
        furrow: Direction of its furrows, radians.
        before, after: Whether it is there at that date.
    """

    outline: Outline
    looks: tuple[str, str]
    height: float = 0.0
    gain: float = 1.0
    furrow: float = 0.0
    before: bool = True
    after: bool = True


BOTH, NEW, GONE = (True, True), (False, True), (True, False)
Dates = tuple[bool, bool]


def ground(outline: Outline, material: str, dates: Dates = BOTH) -> Thing:
    """Return flat ground of one material which no season alters."""
    return Thing(outline, (material, material), before=dates[0], after=dates[1])


def dated(things: list[Thing], dates: Dates) -> list[Thing]:
    """Return the things standing at `dates` instead."""
    return [replace(thing, before=dates[0], after=dates[1]) for thing in things]


def house(site: Site, centre: Point, angle: float, *, scale: float = 1.0, gap: int = 4) -> list[Thing]:
    """Return a house with a gable roof, lit on one side; empty where the ground is not free."""
    rng = site.rng
    length, width = rng.uniform(15, 22) * scale, rng.uniform(11, 15) * scale
    if not claim(site, rectangle(centre, length, width, angle), gap=gap):
        return []
    roof = str(rng.choice(HOUSE_ROOFS, p=(0.32, 0.12, 0.14, 0.22, 0.20)))
    aside = direction(angle + np.pi / 2) * width / 4
    height = rng.uniform(5, 8)
    halves = []
    for side in (-1, 1):
        middle = np.asarray(centre) + side * aside
        # The sun stands in the south at every date: rows grow southwards, so that slope is the lit one.
        gain = 1.0 + 0.2 * np.sign(side * aside[1] or 1.0)
        half = rectangle((middle[0], middle[1]), length, width / 2, angle)
        halves.append(Thing(half, (roof, roof), height, gain))
    return halves


def hall(site: Site, centre: Point, angle: float, sides: tuple[float, float], *, over: int = FREE) -> list[Thing]:
    """Return a flat-roofed hall (length, width) with skylights; empty where the ground is used beyond `over`."""
    rng = site.rng
    length, width = sides
    outline = rectangle(centre, length, width, angle)
    if not claim(site, outline, gap=5, over=over):
        return []
    roof = str(rng.choice(HALL_ROOFS))
    height = rng.uniform(7, 12)
    things = [
        Thing(outline, (roof, roof), height, 0.82),
        Thing(rectangle(centre, length - 3, width - 3, angle), (roof, roof), height),
    ]
    skylight = "grey_roof" if roof in ("white_roof", "pale_roof") else "pale_roof"
    for offset in np.arange(-length / 2 + 8, length / 2 - 6, rng.uniform(9, 14)):
        middle = np.asarray(centre) + direction(angle) * offset
        light = rectangle((middle[0], middle[1]), 2.5, width * 0.6, angle)
        things.append(Thing(light, (skylight, skylight), height))
    return things


def flats(site: Site, centre: Point, angle: float) -> list[Thing]:
    """Return a tall block of flats with boxes on its roof; empty where the ground is not free."""
    rng = site.rng
    length, width = rng.uniform(40, 58), rng.uniform(14, 17)
    outline = rectangle(centre, length, width, angle)
    if not claim(site, outline, gap=8):
        return []
    height = rng.uniform(13, 18)
    roof = str(rng.choice(("pale_roof", "grey_roof", "pale_roof")))
    things = [Thing(outline, (roof, roof), height)]
    for offset in np.linspace(-length / 3, length / 3, 3):
        middle = np.asarray(centre) + direction(angle) * offset
        things.append(Thing(rectangle((middle[0], middle[1]), 5, 5, angle), ("white_roof", "white_roof"), height + 2))
    return things


def tree(rng: np.random.Generator, centre: Point) -> list[Thing]:
    """Return a single tree: a rough disc of 2 to 5 pixels radius with a sunlit south side."""
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    disc = np.stack([np.cos(turn), np.sin(turn)], axis=1) * rng.uniform(0.85, 1.12, (14, 1))
    radius, height, gain = rng.uniform(2.2, 4.8), rng.uniform(3, 6), rng.uniform(0.8, 1.3)
    crown = Thing(np.asarray(centre) + radius * disc, ("tree", "tree"), height, 0.75 * gain)
    lit = np.asarray(centre) + (0.1 * radius, 0.3 * radius) + 0.65 * radius * disc
    return [crown, Thing(lit, ("tree", "tree"), height + 1, 1.35 * gain)]
