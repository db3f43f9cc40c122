"""``cdpipe threshold``: what a wanted precision or recall costs, on pairs that no model learned from."""

import argparse
from typing import TYPE_CHECKING

from cdpipe.cli.verb import Verb, add_run_options
from cdpipe.errors import EXIT_DONE

if TYPE_CHECKING:
    from cdpipe.api.threshold import ThresholdPoint
    from cdpipe.cli.screen import Screen


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add_run_options(parser)
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument("--precision", type=float, metavar="SHARE", help="at least this much (default: the best F1)")
    aim.add_argument("--recall", type=float, metavar="SHARE", help="at least this much")


def run(options: argparse.Namespace) -> int:
    """Print the point of the threshold curve that was asked for, and how to use it; or say what it would be of."""
    from cdpipe.api.threshold import find_threshold, plan_threshold
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_threshold(run)
        screen.say(f"threshold: {plan.pairs} pair(s), {plan.models} model(s)")
        return EXIT_DONE
    _show_point(screen, find_threshold(run, precision=options.precision, recall=options.recall))
    wanted = "f1"
    for name in ("precision", "recall"):
        if (value := getattr(options, name)) is not None:
            wanted = f"{{{name}: {value:g}}}"
    screen.say("to use it, whatever the models: predict with")
    screen.say(f"  --set predict.threshold=auto --set 'predict.aim={wanted}'")
    return exit_code(run, screen)


def _show_point(screen: "Screen", point: "ThresholdPoint") -> None:
    from rich.table import Table

    title = f"Threshold {point.threshold:.3f} on {point.pairs} {point.kind} pair(s)"
    table = Table("figure", "value", "95 % interval over pairs", title=title)
    for name, (value, bounds) in point.figures.items():
        table.add_row(name, f"{value:.3f}", f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-")
    screen.show_table(table)
    if point.pairs < 2:
        screen.say("threshold: no intervals over a single pair")


THRESHOLD = Verb("threshold", "what a wanted precision or recall costs", add_options, run)
