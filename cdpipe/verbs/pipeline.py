"""``cdpipe pipeline``: ingest, train, predict, evaluate and audit, one after the other."""

from cdpipe.stages.backends import check_backend
from cdpipe.verbs import audit, evaluate, ingest, predict, train
from cdpipe.verbs.session import Session


def run(session: Session) -> None:
    """Run all stages; each does what is missing.

    Raises:
        ConfigError: If what the last of them need is not installed.
    """
    check_backend(session.config.predict, "cpu")
    if session.dry_run:
        ingest.run(session, for_training=True)
        session.say("then: train, predict, evaluate, audit (their plans need the ingested store)")
        return
    ingest.run(session, for_training=True)
    if not session.config.predict.models:
        train.run(session)
    predict.run(session)
    evaluate.run(session)
    audit.run(session, probe=False)
