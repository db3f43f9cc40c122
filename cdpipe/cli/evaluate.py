"""``cdpipe evaluate`` and ``compare``: a run's results against its labels, and two runs against each other."""

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cdpipe.cli.verb import Verb, add_run_options, any_place
from cdpipe.errors import EXIT_DONE

if TYPE_CHECKING:
    from cdpipe.api.evaluate import Comparison, Evaluated
    from cdpipe.cli.screen import Screen

SHOWN = 20  # pairs in the printed table of a comparison; its file has all


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    parser.add_argument(
        "--submission",
        type=any_place,
        action="append",
        help="table Id,mask to judge and compare too; may be repeated",
    )


def _run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate and print the pooled figures, or say what there is to evaluate."""
    from cdpipe.api.evaluate import evaluate, plan_evaluation
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    submissions = tuple(options.submission or ())
    if options.dry_run:
        plan = plan_evaluation(run, submissions)
        screen.say(f"evaluate: {plan.labelled} labelled pair(s) of {plan.pairs}, a picture of each that is predicted")
        for name, masks in plan.masks.items():
            screen.say(f"  submission {name}: {masks} mask(s)")
        return EXIT_DONE
    show_evaluation(screen, evaluate(run, submissions))
    return exit_code(run, screen)


def show_evaluation(screen: "Screen", evaluated: "Evaluated") -> None:
    """Print the pooled figures, and how far masks agree; say where the rest is."""
    _show_scores(screen, evaluated)
    if evaluated.agreement:
        _show_agreement(screen, evaluated)


def _show_scores(screen: "Screen", evaluated: "Evaluated") -> None:
    from rich.table import Table

    from cdpipe.evaluation.tables import sum_up_test, with_interval
    from cdpipe.report.tables import without_twins

    folder = evaluated.folder
    if evaluated.evaluation is None:
        screen.say(f"evaluate: no pair has a label; pictures in {folder / 'pictures'}")
        return
    rows = evaluated.evaluation.rows
    table = Table("split", "layer", "pairs", "IoU", "F1", "objects hit", title="Pooled over pairs")
    for row in without_twins(rows):
        if row["pair_id"] is None:
            shown = (with_interval(row, name) for name in ("iou", "f1", "detection_rate"))
            table.add_row(row["split"], row["layer"], str(row["pairs"]), *shown)
    screen.show_table(table)
    unseen, caution = sum_up_test(evaluated.evaluation), evaluated.evaluation.caution
    for text in filter(None, (unseen, caution)):
        screen.say(text)
    for doubt in evaluated.evaluation.doubts:
        screen.alert(f"not to be believed: {doubt}")
    screen.say(f"evaluate: figures and pictures in {folder}")


def _show_agreement(screen: "Screen", evaluated: "Evaluated") -> None:
    """How far two masks agree, of each pair and pooled."""
    from rich.table import Table

    table = Table("pair", "mask", "and mask", "IoU", "pixels that differ", title="Agreement of masks")
    for row in evaluated.agreement:
        place = row["pair_id"] or f"all {row['pairs']}"
        table.add_row(place, row["first"], row["second"], _number(row["iou"]), str(row["differing"]))
    screen.show_table(table)
    screen.say(f"evaluate: agreement in {evaluated.folder / 'agreement.csv'}")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    for name in ("run_a", "run_b"):
        parser.add_argument(name, type=any_place, metavar=name.upper(), help="folder of a run, such as work/runs/NAME")
    parser.add_argument("--out", type=any_place, help="folder to write to (default: compare/ in RUN_A)")


def _run_compare(options: argparse.Namespace) -> int:
    """Compare two runs and print the pairs that differ most."""
    from cdpipe.api.evaluate import compare
    from cdpipe.cli.screen import Screen

    screen = Screen()
    comparison = compare(options.run_a, options.run_b, options.out, screen.show)
    _show_comparison(screen, comparison)
    screen.say_path(f"compare: figures and maps in {comparison.folder}")
    return EXIT_DONE


def _show_comparison(screen: "Screen", comparison: "Comparison") -> None:
    single = [row for row in comparison.rows if row["pair_id"] is not None]
    screen.show_table(_differences([*single[:SHOWN], *(row for row in comparison.rows if row["pair_id"] is None)]))
    if len(single) > SHOWN:
        screen.say(f"the {SHOWN} pairs of {len(single)} that differ most; intervals: 95 % over pairs")
    for pair_id, reason in comparison.left_out.items():
        screen.say(f"left out: pair {pair_id}: {reason}")


def _differences(rows: Sequence[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(
        "split", "pair", "IoU A", "IoU B", "B - A", "F1 B - A", "only A, px", "only B, px", title="Run B against A"
    )
    for row in rows:
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
    return table


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _difference(row: dict[str, Any], figure: str) -> str:
    value, low, high = (row[f"{figure}_difference{end}"] for end in ("", "_low", "_high"))
    text = "-" if value is None else f"{value:+.3f}"
    return text if low is None else f"{text} [{low:+.3f}, {high:+.3f}]"


EVALUATE = Verb("evaluate", "figures and pictures against the labels", _add_evaluate, _run_evaluate)
COMPARE = Verb("compare", "where two runs differ, by how much, and maps of it", _add_compare, _run_compare)
