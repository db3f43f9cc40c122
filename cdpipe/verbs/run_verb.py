"""Runs one verb of a configuration: lock, work, write down what failed."""

import argparse
import importlib

from cdpipe.config.schema import Config
from cdpipe.errors import EXIT_DONE
from cdpipe.verbs.console import make_console
from cdpipe.verbs.session import Session, close
from cdpipe.workspace.layout import locked

READ_ONLY = ("status",)
KEEPS_FAILURES = ("status", "verify", "submission", "threshold", "sample", "area", "report", "review")


def run(config: Config, options: argparse.Namespace) -> int:
    """Run the verb that was asked for and give the exit code."""
    session = Session(
        config,
        make_console(),
        dry_run=getattr(options, "dry_run", False),
        keep_going=getattr(options, "keep_going", False),
        only_failed=getattr(options, "failed", False),
        verbose=options.verbose,
        wait=options.wait,
        only_pairs=tuple(getattr(options, "pair", None) or ()),
        only_splits=tuple(getattr(options, "split", None) or ()),
        submissions=tuple(getattr(options, "submission", None) or ()),
        template=getattr(options, "template", None),
        rasters=getattr(options, "rasters", None),
        review=getattr(options, "review", None),
        out=getattr(options, "out", None),
        request=options,
    )
    return run_session(session, options.verb)


def run_session(session: Session, verb: str) -> int:
    """Run a verb and give the exit code; the workspace is held while it writes."""
    # only this verb's module: others would import what takes seconds
    run_one = importlib.import_module(f"cdpipe.verbs.{verb}").run
    if session.dry_run or verb in READ_ONLY:
        run_one(session)
        return EXIT_DONE
    with locked(session.workspace, wait=session.wait), session.resources as stack:
        if verb not in KEEPS_FAILURES:
            # also when the verb gives up: which pairs failed is what the user needs then
            stack.callback(session.write_failures)
        run_one(session)
        return close(session)
