"""Varied synthetic pairs to train networks on, that they find change in scenes which nobody labelled.

What differs between the dates without being a change varies far more than in nature: light, season, air, sensor, where
the second date lies. So do looks: soils, plants, roofs, the plan of fields and towns, the size of a pixel. A network
that learns to see through all that has a chance to see through what it meets (Tobin et al. 2017, arXiv:1703.06907).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.canvas import BOTH, FINE, Canvas, Surfaces, all_surfaces
from cdpipe.demo.satellite import (
    BYTES,
    REFLECTANCE,
    draw_ground,
    draw_suns,
    draw_vigour,
    light_up,
    look_through_air,
    record,
    shift,
)
from cdpipe.demo.spectra import draw_materials
from cdpipe.demo.varied_changes import change_place
from cdpipe.demo.varied_land import lay_out_nature, lay_out_towns, place_passers

METRES = (0.5, 30.0)  # sides of pixels that are drawn from
_USUAL_METRES = 10.0  # of which most are
_MARGIN = 8  # pixels around what is shown
_CHANGED, _IGNORED = 1, 255
_VISIBLE = 0.12  # difference of the logarithm of what is reflected, from which on a change can be seen
_DARK = 0.03  # reflectance that the logarithm of dark things is kept from falling by


@dataclass(frozen=True)
class VariedPair:
    """A pair of scenes and its label.

    Attributes:
        before: uint16 (4, rows, columns): red, green, blue, near infrared; at least 1.
        after: Likewise.
        label: uint8 (rows, columns): 1 where something came or went, 255 where that cannot be seen, else 0.
        metres: Side of a pixel.
        numbers: What the sensor's numbers are: at most 255, or reflectance times 10,000.
    """

    before: NDArray[np.uint16]
    after: NDArray[np.uint16]
    label: NDArray[np.uint8]
    metres: float
    numbers: int


def draw_pair(rng: np.random.Generator, size: int) -> VariedPair:
    """Draw a pair of `size` x `size` pixels.

    Args:
        rng: Source of randomness; the same state gives the same pair with the same library versions.
        size: Rows and columns.
    """
    metres = _USUAL_METRES * np.exp(rng.normal(0, 0.25)) if rng.random() < 0.6 else np.exp(rng.uniform(*np.log(METRES)))
    side = FINE * (size + 2 * _MARGIN)
    season = rng.beta(1.2, 1.0, 2)
    if rng.random() < 0.4:
        season[1] = np.clip(season[0] + rng.normal(0, 0.1), 0, 1)
    top = (np.zeros((side, side), np.int32), np.zeros((side, side), np.int32))
    canvas = Canvas(rng, draw_materials(rng), float(metres) / FINE, top, (float(season[0]), float(season[1])))
    lay_out_nature(canvas)
    town = lay_out_towns(canvas)
    share = 0.0 if rng.random() < 0.06 else float(np.exp(rng.uniform(*np.log([0.004, 0.12]))))
    change_place(canvas, town, share, lasting=0.0 if rng.random() < 0.2 else rng.uniform(0, 0.2))
    place_passers(canvas)
    surfaces = all_surfaces(canvas)
    numbers = BYTES if rng.random() < 0.35 else REFLECTANCE
    before, after, hidden = _photograph(canvas, surfaces, numbers)
    inner = (..., slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    return VariedPair(before[inner], after[inner], _label(canvas, surfaces, hidden)[inner], float(metres), numbers)


def _photograph(
    canvas: Canvas, surfaces: Surfaces, numbers: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_]]:
    """Both dates as scenes, and where on the map clouds hide one of them."""
    rng = canvas.rng
    ground, suns, vigour = draw_ground(canvas), draw_suns(rng), draw_vigour(canvas)
    blur, off = rng.uniform(0.5, 2.2), rng.normal(0, FINE * rng.choice([0.2, 0.7, 1.2]), 2)
    scenes, hidden = [], np.zeros(canvas.shape, np.bool_)
    for date in BOTH:
        image, clouds = look_through_air(canvas, light_up(canvas, surfaces, date, ground, suns[date], vigour[date]))
        hidden |= clouds
        moved = shift(image, off) if date else image
        spread = max(0.4, blur * np.exp(rng.normal(0, 0.12)))
        scenes.append(record(rng, moved, spread, rng.choice([0.005, 0.02, 0.06]), numbers))
    return scenes[0], scenes[1], hidden


def _label(canvas: Canvas, surfaces: Surfaces, hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What came or went covers half of a pixel; where it is hidden, or looks as what was there, nothing is said."""
    came_or_went = surfaces.changed[canvas.top[0]] | surfaces.changed[canvas.top[1]]
    before, after = (np.log(surfaces.looks[:, date][canvas.top[date]] + np.float32(_DARK)) for date in BOTH)
    alike = came_or_went & (hidden | (np.abs(before - after).max(axis=-1) < _VISIBLE))
    changed, unseen = (_coarse(mask) >= 0.5 for mask in (came_or_went, alike))
    return np.where(changed, np.where(unseen, _IGNORED, _CHANGED), 0).astype(np.uint8)


def _coarse(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share of each pixel of the scene that a mask of the map covers."""
    size = (mask.shape[1] // FINE, mask.shape[0] // FINE)
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA))
