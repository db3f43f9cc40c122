"""``cdpipe audit``: what a run says of itself without labels: seams, swaps, false alarms, disagreement, shift."""

import argparse
from typing import TYPE_CHECKING

from cdpipe.cli.verb import Verb, add_run_options
from cdpipe.errors import EXIT_DONE

if TYPE_CHECKING:
    from cdpipe.api.audit import Audits
    from cdpipe.cli.screen import Screen

HEAD = ("pair", "seam score (95 %)", "models differ", "shift, px", "swap flips", "false: same image", "false: moved")
TEXT = "what a run says of itself without labels: seams, swapped dates, false alarms, shift"


def run(options: argparse.Namespace) -> int:
    """Audit every finished pair and print what was found, or say what there is to audit."""
    from cdpipe.api.audit import audit, plan_audit
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        plan = plan_audit(run)
        screen.say(f"audit: {plan.pairs} pair(s); models are run four times on up to {plan.patches} patch(es) of each")
        return EXIT_DONE
    show_audits(screen, audit(run))
    return exit_code(run, screen)


def show_audits(screen: "Screen", audits: "Audits") -> None:
    """Print what was found."""
    from rich.table import Table

    from cdpipe.evaluation.audit_tables import table_rows

    rows = table_rows(audits.pairs, audits.pooled)
    shown = [place for place in range(len(HEAD)) if any(row[place] != "-" for row in rows)]
    table = Table(*(HEAD[place] for place in shown), title="Audits, without labels")
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    screen.show_table(table)
    screen.say(f"audit: {audits.path}; docs/audits.md says how to read it")


AUDIT = Verb("audit", TEXT, add_run_options, run)
