"""Pixels to colours, and colours to files: stretched imagery, classes, probabilities, right and wrong detections."""

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.formats.palette import Rgb
from cdpipe.metrics.classes import CHANGED, IGNORE, NOT_OBSERVED, UNCHANGED
from cdpipe.store.normalisation import GREY
from cdpipe.store.pair import DATES
from cdpipe.workspace.location import Location

Image = NDArray[np.uint8]  # (height, width, 3)

# What detection made of a pixel, as :func:`compare_with_label` numbers it.
OUTCOMES: Mapping[int, str] = {1: "hit", 2: "missed", 3: "false_alarm", 4: "unlabelled"}
OUTCOME_COLORS: Mapping[int, Rgb] = {1: palette.HIT, 2: palette.MISS, 3: palette.FALSE_ALARM, 4: palette.UNLABELLED}

PHOTOS = (*DATES, "probability")  # layers that are pictures; the others are laid over them
PHOTO = 84  # quality
LOSSLESS = 101  # what OpenCV takes any quality over 100 for

Limits = tuple[tuple[float, float], ...]  # of each band: what is shown darkest, and brightest


def stretch_bands(bands: NDArray[Any], observed: NDArray[np.bool_]) -> Image:
    """Spread each band's 2nd to 98th percentile over the full range of brightness.

    Each band for itself, and so each date for itself: haze, season and sun do not hide the ground. Equal
    colours at two dates therefore do not mean equal values.

    Args:
        bands: ``(3, height, width)`` red, green, blue, or ``(1, height, width)`` grey; any number type.
        observed: ``(height, width)``; only these pixels set the limits.
    """
    return stretch_between(bands, stretch_limits(bands, observed))


def stretch_limits(bands: NDArray[Any], observed: NDArray[np.bool_]) -> Limits:
    """The limits that :func:`stretch_bands` takes, for windows of the same scene to be shown alike.

    Args:
        bands: ``(bands, height, width)`` in any number type.
        observed: ``(height, width)``; only these pixels set the limits.
    """
    floats = (np.nan_to_num(band.astype(np.float32))[observed] for band in bands)
    percentiles = (np.percentile(values, (2, 98)) if len(values) else (0, 0) for values in floats)
    return tuple((float(low), float(high)) for low, high in percentiles)


def stretch_between(bands: NDArray[Any], limits: Limits) -> Image:
    """Bands as red, green, blue, or grey three times, each from its lower limit (0) to its upper one (255).

    Args:
        bands: ``(3 or 1, height, width)`` in any number type; NaN counts as 0.
        limits: Of each band.
    """
    height, width = bands.shape[1:]
    stretched = np.empty((height, width, len(bands)), np.uint8)
    for index, (band, (low, high)) in enumerate(zip(bands, limits, strict=True)):
        values = np.nan_to_num(band.astype(np.float32))
        scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5, np.float32)
        stretched[..., index] = np.rint(scaled.clip(0, 1) * 255)
    return np.ascontiguousarray(np.broadcast_to(stretched, (height, width, 3)))


def pale_map(image: Image) -> Image:
    """Turn imagery ``(height, width, 3)`` into a bright grey map on which classes stand out."""
    grey = image @ np.array(GREY, np.float32)
    return np.repeat((205 + grey * (45 / 255)).astype(np.uint8)[..., None], 3, axis=2)


def paint_classes(image: Image, classes: NDArray[np.uint8], colors: Mapping[int, Rgb]) -> Image:
    """Paint the pixels of some classes over a copy of an image.

    Args:
        image: ``(height, width, 3)`` red, green, blue.
        classes: ``(height, width)``.
        colors: By class; the others stay as they are.
    """
    painted = image.copy()
    for value, color in colors.items():
        painted[classes == value] = color
    return painted


def lay_over(shares: Mapping[int, NDArray[np.floating[Any]]], colors: Mapping[int, Rgb]) -> NDArray[np.uint8]:
    """Classes as an overlay for imagery: see-through where none is, denser the more of a cell it covers.

    A class that covers any of a cell shows at a third of full strength at least, or small objects would vanish.

    Args:
        shares: By class, ``(height, width)`` share of each cell, 0 to 1.
        colors: By class.

    Returns:
        ``(height, width, 4)`` red, green, blue, opacity; of each cell's largest class.
    """
    stack = np.stack(list(shares.values()))
    opacity = np.where(stack.max(0) > 0, 85 + 170 * stack.max(0), 0)
    table = np.array([colors[value] for value in shares], np.uint8)
    return np.dstack([table[stack.argmax(0)], np.rint(opacity).astype(np.uint8)])


def blend(image: Image, overlay: NDArray[np.uint8]) -> Image:
    """An image ``(height, width, 3)`` with an overlay ``(height, width, 4)`` on it, see :func:`lay_over`."""
    opacity = overlay[..., 3:] / 255
    return np.rint(overlay[..., :3] * opacity + image * (1 - opacity)).astype(np.uint8)


def compare_with_label(change: NDArray[np.uint8], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sort pixels: 0 nothing, 1 hit, 2 miss, 3 false alarm, 4 change without label, 255 not observed.

    Args:
        change: ``(height, width)`` 0, 1, 255 not observed.
        label: ``(height, width)`` 0, 1, 255 ignore.
    """
    outcome = np.zeros(change.shape, np.uint8)
    outcome[(change == CHANGED) & (label == CHANGED)] = 1
    outcome[(change == UNCHANGED) & (label == CHANGED)] = 2
    outcome[(change == CHANGED) & (label == UNCHANGED)] = 3
    outcome[(change == CHANGED) & (label == IGNORE)] = 4
    outcome[change == NOT_OBSERVED] = NOT_OBSERVED
    return outcome


def probability_colors(probability: NDArray[np.floating[Any]]) -> Image:
    """Colours of probabilities, 0 bright to 1 dark, evenly perceived also without colour vision.

    Args:
        probability: ``(height, width)``, 0 to 1; NaN is shown as 0.
    """
    table = np.frombuffer(palette.MAGMA_FROM_BRIGHT, np.uint8).reshape(256, 3)
    colors: Image = table[np.rint(np.nan_to_num(probability).clip(0, 1) * 255).astype(np.uint8)]
    return colors


def resize_nearest(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Bring ``(height, width, ...)`` to another height and width; every value is one of the array's own."""
    height, width = shape
    rows = np.arange(height) * array.shape[0] // height
    cols = np.arange(width) * array.shape[1] // width
    resized: NDArray[Any] = array[rows[:, None], cols]
    return resized


def to_ground(image: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """Stretch a picture until its pixels are square on the ground; no row or column is lost.

    Args:
        image: ``(height, width, 3)`` of a photo, ``(height, width, 4)`` of an overlay, whose pixels stay as they are.
        aspect: A pixel's height for each width.
    """
    height, width = image.shape[:2]
    shape = round(height * max(aspect, 1.0)), round(width * max(1 / aspect, 1.0))
    if shape == (height, width):
        return image
    if image.shape[2] == 4:
        return resize_nearest(image, shape)
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR))


def hatch(image: Image, missing: NDArray[np.bool_]) -> Image:
    """Paint grey stripes where there is no data, so that nobody takes it for a value.

    Args:
        image: ``(height, width, 3)`` red, green, blue.
        missing: ``(height, width)``.
    """
    height, width = missing.shape
    stripe = np.add.outer(np.arange(height), np.arange(width)) % 8 < 2
    return paint_classes(
        image, missing.astype(np.uint8) * (1 + stripe), {1: palette.NO_DATA, 2: palette.NO_DATA_STRIPE}
    )


def round_length(most: float) -> tuple[float, str]:
    """The longest round length of at most so many metres, for a scale; in metres and as it is written."""
    power = 10 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    return length, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"


def suffix_of(layer: str) -> str:
    """What kind of file a layer's pictures are."""
    return ".jpg" if layer in PHOTOS else ".webp"


def write_photo(path: Location, image: Image, quality: int = PHOTO) -> int:
    """Write a picture as :func:`encode_photo` makes it; returns its size in bytes."""
    data = encode_photo(image, quality)
    path.write(data)
    return len(data)


def write_overlay(path: Location, image: NDArray[np.uint8]) -> int:
    """Write an overlay as :func:`encode_overlay` makes it; returns its size in bytes."""
    data = encode_overlay(image)
    path.write(data)
    return len(data)


def encode_photo(image: Image, quality: int = PHOTO) -> bytes:
    """A picture as JPEG, equal pixels as equal bytes.

    WebP would have two thirds of the bytes, and takes forty times as long.

    Args:
        image: ``(height, width, 3)`` red, green, blue.
        quality: Up to 100.

    Raises:
        ValueError: If it cannot be encoded, as where a side is longer than 65,500 pixels.
    """
    return _encode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), cv2.IMWRITE_JPEG_QUALITY, quality)


def encode_overlay(image: NDArray[np.uint8], quality: int = LOSSLESS) -> bytes:
    """A picture with opacity as WebP, equal pixels as equal bytes.

    Args:
        image: ``(height, width, 4)`` red, green, blue, opacity.
        quality: Up to 100; :data:`LOSSLESS` keeps every pixel as it is.

    Raises:
        ValueError: If it cannot be encoded, as where a side is longer than 16,383 pixels.
    """
    return _encode(".webp", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA), cv2.IMWRITE_WEBP_QUALITY, quality)


def _encode(suffix: str, colors: NDArray[Any], option: int, quality: int) -> bytes:
    done, data = cv2.imencode(suffix, colors, [option, quality])
    if not done:
        raise ValueError(f"a picture could not be encoded: {colors.shape} {colors.dtype}")
    return data.tobytes()
