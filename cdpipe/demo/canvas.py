"""A made-up place as it is painted: at each date, which surface lies on top of every pixel of a fine map."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.patterns import Mask, Numbers
from cdpipe.demo.spectra import Materials, Spectra

FINE = 2  # pixels of the map along a pixel of the scene: what is smaller than a pixel is seen as a part of it
BOTH = (0, 1)  # dates
_SUBPIXEL_BITS = 4

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Surfaces:
    """Surfaces that a map's numbers stand for.

    Attributes:
        looks: float32 (n, 2, 4): reflectance at each date.
        rough: float32 (n,): relative amplitude of its texture.
        height: float32 (n,): metres above the ground; it casts a shadow.
        green: float32 (n,): how much its plants grow and wither over some hundred metres, 0 to 1.
        changed: bool (n,): whether it came or went between the dates.
    """

    looks: NDArray[np.float32]
    rough: NDArray[np.float32]
    height: NDArray[np.float32]
    green: NDArray[np.float32]
    changed: NDArray[np.bool_]


@dataclass(frozen=True)
class Canvas:
    """A place that is being painted.

    Attributes:
        rng: The one source of randomness of the place.
        materials: What it is made of.
        metres: Side of a pixel of the map.
        top: int32 (rows, columns) for each date: the number of the surface on top.
        surfaces: In the order of their numbers.
        season: How far leaves are out at each date, 0 to 1.
    """

    rng: np.random.Generator
    materials: Materials
    metres: float
    top: tuple[Numbers, Numbers]
    season: tuple[float, float]
    surfaces: list[Surfaces] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        rows, columns = self.top[0].shape
        return rows, columns

    def pixels(self, metres: float, least: float = 1.0) -> float:
        """Return a length in pixels of the map, and `least` of these at least."""
        return max(least, metres / self.metres)

    def size(self, metres: float, spread: float, least: float = 1.0) -> float:
        """Return a random length in pixels: log-normal, of median `metres`, and `least` pixels at least."""
        return self.pixels(float(np.exp(self.rng.normal(np.log(metres), spread))), least)


def add_surfaces(
    canvas: Canvas,
    looks: Spectra,
    *,
    rough: float | NDArray[np.float64] = 0.05,
    height: float | NDArray[np.float64] = 0.0,
    green: float | NDArray[np.float64] = 0.0,
    changed: bool = False,
) -> int:
    """Add surfaces to a place's list.

    Args:
        canvas: The place.
        looks: (n, 4), or (n, 2, 4) where dates differ.
        rough: See :class:`Surfaces`; one value for all, or (n,).
        height: Likewise.
        green: Likewise.
        changed: Of all of them.

    Returns:
        The number of the first.
    """
    each = np.stack([looks, looks], axis=1) if looks.ndim == 2 else looks
    count = len(each)

    def column(value: float | NDArray[np.float64]) -> NDArray[np.float32]:
        return np.broadcast_to(np.asarray(value, np.float32), (count,))

    first = sum(len(surfaces.looks) for surfaces in canvas.surfaces)
    own = Surfaces(
        each.astype(np.float32), column(rough), column(height), column(green), np.full(count, changed, np.bool_)
    )
    canvas.surfaces.append(own)
    return first


def all_surfaces(canvas: Canvas) -> Surfaces:
    """Return the place's surfaces as one table."""
    names = ("looks", "rough", "height", "green", "changed")
    return Surfaces(*(np.concatenate([getattr(each, name) for each in canvas.surfaces]) for name in names))


def paint(
    canvas: Canvas, mask: Mask, number: int | Numbers, dates: Sequence[int] = BOTH, window: Window | None = None
) -> None:
    """Put surfaces on top, in place.

    Args:
        canvas: The place.
        mask: Where, (rows, columns) of the window.
        number: Which surface, or which one at each pixel.
        dates: When.
        window: Part of the map that the mask is of; all of it by default.
    """
    for date in dates:
        np.copyto(canvas.top[date][window or ...], np.int32(number), where=mask)


def fill_outline(shape: tuple[int, int], outline: NDArray[np.float64]) -> Mask:
    """Return which pixels of a map of `shape` lie inside an outline, (n, 2) of x and y."""
    filled = np.zeros(shape, np.uint8)
    cv2.fillPoly(filled, [np.rint(outline * 2**_SUBPIXEL_BITS).astype(np.int32)], 1, shift=_SUBPIXEL_BITS)
    return filled > 0


def draw_line(shape: tuple[int, int], line: NDArray[np.float64], width: float) -> Mask:
    """Return which pixels of a map of `shape` a line (n, 2) of `width` pixels covers."""
    drawn = np.zeros(shape, np.uint8)
    points = np.rint(line * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(drawn, [points], False, 1, max(1, round(width)), shift=_SUBPIXEL_BITS)
    return drawn > 0


def crossing_line(canvas: Canvas, sway: float) -> NDArray[np.float64]:
    """Return a line (64, 2) across the whole map that leaves the straight by `sway` of the map's size or so."""
    rng, sides = canvas.rng, np.array(canvas.shape[::-1])
    turn = rng.uniform(0, np.pi)
    course = np.array([np.cos(turn), np.sin(turn)]) * sides.sum()
    along = np.linspace(-1, 1, 64)
    waves = sum(rng.normal() / k * np.sin(np.pi * k * along + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 4, 7))
    bent = np.outer(np.asarray(waves), [-course[1], course[0]]) * 0.3 * sway
    return np.asarray(rng.random(2) * sides + np.outer(along, course) + bent)
