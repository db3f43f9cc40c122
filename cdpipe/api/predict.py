"""Models over all pairs, the ensemble, change, and every pair's products as they are done."""

import contextlib
import csv
import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdpipe.api.answer import answer_page, describe_answer
from cdpipe.api.fits import find_fits, looks_of
from cdpipe.api.ingest import ingest
from cdpipe.config.detectors import FINE_M, SHIPPED, WITHOUT_LABELS, named_folder, named_model
from cdpipe.config.load import parse_config
from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, describe_raster
from cdpipe.metrics.counts import ScoreHistogram
from cdpipe.models.answering import who_answers
from cdpipe.models.ensemble_folder import model_folders
from cdpipe.models.folder import read_card
from cdpipe.pairs.bands import DEFAULT, choose_bands, common_bands, named_roles
from cdpipe.pairs.grouping import group_findings
from cdpipe.prediction.ensemble import Ensemble
from cdpipe.processors import is_faster_in_bfloat16, processor_flags
from cdpipe.runs.ensembles import adopt_options
from cdpipe.runs.fit import Measure, MeasurePairs, fit_members, fit_thresholds, pairs_to_fit_on, wants_fitting
from cdpipe.runs.manifest import Manifest, manifest_path
from cdpipe.runs.members import ModelSource, check_given, plan_members
from cdpipe.runs.plan import (
    BlockWork,
    RunPair,
    RunPlan,
    choose_pairs,
    count_patches,
    lacking_bands,
    left_to_networks,
    missing_work,
    model_sources,
    pair_products,
    plan_run,
    prefer_stored,
    run_layer,
    without_pairs,
)
from cdpipe.runs.products import Product, is_written
from cdpipe.runs.publish import find_published, publish_run
from cdpipe.runs.run import Inventory, Progress, Run, ignore, rounded, take_inventory
from cdpipe.store.tree import describe_store
from cdpipe.timing import add
from cdpipe.workspace.location import Location, Place, here, located
from cdpipe.workspace.records import forget_attempts

REPORT = "report.html"  # of one pair
NAME = "prediction"  # of the one pair, and of its run
SENSOR, SENSOR_AFTER = "given", "given_after"
LONG_SECONDS = 60.0  # of networks at work, after which it is said what would be faster
BLOCK = 1024  # smaller than for many pairs, so that one pair keeps several cores busy
DRIVERS = ["GTiff", "PNG", "JPEG"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is missing of a run.

    Attributes:
        pairs: How many pairs it has.
        models: The names of its models.
        blocks: How many blocks something is missing of.
        patches: On how many patches networks are to be run, about.
        bytes_out: What is written at most, before compression.
        bytes_free: What is free where the workspace lies; None in object storage.
        seconds: How long that takes at the last measured rate; None where none was measured.
    """

    pairs: int
    models: tuple[str, ...]
    blocks: int
    patches: int
    bytes_out: int
    bytes_free: int | None
    seconds: float | None


def plan_prediction(
    run: Run, *, pairs: Sequence[str] = (), splits: Sequence[str] = (), device: str = "cpu"
) -> Prediction:
    """What :func:`predict` would do; records are read, nothing is written and Ray is not started.

    Args:
        run: The run.
        pairs: Ids or names of the pairs to predict; all if empty.
        splits: Splits to predict; all if empty.
        device: What networks would run on, ``cpu`` or ``cuda``.

    Raises:
        InputError: If no pair can be predicted or a model is not trained.
    """
    config, inventory = run.config, take_inventory(run)
    run.recall_warnings()
    sources = model_sources(config, run.workspace, inventory)
    members = plan_members(config, sources, device)
    plan = prefer_stored(config, plan_run(config, run.workspace, inventory, members), sources)
    plan = choose_pairs(config, plan, pairs, splits)
    work = list(missing_work(plan))
    patches = count_patches(plan, work)
    pixels = sum(pair.stored.grid.height * pair.stored.grid.width for pair in plan.pairs)
    rate = run.last_rate("predict", "patches")
    return Prediction(
        pairs=len(plan.pairs),
        models=tuple(member.card.name for member in members),
        blocks=len(work),
        patches=patches,
        bytes_out=pixels * (4 * len(members) + 5) * 2,
        bytes_free=run.workspace.root.free_bytes(),
        seconds=patches / rate if rate else None,
    )


def predict(run: Run, *, pairs: Sequence[str] = (), splits: Sequence[str] = ()) -> Manifest:
    """Predict what is missing and publish it; a run that is finished already is only looked at, without Ray.

    Args:
        run: The run.
        pairs: Ids or names of the pairs to predict; all if empty.
        splits: Splits to predict; all if empty.

    Returns:
        What is published.

    Raises:
        ConfigError: If models, weights and thresholds do not fit each other, or the backend cannot be had here.
        InputError: If no pair can be predicted or a model is not trained.
    """
    with run.hold():
        inventory = take_inventory(run)
        run.recall_warnings()
        sources = model_sources(run.config, run.workspace, inventory)
        forget_attempts(run.workspace)
        run.folder.sweep()
        wanted = pairs, splits
        manifest = find_published(run.config, run.workspace, inventory, sources, wanted, run.failures)
        if manifest is not None:
            describe_store(run.workspace)  # which a run that was killed may have left undone
            with run.logged("predict", {"blocks": 0, "patches": 0}):
                return _tell_of_pairs(run, manifest)
        plan = choose_pairs(run.config, settle(run, inventory, sources), *wanted)
        _say_who_keeps_silent(run, plan)
        products = {pair.pair_id: pair_products(run.config, plan, pair) for pair in plan.pairs}
        run_layer(products.values())  # a CRS that there is not is told before any work
        published = _predict(run, plan, products)
        describe_store(run.workspace)
        if not published:
            raise InputError("no pair could be predicted: " + run.sum_up_failures())
        return _tell_of_pairs(run, publish_run(run.config, plan, published, run.failures))


def _say_who_keeps_silent(run: Run, plan: RunPlan) -> None:
    """Say so where detectors have no part in pairs."""
    pairs = left_to_networks(plan)
    if pairs:
        which = f"{len(pairs)} of {len(plan.pairs)} pairs" if len(plan.pairs) > 1 else "this pair"
        names = " and ".join(each.card.name for each in plan.members if not each.card.is_detector)
        run.say(
            f"predict: {names} alone on {which}: in pixels finer than {run.config.predict.detectors_from_m:g} m, and "
            "8-bit pictures of which nobody knows, detectors find next to nothing (predict.detectors_from_m)"
        )


def _tell_of_pairs(run: Run, manifest: Manifest) -> Manifest:
    """The manifest, after what it doubts is told, and which pairs have no objects."""
    findings = [(pair.pair_id, doubt) for pair in manifest.pairs for doubt in pair.doubts]
    findings += [(pair.pair_id, pair.no_objects) for pair in manifest.pairs if pair.no_objects is not None]
    run.warn([str(group) for group in group_findings(findings)])
    return manifest


def predict_pair(  # noqa: PLR0913 (options, to be given by name)
    dates: tuple[Place, Place],
    models: Sequence[Place],
    out: Path,
    *,
    bands: Mapping[str, int] | None = None,
    valid: tuple[Place | None, Place | None] = (None, None),
    overrides: Sequence[str] = (),
    progress: Progress = ignore,
    verbose: bool = False,
) -> list[Path]:
    """Predict one pair without a configuration.

    Args:
        dates: Rasters of the first and of the second date.
        models: Model folders, of which several make an ensemble; or the folder of an ensemble; or names of detectors
            that need no training; or ``cdpipe``, the model that comes with it. Without any: ``cdpipe``, ``mad`` and
            ``cva`` together, or only the latter two where nobody says which bands are red, green and blue.
        out: Folder for the results; all else goes to ``work/`` beneath it.
        bands: Number of the band of each role, such as ``{"red": 1, "green": 2, "blue": 3}``; without it what each
            file calls its bands, or else these three; without models, or of detectors alone, all that both dates have.
        valid: Cloud or quality rasters of the first and of the second date; ``sensors.given.quality=...`` among the
            overrides says what their values mean.
        overrides: Keys of a configuration to override, each as ``key=value``.
        progress: Called with how far the work is, see :class:`cdpipe.runs.run.Run`.
        verbose: Show Ray's own messages.

    Returns:
        The files that were written to ``out``.

    Raises:
        ConfigError: If an option is not understood, or the backend cannot be had here.
        InputError: If a raster or model cannot be used.
    """
    catalog = out / "work" / "pair.csv"
    places = [located(place).resolve() for place in dates]
    folders = [named_model(place) for place in models or WITHOUT_LABELS]
    untrained = all(read_card(folder).is_detector for folder in model_folders(folders))
    values = _values_of_pair(catalog, bands or DEFAULT, folders)
    if untrained:  # detectors bear no dates that lie off
        values["align"]["coregister"] = "auto"
    config = parse_config(values, Path.cwd(), list(overrides), "predict")
    check_given(config)
    infos = _describe_dates(config, places)
    sensors, told = [SENSOR, SENSOR], list[str]()
    if not models:
        values["predict"], told = _choose_answer(bands, infos)
    remarks = list[str]()
    if bands is None and infos:
        values["sensors"], remarks = _choose_bands(config, infos, None if untrained else folders)
        sensors[1] = list(values["sensors"])[-1]
    run = Run(adopt_options(parse_config(values, Path.cwd(), list(overrides), "predict")), progress, verbose)
    for remark in (*told, *remarks):
        run.say(remark)
    with run.hold():
        here(catalog).write(_pair_table(places, sensors, valid).encode())
        ingest(run)
        manifest = predict(run)
        page = out / REPORT
        written = [*_copy_products(run, out), page]
        answer_page(run, manifest, page, (places[0].name, places[1].name), remarks)
    return written


def _values_of_pair(catalog: Path, bands: Mapping[str, int], folders: Sequence[Location]) -> dict[str, Any]:
    """The configuration of one pair, whose workspace is where its catalog lies."""
    return {
        "name": NAME,
        "catalog": str(catalog.resolve()),
        "workspace": str(catalog.parent.resolve()),
        "sensors": {SENSOR: {"bands": dict(bands)}},
        "align": {"block": BLOCK},
        "input": {"drivers": DRIVERS, "pixel_coordinates": True},
        "predict": {"models": [str(folder) for folder in folders]},
    }


def _copy_products(run: Run, out: Path) -> list[Path]:
    """Copy the pair's rasters and objects to where the user wants them."""
    written = []
    for product in sorted(run.folder.local().glob(f"*s/{NAME}_*")):
        name = product.name.removeprefix(f"{NAME}_")
        # in one folder a mask and its objects would share a style
        target = out / (f"objects{product.suffix}" if product.parent.name == "vectors" else name)
        shutil.copyfile(product, target)
        written.append(target)
    return written


def _pair_table(places: Sequence[Location], sensors: Sequence[str], valid: Sequence[Place | None]) -> str:
    """A catalog of one pair, as CSV."""
    masks = ["" if place is None else str(located(place).resolve()) for place in valid]
    columns = ["pair_id", "before", "after", "before_sensor", "after_sensor", "before_valid", "after_valid"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, [NAME, *map(str, places), *sensors, *masks]])
    return text.getvalue()


def _describe_dates(config: Config, dates: Sequence[Location]) -> list[RasterInfo]:
    """What the files say of themselves; those that cannot be opened are for the check to tell."""
    found = []
    for date in dates:
        with contextlib.suppress(InputError):
            found.append(describe_raster(date, config.input))
    return found


def _choose_answer(bands: Mapping[str, int] | None, infos: Sequence[RasterInfo]) -> tuple[dict[str, Any], list[str]]:
    """What predicts where no model is named, as a part of the configuration; and what there is to say of that."""
    names = who_answers(bands or (named_roles(infos[0], infos[-1]) if infos else ()))
    told = [f"no model is named: {describe_answer(names)} answer together"]
    if SHIPPED not in names and not bands and infos and min(info.count for info in infos) >= len(DEFAULT):
        told.append(
            "the files do not say which bands are red, green and blue; with --bands red=..,green=..,blue=.. the model "
            "that comes with cdpipe takes part, too, and more of what is marked is right"
        )
    return {"models": [str(named_folder(name)) for name in names], "detectors_from_m": FINE_M}, told


def _choose_bands(
    config: Config, infos: Sequence[RasterInfo], models: Sequence[Location] | None
) -> tuple[dict[str, Any], list[str]]:
    """One sensor, or one for each date, with the bands that :func:`choose_bands` says; and what there is to say.

    Without models that need some in particular, those of :func:`common_bands`.
    """
    before, after = infos[0], infos[-1]
    if models is None:
        first, second, remarks = common_bands(before, after)
    else:
        needed = [role for folder in model_folders(models) for role in read_card(folder).roles]
        first, second, remarks = choose_bands(before, after, needed)
    sensors: dict[str, Any] = {SENSOR: {"bands": first}}
    if second != first:
        own = config.sensors[SENSOR].model_dump(mode="json", exclude={"bands"}, exclude_unset=True)
        sensors |= {SENSOR_AFTER: {**own, "bands": second}}  # what was overridden holds for both dates
    return sensors, remarks


def settle(run: Run, inventory: Inventory, sources: Sequence[ModelSource]) -> RunPlan:
    """The run with everything that has to be found out by work: batches of GPUs, weights, thresholds.

    Raises:
        ConfigError: If models, weights and thresholds do not fit each other.
        InputError: If no pair has the bands that the models need, or an ensemble is not whole.
    """
    check_given(run.config)
    plan = plan_before_fitting(run, inventory, sources)
    fitting: list[str] = []
    if wants_fitting(run.config, plan):
        fitting = predict_to_fit_on(run, plan)
    plan = with_fitted_weights(run, plan, fitting)
    return fit_thresholds(run.config, run.folder, plan, fitting, measure_by_tasks(run))


def plan_before_fitting(run: Run, inventory: Inventory, sources: Sequence[ModelSource]) -> RunPlan:
    """The run before anything is fitted, on the devices that there are; pairs without needed bands are failures.

    Raises:
        ConfigError: If the models do not fit the configuration or there are no pairs to calibrate int8 on.
        InputError: If no pair has the bands that the models need.
    """
    from cdpipe.cluster.needs import plan_device
    from cdpipe.cluster.predict import with_probed_batches
    from cdpipe.cluster.start import start_workers

    start_workers(run)
    plan = plan_run(run.config, run.workspace, inventory, plan_members(run.config, sources, plan_device(run)))
    lacking = lacking_bands(plan)
    for pair_id, reason in lacking.items():
        run.fail(pair_id, reason)
    plan = without_pairs(plan, lacking)
    if not plan.pairs:
        raise InputError("no pair has the bands that the models need")
    stored = prefer_stored(run.config, plan, sources)
    if stored is not plan:
        how = stored.members[0].execution
        run.say(f"predict: uses the probabilities that are stored already, computed by {how.backend} on {how.device}")
    return with_probed_batches(run, stored)


def predict_to_fit_on(run: Run, plan: RunPlan) -> list[str]:
    """Ids of the labelled pairs that may be fitted on, predicted now; those that cannot be are failures."""
    from cdpipe.cluster.needs import asked_for_models
    from cdpipe.cluster.predict import predict_only

    numbers = pairs_to_fit_on(plan)
    blind = fail_blind(run, plan, numbers)
    numbers = [number for number in numbers if plan.pairs[number].pair_id not in blind]
    work = list(missing_work(plan, numbers))
    if work:
        manifest_path(run.folder).unlink(missing_ok=True)
        title = "predict pairs to fit thresholds on: blocks"
        with (
            asked_for_models(run, "predict", len(work)) as actors,
            _patches_step(run, plan, work) as ran,
            run.step(title, len(work)) as advance,
        ):
            for event in predict_only(plan, work, actors, ran=ran):
                advance(1, "")
                if event.failure is not None:
                    run.fail(plan.pairs[event.pair].pair_id, event.failure, event.details)
    ids = [plan.pairs[number].pair_id for number in numbers]
    return [pair_id for pair_id in ids if pair_id not in run.failures]


def fail_blind(run: Run, plan: RunPlan, chosen: Sequence[int] | None = None) -> set[str]:
    """Have detectors look at pairs; see :func:`cdpipe.api.fits.find_fits`.

    Args:
        run: The run.
        plan: Its plan.
        chosen: Positions of pairs; default: all.

    Returns:
        Ids of pairs in which there is nothing to compare; they are failures.
    """
    pairs = [plan.pairs[number] for number in (range(len(plan.pairs)) if chosen is None else chosen)]
    looks = [
        (pair.stored, [look for each in pair.members for look in looks_of(pair.stored, each.card)]) for pair in pairs
    ]
    blind = find_fits(run, "predict", looks)
    for pair_id, why in blind.items():
        run.fail(pair_id, why)
    return set(blind)


def with_fitted_weights(run: Run, plan: RunPlan, fitting: Sequence[str]) -> RunPlan:
    """The run with its members' weights and temperatures; what is fitted now is told."""
    plan, fitted = fit_members(run.config, run.folder, plan, fitting, measure_by_tasks(run))
    if fitted and not fitting:
        run.say("predict: no validation or out-of-fold pairs to fit temperatures or weights on; models stay equal")
    for what, values in fitted.items():
        if values:
            told = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            run.say(f"predict: {what} with the least log loss on pairs to fit on: {told}")
    return plan


def measure_by_tasks(run: Run) -> MeasurePairs:
    """Measures pairs, a task each; what goes wrong with a pair is that pair's failure."""

    def measure_pairs(
        pairs: Sequence[RunPair], ensembles: Mapping[str, Ensemble], measure: Measure
    ) -> dict[str, ScoreHistogram]:
        from cdpipe.cluster.start import start_workers
        from cdpipe.cluster.tasks import map_pairs

        start_workers(run)
        jobs = [(pair.pair_id, (run.workspace, pair.to_fit_on, ensembles[pair.pair_id])) for pair in pairs]
        histograms: dict[str, ScoreHistogram] = {}
        # a lambda, since a function of this module would make every worker import what it does not need
        for pair_id, scores, error in map_pairs(run, "predict", lambda job: measure(*job), jobs):
            if scores is None:
                run.fail(pair_id, f"fitting the threshold: {error}")
            else:
                histograms[pair_id] = scores
        return dict(sorted(histograms.items()))

    return measure_pairs


def _say_what_is_faster(run: Run, plan: RunPlan, seconds: float) -> None:
    """Say so where threads of this process spent minutes on networks, and need not have."""
    from cdpipe.cluster.spread import threads_here

    if seconds < LONG_SECONDS or not threads_here() or not is_faster_in_bfloat16(processor_flags()):
        return
    networks = [each for each in plan.members if not (each.card.is_detector or each.card.is_exported)]
    if any(each.execution.precision == "float32" for each in networks):
        run.say(
            "predict: networks take about half the time on this processor with predict.precision: bfloat16; "
            "docs/speed.md says what it costs"
        )


@contextlib.contextmanager
def _patches_step(run: Run, plan: RunPlan, work: Sequence[BlockWork]) -> Iterator[Callable[[int], None]]:
    """What to tell of patches that are done, where threads run the networks: a block of one pair takes a minute."""
    from cdpipe.cluster.spread import threads_here

    with run.step("predict: patches", count_patches(plan, work) if threads_here() else 0) as advance:
        yield lambda count: advance(count, "")


def _predict(run: Run, plan: RunPlan, products: Mapping[str, tuple[Product, ...]]) -> dict[str, tuple[Product, ...]]:
    """Run the models; the products of every pair that was published."""
    from cdpipe.cluster.needs import asked_for_prediction
    from cdpipe.cluster.predict import predict_and_publish

    plan = without_pairs(plan, fail_blind(run, plan))
    work = list(missing_work(plan))
    # products alone are made where a run goes back to a threshold that it had before
    to_make = sum(not all(map(is_written, of_pair)) for of_pair in products.values())
    if work or to_make:
        manifest_path(run.folder).unlink(missing_ok=True)
    spent: dict[str, float] = {}
    published: dict[str, tuple[Product, ...]] = {}
    facts = {"blocks": len(work), "patches": count_patches(plan, work)}
    ordered = [products[pair.pair_id] for pair in plan.pairs]
    with (
        asked_for_prediction(run, len(work), to_make) as actors,
        run.logged("predict", facts) as figures,
        _patches_step(run, plan, work) as ran,
        run.step("predict: blocks", len(work)) as advance,
    ):
        for event in predict_and_publish(plan, work, actors, ordered, ran=ran):
            pair_id = plan.pairs[event.pair].pair_id
            if event.failure is not None:
                run.fail(pair_id, event.failure, event.details)
            if event.published:
                published[pair_id] = products[pair_id]
            add(spent, event.spent)
            advance(int(event.block), f"{len(published)} of {len(plan.pairs)} pairs published")
        figures.update(rounded(spent))
    _say_what_is_faster(run, plan, spent.get("model_seconds", 0.0))
    run.folder.sweep()
    return {pair_id: each for pair_id, each in published.items() if pair_id not in run.failures}
