"""Training: it learns, it is interrupted without a trace, and its figures are those of whole scenes."""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from stored import Dates, bright_squares, store_pair, train_config, worker
from torch import nn

from cdpipe.config.train import Train
from cdpipe.errors import CdpipeError, InputError
from cdpipe.evaluation.scores import BASELINE_RECIPE
from cdpipe.inference.torch import make_forward
from cdpipe.metrics.counts import counts_by_threshold, score_histogram
from cdpipe.models.networks import build_model
from cdpipe.store.normalisation import model_input
from cdpipe.store.pair import LabelledPair
from cdpipe.training.job import TrainJob, choose_precision, execution
from cdpipe.training.loop import (
    ASK_EVERY,
    BEST,
    CHECKPOINT,
    HISTORY,
    NUMBERS,
    best_epoch,
    finished,
    kept_epoch,
    make_sampler,
    part_loss,
    train_model,
    validate,
    write_checkpoint,
)
from cdpipe.training.loss import dice_bce
from cdpipe.training.plan import finish_model, plan_training
from cdpipe.training.samples import draw_sample
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

# All there is: a schedule by step, weight decay, clipping, averaged weights, losses, drawn pixels, augmentation.
MODERN: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "clip_norm": 1.0,
    "ema": 0.9,
    "keep": "last",
    "loss": {"soft_jaccard": 1, "bce": {"positive_weight": 2}, "focal": 0.5},
    "sampling": "pixels",
    "pair_weight": "sqrt",
    "augment": [
        "D4",
        "BandJitter",
        {"Haze": {"p": 0.5}},
        {"GaussNoise": {"p": 0.5}},
        {"ShiftDate": {"p": 0.5}},
        {"SwapDates": {"p": 0.5}},
        {"Paste": {"p": 0.5}},
        {"Affine": {"p": 0.5, "scale": [0.8, 1.2]}},
    ],
    "precision": "bfloat16",
}

Saved = dict[str, bytes]
Pairs = tuple[LabelledPair, LabelledPair]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Training sets what holds for the whole process; other tests get it back as it was."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(here(tmp_path_factory.mktemp("training")))


@pytest.fixture(scope="module")
def pairs(workspace: Workspace) -> Pairs:
    """One to learn from, one to validate on."""
    train, val = bright_squares((128, 160), 1, squares=12), bright_squares((64, 96), 2, squares=4)
    return store_pair(workspace, "train", *train), store_pair(workspace, "val", *val)


def make_job(workspace: Workspace, pairs: Pairs, **options: Any) -> TrainJob:
    return plan_training(workspace, train_config(workspace.root.local(), **options), pairs[:1], pairs[1:])[0]


class Keeper:
    """A ``save`` that keeps each epoch's checkpoint in a folder of its own, and may be killed after one."""

    def __init__(self, folder: Path) -> None:
        self.folders = (folder / f"after{number}" for number in itertools.count())
        self.kept: list[Path] = []
        self.metrics: list[dict[str, Any]] = []

    def __call__(self, metrics: dict[str, Any] | None, files: dict[str, Any] | None) -> None:
        assert files is not None
        folder = next(self.folders)
        folder.mkdir(parents=True)
        write_checkpoint(folder, files)
        self.kept.append(folder)
        if metrics is not None:
            self.metrics.append(metrics)


def contents(checkpoint: Path) -> Saved:
    """Everything in a checkpoint, bit by bit."""
    state = torch.load(checkpoint / CHECKPOINT, weights_only=True)
    best = torch.load(checkpoint / BEST, weights_only=True)
    moments = {
        f"{kind} {number}": value
        for number, entry in state["optimizer"]["state"].items()
        for kind, value in entry.items()
    }
    averages = {f"average {name}": value for name, value in (state["average"] or {}).items()}
    tensors = {**{f"best {name}": value for name, value in best.items()}, **state["network"], **moments, **averages}
    hashes = {name: hashlib.sha256(value.numpy().tobytes()).digest() for name, value in tensors.items()}
    groups = repr(state["optimizer"]["param_groups"]).encode()
    place = repr((state["step"], state["loss"])).encode()
    rest = {name: (checkpoint / name).read_bytes() for name in (HISTORY, NUMBERS)}
    return {**hashes, "groups": groups, "place": place, **rest}


FULL_SIZE: dict[str, dict[str, Any]] = {
    "unetplusplus": {
        "encoder": "plain8",
        "bands": ["blue", "red"],
        "input": "stacked_difference",
        "arguments": {"deep_supervision": True},
    },
    "siamese_unet": {"encoder": "plain8", "bands": ["blue", "red"]},
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_so_it_is_by_networks_of_full_size_on_some_bands(
    tmp_path: Path, workspace: Workspace, pairs: Pairs, name: str
) -> None:
    options = {"patch": 40, "global_batch": 8, "samples_per_epoch": 160, "epochs": 2, "learning_rate": 0.005}
    job = make_job(workspace, pairs, models={name: FULL_SIZE[name]}, **options)
    assert job.recipe.roles == ("blue", "red")
    keeper = Keeper(tmp_path)
    train_model(job, worker(keeper))
    assert keeper.metrics[-1]["val_iou"] > 0.7


def test_a_trivial_rule_is_learned(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    options = {"patch": 64, "global_batch": 4, "samples_per_epoch": 48, "epochs": 3, "learning_rate": 0.01}
    keeper = Keeper(tmp_path)
    train_model(make_job(workspace, pairs, **options), worker(keeper))
    losses = [row["loss"] for row in keeper.metrics]
    assert losses[-1] < losses[0] / 2
    assert keeper.metrics[-1]["val_iou"] > 0.8
    assert [row["learning_rate"] for row in keeper.metrics] == pytest.approx([0.01, 0.0097, 0.009409])


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated")
@pytest.mark.parametrize(
    "options",
    [
        # drops paths at random while it learns, so what is drawn must not depend on the past
        {"models": {"unetplusplus": {"encoder": "timm-efficientnet-b0", "arguments": {"encoder_depth": 3}}}},
        {"precision": "bfloat16", "learning_rate": 0.05},
        MODERN,
        {"models": {"siamese_unet": {"encoder": "plain8", "arguments": {}}}},
    ],
    ids=["random-net", "bfloat16", "modern", "full-size"],
)
def test_continuing_from_any_epoch_gives_the_same_bits(
    tmp_path: Path, workspace: Workspace, pairs: Pairs, options: dict[str, Any]
) -> None:
    for model in options.get("models", {}).values():
        model["arguments"]["decoder_channels"] = [16, 16, 16]
    job = make_job(workspace, pairs, epochs=3, **options)
    whole = Keeper(tmp_path / "whole")
    train_model(job, worker(whole))
    assert len(whole.kept) == 3
    for done, checkpoint in enumerate(whole.kept[:2], 1):
        torch.rand(done)  # another process would be elsewhere in its random numbers
        rest = Keeper(tmp_path / f"from{done}")
        train_model(job, worker(rest, here(checkpoint)))
        assert [contents(each) for each in rest.kept] == [contents(each) for each in whole.kept[done:]]


@pytest.mark.parametrize("options", [{}, MODERN], ids=["plain", "modern"])
def test_continuing_within_an_epoch_gives_the_same_bits(
    tmp_path: Path, workspace: Workspace, pairs: Pairs, options: dict[str, Any]
) -> None:
    """On notice the state is saved between two steps."""
    job = make_job(workspace, pairs, epochs=2, samples_per_epoch=20, global_batch=2, **options)
    whole, noticed, rest = (Keeper(tmp_path / name) for name in ("whole", "noticed", "rest"))
    train_model(job, worker(whole))
    asked = iter([False, True, False, True])
    train_model(job, dataclasses.replace(worker(noticed), leaving=lambda: next(asked)))
    steps = [torch.load(folder / CHECKPOINT, weights_only=True)["step"] for folder in noticed.kept]
    assert steps == [2 * ASK_EVERY, 0, 2 * ASK_EVERY, 0]
    assert [contents(noticed.kept[number]) for number in (1, 3)] == [contents(each) for each in whole.kept]
    train_model(job, worker(rest, here(noticed.kept[2])))
    assert [contents(each) for each in rest.kept] == [contents(whole.kept[-1])]


def test_one_worker_does_the_parts_of_two(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    """Its gradient is the mean of theirs: losing a worker changes no more than the order of sums."""
    job = make_job(workspace, pairs, epochs=1, samples_per_epoch=4, global_batch=4)
    keeper = Keeper(tmp_path)
    train_model(job, dataclasses.replace(worker(keeper), parts=2))
    saved = torch.load(keeper.kept[0] / CHECKPOINT, weights_only=True)["optimizer"]["state"]
    torch.manual_seed(job.options.seed)
    network = build_model(job.architecture, **job.arguments).train()
    samples = [draw_sample(make_sampler(job), 0, index) for index in range(4)]
    for part in range(2):
        scenes, labels = (np.stack(each) for each in zip(*samples[part::2], strict=True))
        loss = dice_bce(network(torch.from_numpy(scenes)), torch.from_numpy(labels)[:, None])
        torch.autograd.backward(loss / 2)
    gradients = {
        number: weights.grad for number, weights in enumerate(network.parameters()) if weights.grad is not None
    }
    assert gradients.keys() == saved.keys()
    # Adam's first moment after one step is a tenth of the gradient
    assert all(torch.allclose(saved[number]["exp_avg"], each / 10, atol=1e-6) for number, each in gradients.items())


def test_a_finished_run_does_nothing_more(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    job = make_job(workspace, pairs, epochs=1)
    keeper, again = Keeper(tmp_path / "a"), Keeper(tmp_path / "b")
    train_model(job, worker(keeper))
    train_model(job, worker(again, here(keeper.kept[-1])))
    assert again.kept == []


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    job = make_job(workspace, pairs, epochs=4, learning_rate=0.03, patience=4)
    keeper = Keeper(tmp_path)
    train_model(job, worker(keeper))
    networks = [torch.load(folder / CHECKPOINT, weights_only=True)["network"] for folder in keeper.kept]
    chosen = networks[best_epoch(keeper.metrics)]
    best = torch.load(keeper.kept[-1] / BEST, weights_only=True)
    assert best.keys() == chosen.keys()
    assert all(torch.equal(best[name], chosen[name]) for name in best)


def test_the_last_average_is_kept_whatever_the_epochs_scores(
    tmp_path: Path, workspace: Workspace, pairs: Pairs
) -> None:
    """It is what was validated; patience ends nothing, and the weights themselves are others."""
    job = make_job(workspace, pairs, epochs=4, patience=1, **{**MODERN, "learning_rate": 1e-6})
    keeper = Keeper(tmp_path)
    train_model(job, worker(keeper))
    assert len(keeper.metrics) == 4
    falling = [{"val_iou": value} for value in (0.9, 0.5, 0.1)]
    assert kept_epoch(falling, job.options) == 2
    assert not finished(falling, job.options)
    state = torch.load(keeper.kept[-1] / CHECKPOINT, weights_only=True)
    kept = torch.load(keeper.kept[-1] / BEST, weights_only=True)
    assert all(torch.equal(kept[name], state["average"][name]) for name in kept)
    assert any(not torch.equal(kept[name], state["network"][name]) for name in kept)
    network = build_model(job.architecture, **job.arguments)
    network.load_state_dict(kept)
    forward = make_forward(network, execution(job, worker(), "bfloat16"))
    scores = validate(job, worker(), forward)
    assert counts_by_threshold(scores)[500].iou == keeper.metrics[-1]["val_iou"]


def test_training_goes_on_in_the_precision_that_it_began_in(
    tmp_path: Path, workspace: Workspace, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that would choose another."""
    job = make_job(workspace, pairs, epochs=2, precision="auto")
    whole, rest = Keeper(tmp_path / "whole"), Keeper(tmp_path / "rest")
    monkeypatch.setattr("cdpipe.training.job.computes_bfloat16", lambda: True)
    train_model(job, worker(whole))
    monkeypatch.setattr("cdpipe.training.job.computes_bfloat16", lambda: False)
    train_model(job, worker(rest, here(whole.kept[0])))
    assert contents(rest.kept[-1]) == contents(whole.kept[-1])
    assert json.loads((rest.kept[-1] / NUMBERS).read_text()) == "bfloat16"


@pytest.mark.parametrize(
    ("asked", "able", "chosen"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("auto_gpu", True, "float32"),
        ("bfloat16", False, "bfloat16"),
        ("float32", True, "float32"),
    ],
)
def test_precision_is_a_rule(monkeypatch: pytest.MonkeyPatch, asked: str, able: bool, chosen: str) -> None:
    monkeypatch.setattr("cdpipe.training.job.computes_bfloat16", lambda: able)
    assert choose_precision(Train.model_validate({"precision": asked}), "cpu") == chosen


def test_the_last_epoch_needs_no_validation_pairs(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    config = train_config(workspace.root.local(), keep="last", epochs=1)
    (job,) = plan_training(workspace, config, pairs[:1], [])
    keeper = Keeper(tmp_path)
    train_model(job, worker(keeper))
    assert math.isnan(keeper.metrics[0]["val_iou"])
    card = finish_model(job, here(keeper.kept[0]))
    assert card.threshold is None
    assert set(card.metrics) == {"epoch", "learning_rate", "loss"}
    text = (workspace.model(job.name, job.key) / "model.md").read_text()
    assert "last epoch: 1" in text
    assert "in float32" in text
    assert "threshold" not in text
    with pytest.raises(InputError, match="no labelled pair of the split 'val'"):
        plan_training(workspace, train_config(workspace.root.local(), epochs=1), pairs[:1], [])


def test_deeper_levels_are_held_to_the_label_too(workspace: Workspace, pairs: Pairs) -> None:
    job = make_job(workspace, pairs)
    x, y = draw_sample(make_sampler(job), 0, 0)
    batch = torch.from_numpy(np.stack([x, x])), torch.from_numpy(np.stack([y, y])[:, None])
    main, *deeper = (torch.full((2, 1, 32, 32), value) for value in (0.5, -1.0, 2.0))

    class Levels(nn.Module):
        def forward(self, _: torch.Tensor) -> list[torch.Tensor]:
            return [main, *deeper]

    losses = [float(dice_bce(each, batch[1])) for each in (main, *deeper)]
    found = part_loss(job, execution(job, worker(), "float32"), Levels(), batch)
    assert float(found) == pytest.approx(losses[0] + 0.5 * (losses[1] + losses[2]) / 2)


def test_a_frozen_encoder_keeps_all_it_has_until_it_is_let_go(
    tmp_path: Path, workspace: Workspace, pairs: Pairs
) -> None:
    job = dataclasses.replace(make_job(workspace, pairs, epochs=2, learning_rate=0.01), frozen_epochs=1)
    keeper = Keeper(tmp_path)
    train_model(job, worker(keeper))
    torch.manual_seed(job.options.seed)
    start = build_model(job.architecture, **job.arguments).state_dict()
    first, second = (torch.load(folder / CHECKPOINT, weights_only=True)["network"] for folder in keeper.kept)
    changed = {name for name in start if not torch.equal(first[name], start[name])}
    assert changed
    assert not [name for name in changed if name.startswith("encoder.")]
    assert [name for name in start if name.startswith("encoder.") and not torch.equal(second[name], start[name])]


def test_an_epoch_before_an_interruption_stays_the_best(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    job = make_job(workspace, pairs, epochs=2)
    keeper, rest = Keeper(tmp_path / "a"), Keeper(tmp_path / "b")
    train_model(make_job(workspace, pairs, epochs=1), worker(keeper))
    first = keeper.kept[0]
    (first / HISTORY).write_text(json.dumps([{**keeper.metrics[0], "val_iou": 1.0}]))
    train_model(job, worker(rest, here(first)))
    assert rest.metrics[-1]["val_iou"] < 1
    best, expected = (torch.load(folder / BEST, weights_only=True) for folder in (rest.kept[-1], first))
    assert all(torch.equal(best[name], expected[name]) for name in expected)


scores = st.lists(st.sampled_from([math.nan, 0.0, 0.25, 0.5]), min_size=1, max_size=12)


@given(scores, st.integers(1, 5), st.integers(1, 12))
def test_training_stops_after_so_many_epochs_without_a_better_one(
    values: list[float], patience: int, epochs: int
) -> None:
    options = Train(patience=patience, epochs=epochs)
    history: list[dict[str, Any]] = []
    best, since = -math.inf, 0
    for value in values:
        if finished(history, options):
            break
        history.append({"val_iou": value})
        score = -1.0 if math.isnan(value) else value
        best, since = (score, 0) if score > best else (best, since + 1)
        assert best_epoch(history) == len(history) - 1 - since  # of equals the first
        assert finished(history, options) == (since >= patience or len(history) >= epochs)


def ramp(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stands in for a network: depends on the pixel and on its place in the patch, on nothing else."""
    side = patches.shape[-1]
    slope = np.arange(side, dtype=np.float32) / side
    return np.asarray(1 / (1 + np.exp(-np.abs(patches[:, 0]) - slope[:, None] + 2 * slope)), np.float32)


def whole_scene(item: LabelledPair, dates: Dates, valid: NDArray[np.uint8], patch: int) -> NDArray[np.float32]:
    """Probabilities of ``ramp`` from plain arrays; NaN where not observed."""
    observed = valid == 3
    scene = model_input(dates, observed, item.pair.scalings(BASELINE_RECIPE))[0]
    padded = np.pad(scene, [(0, -length % patch) for length in scene.shape], mode="reflect")
    rows, cols = (length // patch for length in padded.shape)
    tiles = padded.reshape(rows, patch, cols, patch).swapaxes(1, 2).reshape(-1, 1, patch, patch)
    scores = ramp(tiles).reshape(rows, cols, patch, patch).swapaxes(1, 2).reshape(padded.shape)
    return np.where(observed, scores[: valid.shape[0], : valid.shape[1]], np.float32(np.nan))


def test_validation_counts_are_those_of_whole_scenes(tmp_path: Path) -> None:
    """Over several blocks, with holes, and with a scene that is smaller than a patch."""
    workspace = Workspace(here(tmp_path))
    stored, expected = [], []
    for number, shape in enumerate([(530, 700), (20, 90)]):
        dates, label = bright_squares(shape, number, squares=30, side=15)
        label[5:9, 30:60] = 255
        valid = np.full(shape, 3, np.uint8)
        valid[:15, :40] = 1
        stored.append(store_pair(workspace, f"p{number}", dates, label, valid))
        expected.append(score_histogram(whole_scene(stored[-1], dates, valid, 32), label))
    job = plan_training(workspace, train_config(tmp_path), stored[:1], stored)[0]
    assert validate(job, worker(), ramp) == expected[0] + expected[1]
    assert [validate(dataclasses.replace(job, val=(item,)), worker(), ramp) for item in stored] == expected
    assert 0 < sum(expected[1].changed) < sum(expected[0].changed)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process, in which a worker may believe to be one of two."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Recorder(nn.Module):
    """Passes batches on and remembers what came along."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[NDArray[np.float32]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().numpy().copy())
        result: torch.Tensor = self.network(x)
        return result


def recorded(job: TrainJob, rank: int, world: int) -> list[NDArray[np.float32]]:
    """The batches that a worker trains on."""
    recorders: list[Recorder] = []

    def wrap(network: nn.Module) -> nn.Module:
        recorders.append(Recorder(network))
        return recorders[0]

    train_model(job, worker(rank=rank, world=world, wrap=wrap))
    return recorders[0].seen


@pytest.mark.usefixtures("alone")
def test_workers_together_train_on_the_batches_of_one(workspace: Workspace, pairs: Pairs) -> None:
    blocks = bright_squares((64, 500), 3, squares=20)
    val = store_pair(workspace, "blocks", *blocks, block=256)  # each of two workers validates on one of its blocks
    job = make_job(workspace, (pairs[0], val), global_batch=4, samples_per_epoch=20, epochs=2)
    sampler = make_sampler(job)
    numbers = [(epoch, step) for epoch in range(2) for step in range(5)]
    shares = [recorded(job, rank, 2) for rank in range(2)]
    for (epoch, step), whole, *parts in zip(numbers, recorded(job, 0, 1), *shares, strict=True):
        samples = [draw_sample(sampler, epoch, 4 * step + index)[0] for index in range(4)]
        assert np.array_equal(whole, np.stack(samples))
        assert np.array_equal(np.concatenate(parts), np.stack([samples[index] for index in (0, 2, 1, 3)]))


@pytest.mark.usefixtures("alone")
def test_workers_together_validate_on_the_blocks_of_one(tmp_path: Path) -> None:
    dates, label = bright_squares((530, 1100), 0)
    workspace = Workspace(here(tmp_path))
    pair = store_pair(workspace, "p", dates, label)
    job = plan_training(workspace, train_config(tmp_path), [pair], [pair])[0]
    first, second = (validate(job, worker(rank=rank, world=2), ramp) for rank in range(2))
    assert first + second == validate(job, worker(), ramp)
    assert 0 < sum(first.unchanged) < label.size


def test_a_network_that_diverges_is_said_to(workspace: Workspace, pairs: Pairs) -> None:
    job = make_job(workspace, pairs, learning_rate=1e30)
    with pytest.raises(CdpipeError, match=r"model unetplusplus: training diverged in epoch 1: .*learning_rate"):
        train_model(job, worker())


def test_no_number_is_not_taken_for_not_observed(workspace: Workspace, pairs: Pairs) -> None:
    def broken(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(patches[:, 0] > 2, np.float32(np.nan), ramp(patches))

    with pytest.raises(CdpipeError, match=r"the network gives no number for \d+ observed"):
        validate(make_job(workspace, pairs), worker(), broken)
