"""How far every stage of a run is, from records alone; and whether what is stored is what was written."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cdpipe.errors import CdpipeError, IntegrityError
from cdpipe.geo.tilings import block_keys
from cdpipe.models.folder import CARD
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.plan import PlannedPair, placed_pairs, stored_cells, stored_pair
from cdpipe.pairs.splits import known_splits
from cdpipe.prediction.block import probability_key
from cdpipe.runs.manifest import manifest_path, read_manifest
from cdpipe.runs.plan import RunPlan, missing_work, model_sources, plan_run, possible_members
from cdpipe.runs.products import PRODUCT_KINDS
from cdpipe.runs.run import Inventory, Run, planned_pairs
from cdpipe.runs.verify import check_manifest, check_model, check_record, forget_descriptions, listed_groups
from cdpipe.store.tree import describe_store
from cdpipe.timing import PARTS
from cdpipe.training.job import TrainJob
from cdpipe.training.logs import read_progress
from cdpipe.training.plan import trained_model, training_jobs
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import GROUP_RECORD, missing_blocks, record_times

RECENT = 600.0  # seconds that a rate is measured over: older records tell of another run
STAGES = ("ingest", "predict")  # whose workers' time is told
THREADS = 4  # that hash


@dataclass(frozen=True, slots=True)
class StageState:
    """How far a stage is.

    Attributes:
        stage: Its name and in what units it is counted.
        done: Units that are done.
        left: Units that are left; None where that is not known yet.
        rate: Units a second of late; None where nothing goes on.
        state: In words.
    """

    stage: str
    done: int
    left: int | None
    rate: float | None
    state: str


@dataclass(frozen=True, slots=True)
class WorkerTime:
    """What the last run of a stage that had work spent its workers' time on.

    Attributes:
        stage: The stage.
        shares: Share of each part of the work, from 0 to 1.
        bytes_written: What was written.
        patches_a_second: Patches that networks were run on; None where none were.
    """

    stage: str
    shares: dict[str, float]
    bytes_written: int
    patches_a_second: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
        stages: Each stage.
        workers: What workers spent their time on.
        failures: Pairs that failed in the last call, with the reasons.
    """

    stages: Sequence[StageState]
    workers: Sequence[WorkerTime]
    failures: Mapping[str, str]


def status(run: Run) -> Status:
    """How far every stage of a run is, how fast it goes and what failed; nothing is locked or written.

    Raises:
        InputError: If the catalog has mistakes.
    """
    pairs = read_catalog(run.config)
    planned, unknown = planned_pairs(run)
    stored = tuple((item, pair) for item in planned if (pair := stored_pair(run.workspace, item)) is not None)
    items = [item for item, _ in stored]
    splits = known_splits(run.config, placed_pairs(items), stored_cells(run.workspace, items))
    inventory = Inventory(stored, splits)
    manifest = read_manifest(run.folder)
    published = len(manifest.pairs) if manifest else 0
    state = f"threshold {manifest.threshold:.3f}" if manifest else "no manifest: not run yet, or unfinished"
    stages = [
        _ingest_state(run, planned, len(unknown)),
        *_model_states(run, inventory),
        *_prediction_states(run, inventory),
        StageState("publish: pairs", published, len(pairs) - published, None, state),
    ]
    workers = [spent for stage in STAGES if (spent := _time_of_workers(run, stage)) is not None]
    return Status(stages, workers, run.last_failures())


def verify(run: Run) -> tuple[int, int]:
    """Hash everything that is stored again: every record's objects, every model's weights, and what runs list.

    Returns:
        How many records and how many models are as they were written.

    Raises:
        IntegrityError: Naming what is damaged, after its records and the manifests that list it are withdrawn, so that
            the next run makes just that again.
    """
    with run.hold(keep_failures=True):
        root = run.workspace.root
        records = sorted((root / "records").glob("*/*/*/*.json"))
        cards = sorted((root / "models").glob(f"*/*/{CARD}"))
        found: dict[Location, list[str]] = {}
        with run.step("verify", len(records) + len(cards)) as advance, ThreadPoolExecutor(THREADS) as pool:
            for path, names in zip(records, pool.map(lambda path: check_record(root, path), records), strict=True):
                advance(1, "")
                found[path] = names
            for path in cards:
                advance(1, "")
                found[path] = check_model(root, path)
        damaged = _withdraw_damaged(root, found)
        describe_store(run.workspace, afresh=True)
        if damaged:
            lines = "\n".join(f"  {name}" for name in dict.fromkeys(damaged))
            raise IntegrityError(
                f"{len(set(damaged))} damaged:\n{lines}\nwithdrawn; run the same command as before to make them again"
            )
        return len(records), len(cards)


def _ingest_state(run: Run, planned: Sequence[PlannedPair], unknown: int) -> StageState:
    total = left = 0
    folders = []
    for item in planned:
        keys = list(block_keys(item.pair.pair_id, item.grid.shape, run.config.align.block))
        folder = run.workspace.records("pairs", item.pair.pair_id, item.key)
        folders.append(folder)
        total += len(keys)
        left += len(missing_blocks(folder, keys))
    state = f"{unknown} pair(s) not hashed yet" if unknown else "complete" if not left else "unfinished"
    return StageState("ingest: blocks", total - left, left, _rate(left, folders), state)


def _model_states(run: Run, inventory: Inventory) -> list[StageState]:
    try:
        jobs = training_jobs(run.config, run.workspace, inventory.planned, inventory.splits)
    except CdpipeError:  # such as no labels in the store yet
        if not run.config.predict.takes_trained:
            return []
        return [StageState(f"train: {name}", 0, 1, None, "not trained") for name in run.config.train.models]
    states = []
    for job in jobs:
        card = trained_model(job)
        judged = card is not None and "val_iou" in card.metrics
        known = f"validation IoU {card.metrics['val_iou']:.3f}" if card and judged else "trained, not validated"
        state = _training_state(job) if card is None else known
        states.append(StageState(f"train: {job.name}", int(card is not None), int(card is None), None, state))
    return states


def _training_state(job: TrainJob) -> str:
    found = read_progress(job)
    if found is None:
        return "not trained"
    return (
        f"in epoch {found['epoch'] + 1} of {job.options.epochs} at most, step {found['step']} of {job.steps}, "
        f"loss {found['loss']:.3f}"
    )


def _prediction_states(run: Run, inventory: Inventory) -> list[StageState]:
    """The blocks of each model, by the kind of device that has done more of them."""
    try:
        sources = model_sources(run.config, run.workspace, inventory)
        kinds = possible_members(run.config, run.workspace, sources)
        plans = [plan_run(run.config, run.workspace, inventory, members) for members in kinds]
    except CdpipeError:  # without models there is nothing to count
        return [StageState("predict: blocks", 0, None, None, "no models yet")]
    missing = [_missing_by_model(plan) for plan in plans]
    plan, left = min(zip(plans, missing, strict=True), key=lambda each: sum(each[1].values()))
    states = []
    for member in plan.members:
        name = member.card.name
        chosen = [pair.stored for pair in plan.pairs if member in pair.members]
        total = sum(len(list(pair.blocks())) for pair in chosen)
        folders = (
            run.workspace.records("probabilities", pair.pair_id, probability_key(pair.key, member)) for pair in chosen
        )
        state = "complete" if not left[name] else "unfinished"
        rate = _rate(left[name], folders)
        states.append(StageState(f"predict: {name}: blocks", total - left[name], left[name], rate, state))
    return states


def _missing_by_model(plan: RunPlan) -> dict[str, int]:
    """Blocks of which a model's probability is missing, by its name."""
    left = {member.card.name: 0 for member in plan.members}
    for item in missing_work(plan):
        for index in item.members:
            left[plan.pairs[item.pair].members[index].card.name] += 1
    return left


def _time_of_workers(run: Run, stage: str) -> WorkerTime | None:
    for entry in reversed(run.log_entries()):
        seconds = {part: entry.get(f"{part}_seconds", 0.0) for part in PARTS}
        total = sum(seconds.values())
        if entry["stage"] == stage and total:
            shares = {part: spent / total for part, spent in seconds.items() if spent}
            speed = entry["patches_run"] / entry["seconds"] if entry.get("patches_run") else None
            return WorkerTime(stage, shares, entry.get("bytes_written", 0), speed)
    return None


def _rate(left: int, folders: Iterable[Location]) -> float | None:
    """Units a second of late; None unless something goes on."""
    now = time.time()
    recent = [moment for folder in folders for moment in record_times(folder) if moment > now - RECENT] if left else []
    return len(recent) / (now - min(recent)) if len(recent) > 1 else None


def _withdraw_damaged(root: Location, found: Mapping[Location, list[str]]) -> list[str]:
    """Withdraw the records and cards of what is damaged, and manifests that list it; names of all that is damaged."""
    damaged = [name for names in found.values() for name in names]
    withdrawn = {path for path, names in found.items() if names}
    for path in withdrawn:
        _withdraw(root, path, found[path])
    damaged += _withdraw_manifests(root, withdrawn)
    for name in dict.fromkeys(damaged):
        if name.endswith(f"/{GROUP_RECORD}"):
            path = root / name
            # those that were whole have just been compared, and are withdrawn for the sake of a block
            if path.parent.parent.parent.name not in PRODUCT_KINDS and name in found.get(path, [name]):
                forget_descriptions(root, path)
    return damaged


def _withdraw(root: Location, path: Location, names: list[str]) -> None:
    """Remove a record or card with what it vouched for in vain, and the record of its group, no more whole."""
    for name in names:
        (root / name).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    if path.name != CARD:
        path.with_name(GROUP_RECORD).unlink(missing_ok=True)


def _withdraw_manifests(root: Location, withdrawn: set[Location]) -> list[str]:
    """Remove the manifests that list anything withdrawn or missing; names of what is missing."""
    places = {path.parent.relative_to(root / "records") for path in withdrawn if path.name != CARD}
    models = {path.parent.relative_to(root) for path in withdrawn if path.name == CARD}
    missing = []
    for run_folder in sorted((root / "runs").glob("*")):
        path = manifest_path(run_folder)
        if not path.is_file():
            continue
        manifest = read_manifest(run_folder)
        names = [path.relative_to(root)] if manifest is None else check_manifest(root, manifest)
        used = manifest and (
            places & set(listed_groups(manifest)) or models & {str(model["folder"]) for model in manifest.models}
        )
        if names or used:
            path.unlink()
            missing += names
    return missing
