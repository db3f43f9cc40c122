"""``cdpipe demo``: the whole pipeline on scenes that are made on the spot."""

import argparse
import time
from pathlib import Path

from cdpipe.config.load import load_config
from cdpipe.demo.scenes import make_sample_scenes
from cdpipe.errors import EXIT_DONE
from cdpipe.verbs.console import duration, make_console
from cdpipe.verbs.run_verb import run_session
from cdpipe.verbs.session import Session
from cdpipe.workspace.local import write_atomically

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


def run(options: argparse.Namespace) -> int:
    """Make scenes and a configuration, run the pipeline, say where things are."""
    folder: Path = options.out
    begun = time.monotonic()
    console = make_console()
    path = folder / "cdpipe.yaml"
    if not path.exists():
        write_atomically(path, CONFIG.encode())
    config = load_config(path)
    if not config.catalog.exists():
        console.print(f"making sample scenes in {config.catalog.parent}")
        make_sample_scenes(config.catalog.parent)
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
