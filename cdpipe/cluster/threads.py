"""Prediction of blocks by threads of this process."""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cdpipe.cluster.memory import give_back_memory, keep_freed_memory
from cdpipe.inference.patches import Forward
from cdpipe.prediction.networks import LoadedNetworks, Networks
from cdpipe.runs.blocks import BlockResult, DoBlock, do_block, in_runs, share_between, try_block
from cdpipe.runs.plan import BlockWork, RunPlan

Ran = Callable[[int], None]

BLOCKS_AT_ONCE = 3  # one is read and one written while the networks run on a third; each takes memory


def tell_nobody(_patches: int) -> None:
    """Where nobody asks how many patches are done."""


def predict_in_threads(
    plan: RunPlan, work: Sequence[BlockWork], threads: int, do: DoBlock = do_block, ran: Ran = tell_nobody
) -> Iterator[BlockResult]:
    """Do the work, yielding each block's result as it comes.

    All threads run networks on patches of whichever blocks are at work, so that none idles at a block's end; each patch
    is computed once.

    Args:
        plan: The run.
        work: What is missing.
        threads: How many run networks.
        do: Called with each block.
        ran: Called by any thread with the number of patches that it has just run a network on.
    """
    keep_freed_memory()
    ordered, _ = in_runs(work, 1)
    blocks = ThreadPoolExecutor(min(BLOCKS_AT_ONCE, threads + 1), "cdpipe-block")
    patches = ThreadPoolExecutor(threads, "cdpipe-patches")
    loaded, shared = LoadedNetworks(), share_between(plan, ordered, patches)
    try:
        networks = Networks(lambda member: _telling(loaded(member), ran), shared)
        tasks = [blocks.submit(try_block, plan, item, networks, do) for item in ordered]
        for task in concurrent.futures.as_completed(tasks):
            yield task.result()
    finally:
        # what is not begun is dropped; a block that waits for its patches then fails, and is done again next time
        patches.shutdown(wait=True, cancel_futures=True)
        for each in shared.values():
            each.give_up()
        blocks.shutdown(wait=True, cancel_futures=True)
        loaded.release()
        give_back_memory()


def _telling(forward: Forward, ran: Ran) -> Forward:
    def forward_and_tell(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        probabilities = forward(patches)
        ran(len(patches))
        return probabilities

    return forward_and_tell
