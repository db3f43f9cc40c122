"""What a training run is made of, and what a worker of it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdpipe.config.schema import Normalisation, Train
from cdpipe.inference.patches import Execution
from cdpipe.models.networks import input_kind, required_bands
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import LabelledPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One model to train.

    Attributes:
        workspace: Where the pairs lie.
        model: The model's name in the configuration.
        fold: Which of the folds it never sees; None where there are none.
        key: Key of the trained model, made by :func:`cdpipe.training.plan.plan_training`.
        architecture: Name in :func:`cdpipe.models.networks.build_model`.
        arguments: Its arguments.
        init_from: Model folder to start from, or None.
        frozen_epochs: Epochs in which the encoder keeps its weights.
        options: The configuration's ``train``.
        normalisation: The configuration's ``normalisation``.
        train: Pairs to learn from.
        val: Pairs to choose the best epoch by.
        steps: Steps of an epoch.
    """

    workspace: Workspace
    model: str
    fold: int | None
    key: str
    architecture: str
    arguments: dict[str, Any]
    init_from: Location | None
    frozen_epochs: int
    options: Train
    normalisation: Normalisation
    train: tuple[LabelledPair, ...]
    val: tuple[LabelledPair, ...]
    steps: int

    @property
    def name(self) -> str:
        """The trained model's own name, which says the fold."""
        return self.model if self.fold is None else f"{self.model}-fold{self.fold + 1}"

    @property
    def recipe(self) -> Recipe:
        """How stored pixels become the network's input."""
        kind = input_kind(self.architecture, self.arguments)
        roles = required_bands(self.architecture, self.arguments)
        own = self.normalisation
        return Recipe(kind, roles, own.statistics, own.bands == "together", own.limit)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker is given by whoever started it.

    Attributes:
        rank: Its number.
        world: Number of workers.
        parts: What each global batch is divided into, at least as many as there are workers: gradients are those of
            ``parts`` workers, however many are there.
        device: ``cpu`` or ``cuda:n``.
        threads: Threads that may read samples.
        wrap: Makes a network train together with the other workers'.
        checkpoint: Folder of the checkpoint to continue from, or None.
        save: Called after every epoch with its metrics (none within an epoch) and with the state's files by name (None
            but for rank 0).
        progress: Called now and then with epoch, step and loss.
        leaving: Asked by all workers now and then, with one answer for all: whether the state is to be saved now,
            since one of them is about to be taken away.
    """

    rank: int
    world: int
    parts: int
    device: str
    threads: int
    wrap: "Callable[[nn.Module], nn.Module]"
    checkpoint: Location | None
    save: Callable[[dict[str, Any] | None, dict[str, Any] | None], None]
    progress: Callable[[int, int, float], None]
    leaving: Callable[[], bool]


def execution(job: TrainJob, worker: Worker) -> Execution:
    """How a worker runs the network while training and validating."""
    import torch

    device = torch.device(worker.device).type
    precision = job.options.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return Execution(tta="none", precision=precision, device=worker.device, batch=job.options.global_batch)
