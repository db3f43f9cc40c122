"""``cdpipe pipeline`` and ``cdpipe demo``: all stages, one after the other."""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cdpipe.cli import audit, evaluate, ingest, predict
from cdpipe.cli.verb import Verb, add_verbose, local_path
from cdpipe.errors import EXIT_DONE

if TYPE_CHECKING:
    from cdpipe.api.pipeline import StageResult
    from cdpipe.cli.screen import Screen
    from cdpipe.runs.run import Run


def run(options: argparse.Namespace) -> int:
    """Run all stages; each does what is missing."""
    from cdpipe.api.answer import say_who_answers
    from cdpipe.api.pipeline import check_models, pipeline
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    if options.dry_run:
        check_models(run)
        say_who_answers(run)
        ingest.show_plan(options, run, screen, for_training=True)
        stages = "train, predict" if run.config.predict.takes_trained else "predict"
        screen.say(f"then: {stages}, evaluate, audit, report (their plans need the ingested store)")
        return EXIT_DONE
    pipeline(run, only_failed=options.failed, keep_going=options.keep_going, ended=partial(_show, run, screen))
    return exit_code(run, screen)


def _show(run: "Run", screen: "Screen", result: "StageResult") -> None:
    """Print what a stage's own verb would."""
    from cdpipe.api.audit import Audits
    from cdpipe.api.evaluate import Evaluated
    from cdpipe.api.ingest import Ingested
    from cdpipe.runs.manifest import Manifest
    from cdpipe.workspace.location import Location

    match result:
        case Ingested():
            ingest.show_ingested(run, screen, result)
        case Manifest():
            predict.show_manifest(run, screen, result)
        case Evaluated():
            evaluate.show_evaluation(screen, result)
        case Audits():
            audit.show_audits(screen, result)
        case Location():
            screen.say(f"report: {result}")


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``cdpipe demo``."""
    parser.add_argument(
        "--out", type=local_path, default=Path("demo"), help="folder for scenes and results (default: ./demo)"
    )
    parser.add_argument("--scenes", action="store_true", help="make only the scenes, and a configuration for them")
    add_verbose(parser)


def run_demo(options: argparse.Namespace) -> int:
    """Make scenes and a configuration, run the pipeline, say where things are."""
    from cdpipe.api.pipeline import open_demo, pipeline
    from cdpipe.cli.screen import Screen, exit_code
    from cdpipe.units import duration

    begun, screen = time.monotonic(), Screen()
    run = open_demo(options.out, progress=screen.show)
    run.verbose = options.verbose
    path = options.out / "cdpipe.yaml"
    if options.scenes:
        screen.say(f"{run.config.catalog} names the scenes, {path} is a configuration for them")
        return EXIT_DONE
    pipeline(run, ended=partial(_show, run, screen))
    code = exit_code(run, screen)
    screen.say(f"\nThe demo took {duration(time.monotonic() - begun)}. To look at what it made:")
    for what, where in (
        ("the report, to open in a browser", run.folder / "report" / "index.html"),
        ("change masks and probabilities, for QGIS", run.folder / "rasters"),
        ("change objects, likewise", run.folder / "vectors"),
        ("a picture of every pair", run.folder / "report" / "pictures"),
        ("figures", run.folder / "report" / "evaluation.md"),
        ("the ensemble, to predict other scenes with", run.folder / "ensemble"),
        ("the configuration, to copy and turn into yours", path),
    ):
        screen.say_path(f"  {where}  ({what})")
    return code


PIPELINE = Verb("pipeline", "ingest, train, predict, evaluate, audit, report", ingest.add_options, run)
DEMO = Verb("demo", "make sample scenes and run the whole pipeline on them", add_demo_options, run_demo, None)
