"""Outlines for the synthetic scenes: rectangles, strips, blobs, and the map of ground already in use.

An outline is a polygon, float64 of shape (corners, 2), as x (column) and y (row) in pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
Point = tuple[float, float]

FREE, PAVED, TAKEN = 0, 1, 2
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
