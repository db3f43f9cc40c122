"""The data plane alone: from the store to the stored mask, with a model that returns its input.

The real stage functions work on every block: read both dates and what was observed, normalise, cut into patches of
256 pixels, blend, store probability and record, then the ensemble's probability and the mask. In one process with one
thread (CPU seconds), and as the real Ray Data job with two workers (by the clock, from the second block on). Memory is
kept between blocks by the settings of malloc that cdpipe's workers have. The read rate is that of reading the same
windows and nothing else; patches are those of the scene.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stored_scenes import run_pair, store_scene
from timing import MALLOC, Row, interleave, median_cpu, median_wall, show

from cdpipe.inference.patches import Execution
from cdpipe.models.folder import ModelCard
from cdpipe.prediction.block import Member, predict_block, probability_key
from cdpipe.prediction.ensemble import ensemble_block, plan_ensemble
from cdpipe.runs.plan import RunPlan, missing_work
from cdpipe.runs.results import create_result_groups
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

PATCH = 256


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side of the scene in pixels")
    parser.add_argument("--ray-size", type=int, default=8192, help="side of the scene of the Ray job; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = _in_process(Path(folder), options.size, options.rounds)
        if options.ray_size:
            rows += _with_ray(Path(folder) / "ray", options.ray_size)
    show(f"store to stored mask, identity model, patches of {PATCH}²", rows)


def identity(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """A forward that gives back its input's first channel."""
    return patches[:, 0]


def _make_plan(workspace: Workspace, pair: StoredPair) -> RunPlan:
    card = ModelCard("none", "unetplusplus", {}, ("red", "green", "blue"), "common", False, PATCH, "0")
    member = Member(card, here(Path()), "none", None, 1.0, 0.0, Execution("none", "float32", "cpu", 1))
    ensemble = plan_ensemble([(probability_key(pair.key, member), 1.0)], 0.5)
    return RunPlan(workspace, (member,), (run_pair(pair, (member,), ensemble),))


def _clear(plan: RunPlan) -> None:
    """Remove all results and make room for new ones."""
    for folder in ("store.zarr", "records"):
        for kind in ("probabilities", "changes"):
            shutil.rmtree((plan.workspace.root / folder / kind).local(), ignore_errors=True)
    create_result_groups(plan.workspace, plan.pairs[0])


def _in_process(root: Path, size: int, rounds: int) -> list[Row]:
    workspace = Workspace(here(root))
    pair = store_scene(root, size).pair
    plan = _make_plan(workspace, pair)

    def read() -> None:
        for key in pair.blocks():
            read_dates(workspace, pair, pair.window(key))
            read_observed(workspace, pair, pair.window(key))

    def work() -> None:
        own = probability_key(pair.key, plan.members[0])
        for key in pair.blocks():
            made = {own: predict_block(workspace, pair, key, plan.members[0], identity)}
            ensemble_block(workspace, pair, key, plan.pairs[0].change, made)

    timings = interleave({"read": read, "work": work}, rounds, partial(_clear, plan))
    patches = (size // PATCH) ** 2
    cpu = {name: median_cpu(each) for name, each in timings.items()}
    wall = {name: median_wall(each) for name, each in timings.items()}
    rate, read_rate, by_clock = patches / cpu["work"], patches / cpu["read"], patches / wall["work"]
    return [
        Row("reading the store only", f"{read_rate:.0f} patches/s/core"),
        Row(
            "store to stored mask, 1 process",
            f"{rate:.0f} patches/s/core ({by_clock:.0f} wall)",
            f"reading {read_rate:.0f}/s/core",
            rate / read_rate,
            ">= 500/s/core",
        ),
    ]


def patch_worker() -> None:
    """Give a worker of Ray the identity instead of a network from a model folder."""
    import cdpipe.cluster.predict as job  # noqa: PLC0415 (in the worker)

    setattr(job, "load_forward", lambda member: identity)  # noqa: ARG005, B010 (mypy sees a module's imports as private)


def _with_ray(root: Path, size: int) -> list[Row]:
    import ray  # noqa: PLC0415 (seconds, and not needed without)

    from cdpipe.cluster.needs import Actors  # noqa: PLC0415
    from cdpipe.cluster.predict import predict_blocks  # noqa: PLC0415
    from cdpipe.cluster.session import _silence_ray_data  # noqa: PLC0415

    workspace = Workspace(here(root))
    pair = store_scene(root, size).pair
    plan = _make_plan(workspace, pair)
    hook = {"worker_process_setup_hook": patch_worker}
    ray.init(num_cpus=2, include_dashboard=False, logging_level=40, log_to_driver=False, runtime_env=hook)
    _silence_ray_data()
    try:
        seconds = []
        for _ in range(3):
            _clear(plan)
            work = list(missing_work(plan))
            arrivals, start = [], time.perf_counter()
            for result in predict_blocks(plan, work, Actors(2, gpus=False)):
                if result.error:
                    raise SystemExit(f"a block failed: {result.error} {result.details}")
                arrivals.append(time.perf_counter() - start)
            # the first blocks come when the actors are up: from there on it is work
            seconds.append((arrivals[-1] - arrivals[1]) / (len(arrivals) - 2) * len(arrivals))
    finally:
        ray.shutdown()
    patches = (size // PATCH) ** 2
    rate = patches / float(np.median(seconds))
    return [Row("the Ray Data job, 2 workers on 2 cores", f"{rate:.0f} patches/s ({rate / 2:.0f}/s/core wall)")]


if __name__ == "__main__":
    if os.environ.keys() >= MALLOC.keys():
        main()
    else:  # malloc reads them when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})  # noqa: S606 (this script)
