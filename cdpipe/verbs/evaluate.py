"""``cdpipe evaluate``: a run's results against its labels, as figures and pictures."""

from dataclasses import replace

from rich.table import Table

from cdpipe.distributed.tasks import map_pairs
from cdpipe.formats.catalog import read_catalog
from cdpipe.formats.manifest import Manifest, ManifestPair, read_manifest
from cdpipe.formats.stored_pair import StoredPair, load_pair
from cdpipe.formats.workspace import Workspace
from cdpipe.stages.evaluation import ENSEMBLE, PairScores, Results, evaluate_pair, tabulate
from cdpipe.stages.report import FIGURES, PictureJob, draw_picture, pooled, write_tables
from cdpipe.values.errors import InputError
from cdpipe.verbs.console import progress
from cdpipe.verbs.session import Session, logged


def run(session: Session) -> None:
    """Evaluate every predicted pair that has a label, and draw all.

    Raises:
        InputError: If the run has no manifest yet.
    """
    manifest = read_manifest(session.run_folder)
    if manifest is None:
        raise InputError(f"run {session.config.name} has no manifest in {session.run_folder}; run cdpipe predict first")
    for pair_id, reason in manifest.failed.items():
        session.fail(pair_id, reason)
    if session.dry_run:
        labelled = sum(pair.label is not None for pair in manifest.pairs)
        session.say(f"evaluate: {labelled} labelled pair(s) of {len(manifest.pairs)}, a picture of each")
        return
    session.start_ray()
    with logged(session, "evaluate", {}):
        scores = _evaluate(session, manifest)
    if not scores:
        session.say(f"evaluate: no pair has a label; pictures in {session.run_folder / 'report' / 'pictures'}")
        return
    splits = {pair.pair_id: pair.split or "unsplit" for pair in manifest.pairs}
    rows = tabulate({pair_id: scores[pair_id] for pair_id in sorted(scores)}, splits)
    write_tables(session.run_folder / "report", rows)
    _print(session, rows)


def _evaluate(session: Session, manifest: Manifest) -> dict[str, PairScores]:
    dates = {pair.pair_id: (pair.before_date, pair.after_date) for pair in read_catalog(session.config)}
    jobs = []
    for listed in manifest.pairs:
        stored = load_pair(session.workspace, listed.pair_id, listed.pair)
        if stored is None:
            session.fail(listed.pair_id, "is not in the store any more; run cdpipe ingest")
        elif listed.pair_id in dates:
            jobs.append((listed.pair_id, _job(session, manifest, listed, stored, dates[listed.pair_id])))
    scores = {}
    with progress(session.console, "evaluate: pairs", len(jobs)) as advance:
        for pair_id, found, error in map_pairs(_evaluate_one, jobs):
            advance(1, "")
            if error is not None:
                session.fail(pair_id, f"evaluation: {error}")
            elif found is not None:
                scores[pair_id] = found
    return scores


def _job(
    session: Session,
    manifest: Manifest,
    listed: ManifestPair,
    stored: StoredPair,
    dates: tuple[str | None, str | None],
) -> tuple[Workspace, Results | None, PictureJob]:
    own = {model["name"]: model["threshold"] for model in manifest.models}
    members = tuple((name, key, own[name]) for name, key in listed.probabilities.items())
    results = Results(stored, listed.label, members, listed.change) if listed.label else None
    picture = PictureJob(
        workspace=session.workspace,
        path=session.run_folder / "report" / "pictures" / f"{listed.pair_id}.png",
        pair=stored,
        label_key=listed.label,
        change_key=listed.change,
        dates=(dates[0], dates[1]) if dates[0] and dates[1] else None,
        threshold=manifest.threshold,
        counts=None,
    )
    return session.workspace, results, picture


def _evaluate_one(job: tuple[Workspace, Results | None, PictureJob]) -> PairScores | None:
    workspace, results, picture = job
    scores = evaluate_pair(workspace, results) if results else None
    draw_picture(replace(picture, counts=scores.counts[ENSEMBLE]) if scores else picture)
    return scores


def _print(session: Session, rows: list[dict[str, object]]) -> None:
    """The pooled figures of every split."""
    table = Table("split", "layer", "IoU", "F1", "precision", "recall", title="Pooled over pairs")
    for row in rows:
        if row["pair_id"] is None:
            table.add_row(str(row["split"]), str(row["layer"]), *(f"{row[name]:.3f}" for name in FIGURES))
    session.console.print(table)
    unseen = pooled(rows, "test")
    if unseen:
        found = ", ".join(f"{layer} {iou:.3f}" for layer, iou in unseen.items())
        session.say(f"IoU on test pairs, which neither training nor selection saw: {found}")
    session.say(f"evaluate: figures and pictures in {session.run_folder / 'report'}")
