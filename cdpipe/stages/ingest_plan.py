"""What an ingest has to do: which blocks of which pairs are missing, and how a pair ends."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cdpipe.errors import CdpipeError, InputError
from cdpipe.geo.grid import BlockKey
from cdpipe.geo.tilings import block_keys
from cdpipe.stages.ingest import IngestJob, create_pair_groups, discard_pair, finish_label, finish_pair, is_finished
from cdpipe.workspace.records import block_record, missing_blocks


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


def plan_blocks(jobs: Sequence[IngestJob]) -> list[BlockTask]:
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


def still_missing(job: IngestJob, task: BlockTask) -> BlockTask:
    """What an earlier attempt has left of a block."""
    planned, workspace = job.planned, job.workspace
    records = workspace.records("pairs", task.key.pair_id, planned.key)
    imagery = task.imagery and not block_record(records, task.key).is_file()
    label = task.label
    if label and planned.label_key is not None:
        label = not block_record(workspace.records("labels", task.key.pair_id, planned.label_key), task.key).is_file()
    return replace(task, imagery=imagery, label=label)


def end_pair(job: IngestJob) -> str | None:
    """Declare a pair whose blocks are stored finished, and so its label; why that cannot be, or None."""
    try:
        if not is_finished(job):
            create_pair_groups(job)  # what verification took away of them is put back
        finish_pair(job)
        if job.planned.label_key is not None:
            finish_label(job)
    except CdpipeError as error:
        if isinstance(error, InputError):
            discard_pair(job)
        return str(error)
    return None
