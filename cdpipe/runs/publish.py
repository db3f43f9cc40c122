"""What a run publishes as a whole: objects, its ensemble, STAC catalog and manifest; and whether all is there."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cdpipe.config.schema import Config
from cdpipe.detectors.detect import Fit
from cdpipe.detectors.stored import known_fit
from cdpipe.errors import CdpipeError
from cdpipe.models.familiarity import doubt_scene, stored_facts
from cdpipe.prediction.block import Member
from cdpipe.runs.ensembles import ensemble_product
from cdpipe.runs.fit import look_up_fit
from cdpipe.runs.manifest import Manifest, ManifestPair, read_manifest, write_manifest
from cdpipe.runs.members import ModelSource
from cdpipe.runs.mosaic import mosaic_product
from cdpipe.runs.plan import (
    RunPair,
    RunPlan,
    Thresholds,
    choose_pairs,
    is_stored,
    lacking_bands,
    pair_products,
    plan_run,
    possible_members,
    run_layer,
    without_pairs,
)
from cdpipe.runs.products import Product, ensure_written, is_written, recorded, refusal
from cdpipe.runs.results import results_are_finished
from cdpipe.runs.run import Inventory
from cdpipe.runs.stac import StacCatalog, StacPair, stac_product
from cdpipe.version import __version__
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location


def publish_run(
    config: Config, plan: RunPlan, published: Mapping[str, tuple[Product, ...]], failed: Mapping[str, str]
) -> Manifest:
    """Write a run's objects, mosaic, ensemble and STAC catalog where they are not there yet, and last its manifest.

    Args:
        config: The configuration.
        plan: The run.
        published: Products of the pairs that are finished, by pair.
        failed: The pairs that are not, with the reasons.
    """
    of_pairs = [published[pair.pair_id] for pair in plan.pairs if pair.pair_id in published]
    layer, mosaic, ensemble = run_layer(of_pairs), mosaic_product(of_pairs), ensemble_product(config, plan)
    for product in (layer, mosaic, ensemble):
        if product is not None:
            ensure_written(product)
    manifest = describe_run(config, plan, published, (layer, mosaic), failed)
    stac = plan_stac(plan, manifest)
    ensure_written(stac)
    manifest = completed(manifest, stac, ensemble)
    crash_point("manifest-unwritten")
    write_manifest(plan.workspace.run(config.name), manifest)
    return manifest


def find_published(
    config: Config,
    workspace: Workspace,
    inventory: Inventory,
    sources: Sequence[ModelSource],
    wanted: tuple[Sequence[str], Sequence[str]] = ((), ()),
    failed: Mapping[str, str] | None = None,
) -> Manifest | None:
    """The run's manifest, if it is that of this configuration and all it lists is there; else None. Only reads.

    Found out without Ray, so it is not known yet whether there are GPUs: what either kind of device has finished is
    finished.

    Args:
        config: The configuration.
        workspace: The store.
        inventory: The pairs.
        sources: The models.
        wanted: Names of pairs, and splits, to which the run is limited; see :func:`cdpipe.runs.plan.choose_pairs`.
        failed: Pairs that have failed so far, with the reasons.
    """
    folder = workspace.run(config.name)
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    for members in possible_members(config, workspace, sources):
        try:
            plan = plan_run(config, workspace, inventory, members)
            lacking = lacking_bands(plan)
            settled = look_up_fit(config, folder, without_pairs(plan, lacking))
            if settled is None:
                continue
            plan = choose_pairs(config, settled, *wanted)
            products = {pair.pair_id: pair_products(config, plan, pair) for pair in plan.pairs}
            whole = run_layer(products.values()), mosaic_product(products.values())
        except CdpipeError:  # what is wrong is said by the run that follows
            continue
        written = (is_written(product) for product in (*itertools.chain(*products.values()), *filter(None, whole)))
        if not (is_stored(plan) and results_are_finished(plan) and all(written)):
            continue
        found = describe_run(config, plan, products, whole, {**lacking, **(failed or {})})
        stac, ensemble = plan_stac(plan, found), ensemble_product(config, plan)
        handed_on = ensemble is None or is_written(ensemble)
        if is_written(stac) and handed_on and completed(found, stac, ensemble) == manifest:
            return manifest
    return None


def describe_run(
    config: Config,
    plan: RunPlan,
    published: Mapping[str, tuple[Product, ...]],
    whole: tuple[Product | None, Product | None],
    failed: Mapping[str, str],
) -> Manifest:
    """The manifest of a run, without its STAC catalog and its ensemble.

    Args:
        config: The configuration.
        plan: The run.
        published: Products of the pairs that are finished, by pair.
        whole: Change objects of the whole run, and its mosaic.
        failed: The pairs that are not finished, with the reasons.

    Raises:
        ValueError: If the run's thresholds are not known yet.
    """
    thresholds = plan.thresholds
    if thresholds is None:
        raise ValueError("expected a run whose thresholds are known")
    layer, mosaic = whole
    return Manifest(
        name=config.name,
        models=_describe_models(plan.workspace.root, plan.members, thresholds),
        ensemble=config.predict.ensemble,
        threshold=thresholds.ensemble,
        fitted_on=thresholds.fitted_on,
        pairs=[
            _describe_pair(plan.workspace, pair, published[pair.pair_id])
            for pair in plan.pairs
            if pair.pair_id in published
        ],
        vectors={} if layer is None else recorded(layer),
        mosaic={} if mosaic is None else recorded(mosaic),
        failed=dict(failed),
    )


def plan_stac(plan: RunPlan, manifest: Manifest) -> Product:
    """The catalog of the run that a manifest lists."""
    by_id = {pair.pair_id: pair for pair in plan.pairs}
    pairs = []
    for listed in manifest.pairs:
        pair = by_id[listed.pair_id]
        dates = pair.planned.pair.before_date, pair.planned.pair.after_date
        files = listed.rasters | listed.vectors
        pairs.append(StacPair(pair.stored, listed.change, dates, pair.planned.sources, files))
    models = [{"name": model["name"], "key": model["key"], "weight": model["weight"]} for model in manifest.models]
    facts = {"models": models, "ensemble": manifest.ensemble, "threshold": manifest.threshold}
    files = manifest.vectors | manifest.mosaic
    catalog = StacCatalog(plan.workspace, manifest.name, tuple(pairs), files, __version__, facts)
    return stac_product(catalog)


def completed(manifest: Manifest, catalog: Product, ensemble: Product | None) -> Manifest:
    """The manifest with the catalog and the ensemble as they are recorded."""
    return replace(manifest, stac=recorded(catalog), handed_on={} if ensemble is None else recorded(ensemble))


def _describe_models(root: Location, members: Sequence[Member], thresholds: Thresholds) -> list[dict[str, object]]:
    return [
        {
            "name": member.card.name,
            "layer": member.name,
            "key": member.card.key,
            "folder": member.folder.relative_to(root) if member.folder.is_relative_to(root) else str(member.folder),
            "weight": member.weight,
            "temperature": member.temperature,
            "threshold": thresholds.models[member.name],
        }
        for member in members
    ]


def _describe_pair(workspace: Workspace, pair: RunPair, products: tuple[Product, ...]) -> ManifestPair:
    files = {product.kind: recorded(product) for product in products}
    scene = stored_facts(pair.stored)
    doubts = [doubt for member in pair.members for doubt in doubt_scene(member.card.name, member.card.learned, scene)]
    return ManifestPair(
        pair_id=pair.pair_id,
        split=pair.split,
        pair=pair.stored.key,
        label=pair.planned.label_key,
        probabilities=pair.probabilities,
        change=pair.change.key,
        rasters=files["rasters"],
        vectors=files.get("vectors", {}),
        strips={split: [at.row, at.col, at.height, at.width] for split, at in pair.strips.items()},
        doubts=doubts,
        no_objects=next((reason for product in products if (reason := refusal(product)) is not None), None),
        detectors={
            member.card.name: describe_fit(fit)
            for member in pair.members
            if member.card.is_detector
            and (fit := known_fit(workspace, pair.stored, member.card.architecture, pair.stored.roles))
        },
    )


def describe_fit(fit: Fit) -> dict[str, object]:
    """What a detector found out about a pair, as the manifest has it."""
    return {"bands": list(fit.bands), "threshold": fit.threshold, "pixels": fit.pixels, "step": fit.step}
