"""A planned run as its manifest, once all of it is there."""

from collections.abc import Mapping
from dataclasses import replace

from cdpipe.cli.session import Session
from cdpipe.prediction.block import Member
from cdpipe.prediction.fit import Planned
from cdpipe.prediction.job import PredictJob, Thresholds
from cdpipe.runs.manifest import Manifest, ManifestPair
from cdpipe.runs.plan import Plan
from cdpipe.runs.products import Product, recorded
from cdpipe.runs.stac import StacCatalog, StacPair, stac_product
from cdpipe.version import __version__


def describe_run(
    session: Session, plan: Plan, published: Mapping[int, tuple[Product, ...]], layer: Product | None
) -> Manifest:
    """The manifest of a run.

    Args:
        session: The session.
        plan: The run.
        published: Products of the pairs that are finished, by their position.
        layer: Change objects of the whole run.
    """
    return Manifest(
        name=session.config.name,
        models=_describe_models(session, plan.job.members, plan.thresholds),
        ensemble=session.config.predict.ensemble,
        threshold=plan.thresholds.ensemble,
        fitted_on=plan.thresholds.fitted_on,
        pairs=[
            _describe_pair(plan.job, number, plan.planned, plan.splits, products)
            for number, products in sorted(published.items())
        ],
        vectors={} if layer is None else recorded(layer),
        failed=dict(session.failures),
    )


def plan_stac(session: Session, plan: Plan, manifest: Manifest) -> Product:
    """The catalog of the run that a manifest lists."""
    rows = {item.pair.pair_id: (item, stored) for item, stored in plan.planned}
    pairs = []
    for listed in manifest.pairs:
        item, stored = rows[listed.pair_id]
        dates = item.pair.before_date, item.pair.after_date
        pairs.append(StacPair(stored, listed.change, dates, item.sources, listed.rasters | listed.vectors))
    models = [{"name": model["name"], "key": model["key"], "weight": model["weight"]} for model in manifest.models]
    facts = {"models": models, "ensemble": manifest.ensemble, "threshold": manifest.threshold}
    catalog = StacCatalog(session.workspace, manifest.name, tuple(pairs), manifest.vectors, __version__, facts)
    return stac_product(catalog)


def with_stac(manifest: Manifest, catalog: Product) -> Manifest:
    """The manifest with the catalog as it is recorded."""
    return replace(manifest, stac=recorded(catalog))


def _describe_models(session: Session, members: tuple[Member, ...], thresholds: Thresholds) -> list[dict[str, object]]:
    root = session.workspace.root
    return [
        {
            "name": each.card.name,
            "layer": each.name,
            "key": each.card.key,
            "folder": str(each.folder.relative_to(root) if each.folder.is_relative_to(root) else each.folder),
            "weight": each.weight,
            "temperature": each.temperature,
            "threshold": thresholds.models[each.name],
        }
        for each in members
    ]


def _describe_pair(
    job: PredictJob, number: int, planned: Planned, splits: dict[str, str], products: tuple[Product, ...]
) -> ManifestPair:
    item, pair = planned[number]
    files = {product.kind: recorded(product) for product in products}
    return ManifestPair(
        pair_id=pair.pair_id,
        split=splits.get(pair.pair_id),
        pair=pair.key,
        label=item.label_key,
        probabilities=job.layers(number),
        change=job.ensembles[number].key,
        rasters=files["rasters"],
        vectors=files.get("vectors", {}),
    )
