"""``cdpipe status``: how far every stage of a run is, how fast it goes and what failed, from records alone."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from rich.table import Table

from cdpipe.cli.console import duration, progress, size
from cdpipe.cli.session import Session, read_failures
from cdpipe.errors import CdpipeError, IntegrityError
from cdpipe.geo.tilings import block_keys
from cdpipe.models.folder import CARD
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.coregistration import known_corrections
from cdpipe.pairs.plan import PlannedPair, known_hashes, plan_pairs, source_files, stored_pair
from cdpipe.pairs.splits import known_splits
from cdpipe.prediction.block import probability_key
from cdpipe.prediction.job import plan_work
from cdpipe.runs.manifest import manifest_path, read_manifest
from cdpipe.runs.plan import choose_pairs, model_sources, plan_run, possible_members
from cdpipe.runs.verify import PRODUCTS, check_manifest, check_model, check_record, forget_descriptions, listed_groups
from cdpipe.store.pair import StoredPair
from cdpipe.timing import PARTS
from cdpipe.training.job import TrainJob
from cdpipe.training.logs import read_progress
from cdpipe.training.plan import jobs_for, trained_model
from cdpipe.workspace.files import read_json
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import GROUP_RECORD, missing_blocks, record_times

RECENT = 600.0  # seconds that a rate is measured over: older records tell of another run


def run(session: Session) -> None:
    """Print what is done and what is left."""
    pairs = read_catalog(session.config)
    files = [file for pair in pairs for file in source_files(pair)]
    planned, unknown = plan_pairs(
        pairs, session.config, known_hashes(session.workspace, files), known_corrections(session.workspace)
    )
    stored = [(item, found) for item in planned if (found := stored_pair(session.workspace, item)) is not None]
    table = Table("stage", "done", "left", "rate", "time left", "state")
    _add_ingest(session, table, planned, len(unknown))
    _add_models(session, table, [item for item, _ in stored])
    _add_prediction(session, table, stored)
    manifest = read_manifest(session.run_folder)
    published = len(manifest.pairs) if manifest else 0
    state = f"threshold {manifest.threshold:.3f}" if manifest else "no manifest: not run yet, or unfinished"
    table.add_row("publish: pairs", str(published), str(len(pairs) - published), "", "", state)
    session.console.print(table)
    for stage in ("ingest", "predict"):
        if told := _time_of_workers(session, stage):
            session.say(told)
    for pair_id, reason in read_failures(session).items():
        session.say(f"failed: pair {pair_id}: {reason}")


def _add_ingest(session: Session, table: Table, planned: list[PlannedPair], unknown: int) -> None:
    total = left = 0
    folders = []
    for item in planned:
        keys = list(block_keys(item.pair.pair_id, item.grid.shape, session.config.align.block))
        folder = session.workspace.records("pairs", item.pair.pair_id, item.key)
        folders.append(folder)
        total += len(keys)
        left += len(missing_blocks(folder, keys))
    state = f"{unknown} pair(s) not hashed yet" if unknown else "complete" if not left else "unfinished"
    table.add_row("ingest: blocks", *_figures(total, left, folders), state)


def _add_models(session: Session, table: Table, stored: list[PlannedPair]) -> None:
    try:
        jobs = jobs_for(session, stored)
    except CdpipeError:  # such as no labels in the store yet
        for name in session.config.train.models:
            table.add_row(f"train: {name}", "0", "1", "", "", "not trained")
        return
    for job in jobs:
        card = trained_model(job)
        if card is not None:
            table.add_row(f"train: {job.name}", "1", "0", "", "", f"validation IoU {card.metrics['val_iou']:.3f}")
        else:
            table.add_row(f"train: {job.name}", "0", "1", "", "", _training_state(job))


def _training_state(job: TrainJob) -> str:
    found = read_progress(job)
    if found is None:
        return "not trained"
    return (
        f"in epoch {found['epoch'] + 1} of {job.options.epochs} at most, step {found['step']} of {job.steps}, "
        f"loss {found['loss']:.3f}"
    )


def _add_prediction(session: Session, table: Table, stored: list[tuple[PlannedPair, StoredPair]]) -> None:
    """The blocks of each model, by the kind of device that has done more of them."""
    try:
        sources = model_sources(session, stored)
        splits = known_splits([item for item, _ in stored], session.config.split_buffer)
        plans = []
        for members in possible_members(session, sources):
            job, _ = plan_run(session, stored, members, splits)
            job, _ = choose_pairs(session, job, stored, splits)
            plans.append((job, plan_work(job, range(len(job.pairs)))))
    except CdpipeError:  # without models there is nothing to count
        table.add_row("predict: blocks", "0", "", "", "", "no models yet")
        return
    job, work = min(plans, key=lambda plan: sum(len(item.members) for item in plan[1]))
    for index, member in enumerate(job.members):
        chosen = [number for number, uses in enumerate(job.uses) if index in uses]
        total = sum(len(list(job.pairs[number].blocks())) for number in chosen)
        left = sum(index in item.members for item in work)
        folders = (
            session.workspace.records("probabilities", pair.pair_id, probability_key(pair.key, member))
            for pair in (job.pairs[number] for number in chosen)
        )
        state = "complete" if not left else "unfinished"
        table.add_row(f"predict: {member.card.name}: blocks", *_figures(total, left, folders), state)


def _time_of_workers(session: Session, stage: str) -> str | None:
    """What the last run of a stage that had work spent its workers' time on."""
    for entry in reversed(read_json(session.run_folder / "log.json") or []):
        seconds = {part: entry.get(f"{part}_seconds", 0.0) for part in PARTS}
        total = sum(seconds.values())
        if entry["stage"] == stage and total:
            shares = ", ".join(f"{part} {100 * each / total:.0f} %" for part, each in seconds.items() if each)
            speed = f"; {entry['patches_run'] / entry['seconds']:.3g} patches/s" if entry.get("patches_run") else ""
            return f"{stage}: of its workers' time {shares}; {size(entry.get('bytes_written', 0))} written{speed}"
    return None


def _figures(total: int, left: int, folders: Iterable[Location]) -> tuple[str, str, str, str]:
    """Done, left, rate and time left; the last two only while something goes on."""
    now = time.time()
    recent = [moment for folder in folders for moment in record_times(folder) if moment > now - RECENT] if left else []
    if len(recent) < 2:
        return str(total - left), str(left), "", ""
    rate = len(recent) / (now - min(recent))
    return str(total - left), str(left), f"{rate:.3g}/s", duration(left / rate)


# ``cdpipe verify``: hash everything stored again and withdraw what is damaged, so that the next run repairs it.

THREADS = 4


def run_verify(session: Session) -> None:
    """Check every record's objects, every model's weights, and that all is there that a run lists.

    Raises:
        IntegrityError: Naming what is damaged, after its records and the manifests that list it are withdrawn.
    """
    root = session.workspace.root
    records = sorted((root / "records").glob("*/*/*/*.json"))
    cards = sorted((root / "models").glob(f"*/*/{CARD}"))
    found: dict[Location, list[str]] = {}
    with (
        progress(session.console, "verify", len(records) + len(cards)) as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for path, names in zip(records, pool.map(lambda path: check_record(root, path), records), strict=True):
            advance(1, "")
            found[path] = names
        for path in cards:
            advance(1, "")
            found[path] = check_model(root, path)
    damaged = [name for names in found.values() for name in names]
    withdrawn = {path for path, names in found.items() if names}
    for path in withdrawn:
        _withdraw(root, path, found[path])
    damaged += _withdraw_manifests(root, withdrawn)
    for name in dict.fromkeys(damaged):
        path = root / name
        # those that were whole have just been compared, and are withdrawn for the sake of a block
        if (
            path.name == GROUP_RECORD
            and path.parent.parent.parent.name not in PRODUCTS
            and name in found.get(path, [name])
        ):
            forget_descriptions(root, path)
    if damaged:
        lines = "\n".join(f"  {name}" for name in dict.fromkeys(damaged))
        raise IntegrityError(
            f"{len(set(damaged))} damaged:\n{lines}\nwithdrawn; run the same command as before to make them again"
        )
    session.say(f"verify: {len(records)} record(s) and {len(cards)} model(s) are as they were written")


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
