"""``cdpipe check``: shows what the catalog holds and everything that is wrong with it."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdpipe.cli.verb import Verb, add_config
from cdpipe.errors import EXIT_DONE, EXIT_INPUT

if TYPE_CHECKING:
    from cdpipe.cli.screen import Screen
    from cdpipe.pairs.grouping import Group
    from cdpipe.runs.run import Run


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add_config(parser)
    parser.add_argument("--read", action="store_true", help="read every raster in full")
    parser.add_argument(
        "--deep", action="store_true", help="read all pairs: shift, clouds, saturation, radiometric offset, dates"
    )


def run(options: argparse.Namespace) -> int:
    """Check the catalog and show what was found."""
    from cdpipe.cli.screen import open_on_screen

    return check_on_screen(*open_on_screen(options), read=options.read, deep=options.deep)


def check_on_screen(run: "Run", screen: "Screen", *, read: bool = False, deep: bool = False) -> int:
    """Check the catalog and print a table, the warnings, the problems and a summary; 3 if there is a problem."""
    from cdpipe.api.check import check
    from cdpipe.cli.check_tables import deep_table, pair_table, summarise
    from cdpipe.pairs.coregistration import describe_corrections
    from cdpipe.pairs.grouping import files_of, group_findings

    checked = check(run, read=read, deep=deep)
    screen.show_table(pair_table(checked.pairs, read=read))
    if deep:
        screen.show_table(deep_table(checked.inspected))
    files = files_of(report.pair for report in checked.pairs)
    if checked.outlook is not None:
        screen.console.print("[bold]Training[/bold]")
        for line in checked.outlook.lines():
            screen.say(f"  {line}")
    for title, findings in (("Warnings", checked.warnings), ("Problems", checked.problems)):
        _print_list(screen, title, group_findings(findings, files))
    for line in describe_corrections(checked.corrections) if run.config.align.coregister == "auto" else ():
        screen.say_path(line)
    screen.say(summarise(checked.pairs, len(checked.problems), len(checked.warnings)))
    return EXIT_INPUT if checked.problems else EXIT_DONE


def _print_list(screen: "Screen", title: str, groups: "Sequence[Group]") -> None:
    if groups:
        screen.console.print(f"[bold]{title}[/bold]")
    for group in groups:
        screen.say_path(f"  {group.who}  {group.text}")


CHECK = Verb("check", "open everything the catalog names and list every problem", add_options, run, None)
