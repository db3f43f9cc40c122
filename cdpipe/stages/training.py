"""Training one model: the loop that every worker runs, resumable at each epoch."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import nn

from cdpipe.arrays.losses import dice_bce
from cdpipe.arrays.metrics import ScoreHistogram, best_threshold, counts_by_threshold
from cdpipe.formats.model_io import load_network, read_card
from cdpipe.models import build_model
from cdpipe.stages.samples import Sampler, draw_sample, index_cells
from cdpipe.stages.torch_backend import make_forward
from cdpipe.stages.train_job import TrainJob, Worker, execution
from cdpipe.stages.validation import HALF, validate
from cdpipe.values.config import Train
from cdpipe.values.errors import CdpipeError

CHECKPOINT = "state.pt"
BEST = "best.pt"
HISTORY = "history.json"


@dataclass(slots=True)
class State:
    """What a checkpoint holds: everything that the next epoch depends on."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)


def train_model(job: TrainJob, worker: Worker) -> None:
    """Train until the epochs are over or patience is, saving the state after every epoch.

    Every sample is determined by (seed, epoch, index), every random draw of the network by (seed, epoch,
    rank), so continuing from a checkpoint gives the bits of a run that was never interrupted.

    Raises:
        CdpipeError: If training diverges.
    """
    # on a CPU every operation has a deterministic form; on a GPU some have none, and then only warn
    torch.use_deterministic_algorithms(True, warn_only=True)
    state = _initial_state(job, worker)
    network = worker.wrap(state.network)
    sampler = make_sampler(job)
    while not finished(state.history, job.options):
        epoch = len(state.history)
        torch.manual_seed(int(np.random.SeedSequence([job.options.seed, epoch, worker.rank]).generate_state(1)[0]))
        for group in state.optimizer.param_groups:
            group["lr"] = job.options.learning_rate * job.options.decay**epoch
        loss = _train_epoch(job, worker, state, network, sampler)
        _share_buffers(state.network, worker)
        _refuse_divergence(job, state.network, epoch)
        scores = validate(job, worker, make_forward(state.network, execution(job, worker)))
        state.history.append(_summarise(epoch, loss, scores, state))
        if best_epoch(state.history) == epoch:
            state.best = {name: value.detach().cpu().clone() for name, value in state.network.state_dict().items()}
        worker.save(state.history[-1], _files(state) if worker.rank == 0 else None)


def finished(history: list[dict[str, Any]], options: Train) -> bool:
    """Whether training is over: all epochs done, or ``patience`` of them without a better one."""
    if len(history) >= options.epochs:
        return True
    return bool(history) and len(history) - 1 - best_epoch(history) >= options.patience


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch with the highest validation IoU, the first of equals."""
    scores = [row["val_iou"] if row["val_iou"] == row["val_iou"] else -1.0 for row in history]
    return max(range(len(scores)), key=lambda epoch: (scores[epoch], -epoch))


def make_sampler(job: TrainJob) -> Sampler:
    """The sampler of a training job."""
    return Sampler(
        workspace=job.workspace,
        pairs=job.train,
        pools=index_cells(job.workspace, job.train),
        patch=job.options.patch,
        changed_share=job.options.changed_share,
        recipe=job.recipe,
        seed=job.options.seed,
    )


def _initial_state(job: TrainJob, worker: Worker) -> State:
    torch.manual_seed(job.options.seed)
    if job.init_from is not None:
        network = load_network(job.init_from, read_card(job.init_from))
    else:
        network = build_model(job.architecture, **job.arguments)
    network = network.to(worker.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(network, torch.optim.Adam(network.parameters(), lr=job.options.learning_rate))
    if worker.checkpoint is not None:
        saved = torch.load(worker.checkpoint / CHECKPOINT, map_location=worker.device, weights_only=True)
        state.network.load_state_dict(saved["network"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.best = torch.load(worker.checkpoint / BEST, map_location="cpu", weights_only=True)
        state.history = json.loads((worker.checkpoint / HISTORY).read_text())
    return state


def _train_epoch(job: TrainJob, worker: Worker, state: State, network: nn.Module, sampler: Sampler) -> float:
    network.train()
    device = torch.device(worker.device)
    half = execution(job, worker).precision == "bfloat16"
    epoch, total = len(state.history), 0.0
    if job.frozen_epochs:
        _freeze_encoder(state.network, frozen=epoch < job.frozen_epochs)
    for step, (scenes, labels) in enumerate(_batches(job, worker, sampler, epoch)):
        x = torch.from_numpy(scenes).to(device, memory_format=torch.channels_last)
        y = torch.from_numpy(labels).to(device)
        state.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = network(x)
        loss = dice_bce(logits.float(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        total += float(loss.detach())
        worker.progress(epoch, step + 1, total / (step + 1))
    return total / job.steps


def _freeze_encoder(network: nn.Module, *, frozen: bool) -> None:
    """Keep the encoder's weights and running statistics as they are, or let go of them."""
    encoder = network.get_submodule("encoder")
    encoder.requires_grad_(not frozen).train(not frozen)


def _share_buffers(network: nn.Module, worker: Worker) -> None:
    """Give all workers the first one's running statistics, so that all validate the network that is saved."""
    if worker.world > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _refuse_divergence(job: TrainJob, network: nn.Module, epoch: int) -> None:
    if not all(bool(values.isfinite().all()) for values in network.state_dict().values()):
        raise CdpipeError(
            f"model {job.name}: training diverged in epoch {epoch + 1}: weights are no finite numbers any more; "
            f"lower train.learning_rate, which is {job.options.learning_rate:g}"
        )


def _batches(
    job: TrainJob, worker: Worker, sampler: Sampler, epoch: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """This worker's share of each global batch, read ahead by threads, in order."""
    size = job.options.global_batch
    own = [step * size + index for step in range(job.steps) for index in range(worker.rank, size, worker.world)]
    local = len(own) // job.steps
    with ThreadPoolExecutor(worker.threads) as pool:
        ahead = (2 + worker.threads) * local
        pending = [pool.submit(draw_sample, sampler, epoch, index) for index in own[:ahead]]
        for step in range(job.steps):
            samples = [future.result() for future in pending[:local]]
            start = (step + 1) * local
            fresh = own[start - local + ahead : start + ahead]
            pending = pending[local:] + [pool.submit(draw_sample, sampler, epoch, index) for index in fresh]
            yield (
                np.stack([scene for scene, _ in samples]),
                np.stack([label for _, label in samples])[:, None],
            )


def _summarise(epoch: int, loss: float, scores: ScoreHistogram, state: State) -> dict[str, Any]:
    at_half = counts_by_threshold(scores)[HALF]
    threshold, f1 = best_threshold(scores)
    return {
        "epoch": epoch,
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "loss": loss,
        "val_iou": at_half.iou,
        "val_f1": at_half.f1,
        "val_precision": at_half.precision,
        "val_recall": at_half.recall,
        "best_threshold": threshold,
        "f1_at_best_threshold": f1,
    }


def _files(state: State) -> dict[str, Any]:
    saved = {"network": state.network.state_dict(), "optimizer": state.optimizer.state_dict()}
    return {CHECKPOINT: saved, BEST: state.best, HISTORY: state.history}


def write_checkpoint(folder: Path, files: dict[str, Any]) -> None:
    """Write what :class:`Worker`'s ``save`` was given into a folder."""
    for name, value in files.items():
        if name == HISTORY:
            (folder / name).write_text(json.dumps(value))
        else:
            torch.save(value, folder / name)
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
