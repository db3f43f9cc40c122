"""The same random flip and rotation for both dates and the label."""

import os
import threading
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

import albumentations as A  # noqa: N812 (after the variable above; the name its documentation uses)

Value = TypeVar("Value", bound=np.generic)

PROBE = np.arange(4, dtype=np.uint8).reshape(2, 2)
# What each symmetry makes of the probe: quarter turns counter-clockwise, then the same after mirroring left to right.
SYMMETRIES = {
    np.rot90(image, turns).tobytes(): (mirrored, turns)
    for mirrored, image in enumerate((PROBE, PROBE[:, ::-1]))
    for turns in range(4)
}


class _Transform(threading.local):
    """A thread's own transform: one for all would be reseeded by one thread while another draws from it."""

    def __init__(self) -> None:
        # D4 in one transform, since separate flips and rotations draw the same numbers from one seed and reach only 4
        # of the 8
        self.compose = A.Compose([A.D4(p=1.0)])


_TRANSFORM = _Transform()


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
    # the symmetry is drawn for a few pixels and then made of views, at a tenth of the time for a 6-band sample
    transform = _TRANSFORM.compose
    transform.set_random_seed(seed)
    mirrored, turns = SYMMETRIES[transform(image=PROBE)["image"].tobytes()]
    # copies, also of what was not turned: the caller may write into them
    return _turn(scene, mirrored, turns), _turn(label, mirrored, turns)


def _turn(values: NDArray[Value], mirrored: int, turns: int) -> NDArray[Value]:
    view = values[..., ::-1] if mirrored else values
    return np.array(np.rot90(view, turns, (-2, -1)), order="C")
