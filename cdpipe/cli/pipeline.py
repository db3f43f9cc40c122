"""``cdpipe pipeline``: ingest, train, predict, evaluate, audit and report, one after the other."""

import argparse
import time
import traceback
from pathlib import Path

from cdpipe.cli import audit, evaluate, ingest, predict, report, train
from cdpipe.cli.console import duration, make_console
from cdpipe.cli.session import Session, Unfinished, run_session
from cdpipe.config.load import load_config
from cdpipe.demo.scenes import make_sample_scenes
from cdpipe.errors import EXIT_DONE
from cdpipe.inference.backends import check_backend
from cdpipe.workspace.location import here


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


# ``cdpipe demo``: the whole pipeline on scenes that are made on the spot.

CONFIG = """\
name: demo
catalog: scenes/pairs.csv
workspace: ./work
sensors:
  demo: {bands: {red: 1, green: 2, blue: 3, nir: 4}, nodata: 0}
label: {changed: [1], unchanged: [0]}
train:
  models:                     # small networks, so that the demo takes minutes on a laptop without a GPU
    unetplusplus: {encoder: resnet18, arguments: {encoder_depth: 3, decoder_channels: [32, 16, 16]}}
    siamese_resnet18: {arguments: {decoder_channels: [16, 24, 48, 96]}}
  patch: 128
  global_batch: 4
  epochs: 6
  samples_per_epoch: 160
  learning_rate: 1.0e-3       # from random weights, for a few minutes; the default suits days
  decay: 0.8
  patience: 6
predict: {overlap: 0.25, tta: d4, threshold: auto, model_rasters: true}
"""


def run_demo(options: argparse.Namespace) -> int:
    """Make scenes and a configuration, run the pipeline, say where things are."""
    folder: Path = options.out
    begun = time.monotonic()
    console = make_console()
    path = folder / "cdpipe.yaml"
    if not path.exists():
        here(path).write(CONFIG.encode())
    config = load_config(path)
    if not config.catalog.exists():
        console.print(f"making sample scenes in {config.catalog.parent}")
        make_sample_scenes(config.catalog.parent.local())
    if options.scenes:
        console.print(f"{config.catalog} names the scenes, {path} is a configuration for them", markup=False)
        return EXIT_DONE
    code = run_session(Session(config, console, verbose=options.verbose), "pipeline")
    outputs = config.workspace / "runs" / config.name
    console.print(f"\nThe demo took {duration(time.monotonic() - begun)}. To look at what it made:", markup=False)
    for what, where in (
        ("the report, to open in a browser", outputs / "report" / "index.html"),
        ("change masks and probabilities, for QGIS", outputs / "rasters"),
        ("change objects, likewise", outputs / "vectors"),
        ("a picture of every pair", outputs / "report" / "pictures"),
        ("figures", outputs / "report" / "evaluation.md"),
        ("the configuration, to copy and turn into yours", path),
    ):
        console.print(f"  {where}  ({what})", markup=False, soft_wrap=True)
    return code
