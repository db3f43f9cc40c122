"""The command line: parse, load the configuration, run a verb, end with the exit code that says what happened."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cdpipe.cli.parser import make_parser
from cdpipe.errors import EXIT_BUG, EXIT_INPUT, EXIT_INTERRUPTED, CdpipeError, InputError

# these need no configuration, or read it themselves
ALONE = {
    "init": ("setup", "run"),
    "catalog": ("setup", "run_catalog"),
    "config": ("setup", "run_config"),
    "import-weights": ("setup", "run_import_weights"),
    "doctor": ("doctor", "run"),
    "demo": ("pipeline", "run_demo"),
    "compare": ("evaluate", "run_compare"),
}
PAIR_OPTIONS = ("before", "after", "model", "out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code; users' mistakes are told without a traceback."""
    options = make_parser().parse_args(arguments)
    try:
        _require_utf8(sys.argv[1:] if arguments is None else arguments)
        return _run(options)
    except CdpipeError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command continues", EXIT_INTERRUPTED)
    except OSError as error:
        # a full disk or a folder without permission is not a bug, and its message names the path
        return _complain(str(error), EXIT_INPUT)
    except Exception:  # noqa: BLE001 (the last resort: this one is ours)
        traceback.print_exc()
        return _complain("this is a bug; please report the lines above", EXIT_BUG)


def _require_utf8(arguments: Sequence[str]) -> None:
    """Catalogs, records and reports are text, which names in any other encoding cannot be written to."""
    for name in (*arguments, str(Path.cwd())):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{name!a}: expected a name in UTF-8; rename the file or folder") from None


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"cdpipe: {text}\n")
    return code


def _run(options: argparse.Namespace) -> int:
    """Run a verb, and import its module, with the heavy libraries that it needs, only now."""
    if options.verb in ALONE or _is_one_pair(options):
        module, name = ALONE.get(options.verb, ("predict", "run_pair"))
        code: int = getattr(importlib.import_module(f"cdpipe.cli.{module}"), name)(options)
        return code
    from cdpipe.config.load import load_config

    config = load_config(options.config, options.set)
    if options.verb == "check":
        from cdpipe.cli import check

        return check.run(config, read=options.read, deep=options.deep)
    from cdpipe.cli import session

    return session.run(config, options)


def _is_one_pair(options: argparse.Namespace) -> bool:
    """Whether this is ``predict`` without a configuration."""
    if options.verb != "predict":
        return False
    return options.config is None or any(getattr(options, name) for name in PAIR_OPTIONS)


if __name__ == "__main__":
    sys.exit(main())
