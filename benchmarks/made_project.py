"""A project made up on the spot: one pair of random pixels, networks with random weights, a configuration."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import yaml
from rasterio.transform import from_origin

from cdpipe.models.folder import ModelCard, save_model
from cdpipe.models.networks import build_model
from cdpipe.workspace.location import here

ROLES = ("red", "green", "blue")
SMALL = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 16, 16]}  # a network that is soon done


def make_project(folder: Path, side: int, models: Mapping[str, Mapping[str, Any]], patch: int, **predict: Any) -> Path:
    """Write it all.

    Args:
        folder: Where to.
        side: Side of the scene in pixels.
        models: Arguments of each network by its architecture.
        patch: Side of a patch in pixels.
        predict: Options of the configuration's ``predict``.

    Returns:
        The configuration.
    """
    random = np.random.default_rng(0)
    profile = {"count": 3, "height": side, "width": side, "dtype": "uint16", "crs": "EPSG:32631", "tiled": True}
    for name in ("before", "after"):
        place = from_origin(5e5, 5e6, 10, 10)
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", transform=place, **profile) as raster:
            raster.write(random.integers(1, 1000, (3, side, side), np.uint16))
    (folder / "pairs.csv").write_text("pair_id,before,after\np,before.tif,after.tif\n")
    torch.manual_seed(0)
    for name, arguments in models.items():
        card = ModelCard(name, name, dict(arguments), ROLES, "common", together=False, patch=patch, weights_sha256="")
        save_model(here(folder / name), card, build_model(name, **arguments).state_dict())
    values = {
        "name": "run",
        "catalog": "pairs.csv",
        "workspace": "work",
        "sensors": {"s": {"bands": {role: number for number, role in enumerate(ROLES, 1)}}},
        "predict": {"models": list(models), "threshold": 0.5, **predict},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(*arguments: str) -> None:
    """Run Python to its end, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
