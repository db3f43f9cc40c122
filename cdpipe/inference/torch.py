"""Networks as functions from patches to probabilities, run by torch."""

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cdpipe.inference.patches import Execution, Forward
from cdpipe.inference.transfers import receive, send, send_back, wait
from cdpipe.inference.views import d4_mean, d4_views

# Of the threads that feed a GPU, one at a time begins computations: what two need at once might not fit in its memory.
_TURN = threading.Lock()


def make_forward(network: nn.Module, execution: Execution) -> Forward:
    """Wrap a network as a function from patches to probabilities; the network moves to the device."""
    device = torch.device(execution.device)
    network = network.to(device).eval()
    if execution.channels_last:
        network = network.to(memory_format=torch.channels_last)
    half = execution.precision == "bfloat16"

    def probabilities(views: Tensor) -> Tensor:
        calls = torch.split(views, execution.views_at_once(views.shape[-1]))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = torch.cat([network(call).float() for call in calls])
        return torch.sigmoid(logits)

    return forward_of(probabilities, execution)


def forward_of(predict: Callable[[Tensor], Tensor], execution: Execution) -> Forward:
    """From views to probabilities of patches: augmentation around whatever computes them.

    Args:
        predict: From views (N, C, patch, patch) to float32 probabilities (N, 1, patch, patch), on the execution's
            device.
        execution: How it is run.
    """
    augmented, device = execution.tta == "d4", torch.device(execution.device)
    turn = _TURN if device.type == "cuda" else contextlib.nullcontext()

    def forward(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            sent = send(patches, device)
            with turn:
                x = receive(sent)
                probabilities = predict(d4_views(x) if augmented else x)
                mean = d4_mean(probabilities) if augmented else probabilities
                result = send_back(mean[:, 0])
            return np.asarray(wait(result), np.float32)

    return forward
