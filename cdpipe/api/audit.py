"""What a run says of itself without labels: seams, swaps, false alarms, disagreement, shift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cdpipe.api.making import ensure_made
from cdpipe.errors import InputError
from cdpipe.evaluation.audit import AuditJob
from cdpipe.evaluation.audit_tables import PROBED, Audit, describe_probes, pool_audits
from cdpipe.evaluation.probes import ProbeJob, choose_windows
from cdpipe.evaluation.products import PairAudit, audit_product, read_audit
from cdpipe.geo.tilings import patch_stride
from cdpipe.models.folder import read_card
from cdpipe.runs.manifest import Manifest, model_folder
from cdpipe.runs.members import plan_members
from cdpipe.runs.pairs import PairResults, finished_run, result_pairs
from cdpipe.runs.plan import RunPair, Thresholds, model_sources, pair_ensemble, plan_run
from cdpipe.runs.run import Run, take_inventory
from cdpipe.workspace.files import json_bytes, read_json, write_if_other
from cdpipe.workspace.location import Location


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What an audit would look at.

    Attributes:
        pairs: How many pairs.
        patches: On how many patches of each models would be run at most.
    """

    pairs: int
    patches: int


@dataclass(frozen=True, slots=True)
class Audits:
    """What an audit found.

    Attributes:
        pairs: By pair; see :mod:`cdpipe.evaluation.audit_tables`.
        pooled: Of all pairs together.
        path: The file that has all of it.
    """

    pairs: Mapping[str, Audit]
    pooled: Audit
    path: Location


def plan_audit(run: Run, *, probe: bool = True) -> AuditPlan:
    """What :func:`audit` would look at; nothing is written.

    Args:
        run: The run.
        probe: Whether to run models again.

    Raises:
        InputError: If the run has no manifest yet.
    """
    pairs = result_pairs(run, finished_run(run))
    return AuditPlan(len(pairs), run.config.audit.patches if probe else 0)


def audit(run: Run, *, probe: bool = True) -> Audits:
    """Audit every finished pair of the run that was not audited yet as it is, and write down what was found.

    Args:
        run: The run.
        probe: Whether to run models again, on ``audit.patches`` patches of each pair; else what an earlier audit of
            the same results found by that is kept.

    Raises:
        InputError: If the run has no manifest, or its models are not those of the configuration.
    """
    with run.hold():
        manifest = finished_run(run)
        pairs = result_pairs(run, manifest)
        patches = run.config.audit.patches if probe else 0
        for pair_id, reason in manifest.failed.items():
            run.fail(pair_id, reason)
        path = run.folder / "report" / "audits.json"
        with run.logged("audit", {"pairs": len(pairs), "patches": patches}):
            audits = _audit_stored(run, manifest, pairs, path)
            _write(path, audits)
            if patches:
                _probe(run, manifest, path, audits)
        return Audits(audits, pool_audits(audits), path)


def _audit_stored(run: Run, manifest: Manifest, pairs: Sequence[PairResults], path: Location) -> dict[str, Audit]:
    """What stored results say, with what an earlier audit of the same results found by running models."""
    earlier = read_json(path)
    known = earlier.get("pairs", {}) if isinstance(earlier, dict) else {}
    thresholds = {model[name]: model["threshold"] for model in manifest.models for name in ("layer", "name")}
    sides = {read_card(model_folder(run.workspace.root, model)).patch for model in manifest.models}
    patches = tuple((side, patch_stride(side, run.config.predict.overlap)) for side in sorted(sides))
    specs = {}
    for pair in pairs:
        if pair.finished is not None:
            members = tuple((name, key, thresholds[name]) for name, key in pair.finished.probabilities.items())
            job = AuditJob(run.workspace, pair.stored, pair.finished.change, members, patches)
            specs[pair.stored.pair_id] = PairAudit(run.config.name, job)
    made = ensure_made(run, "audit", {pair_id: audit_product(spec) for pair_id, spec in specs.items()})
    audits: dict[str, Audit] = {}
    for pair_id in sorted(made):
        spec, before = specs[pair_id], known.get(pair_id) or {}
        audits[pair_id] = {
            "key": spec.key,
            "change": spec.job.change_key,
            **read_audit(spec),
            **{name: before.get(name) if before.get("key") == spec.key else None for name in PROBED},
        }
    return audits


def _probe(run: Run, manifest: Manifest, path: Location, audits: dict[str, Audit]) -> None:
    """Run models on patches of the pairs of which that is not known yet; each pair is written as it is done."""
    most = run.config.audit.patches
    waiting = {name for name, found in audits.items() if found["swap"] is None or found["swap"]["patches"] != most}
    if not waiting:
        return
    from cdpipe.cluster.needs import asked_for_models
    from cdpipe.cluster.probes import probe_pairs
    from cdpipe.cluster.start import start_workers

    start_workers(run)
    jobs = _probe_jobs(run, manifest, waiting)
    windows = sum(len(job.windows) for job in jobs)
    if not windows:
        return
    with asked_for_models(run, "audit", len(jobs)) as actors, run.step("audit: patches", windows) as advance:
        for number, probes, failure in probe_pairs(jobs, actors, lambda count: advance(count, "")):
            pair_id = jobs[number].pair.pair_id
            if failure is not None:
                run.fail(pair_id, f"audit: {failure}")
                continue
            audits[pair_id] |= describe_probes(probes, run.config.audit.patches)
            _write(path, audits)


def _probe_jobs(run: Run, manifest: Manifest, waiting: set[str]) -> list[ProbeJob]:
    own = {model["layer"]: float(model["threshold"]) for model in manifest.models}
    thresholds = Thresholds(manifest.threshold, own, manifest.fitted_on)
    most = run.config.audit.patches
    jobs = []
    for pair in _planned_pairs(run, manifest):
        if pair.pair_id not in waiting:
            continue
        ensemble = pair_ensemble(run.config, pair, thresholds)
        windows = tuple(choose_windows(pair.stored, pair.members, most))
        jobs.append(ProbeJob(run.workspace, pair.stored, pair.members, ensemble, own, windows))
    return jobs


def _planned_pairs(run: Run, manifest: Manifest) -> Sequence[RunPair]:
    """The store's pairs, each with the models that predicted it, their weights and temperatures.

    Raises:
        InputError: If the configuration's models are not those of the run.
    """
    from cdpipe.cluster.needs import plan_device

    inventory = take_inventory(run)
    sources = model_sources(run.config, run.workspace, inventory)
    members = plan_members(run.config, sources, plan_device(run))
    if {member.card.key for member in members} != {model["key"] for model in manifest.models}:
        raise InputError("audit: the configuration's models are not those of the run; run cdpipe predict first")
    fitted = {model["key"]: model for model in manifest.models}  # weights and temperatures may have been
    members = tuple(
        replace(
            member,
            weight=fitted[member.card.key]["weight"],
            temperature=fitted[member.card.key].get("temperature", 1.0),
        )
        for member in members
    )
    return plan_run(run.config, run.workspace, inventory, members).pairs


def _write(path: Location, audits: Mapping[str, Audit]) -> None:
    write_if_other(path, json_bytes({"pairs": audits, "pooled": pool_audits(audits)}))
