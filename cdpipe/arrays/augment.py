"""The same random flip and rotation for both dates and the label."""

import os

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

import albumentations as A  # noqa: N812 (after the variable above; the name its documentation uses)


def augment(
    scene: NDArray[np.float32], label: NDArray[np.uint8], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Turn a square sample by one of the eight symmetries of the square.

    The random crop of the usual recipe is the random window that the sampler draws from the store.

    Args:
        scene: (channel, side, side), the channels of both dates, so that all turn alike.
        label: (side, side).
        seed: Decides which symmetry; equal seeds turn alike.

    Returns:
        Both, turned alike.
    """
    # built anew each time: a shared one would be reseeded by one thread while another draws from it. D4 in one
    # transform, since separate flips and rotations draw the same numbers from one seed and reach only 4 of the 8.
    transform = A.Compose([A.D4(p=1.0)], seed=seed)
    turned = transform(image=scene.transpose(1, 2, 0), mask=label)
    # copies, also of what was not turned: the caller may write into them
    return np.array(turned["image"].transpose(2, 0, 1), order="C"), np.array(turned["mask"], order="C")
