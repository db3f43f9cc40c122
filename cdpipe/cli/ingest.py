"""``cdpipe ingest``: the catalog's rasters and labels into the store."""

import argparse
from typing import TYPE_CHECKING

from cdpipe.cli.verb import Verb, add_run_options
from cdpipe.errors import EXIT_DONE

if TYPE_CHECKING:
    from cdpipe.api.ingest import Ingested
    from cdpipe.cli.screen import Screen
    from cdpipe.runs.run import Run


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options; the pipeline has them, too."""
    add_run_options(parser)
    parser.add_argument("--failed", action="store_true", help="ingest only pairs that failed last time")
    parser.add_argument("--keep-going", action="store_true", help="leave out pairs that the check finds unusable")


def run(options: argparse.Namespace) -> int:
    """Ingest what is not in the store yet, or say what that would be."""
    from cdpipe.api.ingest import ingest
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        show_plan(options, run, screen, for_training=False)
        return EXIT_DONE
    show_ingested(run, screen, ingest(run, only_failed=options.failed, keep_going=options.keep_going))
    return exit_code(run, screen)


def show_ingested(run: "Run", screen: "Screen", ingested: "Ingested") -> None:
    """Say how many pairs are in the store."""
    store = run.workspace.root / "store.zarr"
    screen.say(f"ingest: {ingested.pairs} pair(s) in {store}, {ingested.blocks} block(s) written now")


def show_plan(options: argparse.Namespace, run: "Run", screen: "Screen", *, for_training: bool) -> None:
    """Say what an ingest from nothing would read and write."""
    from cdpipe.api.ingest import plan_ingest
    from cdpipe.units import free_text, size, time_text

    plan = plan_ingest(run, only_failed=options.failed, keep_going=options.keep_going, for_training=for_training)
    written = f"writes at most {size(plan.bytes_out)} before compression{free_text(plan.bytes_free)}"
    screen.say(f"ingest: {plan.pairs} pair(s), {plan.blocks} block(s) of {run.config.align.block} pixels")
    screen.say(f"  reads {size(plan.bytes_in)}, {written}")
    screen.say(f"  time: {time_text(plan.seconds)}")


INGEST = Verb("ingest", "rasters and labels into the store", add_options, run)
