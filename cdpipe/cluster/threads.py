"""Prediction of blocks by threads of this process."""

import concurrent.futures
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from cdpipe.cluster.memory import keep_freed_memory
from cdpipe.prediction.networks import LoadedNetworks, Networks
from cdpipe.runs.blocks import BlockResult, DoBlock, do_block, in_runs, share_between, try_block
from cdpipe.runs.plan import BlockWork, RunPlan

BLOCKS_AT_ONCE = 3  # one is read and one written while the networks run on a third; each takes memory


def predict_in_threads(
    plan: RunPlan, work: Sequence[BlockWork], threads: int, do: DoBlock = do_block
) -> Iterator[BlockResult]:
    """Do the work, yielding each block's result as it comes.

    All threads run networks on patches of whichever blocks are at work, so that none idles at a block's end; each patch
    is computed once.

    Args:
        plan: The run.
        work: What is missing.
        threads: How many run networks.
        do: Called with each block.
    """
    keep_freed_memory()
    ordered, _ = in_runs(work, 1)
    blocks = ThreadPoolExecutor(min(BLOCKS_AT_ONCE, threads + 1), "cdpipe-block")
    patches = ThreadPoolExecutor(threads, "cdpipe-patches")
    loaded, shared = LoadedNetworks(), share_between(plan, ordered, patches)
    try:
        networks = Networks(loaded, shared)
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
