"""How long a training would take, measured by a few steps that leave nothing behind."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project import snapshot
from stored import bright_squares, store_pair, train_config

from cdpipe.training import speed
from cdpipe.training.job import TrainJob, Worker
from cdpipe.training.loop import train_model
from cdpipe.training.plan import plan_training
from cdpipe.training.speed import STEPS, Speed, measure_speed, training_seconds
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here


def test_a_few_steps_are_done_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(here(tmp_path))
    dates, label = bright_squares((128, 128), 0)
    item = store_pair(workspace, "p", dates, label)
    (planned,) = plan_training(workspace, train_config(tmp_path), [item], [item])
    before, steps = snapshot(tmp_path), list[int]()

    def watch(job: TrainJob, worker: Worker) -> None:
        def note(epoch: int, step: int, loss: float) -> None:
            steps.append(step)
            worker.progress(epoch, step, loss)

        assert job.options.global_batch == 1
        train_model(job, dataclasses.replace(worker, progress=note))

    monkeypatch.setattr(speed, "train_model", watch)
    # of the two workers that would share its batch one is measured
    found = measure_speed(planned, 2, 1, "cpu")
    assert steps == [*range(1, STEPS + 2)]
    assert 0 < found.patch < 60
    assert 0 < found.step < 60
    assert snapshot(tmp_path) == before


def job(epochs: int, steps: int, sizes: list[tuple[int, int]]) -> Any:
    pairs = [SimpleNamespace(pair=SimpleNamespace(grid=SimpleNamespace(height=h, width=w))) for h, w in sizes]
    return SimpleNamespace(options=SimpleNamespace(epochs=epochs, patch=64), steps=steps, val=pairs)


def test_epochs_are_steps_and_validation() -> None:
    """Of 100 x 130 pixels there are 2 x 3 patches of 64."""
    assert training_seconds([job(10, 7, [(100, 130), (1, 1)])], [Speed(2.0, 0.5)], 1) == 10 * (7 * 2.0 + 7 * 0.5)


def test_trainings_side_by_side_fill_the_places() -> None:
    jobs = [job(1, steps, []) for steps in (8, 3, 3, 3)]
    speeds = [Speed(1.0, 0.0)] * 4
    assert [training_seconds(jobs, speeds, at_once) for at_once in (1, 2, 3, 9)] == [17, 9, 8, 8]
