"""Several nodes of Ray against one with as many CPUs, all on this machine: what being spread costs.

Each node is a raylet with an object store and workers of its own, so that tasks, actors and results travel as between
machines; the network between them is loopback, and the disk is shared. Ingest and predict are run as users run them;
the seconds are those of ``log.json``, without the start of Ray. What both wrote is compared byte for byte.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from made_project import SMALL, make_project, run
from ray.cluster_utils import Cluster
from timing import Row, show

STAGES = ("ingest", "predict")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side of the scene in pixels")
    parser.add_argument("--cpus", type=int, default=3, help="of all nodes together; the nodes that are compared")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        config = make_project(Path(folder), options.size, {"unetplusplus": SMALL}, 256, tta="none")
        layouts = {"one": [options.cpus], "several": [1] * options.cpus}
        seconds: dict[str, list[list[float]]] = {name: [] for name in layouts}
        for turn in range(options.rounds):
            works = {name: Path(folder) / f"{name}{turn}" for name in layouts}
            for name, nodes in layouts.items():
                seconds[name].append(_run(config, works[name], nodes))
            if _stored(works["one"]) != _stored(works["several"]):
                raise SystemExit("the nodes wrote other bytes than the one")
    medians = {name: np.median(each, axis=0) for name, each in seconds.items()}
    show(
        f"{options.cpus} nodes of 1 CPU against 1 of {options.cpus}, on {os.cpu_count()} real CPUs: the same bytes",
        [
            Row(stage, f"{several:.1f} s", f"one node {one:.1f} s", one / several)
            for stage, several, one in zip(STAGES, medians["several"], medians["one"], strict=True)
        ],
    )


def _run(config: Path, workspace: Path, nodes: list[int]) -> list[float]:
    """Seconds of each stage on a cluster of these nodes, behind a head that runs no tasks."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    try:
        for cpus in nodes:
            cluster.add_node(num_cpus=cpus, num_gpus=0)
        os.environ["RAY_ADDRESS"] = cluster.address
        for stage in STAGES:
            run("-m", "cdpipe.cli.main", stage, str(config), "--set", f"workspace={workspace}")
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()  # type: ignore[no-untyped-call]
    entries = json.loads((workspace / "runs" / "run" / "log.json").read_text())
    return [next(entry["seconds"] for entry in entries if entry["stage"] == stage) for stage in STAGES]


def _stored(workspace: Path) -> dict[str, bytes]:
    """Every file of the store, by name."""
    root = workspace / "store.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


if __name__ == "__main__":
    main()
