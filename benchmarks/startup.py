"""How long commands take that have nothing to do: `cdpipe --help`, and each stage of a run that is finished.

Every command is a process of its own, so what is timed is what a user waits for; beside it the bare interpreter, and
one that imports torch and Ray, which no command that has nothing to do needs. The run is one small pair and a network
with random weights, ingested and predicted here before the clock starts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import torch
import yaml
from rasterio.transform import from_origin
from timing import Row, interleave, median_wall, show

from cdpipe.formats.model_io import ModelCard, save_model
from cdpipe.models import build_model

ROLES = ("red", "green", "blue")
NETWORK = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 16, 16]}
TARGETS = {"cdpipe --help": 0.5, "cdpipe predict, finished": 3.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = make_project(Path(folder))
        for verb in ("ingest", "predict"):
            run("-m", "cdpipe.cli", verb, str(config))
        cases: dict[str, Callable[[], None]] = {
            "python": partial(run, "-c", "pass"),
            "python, importing torch and ray": partial(run, "-c", "import torch, ray"),
            "cdpipe --help": partial(run, "-m", "cdpipe.cli", "--help"),
            **{
                f"cdpipe {verb}, finished": partial(run, "-m", "cdpipe.cli", verb, str(config))
                for verb in ("ingest", "predict")
            },
        }
        timings = interleave(cases, options.rounds)
    bare = median_wall(timings["python"])
    show(
        "Commands that have nothing to do, median seconds",
        [
            Row(
                name,
                f"{median_wall(each):.2f} s",
                f"{bare:.2f} s",
                None,
                f"<= {TARGETS[name]} s" if name in TARGETS else "",
            )
            for name, each in timings.items()
        ],
    )


def run(*arguments: str) -> None:
    """Run Python to its end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603


def make_project(folder: Path) -> Path:
    """A configuration with one pair and one model."""
    random = np.random.default_rng(0)
    for name in ("before", "after"):
        profile = {"count": 3, "height": 300, "width": 300, "dtype": "uint16", "crs": "EPSG:32631"}
        place = from_origin(5e5, 5e6, 10, 10)
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", transform=place, **profile) as raster:
            raster.write(random.integers(1, 1000, (3, 300, 300), np.uint16))
    (folder / "pairs.csv").write_text("pair_id,before,after\np,before.tif,after.tif\n")
    torch.manual_seed(0)
    card = ModelCard("m", "unetplusplus", NETWORK, ROLES, "common", together=False, patch=256, weights_sha256="")
    save_model(folder / "model", card, build_model("unetplusplus", **NETWORK).state_dict())
    values = {
        "name": "run",
        "catalog": "pairs.csv",
        "workspace": "work",
        "sensors": {"s": {"bands": {"red": 1, "green": 2, "blue": 3}}},
        "predict": {"models": ["model"], "tta": "none", "threshold": 0.5},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


if __name__ == "__main__":
    main()
