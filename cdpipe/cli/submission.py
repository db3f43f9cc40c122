"""``cdpipe submission``: a run's change masks as one table of run-length text, and such a table as rasters."""

import argparse

from cdpipe.cli.verb import Verb, add_run_options, any_place
from cdpipe.errors import EXIT_DONE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add_run_options(parser)
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument("--template", type=any_place, help="sample submission whose ids and order to keep")
    direction.add_argument("--rasters", type=any_place, metavar="FILE", help="submission to write as GeoTIFFs")
    parser.add_argument("--out", type=any_place, help="file to write, with --rasters a folder (default: in the run's)")


def run(options: argparse.Namespace) -> int:
    """Write the run's submission, or with ``--rasters`` the masks of one as GeoTIFFs; or say what that would be."""
    return _run_table(options) if options.rasters is None else _run_rasters(options)


def _run_table(options: argparse.Namespace) -> int:
    from cdpipe.api.submission import plan_submission, write_submission
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_submission(run, template=options.template, out=options.out)
        screen.say(f"submission: {plan.masks} mask(s) to {plan.path}")
        return EXIT_DONE
    written = write_submission(run, template=options.template, out=options.out)
    if written.not_observed:
        screen.say(f"submission: {written.not_observed} pixel(s) were not observed; the masks call them unchanged")
    screen.say(f"submission: {written.masks} mask(s) in {written.path}")
    return exit_code(run, screen)


def _run_rasters(options: argparse.Namespace) -> int:
    from cdpipe.api.submission import plan_submission_rasters, write_submission_rasters
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_submission_rasters(run, options.rasters, out=options.out)
        screen.say(f"submission: {plan.masks} raster(s) to {plan.path}")
        return EXIT_DONE
    folder = write_submission_rasters(run, options.rasters, out=options.out)
    screen.say(f"submission: rasters in {folder}")
    return exit_code(run, screen)


SUBMISSION = Verb("submission", "change masks as run-length text, and such text as rasters", add_options, run)
