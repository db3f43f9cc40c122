"""What a prediction run consists of: members, keys, thresholds, and which blocks are missing."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError
from cdpipe.geo.grid import BlockKey
from cdpipe.inference.backends import check_backend
from cdpipe.inference.patches import Execution
from cdpipe.models.folder import ModelCard, check_trained, read_card
from cdpipe.prediction.block import Member, load_forward, probability_key
from cdpipe.prediction.ensemble import MAJORITY, Ensemble, plan_ensemble
from cdpipe.store.groups import CHANGE_ARRAYS, PROBABILITY_ARRAYS, create_group, finish_group, is_described
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Kind, Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import GROUP_RECORD, missing_blocks

DEFAULT_THRESHOLD = 0.5
GPU_BATCH = 8  # patches; with eight views a patch of 256 pixels this fills a GPU of 16 GB to about a half


@dataclass(frozen=True, slots=True)
class PredictJob:
    """What a worker needs to work on any block of a run.

    Attributes:
        workspace: The store.
        pairs: The pairs, by position.
        members: The models.
        uses: Positions of the members that predict each pair.
        ensembles: The ensemble of each pair; empty while only probabilities are wanted.
    """

    workspace: Workspace
    pairs: tuple[StoredPair, ...]
    members: tuple[Member, ...]
    uses: tuple[tuple[int, ...], ...]
    ensembles: tuple[Ensemble, ...] = ()

    def only(self, number: int) -> "PredictJob":
        """The run of one pair alone, whose position is then 0."""
        part = slice(number, number + 1)
        return replace(self, pairs=self.pairs[part], uses=self.uses[part], ensembles=self.ensembles[part])

    def members_of(self, number: int) -> list[Member]:
        """The members that predict a pair."""
        return [self.members[index] for index in self.uses[number]]

    def layers(self, number: int) -> dict[str, str]:
        """Probability key of each layer of a pair: its member's name, or the model's where one fold speaks for it."""
        chosen = self.members_of(number)
        names = Counter(member.name for member in chosen)
        return {
            member.name if names[member.name] == 1 else member.card.name: probability_key(
                self.pairs[number].key, member
            )
            for member in chosen
        }


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model folder and its part in a run; see :class:`cdpipe.prediction.block.Member`."""

    folder: Location
    name: str
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as change.

    Attributes:
        ensemble: Of the ensemble's probability.
        models: Of each model alone, by name.
        fitted_on: What the ensemble's was fitted on, in words.
    """

    ensemble: float
    models: dict[str, float]
    fitted_on: str


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What is missing of a block: which members' probabilities, and whether the ensemble."""

    pair: int
    key: BlockKey
    members: tuple[int, ...]
    ensemble: bool


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
    chosen = config.predict.members or [source.name for source in sources]
    return tuple(
        Member(card, source.folder, source.name, source.fold, weights.get(source.name, 1.0), overlap, execution)
        for card, source in zip(cards, sources, strict=True)
        if source.name in chosen
    )


def _check_names(config: Config, names: Sequence[str]) -> None:
    """Refuse members, weights and thresholds of models that the run does not have."""
    options = config.predict
    thresholds = options.threshold if isinstance(options.threshold, dict) else {}
    weights = options.weights if isinstance(options.weights, dict) else {}
    for key, given in (("members", options.members), ("weights", weights), ("threshold", thresholds)):
        unknown = sorted(set(given) - set(names))
        if unknown:
            known = ", ".join(dict.fromkeys(names))
            raise ConfigError(f"predict.{key}: no model {', '.join(unknown)} in this run, which has {known}")


def plan_uses(members: Sequence[Member], fold: int | None) -> tuple[int, ...]:
    """Positions of the members that predict a pair of a fold: never one that learned from it."""
    return tuple(
        index for index, member in enumerate(members) if fold is None or member.fold is None or member.fold == fold
    )


def suggested_threshold(cards: Sequence[tuple[ModelCard, float]]) -> tuple[float, str]:
    """Threshold of an ensemble that there is no validation pair for, and where it comes from."""
    known = [(card.threshold, weight) for card, weight in cards if card.threshold is not None]
    if not known:
        return DEFAULT_THRESHOLD, "nothing was known to fit it on"
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total, "mean of the models' own"


def pair_ensemble(config: Config, job: PredictJob, number: int, thresholds: Thresholds) -> Ensemble:
    """The ensemble of a pair; models of several folds share their name's weight."""
    shares = member_shares(job, number)
    votes = [thresholds.models[member.name] for member in job.members_of(number)]
    if config.predict.ensemble == "vote":
        return plan_ensemble(shares, MAJORITY, votes)
    return plan_ensemble(shares, thresholds.ensemble, temperatures=member_temperatures(job, number))


def member_shares(job: PredictJob, number: int, name: str | None = None) -> list[tuple[str, float]]:
    """Probability key and weight of a pair's members, all or those of one name."""
    chosen = [member for member in job.members_of(number) if name in (None, member.name)]
    counts = Counter(member.name for member in chosen)
    return [(probability_key(job.pairs[number].key, member), member.weight / counts[member.name]) for member in chosen]


def member_temperatures(job: PredictJob, number: int, name: str | None = None) -> list[float]:
    """Temperatures of the same members in the same order."""
    return [member.temperature for member in job.members_of(number) if name in (None, member.name)]


def plan_work(job: PredictJob, chosen: Sequence[int]) -> list[BlockWork]:
    """Blocks of the chosen pairs of which something is missing; records are listed once."""
    return list(missing_work(job, chosen))


def missing_work(job: PredictJob, chosen: Iterable[int]) -> Iterator[BlockWork]:
    """The same one by one, each pair's records listed when it comes up: whether there is any is known at once."""
    for number in chosen:
        pair = job.pairs[number]
        groups: list[tuple[Kind, str]] = [
            ("probabilities", probability_key(pair.key, job.members[index])) for index in job.uses[number]
        ]
        if job.ensembles:
            groups.append(("changes", job.ensembles[number].key))
        keys = pair.blocks()
        missing = [set(missing_blocks(job.workspace.records(kind, pair.pair_id, key), keys)) for kind, key in groups]
        for key in keys if any(missing) else ():
            members = tuple(index for index, blocks in zip(job.uses[number], missing, strict=False) if key in blocks)
            ensemble = bool(job.ensembles) and key in missing[-1]
            if members or ensemble:
                yield BlockWork(number, key, members, ensemble)


def is_stored(job: PredictJob, chosen: Iterable[int]) -> bool:
    """Whether nothing is missing of the chosen pairs."""
    return next(missing_work(job, chosen), None) is None


def describe_members(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as they stand in ``ensemble.json``."""
    return [
        {"name": each.card.name, "key": each.card.key, "weight": each.weight, "temperature": each.temperature}
        for each in members
    ]


def missing_roles(pair: StoredPair, members: Sequence[Member]) -> Mapping[str, list[str]]:
    """Bands that a member needs and the pair does not have, by member."""
    lacking = {each.card.name: [role for role in each.card.roles if role not in pair.roles] for each in members}
    return {name: roles for name, roles in lacking.items() if roles}


# The groups of the store that a run's results lie in: made empty, and declared finished.


def create_result_groups(job: PredictJob, number: int) -> None:
    """Make the empty arrays of a pair's results, where they are not there yet."""
    pair = job.pairs[number]
    for member in job.members_of(number):
        group = job.workspace.group("probabilities", pair.pair_id, probability_key(pair.key, member))
        facts = {"model": member.card.name, "model_key": member.card.key, "pair": pair.key}
        create_group(group, PROBABILITY_ARRAYS, pair.grid, pair.block, facts)
    if job.ensembles:
        ensemble = job.ensembles[number]
        group = job.workspace.group("changes", pair.pair_id, ensemble.key)
        attributes: dict[str, Any] = {"of": [list(each) for each in ensemble.members], "threshold": ensemble.threshold}
        if ensemble.temperatures:
            attributes["temperatures"] = list(ensemble.temperatures)
        if ensemble.votes:
            attributes["votes"] = list(ensemble.votes)
        create_group(group, CHANGE_ARRAYS, pair.grid, pair.block, attributes)


def finish_results(job: PredictJob, number: int) -> None:
    """Record the metadata of a pair's finished results; what verification took away of it is put back."""
    pair = job.pairs[number]
    create_result_groups(job, number)
    for kind, key in _result_groups(job, number):
        if not (job.workspace.records(kind, pair.pair_id, key) / GROUP_RECORD).is_file():
            finish_group(job.workspace, kind, pair.pair_id, key)


def results_are_finished(job: PredictJob, number: int) -> bool:
    """Whether :func:`finish_results` has nothing to do."""
    pair = job.pairs[number]
    layers = {"probabilities": PROBABILITY_ARRAYS, "changes": CHANGE_ARRAYS}
    return all(
        is_described(job.workspace.group(kind, pair.pair_id, key), layers[kind], pair.grid)
        and (job.workspace.records(kind, pair.pair_id, key) / GROUP_RECORD).is_file()
        for kind, key in _result_groups(job, number)
    )


def _result_groups(job: PredictJob, number: int) -> list[tuple[Kind, str]]:
    groups: list[tuple[Kind, str]] = [("probabilities", key) for key, _ in member_shares(job, number)]
    return [*groups, ("changes", job.ensembles[number].key)]


# How many patches a GPU is given at once: probed before a run, remembered for its kind of device, then fixed.

MOST = 64  # patches
WORTH_IT = 1.05  # a batch of twice the size, and memory, must be this much faster
ROUNDS = 3

Batches = dict[str, int]  # by :func:`batch_name`


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
