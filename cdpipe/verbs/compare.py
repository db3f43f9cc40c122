"""``cdpipe compare RUN_A RUN_B``: where two runs differ, by how much, and maps of it."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cdpipe.errors import EXIT_DONE, InputError
from cdpipe.evaluation.comparison import ComparedPair, compare_pair, shared_pairs, tabulate_differences, write_maps
from cdpipe.evaluation.tables import UNSPLIT
from cdpipe.runs.manifest import Manifest, read_manifest
from cdpipe.store.pair import load_pair
from cdpipe.verbs.console import make_console, progress
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import write_json

SHOWN = 20  # pairs in the printed table; the file has all


def run(options: argparse.Namespace) -> int:
    """Compare, write ``comparison.json`` and maps, and print the pairs that differ most.

    Raises:
        InputError: If a folder is no finished run, or the runs share no pair.
    """
    console = make_console()
    folders = tuple(folder.resolve() for folder in (options.run_a, options.run_b))
    manifests = _manifest(folders[0]), _manifest(folders[1])
    workspaces = Workspace(folders[0].parents[1]), Workspace(folders[1].parents[1])
    shared = shared_pairs(*manifests)
    if not shared.pairs:
        reasons = "; ".join(f"{pair_id} {reason}" for pair_id, reason in list(shared.left_out.items())[:5])
        raise InputError(
            f"{folders[0]} and {folders[1]}: expected runs that share pairs, and they share none: {reasons}"
        )
    out = options.out or folders[0] / "compare" / f"{folders[1].parents[1].name}-{folders[1].name}"
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


def _manifest(folder: Path) -> Manifest:
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
