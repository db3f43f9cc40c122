"""Trained models for MLflow: parameters, the figures of each epoch, and the model's folder.

MLflow is an extra, so only who was asked to log may import this module.
"""

import csv
import math
import os
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from cdpipe.errors import CdpipeError
from cdpipe.models.folder import ModelCard
from cdpipe.training.job import TrainJob

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
    for row in csv.DictReader((folder / "history.csv").read_text().splitlines()):
        epoch = int(row.pop("epoch"))
        figures = {name: float(value) for name, value in row.items()}
        known = [Metric(name, value, now, epoch) for name, value in figures.items() if not math.isnan(value)]
        client.log_batch(run, metrics=known)
    names = [name for name in ("epoch", "val_iou", "val_f1") if name in card.metrics]
    best = [Metric(f"best_{name}", float(card.metrics[name]), now, 0) for name in names]
    client.log_batch(run, metrics=best)
    with folder.folder_on_disk() as place:
        client.log_artifacts(run, str(place), "model")
    client.set_terminated(run)


def _parameters(job: TrainJob) -> dict[str, Any]:
    options = job.options.model_dump(mode="json", exclude={"models", "folds"})
    arguments = {f"model.{name}": value for name, value in job.arguments.items()}
    sizes = {"steps": job.steps, "train_pairs": len(job.train), "val_pairs": len(job.val)}
    return {"architecture": job.architecture, "fold": job.fold, **arguments, **options, **sizes}
