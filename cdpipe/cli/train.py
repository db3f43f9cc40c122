"""``cdpipe train``: every configured model, each its own run, each resumable."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cdpipe.cli.console import progress
from cdpipe.cli.session import Session, logged, stored_pairs
from cdpipe.errors import CdpipeError, ConfigError
from cdpipe.models.folder import ModelCard
from cdpipe.pairs.splits import (
    describe_leaks,
    split_pairs,
)
from cdpipe.training.job import TrainJob
from cdpipe.training.logs import read_progress
from cdpipe.training.plan import (
    _leaks,
    check_buildable,
    finish_model,
    jobs_for,
    sweep_training,
    trained_model,
)

POLL_SECONDS = 1.0


def run(session: Session) -> None:
    """Train the models that are not trained yet.

    Raises:
        ConfigError: If a model cannot be built.
        InputError: If there is nothing to learn from.
    """
    jobs = training_jobs(session)
    waiting = [job for job in jobs if trained_model(job) is None]
    for job in waiting:
        check_buildable(job)
    if waiting:
        _say_leaks(session)
    for job in jobs:
        card = trained_model(job)
        if card is not None:
            if not session.dry_run:
                sweep_training(job)
            session.say(f"train: {job.name} is trained already: {_summary(session, job, card)}")
    if session.dry_run:
        for job in waiting:
            session.say(
                f"train: {job.name} ({job.architecture}), {len(job.train)} pair(s), up to {job.options.epochs} epochs "
                f"of {job.steps} steps of {job.options.global_batch} patches of {job.options.patch} pixels"
            )
        return
    if not waiting:
        _track(session, jobs)
        return
    _check_tracking(session)
    session.start_ray()
    from cdpipe.cluster.train import plan_workers, train

    workers, use_gpu = plan_workers(session.config.resources, session.config.train.global_batch)
    for job in waiting:
        facts = {"model": job.name, "steps": job.steps, "workers": workers, "gpu": use_gpu}
        with logged(session, "train", facts) as figures, _watched(session, job):
            card = finish_model(job, train(job, workers, use_gpu))
            figures["best_epoch"] = card.metrics["epoch"]
        session.say(f"train: {job.name}: {_summary(session, job, card)}")
    _track(session, jobs)


def _check_tracking(session: Session) -> None:
    """Before hours are spent on training."""
    address = session.config.tracking.mlflow
    if address and importlib.util.find_spec("mlflow") is None:
        raise ConfigError(f"tracking.mlflow: {address}: expected MLflow to be installed: pip install 'cdpipe[mlflow]'")


def _track(session: Session, jobs: list[TrainJob]) -> None:
    """Log what is trained where the configuration says; if that fails no model is lost, and the next call does it."""
    address = session.config.tracking.mlflow
    if address is None:
        return
    _check_tracking(session)
    from cdpipe.training.tracking import log_model

    for job in jobs:
        card = trained_model(job)
        try:
            if card is not None:
                log_model(address, session.config.name, job, card)
        except CdpipeError as error:
            session.say(f"train: {error}")


def training_jobs(session: Session) -> list[TrainJob]:
    """What the configuration wants trained, on the pairs in the store."""
    return jobs_for(session, [planned for planned, _ in stored_pairs(session)])


def _say_leaks(session: Session) -> None:
    """Say what is let pass, and of what nothing can be told."""
    planned = [item for item, _ in stored_pairs(session)]
    found = _leaks(session, planned, split_pairs(planned, session.config.split_buffer))
    if found.leaks:
        session.say(f"train: the splits leak, which splits.allow_leak lets pass: {describe_leaks(found.leaks)}")
    if found.unplaced:
        session.say(
            f"train: {len(found.unplaced)} pair(s) have no georeference; whether training pairs lie apart from the "
            "others cannot be told"
        )


def _summary(session: Session, job: TrainJob, card: ModelCard) -> str:
    folder = session.workspace.model(job.name, job.key)
    return f"epoch {card.metrics['epoch'] + 1}, validation IoU {card.metrics['val_iou']:.3f}, in {folder}"


@contextmanager
def _watched(session: Session, job: TrainJob) -> Iterator[None]:
    """Show the progress that the first worker writes down while Ray Train holds this thread."""
    stop = threading.Event()
    with progress(session.console, f"train {job.name}: steps", job.options.epochs * job.steps) as advance:

        def poll() -> None:
            shown = 0
            while not stop.wait(POLL_SECONDS):
                found = read_progress(job)
                done = found["epoch"] * job.steps + found["step"] if found else 0
                if found and done > shown:
                    advance(done - shown, f"epoch {found['epoch'] + 1}, loss {found['loss']:.3f}")
                    shown = done

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
