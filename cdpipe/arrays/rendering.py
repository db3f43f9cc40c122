"""Pixels to colours: stretched imagery, classes, probabilities, and what detection got right and wrong."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

Rgb = tuple[int, int, int]
Image = NDArray[np.uint8]  # (height, width, 3)

# Found by search: with full colour vision as with none of one cone (protan, deutan, tritan as simulated by
# Machado et al. 2009), the four differ from each other and from the pale map by 40 or more in CIELAB.
HIT: Rgb = (5, 119, 63)
MISS: Rgb = (251, 158, 34)
FALSE_ALARM: Rgb = (119, 15, 148)
UNLABELLED: Rgb = (15, 16, 19)
OUTCOMES: Mapping[int, Rgb] = {1: HIT, 2: MISS, 3: FALSE_ALARM, 4: UNLABELLED}

CHANGED: Rgb = (215, 25, 28)
LABELLED: Rgb = (0, 84, 166)
NO_DATA, NO_DATA_STRIPE = (236, 236, 236), (188, 188, 188)


def stretch_bands(bands: NDArray[Any], observed: NDArray[np.bool_]) -> Image:
    """Spread each band's 2nd to 98th percentile over the full range of brightness.

    Each band for itself, and so each date for itself: haze, season and sun do not hide the ground. Equal
    colours at two dates therefore do not mean equal values.

    Args:
        bands: ``(3, height, width)`` red, green, blue, or ``(1, height, width)`` grey; any number type.
        observed: ``(height, width)``; only these pixels set the limits.
    """
    stretched = np.empty((*observed.shape, len(bands)), np.uint8)
    for index, band in enumerate(bands):
        values = np.nan_to_num(band.astype(np.float32))
        low, high = np.percentile(values[observed], (2, 98)) if observed.any() else (0, 0)
        scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5, np.float32)
        stretched[..., index] = np.rint(scaled.clip(0, 1) * 255)
    return np.ascontiguousarray(np.broadcast_to(stretched, (*observed.shape, 3)))


def pale_map(image: Image) -> Image:
    """Turn imagery into a bright grey map on which classes stand out."""
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat((205 + grey * (45 / 255)).astype(np.uint8)[..., None], 3, axis=2)


def paint_classes(image: Image, classes: NDArray[np.uint8], colors: Mapping[int, Rgb]) -> Image:
    """Paint the pixels of some classes over a copy of an image."""
    painted = image.copy()
    for value, color in colors.items():
        painted[classes == value] = color
    return painted


def compare_with_label(change: NDArray[np.uint8], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sort pixels: 0 nothing, 1 hit, 2 miss, 3 false alarm, 4 change without label, 255 not observed.

    Args:
        change: ``(height, width)`` 0, 1, 255 not observed.
        label: ``(height, width)`` 0, 1, 255 ignore.
    """
    outcome = np.zeros(change.shape, np.uint8)
    outcome[(change == 1) & (label == 1)] = 1
    outcome[(change == 0) & (label == 1)] = 2
    outcome[(change == 1) & (label == 0)] = 3
    outcome[(change == 1) & (label == 255)] = 4
    outcome[change == 255] = 255
    return outcome


def probability_colors(probability: NDArray[np.floating[Any]]) -> Image:
    """Colours of probabilities, 0 bright to 1 dark, evenly perceived also without colour vision."""
    table = mpl.colormaps["magma_r"](np.arange(256), bytes=True)[:, :3]
    colors: Image = table[np.rint(np.nan_to_num(probability).clip(0, 1) * 255).astype(np.uint8)]
    return colors


def resize_nearest(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Bring ``(height, width, ...)`` to another height and width; every value is one of the array's own."""
    height, width = shape
    rows = np.arange(height) * array.shape[0] // height
    cols = np.arange(width) * array.shape[1] // width
    resized: NDArray[Any] = array[rows[:, None], cols]
    return resized


def hatch(image: Image, missing: NDArray[np.bool_]) -> Image:
    """Paint grey stripes where there is no data, so that nobody takes it for a value."""
    height, width = missing.shape
    stripe = np.add.outer(np.arange(height), np.arange(width)) % 8 < 2
    return paint_classes(image, missing.astype(np.uint8) * (1 + stripe), {1: NO_DATA, 2: NO_DATA_STRIPE})
