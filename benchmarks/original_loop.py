"""How the original program predicts: one patch after the other, one view after the other, eager, in float32."""

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
PATCH = 256


def original(network: torch.nn.Module, scene: Floats) -> Floats:
    """Probabilities as the original program computes them, patch by patch and view by view."""
    probability = np.zeros(scene.shape[1:], np.float32)
    for row in range(0, scene.shape[1], PATCH):
        for col in range(0, scene.shape[2], PATCH):
            x = torch.from_numpy(scene[None, :, row : row + PATCH, col : col + PATCH])
            total = torch.zeros(1, 1, PATCH, PATCH)
            with torch.no_grad():
                for turns in range(4):
                    for mirrored in (False, True):
                        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
                        y = torch.rot90(torch.sigmoid(network(view)), -turns, (-2, -1))
                        total += y.flip(-1) if mirrored else y
            probability[row : row + PATCH, col : col + PATCH] = (total / 8)[0, 0].numpy()
    return probability
