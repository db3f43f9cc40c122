"""``cdpipe sample`` and ``area``: points to label, and the changed area with its interval that follows from them."""

import argparse
from typing import TYPE_CHECKING

from cdpipe.cli.verb import Verb, add_run_options, local_path
from cdpipe.errors import EXIT_DONE

if TYPE_CHECKING:
    from cdpipe.api.area import AreaEstimate
    from cdpipe.cli.screen import Screen

ACCURACIES = {
    "users": "user's accuracy of change: of what is mapped as changed, so much has",
    "producers": "producer's accuracy of change: of what has changed, so much is mapped",
    "overall": "overall accuracy",
}


def _add_sample(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--points", type=int, metavar="N", help="how many points (default: as the standard error needs)")
    size.add_argument(
        "--standard-error", type=float, default=0.01, help="wanted, of overall accuracy (default: %(default)s)"
    )
    parser.add_argument(
        "--buffer", type=float, default=0.0, metavar="METRES", help="a stratum of its own this far around change"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random draw (default: %(default)s)")
    parser.add_argument(
        "--out", type=local_path, help="GeoPackage to write (default: area/sample.gpkg in the run's folder)"
    )


def _run_sample(options: argparse.Namespace) -> int:
    """Draw a sample and say what to do with it, or say what it would be drawn from."""
    from cdpipe.api.area import draw_sample, plan_sample
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_sample(run, buffer=options.buffer, out=options.out)
        screen.say(f"sample: {plan.pairs} pair(s), points to {plan.path}")
        return EXIT_DONE
    sample = draw_sample(
        run,
        points=options.points,
        standard_error=options.standard_error,
        buffer=options.buffer,
        seed=options.seed,
        out=options.out,
    )
    for stratum, (share, points) in sample.strata.items():
        screen.say(f"  {stratum}: {share:.2%} of the area, {points} points")
    screen.say(f"sample: {sample.points} points in {sample.path}")
    screen.say("  label each in a GIS, without looking at the result: column change = 0, 1 or unsure")
    screen.say(f"  then run cdpipe area CONFIG {sample.path}")
    return exit_code(run, screen)


def _add_area(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    parser.add_argument("sample", type=local_path, metavar="SAMPLE.gpkg", help="the labelled points")


def _run_area(options: argparse.Namespace) -> int:
    """Estimate and print, or say from how many points that would be."""
    from cdpipe.api.area import estimate_area, plan_area
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_area(run, options.sample)
        screen.say(f"area: {plan.points} labelled points of {plan.pairs} pair(s)")
        return EXIT_DONE
    _show_area(screen, estimate_area(run, options.sample))
    return exit_code(run, screen)


def _show_area(screen: "Screen", estimate: "AreaEstimate") -> None:
    from rich.table import Table

    def area(value: float) -> str:
        return f"{value / 1e6:,.4g} km²" if estimate.unit == "m2" else f"{value:,.0f} pixels"

    figures = estimate.figures
    changed = figures["area"]
    table = Table("", "estimate", "95 % interval", title="Changed area")
    table.add_row("from the sample", area(changed["value"]), f"{area(changed['low'])} to {area(changed['high'])}")
    table.add_row("counted on the map", area(figures["mapped_area"]), "none: its errors are unknown")
    for name, text in ACCURACIES.items():
        accuracy = figures[name]
        table.add_row(text, f"{accuracy['value']:.3f}", f"{accuracy['low']:.3f} to {accuracy['high']:.3f}")
    screen.show_table(table)
    for warning in figures["warnings"]:
        screen.say(f"area: {warning}")
    screen.say(f"area: figures in {estimate.path}")


SAMPLE = Verb("sample", "draw points to label, for an area estimate", _add_sample, _run_sample)
AREA = Verb("area", "changed area with its confidence interval, from labelled points", _add_area, _run_area)
