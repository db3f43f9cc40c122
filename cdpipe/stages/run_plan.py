"""What a prediction run consists of: members, keys, thresholds, and which blocks are missing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdpipe.formats.groups import CHANGE_LAYERS, PROBABILITY_LAYERS, create_group, metadata_files
from cdpipe.formats.model_io import ModelCard, check_trained, read_card
from cdpipe.formats.records import GROUP_RECORD, missing_blocks, write_record
from cdpipe.formats.stored_pair import StoredPair
from cdpipe.formats.workspace import Kind, Workspace, sweep
from cdpipe.stages.ensemble import MAJORITY, Ensemble, plan_ensemble
from cdpipe.stages.inference import Execution
from cdpipe.stages.openvino_backend import check_backend
from cdpipe.stages.prediction import Member, probability_key
from cdpipe.values.config import Config
from cdpipe.values.errors import ConfigError
from cdpipe.values.grid import BlockKey

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
    """A model folder and its part in a run; see :class:`cdpipe.stages.prediction.Member`."""

    folder: Path
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
    weights, overlap = config.predict.weights, config.predict.overlap
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
    for key, given in (("members", options.members), ("weights", options.weights), ("threshold", thresholds)):
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
    return plan_ensemble(shares, thresholds.ensemble)


def member_shares(job: PredictJob, number: int, name: str | None = None) -> list[tuple[str, float]]:
    """Probability key and weight of a pair's members, all or those of one name."""
    chosen = [member for member in job.members_of(number) if name in (None, member.name)]
    counts = Counter(member.name for member in chosen)
    return [(probability_key(job.pairs[number].key, member), member.weight / counts[member.name]) for member in chosen]


def plan_work(job: PredictJob, chosen: Sequence[int]) -> list[BlockWork]:
    """Blocks of the chosen pairs of which something is missing; records are listed once, groups are made."""
    work = []
    for number in chosen:
        pair = job.pairs[number]
        keys = pair.blocks()
        missing = {
            index: _missing(job, pair, "probabilities", probability_key(pair.key, job.members[index]))
            for index in job.uses[number]
        }
        ensemble = _missing(job, pair, "changes", job.ensembles[number].key) if job.ensembles else set()
        for key in keys:
            members = tuple(index for index, blocks in missing.items() if key in blocks)
            if members or key in ensemble:
                work.append(BlockWork(number, key, members, key in ensemble))
    return work


def _missing(job: PredictJob, pair: StoredPair, kind: Kind, key: str) -> set[BlockKey]:
    return set(missing_blocks(job.workspace.records(kind, pair.pair_id, key), pair.blocks()))


def create_result_groups(job: PredictJob, number: int) -> None:
    """Make the empty arrays of a pair's results, where they are not there yet; leftovers of a killed run go."""
    pair = job.pairs[number]
    kinds: tuple[Kind, ...] = ("probabilities", "changes")
    for kind in kinds:
        sweep(job.workspace.group(kind, pair.pair_id, pair.key).parent)
        sweep(job.workspace.records(kind, pair.pair_id, pair.key).parent)
    _create_groups(job, number)


def _create_groups(job: PredictJob, number: int) -> None:
    pair = job.pairs[number]
    for member in job.members_of(number):
        group = job.workspace.group("probabilities", pair.pair_id, probability_key(pair.key, member))
        facts = {"model": member.card.name, "model_key": member.card.key, "pair": pair.key}
        create_group(group, PROBABILITY_LAYERS, pair.grid, pair.block, facts)
    if job.ensembles:
        ensemble = job.ensembles[number]
        group = job.workspace.group("changes", pair.pair_id, ensemble.key)
        attributes: dict[str, Any] = {"of": [list(each) for each in ensemble.members], "threshold": ensemble.threshold}
        if ensemble.votes:
            attributes["votes"] = list(ensemble.votes)
        create_group(group, CHANGE_LAYERS, pair.grid, pair.block, attributes)


def finish_results(job: PredictJob, number: int) -> None:
    """Record the metadata of a pair's finished results; what verification took away of it is put back."""
    pair = job.pairs[number]
    _create_groups(job, number)
    groups: list[tuple[Kind, str]] = [("probabilities", key) for key, _ in member_shares(job, number)]
    groups.append(("changes", job.ensembles[number].key))
    for kind, key in groups:
        record = job.workspace.records(kind, pair.pair_id, key) / GROUP_RECORD
        if not record.is_file():
            group = job.workspace.group(kind, pair.pair_id, key)
            sweep(group)  # what workers that were killed, and replaced, left half-written
            sweep(record.parent)
            write_record(record, job.workspace.root, metadata_files(group))


def describe_members(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as they stand in ``ensemble.json``."""
    return [{"name": each.card.name, "key": each.card.key, "weight": each.weight} for each in members]


def missing_roles(pair: StoredPair, members: Sequence[Member]) -> Mapping[str, list[str]]:
    """Bands that a member needs and the pair does not have, by member."""
    lacking = {each.card.name: [role for role in each.card.roles if role not in pair.roles] for each in members}
    return {name: roles for name, roles in lacking.items() if roles}
