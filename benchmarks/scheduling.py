"""Planning and scheduling very many blocks whose work is nothing, against Ray's bare task rate in the same run.

Bare: tasks without arguments that do nothing, one a block, 256 in flight, 32 taken at a time; they run afterwards,
when there are workers already, so that the first block's time is not theirs. cdpipe: what `cdpipe ingest` and `cdpipe
predict` do where nothing is stored yet, from the plan to the last pair reported, but the functions that do a block
and end a pair do nothing. One process for each of both, whose peak memory is that of a driver.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from stored_scenes import run_pair
from timing import Row, own_peak, show

from cdpipe.cluster.ingest import ingest_pairs
from cdpipe.cluster.needs import Actors
from cdpipe.cluster.predict import predict_and_publish
from cdpipe.cluster.session import ray_session, total_cpus
from cdpipe.config.load import parse_config
from cdpipe.config.resources import Resources
from cdpipe.config.schema import Config
from cdpipe.geo.grid import Grid
from cdpipe.inference.patches import Execution
from cdpipe.models.folder import ModelCard
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.ingest import IngestJob, plan_blocks
from cdpipe.pairs.plan import PlannedPair
from cdpipe.prediction.block import Member
from cdpipe.prediction.ensemble import plan_ensemble
from cdpipe.runs.plan import RunPlan, missing_work
from cdpipe.runs.rasters import PairRasters, raster_product
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SIDE = 10_980  # pixels of a Sentinel-2 tile
BLOCKS_A_PAIR = 36
IN_FLIGHT, TAKEN = 256, 32
CRS = "x" * 1500  # about as long as the text of a coordinate reference system


def main() -> None:
    """Measure both stages and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=400_000, help="about; whole scenes of 36 blocks")
    parser.add_argument("--bare", type=int, default=20_000, help="bare tasks")
    parser.add_argument("--stage", choices=("ingest", "predict"), help="measure only this one, and print JSON")
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(measure(options.stage, options.blocks, options.bare)))
        return
    rows = []
    for stage in ("ingest", "predict"):
        command = [sys.executable, __file__, "--stage", stage, "--blocks", options.blocks, "--bare", options.bare]
        done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        rows += list(table(stage, json.loads(done.stdout.splitlines()[-1])))
    show(f"Blocks whose work is nothing, {options.blocks} of them", rows)


def table(stage: str, found: dict[str, float]) -> Iterable[Row]:
    """The rows of a stage."""
    blocks, bare = found["blocks"] / found["seconds"], found["bare"]
    yield Row(f"{stage}: blocks/s", f"{blocks:.0f}", f"{bare:.0f} bare tasks/s", blocks / bare, ">= 0.80")
    both = found["blocks"] / (found["seconds"] + found["plan"])
    yield Row(f"{stage}: blocks/s with the plan", f"{both:.0f}", f"{bare:.0f} bare tasks/s", both / bare, ">= 0.80")
    yield Row(f"{stage}: plan", f"{found['plan']:.1f} s")
    yield Row(f"{stage}: Ray up to first block", f"{found['first']:.1f} s", target="<= 5 s")
    yield Row(f"{stage}: driver, peak", f"{found['peak'] / 2**20:.0f} MiB", target="<= 1024 MiB")


def measure(stage: str, blocks: int, bare: int) -> dict[str, float]:
    """Plan and schedule blocks; seconds, bytes, and tasks a second."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, pairs = Workspace(here(Path(folder))), max(1, blocks // BLOCKS_A_PAIR)
        started = workspace.root / "first"
        plan, schedule = STAGES[stage](workspace, pairs)
        begun = time.monotonic()
        work = plan()
        planned = time.monotonic() - begun
        with ray_session(Resources(gpus=0), verbose=False):
            up, begun = time.time(), time.monotonic()
            ended = schedule(work, lambda _count: None, started)
            seconds = time.monotonic() - begun
            peak = own_peak()
            rate = bare_rate(bare)
        if ended != pairs:
            raise RuntimeError(f"{ended} of {pairs} pairs ended")
        first = float(started.read_text()) - up
    return {"blocks": len(work), "plan": planned, "seconds": seconds, "first": first, "peak": peak, "bare": rate}


def bare_rate(count: int) -> float:
    """Ray's tasks a second, started and collected by one driver."""
    task = ray.remote(num_cpus=1)(lambda: None)
    begun, left = time.monotonic(), count
    pending: list[ray.ObjectRef[None]] = []
    while pending or left:
        fresh = min(IN_FLIGHT - len(pending), left)
        pending += [task.remote() for _ in range(fresh)]
        left -= fresh
        ready, pending = ray.wait(pending, num_returns=min(TAKEN, len(pending)))
        ray.get(ready)
    return count / (time.monotonic() - begun)


def note(started: Path, first: bool) -> None:
    """Write down when the first block began."""
    if first and not started.exists():
        started.write_text(str(time.time()))


def plan_ingest(workspace: Workspace, pairs: int) -> tuple[Callable[[], Any], Callable[..., int]]:
    """How an ingest is planned, and how it is scheduled."""
    config = make_config(workspace)
    sensor = config.sensors["s2"]
    source = Source(here(Path("/data/scene.tif")), "s2", sensor, (1, 2, 3, 4))
    jobs = [
        IngestJob(
            workspace,
            config,
            PlannedPair(
                Pair(f"p{number:06d}", f"p{number:06d}", source, source, tuple(sensor.bands)),
                grid(number),
                ("uint16", "uint16"),
                f"{number:012x}",
                None,
                {"scene.tif": [f"{number:064x}"]},
            ),
        )
        for number in range(pairs)
    ]

    def schedule(tasks: Any, advance: Callable[[int], None], started: Path) -> int:
        def do(_job: Any, task: Any) -> None:
            note(started, first=task.pair == 0)

        outcomes = ingest_pairs(jobs, tasks, lambda count, _: advance(count), do, lambda _job: None)
        return sum(outcome.failure is None for outcome in outcomes)

    return partial(plan_blocks, jobs), schedule


def plan_predict(workspace: Workspace, pairs: int) -> tuple[Callable[[], Any], Callable[..., int]]:
    """How a prediction by two models is planned, and how it is scheduled."""
    roles = ("red", "green", "blue", "nir")
    scale = ((1.0, 0.0), (1.0, 0.0))
    stored = tuple(
        StoredPair(f"p{number:06d}", f"{number:012x}", grid(number), 2048, roles, scale, {}) for number in range(pairs)
    )
    execution = Execution("d4", "float32", "cpu", 1)
    members = tuple(
        Member(
            ModelCard(name, name, {}, roles, "common", False, 256, ""), here(Path()), name, None, 1.0, 0.25, execution
        )
        for name in ("unetplusplus", "siamese_seresnext50")
    )
    bare = (run_pair(pair, members, None) for pair in stored)
    plan = RunPlan(
        workspace, members, tuple(replace(pair, ensemble=plan_ensemble(pair.shares(), 0.5)) for pair in bare)
    )
    rasters = [
        (raster_product(PairRasters(workspace, "run", pair.stored, pair.change.key, (), {})),) for pair in plan.pairs
    ]

    def schedule(work: Any, advance: Callable[[int], None], started: Path) -> int:
        def do(_job: Any, item: Any, _networks: Any) -> None:
            note(started, first=item.pair == 0)

        published = 0
        for event in predict_and_publish(plan, work, Actors(total_cpus(), gpus=False), rasters, do, lambda _task: None):
            advance(int(event.block))
            published += event.published
        return published

    return lambda: list(missing_work(plan)), schedule


def make_config(workspace: Workspace) -> Config:
    """A configuration of a Sentinel-2 archive."""
    bands = {"red": 1, "green": 2, "blue": 3, "nir": 4}
    values = {"name": "run", "catalog": "pairs.csv", "workspace": "work", "sensors": {"s2": {"bands": bands}}}
    return parse_config(values, workspace.root.local())


def grid(number: int) -> Grid:
    """A pair's own grid."""
    return Grid(SIDE, SIDE, (10.0, 0.0, 1e5 * number, 0.0, -10.0, 5e6), f"{CRS}{number}")


STAGES = {"ingest": plan_ingest, "predict": plan_predict}

if __name__ == "__main__":
    main()
