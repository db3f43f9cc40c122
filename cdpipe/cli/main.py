"""The command line: parse, run a verb, end with the exit code that says what happened."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cdpipe.cli.parser import make_parser
from cdpipe.errors import EXIT_BUG, EXIT_CONFIG, EXIT_INPUT, EXIT_INTERRUPTED, CdpipeError, InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code; users' mistakes are told without a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    if not given:  # who types this wants to know what there is; a script whose verb is lost must not go on
        parser.print_help(sys.stderr)
        return EXIT_CONFIG
    options = parser.parse_args(given)
    try:
        _require_utf8(given)
        code: int = options.run(options)
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
    return code


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


if __name__ == "__main__":
    sys.exit(main())
