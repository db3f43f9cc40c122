"""``cdpipe predict``: models over all pairs, the ensemble, change, and every pair's rasters as it is done."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from cdpipe import __version__
from cdpipe.distributed.cluster import total_gpus
from cdpipe.distributed.predict import plan_actors
from cdpipe.distributed.publish import predict_and_publish
from cdpipe.formats.manifest import Manifest, ManifestPair, manifest_path, write_manifest
from cdpipe.formats.records import read_record
from cdpipe.formats.workspace import sweep
from cdpipe.stages.model_plan import trained_model
from cdpipe.stages.prediction import Member, probability_key
from cdpipe.stages.products import RasterJob, rasters_are_written
from cdpipe.stages.run_plan import (
    PredictJob,
    member_thresholds,
    missing_roles,
    plan_ensemble,
    plan_members,
    plan_work,
)
from cdpipe.stages.splits import split_pairs
from cdpipe.values.errors import InputError
from cdpipe.verbs.console import duration, progress, size
from cdpipe.verbs.session import Session, last_rate, logged, stored_pairs
from cdpipe.verbs.threshold import Planned, find_threshold
from cdpipe.verbs.train import jobs_for


def run(session: Session) -> None:
    """Predict what is missing and publish it.

    Raises:
        InputError: If no pair can be predicted or a model is not trained.
    """
    planned = stored_pairs(session)
    folders = model_folders(session, planned)
    if session.dry_run:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _show_plan(session, planned, plan_members(session.config, folders, device))
        return
    session.start_ray()
    members = plan_members(session.config, folders, "cuda" if total_gpus() else "cpu")
    planned = _with_needed_bands(session, planned, members)
    splits = split_pairs([item for item, _ in planned])
    job = PredictJob(session.workspace, tuple(stored for _, stored in planned), members, ())
    threshold, fitted_on = find_threshold(session, planned, job, splits)
    job = replace(job, ensembles=tuple(plan_ensemble(pair, members, threshold) for pair in job.pairs))
    published = _predict(session, job, threshold)
    if not published:
        raise InputError("no pair could be predicted: " + "; ".join(session.failures.values()))
    manifest = Manifest(
        name=session.config.name,
        models=_describe_models(session, members, threshold),
        threshold=threshold,
        fitted_on=fitted_on,
        pairs=[_describe_pair(job, number, planned, splits, rasters) for number, rasters in sorted(published.items())],
        failed=dict(session.failures),
    )
    write_manifest(session.run_folder, manifest)
    session.say(f"predict: {len(published)} pair(s), threshold {threshold:.3f} ({fitted_on})")
    session.say(f"predict: rasters in {session.run_folder / 'rasters'}")


def model_folders(session: Session, planned: Planned) -> list[Path]:
    """Folders of the run's models: those the configuration names, else those it trains.

    Raises:
        InputError: If one is not trained yet.
    """
    if session.config.predict.models:
        return list(session.config.predict.models)
    jobs = jobs_for(session, [item for item, _ in planned])
    untrained = [job.name for job in jobs if trained_model(job) is None]
    if untrained:
        raise InputError(
            f"not trained on these pairs with this configuration: {', '.join(untrained)}; run cdpipe train first, "
            "or name model folders under predict.models"
        )
    return [session.workspace.model(job.name, job.key) for job in jobs]


def _with_needed_bands(session: Session, planned: Planned, members: tuple[Member, ...]) -> Planned:
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


def _predict(session: Session, job: PredictJob, threshold: float) -> dict[int, RasterJob]:
    """Run the models; the rasters of every pair that was published."""
    work = plan_work(job, range(len(job.pairs)))
    rasters = [_raster_job(session, job, number, threshold) for number in range(len(job.pairs))]
    sweep(session.run_folder)
    # rasters alone are written where a run goes back to a threshold that it had before
    if work or not all(map(rasters_are_written, rasters)):
        manifest_path(session.run_folder).unlink(missing_ok=True)
    published: dict[int, RasterJob] = {}
    patches = count_patches(job, [(item.pair, len(item.members)) for item in work])
    facts = {"blocks": len(work), "patches": patches}
    workers = plan_actors(session.config.resources.workers)
    with (
        logged(session, "predict", facts),
        progress(session.console, "predict: blocks", len(work)) as advance,
    ):
        for event in predict_and_publish(job, work, workers, rasters):
            if event.failure is not None:
                session.fail(job.pairs[event.pair].pair_id, event.failure, event.details)
            if event.published:
                published[event.pair] = rasters[event.pair]
            advance(int(event.block), f"{len(published)} of {len(job.pairs)} pairs published")
    return {number: each for number, each in published.items() if job.pairs[number].pair_id not in session.failures}


def _raster_job(session: Session, job: PredictJob, number: int, threshold: float) -> RasterJob:
    pair = job.pairs[number]
    members = tuple((each.card.name, probability_key(pair.key, each)) for each in job.members)
    tags = {
        "software": f"cdpipe {__version__}",
        "models": ", ".join(f"{each.card.name} {each.card.key}" for each in job.members),
        "threshold": f"{threshold:g}",
    }
    wanted = members if session.config.predict.model_rasters else ()
    return RasterJob(session.workspace, session.config.name, pair, job.ensembles[number].key, wanted, tags)


def count_patches(job: PredictJob, blocks: list[tuple[int, int]]) -> int:
    """Patches that networks are run on, about: those of whole pairs, shared out over their blocks.

    Args:
        job: The run.
        blocks: For every block, its pair and how many members are missing.
    """
    total = 0.0
    for number, members in blocks:
        pair = job.pairs[number]
        lattice = job.members[0].lattice(pair)
        total += members * len(lattice.origins(0)) * len(lattice.origins(1)) / len(pair.blocks())
    return round(total)


def _describe_models(session: Session, members: tuple[Member, ...], threshold: float) -> list[dict[str, object]]:
    root = session.workspace.root
    own = member_thresholds(session.config, members, threshold)
    return [
        {
            "name": each.card.name,
            "key": each.card.key,
            "folder": str(each.folder.relative_to(root) if each.folder.is_relative_to(root) else each.folder),
            "weight": each.weight,
            "threshold": alone,
        }
        for each, alone in zip(members, own, strict=True)
    ]


def _describe_pair(
    job: PredictJob, number: int, planned: Planned, splits: dict[str, str], rasters: RasterJob
) -> ManifestPair:
    item, pair = planned[number]
    record = read_record(rasters.record)
    return ManifestPair(
        pair_id=pair.pair_id,
        split=splits.get(pair.pair_id),
        pair=pair.key,
        label=item.label_key,
        probabilities={each.card.name: probability_key(pair.key, each) for each in job.members},
        change=job.ensembles[number].key,
        rasters=record.objects if record else {},
    )


def _show_plan(session: Session, planned: Planned, members: tuple[Member, ...]) -> None:
    job = PredictJob(session.workspace, tuple(stored for _, stored in planned), members, ())
    work = plan_work(job, range(len(job.pairs)))
    patches = count_patches(job, [(item.pair, len(item.members)) for item in work])
    pixels = sum(pair.grid.height * pair.grid.width for pair in job.pairs)
    rate = last_rate(session, "predict", "patches")
    session.say(f"predict: {len(planned)} pair(s) with {', '.join(each.card.name for each in members)}")
    session.say(
        f"  missing: {len(work)} block(s), {patches} patch(es), test-time augmentation {session.config.predict.tta}"
    )
    free = shutil.disk_usage(session.workspace.root).free
    session.say(f"  writes at most {size(pixels * (4 * len(members) + 5) * 2)} before compression; {size(free)} free")
    session.say(f"  time: {duration(patches / rate)} at the last measured rate" if rate else "  time: not measured yet")
