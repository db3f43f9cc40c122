"""Networks as functions from patches to probabilities: run by torch, and augmented whatever runs them."""

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cdpipe.inference.patches import Execution, Forward
from cdpipe.inference.transfers import receive, send, send_back, wait

# Of the threads that feed a GPU, one at a time begins computations: what two need at once might not fit in its memory.
_TURN = threading.Lock()


def d4_views(x: Tensor) -> Tensor:
    """The eight views of each square patch under the dihedral group D4, for test-time augmentation.

    Args:
        x: (N, C, S, S).

    Returns:
        (8 N, C, S, S). The views of patch n are rows 8 n to 8 n + 7: turned by 0, 90, 180 and 270 degrees
        counter-clockwise, then the same of the patch mirrored left to right.

    Raises:
        ValueError: If ``x`` is not a batch of square patches.
    """
    _check_square(x)
    return torch.stack([_view(x, index) for index in range(8)], dim=1).flatten(0, 1)


def d4_mean(y: Tensor) -> Tensor:
    """Turn the eight views of each patch back and average them.

    The sum is taken view by view in the order of ``d4_views``, at least in float32: the same values give the
    same bits, whatever the number of patches.

    Args:
        y: (8 N, C, S, S), floating point, in the order of ``d4_views``.

    Returns:
        (N, C, S, S) in float32, or float64 if ``y`` is.

    Raises:
        ValueError: If ``y`` is not a batch of square patches, eight views each.
    """
    _check_square(y)
    if len(y) % 8:
        raise ValueError(f"expected eight views of each patch, got {len(y)} in all")
    wide = y.to(torch.promote_types(y.dtype, torch.float32))
    views = wide.reshape(-1, 8, *y.shape[1:])
    total = _undo_view(views[:, 0], 0)
    for index in range(1, 8):
        total = total + _undo_view(views[:, index], index)
    return total / 8


def _view(x: Tensor, index: int) -> Tensor:
    mirrored = x.flip(-1) if index >= 4 else x
    return torch.rot90(mirrored, index % 4, (-2, -1))


def _undo_view(y: Tensor, index: int) -> Tensor:
    turned_back = torch.rot90(y, -(index % 4), (-2, -1))
    return turned_back.flip(-1) if index >= 4 else turned_back


def _check_square(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"expected square patches (N, C, S, S), got {tuple(x.shape)}")


def make_forward(network: nn.Module, execution: Execution) -> Forward:
    """Wrap a network as a function from patches to probabilities; the network moves to the device."""
    device = torch.device(execution.device)
    network = network.to(device).eval()
    if execution.channels_last:
        network = network.to(memory_format=torch.channels_last)
    half = execution.precision == "bfloat16"

    def logits(views: Tensor) -> Tensor:
        calls = torch.split(views, execution.views_at_once(views.shape[-1]))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return torch.cat([network(call).float() for call in calls])

    return forward_of(logits, execution)


def forward_of(logits: Callable[[Tensor], Tensor], execution: Execution) -> Forward:
    """From views to probabilities of patches: augmentation around whatever computes logits, the same for all backends.

    Args:
        logits: From views (N, C, patch, patch) to float32 logits (N, 1, patch, patch), on the execution's device.
        execution: How it is run.
    """
    augmented, device = execution.tta == "d4", torch.device(execution.device)
    turn = _TURN if device.type == "cuda" else contextlib.nullcontext()

    def forward(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            sent = send(patches, device)
            with turn:
                x = receive(sent)
                probabilities = torch.sigmoid(logits(d4_views(x) if augmented else x))
                mean = d4_mean(probabilities) if augmented else probabilities
                result = send_back(mean[:, 0])
            return np.asarray(wait(result), np.float32)

    return forward
