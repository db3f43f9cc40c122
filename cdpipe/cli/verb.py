"""What a verb of the command line is, and the options that several have."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdpipe.workspace.location import Location

EPILOG = (
    "exit codes: 0 done, 1 bug, 2 configuration, 3 input, 4 integrity, 5 done but for the pairs listed, 75 locked, or "
    "nodes did not come"
)


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line; its module lists it.

    Attributes:
        name: What users type.
        text: What ``cdpipe --help`` says of it.
        add_options: Adds its options to its parser. Nothing slow may be imported for that.
        run: Does it and gives the exit code; this is where what takes seconds to import is imported.
        epilog: What ``cdpipe VERB --help`` ends with.
    """

    name: str
    text: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    epilog: str | None = EPILOG


def add_config(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the configuration file and ``--set``."""
    parser.add_argument("config", type=local_path, nargs="?" if optional else None, help="configuration (YAML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, as predict.threshold=0.4",
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose``."""
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's own messages")


def add_run_options(parser: argparse.ArgumentParser, *, config_optional: bool = False, dry_run: bool = True) -> None:
    """Add what every verb has that works on a run."""
    add_config(parser, optional=config_optional)
    add_verbose(parser)
    parser.add_argument("--wait", action="store_true", help="wait while another run holds the workspace")
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def any_place(text: str) -> "Location":
    """A file or folder of this machine or in object storage."""
    from cdpipe.errors import ConfigError
    from cdpipe.workspace.location import locate

    try:
        return locate(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def local_path(text: str) -> Path:
    """A path of this machine; an address would make a folder of that name."""
    location = any_place(text)
    if location.far:
        raise argparse.ArgumentTypeError(f"{location}: expected a file or folder of this machine here")
    return location.local()
