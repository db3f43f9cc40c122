"""Training one model: the loop that every worker runs, resumable at each epoch, and within one on notice."""

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import nn

from cdpipe.config.train import Train
from cdpipe.detectors.stored import read_shown
from cdpipe.errors import CdpipeError
from cdpipe.geo.grid import BlockKey
from cdpipe.geo.tilings import PatchGrid
from cdpipe.inference.patches import Execution, Forward, Placement, predict_window
from cdpipe.inference.torch import make_forward
from cdpipe.inference.transfers import sent_ahead
from cdpipe.metrics.counts import ScoreHistogram, best_threshold, counts_by_threshold, score_histogram
from cdpipe.models.encoders import weights_sha256
from cdpipe.models.folder import load_network, read_card
from cdpipe.models.networks import build_model, encoder_name
from cdpipe.store.pair import LabelledPair, read_label, read_observed, read_scene
from cdpipe.training.augment import make_augmentation
from cdpipe.training.job import TrainJob, Worker, choose_precision, execution, lies_channels_last
from cdpipe.training.loss import batch_loss
from cdpipe.training.optimization import clip_gradients, make_optimizer, set_rate, update_average
from cdpipe.training.samples import CellPools, PixelPools, Sampler, draw_sample, index_cells, index_pixels

BINS = 1000  # of the validation pairs' probabilities
HALF = BINS // 2  # position of the threshold 0.5
CHECKPOINT = "state.pt"
BEST = "best.pt"
HISTORY = "history.json"
PRETRAINED = "pretrained.json"  # the weights that the encoder started from
NUMBERS = "precision.json"  # what the network computes in: another machine that goes on does as the first did
DEEPER = 0.5  # weight of the mean loss of a network's deeper levels, where it says what they see
ASK_EVERY = 4  # steps after which workers ask each other whether one of them must leave

# scenes (N, channel, patch, patch) and labels (N, 1, patch, patch); or one of each without their first axis
Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]


def validate(job: TrainJob, worker: Worker, forward: Forward) -> ScoreHistogram:
    """Probabilities of all validation pairs against their labels, every pixel once, summed over workers.

    Pairs go through the network window by window and leave counts alone; no scene is held as a whole. Patches do not
    overlap and are not augmented: that ranks epochs as well, at a fraction of the cost.
    """
    blocks = [(item, key) for item in job.val for key in item.blocks()]
    total = ScoreHistogram(0.0, 1.0, (0,) * (BINS + 2), (0,) * (BINS + 2))
    for item, key in blocks[worker.rank :: worker.world]:
        total += _score_block(job, item, key, forward)
    return _sum_over_workers(total, worker)


def _score_block(job: TrainJob, item: LabelledPair, key: BlockKey, forward: Forward) -> ScoreHistogram:
    pair, patch = item.pair, job.options.patch
    place = Placement(PatchGrid(pair.grid.shape, patch, patch), pair.window(key))
    observed = read_observed(job.workspace, pair, place.halo)
    scene = read_scene(job.workspace, pair, place.halo, observed, pair.scalings(job.recipe))
    if job.recipe.detectors:
        scene = np.concatenate([scene, read_shown(job.workspace, pair, place.halo, job.recipe)])
    probability = predict_window(forward, job.options.global_batch, scene, observed, place)
    return score_histogram(probability, read_label(job.workspace, item, place.window), bins=BINS)


def _sum_over_workers(histogram: ScoreHistogram, worker: Worker) -> ScoreHistogram:
    if worker.world == 1:
        return histogram
    counts = torch.tensor([histogram.changed, histogram.unchanged], dtype=torch.int64, device=worker.device)
    torch.distributed.all_reduce(counts)
    changed, unchanged = (tuple(row) for row in counts.tolist())
    return ScoreHistogram(histogram.low, histogram.high, changed, unchanged)


@dataclass(slots=True)
class State:
    """What a checkpoint holds: everything that the next step depends on.

    Attributes:
        network: The network.
        optimizer: Its optimizer.
        execution: How the network is run.
        average: The average of its weights that is judged and kept; None where the weights themselves are.
        pretrained: The weights that its encoder started from, as a model's card has them; None for none.
        history: Figures of the epochs that are done.
        best: Weights of the one of them that is kept.
        step: Steps done of the next one.
        loss: Sum of this worker's losses in them.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    execution: Execution
    average: nn.Module | None = None
    pretrained: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    step: int = 0
    loss: float = 0.0

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average


def train_model(job: TrainJob, worker: Worker) -> None:
    """Train until the epochs are over or patience is, saving the state after every epoch.

    Every sample is determined by (seed, epoch, index), every random draw of the network by (seed, epoch, step,
    part), the learning rate by the step, so continuing from a checkpoint gives the bits of a run that was never
    interrupted. With fewer workers than there are parts of a global batch each does several of them, one after the
    other, before a step: gradients are the same but for the order of sums.

    Raises:
        CdpipeError: If training diverges.
    """
    # on a CPU every operation has a deterministic form; on a GPU some have none, and then only warn
    torch.use_deterministic_algorithms(True, warn_only=True)
    # which fills all memory that is not written yet, so that reading it is noticed: some 7 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    state = _initial_state(job, worker)
    network = worker.wrap(state.network)
    sampler = make_sampler(job)
    while not finished(state.history, job.options):
        epoch = len(state.history)
        _train_epoch(job, worker, state, network, sampler)
        _share_buffers(state, worker)
        _refuse_divergence(job, state.network, epoch)
        scores = validate(job, worker, make_forward(state.judged, state.execution))
        state.history.append(_summarise(job, epoch, scores, state))
        state.step, state.loss = 0, 0.0
        if kept_epoch(state.history, job.options) == epoch:
            state.best = {name: value.detach().cpu().clone() for name, value in state.judged.state_dict().items()}
        worker.save(state.history[-1], _files(state) if worker.rank == 0 else None)


def finished(history: list[dict[str, Any]], options: Train) -> bool:
    """Whether training is over: all epochs done, or ``patience`` of them without a better one if that is kept."""
    if len(history) >= options.epochs:
        return True
    return options.keep == "best" and bool(history) and len(history) - 1 - best_epoch(history) >= options.patience


def kept_epoch(history: list[dict[str, Any]], options: Train) -> int:
    """The epoch whose weights are kept."""
    return best_epoch(history) if options.keep == "best" else len(history) - 1


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch with the highest validation IoU, the first of equals."""
    scores = [row["val_iou"] if row["val_iou"] == row["val_iou"] else -1.0 for row in history]
    return max(range(len(scores)), key=lambda epoch: (scores[epoch], -epoch))


def make_sampler(job: TrainJob) -> Sampler:
    """The sampler of a training job."""
    options = job.options
    if options.sampling == "pixels":
        pools: CellPools | PixelPools = index_pixels(job.workspace, job.train, options.pair_weight)
    else:
        pools = index_cells(job.workspace, job.train)
    return Sampler(
        workspace=job.workspace,
        pairs=job.train,
        pools=pools,
        patch=options.patch,
        changed_share=options.changed_share,
        recipe=job.recipe,
        seed=options.seed,
        augmentation=make_augmentation(options.augment),
    )


def _initial_state(job: TrainJob, worker: Worker) -> State:
    torch.manual_seed(job.options.seed)
    checkpoint, pretrained = worker.checkpoint, None
    if job.init_from is not None:
        network = load_network(job.init_from, read_card(job.init_from))
    elif checkpoint is not None:  # its weights follow, so that none are fetched again
        network = build_model(job.architecture, **job.built)
        if (checkpoint / PRETRAINED).is_file():
            pretrained = json.loads((checkpoint / PRETRAINED).read_text())
    else:
        network, pretrained = fresh_network(job)
    precision = _agree(choose_precision(job.options, worker.device), worker)
    if checkpoint is not None:
        precision = json.loads((checkpoint / NUMBERS).read_text())
    run = execution(job, worker, precision)
    layout = torch.channels_last if lies_channels_last(job.options, run) else torch.contiguous_format
    network = network.to(worker.device, memory_format=layout)  # type: ignore[call-overload]
    average = deepcopy(network).requires_grad_(False) if job.options.ema else None
    state = State(network, make_optimizer(network, job.options, job.encoder_rate), run, average, pretrained)
    if checkpoint is not None:
        with (checkpoint / CHECKPOINT).open() as file:
            saved = torch.load(file, map_location=worker.device, weights_only=True)
        state.network.load_state_dict(saved["network"])
        state.optimizer.load_state_dict(saved["optimizer"])
        if state.average is not None:
            state.average.load_state_dict(saved["average"])
        with (checkpoint / BEST).open() as file:
            state.best = torch.load(file, map_location="cpu", weights_only=True)
        state.history = json.loads((checkpoint / HISTORY).read_text())
        state.step, state.loss = saved["step"], saved["loss"]
    return state


def fresh_network(job: TrainJob) -> tuple[nn.Module, dict[str, Any] | None]:
    """A job's network before its first step, and what its card will say of the weights that the encoder starts from.

    Raises:
        InputError: If those weights cannot be had or do not fit.
    """
    if job.pretrained is None:
        return build_model(job.architecture, **job.built), None
    network = build_model(job.architecture, **job.built, encoder_weights=job.pretrained)
    encoder = encoder_name(job.architecture, job.arguments)
    return network, job.pretrained.describe(weights_sha256(encoder, job.pretrained))


def _agree(precision: str, worker: Worker) -> str:
    """The same precision for all workers: bfloat16 if each of them would take it."""
    if worker.world == 1:
        return precision
    half = torch.tensor(int(precision == "bfloat16"), device=worker.device)
    torch.distributed.all_reduce(half, torch.distributed.ReduceOp.MIN)
    return "bfloat16" if half else "float32"


def _train_epoch(job: TrainJob, worker: Worker, state: State, network: nn.Module, sampler: Sampler) -> None:
    """Do what is left of an epoch's steps."""
    network.train()
    epoch = len(state.history)
    if job.frozen_epochs:
        _freeze_encoder(state.network, frozen=epoch < job.frozen_epochs)
    own = range(worker.rank, worker.parts, worker.world)
    device = torch.device(state.execution.device)
    for batch in sent_ahead(_batches(job, worker, sampler, epoch, state.step), device):
        number = epoch * job.steps + state.step
        set_rate(state.optimizer, job.options, number, job.steps)
        state.optimizer.zero_grad(set_to_none=True)
        for part, (x, y) in zip(own, batch, strict=True):
            seeds = np.random.SeedSequence([job.options.seed, epoch, state.step, part])
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            # gradients travel with the last of a worker's parts
            waits = getattr(network, "no_sync", nullcontext) if part != own[-1] else nullcontext
            with waits():
                loss = part_loss(job, state.execution, network, (x, y))
                # workers' gradients are averaged, whatever the number of their parts
                (loss * (worker.world / worker.parts)).backward()  # type: ignore[no-untyped-call]
            state.loss += float(loss.detach()) / len(own)
        clip_gradients(state.network, job.options.clip_norm)
        state.optimizer.step()
        if state.average is not None:
            update_average(state.average, state.network, job.options.ema, number)
        state.step += 1
        worker.progress(epoch, state.step, state.loss / state.step)
        if state.step % ASK_EVERY == 0 and state.step < job.steps and worker.leaving():
            worker.save(None, _files(state) if worker.rank == 0 else None)


def part_loss(
    job: TrainJob, run: Execution, network: nn.Module, samples: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """The loss of a part of a global batch; a network that says what its deeper levels see is held to that too.

    Args:
        job: The training.
        run: How its network is run.
        network: The network.
        samples: Scenes and labels as in :data:`Batch`, on the device.
    """
    layout = torch.channels_last if lies_channels_last(job.options, run) else torch.contiguous_format
    x, y = samples[0].contiguous(memory_format=layout), samples[1]
    with torch.autocast(x.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
        said = network(x)
    first, *deeper = said if isinstance(said, list | tuple) else (said,)
    loss = batch_loss(job.options.loss, first.float(), y)
    if deeper:
        others = torch.stack([batch_loss(job.options.loss, logits.float(), y) for logits in deeper])
        loss = loss + DEEPER * others.mean()
    return loss


def _freeze_encoder(network: nn.Module, *, frozen: bool) -> None:
    """Keep the encoder's weights and running statistics as they are, or let go of them."""
    encoder = network.get_submodule("encoder")
    encoder.requires_grad_(not frozen).train(not frozen)


def _share_buffers(state: State, worker: Worker) -> None:
    """Give all workers the first one's running statistics, so that all validate the network that is saved."""
    networks = [state.network] if state.average is None else [state.network, state.average]
    for buffer in [each for network in networks for each in network.buffers()] if worker.world > 1 else []:
        torch.distributed.broadcast(buffer, src=0)


def _refuse_divergence(job: TrainJob, network: nn.Module, epoch: int) -> None:
    if not all(bool(values.isfinite().all()) for values in network.state_dict().values()):
        raise CdpipeError(
            f"model {job.name}: training diverged in epoch {epoch + 1}: weights are no finite numbers any more; "
            f"lower train.learning_rate, which is {job.options.learning_rate:g}"
        )


def _batches(job: TrainJob, worker: Worker, sampler: Sampler, epoch: int, done: int) -> Iterator[list[Batch]]:
    """This worker's parts of each global batch that is left, read ahead by threads, in order."""
    size, parts = job.options.global_batch, range(worker.rank, worker.parts, worker.world)
    steps = range(done, job.steps)
    own = [step * size + index for step in steps for part in parts for index in range(part, size, worker.parts)]
    local, share = size // worker.parts * len(parts), size // worker.parts
    with ThreadPoolExecutor(worker.threads) as pool:
        ahead = (2 + worker.threads) * local
        pending = [pool.submit(draw_sample, sampler, epoch, index) for index in own[:ahead]]
        for number in range(len(steps)):
            samples = [future.result() for future in pending[:local]]
            start = number * local + ahead
            fresh = own[start : start + local]
            pending = pending[local:] + [pool.submit(draw_sample, sampler, epoch, index) for index in fresh]
            yield [_stack(samples[first : first + share]) for first in range(0, local, share)]


def _stack(samples: list[Batch]) -> Batch:
    return np.stack([scene for scene, _ in samples]), np.stack([label for _, label in samples])[:, None]


def _summarise(job: TrainJob, epoch: int, scores: ScoreHistogram, state: State) -> dict[str, Any]:
    at_half = counts_by_threshold(scores)[HALF]
    threshold, f1 = best_threshold(scores) if sum(scores.changed) else (math.nan, math.nan)
    return {
        "epoch": epoch,
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "loss": state.loss / job.steps,
        "val_iou": at_half.iou,
        "val_f1": at_half.f1,
        "val_precision": at_half.precision,
        "val_recall": at_half.recall,
        "best_threshold": threshold,
        "f1_at_best_threshold": f1,
    }


def _files(state: State) -> dict[str, Any]:
    saved = {
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average.state_dict() if state.average is not None else None,
        "step": state.step,
        "loss": state.loss,
    }
    start = {PRETRAINED: state.pretrained} if state.pretrained else {}
    return {CHECKPOINT: saved, BEST: state.best, HISTORY: state.history, NUMBERS: state.execution.precision, **start}


def write_checkpoint(folder: Path, files: dict[str, Any]) -> None:
    """Write what :class:`Worker`'s ``save`` was given into a folder."""
    for name, value in files.items():
        if name.endswith(".json"):
            (folder / name).write_text(json.dumps(value))
        else:
            torch.save(value, folder / name)
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
