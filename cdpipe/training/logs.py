"""How far a training is, in a small file beside the model: written by its first worker, read by whoever looks."""

import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from tensorboardX import SummaryWriter

from cdpipe.errors import CdpipeError
from cdpipe.models.folder import ModelCard
from cdpipe.training.job import TrainJob
from cdpipe.workspace.bucket import ObjectPath
from cdpipe.workspace.local import read_json, write_json
from cdpipe.workspace.storage import on_disk

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


# Training curves for TensorBoard: ``tensorboard --logdir <workspace>/tensorboard``.


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


# Trained models for MLflow: parameters, the figures of each epoch, and the model's folder.

KEY = "cdpipe.key"  # the tag that tells which model a run is of


def log_model(address: str, experiment: str, job: TrainJob, card: ModelCard) -> None:
    """Log a trained model, once: a model that a finished run has already is left.

    Args:
        address: Of an MLflow server, or a folder.
        experiment: The experiment's name; made if there is none.
        job: What was trained.
        card: The trained model's.

    Raises:
        CdpipeError: If MLflow cannot be reached or does not take it; the model itself is not affected.
    """
    # MLflow asks that whoever goes on using folders says so
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    try:
        client = MlflowClient(address if "://" in address else Path(address).as_uri())
        known = client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else client.create_experiment(experiment)
        done = f"tags.`{KEY}` = '{job.key}' and attributes.status = 'FINISHED'"
        if not client.search_runs([number], done, max_results=1):
            _log(client, number, job, card)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise CdpipeError(f"tracking.mlflow: {address}: {job.name} could not be logged: {reason}") from error


def _log(client: MlflowClient, experiment: str, job: TrainJob, card: ModelCard) -> None:
    run = client.create_run(experiment, run_name=job.name, tags={KEY: job.key}).info.run_id
    params = [Param(name, str(value)[:6000]) for name, value in _parameters(job).items()]
    client.log_batch(run, params=params)
    folder, now = job.workspace.model(job.name, job.key), int(time.time() * 1000)
    with (folder / "history.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            epoch = int(row.pop("epoch"))
            client.log_batch(run, metrics=[Metric(name, float(value), now, epoch) for name, value in row.items()])
    best = [Metric(f"best_{name}", float(card.metrics[name]), now, 0) for name in ("epoch", "val_iou", "val_f1")]
    client.log_batch(run, metrics=best)
    with on_disk(folder) as place:
        client.log_artifacts(run, str(place), "model")
    client.set_terminated(run)


def _parameters(job: TrainJob) -> dict[str, Any]:
    options = job.options.model_dump(mode="json", exclude={"models", "folds"})
    arguments = {f"model.{name}": value for name, value in job.arguments.items()}
    sizes = {"steps": job.steps, "train_pairs": len(job.train), "val_pairs": len(job.val)}
    return {"architecture": job.architecture, "fold": job.fold, **arguments, **options, **sizes}
