"""``cdpipe review``: verdicts that were saved in the report's gallery become labels, and a catalog that has them."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from cdpipe.errors import InputError
from cdpipe.formats.tables import SURPLUS, read_table
from cdpipe.pairs.layouts.write import relative
from cdpipe.report.review import ReviewJob, Verdict, raster_values, read_review, write_review_label
from cdpipe.runs.pairs import RunPair, finished_run, run_pairs
from cdpipe.verbs.every_pair import map_every_pair
from cdpipe.verbs.session import Session
from cdpipe.workspace.bucket import locate
from cdpipe.workspace.local import write_atomically

PATHS = ("before", "after", "composite", "label", "before_valid", "after_valid")
JUDGES = ("val", "test")  # splits whose labels choose and judge models, and are left as they are


def run(session: Session) -> None:
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
    folder = (session.out or session.run_folder / "review").absolute()
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


def _write_catalog(session: Session, folder: Path, pairs: Mapping[str, RunPair], labels: Mapping[str, Path]) -> None:
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
    write_atomically(folder / "pairs.csv", text.getvalue().encode())
