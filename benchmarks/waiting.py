"""Share of a training step that a real network spends waiting for its samples.

The training loop's own batches (windows drawn, read, normalised and turned by threads, in order) feed forward, loss,
backward and optimiser step of a real network; what ``next`` takes is waiting. The first batch, which nothing can be
read ahead of, is left out. Seconds by the clock; the reading threads compete with the network for the same cores.
"""

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from stored_scenes import ROLES, store_scene
from timing import Row, show

from cdpipe.models.networks import build_model, input_kind
from cdpipe.store.normalisation import Recipe
from cdpipe.training import loop
from cdpipe.training.loss import dice_bce
from cdpipe.training.samples import Sampler, index_cells
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["siamese_seresnext50", "unetplusplus"])
    parser.add_argument("--size", type=int, default=4096, help="side of the scene in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="of the network, and as many that read")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        item = store_scene(Path(folder), options.size)
        workspace = Workspace(here(Path(folder)))
        rows = []
        for name in options.networks:
            recipe = Recipe(input_kind(name, {}), ROLES[:3], "common", together=False)
            sampler = Sampler(workspace, (item,), index_cells(workspace, (item,)), 256, 0.5, recipe, 0)
            waited, total = _train(name, sampler, options)
            per_step = f"{1000 * waited / options.steps:.1f} ms of {total / options.steps:.2f} s"
            rows.append(Row(name, f"waits {per_step} a step", "", waited / total, "< 0.05"))
    show(f"waiting for samples, batch {options.batch}, {options.threads} threads", rows)


def _train(name: str, sampler: Sampler, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds waited, and in all, of the steps after the first."""
    network = build_model(name).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    job: Any = SimpleNamespace(options=SimpleNamespace(global_batch=options.batch), steps=options.steps + 1)
    worker: Any = SimpleNamespace(rank=0, world=1, parts=1, threads=options.threads)
    batches = iter(loop._batches(job, worker, sampler, 0, 0))
    waited = 0.0
    start = before = time.perf_counter()
    for number, (scenes, labels) in enumerate(batches):
        waited += time.perf_counter() - before
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(dice_bce(network(torch.from_numpy(scenes)), torch.from_numpy(labels)))
        optimizer.step()
        before = time.perf_counter()
        if not number:
            start, waited = before, 0.0
    return waited, time.perf_counter() - start


if __name__ == "__main__":
    main()
