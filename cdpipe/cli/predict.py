"""``cdpipe predict``: models over all pairs, the ensemble, change, and every pair's products as they are done."""

import argparse
import csv
import io
import shutil
from pathlib import Path
from typing import Any

from cdpipe.cli import ingest
from cdpipe.cli.console import duration, free_text, make_console, progress, size
from cdpipe.cli.session import Session, Unfinished, close, last_rate, logged, rounded, stored_pairs
from cdpipe.config.load import parse_config
from cdpipe.errors import CdpipeError, ConfigError, InputError
from cdpipe.inference.backends import check_backend
from cdpipe.pairs.splits import known_splits
from cdpipe.prediction.block import Member
from cdpipe.prediction.fit import Planned
from cdpipe.prediction.job import ModelSource, is_stored, plan_members, plan_work, results_are_finished
from cdpipe.runs.describe import describe_run, plan_stac, with_stac
from cdpipe.runs.manifest import Manifest, manifest_path, read_manifest, write_manifest
from cdpipe.runs.plan import (
    Plan,
    choose_pairs,
    count_patches,
    make_plan,
    model_sources,
    plan_run,
    possible_members,
    prefer_stored,
    run_layer,
)
from cdpipe.runs.products import Product, ensure_written, is_written
from cdpipe.timing import add
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import locked
from cdpipe.workspace.location import here
from cdpipe.workspace.records import forget_attempts


def run(session: Session) -> None:
    """Predict what is missing and publish it.

    Raises:
        InputError: If no pair can be predicted or a model is not trained.
    """
    planned = stored_pairs(session)
    sources = model_sources(session, planned)
    if session.dry_run:
        import torch

        device = "cuda" if session.config.resources.gpus != 0 and torch.cuda.is_available() else "cpu"
        _show_plan(session, planned, sources, plan_members(session.config, sources, device))
        return
    forget_attempts(session.workspace)
    session.run_folder.sweep()
    manifest = find_finished(session, planned, sources)
    if manifest is None:
        session.start_ray()
        from cdpipe.cluster.session import total_gpus

        members = plan_members(session.config, sources, "cuda" if total_gpus() else "cpu")
        plan = make_plan(session, planned, sources, members)
        run_layer(dict(enumerate(plan.products)))  # a CRS that there is not is told before any work
        published = _predict(session, plan)
        if not published:
            raise InputError("no pair could be predicted: " + "; ".join(session.failures.values()))
        layer = run_layer(published)
        if layer is not None:
            ensure_written(layer)
        manifest = describe_run(session, plan, published, layer)
        stac = plan_stac(session, plan, manifest)
        ensure_written(stac)
        manifest = with_stac(manifest, stac)
        crash_point("manifest-unwritten")
        write_manifest(session.run_folder, manifest)
    done = f"{len(manifest.pairs)} pair(s), threshold {manifest.threshold:.3f} ({manifest.fitted_on})"
    session.say(f"predict: {done}")
    session.say(f"predict: rasters in {session.run_folder / 'rasters'}")


def find_finished(session: Session, planned: Planned, sources: list[ModelSource]) -> Manifest | None:
    """The run's manifest, if it is that of this configuration and all it lists is there; else None.

    Found out without Ray, so it is not known yet whether there are GPUs: what either kind of device has finished is
    finished.
    """
    manifest = read_manifest(session.run_folder)
    if manifest is None:
        return None
    for members in possible_members(session, sources):
        session.looking = True
        try:
            plan = make_plan(session, planned, sources, members)
        except (CdpipeError, Unfinished):  # what is wrong is said by the run that follows
            continue
        finally:
            session.looking = False
        everything = range(len(plan.job.pairs))
        if (
            is_stored(plan.job, everything)
            and all(results_are_finished(plan.job, number) for number in everything)
            and all(is_written(each) for products in plan.products for each in products)
            and ((layer := run_layer(dict(enumerate(plan.products)))) is None or is_written(layer))
            and _as_it_would_be(session, plan, layer) == manifest
        ):
            with logged(session, "predict", {"blocks": 0, "patches": 0}):
                return manifest
    return None


def _as_it_would_be(session: Session, plan: Plan, layer: Product | None) -> Manifest | None:
    """The manifest of a plan of which all is published, None where its catalog is not written."""
    manifest = describe_run(session, plan, dict(enumerate(plan.products)), layer)
    stac = plan_stac(session, plan, manifest)
    return with_stac(manifest, stac) if is_written(stac) else None


def _predict(session: Session, plan: Plan) -> dict[int, tuple[Product, ...]]:
    """Run the models; the products of every pair that was published."""
    from cdpipe.cluster.predict import plan_actors, predict_and_publish

    job, products = plan.job, plan.products
    work = plan_work(job, range(len(job.pairs)))
    # products alone are made where a run goes back to a threshold that it had before
    if work or not all(is_written(product) for of_pair in products for product in of_pair):
        manifest_path(session.run_folder).unlink(missing_ok=True)
    spent: dict[str, float] = {}
    published: dict[int, tuple[Product, ...]] = {}
    patches = count_patches(job, [(item.pair, len(item.members)) for item in work])
    facts = {"blocks": len(work), "patches": patches}
    workers = plan_actors(session.config.resources.workers)
    with (
        logged(session, "predict", facts) as figures,
        progress(session.console, "predict: blocks", len(work)) as advance,
    ):
        for event in predict_and_publish(job, work, workers, products):
            if event.failure is not None:
                session.fail(job.pairs[event.pair].pair_id, event.failure, event.details)
            if event.published:
                published[event.pair] = products[event.pair]
            add(spent, event.spent)
            advance(int(event.block), f"{len(published)} of {len(job.pairs)} pairs published")
        figures.update(rounded(spent))
    session.run_folder.sweep()
    return {number: each for number, each in published.items() if job.pairs[number].pair_id not in session.failures}


def _show_plan(session: Session, planned: Planned, sources: list[ModelSource], members: tuple[Member, ...]) -> None:
    splits = known_splits([item for item, _ in planned], session.config.split_buffer)
    job = prefer_stored(session, plan_run(session, planned, members, splits)[0], sources)
    job, planned = choose_pairs(session, job, planned, splits)
    work = plan_work(job, range(len(job.pairs)))
    patches = count_patches(job, [(item.pair, len(item.members)) for item in work])
    pixels = sum(pair.grid.height * pair.grid.width for pair in job.pairs)
    rate = last_rate(session, "predict", "patches")
    session.say(f"predict: {len(planned)} pair(s) with {', '.join(each.card.name for each in members)}")
    session.say(
        f"  missing: {len(work)} block(s), {patches} patch(es), test-time augmentation {session.config.predict.tta}"
    )
    free = free_text(session.workspace.root.free_bytes())
    session.say(f"  writes at most {size(pixels * (4 * len(members) + 5) * 2)} before compression{free}")
    session.say(f"  time: {duration(patches / rate)} at the last measured rate" if rate else "  time: not measured yet")


# ``cdpipe predict --before A --after B --model DIR --out DIR``: one pair, no configuration.

NAME = "prediction"
BLOCK = 1024  # smaller than for many pairs, so that one pair keeps several cores busy
DRIVERS = ["GTiff", "PNG", "JPEG"]


def run_pair(options: argparse.Namespace) -> int:
    """Predict one pair; rasters and objects end in ``--out`` itself, all else in ``work/`` beneath it.

    Raises:
        ConfigError: If an argument is missing or does not fit the others, or ``--bands`` is not understood.
    """
    wanted = "a configuration, or --before, --after, --model and --out"
    if options.config is not None:
        raise ConfigError(f"predict: expected {wanted}; got parts of both")
    missing = [f"--{name}" for name in ("before", "after", "model", "out") if getattr(options, name) is None]
    if missing:
        raise ConfigError(f"predict: expected {wanted}; missing {', '.join(missing)}")
    if options.dry_run:
        raise ConfigError("predict: --dry-run is for runs with a configuration")
    catalog = options.out / "work" / "pair.csv"
    text = io.StringIO()
    rows = [["pair_id", "before", "after"], [NAME, str(options.before.resolve()), str(options.after.resolve())]]
    csv.writer(text, lineterminator="\n").writerows(rows)
    values: dict[str, Any] = {
        "name": NAME,
        "catalog": str(catalog.resolve()),
        "workspace": str((options.out / "work").resolve()),
        "sensors": {"given": {"bands": parse_bands(options.bands)}},
        "align": {"block": BLOCK},
        "input": {"drivers": DRIVERS, "pixel_coordinates": True},
        "predict": {"models": [str(folder.resolve()) for folder in options.model]},
    }
    config = parse_config(values, Path.cwd(), options.set, "predict")
    check_backend(config.predict, "cpu")
    session = Session(config, make_console(), verbose=options.verbose)
    with locked(session.workspace), session.resources:
        here(catalog).write(text.getvalue().encode())
        ingest.run(session)
        run(session)
        for product in sorted(session.run_folder.glob(f"*s/{NAME}_*")):
            name = product.name.removeprefix(f"{NAME}_")
            # in one folder a mask and its objects would share a style
            target = options.out / (f"objects{product.suffix}" if product.parent.name == "vectors" else name)
            shutil.copyfile(product.local(), target)
            session.say(f"wrote {target}")
        return close(session)


def parse_bands(text: str) -> dict[str, int]:
    """Band numbers by role from ``red=1,green=2,blue=3``.

    Raises:
        ConfigError: If the text is not of that form.
    """
    try:
        return {role.strip(): int(number) for role, number in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"--bands {text}: expected role=number, ..., as red=1,green=2,blue=3") from None
