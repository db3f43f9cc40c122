"""What a training run is made of, and what a worker of it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdpipe.config.schema import Normalisation
from cdpipe.config.train import Train
from cdpipe.inference.patches import Execution
from cdpipe.models.networks import input_kind, required_bands, shown_detectors
from cdpipe.models.pretrained import Pretrained
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
        optional: Bands that a pair may lack.
        init_from: Model folder to start from, or None.
        frozen_epochs: Epochs in which the encoder keeps its weights.
        encoder_rate: What the encoder's learning rate is times the others'.
        pretrained: Weights that the encoder starts from, which ``arguments`` name, or None.
        options: The configuration's ``train``.
        normalisation: The configuration's ``normalisation``.
        train: Pairs to learn from.
        val: Pairs to choose the best epoch by.
        steps: Steps of an epoch.
        sensors: Names of the sensors of the pairs to learn from.
    """

    workspace: Workspace
    model: str
    fold: int | None
    key: str
    architecture: str
    arguments: dict[str, Any]
    optional: tuple[str, ...]
    init_from: Location | None
    frozen_epochs: int
    encoder_rate: float
    pretrained: Pretrained | None
    options: Train
    normalisation: Normalisation
    train: tuple[LabelledPair, ...]
    val: tuple[LabelledPair, ...]
    steps: int
    sensors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The trained model's own name, which says the fold."""
        return self.model if self.fold is None else f"{self.model}-fold{self.fold + 1}"

    @property
    def built(self) -> dict[str, Any]:
        """Arguments for a network whose weights come from elsewhere, such as a checkpoint."""
        return {name: value for name, value in self.arguments.items() if name != "encoder_weights"}

    @property
    def recipe(self) -> Recipe:
        """How stored pixels become the network's input."""
        own = self.normalisation
        return Recipe(
            input_kind(self.architecture, self.arguments),
            required_bands(self.architecture, self.arguments),
            own.statistics,
            own.bands == "together",
            own.limit,
            own.method,
            self.optional,
            shown_detectors(self.arguments),
        )


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


def execution(job: TrainJob, worker: Worker, precision: str) -> Execution:
    """How a worker runs the network while training and validating."""
    return Execution(tta="none", precision=precision, device=worker.device, batch=job.options.global_batch)


def choose_precision(options: Train, device: str) -> str:
    """What the network computes in on a device: a rule, since a measurement could turn out another way tomorrow."""
    import torch

    if options.precision in ("float32", "bfloat16"):
        return options.precision
    if torch.device(device).type == "cuda":
        half = torch.cuda.is_bf16_supported()
    else:
        half = options.precision == "auto" and computes_bfloat16()
    return "bfloat16" if half else "float32"


def computes_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for bfloat16, AVX512-BF16 or AMX; without them it is slow."""
    import torch

    # no public function says so; a torch without these has float32 stay
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in asked)


def lies_channels_last(options: Train, run: Execution) -> bool:
    """Whether weights and activations lie channel by channel of a pixel while training, see :class:`Execution`."""
    return run.channels_last if options.memory_format == "auto" else options.memory_format == "channels_last"
