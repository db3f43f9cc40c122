"""Ingests pairs: which blocks are missing, a block and its label from rasters into the store, and how a pair ends.

Statistics are exact: every block records sums that its pair adds up without rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.errors import CdpipeError, InputError, IntegrityError
from cdpipe.geo.grid import BlockKey, Window
from cdpipe.geo.tilings import block_keys, block_window
from cdpipe.metrics.classes import CHANGED, IGNORE
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.labels import count_cells, read_label
from cdpipe.pairs.plan import PlannedPair
from cdpipe.store.arrays import cell_window, write_block
from cdpipe.store.groups import LABEL_ARRAYS, create_group, finish_group, pair_arrays
from cdpipe.store.histograms import Histogram, Quantiles, count_values, from_json, merge, quantiles, to_json
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, StoredPair, load_pair, read_observed
from cdpipe.store.statistics import Moments, measure, no_pixels
from cdpipe.timing import timed
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Kind, Workspace
from cdpipe.workspace.records import (
    GROUP_RECORD,
    Record,
    all_records,
    block_record,
    missing_blocks,
    read_record,
    write_record,
)


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What a worker needs to ingest any block of a pair."""

    workspace: Workspace
    config: Config
    planned: PlannedPair


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


def is_finished(job: IngestJob) -> bool:
    """Whether the pair, and its label if it has one, are recorded as finished."""
    planned, workspace = job.planned, job.workspace
    groups: list[tuple[Kind, str | None]] = [("pairs", planned.key), ("labels", planned.label_key)]
    return all(
        read_record(workspace.records(kind, planned.pair.pair_id, key) / GROUP_RECORD) is not None
        for kind, key in groups
        if key is not None
    )


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


def create_pair_groups(job: IngestJob) -> None:
    """Make the empty arrays of a pair and of its label, where they are not there yet."""
    planned, block = job.planned, job.config.align.block
    pair = planned.pair
    attributes = {
        "bands": list(pair.roles),
        "dates": [pair.before_date, pair.after_date],
        "sensors": [pair.before.sensor_name, pair.after.sensor_name],
        "sources": planned.sources,
        **({"coregistration": planned.correction.to_json()} if planned.correction else {}),
    }
    group = job.workspace.group("pairs", pair.pair_id, planned.key)
    create_group(group, pair_arrays(pair.roles, *planned.dtypes), planned.grid, block, attributes)
    if planned.label_key is not None:
        group = job.workspace.group("labels", pair.pair_id, planned.label_key)
        create_group(group, LABEL_ARRAYS, planned.grid, block, {"pair": planned.key})


def ingest_block(job: IngestJob, key: BlockKey, *, imagery: bool, label: bool) -> None:
    """Read, align, measure, store and record one block; of imagery, of its label, or both.

    Args:
        job: The pair.
        key: The block.
        imagery: Whether to ingest both dates.
        label: Whether to ingest the label; the imagery of the block must be stored by then.
    """
    if imagery:
        _ingest_imagery(job, key)
    if label:
        _ingest_label(job, key)


def _ingest_imagery(job: IngestJob, key: BlockKey) -> None:
    planned = job.planned
    window = block_window(key, planned.grid.shape, job.config.align.block)
    group = job.workspace.group("pairs", key.pair_id, planned.key)
    stored, masks = [], []
    valid = np.zeros(window.shape, np.uint8)
    dates = {}
    pair = planned.pair
    moved = (planned.correction.rows, planned.correction.cols) if planned.correction else (0.0, 0.0)
    for date, bit, source, mask, shift in (
        ("before", BEFORE_BIT, pair.before, pair.before_valid, (0.0, 0.0)),
        ("after", AFTER_BIT, pair.after, pair.after_valid, moved),
    ):
        with timed("read"):
            values, observed = read_on_grid(source, mask, planned.grid, window, job.config, shift)
        with timed("write"):
            stored.append(write_block(group, date, window, values))
        valid |= np.where(observed, bit, np.uint8(0))
        dates[date] = values
        masks.append(observed)
    with timed("write"):
        stored.append(write_block(group, "valid", window, valid))
    facts = _measure(tuple(dates.values()), masks, window)
    records = job.workspace.records("pairs", key.pair_id, planned.key)
    with timed("write"):
        write_record(block_record(records, key), job.workspace.root, dict(stored), facts)


def _measure(dates: Sequence[NDArray[Any]], masks: Sequence[NDArray[np.bool_]], window: Window) -> dict[str, Any]:
    """Moments and histograms of a block, of the pixels observed at each date and at both."""
    common = masks[0] & masks[1]
    facts: dict[str, Any] = {"per_date": [], "common": [], "histograms": {"per_date": [], "common": []}}
    for values, mask in zip(dates, masks, strict=True):
        both = measure(values, common, window).to_json(), to_json(count_values(values, common))
        own: tuple[Any, Any] = both[0], None  # of pixels that are the same ones, histograms are kept once
        if not np.array_equal(mask, common):
            own = measure(values, mask, window).to_json(), to_json(count_values(values, mask))
        for name, (moments, histograms) in (("per_date", own), ("common", both)):
            facts[name].append(moments)
            facts["histograms"][name].append(histograms)
    return facts


def _ingest_label(job: IngestJob, key: BlockKey) -> None:
    planned, workspace = job.planned, job.workspace
    if planned.pair.label is None or planned.label_key is None:
        raise ValueError(f"{key}: the pair has no label")
    stored_pair = _as_stored(job)
    window = stored_pair.window(key)
    with timed("read"):
        label = read_label(planned.pair.label, planned.grid, window, job.config)
    counted = np.where(read_observed(workspace, stored_pair, window), label, np.uint8(IGNORE))
    cells = np.stack([count_cells(counted != IGNORE), count_cells(counted == CHANGED)])
    group = workspace.group("labels", key.pair_id, planned.label_key)
    facts = {"valid": int(cells[0].sum(dtype=np.int64)), "changed": int(cells[1].sum(dtype=np.int64))}
    records = workspace.records("labels", key.pair_id, planned.label_key)
    with timed("write"):
        stored = [
            write_block(group, "label", window, label),
            write_block(group, "cells", cell_window(window), cells),
        ]
        write_record(block_record(records, key), workspace.root, dict(stored), facts)


def _as_stored(
    job: IngestJob,
    moments: dict[str, tuple[Moments, Moments]] | None = None,
    levels: dict[str, tuple[tuple[Quantiles, ...], tuple[Quantiles, ...]]] | None = None,
) -> StoredPair:
    """The pair as it will lie in the store."""
    planned, config = job.planned, job.config
    before, after = planned.pair.before.sensor, planned.pair.after.sensor
    return StoredPair(
        planned.pair.pair_id,
        planned.key,
        planned.grid,
        config.align.block,
        planned.pair.roles,
        ((before.scale, before.offset), (after.scale, after.offset)),
        moments or {},
        levels or {},
    )


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


def finish_pair(job: IngestJob) -> StoredPair:
    """Merge the blocks' statistics and declare the pair finished.

    Raises:
        InputError: If no pixel is observed at both dates.
        IntegrityError: If a block's record is damaged.
    """
    planned, workspace = job.planned, job.workspace
    done = load_pair(workspace, planned.pair.pair_id, planned.key)
    if done is not None:
        return done
    records = workspace.records("pairs", planned.pair.pair_id, planned.key)
    facts = [_intact(record, records).facts for path, record in all_records(records) if path.name != GROUP_RECORD]
    moments = {name: _merge([fact[name] for fact in facts], len(planned.pair.roles)) for name in ("common", "per_date")}
    if not moments["common"][0].count:
        raise InputError(
            f"pair {planned.pair.pair_id}: no pixel is observed at both dates; "
            "check nodata in the sensor's config, the valid rasters, and that the dates overlap"
        )
    levels = {name: _quantiles(facts, name, planned.dtypes) for name in moments}
    pair = _as_stored(job, moments, levels)
    crash_point("pair-unfinished")
    finish_group(workspace, "pairs", pair.pair_id, pair.key, pair.to_json())
    return pair


def finish_label(job: IngestJob) -> None:
    """Declare a pair's label finished, with how many of its pixels are labelled and observed, and how many changed.

    Raises:
        IntegrityError: If a block's record is damaged.
    """
    planned, workspace = job.planned, job.workspace
    if planned.label_key is None:
        raise ValueError(f"{planned.pair.pair_id}: the pair has no label")
    records = workspace.records("labels", planned.pair.pair_id, planned.label_key)
    if read_record(records / GROUP_RECORD) is not None:
        return
    facts = [_intact(record, records).facts for path, record in all_records(records) if path.name != GROUP_RECORD]
    totals = {name: sum(int(fact[name]) for fact in facts) for name in ("valid", "changed")}
    finish_group(workspace, "labels", planned.pair.pair_id, planned.label_key, totals)


def _intact(record: Record | None, folder: Any) -> Record:
    if record is None:
        raise IntegrityError(f"{folder}: a block's record is damaged; run cdpipe verify, then ingest again")
    return record


def _merge(dates: list[list[dict[str, Any]]], bands: int) -> tuple[Moments, Moments]:
    """Sum of the blocks' moments, for each date."""
    before, after = (sum((Moments.from_json(date[i]) for date in dates), no_pixels(bands)) for i in (0, 1))
    return before, after


def _quantiles(
    facts: list[dict[str, Any]], name: str, dtypes: tuple[str, str]
) -> tuple[tuple[Quantiles, ...], tuple[Quantiles, ...]]:
    """Quantiles of each band of each date, from the blocks' histograms."""
    before, after = (
        tuple(quantiles(merge(bands), np.dtype(dtype)) for bands in zip(*blocks, strict=True))
        for blocks, dtype in ((_histograms(facts, name, date), dtype) for date, dtype in enumerate(dtypes))
    )
    return before, after


def _histograms(facts: list[dict[str, Any]], name: str, date: int) -> list[tuple[Histogram, ...]]:
    found = (fact["histograms"][name][date] or fact["histograms"]["common"][date] for fact in facts)
    return [from_json(value) for value in found]


def discard_pair(job: IngestJob) -> None:
    """Remove what lies in the store of a pair that turned out to be unusable; what was finished before stays."""
    pair_id, workspace = job.planned.pair.pair_id, job.workspace
    keys: tuple[tuple[Kind, str | None], ...] = (("pairs", job.planned.key), ("labels", job.planned.label_key))
    for kind, key in keys:
        if key is None or (workspace.records(kind, pair_id, key) / GROUP_RECORD).is_file():
            continue
        # records first: without them, blocks that are left over count for nothing
        for folder in (workspace.records(kind, pair_id, key), workspace.group(kind, pair_id, key)):
            folder.remove_tree()
            folder.parent.sweep()
            folder.parent.remove_empty()  # but for other results of the pair
