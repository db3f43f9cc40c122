"""How far a training is, in a small file beside the model, and its curves for TensorBoard.

The file is written by the training's first worker and read by whoever looks; the curves are for
``tensorboard --logdir <workspace>/tensorboard``.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from cdpipe.training.job import TrainJob
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.location import Location

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


def curves_folder(job: TrainJob) -> Location:
    """Folder of a model's curves; its own is the same however often training was interrupted, which these are not."""
    return job.workspace.root / "tensorboard" / job.name / job.key


def add_epoch(folder: Location, metrics: Mapping[str, Any]) -> None:
    """Add an epoch to the curves, in a file of its own that is whole at once.

    Args:
        folder: See :func:`curves_folder`.
        metrics: A row of the history: ``epoch``, and figures by name. What is there of this epoch and later ones, by a
            process that was killed before they counted, is left out by TensorBoard.
    """
    from tensorboardX import SummaryWriter  # which takes long to import

    epoch = metrics["epoch"]
    with _on_disk(folder) as place, SummaryWriter(place, purge_step=epoch, filename_suffix=f".{epoch:05d}") as writer:
        for name, value in metrics.items():
            if name != "epoch" and isinstance(value, Real):
                writer.add_scalar(name, float(value), epoch)


@contextmanager
def _on_disk(folder: Location) -> Iterator[str]:
    """A folder that TensorBoard's writer can write to; what it wrote goes to object storage afterwards."""
    if not folder.far:
        yield str(folder.local())
        return
    with tempfile.TemporaryDirectory() as place:
        yield place
        for file in Path(place).iterdir():
            (folder / file.name).take(file)
