"""Training curves for TensorBoard: ``tensorboard --logdir <workspace>/tensorboard``."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from cdpipe.stages.train_job import TrainJob
from cdpipe.workspace.bucket import ObjectPath


def curves_folder(job: TrainJob) -> Path:
    """Folder of a model's curves; its own is the same however often training was interrupted, which these are not."""
    return job.workspace.root / "tensorboard" / job.name / job.key


def add_epoch(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add an epoch to the curves, in a file of its own that is whole at once.

    Args:
        folder: See :func:`curves_folder`.
        metrics: A row of the history: ``epoch``, and figures by name. What is there of this epoch and later ones, by a
            process that was killed before they counted, is left out by TensorBoard.
    """
    epoch = metrics["epoch"]
    with _on_disk(folder) as place, SummaryWriter(place, purge_step=epoch, filename_suffix=f".{epoch:05d}") as writer:
        for name, value in metrics.items():
            if name != "epoch" and isinstance(value, Real):
                writer.add_scalar(name, float(value), epoch)


@contextmanager
def _on_disk(folder: Path) -> Iterator[str]:
    """A folder that TensorBoard's writer can write to; what it wrote goes to object storage afterwards."""
    if not isinstance(folder, ObjectPath):
        yield str(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        yield place
        for file in Path(place).iterdir():
            (folder / file.name).upload(file)
