"""What ``cdpipe predict`` works with: models, the pairs that have their bands, who predicts which pair."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cdpipe.cli.session import Session
from cdpipe.cluster.predict import _with_probed_batches
from cdpipe.errors import ConfigError, InputError
from cdpipe.models.folder import read_card
from cdpipe.objects.features import ChangeScene
from cdpipe.pairs.plan import labelled_pair
from cdpipe.pairs.splits import known_splits
from cdpipe.prediction.block import Member, probability_key
from cdpipe.prediction.calibration import Calibration
from cdpipe.prediction.fit import Planned, find_thresholds, fit_members
from cdpipe.prediction.job import (
    ModelSource,
    PredictJob,
    Thresholds,
    is_stored,
    missing_roles,
    pair_ensemble,
    plan_members,
    plan_uses,
    remembered_batches,
    with_batches,
)
from cdpipe.runs.products import Product
from cdpipe.runs.rasters import PairRasters, raster_product
from cdpipe.runs.run_layer import plan_run_layer, run_layer_product
from cdpipe.runs.vectors import PairLayer, pair_layer_product
from cdpipe.training.plan import jobs_for, trained_model, training_folds
from cdpipe.version import __version__


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run is made of, before anything is done.

    Attributes:
        job: Pairs, models and ensembles.
        planned: The pairs.
        splits: Split of each pair that has one.
        thresholds: What counts as change.
        products: What is published of each pair.
    """

    job: PredictJob
    planned: Planned
    splits: dict[str, str]
    thresholds: Thresholds
    products: list[tuple[Product, ...]]


def plan_run(
    session: Session, planned: Planned, members: tuple[Member, ...], splits: dict[str, str]
) -> tuple[PredictJob, dict[str, str]]:
    """Which members predict each pair; and the pairs that thresholds may be fitted on, with what they are.

    Raises:
        ConfigError: If there are no pairs to calibrate int8 on.
    """
    own = not session.config.predict.models
    folds = training_folds(session, [item for item, _ in planned]) if own else {}
    if session.config.predict.precision == "int8":
        members = _calibrated(session, planned, members, splits, folds)
    pairs = tuple(stored for _, stored in planned)
    uses = tuple(plan_uses(members, folds.get(pair.pair_id)) for pair in pairs)
    unseen = dict.fromkeys(folds, "out-of-fold")
    if not unseen:
        unseen = {pair_id: "validation" for pair_id, split in splits.items() if split == "val"}
    return PredictJob(session.workspace, pairs, members, uses), unseen


def _calibrated(
    session: Session,
    planned: Planned,
    members: tuple[Member, ...],
    splits: dict[str, str],
    folds: dict[str, int],
) -> tuple[Member, ...]:
    """The members with the pairs that they are calibrated on: the training pairs, but for a model's own fold."""
    train = [item for item, _ in planned if splits.get(item.pair.pair_id) == "train"]
    pairs = [pair for item in train if (pair := labelled_pair(session.workspace, item)) is not None]
    if not pairs:
        raise ConfigError(
            "predict.precision: int8 is calibrated on labelled pairs of the split train, and the store has none; "
            "ingest some with this configuration, or choose bfloat16 or float32"
        )
    chosen = []
    for member in members:
        seen = (each for each in pairs if member.fold is None or folds.get(each.pair.pair_id) != member.fold)
        chosen.append(replace(member, calibration=Calibration(session.workspace, tuple(seen))))
    return tuple(chosen)


def prefer_stored(session: Session, job: PredictJob, sources: list[ModelSource]) -> PredictJob:
    """The run as it is, or with what the other kind of device has stored, where that is all there and this is not.

    So a laptop may set other thresholds and weights for what a cluster's GPUs have predicted.
    """
    if session.config.predict.backend != "torch":
        return job
    everything = range(len(job.pairs))
    if is_stored(job, everything):
        return job
    for members in possible_members(session, sources):
        stored = replace(job, members=members)
        if is_stored(stored, everything):
            device = members[0].execution.device
            session.say(f"predict: uses the probabilities that are stored already, computed on {device}")
            return stored
    return job


def possible_members(session: Session, sources: list[ModelSource]) -> Iterator[tuple[Member, ...]]:
    """The run's members as each kind of device would run them: CPUs, and GPUs with every batch that was probed here."""
    yield plan_members(session.config, sources, "cpu")
    if session.config.predict.backend != "torch":
        return  # the others are made for CPUs
    members = plan_members(session.config, sources, "cuda")
    yield members
    for batches in remembered_batches(session.workspace).values():
        yield with_batches(members, batches)


def choose_pairs(
    session: Session, job: PredictJob, planned: Planned, splits: dict[str, str]
) -> tuple[PredictJob, Planned]:
    """The run without the pairs that were not asked for.

    Raises:
        InputError: If none is left.
    """
    known = {name for item, _ in planned for name in (item.pair.pair_id, item.pair.name)}
    unknown = [name for name in session.only_pairs if name not in known]
    if unknown:
        raise InputError(f"--pair: no pair {', '.join(unknown)} in the store; its catalog is {session.config.catalog}")
    wanted = [n for n, (item, _) in enumerate(planned) if session.wants(item.pair, splits.get(item.pair.pair_id))]
    if not wanted:
        raise InputError("no pair of the store is among those that --pair and --split ask for")
    chosen = replace(job, pairs=tuple(job.pairs[n] for n in wanted), uses=tuple(job.uses[n] for n in wanted))
    return chosen, [planned[n] for n in wanted]


def model_sources(session: Session, planned: Planned) -> list[ModelSource]:
    """The run's models: those the configuration names, else those it trains.

    Raises:
        InputError: If one is not trained yet.
    """
    if session.config.predict.models:
        return [ModelSource(folder, read_card(folder).name) for folder in session.config.predict.models]
    wanted = session.config.predict.members or list(session.config.train.models)
    jobs = [job for job in jobs_for(session, [item for item, _ in planned]) if job.model in wanted]
    untrained = [job.name for job in jobs if trained_model(job) is None]
    if untrained:
        raise InputError(
            f"not trained on these pairs with this configuration: {', '.join(untrained)}; run cdpipe train first, "
            "or name model folders under predict.models"
        )
    return [ModelSource(session.workspace.model(job.name, job.key), job.model, job.fold) for job in jobs]


def with_needed_bands(session: Session, planned: Planned, members: tuple[Member, ...]) -> Planned:
    """The pairs that have all bands which the models need; the others are failures.

    Raises:
        InputError: If none has.
    """
    kept = []
    for item, stored in planned:
        lacking = missing_roles(stored, members)
        for name, roles in lacking.items():
            bands = f"{', '.join(roles)}, stored are {', '.join(stored.roles)}"
            session.fail(stored.pair_id, f"model {name} needs the bands {bands}")
        if not lacking:
            kept.append((item, stored))
    if not kept:
        raise InputError("no pair has the bands that the models need")
    return kept


def plan_fitting(
    session: Session, planned: Planned, sources: list[ModelSource], members: tuple[Member, ...]
) -> tuple[Planned, PredictJob, dict[str, str]]:
    """The run before anything is fitted: its pairs, its work, and the pairs that may be fitted on."""
    planned = with_needed_bands(session, planned, members)
    splits = known_splits([item for item, _ in planned], session.config.split_buffer)
    job, unseen = plan_run(session, planned, members, splits)
    if not session.looking:
        job = _with_probed_batches(session, prefer_stored(session, job, sources))
    return planned, job, unseen


def make_plan(session: Session, planned: Planned, sources: list[ModelSource], members: tuple[Member, ...]) -> Plan:
    """Find out what the run is made of; thresholds may have to be fitted, and pairs predicted for that."""
    planned, job, unseen = plan_fitting(session, planned, sources, members)
    splits = known_splits([item for item, _ in planned], session.config.split_buffer)
    job = fit_members(session, planned, job, unseen)
    thresholds = find_thresholds(session, planned, job, unseen)
    job, planned = choose_pairs(session, job, planned, splits)
    ensembles = (pair_ensemble(session.config, job, number, thresholds) for number in range(len(job.pairs)))
    job = replace(job, ensembles=tuple(ensembles))
    products = [_plan_products(session, job, number, planned, thresholds) for number in range(len(job.pairs))]
    return Plan(job, planned, splits, thresholds, products)


def _plan_products(
    session: Session, job: PredictJob, number: int, planned: Planned, thresholds: Thresholds
) -> tuple[Product, ...]:
    config, pair, change = session.config, job.pairs[number], job.ensembles[number].key
    tags = {
        "software": f"cdpipe {__version__}",
        "models": ", ".join(f"{each.card.name} {each.card.key}" for each in job.members_of(number)),
        "threshold": f"{thresholds.ensemble:g}",
    }
    wanted = tuple(job.layers(number).items()) if config.predict.model_rasters else ()
    rasters = raster_product(PairRasters(session.workspace, config.name, pair, change, wanted, tags))
    if config.vectors.format == "none":
        return (rasters,)
    members = tuple((probability_key(pair.key, each), thresholds.models[each.name]) for each in job.members_of(number))
    row = planned[number][0].pair
    dates = row.before_date, row.after_date
    scene = ChangeScene(session.workspace, pair, change, members, config.vectors, dates)
    return rasters, pair_layer_product(PairLayer(config.name, scene, tags))


def run_layer(published: Mapping[int, tuple[Product, ...]]) -> Product | None:
    """The layer of change objects of all pairs that are published, None where they have none."""
    specs = [product.spec for _, products in sorted(published.items()) for product in products]
    layer = plan_run_layer([spec for spec in specs if isinstance(spec, PairLayer)])
    return None if layer is None else run_layer_product(layer)


def count_patches(job: PredictJob, blocks: list[tuple[int, int]]) -> int:
    """Patches that networks are run on, about: those of whole pairs, shared out over their blocks.

    Args:
        job: The run.
        blocks: For every block, its pair and how many members are missing.
    """
    total = 0.0
    for number, members in blocks:
        pair = job.pairs[number]
        patch_grid = job.members[0].patch_grid(pair)
        total += members * len(patch_grid.origins(0)) * len(patch_grid.origins(1)) / len(pair.blocks())
    return round(total)
