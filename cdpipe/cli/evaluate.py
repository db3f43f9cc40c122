"""``cdpipe evaluate``: a run's results against its labels, as figures and pictures."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from cdpipe.cli.console import make_console, progress
from cdpipe.cli.session import Session, logged, map_every_pair
from cdpipe.errors import EXIT_DONE, InputError
from cdpipe.evaluation.comparison import (
    Agreement,
    ComparedPair,
    compare_masks,
    compare_pair,
    shared_pairs,
    tabulate_agreement,
    tabulate_differences,
    write_maps,
)
from cdpipe.evaluation.scores import BASELINE, ENSEMBLE, PairScores, Results, evaluate_pair
from cdpipe.evaluation.tables import UNSPLIT, evaluate_run, pooled, with_interval, write_agreement, write_tables
from cdpipe.formats.submission import Runs
from cdpipe.report.pictures import PictureJob, draw_picture
from cdpipe.runs.manifest import Manifest, ManifestPair, read_manifest
from cdpipe.runs.pairs import RunPair, finished_run, read_masks, run_pairs
from cdpipe.store.pair import load_pair
from cdpipe.workspace.files import write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

Submissions = Mapping[str, Mapping[str, Runs]]  # masks by the submission's name and the pair's id
Job = tuple[Workspace, Results, PictureJob | None]
Found = tuple[PairScores | None, Agreement]


def run(session: Session) -> None:
    """Evaluate every predicted pair that has a label, and draw all; compare submissions with each other and the run.

    Raises:
        InputError: If the run has no manifest yet and there is no submission, or a submission has mistakes.
    """
    manifest = read_manifest(session.run_folder) if session.submissions else finished_run(session)
    for pair_id, reason in manifest.failed.items() if manifest else ():
        session.fail(pair_id, reason)
    pairs = run_pairs(session, manifest)
    submissions = _read_submissions(session, manifest, pairs)
    jobs = [(each.pair.pair_id, _job(session, manifest, each, submissions)) for each in pairs]
    # what neither the run nor a submission has a mask of is left alone
    jobs = [(pair_id, job) for pair_id, job in jobs if job[1].change_key or job[1].submissions]
    if session.dry_run:
        _show_plan(session, [results for _, (_, results, _) in jobs], submissions)
        return
    session.start_ray()
    with logged(session, "evaluate", {"submissions": list(submissions)}):
        found = map_every_pair(session, "evaluate: pairs", "evaluation", _evaluate_one, jobs)
    _report_scores(session, pairs, {pair_id: scores for pair_id, (scores, _) in found.items() if scores})
    agreement = tabulate_agreement({pair_id: each for pair_id, (_, each) in found.items()})
    write_agreement(session.run_folder / "report", agreement)
    if agreement:
        _print_agreement(session, agreement)


def _read_submissions(session: Session, manifest: Manifest | None, pairs: list[RunPair]) -> Submissions:
    """Masks of every submission, which is named after its file."""
    taken = {BASELINE, ENSEMBLE, *(str(model["name"]) for model in (manifest.models if manifest else ()))}
    found: dict[str, Mapping[str, Runs]] = {}
    for path in session.submissions:
        if path.stem in taken:
            raise InputError(f"{path}: something else is called {path.stem} in the tables; give the file another name")
        taken.add(path.stem)
        found[path.stem] = read_masks(session, path, pairs)
    return found


def _job(session: Session, manifest: Manifest | None, each: RunPair, submissions: Submissions) -> Job:
    models = manifest.models if manifest else []
    own = {model[name]: model["threshold"] for model in models for name in ("layer", "name")}
    finished, pair_id = each.finished, each.pair.pair_id
    results = Results(
        pair=each.stored,
        label_key=each.label_key,
        members=tuple((name, key, own[name]) for name, key in finished.probabilities.items()) if finished else (),
        change_key=finished.change if finished else None,
        submissions=tuple((name, masks[pair_id]) for name, masks in submissions.items() if pair_id in masks),
        tolerance=session.config.evaluate.tolerance,
    )
    picture = _picture(session, manifest.threshold, each, finished) if manifest and finished else None
    return session.workspace, results, picture


def _picture(session: Session, threshold: float, each: RunPair, finished: ManifestPair) -> PictureJob:
    before, after = each.pair.before_date, each.pair.after_date
    return PictureJob(
        workspace=session.workspace,
        path=session.run_folder / "report" / "pictures" / f"{finished.pair_id}.png",
        pair=each.stored,
        label_key=finished.label,
        change_key=finished.change,
        dates=(before, after) if before and after else None,
        threshold=threshold,
        counts=None,
    )


def _show_plan(session: Session, results: Sequence[Results], submissions: Submissions) -> None:
    labelled = sum(each.label_key is not None for each in results)
    session.say(f"evaluate: {labelled} labelled pair(s) of {len(results)}, a picture of each that is predicted")
    for name, masks in submissions.items():
        session.say(f"  submission {name}: {len(masks)} mask(s)")


def _evaluate_one(job: Job) -> Found:
    workspace, results, picture = job
    scores = evaluate_pair(workspace, results) if results.label_key else None
    if picture is not None:
        draw_picture(replace(picture, counts=scores.counts[ENSEMBLE]) if scores else picture)
    return scores, compare_masks(workspace, results) if results.submissions else {}


def _report_scores(session: Session, pairs: Sequence[RunPair], scores: Mapping[str, PairScores]) -> None:
    folder = session.run_folder / "report"
    if not scores:
        session.say(f"evaluate: no pair has a label; pictures in {folder / 'pictures'}")
        return
    splits = {each.pair.pair_id: each.split or UNSPLIT for each in pairs}
    evaluation = evaluate_run(scores, splits, session.config.evaluate.tolerance)
    rows = evaluation.rows
    write_tables(folder, evaluation)
    table = Table("split", "layer", "pairs", "IoU", "F1", "objects hit", title="Pooled over pairs")
    for row in rows:
        if row["pair_id"] is None:
            shown = (with_interval(row, name) for name in ("iou", "f1", "detection_rate"))
            table.add_row(row["split"], row["layer"], str(row["pairs"]), *shown)
    session.console.print(table)
    unseen = pooled(rows, "test")
    if unseen:
        found = ", ".join(f"{layer} {iou:.3f}" for layer, iou in unseen.items())
        session.say(f"IoU on test pairs, which neither training nor selection saw: {found}")
    session.say(f"evaluate: figures and pictures in {folder}")


def _print_agreement(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """How far two masks agree, of each pair and pooled."""
    table = Table("pair", "mask", "and mask", "IoU", "pixels that differ", title="Agreement of masks")
    for row in rows:
        place = row["pair_id"] or f"all {row['pairs']}"
        table.add_row(place, row["first"], row["second"], f"{row['iou']:.3f}", str(row["differing"]))
    session.console.print(table)
    session.say(f"evaluate: agreement in {session.run_folder / 'report' / 'agreement.csv'}")


# ``cdpipe compare RUN_A RUN_B``: where two runs differ, by how much, and maps of it.

SHOWN = 20  # pairs in the printed table; the file has all


def run_compare(options: argparse.Namespace) -> int:
    """Compare, write ``comparison.json`` and maps, and print the pairs that differ most.

    Raises:
        InputError: If a folder is no finished run, or the runs share no pair.
    """
    console = make_console()
    folders = tuple(folder.resolve() for folder in (options.run_a, options.run_b))
    manifests = _manifest(folders[0]), _manifest(folders[1])
    workspaces = Workspace(folders[0].parent.parent), Workspace(folders[1].parent.parent)
    shared = shared_pairs(*manifests)
    if not shared.pairs:
        reasons = "; ".join(f"{pair_id} {reason}" for pair_id, reason in list(shared.left_out.items())[:5])
        raise InputError(
            f"{folders[0]} and {folders[1]}: expected runs that share pairs, and they share none: {reasons}"
        )
    out = options.out or folders[0] / "compare" / f"{folders[1].parent.parent.name}-{folders[1].name}"
    jobs = []
    for one, other in shared.pairs:
        pair = load_pair(workspaces[0], one.pair_id, one.pair)
        if pair is None:
            shared.left_out[one.pair_id] = "is not in the store of run A any more"
            continue
        keys = one.change, other.change
        jobs.append(ComparedPair(workspaces, pair, one.split or UNSPLIT, one.label, keys))
    found = {}
    with progress(console, "compare: pairs", len(jobs)) as advance:
        for job in jobs:
            found[job.pair.pair_id] = compare_pair(job)
            write_maps(out / "maps", job)
            advance(1, "")
    rows = tabulate_differences(found, {job.pair.pair_id: job.split for job in jobs})
    facts = {"a": str(folders[0]), "b": str(folders[1]), "rows": rows, "left_out": shared.left_out}
    write_json(out / "comparison.json", facts)
    _show(console, rows, shared.left_out)
    console.print(f"compare: figures and maps in {out}", markup=False, soft_wrap=True)
    return EXIT_DONE


def _manifest(folder: Location) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: expected the folder of a finished run, such as work/runs/NAME with manifest.json")
    return manifest


def _show(console: Console, rows: list[dict[str, Any]], left_out: dict[str, str]) -> None:
    table = Table(
        "split", "pair", "IoU A", "IoU B", "B - A", "F1 B - A", "only A, px", "only B, px", title="Run B against A"
    )
    single = [row for row in rows if row["pair_id"] is not None]
    for row in [*single[:SHOWN], *(row for row in rows if row["pair_id"] is None)]:
        table.add_row(
            row["split"],
            row["pair_id"] or f"all {row['pairs']}",
            _number(row["iou_a"]),
            _number(row["iou_b"]),
            _difference(row, "iou"),
            _difference(row, "f1"),
            str(row["only_a"]),
            str(row["only_b"]),
        )
    console.print(table)
    if len(single) > SHOWN:
        console.print(f"the {SHOWN} pairs of {len(single)} that differ most; intervals: 95 % over pairs")
    for pair_id, reason in left_out.items():
        console.print(f"left out: pair {pair_id}: {reason}", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference(row: dict[str, Any], figure: str) -> str:
    value, low, high = (row[f"{figure}_difference{end}"] for end in ("", "_low", "_high"))
    text = "-" if value is None else f"{value:+.3f}"
    return text if low is None else f"{text} [{low:+.3f}, {high:+.3f}]"
