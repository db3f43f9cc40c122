"""Ingest by tasks: source files are hashed, then blocks are read and stored, a bounded number at a time."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cdpipe.cluster import spread
from cdpipe.cluster.memory import keep_freed_memory
from cdpipe.cluster.needs import following
from cdpipe.cluster.tasks import Background, describe_failure, failure_details, meter, run_bounded
from cdpipe.errors import InputError
from cdpipe.pairs.ingest import (
    BlockTask,
    IngestJob,
    Outcome,
    create_pair_groups,
    discard_pair,
    end_pair,
    ingest_block,
    still_missing,
)
from cdpipe.pairs.plan import Stamp, stamp_before_hashing
from cdpipe.timing import take
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.location import Location

Portion = tuple[BlockTask, ...]  # of one pair, at least one

# A task costs a millisecond or two, a block seconds: only very many blocks share tasks. What one of them stored stays
# stored when a later one kills the worker.
TASKS, MOST_BLOCKS_A_TASK = 10_000, 16
# Tasks that are handed to Ray before they can run: with fewer, workers wait for the driver between short ones.
LEAST_IN_FLIGHT = 64


def hash_files(
    paths: list[Location], progress: Callable[[int], None]
) -> Iterator[tuple[Location, tuple[str, Stamp] | None, str]]:
    """SHA-256 and earlier stamp of each file, or None and the reason where it cannot be read."""
    start = spread.starter(_hash_one, cpus=0.5)
    for path, result, error in run_bounded(start, paths, following(4, 4)):
        yield path, result, "" if error is None else f"{path}: {describe_failure(error)}"
        progress(1)


def _hash_one(path: Location) -> tuple[str, Stamp]:
    stamp = stamp_before_hashing(path)
    return path.sha256(), stamp


def do_block(job: IngestJob, task: BlockTask) -> None:
    """Ingest what is missing of a block; what an earlier attempt has stored already is left."""
    crash_point(f"ingest-begun {task.key.pair_id} {task.key.block_row}_{task.key.block_col}")
    create_pair_groups(job)
    left = still_missing(job, task)
    ingest_block(job, task.key, imagery=left.imagery, label=left.label)


def ingest_pairs(
    jobs: Sequence[IngestJob],
    tasks: Sequence[BlockTask],
    progress: Callable[[int, Mapping[str, float]], None],
    do: Callable[[IngestJob, BlockTask], None] = do_block,
    end: Callable[[IngestJob], str | None] = end_pair,
) -> Iterator[Outcome]:
    """Ingest what is missing; each pair is reported as soon as it is finished or has failed.

    Args:
        jobs: The pairs.
        tasks: What is missing, pair by pair; see :func:`cdpipe.pairs.ingest.plan_blocks`.
        progress: Called with the number of blocks just done and what was spent on them; see
            :mod:`cdpipe.timing`.
        do: Called in workers with a pair and a block of it.
        end: Called in a worker with a pair whose blocks are all done; gives the reason if it fails.

    Yields:
        What became of each pair.
    """
    left = Counter(task.pair for task in tasks)
    failed = dict[int, bool]()  # pairs, and whether their data are unusable
    shared: dict[int, Any] = {}
    start = spread.starter(_each(do))
    ending = Background(end)

    def submit(portion: Portion) -> Any:
        number = portion[0].pair
        if number not in shared:
            shared[number] = spread.shared(jobs[number])
        return start(shared[number], portion)

    portions = share_out(tasks)
    while portions:
        again: list[Portion] = []
        # a pair that has failed is not worth more work: its remaining blocks are dropped as they come up
        wanted = (portion for portion in portions if portion[0].pair not in failed)
        for portion, spent, error in run_bounded(submit, wanted, following(LEAST_IN_FLIGHT)):
            number = portion[0].pair
            if error is not None and len(portion) > 1:
                again += [(task,) for task in portion]  # one by one, to know which it is
                continue
            progress(len(portion), spent or {})
            meter("ingest", "done" if error is None else "failed", spent or {})
            left[number] -= len(portion)
            if error is not None and number not in failed:
                failed[number] = isinstance(getattr(error, "cause", error), InputError)
                key = portion[0].key
                reason = f"block {key.block_row},{key.block_col}: {describe_failure(error)}"
                yield Outcome(jobs[number], reason, failure_details(error))
            if not left[number] and number not in failed:
                ending.start(number, shared.pop(number))
            yield from _ended(jobs, ending, wait=False)
        portions = again
    for number in filter(failed.get, failed):  # only now does nobody write to them
        discard_pair(jobs[number])
    yield from _ended(jobs, ending, wait=True)
    yield from (Outcome(job, end(job)) for number, job in enumerate(jobs) if number not in left)


def share_out(tasks: Sequence[BlockTask]) -> list[Portion]:
    """Blocks in the portions that are a Ray task each: one block, or where there are very many several of a pair."""
    most = max(1, min(len(tasks) // TASKS, MOST_BLOCKS_A_TASK))
    pairs = (tuple(own) for _, own in itertools.groupby(tasks, key=lambda task: task.pair))
    return [own[first : first + most] for own in pairs for first in range(0, len(own), most)]


def _each(do: Callable[[IngestJob, BlockTask], None]) -> Callable[[IngestJob, Portion], dict[str, float]]:
    def do_portion(job: IngestJob, portion: Portion) -> dict[str, float]:
        keep_freed_memory()
        take()
        for task in portion:
            do(job, task)
        return take()

    return do_portion


def _ended(jobs: Sequence[IngestJob], ending: Background, *, wait: bool) -> Iterator[Outcome]:
    for number, reason, failure in ending.collect(wait=wait):
        yield Outcome(jobs[number], reason or failure)
