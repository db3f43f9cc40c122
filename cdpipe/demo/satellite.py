"""From a painted place to what a satellite delivers: light, shadows, plants, air, sensor."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.canvas import FINE, Canvas, Surfaces
from cdpipe.demo.patterns import Image, Mask, fractal_noise
from cdpipe.demo.render import smooth_noise

_SHADOW_STEPS, _LONGEST_SHADOW = 8, 40.0  # pixels of the map
_AIR = np.array([0.7, 0.9, 1.2, 0.4])  # how bright haze is in red, green, blue and near infrared
_HIDDEN = 0.4  # thickness of a cloud, from which on little is seen through it
BYTES, REFLECTANCE = 255, 10_000  # what a sensor's numbers are: stretched to 8 bits, or reflectance times this


@dataclass(frozen=True)
class Ground:
    """What light falls on, alike at both dates.

    Attributes:
        texture: Relative brightness, deviation about 1.
        slopes: Of the relief along y and x, deviation 1; None for flat land.
        relief: By how much they tell in brightness.
        shade: What is left of the light in a shadow.
    """

    texture: Image
    slopes: tuple[Image, Image] | None
    relief: float
    shade: float


@dataclass(frozen=True)
class Sun:
    """Direction in which shadows fall, radians from the x axis, and the tangent of the sun's elevation."""

    fall: float
    rise: float


def draw_ground(canvas: Canvas) -> Ground:
    """Draw a place's texture, and its relief at three of ten places."""
    rng, shape, slopes = canvas.rng, canvas.shape, None
    if rng.random() < 0.3:
        heights = fractal_noise(rng, shape, canvas.pixels(rng.uniform(300, 2000), least=16), fall=0.5)
        down, right = np.gradient(cv2.GaussianBlur(heights, (0, 0), 2))
        steepness = np.float32(np.sqrt(np.mean(down**2 + right**2)) + 1e-6)
        slopes = (down / steepness, right / steepness)
    texture = sum(np.float32(0.6) * smooth_noise(rng, shape, width) for width in (1.5, 5, 16))
    return Ground(np.asarray(texture), slopes, rng.uniform(0.03, 0.2), rng.uniform(0.25, 0.55))


def draw_suns(rng: np.random.Generator) -> tuple[Sun, Sun]:
    """Draw where the sun stands at each date; at three of ten pairs it is the same place."""
    first = Sun(rng.uniform(0, 2 * np.pi), _elevation(rng))
    return first, first if rng.random() < 0.3 else Sun(first.fall + rng.normal(0, 0.5), _elevation(rng))


def _elevation(rng: np.random.Generator) -> float:
    return float(np.tan(np.deg2rad(rng.uniform(25, 70))))


def draw_vigour(canvas: Canvas) -> tuple[Image, Image]:
    """Draw how plants fare from place to place, (rows, columns) at each date, partly alike."""
    rng, shape = canvas.rng, canvas.shape
    widths = [canvas.pixels(rng.uniform(100, 800), least=12) for _ in range(3)]
    shared, first, second = (fractal_noise(rng, shape, width) for width in widths)
    before, after = (
        np.float32(rng.uniform(0, 0.5)) * (shared * np.float32(rng.uniform(-1, 1)) + np.float32(0.6) * own)
        for own in (first, second)
    )
    return before, after


def light_up(canvas: Canvas, surfaces: Surfaces, date: int, ground: Ground, sun: Sun, vigour: Image) -> Image:
    """Return what a place reflects at a date, float32 (4, rows, columns) of the map, 0 to 1 and a little more.

    Args:
        canvas: The place.
        surfaces: All of its surfaces.
        date: 0 or 1.
        ground: Its texture and relief.
        sun: Where it stands.
        vigour: How plants fare, (rows, columns).
    """
    rng, top = canvas.rng, canvas.top[date]
    image = np.moveaxis(surfaces.looks[:, date][top], -1, 0).copy()
    own = smooth_noise(rng, canvas.shape, 2.5) + smooth_noise(rng, canvas.shape, 10)
    light = 1 + surfaces.rough[top] * (ground.texture + np.float32(0.7 * rng.uniform(0.1, 0.6)) * own)
    light[_shadows(surfaces.height[top], canvas.metres, sun)] *= ground.shade
    if ground.slopes is not None:
        facing = np.cos(sun.fall) * ground.slopes[1] + np.sin(sun.fall) * ground.slopes[0]
        light *= np.clip(1 + ground.relief * facing, 0.3, 1.8)
    plants = np.float32(0.6) * surfaces.green[top] * vigour
    image[:3] *= light * (1 - plants)
    image[3] *= light * (1 + plants)
    return np.clip(image, 0.003, 1.5)


def _shadows(heights: Image, metres: float, sun: Sun) -> Mask:
    """Where the sun is hidden by something higher."""
    reach = min(float(heights.max()) / sun.rise / metres, _LONGEST_SHADOW)
    dark = np.zeros(heights.shape, np.bool_)
    if reach < 0.7:
        return dark
    for step in np.linspace(0, reach, int(min(_SHADOW_STEPS, np.ceil(reach))) + 1)[1:]:
        moved = np.roll(heights, (round(step * np.sin(sun.fall)), round(step * np.cos(sun.fall))), (0, 1))
        dark |= moved - np.float32(step * metres * sun.rise) > heights + 0.5
    return dark


def look_through_air(canvas: Canvas, image: Image) -> tuple[Image, Mask]:
    """Return an image (4, rows, columns) as it is seen through haze, and in one of eight through clouds.

    Returns:
        What is seen, and where clouds hide most of what there is, (rows, columns).
    """
    rng, shape = canvas.rng, canvas.shape
    veil = np.full(shape, rng.uniform(0, 0.06), np.float32)
    uneven = rng.choice([0, 0, 0.3, 0.8])
    if uneven:
        width = canvas.pixels(rng.uniform(500, 3000), least=8)
        veil *= np.clip(1 + np.float32(uneven) * fractal_noise(rng, shape, width, octaves=3), 0, 4)
    colour = (_AIR * np.exp(rng.normal(0, 0.15, 4))).astype(np.float32)
    seen = image * (1 - veil) + colour[:, None, None] * veil
    if rng.random() > 0.12:
        return np.asarray(seen), np.zeros(shape, np.bool_)
    cover = fractal_noise(rng, shape, canvas.pixels(rng.uniform(200, 2000), least=10), octaves=5)
    thickness = (cover - np.quantile(cover[::4, ::4], 1 - rng.uniform(0.02, 0.3))) * rng.uniform(0.3, 2)
    clouds = np.clip(thickness, 0, rng.uniform(0.15, 0.95)).astype(np.float32)
    shadow = np.roll(clouds, tuple(rng.integers(-60, 61, 2)), (0, 1))
    dimmed = seen * (1 - np.float32(0.6) * shadow) * (1 - clouds)
    return np.asarray(dimmed + clouds * np.float32(rng.uniform(0.5, 0.9))), np.asarray(clouds > _HIDDEN)


def shift(image: Image, by: NDArray[np.float64]) -> Image:
    """Move an image (4, rows, columns) by some pixels along x and y."""
    move = np.array([[1, 0, by[0]], [0, 1, by[1]]])
    size = image.shape[:0:-1]
    return np.stack([cv2.warpAffine(band, move, size, borderMode=cv2.BORDER_REFLECT) for band in image])


def record(rng: np.random.Generator, image: Image, blur: float, noise: float, numbers: int) -> NDArray[np.uint16]:
    """Return what a sensor makes of an image: blurred, coarser, noisy, with gains of its own.

    Args:
        rng: Source of randomness.
        image: float32 (4, rows, columns) of the map.
        blur: Deviation of the point spread, pixels of the map.
        noise: Deviation relative to the scene's own.
        numbers: `BYTES` or `REFLECTANCE`.

    Returns:
        (4, rows, columns) of the scene, at least 1: 0 is left for nodata.
    """
    size = (image.shape[2] // FINE, image.shape[1] // FINE)
    spread = blur * np.exp(rng.normal(0, 0.08, len(image)))
    blurred = (cv2.GaussianBlur(band, (0, 0), own) for band, own in zip(image, spread, strict=True))
    coarse = np.stack([cv2.resize(band, size, interpolation=cv2.INTER_AREA) for band in blurred])
    deviation = np.float32(noise) * (coarse.std(axis=(1, 2), keepdims=True) + np.float32(1e-3))
    noisy = np.clip(coarse + deviation * rng.standard_normal(coarse.shape, np.float32), 0, None)
    gamma = np.exp(rng.normal(0, 0.12 if numbers == BYTES else 0.04))
    bright = noisy ** np.float32(gamma) * np.exp(rng.normal(0, 0.15, (4, 1, 1))).astype(np.float32)
    if numbers == REFLECTANCE:
        return np.asarray(np.clip(np.rint(bright * REFLECTANCE), 1, 28_000), np.uint16)
    sample = bright[:, ::4, ::4]
    low = np.quantile(sample, rng.uniform(0, 0.01), axis=(1, 2), keepdims=True) * rng.random()
    high = np.quantile(sample, rng.uniform(0.97, 0.9995), axis=(1, 2), keepdims=True)
    stretched = (bright - low) / np.maximum(high - low, 1e-3) * rng.uniform(150, 255)
    return np.asarray(np.clip(np.rint(stretched), 1, BYTES), np.uint16)
