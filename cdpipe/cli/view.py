"""``cdpipe view``: a run's maps in the browser, of scenes that are too large for a page."""

import argparse
import contextlib
import sys

from cdpipe.cli.verb import Verb, any_place
from cdpipe.errors import EXIT_DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "place",
        type=any_place,
        metavar="RUN",
        help="configuration (YAML), or a run's folder, as work/runs/NAME or s3://bucket/work/runs/NAME; or a "
        "workspace, or what predict --out wrote, with one run",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the configuration"
    )
    parser.add_argument("--port", type=_port, default=0, help="port of 127.0.0.1 to listen at (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 to 65535")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    """Serve until interrupted, which is how it ends."""
    from cdpipe.api.serving import Server
    from cdpipe.api.view import open_view
    from cdpipe.cluster.spread import end_as_interrupted

    end_as_interrupted()
    view = open_view(options.place, options.set, _say)
    with Server(view, options.port) as server, contextlib.suppress(KeyboardInterrupt):
        address = f"http://{server.host}/"
        _say(f"view: {address} shows {view.folder}, to this machine alone; Ctrl-C ends it")
        if options.open:
            import webbrowser

            webbrowser.open(address)
        server.serve_forever()
    return EXIT_DONE


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


VIEW = Verb(
    "view", "a run's maps in the browser, however large, from a server on this machine alone", _add_options, _run
)
