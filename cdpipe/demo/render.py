"""From things to digital numbers: surface, shadows, air and sensor of the synthetic scenes."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.demo.things import MATERIALS, Thing, blob, fill

LARGEST_VALUE = 1023
_HAZE_BY_BAND = np.array([0.75, 0.88, 1.0, 0.35], np.float32)
_SKYLIGHT_BY_BAND = np.array([0.36, 0.40, 0.47, 0.30], np.float32)

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Textures:
    """Patterns of the ground, float32 (rows, columns) of mean 0 and deviation 1, the same at both dates."""

    grain: Image
    patches: Image
    drift: Image
    canopy: Image


@dataclass(frozen=True)
class Conditions:
    """Sun, air and sensor of one acquisition.

    Attributes:
        sun: Direction in which shadows fall, radians from the x axis, and the sun's elevation, radians.
        gain, offset: Of each band.
        haze: Digital numbers that the air adds, (rows, columns).
        light: Relative brightness, (rows, columns): gradient across the scene and cloud shadows.
        blur: Deviation of the sensor's point spread, pixels.
        noise: Deviation of the sensor's noise, digital numbers.
    """

    sun: tuple[float, float]
    gain: Image
    offset: Image
    haze: Image
    light: Image
    blur: float
    noise: float


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], width: float) -> Image:
    """Return noise of mean 0 and deviation 1 (float32, `shape`) whose features are about `width` pixels wide."""
    step = max(1, int(width // 4))
    white = rng.standard_normal((shape[0] // step + 3, shape[1] // step + 3), dtype=np.float32)
    coarse = cv2.GaussianBlur(white, (0, 0), width / step / 2)
    fine = cv2.resize(coarse, (coarse.shape[1] * step, coarse.shape[0] * step), interpolation=cv2.INTER_CUBIC)
    image = fine[: shape[0], : shape[1]]
    return np.asarray((image - image.mean()) / max(float(image.std()), 1e-6), np.float32)


def draw_textures(rng: np.random.Generator, shape: tuple[int, int]) -> Textures:
    """Draw the patterns of the ground for a map of `shape` (rows, columns)."""
    grain = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.6)
    crowns = smooth_noise(rng, shape, 4.5)
    # Crowns are lit from the south: brighter where the canopy rises towards the top of the image.
    relief = crowns - np.roll(crowns, (-2, -1), (0, 1))
    canopy = np.clip(relief / relief.std(), -1.5, 2.0) * 0.7 + np.clip(crowns, -2, 2) * 0.5
    return Textures(grain / grain.std(), smooth_noise(rng, shape, 11.0), smooth_noise(rng, shape, 60.0), canopy)


def draw_conditions(rng: np.random.Generator, shape: tuple[int, int]) -> Conditions:
    """Draw the circumstances of one acquisition of `shape` (rows, columns)."""
    slope = rng.uniform(0.0, 2 * np.pi)
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    ramp = rng.uniform(0.04, 0.12) * (np.cos(slope) * x + np.sin(slope) * y)
    haze = rng.uniform(10, 45) + rng.uniform(6, 22) * smooth_noise(rng, shape, 190.0)
    return Conditions(
        sun=(np.deg2rad(rng.uniform(205, 285)), np.deg2rad(rng.uniform(38, 60))),
        gain=rng.uniform(0.85, 1.12, 4).astype(np.float32),
        offset=rng.uniform(0, 22, 4).astype(np.float32),
        haze=np.clip(haze, 0, None).astype(np.float32),
        light=((1 + ramp) * _cloud_shadows(rng, shape)).astype(np.float32),
        blur=rng.uniform(0.55, 0.8),
        noise=rng.uniform(3.0, 6.0),
    )


def _cloud_shadows(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Return 1 with up to three soft-edged darker patches."""
    light = np.ones(shape, np.float32)
    for _ in range(rng.integers(0, 4)):
        centre = (rng.uniform(0, shape[1]), rng.uniform(0, shape[0]))
        patch = np.zeros(shape, np.float32)
        fill(patch, blob(rng, centre, rng.uniform(28, 60)), 1)
        light *= 1 - rng.uniform(0.25, 0.42) * cv2.GaussianBlur(patch, (0, 0), 7.0)
    return light


def paint(things: tuple[Thing, ...], shape: tuple[int, int], date: int) -> NDArray[np.int32]:
    """Return which thing lies on top: int32 (rows, columns), 0 for none, else 1 + its place in `things`.

    Args:
        things: In painting order.
        shape: Rows and columns.
        date: 0 or 1.
    """
    top = np.zeros(shape, np.int32)
    for number, thing in enumerate(things, start=1):
        if (thing.before, thing.after)[date]:
            fill(top, thing.outline, number)
    return top


def surface(things: tuple[Thing, ...], top: NDArray[np.int32], textures: Textures, season: int) -> Image:
    """Return the ground in full sun, float32 (4, rows, columns), in 10-bit digital numbers.

    Args:
        things: In painting order.
        top: Which thing lies on top, from `paint`.
        textures: Patterns of the ground.
        season: 0 or 1: the date whose crops and leaves are shown.
    """
    materials = [MATERIALS["verge"], *(MATERIALS[thing.looks[season]] for thing in things)]
    gains = np.array([1.0, *(thing.gain for thing in things)], np.float32)
    colour = np.array([material.spectrum for material in materials], np.float32) * gains[:, None]

    def by_thing(values: list[float]) -> Image:
        return np.asarray(np.array(values, np.float32)[top], np.float32)

    relief = by_thing([m.grain for m in materials]) * textures.grain
    relief += by_thing([m.patches for m in materials]) * textures.patches
    relief += by_thing([m.canopy for m in materials]) * textures.canopy
    relief += by_thing([m.furrows for m in materials]) * _furrows(things, top, textures)
    drift = by_thing([m.damp for m in materials]) * textures.drift
    image = np.moveaxis(colour[top], -1, 0) * (1 + relief)
    # Damp, vigorous ground: darker in the visible bands, brighter in the near infrared.
    image[:3] *= 1 - drift
    image[3] *= 1 + 0.6 * drift
    return np.asarray(image, np.float32)


def _furrows(things: tuple[Thing, ...], top: NDArray[np.int32], textures: Textures) -> Image:
    turns = np.array([0.0, *(thing.furrow + np.pi / 2 for thing in things)], np.float32)
    y, x = np.indices(top.shape, dtype=np.float32)
    across = x * np.cos(turns)[top] + y * np.sin(turns)[top] + 1.5 * textures.drift
    fine, tramlines = np.sin(across * (2 * np.pi / 5.3)), np.cos(across * (2 * np.pi / 21.0))
    return np.asarray(0.8 * fine - 1.6 * (tramlines > 0.93), np.float32)


def shadows(things: tuple[Thing, ...], top: NDArray[np.int32], sun: tuple[float, float]) -> NDArray[np.bool_]:
    """Return where the sun is hidden by something higher, (rows, columns).

    Args:
        things: In painting order.
        top: Which thing lies on top, from `paint`.
        sun: Direction in which shadows fall and the sun's elevation, radians.
    """
    heights = np.array([0.0, *(thing.height for thing in things)], np.float32)[top]
    fall, drop = sun[0], float(np.tan(sun[1]))
    dark = np.zeros(top.shape, np.bool_)
    for step in range(1, int(np.ceil(heights.max() / drop)) + 1):
        moved = np.roll(heights, (round(step * np.sin(fall)), round(step * np.cos(fall))), (0, 1))
        dark |= moved - step * drop > heights + 0.3
    return dark


def observe(ground: Image, dark: NDArray[np.bool_], conditions: Conditions) -> Image:
    """Return what arrives at the sensor, float32 (4, rows, columns), before noise and rounding.

    Args:
        ground: From `surface`.
        dark: From `shadows`.
        conditions: Of the acquisition.
    """
    lit = np.where(dark, ground * _SKYLIGHT_BY_BAND[:, None, None], ground) * conditions.light
    clear = 1 - conditions.haze / 500
    image = lit * clear + conditions.haze * _HAZE_BY_BAND[:, None, None]
    image = image * conditions.gain[:, None, None] + conditions.offset[:, None, None]
    return np.stack([cv2.GaussianBlur(band, (0, 0), conditions.blur) for band in image.astype(np.float32)])


def digitise(rng: np.random.Generator, image: Image, noise: float) -> NDArray[np.uint16]:
    """Add sensor noise and round to 1 to 1023 (0 is left for nodata).

    Args:
        rng: Source of the noise.
        image: float32 (bands, rows, columns).
        noise: Deviation, digital numbers; bright pixels get up to twice as much.
    """
    deviation = noise * (0.7 + image / LARGEST_VALUE)
    noisy = image + deviation * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 1, LARGEST_VALUE).astype(np.uint16)


def cloud_holes(rng: np.random.Generator, shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Return where clouds hide the ground, about `share` of `shape` (rows, columns)."""
    cover = smooth_noise(rng, shape, 90.0) + 0.25 * smooth_noise(rng, shape, 14.0)
    return np.asarray(cover > np.quantile(cover, 1 - share))
