"""All stages one after the other, ingest to report; and that on scenes that are made on the spot."""

import contextlib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from cdpipe.api.ahead import predicting_ahead
from cdpipe.api.answer import say_who_answers
from cdpipe.api.audit import Audits, audit
from cdpipe.api.evaluate import Evaluated, evaluate
from cdpipe.api.ingest import ALONE, Ingested, ingest
from cdpipe.api.opening import open_run
from cdpipe.api.predict import predict
from cdpipe.api.report import write_report
from cdpipe.api.train import Trained, train
from cdpipe.demo.scenes import make_sample_scenes
from cdpipe.runs.manifest import Manifest
from cdpipe.runs.members import check_given
from cdpipe.runs.run import Progress, Run, ignore
from cdpipe.training.batches import check_batches, known_workers
from cdpipe.workspace.location import Location, here

DEMO = """\
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


STAGES = ("ingest", "train", "predict", "evaluate", "audit", "report")

StageResult = Ingested | list[Trained] | Manifest | Evaluated | Audits | Location


def forget(_result: StageResult) -> None:
    """Do nothing with a stage's result."""


def pipeline(
    run: Run, *, only_failed: bool = False, keep_going: bool = False, ended: Callable[[StageResult], None] = forget
) -> Manifest:
    """Run all stages; each does what is missing. Models that are given predict pairs while others are still ingested.

    Args:
        run: The run.
        only_failed: Ingest only pairs that failed last time.
        keep_going: Leave out pairs that the check finds unusable.
        ended: Called with what each stage returned, as soon as it has ended.

    Returns:
        What is published.

    Raises:
        ConfigError: If what the last of them need is not installed.
        InputError: If there is nothing to go on with; see each stage.
    """
    check_models(run)
    say_who_answers(run)
    stages = [stage for stage in STAGES if stage != "train" or run.config.predict.takes_trained]

    def begin(stage: str) -> None:
        run.say(f"stage {stages.index(stage) + 1} of {len(stages)}: {stage}")

    with run.hold():
        begin("ingest")
        _check_gpus(run)
        # thresholds that were fitted on a part of the pairs would be of no use
        with predicting_ahead(run) if not only_failed else contextlib.nullcontext(ALONE) as follower:
            done = ingest(run, only_failed=only_failed, keep_going=keep_going, for_training=True, follower=follower)
            ended(done)
        if "train" in stages:
            begin("train")
            ended(train(run))
        begin("predict")
        manifest = predict(run)
        ended(manifest)
        begin("evaluate")
        ended(evaluate(run))
        begin("audit")
        ended(audit(run, probe=False))
        begin("report")
        _report(run, ended)
    return manifest


def check_models(run: Run) -> None:
    """Refuse before any work what the models of a configuration cannot be trained or run with.

    Raises:
        ConfigError: If it is so.
        InputError: If an ensemble is not whole.
    """
    check_given(run.config)
    if run.config.predict.takes_trained:
        check_batches(run.config, known_workers(run.config))


def _check_gpus(run: Run) -> None:
    """Refuse a number of GPUs of which there can be none: the first that needs them comes after hours of ingest.

    Raises:
        ConfigError: If it is so.
    """
    if run.config.resources.gpus not in ("auto", 0):
        from cdpipe.cluster.needs import plan_gpus
        from cdpipe.cluster.start import start_workers

        start_workers(run, ray=True)
        plan_gpus(run)


def _report(run: Run, ended: Callable[[StageResult], None]) -> None:
    """Write the report; whatever goes wrong with it, the results are there and this was the last of the work."""
    try:
        ended(write_report(run))
    except Exception as error:  # noqa: BLE001 (as above)
        run.log_error(f"report: {error}", traceback.format_exc())
        run.say(f"report: not written: {error}; everything else is complete, cdpipe report tries again")


def open_demo(folder: Path, *, overrides: Sequence[str] = (), progress: Progress = ignore) -> Run:
    """A run on sample scenes, which are made where they are not there yet, with a configuration beside them.

    Args:
        folder: Where all of it is to lie.
        overrides: Keys to override, each as ``key=value``.
        progress: Called with how far the work is, see :class:`cdpipe.runs.run.Run`.
    """
    path = folder / "cdpipe.yaml"
    if not path.exists():
        here(path).write(DEMO.encode())
    run = open_run(path, overrides=overrides, progress=progress)
    if not run.config.catalog.exists():
        run.say(f"making sample scenes in {run.config.catalog.parent}")
        make_sample_scenes(run.config.catalog.parent.local())
    return run
