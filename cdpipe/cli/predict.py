"""``cdpipe predict``: models over all pairs of a configuration, or over one pair without any."""

import argparse
from typing import TYPE_CHECKING

from cdpipe.cli.verb import Verb, add_run_options, any_place, local_path
from cdpipe.config.detectors import NAMED
from cdpipe.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from cdpipe.cli.screen import Screen
    from cdpipe.runs.manifest import Manifest
    from cdpipe.runs.run import Run

PAIR_OPTIONS = ("before", "after", "model", "out")
NEEDED = ("before", "after", "out")
VALID_OPTIONS = ("before_valid", "after_valid", "quality")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add_run_options(parser, config_optional=True)
    parser.add_argument("--split", action="append", choices=("train", "val", "test"), help="only pairs of a split")
    parser.add_argument("--pair", action="append", metavar="ID", help="only this pair; may be repeated")
    parser.add_argument("--before", type=any_place, help="first date (instead of a configuration)")
    parser.add_argument("--after", type=any_place, help="second date")
    parser.add_argument("--before-valid", type=any_place, help="cloud or quality raster of the first date")
    parser.add_argument("--after-valid", type=any_place, help="cloud or quality raster of the second date")
    parser.add_argument(
        "--quality", help="what these are, such as scl, qa_pixel or '{above: 40}' (default: 0 is unusable)"
    )
    parser.add_argument(
        "--model",
        type=any_place,
        action="append",
        help="model folder, of which several make an ensemble; an ensemble's folder; cdpipe, the model that comes with "
        "it; or a detector that needs no training: mad, irmad, cva, difference (default: cdpipe, mad and cva together; "
        "mad and cva where it is not known which bands are red, green and blue; cdpipe on pixels finer than 3 m)",
    )
    parser.add_argument("--out", type=local_path, help="folder for the results")
    parser.add_argument(
        "--bands", help="what the bands are (default: what the files call them, or else red=1,green=2,blue=3)"
    )


def run(options: argparse.Namespace) -> int:
    """Predict what is missing and publish it, or say what that would be."""
    if options.config is None or any(getattr(options, name) for name in (*PAIR_OPTIONS, *VALID_OPTIONS)):
        return _run_pair(options)
    from cdpipe.api.predict import predict
    from cdpipe.cli.screen import exit_code, open_on_screen

    run, screen = open_on_screen(options)
    pairs, splits = options.pair or (), options.split or ()
    if options.dry_run:
        _show_plan(options, run, screen)
        return EXIT_DONE
    show_manifest(run, screen, predict(run, pairs=pairs, splits=splits))
    return exit_code(run, screen)


def show_manifest(run: "Run", screen: "Screen", manifest: "Manifest") -> None:
    """Say how many pairs were published, at which threshold, and where."""
    screen.say(f"predict: {len(manifest.pairs)} pair(s), threshold {manifest.threshold:.3f} ({manifest.fitted_on})")
    screen.say(f"predict: rasters in {run.folder / 'rasters'}")
    if manifest.handed_on:
        from cdpipe.models.ensemble_folder import FOLDER

        ensemble = run.folder / FOLDER
        screen.say(f"predict: the ensemble to hand on, for predict --before --after --model: {ensemble}")


def _show_plan(options: argparse.Namespace, run: "Run", screen: "Screen") -> None:
    import torch

    from cdpipe.api.predict import plan_prediction
    from cdpipe.cluster.start import stays_here
    from cdpipe.units import free_text, size, time_text

    device = "cuda" if run.config.resources.gpus != 0 and torch.cuda.is_available() else "cpu"
    plan = plan_prediction(run, pairs=options.pair or (), splits=options.split or (), device=device)
    missing = f"{plan.blocks} block(s), {plan.patches} patch(es)"
    screen.say(f"predict: {plan.pairs} pair(s) with {', '.join(plan.models)}")
    screen.say(f"  missing: {missing}, test-time augmentation {run.config.predict.tta}")
    screen.say(f"  done by {'threads of this process' if stays_here(run) else 'workers of Ray'}")
    screen.say(f"  writes at most {size(plan.bytes_out)} before compression{free_text(plan.bytes_free)}")
    screen.say(f"  time: {time_text(plan.seconds)}")


def _run_pair(options: argparse.Namespace) -> int:
    """Predict one pair; rasters and objects end in ``--out`` itself, all else in ``work/`` beneath it.

    Raises:
        ConfigError: If an argument is missing or does not fit the others, or ``--bands`` is not understood.
    """
    wanted = "a configuration, or --before, --after and --out"
    if options.config is not None:
        raise ConfigError(f"predict: expected {wanted}; got parts of both")
    if options.quality and not (options.before_valid or options.after_valid):
        raise ConfigError("predict: --quality says what --before-valid and --after-valid are; give one of these, too")
    missing = [f"--{name}" for name in NEEDED if getattr(options, name) is None]
    if missing:
        raise ConfigError(f"predict: expected {wanted}; missing {', '.join(missing)}")
    if options.dry_run:
        raise ConfigError("predict: --dry-run is for runs with a configuration")
    from cdpipe.api.predict import predict_pair
    from cdpipe.cli.screen import Screen

    screen = Screen()
    written = predict_pair(
        (options.before, options.after),
        options.model or (),
        options.out,
        bands=None if options.bands is None else parse_bands(options.bands),
        valid=(options.before_valid, options.after_valid),
        overrides=[*([f"sensors.given.quality={options.quality}"] if options.quality else []), *options.set],
        progress=screen.show,
        verbose=options.verbose,
    )
    for path in written:
        screen.say(f"wrote {path}")
    if all(str(name) in NAMED for name in options.model or ()):
        screen.say("Nobody labelled anything, and seasons and clouds differ too: where to look first, no measurement.")
    screen.say(f"Next: open {written[-1]}, which shows it, and says how far to trust it and what to do then.")
    return EXIT_DONE


def parse_bands(text: str) -> dict[str, int]:
    """Band numbers by role from ``red=1,green=2,blue=3``.

    Raises:
        ConfigError: If the text is not of that form.
    """
    try:
        return {role.strip(): int(number) for role, number in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"--bands {text}: expected role=number, ..., as red=1,green=2,blue=3") from None


PREDICT = Verb("predict", "models over all pairs, ensemble, change, GeoTIFFs", add_options, run)
