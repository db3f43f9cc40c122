"""``cdpipe status`` and ``cdpipe verify``: how far a run is, and whether what is stored is what was written."""

import argparse
from functools import partial

from cdpipe.cli.verb import Verb, add_run_options
from cdpipe.errors import EXIT_DONE


def run_status(options: argparse.Namespace) -> int:
    """Print what is done and what is left."""
    from rich.table import Table

    from cdpipe.api.status import status
    from cdpipe.cli.screen import open_on_screen
    from cdpipe.units import duration, size, three_digits

    run, screen = open_on_screen(options)
    found = status(run)
    table = Table("stage", "done", "left", "rate", "time left", "state")
    for stage in found.stages:
        left = "" if stage.left is None else str(stage.left)
        rate, wait = "", ""
        if stage.rate is not None and stage.left is not None:
            rate, wait = f"{three_digits(stage.rate)}/s", duration(stage.left / stage.rate)
        table.add_row(stage.stage, str(stage.done), left, rate, wait, stage.state)
    screen.show_table(table)
    for spent in found.workers:
        shares = ", ".join(f"{part} {100 * share:.0f} %" for part, share in spent.shares.items())
        speed = "" if spent.patches_a_second is None else f"; {three_digits(spent.patches_a_second)} patches/s"
        written = size(spent.bytes_written)
        screen.say(f"{spent.stage}: of its workers' time {shares}; {written} written{speed}")
    for pair_id, reason in found.failures.items():
        screen.say(f"failed: pair {pair_id}: {reason}")
    return EXIT_DONE


def run_verify(options: argparse.Namespace) -> int:
    """Hash everything again, and withdraw what is damaged, so that the next run repairs it."""
    from cdpipe.api.status import verify
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    records, models = verify(run)
    screen.say(f"verify: {records} record(s) and {models} model(s) are as they were written")
    return exit_code(run, screen)


_add_options = partial(add_run_options, dry_run=False)
VERIFY = Verb("verify", "hash everything stored again; withdraw what is damaged", _add_options, run_verify)
STATUS = Verb("status", "what is done, what is left, what failed", _add_options, run_status)
