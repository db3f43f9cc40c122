"""``cdpipe train``: every configured model, each its own run, each resumable."""

import argparse

from cdpipe.cli.verb import Verb, add_run_options
from cdpipe.errors import EXIT_DONE


def run(options: argparse.Namespace) -> int:
    """Train the models that are not trained yet, or say which those are."""
    from cdpipe.api.train import measure_training, plan_training, train
    from cdpipe.cli.screen import exit_code, open_on_screen
    from cdpipe.units import duration

    run, screen = open_on_screen(options)
    if not options.dry_run:
        train(run)
        return exit_code(run, screen)
    trained, waiting = plan_training(run)
    for model in trained:
        screen.say(f"train: {model.name} is trained already: {model}")
    for job in waiting:
        most = "up to " if job.options.keep == "best" else ""
        screen.say(
            f"train: {job.name} ({job.architecture}), {len(job.train)} pair(s), {most}{job.options.epochs} epochs "
            f"of {job.steps} steps of {job.options.global_batch} patches of {job.options.patch} pixels"
        )
    if waiting:
        seconds = measure_training(run, waiting)
        told = "not measured, since it is done on the cluster that RAY_ADDRESS names"
        if seconds is not None:
            told = f"about {duration(seconds)} for all epochs, by a few steps of each model that were measured here now"
        screen.say(f"train: time: {told}")
    return EXIT_DONE


TRAIN = Verb("train", "train every configured model", add_run_options, run)
