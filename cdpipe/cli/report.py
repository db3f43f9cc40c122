"""``cdpipe report``: what a run found, as pages to open in a browser."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdpipe.cli.session import Session, map_every_pair, read_failures, versions
from cdpipe.config.load import to_yaml
from cdpipe.errors import InputError
from cdpipe.formats.tables import SURPLUS, read_table
from cdpipe.keys import content_key
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.layouts.write import relative
from cdpipe.report.charts import read_history, training_charts
from cdpipe.report.pages import PairPage, Report, write_report
from cdpipe.report.pair import PairJob, make_pair
from cdpipe.report.review import ReviewJob, Verdict, raster_values, read_review, write_review_label
from cdpipe.report.words import took
from cdpipe.runs.manifest import Manifest
from cdpipe.runs.pairs import RunPair, finished_run, run_pairs
from cdpipe.version import __version__
from cdpipe.workspace.files import read_json
from cdpipe.workspace.location import Location, here, locate

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


def _job(session: Session, folder: Location, each: RunPair) -> PairJob:
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
    config = session.config.model_copy(update={"workspace": here(Path(session.config.workspace.name))})
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


# ``cdpipe review``: verdicts that were saved in the report's gallery become labels, and a catalog that has them.

PATHS = ("before", "after", "composite", "label", "before_valid", "after_valid")
JUDGES = ("val", "test")  # splits whose labels choose and judge models, and are left as they are


def run_review(session: Session) -> None:
    """Write a label for every reviewed pair, and a catalog like the configuration's with these labels in it.

    Raises:
        InputError: If the review has mistakes, or says nothing of any pair that may be trained on.
    """
    if session.review is None:
        raise InputError("review: expected a file that the report saved, review.geojson")
    values = raster_values(session.config.label)
    verdicts = read_review(session.review, session.config.name)
    pairs = {each.pair.pair_id: each for each in run_pairs(session, finished_run(session))}
    chosen = _choose(session, verdicts, pairs)
    folder = here(session.out.local().absolute()) if session.out else session.run_folder / "review"
    if session.dry_run:
        session.say(f"review: {len(chosen)} label(s) and a catalog in {folder}")
        return
    paths = {pair_id: folder / "labels" / f"{pair_id}.tif" for pair_id in chosen}
    jobs = [
        (pair_id, ReviewJob(session.workspace, paths[pair_id], each.stored, each.label_key, said, values))
        for pair_id, (each, said) in chosen.items()
    ]
    written = map_every_pair(session, "review: labels", "review", write_review_label, jobs)
    if not written:
        raise InputError(f"{session.review}: no label could be written")
    _write_catalog(session, folder, pairs, {pair_id: paths[pair_id] for pair_id in written})
    totals = [sum(counts[name] for counts in written.values()) for name in ("accepted", "rejected")]
    session.say(f"review: {totals[0]} change(s) and {totals[1]} false alarm(s) in labels of {len(written)} pair(s)")
    session.say(f"review: cdpipe pipeline CONFIG --set catalog={folder / 'pairs.csv'} --set name=NEW trains on them")


def _choose(
    session: Session, verdicts: list[Verdict], pairs: Mapping[str, RunPair]
) -> dict[str, tuple[RunPair, list[Verdict]]]:
    """Pairs to label, with what was said of each."""
    by_pair: dict[str, list[Verdict]] = {}
    for each in verdicts:
        if each.verdict != "unsure":
            by_pair.setdefault(each.pair_id, []).append(each)
    chosen = {}
    for pair_id, said in sorted(by_pair.items()):
        pair = pairs.get(pair_id)
        if pair is None:
            session.fail(pair_id, f"was reviewed in {session.review}, but is not among the run's pairs")
        elif pair.split in JUDGES:
            session.say(f"review: pair {pair_id} is left alone: it is of {pair.split}, which chooses or judges models")
        else:
            chosen[pair_id] = pair, said
    if not chosen:
        raise InputError(f"{session.review}: nothing accepted or rejected in a pair that may be trained on")
    return chosen


def _write_catalog(
    session: Session, folder: Location, pairs: Mapping[str, RunPair], labels: Mapping[str, Location]
) -> None:
    """The catalog with new labels, paths from where it lies, and the run's splits: new labels must not shuffle them."""
    columns, rows = read_table(session.config.catalog)
    columns = [name for name in columns if name]
    columns += [name for name in ("label", "split") if name not in columns]
    base, text = session.config.catalog.parent, io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n", restval="")
    writer.writeheader()
    for _, cells in rows:
        row = {name: cell for name, cell in cells.items() if name != SURPLUS}
        row |= {name: relative(locate(row[name], base), folder) for name in PATHS if row.get(name)}
        pair_id = row["pair_id"]
        pair = pairs.get(pair_id)
        row["split"] = row.get("split") or (pair.split if pair else None) or ""
        if pair_id in labels:
            row |= {"label": relative(labels[pair_id], folder), "split": "train"}
        writer.writerow(row)
    (folder / "pairs.csv").write(text.getvalue().encode())
