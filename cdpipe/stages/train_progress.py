"""How far a training is, in a small file beside the model: written by its first worker, read by whoever looks."""

import time
from collections.abc import Callable
from typing import Any

from cdpipe.stages.train_job import TrainJob
from cdpipe.workspace.local import read_json, write_json

PROGRESS = "progress.json"
PROGRESS_SECONDS = 2.0


def progress_writer(job: TrainJob) -> Callable[[int, int, float], None]:
    """Writes down epoch, step and loss, every other second and at the end of an epoch."""
    path = job.workspace.model(job.name, job.key) / PROGRESS
    last = 0.0

    def write(epoch: int, step: int, loss: float) -> None:
        nonlocal last
        if step == job.steps or time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            write_json(path, {"epoch": epoch, "step": step, "steps": job.steps, "loss": loss})

    return write


def read_progress(job: TrainJob) -> dict[str, Any] | None:
    """Epoch, step, steps of an epoch and loss that were last written down; None before the first step."""
    value = read_json(job.workspace.model(job.name, job.key) / PROGRESS)
    return value if isinstance(value, dict) else None
