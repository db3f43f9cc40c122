"""What a run is made of: which members predict which pairs, what counts as change, and what is missing of it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import BlockKey, Window
from cdpipe.inference.backends import is_for_cpus
from cdpipe.models.answering import is_finer
from cdpipe.models.ensemble_folder import EnsembleCard, given_ensemble
from cdpipe.models.familiarity import pixel_side
from cdpipe.objects.features import ChangeScene
from cdpipe.pairs.plan import PlannedPair
from cdpipe.prediction.block import Member, probability_key
from cdpipe.prediction.calibration import Calibration
from cdpipe.prediction.ensemble import MAJORITY, Ensemble, plan_ensemble
from cdpipe.runs.members import (
    ModelSource,
    given_sources,
    plan_members,
    remembered_batches,
    run_by,
    untrained_sources,
    with_batches,
)
from cdpipe.runs.products import Product
from cdpipe.runs.rasters import PairRasters, raster_product
from cdpipe.runs.run import Inventory
from cdpipe.runs.run_layer import plan_run_layer, run_layer_product
from cdpipe.runs.vectors import PairLayer, pair_layer_product
from cdpipe.store.arrays import open_array
from cdpipe.store.pair import DATES, LabelledPair, StoredPair
from cdpipe.training.plan import labelled_parts, trained_model, training_folds, training_jobs
from cdpipe.version import __version__
from cdpipe.workspace.layout import Kind, Workspace
from cdpipe.workspace.records import missing_blocks

UNSEEN = ("out-of-fold", "validation")


@dataclass(frozen=True, slots=True)
class RunPair:
    """A pair of a run.

    Attributes:
        planned: What the catalog says of it, and its keys.
        stored: Its grid and pixels.
        split: Its split, None where it has none as a whole.
        members: The models that predict it: never one that learned from it.
        ensemble: How their probabilities become change; None while that is not known, or not wanted.
        strips: The pixels whose labels count in each split, where the pair is cut.
    """

    planned: PlannedPair
    stored: StoredPair
    split: str | None
    members: tuple[Member, ...]
    ensemble: Ensemble | None = None
    strips: Mapping[str, Window] = field(default_factory=dict)

    @property
    def pair_id(self) -> str:
        """The pair's id."""
        return self.stored.pair_id

    @property
    def to_fit_on(self) -> LabelledPair:
        """The pair with its label as thresholds are fitted on it: of one that is cut the strip of val counts."""
        return LabelledPair(self.stored, str(self.planned.label_key), self.strips.get("val"))

    @property
    def change(self) -> Ensemble:
        """The ensemble, where the run has one.

        Raises:
            ValueError: If it has none yet.
        """
        if self.ensemble is None:
            raise ValueError(f"pair {self.pair_id}: expected a run whose thresholds are known")
        return self.ensemble

    @property
    def probabilities(self) -> dict[str, str]:
        """Probability key by the member's name, or by the model's where one fold speaks for it."""
        names = Counter(member.name for member in self.members)
        return {
            member.name if names[member.name] == 1 else member.card.name: probability_key(self.stored.key, member)
            for member in self.members
        }

    def shares(self, name: str | None = None) -> list[tuple[str, float]]:
        """Probability key and weight of the members, all or those of one name; folds share their name's weight."""
        counts = Counter(member.name for member in self.members)
        return [
            (probability_key(self.stored.key, member), member.weight / counts[member.name])
            for member in self.members
            if name in (None, member.name)
        ]

    def temperatures(self, name: str | None = None) -> list[float]:
        """Temperatures of the same members in the same order."""
        return [member.temperature for member in self.members if name in (None, member.name)]


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
class RunPlan:
    """A run, and what a worker needs to work on any block of it.

    Attributes:
        workspace: The store.
        members: The models.
        pairs: The pairs.
        unseen: Pairs that no model learned from which predicts them, and what they are: see :data:`UNSEEN`.
        thresholds: What counts as change; None while that is not known, or only probabilities are wanted.
        own: The ensemble that was given; None where models were.
    """

    workspace: Workspace
    members: tuple[Member, ...]
    pairs: tuple[RunPair, ...]
    unseen: Mapping[str, str] = field(default_factory=dict)
    thresholds: Thresholds | None = None
    own: EnsembleCard | None = None

    def only(self, number: int) -> "RunPlan":
        """The run of one pair alone, whose position is then 0."""
        return replace(self, pairs=self.pairs[number : number + 1])

    def with_members(self, members: Sequence[Member]) -> "RunPlan":
        """The same models run in another way, with other weights or temperatures."""
        by_name = {member.card.name: member for member in members}
        pairs = (replace(pair, members=tuple(by_name[each.card.name] for each in pair.members)) for pair in self.pairs)
        return replace(self, members=tuple(members), pairs=tuple(pairs))

    def with_thresholds(self, config: Config, thresholds: Thresholds) -> "RunPlan":
        """The run with the ensemble of every pair."""
        pairs = (replace(pair, ensemble=pair_ensemble(config, pair, thresholds)) for pair in self.pairs)
        return replace(self, pairs=tuple(pairs), thresholds=thresholds)


@dataclass(frozen=True, slots=True)
class BlockWork:
    """What is missing of a block.

    Attributes:
        pair: Its pair's position in the run.
        key: The block.
        members: Positions, among the pair's, of the members whose probability is missing.
        ensemble: Whether the ensemble's is.
    """

    pair: int
    key: BlockKey
    members: tuple[int, ...]
    ensemble: bool


def model_sources(config: Config, workspace: Workspace, inventory: Inventory) -> list[ModelSource]:
    """The run's models: those the configuration names, else those it trains.

    Raises:
        InputError: If one is not trained yet.
    """
    others = untrained_sources(config)
    if config.predict.models:
        return [*given_sources(config), *others]
    if not config.predict.takes_trained:
        return others
    wanted = config.predict.members or list(config.train.models)
    jobs = training_jobs(config, workspace, inventory.planned, inventory.splits)
    jobs = [job for job in jobs if job.model in wanted]
    untrained = [job.name for job in jobs if trained_model(job) is None]
    if untrained:
        raise InputError(
            f"not trained on these pairs with this configuration: {', '.join(untrained)}; run cdpipe train first, "
            "or name model folders under predict.models"
        )
    return [*(ModelSource(workspace.model(job.name, job.key), job.model, job.fold) for job in jobs), *others]


def plan_run(config: Config, workspace: Workspace, inventory: Inventory, members: Sequence[Member]) -> RunPlan:
    """Which members predict each pair, and which pairs thresholds may be fitted on.

    Args:
        config: The configuration.
        workspace: The store.
        inventory: The pairs.
        members: The models.

    Raises:
        ConfigError: If there are no pairs to calibrate int8 on.
    """
    folds = {}
    if config.predict.takes_trained:
        folds = training_folds(config, workspace, inventory.planned, inventory.splits)
    if config.predict.precision == "int8":
        members = _calibrated(workspace, inventory, members, folds)
    pairs = tuple(
        RunPair(
            planned=item,
            stored=stored,
            split=inventory.splits.whole.get(stored.pair_id),
            members=_suited(config, workspace, stored, unbiased(members, folds.get(stored.pair_id))),
            strips=inventory.splits.strips.get(stored.pair_id, {}),
        )
        for item, stored in inventory.pairs
    )
    unseen = dict.fromkeys(folds, UNSEEN[0]) or dict.fromkeys(inventory.splits.parts("val"), UNSEEN[1])
    given = given_ensemble(config.predict.models)
    return RunPlan(workspace, tuple(members), pairs, unseen, own=given and given[1])


def unbiased(members: Sequence[Member], fold: int | None) -> tuple[Member, ...]:
    """The members that predict a pair of a fold: never one that learned from it."""
    return tuple(each for each in members if fold is None or each.fold is None or each.fold == fold)


def _suited(config: Config, workspace: Workspace, pair: StoredPair, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The members without detectors, where there are others and its pixels are too small for these."""
    networks = tuple(each for each in members if not each.card.is_detector)

    def dtype() -> str:
        return str(open_array(workspace.group("pairs", pair.pair_id, pair.key), DATES[0]).like.dtype)

    finer = is_finer(config.predict.detectors_from_m, pixel_side(pair.grid), len(pair.roles), dtype)
    return networks if networks and finer else members


def _calibrated(
    workspace: Workspace, inventory: Inventory, members: Sequence[Member], folds: Mapping[str, int]
) -> list[Member]:
    """The members with the pairs that they are calibrated on: the training pairs, but for a model's own fold."""
    pairs = labelled_parts(workspace, inventory.planned, inventory.splits, "train")
    if not pairs:
        raise ConfigError(
            "predict.precision: int8 is calibrated on labelled pairs of the split train, and the store has none; "
            "ingest some with this configuration, or choose bfloat16 or float32"
        )
    calibrated = []
    for member in members:
        if member.card.is_exported:  # which is run as it is
            calibrated.append(member)
            continue
        seen = (pair for pair in pairs if member.fold is None or folds.get(pair.pair.pair_id) != member.fold)
        calibrated.append(replace(member, calibration=Calibration(workspace, tuple(seen))))
    return calibrated


def left_to_networks(plan: RunPlan) -> list[RunPair]:
    """The pairs on which detectors of the run keep silent; see ``predict.detectors_from_m``."""
    detectors = {member.card.name for member in plan.members if member.card.is_detector}
    return [pair for pair in plan.pairs if detectors and not any(each.card.is_detector for each in pair.members)]


def lacking_bands(plan: RunPlan) -> dict[str, str]:
    """Pairs without bands that a model needs, each with the reason."""
    lacking: dict[str, str] = {}
    for pair in plan.pairs:
        for member in plan.members:
            roles = [role for role in member.card.needed if role not in pair.stored.roles]
            if roles:
                bands = f"{', '.join(roles)}, stored are {', '.join(pair.stored.roles)}"
                lacking.setdefault(pair.pair_id, f"model {member.card.name} needs the bands {bands}")
    return lacking


def without_pairs(plan: RunPlan, left_out: Iterable[str]) -> RunPlan:
    """The run without some pairs."""
    gone = set(left_out)
    return replace(plan, pairs=tuple(pair for pair in plan.pairs if pair.pair_id not in gone))


def choose_pairs(config: Config, plan: RunPlan, names: Sequence[str] = (), splits: Sequence[str] = ()) -> RunPlan:
    """The run with only the pairs that were asked for.

    Args:
        config: The configuration.
        plan: The run.
        names: Ids or names of pairs; all if empty.
        splits: Splits; all if empty.

    Raises:
        InputError: If a name is not known or no pair is left.
    """
    known = {name for pair in plan.pairs for name in (pair.pair_id, pair.planned.pair.name)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"--pair: no pair {', '.join(unknown)} in the store; its catalog is {config.catalog}")
    wanted = tuple(
        pair
        for pair in plan.pairs
        if (not names or pair.pair_id in names or pair.planned.pair.name in names)
        and (not splits or pair.split in splits or set(splits) & set(pair.strips))
    )
    if not wanted:
        raise InputError("no pair of the store is among those that --pair and --split ask for")
    return replace(plan, pairs=wanted)


def pair_ensemble(config: Config, pair: RunPair, thresholds: Thresholds) -> Ensemble:
    """The ensemble of a pair."""
    if config.predict.ensemble == "vote":
        votes = [thresholds.models[member.name] for member in pair.members]
        return plan_ensemble(pair.shares(), MAJORITY, votes)
    return plan_ensemble(pair.shares(), thresholds.ensemble, temperatures=pair.temperatures())


def possible_members(
    config: Config, workspace: Workspace, sources: Sequence[ModelSource]
) -> Iterator[tuple[Member, ...]]:
    """The run's members in every way they may have been run.

    By CPUs: here, or where another backend was chosen; and by GPUs, with every batch that was probed here.
    """
    on_cpus = plan_members(config, sources, "cpu")
    yield on_cpus
    if is_for_cpus(config.predict):
        return
    for backend in ("openvino", "torch") if config.predict.backend == "auto" else ():
        others = run_by(backend, on_cpus)
        if others != on_cpus:
            yield others
    members = plan_members(config, sources, "cuda")
    yield members
    for batches in remembered_batches(workspace).values():
        yield with_batches(members, batches)


def prefer_stored(config: Config, plan: RunPlan, sources: Sequence[ModelSource]) -> RunPlan:
    """The run as it is, or with what another kind of device or backend has stored, where that is all there.

    So a laptop may set other thresholds and weights for what a cluster's GPUs have predicted.
    """
    if is_stored(plan):
        return plan
    for members in possible_members(config, plan.workspace, sources):
        stored = plan.with_members(members)
        if is_stored(stored):
            return stored
    return plan


def missing_work(plan: RunPlan, chosen: Iterable[int] | None = None) -> Iterator[BlockWork]:
    """Blocks of the chosen pairs, or of all, of which something is missing.

    Each pair's records are listed once, when it comes up: whether there is any work is known at once.
    """
    for number in range(len(plan.pairs)) if chosen is None else chosen:
        pair = plan.pairs[number]
        groups: list[tuple[Kind, str]] = [
            ("probabilities", probability_key(pair.stored.key, member)) for member in pair.members
        ]
        if pair.ensemble is not None:
            groups.append(("changes", pair.ensemble.key))
        keys = pair.stored.blocks()
        missing = [set(missing_blocks(plan.workspace.records(kind, pair.pair_id, key), keys)) for kind, key in groups]
        for key in keys if any(missing) else ():
            members = tuple(index for index in range(len(pair.members)) if key in missing[index])
            ensemble = pair.ensemble is not None and key in missing[-1]
            if members or ensemble:
                yield BlockWork(number, key, members, ensemble)


def is_stored(plan: RunPlan) -> bool:
    """Whether no block of the run is missing."""
    return next(missing_work(plan), None) is None


def count_patches(plan: RunPlan, work: Iterable[BlockWork]) -> int:
    """Patches that networks are run on, about: those of whole pairs, shared out over their blocks."""
    total = 0.0
    for item in work:
        pair = plan.pairs[item.pair].stored
        for member in (plan.pairs[item.pair].members[index] for index in item.members):
            if not member.card.is_detector:
                patches = member.patch_grid(pair)
                total += len(patches.origins(0)) * len(patches.origins(1)) / len(pair.blocks())
    return round(total)


def pair_products(config: Config, plan: RunPlan, pair: RunPair) -> tuple[Product, ...]:
    """What the run publishes of a pair.

    Raises:
        ValueError: If the run's thresholds are not known yet.
    """
    thresholds, change = plan.thresholds, pair.change.key
    if thresholds is None:
        raise ValueError("expected a run whose thresholds are known")
    tags = {
        "software": f"cdpipe {__version__}",
        "models": ", ".join(f"{member.card.name} {member.card.key}" for member in pair.members),
        "threshold": f"{thresholds.ensemble:g}",
    }
    wanted = tuple(pair.probabilities.items()) if config.predict.model_rasters else ()
    rasters = raster_product(PairRasters(plan.workspace, config.name, pair.stored, change, wanted, tags))
    if config.vectors.format == "none":
        return (rasters,)
    members = tuple(
        (probability_key(pair.stored.key, member), thresholds.models[member.name]) for member in pair.members
    )
    row = pair.planned.pair
    scene = ChangeScene(plan.workspace, pair.stored, change, members, config.vectors, (row.before_date, row.after_date))
    return rasters, pair_layer_product(PairLayer(config.name, scene, tags))


def run_layer(products: Iterable[tuple[Product, ...]]) -> Product | None:
    """The layer of change objects of pairs, in the order of the run, by their products; None where they have none.

    Raises:
        ConfigError: If there is no such CRS as ``vectors.crs`` names.
    """
    specs = [product.spec for of_pair in products for product in of_pair]
    layer = plan_run_layer([spec for spec in specs if isinstance(spec, PairLayer)])
    return None if layer is None else run_layer_product(layer)
