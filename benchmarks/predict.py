"""`cdpipe predict` against the original program's loop, and against its own networks in a bare loop.

Original's loop, written afresh: one process of two threads, eager float32, batch 1, the eight views of each 256-pixel
patch one by one, no overlap, the scene normalised in memory beforehand. `cdpipe predict`: the whole command on the
same pair, two workers of one thread, D4, overlap 0, from the moment Ray is up, less the same command on a pair of one
patch, which holds all that does not grow with the scene: planning, starting workers, importing, loading the network,
rasters, manifest. As that pair's patch occupies one worker while the other has none, the difference is of n - 2 of n
patches, and counted as n / (n - 2) of itself. Engines are built before; how long that takes is printed.

Bare loop: two processes of one thread with the workers' environment, a network and eight views in memory each.

CPU seconds are those of all processes together. Only a quiet machine gives ratios worth quoting: on a busy one the
loop's two threads wait for each other by spinning, and lose several times as much as the workers. Weights are random
(their batch norms saw noise) unless folders of trained models are given, whose agreement tells more.

    python benchmarks/predict.py                        # 2048 pixels, both headline networks
    python benchmarks/predict.py --size 1024 --rounds 3
    python benchmarks/predict.py --model FOLDER --model FOLDER
"""

import argparse
import contextlib
import csv
import io
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cdpipe.arrays.normalisation import model_input
from cdpipe.cli import main
from cdpipe.distributed.cluster import MODEL_ENVIRONMENT, ray_session
from cdpipe.formats.config_file import load_config
from cdpipe.formats.manifest import read_manifest
from cdpipe.formats.model_io import ModelCard, load_network, read_card, save_model
from cdpipe.formats.store import open_layer, read_window
from cdpipe.formats.stored_pair import read_dates, read_observed
from cdpipe.models import build_model
from cdpipe.stages.prediction import Member, load_forward
from cdpipe.stages.run_plan import ModelSource, plan_members
from cdpipe.stages.sample_scenes import make_sample_scenes
from cdpipe.stages.splits import known_splits
from cdpipe.values.config import Config, Resources
from cdpipe.values.grid import Window
from cdpipe.verbs.predict_plan import plan_run
from cdpipe.verbs.session import Session, stored_pairs

WORKERS, PATCH, THRESHOLD = 2, 256, 0.4
CASES = (("torch", "float32"), ("openvino", "float32"), ("torch", "bfloat16"), ("openvino", "bfloat16"))
INT8 = ("openvino", "int8")
TARGETS = {  # speed of UNet++ and Siamese, largest and mean difference, IoU of the masks
    "float32": ("1.4 / 2", "1e-05", "", ""),
    "bfloat16": ("2.9 / 4", "0.02", "0.001", "0.995"),
    "int8": ("5", "", "", ""),
}
HEADLINE = ("unetplusplus", "siamese_seresnext50")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds."""

    wall: float
    cpu: float

    def less(self, other: "Cost", patches: int) -> "Cost":
        """What the scene itself took; see the module's docstring."""
        share = patches / (patches - WORKERS)
        return Cost((self.wall - other.wall) * share, (self.cpu - other.cpu) * share)


def timed(action: Callable[[], object]) -> Cost:
    """Cost of an action in this process and all its descendants, those that ended included."""
    wall, cpu = time.perf_counter(), _tree_cpu()
    action()
    return Cost(time.perf_counter() - wall, _tree_cpu() - cpu)


def _tree_cpu() -> float:
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def median(costs: list[Cost]) -> Cost:
    """Medians of both."""
    return Cost(statistics.median(each.wall for each in costs), statistics.median(each.cpu for each in costs))


def make_scenes(folder: Path, size: int) -> None:
    """A labelled pair to calibrate on; mirrored until it is large enough, the scene; a pair of one patch."""
    make_sample_scenes(folder, pairs=1)
    with (folder / "pairs.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    rows = [{**row, "split": "train"}]
    for name, side in (("scene", size), ("patch", PATCH)):
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
    save_model(root / name, card, network.state_dict())
    return root / name


def original(network: torch.nn.Module, scene: Floats) -> Floats:
    """Probabilities as the original program computes them, patch by patch and view by view."""
    probability = np.zeros(scene.shape[1:], np.float32)
    for row in range(0, scene.shape[1], PATCH):
        for col in range(0, scene.shape[2], PATCH):
            x = torch.from_numpy(scene[None, :, row : row + PATCH, col : col + PATCH])
            total = torch.zeros(1, 1, PATCH, PATCH)
            with torch.no_grad():
                for turns in range(4):
                    for mirrored in (False, True):
                        view = torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))
                        y = torch.rot90(torch.sigmoid(network(view)), -turns, (-2, -1))
                        total += y.flip(-1) if mirrored else y
            probability[row : row + PATCH, col : col + PATCH] = (total / 8)[0, 0].numpy()
    return probability


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
        self.card = read_card(model)
        if self.card.patch != PATCH:
            self.model = shutil.copytree(model, work / "models" / model.name)
            self.card = save_model(
                self.model, replace(self.card, patch=PATCH), load_network(model, self.card).state_dict()
            )

    def settings(self, case: tuple[str, str]) -> list[str]:
        """How a case is configured."""
        values = {"name": "-".join(case), "predict.backend": case[0], "predict.precision": case[1]}
        values["predict.models"] = f"['{self.model}']"
        return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]

    def predict(self, case: tuple[str, str], pair: str) -> None:
        """Run the command on a pair of which nothing is stored yet."""
        for kind in ("probabilities", "changes", "rasters"):
            for folder in ("store.zarr", "records"):
                shutil.rmtree(self.work / "work" / folder / kind, ignore_errors=True)
        shutil.rmtree(self.work / "work" / "runs", ignore_errors=True)
        quietly(["predict", str(self.config), *self.settings(case), "--pair", pair])

    def stored(self, case: tuple[str, str], size: int) -> Floats:
        """The probability of the scene that the last command stored."""
        manifest = read_manifest(self.work / "work" / "runs" / "-".join(case))
        if manifest is None:
            raise SystemExit("the run left no manifest")
        pair = manifest.pairs[0]
        group = (
            self.work / "work" / "store.zarr" / "probabilities" / pair.pair_id / next(iter(pair.probabilities.values()))
        )
        return np.asarray(read_window(open_layer(group, "probability"), Window(0, 0, size, size)), np.float32)

    def member(self, case: tuple[str, str]) -> tuple[Member, Floats]:
        """The model as a case runs it, and the scene as it eats it."""
        loaded = load_config(self.config)
        options = {"backend": case[0], "precision": case[1], "models": (self.model,)}
        config = Config(**{**loaded.model_dump(), "predict": {**loaded.predict.model_dump(), **options}})
        session = Session(config, Console(quiet=True))
        planned = stored_pairs(session)
        members = plan_members(config, [ModelSource(self.model, self.card.name)], "cpu")
        job, _ = plan_run(session, planned, members, known_splits([item for item, _ in planned]))
        pair = next(pair for pair in job.pairs if pair.pair_id == "scene")
        whole = Window(0, 0, *pair.grid.shape)
        observed = read_observed(session.workspace, pair, whole)
        dates = read_dates(session.workspace, pair, whole)
        return job.members[0], model_input(dates, observed, pair.scalings(self.card.recipe))


def bare(job: Path) -> None:
    """Print the cost of one pass of a network over eight views, in a process of one thread."""
    member, views, passes = pickle.loads(job.read_bytes())  # noqa: S301 (this program wrote it just now)
    torch.set_num_threads(1)
    forward = load_forward(replace(member, execution=replace(member.execution, tta="none")))
    forward(views)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(passes):
        forward(views)
    print((time.perf_counter() - wall) / passes, (time.process_time() - cpu) / passes)


def bare_cost(work: Path, member: Member, scene: Floats, passes: int) -> Cost:
    """Cost of a patch in the bare loop: the processes share the wall clock."""
    views = np.repeat(scene[None, :, :PATCH, :PATCH], 8, axis=0)
    (work / "bare.pickle").write_bytes(pickle.dumps((member, views, passes)))
    command = [sys.executable, __file__, "--bare", str(work / "bare.pickle")]
    running = [
        subprocess.Popen(command, env={**os.environ, **MODEL_ENVIRONMENT}, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(WORKERS)
    ]
    walls, cpus = zip(*(map(float, process.communicate()[0].split()) for process in running), strict=True)
    return Cost(statistics.mean(walls) / WORKERS, statistics.mean(cpus))


def measure(benchmark: Benchmark, cases: list[tuple[str, str]], size: int, rounds: int) -> list[list[str]]:
    """Rows of the table for one network."""
    network = load_network(benchmark.model, benchmark.card)
    _, scene = benchmark.member(("torch", "float32"))
    for case in cases:
        first, second = (timed(lambda case=case: benchmark.predict(case, "patch")) for _ in range(2))
        print(f"{benchmark.card.name} {' '.join(case)}: one patch {first.wall:.0f} s, again {second.wall:.0f} s")
    found: dict[tuple[str, str], list[Cost]] = {case: [] for case in cases}
    networks: dict[tuple[str, str], list[Cost]] = {case: [] for case in cases}
    loops, answers = [], {}
    exact = np.zeros(0, np.float32)

    def loop() -> None:
        nonlocal exact
        exact = original(network, scene)

    torch.set_num_threads(WORKERS)
    for _ in range(rounds):
        loops.append(timed(loop))
        for case in cases:
            start = timed(lambda case=case: benchmark.predict(case, "patch"))
            found[case].append(timed(lambda case=case: benchmark.predict(case, "scene")).less(start, benchmark.patches))
            answers[case] = benchmark.stored(case, size)
            member, _ = benchmark.member(case)
            networks[case].append(bare_cost(benchmark.work, member, scene, max(2, benchmark.patches // 8)))
    rows = [_row(benchmark.card.name, ("original's loop", ""), (median(loops),) * 2, None, (exact, exact))]
    for case in cases:
        per_patch = median(networks[case])
        alone = Cost(per_patch.wall * benchmark.patches, per_patch.cpu * benchmark.patches)
        rows.append(
            _row(benchmark.card.name, case, (median(loops), median(found[case])), alone, (exact, answers[case]))
        )
    return rows


def _row(
    name: str, case: tuple[str, str], costs: tuple[Cost, Cost], alone: Cost | None, answers: tuple[Floats, Floats]
) -> list[str]:
    (base, cost), (exact, answer) = costs, answers
    difference = np.abs(answer - exact)
    masks = exact > THRESHOLD, answer > THRESHOLD
    union = int((masks[0] | masks[1]).sum())
    iou = int((masks[0] & masks[1]).sum()) / union if union else 1.0
    speed, largest, mean, agreement = TARGETS.get(case[1], ("", "", "", ""))
    efficiency = "" if alone is None else f"{alone.wall / cost.wall:.1%} / {alone.cpu / cost.cpu:.1%}"
    return [
        name,
        " ".join(case),
        f"{cost.wall:.1f}",
        f"{cost.cpu:.1f}",
        f"{base.wall / cost.wall:.2f}",
        f"{base.cpu / cost.cpu:.2f}",
        speed,
        f"{difference.max():.1e} ({largest})" if largest else f"{difference.max():.1e}",
        f"{difference.mean():.1e} ({mean})" if mean else f"{difference.mean():.1e}",
        f"{iou:.4f} ({agreement})" if agreement else f"{iou:.4f}",
        efficiency,
    ]


def run(options: argparse.Namespace, work: Path) -> None:
    """Measure and print."""
    make_scenes(work / "scenes", options.size)
    values: dict[str, Any] = {
        "name": "benchmark",
        "catalog": "scenes/pairs.csv",
        "workspace": "./work",
        "sensors": {"demo": {"bands": {"red": 1, "green": 2, "blue": 3}, "nodata": 0}},
        "align": {"block": max(512, options.size // 2)},  # several blocks, so that both workers have work
        "predict": {"overlap": 0.0, "threshold": THRESHOLD},
        "resources": {"workers": WORKERS, "gpus": 0},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(values))
    models = options.model or [make_model(work / "models", name) for name in HEADLINE]
    table = Table(title=f"one pair of {options.size} x {options.size}, (target) beside, threshold {THRESHOLD}")
    columns = ("wall s", "cpu s", "x wall", "x cpu", "target", "max |dp|", "mean |dp|", "IoU", "bare/pipeline wall/cpu")
    for column in ("network", "case", *columns):
        table.add_column(column)
    with ray_session(Resources(workers=WORKERS, gpus=0), verbose=False):
        quietly(["ingest", str(work / "config.yaml"), "--set", f"predict.models=['{models[0]}']"])
        for model in models:
            cases = [case for case in (*CASES, INT8) if not options.case or "-".join(case) in options.case]
            for row in measure(Benchmark(work, model, options.size), cases, options.size, options.rounds):
                table.add_row(*row)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    Console(width=200).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048, help="side of the scene, a multiple of 256 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="medians of so many (%(default)s)")
    parser.add_argument("--model", type=Path, action="append", help="a trained model's folder; may be repeated")
    parser.add_argument("--case", action="append", help="only this one, as openvino-bfloat16; may be repeated")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare(given.bare)
    else:
        with tempfile.TemporaryDirectory() as made:
            run(given, Path(made).resolve())
