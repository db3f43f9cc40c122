"""``cdpipe report``: what a run found, as pages to open in a browser."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdpipe.config.load import to_yaml
from cdpipe.keys import content_key
from cdpipe.pairs.catalog import read_catalog
from cdpipe.report.charts import read_history, training_charts
from cdpipe.report.content import PairPage, Report
from cdpipe.report.pages import write_report
from cdpipe.report.pair import PairJob, make_pair
from cdpipe.report.tables import took
from cdpipe.runs.manifest import Manifest
from cdpipe.runs.pairs import RunPair, finished_run, run_pairs
from cdpipe.verbs.every_pair import map_every_pair
from cdpipe.verbs.session import Session, read_failures, versions
from cdpipe.version import __version__
from cdpipe.workspace.local import read_json

MADE = ("ingest", "train", "predict")  # stages
TOLD = {"blocks", "pairs", "patches", "steps", "best_epoch", "masks", "rasters", "workers", "model"}  # of log entries


def run(session: Session) -> None:
    """Draw every finished pair and write the report's pages.

    Raises:
        InputError: If the run has no manifest yet.
    """
    manifest = finished_run(session)
    earlier = read_failures(session)
    for pair_id, reason in manifest.failed.items():
        session.fail(pair_id, reason)
    pairs = run_pairs(session, manifest)
    folder = session.run_folder / "report"
    if session.dry_run:
        session.say(f"report: {len(pairs)} pair page(s) and an index in {folder}")
        return
    jobs = [(each.pair.pair_id, _job(session, folder, each)) for each in pairs]
    facts = map_every_pair(session, "report: pairs", "report", make_pair, jobs)
    pages = [_page(session, each, facts[each.pair.pair_id]) for each in pairs if each.pair.pair_id in facts]
    index = write_report(folder, _report(session, manifest, pages, {**earlier, **session.failures}))
    session.say(f"report: {index}")


def _job(session: Session, folder: Path, each: RunPair) -> PairJob:
    if each.finished is None:
        raise ValueError(f"pair {each.pair.pair_id}: expected a finished one")
    objects = [path for name in each.finished.vectors if (path := session.workspace.root / name).is_file()]
    return PairJob(
        workspace=session.workspace,
        folder=folder / "images" / each.pair.pair_id,
        pair=each.stored,
        label_key=each.label_key,
        change_key=each.finished.change,
        objects=objects[0] if objects else None,
    )


def _page(session: Session, each: RunPair, facts: Mapping[str, Any]) -> PairPage:
    pair = each.pair
    return PairPage(
        pair_id=pair.pair_id,
        name=pair.name,
        split=each.split or "",
        dates=(pair.before_date or "", pair.after_date or ""),
        sensors=(pair.before.sensor_name, pair.after.sensor_name),
        facts=facts,
        files=_files(session, each),
    )


def _files(session: Session, each: RunPair) -> list[tuple[str, str]]:
    """Rasters, objects and the picture of a pair, as far as they are there."""
    root, pair_id = session.run_folder, each.pair.pair_id
    products = {**each.finished.rasters, **each.finished.vectors} if each.finished else {}
    paths = [session.workspace.root / name for name in sorted(products)]
    paths.append(root / "report" / "pictures" / f"{pair_id}.png")
    return [(path.name, str(path.relative_to(root))) for path in paths if path.is_file()]


def _report(session: Session, manifest: Manifest, pages: Sequence[PairPage], failures: Mapping[str, str]) -> Report:
    folder = session.run_folder / "report"
    # what made results; what only looks at them is run as often as one likes, and must leave the report as it is
    entries = read_json(session.run_folder / "log.json") or []
    log = [entry for entry in entries if entry.get("stage") in MADE and entry.get("blocks") != 0]
    names = {pair.pair_id: pair.name for pair in read_catalog(session.config)}
    done = {page.pair_id for page in pages}
    skipped = [pair_id for pair_id in names if pair_id not in done and pair_id not in failures]
    failed = [pair_id for pair_id in failures if pair_id not in done]
    run = {
        "name": manifest.name,
        "id": content_key("report", {page.pair_id: page.facts["key"] for page in pages}),
        "version": __version__,
        "finished": log[-1]["started"][:10] if log else "",
        "ensemble": manifest.ensemble,
        "threshold": manifest.threshold,
        "fitted_on": manifest.fitted_on,
    }
    return Report(
        run=run,
        pairs=pages,
        problems=[
            *({"name": names.get(each, each), "failed": True, "reason": failures[each]} for each in sorted(failed)),
            *(
                {"name": names[each], "failed": False, "reason": "not among the run's pairs"}
                for each in sorted(skipped)
            ),
        ],
        models=[_model(session, model) for model in manifest.models],
        training=[chart for model in manifest.models for chart in _training(session, model)],
        log=[_log_row(entry) for entry in log],
        versions=log[-1]["versions"] if log else versions(),
        configuration=_configuration(session),
        files=_run_files(session),
        evaluation=read_json(folder / "evaluation.json"),
        audits=read_json(folder / "audits.json"),
    )


def _configuration(session: Session) -> str:
    """All of it as YAML, but that the workspace goes by its name: the report lies in it, wherever it is moved."""
    config = session.config.model_copy(update={"workspace": Path(session.config.workspace.name)})
    return to_yaml(config, session.config.catalog.parent)


def _model(session: Session, model: Mapping[str, Any]) -> dict[str, str]:
    card = read_json(session.workspace.root / model["folder"] / "model.json") or {}
    return {
        "name": model["name"],
        "architecture": " ".join(filter(None, (card.get("architecture"), card.get("arguments", {}).get("encoder")))),
        "folder": model["folder"],
        "weight": f"{model['weight']:.3g}",
        "threshold": f"{model['threshold']:.3g}",
    }


def _training(session: Session, model: Mapping[str, Any]) -> list[dict[str, Any]]:
    folder = session.workspace.root / model["folder"]
    card = read_json(folder / "model.json") or {}
    return training_charts(model["name"], read_history(folder / "history.csv"), card.get("metrics", {}).get("epoch"))


def _log_row(entry: Mapping[str, Any]) -> dict[str, str]:
    told = ((key.replace("_", " "), value) for key, value in entry.items() if key in TOLD)
    facts = ", ".join(f"{value:,} {key}" if isinstance(value, int) else f"{key} {value}" for key, value in told)
    started = entry["started"].replace("T", " ").removesuffix("+00:00")
    return {"stage": entry["stage"], "started": started, "took": took(entry["seconds"]), "facts": facts}


def _run_files(session: Session) -> list[tuple[str, str]]:
    names = ("manifest.json", "log.json", "report/summary.csv", "report/evaluation.json")
    manifest = finished_run(session)
    others = [str((session.workspace.root / name).relative_to(session.run_folder)) for name in sorted(manifest.vectors)]
    return [(name.rpartition("/")[2], name) for name in (*names, *others) if (session.run_folder / name).is_file()]
