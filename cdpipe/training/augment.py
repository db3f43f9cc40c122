"""Augmentation of normalised dates: transforms of albumentations, and a few that change detection needs besides.

Whatever a list's order, rectangles of other samples are pasted in first; then each date changes its looks by itself;
then the second date is moved, and the dates are swapped; then geometric transforms move both dates and the label alike.
Everything is drawn from the seeds that are given and from nothing else, so that a sample is the same in any thread and
whatever came before it.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any

# albumentations would ask the network for its newest version
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: N812 (after the variable above; the name its documentation uses)
import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cdpipe.config.augment import D4, OWN, is_geometric, make_foreign
from cdpipe.errors import ConfigError
from cdpipe.metrics.classes import IGNORE

Bands = NDArray[np.float32]
Look = Callable[[Bands, Sequence[int]], Bands]

SPAN = 4.0  # deviations on both sides of 0 that albumentations, which knows images from 0 to 1, sees as such
VEIL = 2.0  # what haze looks like, in deviations
TRIALS = 16  # samples that a list is tried on
VEIL_CELLS = 3  # along each side of a patch, between which haze changes gradually


@dataclass(frozen=True, slots=True)
class Sample:
    """A window of both dates.

    Attributes:
        before: (n, height, width), normalised bands or one grey; 0 where not observed at both dates.
        after: Likewise.
        label: (height, width): 0 unchanged, 1 changed, 255 where it must not count.
        observed: (height, width), True where both dates are observed.
        shown: (detector, height, width), what detectors say of both dates as they are stored.
    """

    before: Bands
    after: Bands
    label: NDArray[np.uint8]
    observed: NDArray[np.bool_]
    shown: Bands


class Pipeline(threading.local):
    """Transforms of albumentations one after the other; each thread has its own, since one would reseed another's."""

    def __init__(self, transforms: Sequence[A.BasicTransform]) -> None:
        """Take albumentations' transforms, which are copied."""
        self._compose = A.Compose(deepcopy(list(transforms)))

    def apply(self, seed: int, **targets: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Transform albumentations' targets, such as ``image`` (height, width, channel) and ``mask`` (height, width).

        Returns:
            The targets by name.
        """
        self._compose.set_random_seed(seed)
        transformed: dict[str, NDArray[Any]] = self._compose(**targets)
        return transformed


# D4 is one transform, since separate flips and rotations draw the same numbers from one seed and reach only 4 of the 8.
SYMMETRIES = Pipeline([A.D4(p=1.0)])


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The transforms of ``train.augment``, made ready by :func:`make_augmentation`.

    Attributes:
        pastes: Arguments of each :class:`cdpipe.config.augment.Paste`.
        looks: What changes the looks of one date, of its bands and a seed.
        moves: What tells the dates apart, of a sample and a generator.
        geometry: What moves both dates and the label alike; None for nothing.
    """

    pastes: tuple[Mapping[str, Any], ...]
    looks: tuple[Look, ...]
    moves: tuple[Callable[[Sample, Generator], Sample], ...]
    geometry: Pipeline | None


def make_augmentation(transforms: Sequence[Mapping[str, Mapping[str, Any]]]) -> Augmentation:
    """Make the transforms of a list, each a name with its arguments as the configuration has checked them."""
    steps = [next(iter(each.items())) for each in transforms]
    looks: list[Look] = []
    flat = [each for each in steps if each[0] in _LOOKS or not (each[0] in OWN or is_geometric(each[0]))]
    for ours, group in groupby(flat, lambda step: step[0] in _LOOKS):
        if ours:
            looks += [partial(_change_looks, _LOOKS[name], arguments) for name, arguments in group]
        else:
            looks.append(partial(_look_through, Pipeline([make_foreign(*step) for step in group])))
    moving = [make_foreign(*step) for step in steps if step[0] == D4.__name__ or is_geometric(step[0])]
    return Augmentation(
        pastes=tuple(arguments for name, arguments in steps if name == "Paste"),
        looks=tuple(looks),
        moves=tuple(partial(_MOVES[name], arguments) for name, arguments in steps if name in _MOVES),
        geometry=Pipeline(moving) if moving else None,
    )


def check_augmentation(transforms: Sequence[Mapping[str, Mapping[str, Any]]], bands: int, patch: int) -> None:
    """Try a list on made-up samples: whether a transform takes so many bands, and how large it leaves them, shows then.

    Raises:
        ConfigError: If one fails, or samples do not keep their size.
    """
    rng = np.random.default_rng(0)
    dates = rng.normal(size=(2, bands, patch, patch)).astype(np.float32)
    seen = np.ones((patch, patch), np.bool_)
    label, shown = rng.integers(0, 2, seen.shape, np.uint8), np.zeros((0, *seen.shape), np.float32)
    sample = Sample(dates[0], dates[1], label, seen, shown)
    for place, (name, arguments) in enumerate(next(iter(each.items())) for each in transforms):
        certain = make_augmentation([{name: {**arguments, "p": 1.0}}])
        try:
            augment(certain, sample, (0, 1, 2), lambda _: sample)
        except Exception as error:  # noqa: BLE001 (albumentations lets whatever goes wrong within it through)
            what = " ".join(str(error).split())
            raise ConfigError(f"train.augment.{place}: {name} does not take dates of {bands} band(s): {what}") from None
    whole = make_augmentation(transforms)
    shapes = {augment(whole, sample, (seed, 1, 2), lambda _: sample).label.shape for seed in range(TRIALS)}
    if shapes != {seen.shape}:
        wrong = ", ".join(f"{height} × {width}" for height, width in sorted(shapes - {seen.shape}))
        raise ConfigError(
            f"train.augment: makes samples of {wrong} pixels out of {patch} × {patch}; "
            "end the list with PadIfNeeded and RandomCrop, or change the scale by Affine, which keeps the size"
        )


def augment(
    augmentation: Augmentation, sample: Sample, seeds: tuple[int, int, int], draw_other: Callable[[int], Sample]
) -> Sample:
    """A sample as it might have been.

    Args:
        augmentation: What may happen to it.
        sample: As it was read.
        seeds: Decide what happens: to both dates, to the first, to the second.
        draw_other: Gives the samples that rectangles are pasted from, by a number.

    Returns:
        A sample, which may share memory with those that were given.
    """
    both, first, second = seeds
    rng = np.random.default_rng([both, 1])  # other numbers than what the geometry draws from
    for number, arguments in enumerate(augmentation.pastes):
        if rng.random() < arguments["p"]:
            sample = _paste(sample, draw_other(number), arguments["side"], rng)
    if augmentation.looks:
        before = _look(augmentation.looks, sample.before, sample.observed, first)
        after = _look(augmentation.looks, sample.after, sample.observed, second)
        sample = replace(sample, before=before, after=after)
    for move in augmentation.moves:
        sample = move(sample, rng)
    if augmentation.geometry is None:
        return sample
    scene = np.concatenate([sample.before, sample.after, sample.shown])
    moved, label = augment_sample(scene, sample.label, both, augmentation.geometry)
    before, after, shown = np.split(moved, [len(sample.before), 2 * len(sample.before)])
    return Sample(before, after, label, label != IGNORE, shown)


def augment_sample(
    scene: Bands, label: NDArray[np.uint8], seed: int, pipeline: Pipeline = SYMMETRIES
) -> tuple[Bands, NDArray[np.uint8]]:
    """Move the pixels of both dates and of the label alike: by default one of the eight symmetries of the square.

    Args:
        scene: (channel, side, side), the channels of both dates, normalised.
        label: (side, side): 0 unchanged, 1 changed, 255 ignore.
        seed: Decides what is drawn; equal seeds move alike.
        pipeline: Geometric transforms of an ``image`` and its ``mask``.

    Returns:
        (channel, side, side) and (side, side): copies, also where nothing was moved, so that the caller may write into
        them.
    """
    moved = pipeline.apply(seed, image=np.moveaxis(scene, 0, -1), mask=label)
    return np.array(np.moveaxis(moved["image"], -1, 0), order="C"), np.array(moved["mask"], order="C")


def _look(looks: Sequence[Look], date: Bands, observed: NDArray[np.bool_], seed: int) -> Bands:
    for number, look in enumerate(looks):
        date = look(date, [seed, number])
    return np.where(observed, date, np.float32(0)).astype(np.float32, copy=False)  # what was not seen has no looks


def _look_through(pipeline: Pipeline, date: Bands, seeds: Sequence[int]) -> Bands:
    """What albumentations makes of a date; what lies beyond its range of values goes along with the range's end."""
    scaled = np.moveaxis(date / np.float32(2 * SPAN) + np.float32(0.5), 0, -1)
    seen = np.ascontiguousarray(np.clip(scaled, 0, 1))
    seed = int(np.random.default_rng(seeds).integers(2**31))
    changed = pipeline.apply(seed, image=seen.copy())["image"] - seen
    return np.asarray(date + np.float32(2 * SPAN) * np.moveaxis(changed, -1, 0), np.float32)


def _change_looks(
    change: Callable[[Bands, Generator, Mapping[str, Any]], Bands],
    arguments: Mapping[str, Any],
    date: Bands,
    seeds: Sequence[int],
) -> Bands:
    rng = np.random.default_rng(seeds)
    return change(date, rng, arguments) if rng.random() < arguments["p"] else date


def _jitter(date: Bands, rng: Generator, arguments: Mapping[str, Any]) -> Bands:
    each = (len(date), 1, 1)
    gain = 1 + rng.normal(0, arguments["gain"]) + rng.normal(0, arguments["band_gain"], each)
    offset = rng.normal(0, arguments["offset"]) + rng.normal(0, arguments["band_offset"], each)
    return np.asarray(date * gain.astype(np.float32) + offset.astype(np.float32), np.float32)


def _add_noise(date: Bands, rng: Generator, arguments: Mapping[str, Any]) -> Bands:
    return date + np.float32(arguments["sd"]) * rng.standard_normal(date.shape, np.float32)


def _add_haze(date: Bands, rng: Generator, arguments: Mapping[str, Any]) -> Bands:
    low, high = arguments["strength"]
    strength = rng.uniform(low, high)
    cells = rng.uniform(0, strength, (VEIL_CELLS, VEIL_CELLS)).astype(np.float32)
    veil = cv2.resize(cells, date.shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(date + veil * (np.float32(VEIL) - date), np.float32)


def _shift_after(arguments: Mapping[str, Any], sample: Sample, rng: Generator) -> Sample:
    """The second date moved under the label; at the edge its last pixels again, which do not count."""
    if rng.random() >= arguments["p"]:
        return sample
    by = rng.integers(-arguments["pixels"], arguments["pixels"] + 1, 2)
    source = [np.arange(length) - int(step) for length, step in zip(sample.label.shape, by, strict=True)]
    rows, cols = (np.clip(place, 0, len(place) - 1) for place in source)
    inside = np.logical_and.outer(source[0] == rows, source[1] == cols)
    observed = sample.observed & sample.observed[np.ix_(rows, cols)] & inside
    after = np.where(observed, sample.after[:, rows[:, None], cols], np.float32(0))
    before, shown = (np.where(observed, each, np.float32(0)) for each in (sample.before, sample.shown))
    return Sample(before, after, np.where(observed, sample.label, np.uint8(IGNORE)), observed, shown)


def _swap_dates(arguments: Mapping[str, Any], sample: Sample, rng: Generator) -> Sample:
    if rng.random() >= arguments["p"]:
        return sample
    return replace(sample, before=sample.after, after=sample.before)


def _paste(sample: Sample, other: Sample, side: Sequence[float], rng: Generator) -> Sample:
    """A rectangle of another sample in this one, at the same place."""
    low, high = side
    sides = [max(1, round(float(rng.uniform(low, high)) * length)) for length in sample.label.shape]
    row, col = (int(rng.integers(0, length - own + 1)) for length, own in zip(sample.label.shape, sides, strict=True))
    inside = np.zeros(sample.label.shape, np.bool_)
    inside[row : row + sides[0], col : col + sides[1]] = True
    return Sample(
        np.where(inside, other.before, sample.before),
        np.where(inside, other.after, sample.after),
        np.where(inside, other.label, sample.label),
        np.where(inside, other.observed, sample.observed),
        np.where(inside, other.shown, sample.shown),
    )


_LOOKS: Mapping[str, Callable[[Bands, Generator, Mapping[str, Any]], Bands]] = MappingProxyType(
    {"BandJitter": _jitter, "BandNoise": _add_noise, "Haze": _add_haze}
)
_MOVES: Mapping[str, Callable[[Mapping[str, Any], Sample, Generator], Sample]] = MappingProxyType(
    {"ShiftDate": _shift_after, "SwapDates": _swap_dates}
)
