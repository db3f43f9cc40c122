"""Copies between arrays and a device, which on a GPU go on beside what it computes.

Every thread copies on a stream of its own, from and to pinned memory: a GPU computes meanwhile only if it is both
(https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html). On a CPU nothing is copied.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_OWN = threading.local()


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that may still go on.

    Attributes:
        tensor: What will hold the values.
        done: Happens when it does; None where it does already.
    """

    tensor: Tensor
    done: Any = None


def send(values: NDArray[Any], device: torch.device) -> Copy:
    """Begin to copy an array to a device."""
    tensor = torch.from_numpy(values)
    if device.type == "cpu":
        return Copy(tensor)
    stream = _stream(device)
    with torch.cuda.stream(stream):
        copy = tensor.pin_memory().to(device, non_blocking=True)
    return Copy(copy, stream.record_event())


def receive(copy: Copy) -> Tensor:
    """What was sent, for the computations that this thread begins from now on; it does not wait itself."""
    if copy.done is not None:
        current = torch.cuda.current_stream(copy.tensor.device)
        current.wait_event(copy.done)
        copy.tensor.record_stream(current)  # its memory is not given to others before they have ended
    return copy.tensor


def send_back(tensor: Tensor) -> Copy:
    """Begin to copy what this thread's computations give, as soon as they do, to memory."""
    if tensor.device.type == "cpu":
        return Copy(tensor)
    computed, stream = torch.cuda.current_stream(tensor.device).record_event(), _stream(tensor.device)
    with torch.cuda.stream(stream):
        stream.wait_event(computed)
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return Copy(copy, stream.record_event())


def wait(copy: Copy) -> NDArray[Any]:
    """What was sent back, once it is there."""
    if copy.done is not None:
        copy.done.synchronize()
    return np.asarray(copy.tensor.numpy())


def sent_ahead(
    batches: Iterable[Sequence[Sequence[NDArray[Any]]]], device: torch.device
) -> Iterator[list[list[Tensor]]]:
    """Batches on a device, in order: each is made and sent by a thread while the one before it is computed on.

    Args:
        batches: Each some parts, and each part some arrays.
        device: Where they are wanted.
    """
    waiting = iter(batches)

    def following() -> list[list[Copy]] | None:
        batch = next(waiting, None)
        return None if batch is None else [[send(values, device) for values in part] for part in batch]

    with ThreadPoolExecutor(1) as sender:
        coming = sender.submit(following)
        while (sent := coming.result()) is not None:
            coming = sender.submit(following)
            yield [[receive(copy) for copy in part] for part in sent]


def _stream(device: torch.device) -> Any:
    """The calling thread's stream for copies to and from a device."""
    streams = _OWN.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return streams[device]
