"""``cdpipe predict --before A --after B --model DIR --out DIR``: one pair, no configuration."""

import argparse
import csv
import io
import shutil
from pathlib import Path
from typing import Any

from cdpipe.config.load import parse_config
from cdpipe.errors import ConfigError
from cdpipe.inference.backends import check_backend
from cdpipe.verbs import ingest, predict
from cdpipe.verbs.console import make_console
from cdpipe.verbs.session import Session, close
from cdpipe.workspace.layout import locked
from cdpipe.workspace.local import write_atomically

NAME = "prediction"
BLOCK = 1024  # smaller than for many pairs, so that one pair keeps several cores busy
DRIVERS = ["GTiff", "PNG", "JPEG"]


def run(options: argparse.Namespace) -> int:
    """Predict one pair; rasters and objects end in ``--out`` itself, all else in ``work/`` beneath it.

    Raises:
        ConfigError: If an argument is missing or does not fit the others, or ``--bands`` is not understood.
    """
    wanted = "a configuration, or --before, --after, --model and --out"
    if options.config is not None:
        raise ConfigError(f"predict: expected {wanted}; got parts of both")
    missing = [f"--{name}" for name in ("before", "after", "model", "out") if getattr(options, name) is None]
    if missing:
        raise ConfigError(f"predict: expected {wanted}; missing {', '.join(missing)}")
    if options.dry_run:
        raise ConfigError("predict: --dry-run is for runs with a configuration")
    catalog = options.out / "work" / "pair.csv"
    text = io.StringIO()
    rows = [["pair_id", "before", "after"], [NAME, str(options.before.resolve()), str(options.after.resolve())]]
    csv.writer(text, lineterminator="\n").writerows(rows)
    values: dict[str, Any] = {
        "name": NAME,
        "catalog": str(catalog.resolve()),
        "workspace": str((options.out / "work").resolve()),
        "sensors": {"given": {"bands": parse_bands(options.bands)}},
        "align": {"block": BLOCK},
        "input": {"drivers": DRIVERS, "pixel_coordinates": True},
        "predict": {"models": [str(folder.resolve()) for folder in options.model]},
    }
    config = parse_config(values, Path.cwd(), options.set, "predict")
    check_backend(config.predict, "cpu")
    session = Session(config, make_console(), verbose=options.verbose)
    with locked(session.workspace), session.resources:
        write_atomically(catalog, text.getvalue().encode())
        ingest.run(session)
        predict.run(session)
        for product in sorted(session.run_folder.glob(f"*s/{NAME}_*")):
            name = product.name.removeprefix(f"{NAME}_")
            # in one folder a mask and its objects would share a style
            target = options.out / (f"objects{product.suffix}" if product.parent.name == "vectors" else name)
            shutil.copyfile(product, target)
            session.say(f"wrote {target}")
        return close(session)


def parse_bands(text: str) -> dict[str, int]:
    """Band numbers by role from ``red=1,green=2,blue=3``.

    Raises:
        ConfigError: If the text is not of that form.
    """
    try:
        return {role.strip(): int(number) for role, number in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise ConfigError(f"--bands {text}: expected role=number, ..., as red=1,green=2,blue=3") from None
