"""What a prediction run consists of: members, keys, thresholds, and which blocks are missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdpipe.formats.model_io import ModelCard, check_trained, read_card
from cdpipe.formats.records import GROUP_RECORD, missing_blocks, write_record
from cdpipe.formats.store import CHANGE_LAYERS, PROBABILITY_LAYERS, create_group, metadata_files
from cdpipe.formats.stored_pair import StoredPair
from cdpipe.formats.workspace import Kind, Workspace, sweep
from cdpipe.stages.inference import Execution
from cdpipe.stages.prediction import Ensemble, Member, change_key, probability_key
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
        ensembles: The ensemble of each pair; empty while only probabilities are wanted.
    """

    workspace: Workspace
    pairs: tuple[StoredPair, ...]
    members: tuple[Member, ...]
    ensembles: tuple[Ensemble, ...]


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What is missing of a block: which members' probabilities, and whether the ensemble."""

    pair: int
    key: BlockKey
    members: tuple[int, ...]
    ensemble: bool


def plan_members(config: Config, folders: Sequence[Path], device: str) -> tuple[Member, ...]:
    """The models of a run.

    Args:
        config: The configuration.
        folders: Their folders.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If two share a name or a weight is given to a model that is not there.
    """
    cards = [read_card(folder) for folder in folders]
    for folder, card in zip(folders, cards, strict=True):
        check_trained(folder, card)
    names = [card.name for card in cards]
    if len(set(names)) != len(names):
        raise ConfigError(f"predict.models: expected models of different names, got {', '.join(names)}")
    unknown = sorted(set(config.predict.weights) - set(names))
    if unknown:
        raise ConfigError(f"predict.weights: no model {', '.join(unknown)} in this run, which has {', '.join(names)}")
    precision = config.predict.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    execution = Execution(config.predict.tta, precision, device, GPU_BATCH if device == "cuda" else 1)
    return tuple(
        Member(card, folder, config.predict.weights.get(card.name, 1.0), config.predict.overlap, execution)
        for card, folder in zip(cards, folders, strict=True)
    )


def suggested_threshold(cards: Sequence[tuple[ModelCard, float]]) -> tuple[float, str]:
    """Threshold of an ensemble that there is no validation pair for, and where it comes from."""
    known = [(card.threshold, weight) for card, weight in cards if card.threshold is not None]
    if not known:
        return DEFAULT_THRESHOLD, "nothing was known to fit it on"
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total, "mean of the models' own"


def plan_ensemble(pair: StoredPair, members: Sequence[Member], threshold: float) -> Ensemble:
    """Keys and weights of a pair's ensemble."""
    keys = [probability_key(pair.key, member) for member in members]
    weights = [member.weight for member in members]
    return Ensemble(change_key(keys, weights, threshold), tuple(zip(keys, weights, strict=True)), threshold)


def plan_work(job: PredictJob, chosen: Sequence[int]) -> list[BlockWork]:
    """Blocks of the chosen pairs of which something is missing; records are listed once, groups are made."""
    work = []
    for number in chosen:
        pair = job.pairs[number]
        keys = pair.blocks()
        missing = [_missing(job, pair, "probabilities", probability_key(pair.key, member)) for member in job.members]
        ensemble = _missing(job, pair, "changes", job.ensembles[number].key) if job.ensembles else set()
        for key in keys:
            members = tuple(index for index, blocks in enumerate(missing) if key in blocks)
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
    for member in job.members:
        group = job.workspace.group("probabilities", pair.pair_id, probability_key(pair.key, member))
        attributes = {"model": member.card.name, "model_key": member.card.key, "pair": pair.key}
        create_group(group, PROBABILITY_LAYERS, pair.grid, pair.block, attributes)
    if job.ensembles:
        ensemble = job.ensembles[number]
        group = job.workspace.group("changes", pair.pair_id, ensemble.key)
        parents = {"of": [list(each) for each in ensemble.members], "threshold": ensemble.threshold}
        create_group(group, CHANGE_LAYERS, pair.grid, pair.block, parents)


def finish_results(job: PredictJob, number: int) -> None:
    """Record the metadata of a pair's finished results."""
    pair = job.pairs[number]
    groups: list[tuple[Kind, str]] = [("probabilities", probability_key(pair.key, member)) for member in job.members]
    groups.append(("changes", job.ensembles[number].key))
    for kind, key in groups:
        record = job.workspace.records(kind, pair.pair_id, key) / GROUP_RECORD
        if not record.is_file():
            group = job.workspace.group(kind, pair.pair_id, key)
            write_record(record, job.workspace.root, metadata_files(group))


def member_thresholds(config: Config, members: Sequence[Member], threshold: float) -> list[float]:
    """Threshold at which each model is judged alone: the configured one, else its own, else the ensemble's."""
    if config.predict.threshold != "auto":
        return [float(config.predict.threshold)] * len(members)
    return [threshold if member.card.threshold is None else member.card.threshold for member in members]


def describe_members(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as they stand in ``ensemble.json``."""
    return [{"name": each.card.name, "key": each.card.key, "weight": each.weight} for each in members]


def missing_roles(pair: StoredPair, members: Sequence[Member]) -> Mapping[str, list[str]]:
    """Bands that a member needs and the pair does not have, by member."""
    lacking = {each.card.name: [role for role in each.card.roles if role not in pair.roles] for each in members}
    return {name: roles for name, roles in lacking.items() if roles}
