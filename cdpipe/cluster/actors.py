"""Prediction with Ray Data: blocks in, actors that hold the models, one status row a block out.

Descriptors travel, pixels do not: an actor reads its blocks with halo from the store and writes the results
there, one stored object a block. Whatever goes wrong with a block becomes its row's error, so that the job goes on
around it.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from cdpipe.cluster.memory import MODEL_ENVIRONMENT
from cdpipe.cluster.needs import ACTOR_CPUS, Actors
from cdpipe.cluster.tasks import meter
from cdpipe.geo.grid import BlockKey
from cdpipe.prediction.block import Member
from cdpipe.prediction.networks import LoadedNetworks, Networks
from cdpipe.runs.blocks import BlockResult, DoBlock, do_block, in_runs, share_between, try_block
from cdpipe.runs.members import Batches, batch_name, probe_batch
from cdpipe.runs.plan import BlockWork, RunPlan
from cdpipe.workspace.clients import add_requests, take_requests

STALLED_SECONDS = 6 * 3600  # a block of 2048 pixels may take a slow core the better part of an hour
BLOCKS_A_GPU = 3


def predict_on_actors(
    plan: RunPlan, work: Sequence[BlockWork], actors: Actors, do: DoBlock = do_block
) -> Iterator[BlockResult]:
    """Do the work, yielding each block's result as it comes, in any order.

    Args:
        plan: The run.
        work: What is missing.
        actors: Who does it. Those that are not there yet take part as they come.
        do: Called in an actor with each block.
    """
    gpus = actors.gpus
    ordered, runs = in_runs(work, actors.count)
    # every actor gets all of the work once, packed; tasks then only say which part of it is theirs
    tasks = [{"first": first, "stop": stop} for first, stop in runs]
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = STALLED_SECONDS
    context.target_max_block_size = 1  # byte: each block's row comes when it is done, not with the last of its run
    dataset = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        _Predictor,
        fn_constructor_args=(ray.put(plan), ray.put(_pack(ordered)), do),
        compute=ActorPoolStrategy(
            # all at once: each that waits for a node is a demand that the autoscaler sees. Ray Data's own scaling of a
            # pool is bounded by the nodes that are there, so of GPUs it never asked for a second (ray #59144)
            min_size=min(actors.count, len(tasks)),
            max_size=len(tasks) if actors.grow else min(actors.count, len(tasks)),
            # while one block has the GPU, the next is read and the last is written
            max_concurrent_calls_per_actor=BLOCKS_A_GPU if gpus else None,
            enable_true_multi_threading=gpus,
        ),
        batch_size=1,
        num_cpus=0 if gpus else ACTOR_CPUS,
        num_gpus=1 if gpus else 0,
        resources=actors.resources or None,
        memory=actors.memory or None,
        runtime_env={"env_vars": MODEL_ENVIRONMENT},
    )
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        for requests in batch["requests"]:
            add_requests(json.loads(str(requests)))
        for pair, *texts in zip(*(batch[name] for name in ("pair", "error", "details", "spent")), strict=True):
            error, details, spent = map(str, texts)
            result = BlockResult(int(pair), error or None, details, json.loads(spent))
            meter("predict", "failed" if result.error else "done", result.spent)
            yield result


def _pack(work: Sequence[BlockWork]) -> NDArray[np.int64]:
    """(block, 5): pair, row, column, a bit for each member, ensemble."""
    rows = (
        (item.pair, item.key.block_row, item.key.block_col, sum(1 << index for index in item.members), item.ensemble)
        for item in work
    )
    return np.fromiter(rows, np.dtype((np.int64, 5)), len(work))


class _Predictor:
    """An actor of the pool; networks are loaded when a block first needs them."""

    def __init__(self, plan: "ray.ObjectRef[RunPlan]", work: "ray.ObjectRef[NDArray[np.int64]]", do: DoBlock) -> None:
        self.plan: RunPlan = ray.get(plan)
        self.work: NDArray[np.int64] = ray.get(work)
        self.do = do
        self.forward = LoadedNetworks()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        rows = self.work[int(batch["first"][0]) : int(batch["stop"][0])]
        work = [_unpack(self.plan, row) for row in rows.tolist()]
        networks = Networks(self.forward, share_between(self.plan, work) if len(work) > 1 else {})
        for item in work:
            result = try_block(self.plan, item, networks, self.do)
            texts = {
                "error": result.error or "",
                "details": result.details,
                "spent": json.dumps(result.spent),
                "requests": json.dumps(take_requests()),
            }
            columns = {name: np.array([text], dtype=object) for name, text in texts.items()}
            yield {"pair": np.array([item.pair]), **columns}


def _unpack(plan: RunPlan, row: Sequence[int]) -> BlockWork:
    """What :func:`_pack` has packed of a block."""
    number, block_row, block_col, members, ensemble = row
    key = BlockKey(plan.pairs[number].pair_id, block_row, block_col)
    chosen = tuple(index for index in range(members.bit_length()) if members >> index & 1)
    return BlockWork(number, key, chosen, bool(ensemble))


def probe_batches(members: Sequence[Member], actors: Actors) -> Batches:
    """Find the batch of each member on one of the GPUs; see :func:`cdpipe.runs.members.probe_batch`."""
    remote = ray.remote(num_gpus=1, num_cpus=0, resources=actors.resources, memory=actors.memory)(probe_batch)
    found = ray.get([remote.remote(member) for member in members])
    return {batch_name(member): batch for member, batch in zip(members, found, strict=True)}
