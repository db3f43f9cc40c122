"""The models of a run as they are run: from which folders, how, and with which batch on a GPU."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cdpipe.config.detectors import detector_folder
from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError
from cdpipe.inference.backends import check_backend, check_runtime
from cdpipe.inference.patches import Execution
from cdpipe.models.ensemble_folder import FOLDER, check_members, given_ensemble
from cdpipe.models.folder import ModelCard, check_trained, read_card
from cdpipe.prediction.block import Member, load_forward, suit_execution
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, locate

DEFAULT_THRESHOLD = 0.5
GPU_BATCH = 8  # patches; with eight views a patch of 256 pixels this fills a GPU of 16 GB to about a half
# A GPU's batch is probed before a run, remembered for its kind of device, then fixed.
MOST = 64  # patches
WORTH_IT = 1.05  # a batch of twice the size, and memory, must be this much faster
ROUNDS = 3

Batches = dict[str, int]  # by :func:`batch_name`


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model folder and its part in a run; see :class:`cdpipe.prediction.block.Member`."""

    folder: Location
    name: str
    fold: int | None = None
    weight: float = 1.0
    temperature: float = 1.0


def plan_members(config: Config, sources: Sequence[ModelSource], device: str) -> tuple[Member, ...]:
    """The models of a run.

    Args:
        config: The configuration.
        sources: Their folders.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If two share a name, the configuration names one that is not there, or the backend cannot run.
        InputError: If one cannot be read or was never trained.
    """
    check_backend(config.predict, device)
    cards = [read_card(source.folder) for source in sources]
    for source, card in zip(sources, cards, strict=True):
        check_trained(source.folder, card)
        if card.is_exported:
            check_runtime(source.folder, card.arguments["runtime"])
    names = [card.name for card in cards]
    if len(set(names)) != len(names):
        raise ConfigError(f"predict.models: expected models of different names, got {', '.join(names)}")
    _check_names(config, [source.name for source in sources])
    precision = config.predict.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    batch = GPU_BATCH if device == "cuda" else 1
    execution = Execution(config.predict.tta, precision, device, batch, config.predict.backend)
    weights: Mapping[str, float] = {} if config.predict.weights == "auto" else config.predict.weights
    overlap = config.predict.overlap
    chosen = config.predict.member_names or [source.name for source in sources]
    members = [
        Member(
            card=card,
            folder=source.folder,
            name=source.name,
            fold=source.fold,
            weight=weights.get(source.name, source.weight),
            overlap=overlap,
            execution=suit_execution(card, execution),
            # what is fitted anew is not fitted on top of this
            temperature=1.0 if config.predict.temperature == "auto" else source.temperature,
        )
        for card, source in zip(cards, sources, strict=True)
    ]
    return tuple(member for member in members if member.name in chosen)


def given_sources(config: Config) -> list[ModelSource]:
    """The models that the configuration names, or the members of the ensemble that it names.

    Raises:
        ConfigError: If an ensemble does not stand alone.
        InputError: If one cannot be read.
    """
    given = given_ensemble(config.predict.models)
    if given is None:
        return [ModelSource(folder, read_card(folder).name) for folder in config.predict.models]
    folder, card = given
    return [
        ModelSource(folder / each.folder, each.layer, each.fold, each.weight, each.temperature) for each in card.members
    ]


def untrained_sources(config: Config) -> list[ModelSource]:
    """The detectors and exported networks among the configuration's members that do not stand among its models.

    Raises:
        InputError: If an exported network cannot be read.
    """
    given = {str(folder) for folder in config.predict.models}
    sources = [ModelSource(detector_folder(name), name) for name in config.predict.detectors]
    files = [locate(file) for file in config.predict.files]
    sources += [ModelSource(file, read_card(file).name) for file in files]
    return [source for source in sources if str(source.folder) not in given]


def check_given(config: Config) -> None:
    """Refuse a backend that cannot be had and an ensemble that is not whole, before any work is spent.

    Raises:
        ConfigError: If the backend cannot be had here, the ensemble does not stand alone, or the models named are
            those that this run's own ensemble would take the place of.
        InputError: If it cannot be read, or a member is missing or another.
        IntegrityError: If a member's weights are damaged.
    """
    check_backend(config.predict, "cpu")
    given = given_ensemble(config.predict.models)
    if given is not None:
        check_members(*given)
        return
    own = Workspace(config.workspace).run(config.name) / FOLDER
    inside = [str(folder) for folder in config.predict.models if folder.is_relative_to(own)]
    if inside:
        raise ConfigError(
            f"predict.models: {', '.join(inside)} would be replaced by what this run hands on: give the run another "
            "name, or name a copy"
        )


def _check_names(config: Config, names: Sequence[str]) -> None:
    """Refuse members, weights and thresholds of models that the run does not have."""
    options = config.predict
    thresholds = options.threshold if isinstance(options.threshold, dict) else {}
    weights = options.weights if isinstance(options.weights, dict) else {}
    for key, given in (("members", options.member_names), ("weights", weights), ("threshold", thresholds)):
        unknown = sorted(set(given) - set(names))
        if unknown:
            known = ", ".join(dict.fromkeys(names))
            raise ConfigError(f"predict.{key}: no model {', '.join(unknown)} in this run, which has {known}")


def suggested_threshold(cards: Sequence[tuple[ModelCard, float]]) -> tuple[float, str]:
    """Threshold of an ensemble that there is no validation pair for, and where it comes from."""
    known = [(card.threshold, weight) for card, weight in cards if card.threshold is not None]
    if not known:
        return DEFAULT_THRESHOLD, "nothing was known to fit it on"
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total, "mean of the models' own"


def describe_members(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as they stand in ``threshold.json``."""
    return [
        {"name": each.card.name, "key": each.card.key, "weight": each.weight, "temperature": each.temperature}
        for each in members
    ]


def run_by(backend: str, members: Sequence[Member]) -> tuple[Member, ...]:
    """The members as another backend would run them."""
    return tuple(
        replace(each, execution=suit_execution(each.card, replace(each.execution, backend=backend))) for each in members
    )


def batch_name(member: Member) -> str:
    """Everything but the device that a batch depends on."""
    run = member.execution
    return f"{member.card.key}-{run.tta}-{run.precision}"


def with_batches(members: Sequence[Member], batches: Batches) -> tuple[Member, ...]:
    """The members, each with the batch that is known for it."""
    return tuple(
        replace(each, execution=replace(each.execution, batch=batches.get(batch_name(each), each.execution.batch)))
        for each in members
    )


def remembered_batches(workspace: Workspace) -> dict[str, Batches]:
    """What was probed in this workspace, by kind of device."""
    value = read_json(workspace.devices)
    return value if isinstance(value, dict) else {}


def remember_batches(workspace: Workspace, device: str, batches: Batches) -> None:
    """Add what was probed on a kind of device."""
    known = remembered_batches(workspace)
    write_json(workspace.devices, {**known, device: {**known.get(device, {}), **batches}})


def probe_batch(member: Member) -> int:
    """The batch that suits the device which a member is to run on."""
    forward, patch, channels = load_forward(member), member.card.patch, member.card.recipe.channels

    def rate(batch: int) -> float:
        patches = np.random.default_rng(0).normal(size=(batch, channels, patch, patch)).astype(np.float32)
        forward(patches)  # the first of a shape also chooses algorithms
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            forward(patches)
        return batch * ROUNDS / (time.perf_counter() - begun)

    return choose_batch(rate)


def choose_batch(rate: Callable[[int], float]) -> int:
    """The first of 1, 2, 4, ... that twice as many patches are hardly faster than, or do not fit in memory.

    Args:
        rate: Patches a second with a batch; raises ``MemoryError``, or torch's error, where it does not fit.
    """
    best, speed = 1, rate(1)
    while 2 * best <= MOST:
        try:
            faster = rate(2 * best)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            break
        if faster < WORTH_IT * speed:
            break
        best, speed = 2 * best, faster
    return best


def _is_out_of_memory(error: Any) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
