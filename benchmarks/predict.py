"""`cdpipe predict` against the original program's loop, and against its own networks in a bare loop.

Original's loop, written afresh: one process of two threads, eager float32, batch 1, the eight views of each 256-pixel
patch one by one, no overlap, the scene normalised in memory beforehand. `cdpipe predict`: the whole command on the
same pair, two workers of one thread, D4, overlap 0, from the moment Ray is up, less the same command on two pairs of
one patch, one for each worker, which holds all that does not grow with the scene: planning, starting workers, imports,
loading the network, manifest. As a patch a worker goes with it, the difference is of n - 2 of n patches, and counted
as n / (n - 2) of itself. Engines are built before; how long that takes is printed.

Bare loop: two processes of one thread with the workers' environment, a network and eight views in memory each.

CPU seconds are those of the whole machine. Only a quiet one gives ratios worth quoting: on a busy one the
loop's two threads wait for each other by spinning, and lose several times as much as the workers. Weights are random
(their batch norms saw noise) unless folders of trained models are given, whose agreement tells more.

    python benchmarks/predict.py                        # 2048 pixels, both headline networks
    python benchmarks/predict.py --size 1024 --rounds 3
    python benchmarks/predict.py --model FOLDER --model FOLDER
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from original_loop import PATCH, Floats, original
from predict_cases import STARTS, Benchmark, make_model, make_scenes, quietly
from rich.console import Console
from rich.table import Table

from cdpipe.cluster.memory import MODEL_ENVIRONMENT
from cdpipe.cluster.session import ray_session
from cdpipe.config.resources import Resources
from cdpipe.models.folder import load_network
from cdpipe.prediction.block import Member, load_forward
from cdpipe.workspace.location import here

WORKERS, THRESHOLD = 2, 0.4
CASES = (("torch", "float32"), ("openvino", "float32"), ("torch", "bfloat16"), ("openvino", "bfloat16"))
INT8 = ("openvino", "int8")
TARGETS = {  # speed of UNet++ and Siamese, largest and mean difference, IoU of the masks
    "float32": ("1.4 / 2", "1e-05", "", ""),
    "bfloat16": ("2.9 / 4", "0.02", "0.001", "0.995"),
    "int8": ("5", "", "", ""),
}
HEADLINE = ("unetplusplus", "siamese_seresnext50")


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
    """Cost of an action; Ray's workers are not in this process's account, so the whole machine's is taken."""
    wall, cpu = time.perf_counter(), _machine_cpu()
    action()
    return Cost(time.perf_counter() - wall, _machine_cpu() - cpu)


def _machine_cpu() -> float:
    spent = psutil.cpu_times()
    return float(spent.user + spent.nice + spent.system)


def median(costs: list[Cost]) -> Cost:
    """Medians of both."""
    return Cost(statistics.median(each.wall for each in costs), statistics.median(each.cpu for each in costs))


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
    network = load_network(here(benchmark.model), benchmark.card)
    _, scene = benchmark.member(("torch", "float32"))
    for case in cases:
        first, second = (timed(partial(benchmark.predict, case, *STARTS)) for _ in range(2))
        print(f"{benchmark.card.name} {' '.join(case)}: one patch each {first.wall:.0f} s, again {second.wall:.0f} s")
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
            start = timed(partial(benchmark.predict, case, *STARTS))
            found[case].append(timed(partial(benchmark.predict, case, "scene")).less(start, benchmark.patches))
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
