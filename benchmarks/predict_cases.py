"""What benchmarks/predict.py measures: scenes, networks, and the command with its result for each case."""

import contextlib
import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from original_loop import PATCH, Floats

from cdpipe.cli.main import main
from cdpipe.config.load import load_config
from cdpipe.config.schema import Config
from cdpipe.demo.scenes import make_sample_scenes
from cdpipe.geo.grid import Window
from cdpipe.models.folder import ModelCard, load_network, read_card, save_model
from cdpipe.models.networks import build_model
from cdpipe.prediction.block import Member
from cdpipe.runs.manifest import read_manifest
from cdpipe.runs.members import ModelSource, plan_members
from cdpipe.runs.plan import plan_run
from cdpipe.runs.run import Run, take_inventory
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.normalisation import model_input
from cdpipe.store.pair import read_dates, read_observed
from cdpipe.workspace.location import here

STARTS = ("first", "second")  # pairs of one patch, one for each worker


def make_scenes(folder: Path, size: int) -> None:
    """A labelled pair to calibrate on; mirrored until it is large enough, the scene; pairs of one patch."""
    make_sample_scenes(folder, pairs=1)
    with (folder / "pairs.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    rows = [{**row, "split": "train"}]
    for name, side in (("scene", size), *((name, PATCH) for name in STARTS)):
        made = {**row, "pair_id": name, "split": "", "label": ""}
        for date in ("before", "after"):
            made[date] = f"{name}_{date}.tif"
            with rasterio.open(folder / row[date]) as source:
                pixels, profile = source.read(), source.profile
            beyond = [(0, 0), *((0, max(0, side - length)) for length in pixels.shape[1:])]
            profile |= {"height": side, "width": side}
            with rasterio.open(folder / made[date], "w", **profile) as target:
                target.write(np.pad(pixels, beyond, mode="reflect")[:, :side, :side])
        rows.append(made)
    with (folder / "pairs.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerows(rows)


def make_model(root: Path, name: str) -> Path:
    """A model folder with random weights whose batch norms saw some noise."""
    torch.manual_seed(0)
    network = build_model(name).train()
    card = ModelCard(name, name, {}, ("red", "green", "blue"), "common", False, PATCH, "")
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(2, card.recipe.channels, PATCH, PATCH))
    save_model(here(root / name), card, network.state_dict())
    return root / name


def quietly(arguments: list[str]) -> None:
    """Run a command of cdpipe in this process without what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(arguments)
    if code:
        raise SystemExit(f"cdpipe {' '.join(arguments)} ended with {code}:\n{out.getvalue()}")


class Benchmark:
    """One network on one scene."""

    def __init__(self, work: Path, model: Path, size: int) -> None:
        self.work, self.model, self.patches = work, model, (size // PATCH) ** 2
        self.config = work / "config.yaml"
        self.card = read_card(here(model))
        if self.card.patch != PATCH:
            self.model = shutil.copytree(model, work / "models" / model.name)
            self.card = save_model(
                here(self.model), replace(self.card, patch=PATCH), load_network(here(model), self.card).state_dict()
            )

    def settings(self, case: tuple[str, str]) -> list[str]:
        """How a case is configured."""
        values = {"name": "-".join(case), "predict.backend": case[0], "predict.precision": case[1]}
        values["predict.models"] = f"['{self.model}']"
        return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]

    def predict(self, case: tuple[str, str], *pairs: str) -> None:
        """Run the command on pairs of which nothing is stored yet."""
        for kind in ("probabilities", "changes", "rasters"):
            for folder in ("store.zarr", "records"):
                shutil.rmtree(self.work / "work" / folder / kind, ignore_errors=True)
        shutil.rmtree(self.work / "work" / "runs", ignore_errors=True)
        chosen = [part for pair in pairs for part in ("--pair", pair)]
        quietly(["predict", str(self.config), *self.settings(case), *chosen])

    def stored(self, case: tuple[str, str], size: int) -> Floats:
        """The probability of the scene that the last command stored."""
        manifest = read_manifest(here(self.work / "work" / "runs" / "-".join(case)))
        if manifest is None:
            raise SystemExit("the run left no manifest")
        pair = manifest.pairs[0]
        group = (
            self.work / "work" / "store.zarr" / "probabilities" / pair.pair_id / next(iter(pair.probabilities.values()))
        )
        return np.asarray(read_window(open_array(here(group), "probability"), Window(0, 0, size, size)), np.float32)

    def member(self, case: tuple[str, str]) -> tuple[Member, Floats]:
        """The model as a case runs it, and the scene as it eats it."""
        loaded = load_config(self.config)
        options = {"backend": case[0], "precision": case[1], "models": (self.model,)}
        config = Config(**{**loaded.model_dump(), "predict": {**loaded.predict.model_dump(), **options}})
        run = Run(config)
        members = plan_members(config, [ModelSource(here(self.model), self.card.name)], "cpu")
        plan = plan_run(config, run.workspace, take_inventory(run), members)
        pair = next(pair.stored for pair in plan.pairs if pair.pair_id == "scene")
        whole = Window(0, 0, *pair.grid.shape)
        observed = read_observed(run.workspace, pair, whole)
        dates = read_dates(run.workspace, pair, whole)
        return plan.members[0], model_input(dates, observed, pair.scalings(self.card.recipe))
