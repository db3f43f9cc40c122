"""``cdpipe pipeline``: ingest, train, predict, evaluate, audit and report, one after the other."""

import traceback

from cdpipe.inference.backends import check_backend
from cdpipe.verbs import audit, evaluate, ingest, predict, report, train
from cdpipe.verbs.session import Session, Unfinished


def run(session: Session) -> None:
    """Run all stages; each does what is missing.

    Raises:
        ConfigError: If what the last of them need is not installed.
    """
    check_backend(session.config.predict, "cpu")
    if session.dry_run:
        ingest.run(session, for_training=True)
        session.say("then: train, predict, evaluate, audit, report (their plans need the ingested store)")
        return
    ingest.run(session, for_training=True)
    if not session.config.predict.models:
        train.run(session)
    predict.run(session)
    evaluate.run(session)
    audit.run(session, probe=False)
    _report(session)


def _report(session: Session) -> None:
    """Write the report; whatever goes wrong with it, the results are there and this was the last of the work."""
    try:
        report.run(session)
    except Unfinished:
        raise
    except Exception as error:  # noqa: BLE001 (as above)
        session.log_error(f"report: {error}", traceback.format_exc())
        session.say(f"report: not written: {error}; everything else is complete, cdpipe report tries again")
