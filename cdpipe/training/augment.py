"""Augmentation with albumentations: each date by itself before it is normalised, then both dates and the label alike.

A pipeline draws from the seed that it is given and from nothing else, so that a sample is the same in any thread and
whatever came before it.
"""

import os
import threading
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

# albumentations would ask the network for its newest version
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: N812 (after the variable above; the name its documentation uses)
import numpy as np
from numpy.typing import NDArray

Dates = tuple[NDArray[Any], NDArray[Any]]


class Pipeline(threading.local):
    """Transforms one after the other; each thread has its own, since one would reseed what another draws from."""

    def __init__(self, transforms: Sequence[A.BasicTransform]) -> None:
        """Take albumentations' transforms, which are copied."""
        self._compose = A.Compose(deepcopy(list(transforms)))

    def apply(self, seed: int, **targets: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Transform albumentations' targets, such as ``image`` (height, width, channel) and ``mask`` (height, width).

        Returns:
            The targets by name; without any transforms those that were given.
        """
        if not self._compose.transforms:
            return targets
        self._compose.set_random_seed(seed)
        transformed: dict[str, NDArray[Any]] = self._compose(**targets)
        return transformed


# What training uses. D4 is one transform, since separate flips and rotations draw the same numbers from one seed and
# reach only 4 of the 8. The random crop of the usual recipe is the random window that the sampler draws.
PHOTOMETRIC = Pipeline([])
GEOMETRIC = Pipeline([A.D4(p=1.0)])


def augment_dates(dates: Dates, seeds: tuple[int, int], pipeline: Pipeline = PHOTOMETRIC) -> Dates:
    """Change what each date looks like, independently of the other; pixels stay where they are.

    Args:
        dates: Before and after, each (band, height, width) in its own dtype and the sensor's numbers.
        seeds: Decide what happens to each of them.
        pipeline: Photometric transforms of an ``image``.

    Returns:
        Both, of the same shapes and dtypes.
    """
    first, second = (
        np.moveaxis(pipeline.apply(seed, image=np.moveaxis(date, 0, -1))["image"], -1, 0)
        for date, seed in zip(dates, seeds, strict=True)
    )
    return first, second


def augment_sample(
    scene: NDArray[np.float32], label: NDArray[np.uint8], seed: int, pipeline: Pipeline = GEOMETRIC
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
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
