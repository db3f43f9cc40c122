"""How long a training would take: a few of its steps and one batch of validation, measured on this machine."""

import contextlib
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from cdpipe.geo.tilings import count_tiles
from cdpipe.inference.torch import make_forward
from cdpipe.models.networks import build_model
from cdpipe.training.job import TrainJob, Worker, choose_precision, execution
from cdpipe.training.loop import train_model

STEPS = 3  # that are measured, behind one that is not: it allocates memory and chooses kernels


class _EnoughError(Exception):
    """Ends a training that was begun to be measured."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a step, and of a validation patch."""

    step: float
    patch: float


def measure_speed(job: TrainJob, workers: int, threads: int, device: str) -> Speed:
    """Train a few steps on the job's own samples, and run the network on a batch of noise; nothing is kept.

    Args:
        job: The training. Its encoder starts at random: weights may have to be fetched, and change no time.
        workers: How many share a global batch; one of them is measured.
        threads: Of the network on a CPU.
        device: ``cpu`` or ``cuda``.
    """
    options = job.options.model_copy(update={"global_batch": job.options.global_batch // workers})
    job = replace(job, options=options, pretrained=None, init_from=None, steps=max(job.steps, STEPS + 2))
    ends: list[float] = []

    def note(*_: object) -> None:
        ends.append(time.monotonic())
        if len(ends) > STEPS:
            raise _EnoughError

    worker = Worker(
        rank=0,
        world=1,
        parts=1,
        device=device,
        threads=min(threads, 4),
        wrap=lambda network: network,
        checkpoint=None,
        save=lambda *_: None,
        progress=note,
        leaving=lambda: False,
    )
    torch.set_num_threads(threads)
    with contextlib.suppress(_EnoughError):
        train_model(job, worker)
    run = execution(job, worker, choose_precision(options, device))
    forward = make_forward(build_model(job.architecture, **job.built), run)
    noise = np.zeros((options.global_batch, job.recipe.channels, options.patch, options.patch), np.float32)
    forward(noise)
    begun = time.monotonic()
    forward(noise)
    return Speed((ends[-1] - ends[0]) / STEPS, (time.monotonic() - begun) / len(noise) / workers)


def training_seconds(jobs: Sequence[TrainJob], speeds: Sequence[Speed], at_once: int) -> float:
    """How long all epochs of some trainings take, a number of them side by side, each begun as one before it ends.

    Args:
        jobs: In the order in which they begin.
        speeds: Of each.
        at_once: How many at a time.
    """
    ends = [0.0] * min(at_once, len(jobs))
    for job, speed in zip(jobs, speeds, strict=True):
        side = job.options.patch
        patches = sum(
            count_tiles(item.pair.grid.height, side) * count_tiles(item.pair.grid.width, side) for item in job.val
        )
        whole = job.options.epochs * (job.steps * speed.step + patches * speed.patch)
        heapq.heapreplace(ends, ends[0] + whole)
    return max(ends)
