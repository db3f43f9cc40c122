"""``cdpipe audit``: what a run says of itself without labels: seams, swaps, false alarms, disagreement, shift."""

from dataclasses import replace

from rich.table import Table

from cdpipe.cli.console import progress
from cdpipe.cli.session import Session, logged, map_every_pair, stored_pairs
from cdpipe.errors import InputError
from cdpipe.evaluation.audit import AuditJob, audit_stored
from cdpipe.evaluation.audit_tables import PROBED, Audit, describe_probes, describe_stored, pool_audits, table_rows
from cdpipe.evaluation.probes import ProbeJob, choose_windows
from cdpipe.geo.tilings import patch_stride
from cdpipe.models.folder import read_card
from cdpipe.pairs.splits import known_splits
from cdpipe.prediction.job import Thresholds, pair_ensemble, plan_members
from cdpipe.runs.manifest import Manifest
from cdpipe.runs.pairs import RunPair, finished_run, run_pairs
from cdpipe.runs.plan import model_sources, plan_run
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.location import Location

HEAD = ("pair", "seam score (95 %)", "models differ", "shift, px", "swap flips", "false: same image", "false: moved")


def run(session: Session, *, probe: bool = True) -> None:
    """Audit every finished pair of the run, and write and print what was found.

    Args:
        session: The session.
        probe: Whether to run models again, on ``audit.patches`` patches of each pair; else what an earlier audit of
            the same results found by that is kept.

    Raises:
        InputError: If the run has no manifest, or its models are not those of the configuration.
    """
    manifest = finished_run(session)
    pairs = run_pairs(session, manifest)
    patches = session.config.audit.patches if probe else 0
    if session.dry_run:
        session.say(f"audit: {len(pairs)} pair(s); models are run four times on up to {patches} patch(es) of each")
        return
    for pair_id, reason in manifest.failed.items():
        session.fail(pair_id, reason)
    session.start_ray()
    path = session.run_folder / "report" / "audits.json"
    audits = _known_probes(path, pairs)
    with logged(session, "audit", {"pairs": len(pairs), "patches": patches}):
        audits = _audit_stored(session, manifest, pairs, audits)
        _write(path, audits)
        if patches:
            _probe(session, manifest, path, audits)
    _show(session, audits)
    session.say(f"audit: {path}; docs/audits.md says how to read it")


def _known_probes(path: Location, pairs: list[RunPair]) -> dict[str, Audit]:
    """What an earlier audit found by running models, of the pairs whose change is still the same."""
    earlier = read_json(path)
    known = earlier.get("pairs", {}) if isinstance(earlier, dict) else {}
    same = {each.stored.pair_id: known.get(each.stored.pair_id, {}) for each in pairs}
    changes = {each.stored.pair_id: each.finished.change for each in pairs if each.finished}
    return {
        pair_id: {name: audit[name] for name in PROBED if name in audit}
        for pair_id, audit in same.items()
        if audit.get("change") == changes.get(pair_id)
    }


def _audit_stored(
    session: Session, manifest: Manifest, pairs: list[RunPair], probed: dict[str, Audit]
) -> dict[str, Audit]:
    thresholds = {model[name]: model["threshold"] for model in manifest.models for name in ("layer", "name")}
    sides = {read_card(session.workspace.root / model["folder"]).patch for model in manifest.models}
    patches = tuple((side, patch_stride(side, session.config.predict.overlap)) for side in sorted(sides))
    jobs = []
    for each in pairs:
        if each.finished is not None:
            members = tuple((name, key, thresholds[name]) for name, key in each.finished.probabilities.items())
            job = AuditJob(session.workspace, each.stored, each.finished.change, members, patches)
            jobs.append((each.stored.pair_id, job))
    changes = {pair_id: job.change_key for pair_id, job in jobs}
    return {
        pair_id: {
            "change": changes[pair_id],
            **describe_stored(audit),
            **dict.fromkeys(PROBED),
            **probed.get(pair_id, {}),
        }
        for pair_id, audit in map_every_pair(session, "audit: pairs", "audit", audit_stored, jobs).items()
    }


def _probe(session: Session, manifest: Manifest, path: Location, audits: dict[str, Audit]) -> None:
    """Run models on patches of the pairs of which that is not known yet; each pair is written as it is done."""
    from cdpipe.cluster.probes import probe_pairs

    jobs = _probe_jobs(session, manifest, audits)
    windows = sum(len(job.windows) for job in jobs)
    with progress(session.console, "audit: patches", windows) as advance:
        for number, found, failure in probe_pairs(jobs, lambda count: advance(count, "")):
            pair_id = jobs[number].pair.pair_id
            if failure is not None:
                session.fail(pair_id, f"audit: {failure}")
                continue
            audits[pair_id] |= describe_probes(found, session.config.audit.patches)
            _write(path, audits)


def _probe_jobs(session: Session, manifest: Manifest, audits: dict[str, Audit]) -> list[ProbeJob]:
    from cdpipe.cluster.session import total_gpus

    most = session.config.audit.patches
    planned = [(item, stored) for item, stored in stored_pairs(session) if stored.pair_id in audits]
    sources = model_sources(session, planned)
    members = plan_members(session.config, sources, "cuda" if total_gpus() else "cpu")
    if {each.card.key for each in members} != {model["key"] for model in manifest.models}:
        raise InputError("audit: the configuration's models are not those of the run; run cdpipe predict first")
    fitted = {model["key"]: model for model in manifest.models}  # weights and temperatures may have been
    members = tuple(
        replace(each, weight=fitted[each.card.key]["weight"], temperature=fitted[each.card.key].get("temperature", 1.0))
        for each in members
    )
    splits = known_splits([item for item, _ in planned], session.config.split_buffer)
    job, _ = plan_run(session, planned, members, splits)
    own = {model["layer"]: float(model["threshold"]) for model in manifest.models}
    thresholds = Thresholds(manifest.threshold, own, manifest.fitted_on)
    jobs = []
    for number, pair in enumerate(job.pairs):
        earlier = audits[pair.pair_id]["swap"]
        if earlier is not None and earlier["patches"] == most:
            continue
        ensemble = pair_ensemble(session.config, job, number, thresholds)
        chosen = tuple(job.members_of(number))
        windows = tuple(choose_windows(pair, chosen, most))
        jobs.append(ProbeJob(session.workspace, pair, chosen, ensemble, own, windows))
    return jobs


def _write(path: Location, audits: dict[str, Audit]) -> None:
    write_json(path, {"pairs": audits, "pooled": pool_audits(audits)})


def _show(session: Session, audits: dict[str, Audit]) -> None:
    table = Table(*HEAD, title="Audits, without labels")
    for row in table_rows(audits, pool_audits(audits)):
        table.add_row(*row)
    session.console.print(table)
