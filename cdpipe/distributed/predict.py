"""Prediction with Ray Data: blocks in, actors that hold the models, one status row a block out.

Descriptors travel, pixels do not: an actor reads its block with halo from the store and writes the result
there, one stored object a block. Whatever goes wrong with a block is caught here and becomes its row's error,
so that the job goes on around it.
"""

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy

from cdpipe.distributed.cluster import MODEL_ENVIRONMENT, total_cpus, total_gpus
from cdpipe.formats.attempts import begin_attempt
from cdpipe.stages.ensemble import ensemble_block
from cdpipe.stages.inference import Forward
from cdpipe.stages.prediction import load_forward, predict_block, probability_key
from cdpipe.stages.run_plan import BlockWork, PredictJob
from cdpipe.values.crash import crash_point
from cdpipe.values.errors import CdpipeError
from cdpipe.values.grid import BlockKey

STALLED_SECONDS = 6 * 3600  # a block of 2048 pixels may take a slow core the better part of an hour
# A task costs about 10 ms, a block seconds to minutes: one block a task shows progress and publishes pairs early.
# Only where there are very many do they share tasks, which Ray Data would otherwise spend its time listing.
TASKS, MOST_ROWS_A_TASK = 2000, 64


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What became of a block; ``error`` is None where all went well, ``details`` is a traceback or nothing."""

    pair: int
    error: str | None
    details: str


def predict_blocks(job: PredictJob, work: Sequence[BlockWork], workers: int) -> Iterator[BlockResult]:
    """Do the work, yielding each block's result as it comes, in any order."""
    rows = [
        {
            "pair": item.pair,
            "block_row": item.key.block_row,
            "block_col": item.key.block_col,
            "members": sum(1 << member for member in item.members),
            "ensemble": item.ensemble,
        }
        for item in work
    ]
    gpus = total_gpus() > 0
    rows_a_task = max(1, min(len(rows) // TASKS, MOST_ROWS_A_TASK))
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = STALLED_SECONDS
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // rows_a_task)).map_batches(
        _Predictor,
        fn_constructor_args=(ray.put(job),),
        compute=ActorPoolStrategy(size=min(workers, len(rows))),
        batch_size=rows_a_task if gpus else None,
        # actors that held whole CPUs would leave none to feed them with on a small machine
        num_cpus=0 if gpus else 0.5,
        num_gpus=1 if gpus else 0,
        runtime_env={"env_vars": MODEL_ENVIRONMENT},
    )
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        for pair, error, details in zip(batch["pair"], batch["error"], batch["details"], strict=True):
            yield BlockResult(int(pair), str(error) or None, str(details))


def plan_actors(requested: int | str) -> int:
    """How many actors hold models: one a GPU, else one a CPU."""
    if total_gpus():
        return total_gpus()
    return requested if isinstance(requested, int) else total_cpus()


class _Predictor:
    """An actor of the pool; networks are loaded when a block first needs them."""

    def __init__(self, job: "ray.ObjectRef[PredictJob]") -> None:
        # one thread: sums are then in one order on every machine, and two such actors beat one with two threads
        torch.set_num_threads(1)
        self.job: PredictJob = ray.get(job)
        self.forwards: dict[int, Forward] = {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        columns = ("pair", "block_row", "block_col", "members", "ensemble")
        rows = zip(*(batch[name] for name in columns), strict=True)
        found = [self._work(*(int(value) for value in row)) for row in rows]
        errors, details = (np.array(column, dtype=object) for column in zip(*found, strict=True))
        return {"pair": batch["pair"], "error": errors, "details": details}

    def _work(self, number: int, block_row: int, block_col: int, members: int, ensemble: int) -> tuple[str, str]:
        """Work on one block; what went wrong and where in the code, or nothing."""
        job, pair = self.job, self.job.pairs[number]
        key = BlockKey(pair.pair_id, block_row, block_col)
        where = f"block {block_row},{block_col}"
        try:
            attempt = begin_attempt(job.workspace, key)
            crash_point(f"block-begun {pair.pair_id} {block_row}_{block_col}")
            try:
                made = {
                    probability_key(pair.key, member): predict_block(
                        job.workspace, pair, key, member, self._forward(index)
                    )
                    for index, member in enumerate(job.members)
                    if members >> index & 1
                }
                if ensemble:
                    ensemble_block(job.workspace, pair, key, job.ensembles[number], made)
            finally:
                attempt.unlink(missing_ok=True)
        except CdpipeError as error:
            return f"{where}: {error}", ""
        except Exception as error:  # noqa: BLE001 (any failure is this block's alone)
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
            return f"{where}: {type(error).__name__}: {error}", traceback.format_exc()
        return "", ""

    def _forward(self, index: int) -> Forward:
        if index not in self.forwards:
            self.forwards[index] = load_forward(self.job.members[index])
        return self.forwards[index]
