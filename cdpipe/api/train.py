"""Every configured model, each trained by itself, each resumable."""

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdpipe.api.fits import Look, find_fits, looks_shown
from cdpipe.errors import CdpipeError, ConfigError, InputError
from cdpipe.models.folder import ModelCard
from cdpipe.pairs.splits import describe_leaks
from cdpipe.runs.run import Inventory, Run, take_inventory
from cdpipe.store.pair import StoredPair
from cdpipe.training.batches import check_batches, known_workers
from cdpipe.training.job import TrainJob
from cdpipe.training.logs import read_progress
from cdpipe.training.plan import (
    check_buildable,
    describe_stored,
    finish_model,
    sweep_training,
    trained_model,
    training_jobs,
    training_leaks,
)
from cdpipe.workspace.location import Location

if TYPE_CHECKING:
    from cdpipe.cluster.train import Shares

POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model.

    Attributes:
        name: Its name, which says the fold where there are folds.
        folder: Where it lies.
        card: All that there is to know of it: its figures among others.
        now: Whether this call trained it; else it was there already.
    """

    name: str
    folder: Location
    card: ModelCard
    now: bool

    def __str__(self) -> str:
        """Its epoch, figure and folder, for people."""
        metrics = self.card.metrics
        judged = f"validation IoU {metrics['val_iou']:.3f}" if "val_iou" in metrics else "not validated"
        return f"epoch {metrics['epoch'] + 1}, {judged}, in {self.folder}"


def plan_training(run: Run) -> tuple[list[Trained], list[TrainJob]]:
    """The configuration's models that are trained already, and those that are not; nothing is trained.

    Raises:
        ConfigError: If a model cannot be built.
        InputError: If there is nothing to learn from.
    """
    _, trained, waiting = _plan(run)
    return trained, waiting


def measure_training(run: Run, waiting: Sequence[TrainJob]) -> float | None:
    """How many seconds it would take to train models here, from a few measured steps of each; nothing is kept.

    Args:
        run: The run.
        waiting: What is not trained yet, see :func:`plan_training`.

    Returns:
        For all epochs; None where it would be done on a cluster, whose machines are not asked.

    Raises:
        ConfigError: If the number of workers asked for cannot share the global batch equally.
    """
    if not waiting or os.environ.get("RAY_ADDRESS", "local") != "local":
        return None
    from cdpipe.cluster.machine import inspect_machine
    from cdpipe.cluster.train import share_out
    from cdpipe.training.speed import Speed, measure_speed, training_seconds

    machine, asked = inspect_machine(), run.config.resources
    gpus = len(machine.gpus) if asked.gpus == "auto" else asked.gpus
    cpus = machine.cpus if asked.workers == "auto" else asked.workers
    shares = share_out(asked, waiting, gpus, [cpus])
    models = {job.model: job for job in waiting}  # folds of a model are alike
    speeds: dict[str, Speed] = {}
    with run.step("train: models measured", len(models)) as advance:
        for name, job in models.items():
            device = "cuda" if shares.use_gpu else "cpu"
            speeds[name] = measure_speed(job, shares.workers, shares.cpus, device)
            advance(1, name)
    return training_seconds(waiting, [speeds[job.model] for job in waiting], shares.at_once)


def train(run: Run) -> list[Trained]:
    """Train the models that are not trained yet.

    While one trains, ``run.progress`` is called from another thread.

    Raises:
        ConfigError: If a model cannot be built.
        InputError: If there is nothing to learn from.
    """
    with run.hold():
        jobs, trained, waiting = _plan(run)
        for job in jobs:
            if job not in waiting:
                sweep_training(job)
        for model in trained:
            run.say(f"train: {model.name} is trained already: {model}")
        if waiting:
            _check_tracking(run)
            trained += _train(run, jobs, waiting)
        _track(run, jobs)
        return trained


def _plan(run: Run) -> tuple[list[TrainJob], list[Trained], list[TrainJob]]:
    """What the configuration wants trained, what of it is and what is not; splits are told if any is not."""
    inventory = take_inventory(run)
    run.recall_warnings()
    jobs = training_jobs(run.config, run.workspace, inventory.planned, inventory.splits)
    cards = [(job, trained_model(job)) for job in jobs]
    waiting = [job for job, card in cards if card is None]
    if waiting:
        check_batches(run.config, known_workers(run.config))
    for job in waiting:
        check_buildable(job)
    if waiting:
        _say_splits(run, inventory)
    return jobs, [_trained(run, job, card, now=False) for job, card in cards if card is not None], waiting


def _trained(run: Run, job: TrainJob, card: ModelCard, *, now: bool) -> Trained:
    return Trained(job.name, run.workspace.model(job.name, job.key), card, now)


def _train(run: Run, jobs: Sequence[TrainJob], waiting: Sequence[TrainJob]) -> list[Trained]:
    """Train those of the jobs that wait, and say of each how it ended."""
    from cdpipe.cluster.needs import asked_for_training, plan_gpus
    from cdpipe.cluster.start import start_workers
    from cdpipe.cluster.train import share_out

    check_starts(run, waiting)
    look_first(run, waiting)
    start_workers(run, ray=True)
    resources, gpus = run.config.resources, plan_gpus(run)
    planned = share_out(resources, jobs, gpus) if gpus else None  # on CPUs it depends on those that come
    with asked_for_training(run, len(jobs), planned.at_once * planned.workers if planned else 0):
        shares = planned or share_out(resources, jobs, 0)
        check_batches(run.config, shares.workers)
        return _train_in(run, waiting, shares)


def _train_in(run: Run, waiting: Sequence[TrainJob], shares: "Shares") -> list[Trained]:
    """Train with these shares of what there is."""
    from cdpipe.cluster.train import train_on_workers

    facts = {"workers": shares.workers, "gpu": shares.use_gpu, "side_by_side": shares.at_once}
    trained = []
    with _watched(run, waiting), contextlib.ExitStack() as unfinished:
        entries: dict[str, tuple[contextlib.ExitStack, dict[str, Any]]] = {}
        for job, checkpoint in train_on_workers(waiting, shares):
            if checkpoint is None:
                entry = unfinished.enter_context(contextlib.ExitStack())
                figures = entry.enter_context(run.logged("train", {"model": job.name, "steps": job.steps, **facts}))
                entries[job.name] = entry, figures
                continue
            entry, figures = entries[job.name]
            card = finish_model(job, checkpoint)
            figures["kept_epoch"] = card.metrics["epoch"] + 1  # counted as people do
            entry.close()
            trained.append(_trained(run, job, card, now=True))
            run.say(f"train: {job.name}: {trained[-1]}")
    return trained


def look_first(run: Run, waiting: Sequence[TrainJob]) -> None:
    """Have detectors that models are shown look at the pairs to learn from.

    Raises:
        InputError: If there is nothing to compare in one of them.
    """
    looks: dict[str, tuple[StoredPair, list[Look]]] = {}
    for job in waiting:
        for item in (*job.train, *job.val):
            looks.setdefault(item.pair.key, (item.pair, []))[1].extend(looks_shown(item.pair, job.recipe))
    for pair_id, why in find_fits(run, "train", looks.values()).items():
        raise InputError(f"train: pair {pair_id}: {why}; leave the pair out, or the models' detectors")


def check_starts(run: Run, waiting: Sequence[TrainJob]) -> None:
    """Fetch and try the weights that encoders start from, before workers are kept waiting for what will not fit.

    Raises:
        InputError: If they cannot be had or do not fit.
    """
    # what has begun goes on from its checkpoint; of folds one tells for all
    starting = {
        job.model: (job, job.pretrained)
        for job in waiting
        if job.pretrained and job.init_from is None and read_progress(job) is None
    }
    for name, (job, weights) in starting.items():
        from cdpipe.training.loop import fresh_network

        fresh_network(job)
        roles = job.recipe.roles
        run.say(f"train: {name}: the encoder starts from {weights.name}")
        missing = weights.missing(roles)
        if missing:
            start = "the mean of the other bands' kernels" if weights.other_bands == "mean" else "zeros"
            run.say(f"train: {name}: {weights.name} has no {', '.join(missing)}, which start(s) from {start}")


def _check_tracking(run: Run) -> None:
    """Before hours are spent on training."""
    address = run.config.tracking.mlflow
    if address and importlib.util.find_spec("mlflow") is None:
        raise ConfigError(f"tracking.mlflow: {address}: expected MLflow to be installed: pip install 'cdpipe[mlflow]'")


def _track(run: Run, jobs: Sequence[TrainJob]) -> None:
    """Log what is trained where the configuration says; if that fails no model is lost, and the next call does it."""
    address = run.config.tracking.mlflow
    if address is None:
        return
    _check_tracking(run)
    from cdpipe.training.tracking import log_model

    for job in jobs:
        card = trained_model(job)
        try:
            if card is not None:
                log_model(address, run.config.name, job, card)
        except CdpipeError as error:
            run.say(f"train: {error}")


def _say_splits(run: Run, inventory: Inventory) -> None:
    """Say which splits were made, what is let pass, and of what nothing can be told."""
    outlook = describe_stored(run.config, run.workspace, inventory.planned, inventory.splits)
    for line in outlook.lines() if outlook.made else ():
        run.say(f"train: {line}")
    found = training_leaks(run.config, inventory.planned, inventory.splits)
    if found.leaks:
        run.say(f"train: the splits leak, which splits.allow_leak lets pass: {describe_leaks(found.leaks)}")
    if found.unplaced:
        run.say(
            f"train: {len(found.unplaced)} pair(s) have no georeference; whether training pairs lie apart from the "
            "others cannot be told"
        )


@contextlib.contextmanager
def _watched(run: Run, jobs: Sequence[TrainJob]) -> Iterator[None]:
    """Tell the progress that the jobs' first workers write down while Ray Train holds this thread."""
    stop, total = threading.Event(), sum(job.options.epochs * job.steps for job in jobs)
    what = jobs[0].name if len(jobs) == 1 else f"{len(jobs)} models"
    with run.step(f"train {what}: steps", total) as advance:

        def poll() -> None:
            shown = dict.fromkeys(range(len(jobs)), 0)
            while not stop.wait(POLL_SECONDS):
                for number, job in enumerate(jobs):
                    found = read_progress(job)
                    if found is None:
                        continue
                    done = found["epoch"] * job.steps + found["step"]
                    if done > shown[number]:
                        note = f"{job.name}: epoch {found['epoch'] + 1}, loss {found['loss']:.3f}"
                        advance(done - shown[number], note)
                        shown[number] = done

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
