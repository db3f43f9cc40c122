"""``cdpipe doctor``: what this machine or cluster has, and what that means for a run."""

import argparse

from cdpipe.cli.verb import Verb, add_config, add_verbose
from cdpipe.errors import EXIT_DONE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add_config(parser, optional=True)
    add_verbose(parser)


def run(options: argparse.Namespace) -> int:
    """Print what there is and what to mind; a cluster that ``RAY_ADDRESS`` names is joined and asked."""
    from rich.markup import escape
    from rich.table import Table

    from cdpipe.api.doctor import examine
    from cdpipe.cli.screen import Screen
    from cdpipe.config.load import load_config
    from cdpipe.units import size

    screen = Screen()
    found = examine(load_config(options.config, options.set) if options.config else None, verbose=options.verbose)
    software = Table("software", "version")
    for name, version in found.software.items():
        software.add_row(name, escape(version))
    screen.show_table(software)
    table = Table("machine", "CPUs", "instructions", "memory", "GPUs", "shared memory", "free for Ray", "open files")
    for machine in found.machines:
        table.add_row(
            machine.name,
            str(machine.cpus),
            " ".join(machine.flags) or "-",
            _size(machine.memory),
            ", ".join(f"{name} {size(memory)}" for name, memory in machine.gpus) or "none",
            _size(machine.shared_memory),
            size(machine.temporary),
            str(machine.open_files),
        )
    screen.show_table(table)
    for line in found.advice or ["nothing to mind"]:
        screen.say(f"- {line}")
    return EXIT_DONE


def _size(count: int | None) -> str:
    from cdpipe.units import size

    return "unknown" if count is None else size(count)


DOCTOR = Verb("doctor", "what this machine or cluster has, and what that means for a run", add_options, run, None)
