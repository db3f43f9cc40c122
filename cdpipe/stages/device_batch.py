"""How many patches a GPU is given at once: probed before a run, remembered for its kind of device, then fixed.

The batch is part of a probability's key, so that a run which goes on later must find the same one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cdpipe.stages.prediction import Member, load_forward
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import read_json, write_json

MOST = 64  # patches
WORTH_IT = 1.05  # a batch of twice the size, and memory, must be this much faster
ROUNDS = 3

Batches = dict[str, int]  # by :func:`batch_name`


def batch_name(member: Member) -> str:
    """Everything but the device that a batch depends on."""
    run = member.execution
    return f"{member.card.key}-{run.tta}-{run.precision}"


def with_batches(members: Sequence[Member], batches: Batches) -> tuple[Member, ...]:
    """The members, each with the batch that is known for it."""
    return tuple(
        replace(each, execution=replace(each.execution, batch=batches.get(batch_name(each), each.execution.batch)))
        for each in members
    )


def remembered_batches(workspace: Workspace) -> dict[str, Batches]:
    """What was probed in this workspace, by kind of device."""
    value = read_json(workspace.devices)
    return value if isinstance(value, dict) else {}


def remember_batches(workspace: Workspace, device: str, batches: Batches) -> None:
    """Add what was probed on a kind of device."""
    known = remembered_batches(workspace)
    write_json(workspace.devices, {**known, device: {**known.get(device, {}), **batches}})


def probe_batch(member: Member) -> int:
    """The batch that suits the device which a member is to run on."""
    forward, patch, channels = load_forward(member), member.card.patch, member.card.recipe.channels

    def rate(batch: int) -> float:
        patches = np.random.default_rng(0).normal(size=(batch, channels, patch, patch)).astype(np.float32)
        forward(patches)  # the first of a shape also chooses algorithms
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            forward(patches)
        return batch * ROUNDS / (time.perf_counter() - begun)

    return choose_batch(rate)


def choose_batch(rate: Callable[[int], float]) -> int:
    """The first of 1, 2, 4, ... that twice as many patches are hardly faster than, or do not fit in memory.

    Args:
        rate: Patches a second with a batch; raises ``MemoryError``, or torch's error, where it does not fit.
    """
    best, speed = 1, rate(1)
    while 2 * best <= MOST:
        try:
            faster = rate(2 * best)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            break
        if faster < WORTH_IT * speed:
            break
        best, speed = 2 * best, faster
    return best


def _is_out_of_memory(error: Any) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
