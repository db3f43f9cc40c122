"""``cdpipe report`` and ``review``: what a run found as pages to open in a browser, and what was said of it there."""

import argparse

from cdpipe.cli.verb import Verb, add_run_options, local_path
from cdpipe.errors import EXIT_DONE


def _run_report(options: argparse.Namespace) -> int:
    """Write the report, or say what it would have."""
    from cdpipe.api.report import plan_report, write_report
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_report(run)
        screen.say(f"report: {plan.pairs} pair page(s) and an index in {plan.folder}")
        return EXIT_DONE
    screen.say(f"report: {write_report(run)}")
    return exit_code(run, screen)


def _add_review(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    parser.add_argument("review", type=local_path, metavar="FILE", help="review.geojson, as the report saved it")
    parser.add_argument("--out", type=local_path, help="folder for labels and catalog (default: in the run's)")
    parser.add_argument(
        "--verdicts-only",
        action="store_true",
        help="label nothing that nobody looked at (default: in pairs without a label, ground to which every model "
        "gives a tenth of the threshold at most is unchanged, too)",
    )


def _run_review(options: argparse.Namespace) -> int:
    """Make labels of a review, or say which those would be."""
    from cdpipe.api.report import plan_review, review
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_review(run, options.review, options.out)
        screen.say(f"review: {plan.labels} label(s) and a catalog in {plan.folder}")
        return EXIT_DONE
    reviewed = review(run, options.review, options.out, quiet_ground=not options.verdicts_only)
    labels = f"labels of {len(reviewed.labels)} pair(s)"
    screen.say(f"review: {reviewed.accepted} change(s) and {reviewed.rejected} false alarm(s) in {labels}")
    if reviewed.quiet:
        screen.say(
            f"review: {reviewed.quiet:,} pixels that nobody looked at are unchanged in these labels, too, since every "
            "model was sure of them; --verdicts-only leaves them out"
        )
    screen.say(f"review: cdpipe pipeline CONFIG --set catalog={reviewed.catalog} --set name=NEW trains on them")
    return exit_code(run, screen)


REPORT = Verb(
    "report",
    "pages to open in a browser: every pair, its best changes, figures, what failed",
    add_run_options,
    _run_report,
)
REVIEW = Verb(
    "review",
    "verdicts saved in the report's gallery as labels to train on, and a catalog with them",
    _add_review,
    _run_review,
)
