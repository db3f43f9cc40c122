"""What stands in the synthetic scenes: a thing is one painted outline; houses and halls are a few of them."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
Point = tuple[float, float]

Spectrum = tuple[float, float, float, float]
Dates = tuple[bool, bool]

FREE, PAVED, TAKEN = 0, 1, 2  # how ground is used
BOTH, NEW, GONE = (True, True), (False, True), (True, False)  # dates
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Site:
    """Where a place is being laid out.

    Attributes:
        rng: The one source of randomness of the place.
        use: uint8 (rows, columns) of FREE, PAVED or TAKEN; filled in by `claim`.
        margin: Pixels at each edge of `use` which the finished scene will not show.
        angle: Direction of fields, tracks and streets, in radians from the x axis.
    """

    rng: np.random.Generator
    use: NDArray[np.uint8]
    margin: int
    angle: float

    @property
    def size(self) -> int:
        """Shorter side of the visible part, in pixels."""
        rows, columns = self.use.shape
        return int(min(rows, columns)) - 2 * self.margin

    @property
    def scale(self) -> float:
        """What to multiply large things by, so that they fit into a small place too."""
        return float(np.clip(self.size / 256, 0.4, 1.0))


def direction(angle: float) -> NDArray[np.float64]:
    """Return the unit vector (x, y) at `angle` radians from the x axis."""
    return np.array([np.cos(angle), np.sin(angle)])


def rectangle(centre: Point, length: float, width: float, angle: float) -> Outline:
    """Return a rectangle whose `length` runs along `angle`; sides in pixels."""
    along, across = direction(angle) * length / 2, direction(angle + np.pi / 2) * width / 2
    corners = [-along - across, along - across, along + across, -along + across]
    return np.asarray(centre) + np.array(corners)


def strip(line: NDArray[np.float64], width: float) -> Outline:
    """Widen the line (points, 2) into an outline `width` pixels across."""
    course = np.gradient(line, axis=0)
    normal = np.stack([-course[:, 1], course[:, 0]], axis=1)
    normal *= width / 2 / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.concatenate([line + normal, (line - normal)[::-1]])


def winding_line(rng: np.random.Generator, start: Point, end: Point, sway: float) -> NDArray[np.float64]:
    """Return a smooth line (points, 2) from start to end that leaves the straight by about `sway` pixels."""
    along = np.linspace(0.0, 1.0, 48)
    chord = np.subtract(end, start)
    normal = np.array([-chord[1], chord[0]]) / np.linalg.norm(chord)
    waves = sum(
        rng.normal() / k * np.sin(np.pi * k * along + rng.uniform(0, np.pi / 4) * (k > 1)) for k in (1, 2, 3, 5)
    )
    line: Outline = np.asarray(start) + along[:, None] * chord + (sway * np.asarray(waves))[:, None] * normal
    return line


def blob(rng: np.random.Generator, centre: Point, radius: float) -> Outline:
    """Return a smooth, irregular closed outline around `centre` of mean radius `radius` pixels."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = sum(rng.normal(0, 0.22 / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 6))
    reach = radius * np.clip(1 + np.asarray(waves), 0.5, 1.5)
    outline: Outline = np.asarray(centre) + reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return outline


def fill(image: NDArray[np.uint8] | NDArray[np.int32] | NDArray[np.float32], outline: Outline, value: int) -> None:
    """Set the pixels of `image` (rows, columns) inside `outline` to `value`, in place, with hard edges."""
    corners = np.rint(outline * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(image, [corners], value, shift=_SUBPIXEL_BITS)


def claim(site: Site, outline: Outline, *, gap: int = 3, over: int = FREE, mark: int = TAKEN) -> bool:
    """Take the ground under `outline` unless something stands there or within `gap` pixels.

    Args:
        site: The site; its `use` map is updated on success.
        outline: The ground wanted.
        gap: Distance to keep from other things, in pixels.
        over: The highest use that may be built over (FREE or PAVED).
        mark: The use written on success.

    Returns:
        Whether the ground was free. Ground wholly outside the map counts as not free.
    """
    rows, columns = site.use.shape
    left, top = np.maximum(np.floor(outline.min(axis=0)).astype(int) - gap, 0)
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + gap + 1
    use = site.use[top : min(bottom, rows), left : min(right, columns)]
    if right <= 0 or bottom <= 0 or use.size == 0:
        return False
    wanted = np.zeros(use.shape, np.uint8)
    fill(wanted, outline - (left, top), 1)
    near = cv2.dilate(wanted, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8))
    if np.any(use[near == 1] > over):
        return False
    use[wanted == 1] = np.maximum(use[wanted == 1], mark)
    return True


def random_point(site: Site, inset: float) -> Point:
    """Return a point of the visible part, `inset` pixels (times `site.scale`) or more from its edge."""
    rows, columns = site.use.shape
    low = np.array([site.margin, site.margin]) + min(inset * site.scale, site.size / 2 - 1)
    x, y = site.rng.uniform(low, np.array([columns, rows]) - low)
    return float(x), float(y)


@dataclass(frozen=True)
class Material:
    """A surface as the sensor would see it in full sun.

    Attributes:
        spectrum: Red, green, blue and near infrared in 10-bit digital numbers.
        grain: Relative amplitude of pixel-to-pixel texture.
        patches: Relative amplitude of texture some 10 pixels wide.
        furrows: Relative amplitude of parallel lines.
        canopy: Relative amplitude of tree-crown texture.
        damp: Share by which the near infrared and the brightness drift across some 50 pixels.
    """

    spectrum: Spectrum
    grain: float = 0.04
    patches: float = 0.04
    furrows: float = 0.0
    canopy: float = 0.0
    damp: float = 0.0


MATERIALS: dict[str, Material] = {
    # fields, by season
    "ploughed_wet": Material((170, 145, 125, 210), 0.04, 0.04, 0.06, damp=0.10),
    "ploughed_dry": Material((420, 370, 300, 485), 0.03, 0.03, 0.04, damp=0.08),
    "sprouting": Material((215, 228, 160, 450), 0.04, 0.04, 0.06, damp=0.10),
    "green_crop": Material((120, 165, 105, 620), 0.04, 0.04, 0.05, damp=0.08),
    "lush_crop": Material((88, 140, 84, 720), 0.04, 0.04, 0.04, damp=0.06),
    "ripe_crop": Material((470, 430, 290, 590), 0.03, 0.03, 0.04, damp=0.05),
    "stubble": Material((450, 410, 322, 525), 0.03, 0.03, 0.05, damp=0.06),
    "loose_straw": Material((620, 570, 430, 700), 0.03, 0.03, 0.04, damp=0.05),
    "meadow_green": Material((165, 198, 125, 560), 0.06, 0.09, damp=0.12),
    "meadow_dry": Material((275, 265, 175, 470), 0.06, 0.09, damp=0.12),
    "verge": Material((215, 215, 150, 440), 0.08, 0.10, damp=0.06),
    "garden": Material((178, 192, 135, 455), 0.12, 0.16, damp=0.08),
    # nature
    "forest_summer": Material((84, 116, 74, 450), 0.08, 0.06, canopy=0.34, damp=0.05),
    "forest_autumn": Material((118, 108, 66, 380), 0.06, 0.08, canopy=0.34, damp=0.05),
    "tree": Material((88, 118, 76, 430), 0.12, 0.08),
    "water": Material((58, 84, 96, 38), 0.02, 0.02, damp=0.04),
    "sand": Material((560, 510, 410, 610), 0.04, 0.05),
    # roads and yards
    "asphalt": Material((248, 250, 256, 250), 0.03, 0.02),
    "dirt": Material((390, 345, 280, 430), 0.05, 0.06),
    "gravel": Material((570, 550, 500, 580), 0.05, 0.04),
    "concrete": Material((590, 582, 560, 590), 0.03, 0.03),
    "rubble": Material((265, 232, 192, 280), 0.14, 0.12),
    "building_site": Material((640, 560, 450, 650), 0.06, 0.07),
    "quarry": Material((660, 615, 520, 700), 0.07, 0.10),
    "felled": Material((400, 325, 245, 450), 0.14, 0.14),
    # roofs
    "white_roof": Material((715, 720, 720, 680), 0.015, 0.015),
    "pale_roof": Material((615, 610, 600, 605), 0.02, 0.02),
    "grey_roof": Material((385, 388, 395, 390), 0.03, 0.02),
    "red_roof": Material((560, 310, 235, 540), 0.03, 0.02),
    "brown_roof": Material((330, 240, 200, 350), 0.03, 0.02),
    "blue_roof": Material((300, 440, 620, 450), 0.02, 0.02),
}

DARK_CROPS = ("ploughed_wet", "green_crop", "lush_crop", "sprouting")
BRIGHTEST_CROP = "loose_straw"
BRIGHT_CROPS = ("ploughed_dry", "ripe_crop", "stubble", BRIGHTEST_CROP)
MEADOWS = ("meadow_green", "meadow_dry")
HOUSE_ROOFS = ("red_roof", "grey_roof", "brown_roof", "pale_roof", "white_roof")
HALL_ROOFS = ("white_roof", "pale_roof", "blue_roof", "white_roof")


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
