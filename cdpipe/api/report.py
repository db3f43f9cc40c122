"""What a run found, as pages to open in a browser; and the verdicts that were saved there, as labels."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cdpipe.api.making import ensure_made
from cdpipe.config.detectors import NAMED, named_folder
from cdpipe.config.load import to_yaml
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.tables import SURPLUS
from cdpipe.keys import content_key
from cdpipe.models.exported import is_exported
from cdpipe.pairs.catalog import find_file, read_catalog
from cdpipe.pairs.grouping import group_findings
from cdpipe.pairs.layouts.write import relative
from cdpipe.pairs.table import FILES, read_catalog_table
from cdpipe.report.changes import PER_PAIR, chips_to_label
from cdpipe.report.charts import read_history, training_charts
from cdpipe.report.facts import PairPage, Report
from cdpipe.report.pages import Page, plan_pages, project_path, write_index, write_page
from cdpipe.report.pair import PairJob, make_pair, read_facts
from cdpipe.report.review import ReviewJob, Verdict, raster_values, read_review, write_review_label
from cdpipe.report.words import count, took
from cdpipe.runs.manifest import Manifest, ManifestPair, model_folder
from cdpipe.runs.pairs import PairResults, finished_run, result_pairs
from cdpipe.runs.products import Product, ensure_intact, remove_product
from cdpipe.runs.run import Run, versions
from cdpipe.runs.styles import read_styles
from cdpipe.version import __version__
from cdpipe.workspace.files import read_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, Place, here, located

MADE = ("ingest", "train", "predict")  # stages
# Of log entries: what is told of each, and how it is counted.
TOLD: Mapping[str, str | tuple[str, str]] = {
    "model": "model {}",
    "kept_epoch": "epoch {} is used",
    "blocks": ("block", "blocks"),
    "pairs": ("pair", "pairs"),
    "patches": ("patch", "patches"),
    "steps": ("step", "steps"),
    "masks": ("mask", "masks"),
    "rasters": ("raster", "rasters"),
    "workers": ("worker", "workers"),
}
JUDGES = ("val", "test")  # splits whose labels choose and judge models, and are left as they are


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """What a report would have.

    Attributes:
        pairs: How many pairs have a page.
        folder: Where it would lie.
    """

    pairs: int
    folder: Location


@dataclass(frozen=True, slots=True)
class ReviewPlan:
    """What would become of a review.

    Attributes:
        labels: How many pairs would get a label.
        folder: Where labels and a catalog would lie.
    """

    labels: int
    folder: Location


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What became of a review.

    Attributes:
        accepted: Changes in the labels.
        rejected: False alarms in the labels.
        quiet: Pixels that are unchanged in the labels though nobody looked at them.
        labels: The rasters that were written, by pair.
        catalog: A catalog that has them.
    """

    accepted: int
    rejected: int
    quiet: int
    labels: Mapping[str, Location]
    catalog: Location


def plan_report(run: Run) -> ReportPlan:
    """What :func:`write_report` would write; nothing is written.

    Raises:
        InputError: If the run has no manifest yet.
    """
    _, pairs = _finished_pairs(run)
    return ReportPlan(len(pairs), run.folder / "report")


def write_report(run: Run) -> Location:
    """Draw the finished pairs and write the report's pages; what shows the same as before is left as it is.

    Args:
        run: The run.

    Returns:
        The page to begin with.

    Raises:
        InputError: If the run has no manifest yet.
    """
    with run.hold(keep_failures=True):
        earlier = run.last_failures()
        manifest, pairs = _finished_pairs(run)
        folder = run.folder / "report"
        # where nobody has labelled anything, the changes come first that are most worth it
        doubt_at = None if any(pair.label_key for pair in pairs) else manifest.threshold
        chips = PER_PAIR if doubt_at is None else chips_to_label(len(pairs))
        jobs = {pair.pair.pair_id: _job(run, folder, pair, doubt_at, chips) for pair in pairs}
        made = ensure_made(run, "report", {pair_id: _pictures(job) for pair_id, job in jobs.items()})
        drawn = [pair for pair in pairs if pair.pair.pair_id in made]
        no_labels = _no_labels(run)
        pair_pages = [_page(run, pair, read_facts(jobs[pair.pair.pair_id]), no_labels) for pair in drawn]
        report = _report(run, manifest, pair_pages, {**earlier, **run.failures})
        return write_pages(run.workspace, run.config.name, replace(report, to_label=doubt_at is not None))


def write_pages(workspace: Workspace, run: str, report: Report) -> Location:
    """Write the pages that show something else than before, and remove those of pairs that are no longer there.

    Args:
        workspace: Where the run lies.
        run: Its name.
        report: What to show.

    Returns:
        The page to begin with.
    """
    folder = workspace.run(run) / "report"
    pages = plan_pages(folder, report)
    for pair, page in zip(report.pairs, pages, strict=True):
        ensure_intact(_page_product(workspace, pair.pair_id, page))
    kept = {page.path for page in pages}
    for path in (folder / "pairs").glob("*.html"):
        if path not in kept:
            remove_product(workspace, "pages", path.stem, [path, project_path(path)])
    return write_index(folder, report)


def _page_product(workspace: Workspace, pair_id: str, page: Page) -> Product:
    files = (page.path, project_path(page.path))
    return Product(workspace, "pages", pair_id, page.key, files, page, write_page)


def _pictures(job: PairJob) -> Product:
    # the facts lie in every set of pictures, however many those are
    return Product(job.workspace, "pictures", job.pair.pair_id, job.key, (job.facts,), job, make_pair)


def _finished_pairs(run: Run) -> tuple[Manifest, list[PairResults]]:
    """The run's manifest and its finished pairs; pairs that it failed on are failures."""
    manifest = finished_run(run)
    for pair_id, reason in manifest.failed.items():
        run.fail(pair_id, reason)
    return manifest, result_pairs(run, manifest)


def _job(run: Run, folder: Location, pair: PairResults, doubt_at: float | None, chips: int) -> PairJob:
    finished = _finished(pair)
    objects = [(path, sha) for name, sha in finished.vectors.items() if (path := run.workspace.root / name).is_file()]
    return PairJob(
        workspace=run.workspace,
        run=run.config.name,
        folder=folder / "images" / pair.pair.pair_id,
        pair=pair.stored,
        label_key=pair.label_key,
        change_key=finished.change,
        objects=objects[0] if objects else None,
        doubt_at=doubt_at,
        chips=chips,
    )


def _finished(pair: PairResults) -> ManifestPair:
    if pair.finished is None:
        raise ValueError(f"pair {pair.pair.pair_id}: expected a finished one")
    return pair.finished


def _page(run: Run, results: PairResults, facts: Mapping[str, Any], no_labels: str | None) -> PairPage:
    pair = results.pair
    return PairPage(
        pair_id=pair.pair_id,
        name=pair.name,
        split=results.split or "",
        dates=(pair.before_date or "", pair.after_date or ""),
        sensors=(pair.before.sensor_name, pair.after.sensor_name),
        facts=facts,
        files=_files(run, results),
        strips=results.strips,
        no_objects=results.finished.no_objects if results.finished else None,
        models=len(results.finished.probabilities) if results.finished else 0,
        no_verdicts=no_labels or _left_alone(results.split),
        doubts=tuple(results.finished.doubts) if results.finished else (),
    )


def _no_labels(run: Run) -> str | None:
    """Why no verdict of this run can become a label; None where it can."""
    try:
        raster_values(run.config.label)
    except ConfigError as error:
        return str(error)
    return None


def _left_alone(split: str | None) -> str | None:
    """Why verdicts on pairs of a split make no label; None where they do."""
    return f"it is of {split}, which chooses or judges models" if split in JUDGES else None


def _files(run: Run, pair: PairResults) -> list[tuple[str, str]]:
    """Rasters, objects and the picture of a pair, as far as they are there."""
    products = {**pair.finished.rasters, **pair.finished.vectors} if pair.finished else {}
    paths = [run.workspace.root / name for name in sorted(products)]
    paths.append(run.folder / "report" / "pictures" / f"{pair.pair.pair_id}.png")
    return [(path.name, str(path.relative_to(run.folder))) for path in paths if path.is_file()]


def _report(run: Run, manifest: Manifest, pair_pages: Sequence[PairPage], failures: Mapping[str, str]) -> Report:
    folder = run.folder / "report"
    # what made results; what only looks at them is run as often as one likes, and must leave the report as it is
    log = [entry for entry in run.log_entries() if entry.get("stage") in MADE and entry.get("blocks") != 0]
    facts = {
        "name": manifest.name,
        "id": content_key("report", {page.pair_id: page.facts["key"] for page in pair_pages}),
        "version": __version__,
        "finished": log[-1]["started"][:10] if log else "",
        "ensemble": manifest.ensemble,
        "threshold": manifest.threshold,
        "fitted_on": manifest.fitted_on,
    }
    return Report(
        run=facts,
        pairs=pair_pages,
        problems=_problems(run, {page.pair_id for page in pair_pages}, failures),
        models=[_model(run, model) for model in manifest.models],
        training=[chart for model in manifest.models for chart in _training(run, model)],
        log=[_log_row(entry) for entry in log],
        versions=log[-1]["versions"] if log else versions(),
        configuration=_configuration(run),
        files=_run_files(run, manifest),
        evaluation=read_json(folder / "evaluation.json"),
        audits=read_json(folder / "audits.json"),
        doubts=[str(group) for group in group_findings(_doubts(manifest))],
        styles=read_styles(),
    )


def _doubts(manifest: Manifest) -> list[tuple[str, str]]:
    return [(pair.pair_id, doubt) for pair in manifest.pairs for doubt in pair.doubts]


def _problems(run: Run, done: set[str], failures: Mapping[str, str]) -> list[dict[str, Any]]:
    """Pairs that have no page: first those that failed, then those of the catalog that the run has not."""
    names = {pair.pair_id: pair.name for pair in read_catalog(run.config)}
    failed = sorted(pair_id for pair_id in failures if pair_id not in done)
    skipped = sorted(pair_id for pair_id in names if pair_id not in done and pair_id not in failures)
    return [
        *({"name": names.get(each, each), "failed": True, "reason": failures[each]} for each in failed),
        *({"name": names[each], "failed": False, "reason": "not among the run's pairs"} for each in skipped),
    ]


def _configuration(run: Run) -> str:
    """All of it as YAML, but that the workspace goes by its name: the report lies in it, wherever it is moved."""
    config = run.config.model_copy(update={"workspace": here(Path(run.config.workspace.name))})
    return to_yaml(config, run.config.catalog.parent)


def _model(run: Run, model: Mapping[str, Any]) -> dict[str, str]:
    folder = model_folder(run.workspace.root, model)
    card: dict[str, Any] = read_json(folder / "model.json") or {}
    if is_exported(folder):
        card = {"architecture": "exported network"}
    return {
        "name": model["name"],
        "architecture": " ".join(filter(None, (card.get("architecture"), card.get("arguments", {}).get("encoder")))),
        "folder": "comes with cdpipe" if folder in map(named_folder, NAMED) else model["folder"],
        "weight": f"{model['weight']:.3g}",
        "threshold": f"{model['threshold']:.3g}",
    }


def _training(run: Run, model: Mapping[str, Any]) -> list[dict[str, Any]]:
    folder = model_folder(run.workspace.root, model)
    card = read_json(folder / "model.json") or {}
    return training_charts(model["name"], read_history(folder / "history.csv"), card.get("metrics", {}).get("epoch"))


def _log_row(entry: Mapping[str, Any]) -> dict[str, str]:
    facts = ", ".join(_fact(TOLD[key], value) for key, value in entry.items() if key in TOLD)
    started = entry["started"].replace("T", " ").removesuffix("+00:00")
    return {"stage": entry["stage"], "started": started, "took": took(entry["seconds"]), "facts": facts}


def _fact(told: str | tuple[str, str], value: Any) -> str:
    return told.format(value) if isinstance(told, str) else count(value, *told)


def _run_files(run: Run, manifest: Manifest) -> list[tuple[str, str]]:
    names = ("manifest.json", "log.json", "report/summary.csv", "report/evaluation.json")
    others = [(run.workspace.root / name).relative_to(run.folder) for name in sorted(manifest.vectors)]
    return [(name.rpartition("/")[2], name) for name in (*names, *others) if (run.folder / name).is_file()]


def plan_review(run: Run, file: Place, out: Path | None = None) -> ReviewPlan:
    """What :func:`review` would write; nothing is written.

    Args:
        run: The run.
        file: ``review.geojson``, as the report saved it.
        out: Folder for labels and catalog; None for the run's own.

    Raises:
        ConfigError: If labels of this configuration cannot be written.
        InputError: If the review has mistakes, or says nothing of any pair that may be trained on.
    """
    raster_values(run.config.label)
    judged = located(file)
    verdicts = read_review(judged, run.config.name)
    chosen = _choose(run, judged, verdicts, _by_id(result_pairs(run, finished_run(run))))
    return ReviewPlan(len(chosen), _review_folder(run, out))


def review(run: Run, file: Place, out: Path | None = None, *, quiet_ground: bool = True) -> Reviewed:
    """Write a label for every reviewed pair, and a catalog like the configuration's with these labels in it.

    In pairs without a label ground counts as unchanged, too, that nobody looked at and every model is sure of: a
    probability of a tenth of the threshold at most.

    Args:
        run: The run.
        file: ``review.geojson``, as the report saved it.
        out: Folder for labels and catalog; None for the run's own.
        quiet_ground: Whether such ground counts.

    Raises:
        ConfigError: If labels of this configuration cannot be written.
        InputError: If the review has mistakes, or says nothing of any pair that may be trained on.
    """
    with run.hold(keep_failures=True):
        values = raster_values(run.config.label)
        judged = located(file)
        verdicts = read_review(judged, run.config.name)
        manifest = finished_run(run)
        pairs = _by_id(result_pairs(run, manifest))
        chosen = _choose(run, judged, verdicts, pairs)
        from cdpipe.cluster.tasks import map_every_pair

        folder = _review_folder(run, out)
        paths = {pair_id: folder / "labels" / f"{pair_id}.tif" for pair_id in chosen}
        jobs = [
            (
                pair_id,
                ReviewJob(
                    workspace=run.workspace,
                    path=paths[pair_id],
                    pair=pair.stored,
                    label_key=pair.label_key,
                    quiet=tuple(_finished(pair).probabilities.values()) if quiet_ground else (),
                    threshold=manifest.threshold,
                    verdicts=of_pair,
                    values=values,
                ),
            )
            for pair_id, (pair, of_pair) in chosen.items()
        ]
        written = map_every_pair(run, "review: labels", "review", write_review_label, jobs)
        if not written:
            raise InputError(f"{file}: no label could be written")
        labels = {pair_id: paths[pair_id] for pair_id in written}
        catalog = _write_catalog(run, folder, pairs, labels)
        names = "accepted", "rejected", "quiet"
        accepted, rejected, quiet = (sum(counts[name] for counts in written.values()) for name in names)
        return Reviewed(accepted, rejected, quiet, labels, catalog)


def _by_id(pairs: Sequence[PairResults]) -> dict[str, PairResults]:
    return {pair.pair.pair_id: pair for pair in pairs}


def _review_folder(run: Run, out: Path | None) -> Location:
    return run.folder / "review" if out is None else here(out.absolute())


def _choose(
    run: Run, file: Location, verdicts: Sequence[Verdict], pairs: Mapping[str, PairResults]
) -> dict[str, tuple[PairResults, list[Verdict]]]:
    """Pairs to label, with the verdicts on each."""
    by_pair: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.verdict != "unsure":
            by_pair.setdefault(verdict.pair_id, []).append(verdict)
    chosen = {}
    for pair_id, of_pair in sorted(by_pair.items()):
        pair = pairs.get(pair_id)
        if pair is None:
            run.fail(pair_id, f"was reviewed in {file}, but is not among the run's pairs")
        elif reason := _left_alone(pair.split):
            run.say(f"review: pair {pair_id} is left alone: {reason}")
        else:
            chosen[pair_id] = pair, of_pair
    if not chosen:
        raise InputError(f"{file}: nothing accepted or rejected in a pair that may be trained on")
    return chosen


def _write_catalog(
    run: Run, folder: Location, pairs: Mapping[str, PairResults], labels: Mapping[str, Location]
) -> Location:
    """The catalog with new labels, paths from where it lies, and the run's splits: new labels must not shuffle them."""
    table = read_catalog_table(run.config.catalog)
    # where nothing was split yet, splits are made of what is labelled now
    split_before = any(pair.split for pair in pairs.values())
    columns = list(table.columns)
    columns += [name for name in ("label", "split") if name not in columns]
    base, text = run.config.catalog.parent, io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n", restval="")
    writer.writeheader()
    for _, cells in table.rows:
        row = {name: cell for name, cell in cells.items() if name != SURPLUS}
        row |= {name: relative(find_file(row[name], base), folder) for name in FILES if row.get(name)}
        pair_id = row["pair_id"]
        pair = pairs.get(pair_id)
        row["split"] = row.get("split") or (pair.split if pair else None) or ""
        if pair_id in labels:
            row |= {"label": relative(labels[pair_id], folder), **({"split": "train"} if split_before else {})}
        writer.writerow(row)
    path = folder / "pairs.csv"
    path.write(text.getvalue().encode())
    return path
