"""What the command line understands: every verb, each with the options that its own module gives it."""

import argparse

from cdpipe.cli import (
    area,
    audit,
    check,
    completion,
    doctor,
    evaluate,
    export,
    ingest,
    pipeline,
    predict,
    report,
    setup,
    status,
    submission,
    threshold,
    train,
    view,
)
from cdpipe.cli.verb import EPILOG, Verb
from cdpipe.version import __version__

# in the order of --help: a project is set up, worked on from end to end, and looked at
VERBS: tuple[Verb, ...] = (
    setup.INIT,
    setup.CATALOG,
    check.CHECK,
    ingest.INGEST,
    train.TRAIN,
    predict.PREDICT,
    evaluate.EVALUATE,
    audit.AUDIT,
    report.REPORT,
    report.REVIEW,
    view.VIEW,
    submission.SUBMISSION,
    threshold.THRESHOLD,
    area.SAMPLE,
    area.AREA,
    pipeline.PIPELINE,
    status.VERIFY,
    status.STATUS,
    setup.CONFIG,
    setup.IMPORT_WEIGHTS,
    export.EXPORT,
    doctor.DOCTOR,
    evaluate.COMPARE,
    pipeline.DEMO,
    completion.COMPLETION,
)


def make_parser() -> argparse.ArgumentParser:
    """All verbs with their options."""
    parser = argparse.ArgumentParser(prog="cdpipe", description="Find change in satellite imagery.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"cdpipe {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        verb_parser = verbs.add_parser(verb.name, help=verb.text, epilog=verb.epilog)
        verb.add_options(verb_parser)
        verb_parser.set_defaults(run=verb.run, parser=parser)
    return parser
