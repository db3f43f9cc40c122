"""Ingest on Ray tasks: source files are hashed, then blocks are read and stored, a bounded number at a time."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cdpipe.distributed.cluster import describe_failure, failure_details, run_bounded, total_cpus
from cdpipe.formats.records import missing_blocks
from cdpipe.formats.sources import stamp_before_hashing
from cdpipe.formats.workspace import hash_file
from cdpipe.stages.ingest import (
    IngestJob,
    create_pair_groups,
    discard_pair,
    finish_label,
    finish_pair,
    ingest_block,
    is_finished,
)
from cdpipe.values.crash import crash_point
from cdpipe.values.errors import CdpipeError, InputError
from cdpipe.values.grid import BlockKey
from cdpipe.values.windows import block_keys

RETRIES = 3  # of a worker that is lost (killed, out of memory); an error in the data is not tried again


@dataclass(frozen=True, slots=True)
class BlockTask:
    """A block with what is missing of it."""

    pair: int
    key: BlockKey
    imagery: bool
    label: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a pair: why it failed (None if it did not), and a traceback if the reason is not plain."""

    job: IngestJob
    failure: str | None = None
    details: str = ""


def hash_files(
    paths: list[Path], progress: Callable[[int], None]
) -> Iterator[tuple[Path, tuple[str, list[int]] | None, str]]:
    """SHA-256 and earlier stamp of each file, or None and the reason where it cannot be read."""
    remote = ray.remote(num_cpus=0.5, max_retries=RETRIES)(_hash_one)
    for path, result, error in run_bounded(remote.remote, paths, 4 * total_cpus()):
        yield path, result, "" if error is None else f"{path}: {describe_failure(error)}"
        progress(1)


def _hash_one(path: Path) -> tuple[str, list[int]]:
    stamp = stamp_before_hashing(path)
    return hash_file(path), stamp


def plan_blocks(jobs: list[IngestJob]) -> list[BlockTask]:
    """All blocks of which something is not stored yet, in the order of pairs; records are listed once."""
    tasks = []
    for number, job in enumerate(jobs):
        planned = job.planned
        keys = block_keys(planned.pair.pair_id, planned.grid.shape, job.config.align.block)
        imagery = set(missing_blocks(job.workspace.records("pairs", planned.pair.pair_id, planned.key), keys))
        label: set[BlockKey] = set()
        if planned.label_key is not None:
            folder = job.workspace.records("labels", planned.pair.pair_id, planned.label_key)
            label = set(missing_blocks(folder, keys))
        tasks += [BlockTask(number, key, key in imagery, key in label) for key in keys if key in imagery | label]
    return tasks


def ingest_pairs(jobs: list[IngestJob], tasks: list[BlockTask], progress: Callable[[int], None]) -> Iterator[Outcome]:
    """Ingest what is missing; each pair is reported as soon as it is finished or has failed.

    Args:
        jobs: The pairs.
        tasks: See :func:`plan_blocks`.
        progress: Called with the number of blocks just done.

    Yields:
        What became of each pair.
    """
    left = Counter(task.pair for task in tasks)
    failed, unusable = set[int](), set[int]()
    for number, job in enumerate(jobs):
        if number in left or not is_finished(job):
            create_pair_groups(job)
        if number not in left:
            yield _finish(job)
    if not tasks:
        return
    shared = {number: ray.put(jobs[number]) for number in left}

    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_run_task)

    def submit(task: BlockTask) -> Any:
        return remote.remote(shared[task.pair], task)

    # a pair that has failed is not worth more work: its remaining blocks are dropped as they come up
    wanted = (task for task in tasks if task.pair not in failed)
    for task, _, error in run_bounded(submit, wanted, 2 * total_cpus()):
        progress(1)
        left[task.pair] -= 1
        if error is not None and task.pair not in failed:
            failed.add(task.pair)
            unusable |= {task.pair} if isinstance(getattr(error, "cause", error), InputError) else set()
            reason = f"block {task.key.block_row},{task.key.block_col}: {describe_failure(error)}"
            yield Outcome(jobs[task.pair], reason, failure_details(error))
        if not left[task.pair] and task.pair not in failed:
            yield _finish(jobs[task.pair])
    for number in unusable:  # only now does nobody write to them
        discard_pair(jobs[number])


def _run_task(job: IngestJob, task: BlockTask) -> None:
    crash_point(f"ingest-begun {task.key.pair_id} {task.key.block_row}_{task.key.block_col}")
    ingest_block(job, task.key, imagery=task.imagery, label=task.label)


def _finish(job: IngestJob) -> Outcome:
    try:
        finish_pair(job)
        if job.planned.label_key is not None:
            finish_label(job)
    except CdpipeError as error:
        if isinstance(error, InputError):
            discard_pair(job)
        return Outcome(job, str(error))
    return Outcome(job)
