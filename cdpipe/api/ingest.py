"""The catalog's rasters and labels into the store."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster
from cdpipe.geo.grid import Grid
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import CatalogReport, check_catalog
from cdpipe.pairs.coregistration import (
    Correction,
    MeasureShift,
    describe_corrections,
    find_correction,
    known_corrections,
    remember_corrections,
)
from cdpipe.pairs.grouping import CATALOG, files_of, group_findings
from cdpipe.pairs.ingest import BlockTask, IngestJob, Outcome, end_pair, plan_blocks
from cdpipe.pairs.outlook import look_ahead
from cdpipe.pairs.plan import (
    PlannedPair,
    all_source_files,
    coregistration_key,
    known_hashes,
    plan_pairs,
    remember_hashes,
    source_files,
    stamp_before_hashing,
)
from cdpipe.pairs.shifts import Measured, recall_shifts, remember_shifts
from cdpipe.runs.run import Run, chosen_pairs, rounded
from cdpipe.store.tree import describe_store
from cdpipe.timing import add
from cdpipe.training.plan import needed_bands
from cdpipe.workspace.location import Location


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest from nothing would read and write.

    Attributes:
        pairs: How many pairs.
        blocks: How many blocks.
        bytes_in: Size of the source files.
        bytes_out: What is written at most, before compression.
        bytes_free: What is free where the workspace lies; None in object storage.
        seconds: How long that takes at the last measured rate; None where none was measured.
    """

    pairs: int
    blocks: int
    bytes_in: int
    bytes_out: int
    bytes_free: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did.

    Attributes:
        pairs: Pairs of the catalog that are in the store now.
        blocks: Blocks that were written for that.
        failures: Pairs that are not, with the reasons.
    """

    pairs: int
    blocks: int
    failures: dict[str, str]


def plan_ingest(
    run: Run, *, only_failed: bool = False, keep_going: bool = False, for_training: bool = False
) -> IngestPlan:
    """What :func:`ingest` would do in an empty workspace; only headers and labels are read.

    Args:
        run: The run.
        only_failed: Only pairs that failed last time.
        keep_going: Leave out pairs that the check finds unusable.
        for_training: Whether pairs without which nothing could be learned are a mistake.

    Raises:
        InputError: If the catalog or a pair has mistakes.
    """
    config, blocks, bytes_in, bytes_out = run.config, 0, 0, 0
    pairs = chosen_pairs(run, only_failed=only_failed)
    measure, _ = _recall(run, pairs, [])
    pairs = _usable(run, pairs, measure, keep_going=keep_going, for_training=for_training)
    for pair in pairs:
        before, after = (describe_raster(source.path, config.input) for source in (pair.before, pair.after))
        blocks += len(block_keys(pair.pair_id, before.grid.shape, config.align.block))
        bytes_in += sum(file.stat().size for file in source_files(pair, config))
        depth = len(pair.roles) * sum(np.dtype(info.dtype).itemsize for info in (before, after))
        bytes_out += before.grid.height * before.grid.width * (depth + (2 if pair.label else 1))
    rate = run.last_rate("ingest", "blocks")
    free = run.workspace.root.free_bytes()
    return IngestPlan(len(pairs), blocks, bytes_in, bytes_out, free, blocks / rate if rate else None)


@dataclass(frozen=True, slots=True)
class Follower:
    """What follows an ingest while it goes on.

    Attributes:
        order: Called once with all pairs; gives them in the order in which they are to be ingested.
        ended: Called with each pair that is in the store, or has failed, and whether it is the former.
        goes_on: Called now and then with the number of blocks that are left.
    """

    order: Callable[[Sequence[PlannedPair]], Sequence[PlannedPair]] = tuple
    ended: Callable[[PlannedPair, bool], None] = lambda _pair, _stored: None
    goes_on: Callable[[int], None] = lambda _left: None


ALONE = Follower()


def ingest(
    run: Run,
    *,
    only_failed: bool = False,
    keep_going: bool = False,
    for_training: bool = False,
    follower: Follower = ALONE,
) -> Ingested:
    """Ingest what is not in the store yet.

    Args:
        run: The run.
        only_failed: Only pairs that failed last time.
        keep_going: Leave out pairs that the check finds unusable.
        for_training: Whether pairs without which nothing could be learned are a mistake.
        follower: What follows it.

    Raises:
        InputError: If the check finds unusable pairs, which are not to be left out, or no pair is left.
    """
    with run.hold():
        pairs = chosen_pairs(run, only_failed=only_failed)
        measured: list[Measured] = []
        measure, stamps = _recall(run, pairs, measured)
        pairs = _usable(run, pairs, measure, keep_going=keep_going, for_training=for_training)
        with run.logged("ingest", {}) as figures:
            files = all_source_files(pairs, run.config)
            _hash_sources(run, pairs, files)
            hashes = known_hashes(run.workspace, files)
            # a file that was changed since the check has read it is another
            same = [path for path, stamp in stamps.items() if path in hashes and stamp == stamp_before_hashing(path)]
            remember_shifts(run.workspace, run.config, measured, {path: hashes[path] for path in same})
            if run.config.align.coregister == "auto":
                _coregister(run, pairs, hashes)
            planned, failed = plan_pairs(pairs, run.config, hashes, known_corrections(run.workspace))
            for pair_id, reason in failed.items():
                run.fail(pair_id, reason)
            jobs = [IngestJob(run.workspace, run.config, item) for item in follower.order(planned)]
            tasks = plan_blocks(jobs)
            done, spent = _ingest(run, jobs, tasks, follower)
            figures |= {"pairs": done, "blocks": len(tasks), "warnings": list(run.warnings), **rounded(spent)}
        describe_store(run.workspace)
        if not done:
            raise InputError("no pair could be ingested: " + run.sum_up_failures())
        return Ingested(done, len(tasks), dict(run.failures))


def _recall(run: Run, pairs: list[Pair], measured: list[Measured]) -> tuple[MeasureShift, dict[Location, Any]]:
    """What the check measures shifts with, and how the pairs' files on this machine are before it reads them."""
    try:
        files = all_source_files(pairs, run.config)
    except (InputError, OSError):  # which the check tells better
        files = []
    stamps = {path: stamp_before_hashing(path) for path in files if not path.far and path.is_file()}
    return recall_shifts(run.workspace, known_hashes(run.workspace, files), measured), stamps


def _usable(run: Run, pairs: list[Pair], measure: MeasureShift, *, keep_going: bool, for_training: bool) -> list[Pair]:
    """The pairs in which a check of headers and labels finds no mistake; what may be wrong with them is told."""
    with run.step("check: pairs", len(pairs)) as advance:
        report = check_catalog(run.config, pairs, needed_bands(run.config), lambda: advance(1, ""), measure=measure)
    files = files_of(pairs)
    warnings = [(pair.pair_id, text) for pair in report.pairs for text in pair.warnings]
    warnings += [(CATALOG, text) for text in (*report.warnings, *(() if for_training else report.problems))]
    run.warn([str(group) for group in group_findings(warnings, files)])
    bad = {pair.pair_id: pair.problems for pair in report.pairs if pair.problems}
    general = [*report.problems, *_hindrances(run, report)] if for_training else []
    if not bad and not general:
        return pairs
    usable = [pair for pair in pairs if pair.pair_id not in bad]
    if keep_going and usable and not general:
        for pair_id, problems in bad.items():
            run.fail(pair_id, "; ".join(problems))
        return usable
    found = [(pair.pair_id, problem) for pair in report.pairs for problem in pair.problems]
    lines = [*general, *map(str, group_findings(found, files))]
    if usable and not general:
        lines.append("mend them, or leave those pairs out with --keep-going")
    raise InputError("\n  ".join([f"{run.config.catalog}: {len(bad) + len(general)} problem(s)", *lines]))


def _hindrances(run: Run, report: CatalogReport) -> list[str]:
    """Why nothing could be learned of pairs in which there is no mistake."""
    if report.problems:
        return []
    try:
        look_ahead(run.config, report.pairs)
    except InputError as error:
        return [str(error)]
    return []


def _hash_sources(run: Run, pairs: list[Pair], files: list[Location]) -> None:
    """Hash those of the pairs' files that are not known; pairs of which one cannot be read are noted as failed."""
    known = known_hashes(run.workspace, files)
    unknown = [file for file in files if file not in known]
    if not unknown:
        return
    from cdpipe.cluster.ingest import hash_files
    from cdpipe.cluster.needs import asked_for_cpus
    from cdpipe.cluster.start import start_workers

    start_workers(run)
    hashes, unreadable = {}, {}
    with asked_for_cpus(run, "hash", len(unknown)), run.step("hash: files", len(unknown)) as advance:
        for path, hashed, reason in hash_files(unknown, lambda count: advance(count, "")):
            if hashed is None:
                unreadable[path] = reason
            else:
                hashes[path] = hashed
    remember_hashes(run.workspace, hashes)
    for pair in pairs if unreadable else ():
        for path in source_files(pair, run.config):
            if path in unreadable:
                run.fail(pair.pair_id, unreadable[path])


def _coregister(run: Run, pairs: Sequence[Pair], hashes: Mapping[Location, str]) -> None:
    """Decide on all pairs whose dates were not compared yet, remember that, and say what becomes of each pair.

    Pairs that cannot be compared are noted as failed; those of which a file's hash is missing are left out.
    """
    keys: dict[str, tuple[str, tuple[Pair, Grid, Config]]] = {}
    for pair in pairs:
        try:
            grid = describe_raster(pair.before.path, run.config.input).grid
            keys[pair.pair_id] = coregistration_key(pair, grid, run.config, hashes), (pair, grid, run.config)
        except InputError as error:
            run.fail(pair.pair_id, str(error))
    known = known_corrections(run.workspace)
    jobs = [(pair_id, job) for pair_id, (key, job) in keys.items() if key not in known]
    if jobs:
        known |= _find_corrections(run, jobs, {pair_id: key for pair_id, (key, _) in keys.items()})
    for line in describe_corrections({pair_id: known[key] for pair_id, (key, _) in keys.items() if key in known}):
        run.say(line)


def _find_corrections(
    run: Run, jobs: list[tuple[str, tuple[Pair, Grid, Config]]], keys: Mapping[str, str]
) -> dict[str, Correction]:
    from cdpipe.cluster.tasks import map_every_pair

    decided = map_every_pair(run, "coregister: pairs", "coregistration", lambda job: find_correction(*job), jobs)
    corrections = {keys[pair_id]: correction for pair_id, correction in decided.items()}
    remember_corrections(run.workspace, corrections)
    return corrections


def _ingest(
    run: Run, jobs: list[IngestJob], tasks: list[BlockTask], follower: Follower
) -> tuple[int, dict[str, float]]:
    """Ingest what is missing; the number of pairs that are in the store then, and what workers spent."""
    done, left, spent = 0, len(tasks), dict[str, float]()
    with _asked(run, len(tasks)), run.step("ingest: blocks", len(tasks)) as advance:

        def count(blocks: int, figures: Mapping[str, float]) -> None:
            nonlocal left
            left -= blocks
            advance(blocks, "")
            add(spent, figures)
            follower.goes_on(left)

        for outcome in _outcomes(jobs, tasks, count):
            follower.ended(outcome.job.planned, outcome.failure is None)
            if outcome.failure is None:
                done += 1
            else:
                run.fail(outcome.job.planned.pair.pair_id, outcome.failure, outcome.details)
    return done, spent


def _asked(run: Run, blocks: int) -> contextlib.AbstractContextManager[None]:
    """CPUs for the blocks, if there are any: Ray, which takes seconds to start, would have nothing to do else."""
    if not blocks:
        return contextlib.nullcontext()
    from cdpipe.cluster.needs import asked_for_cpus
    from cdpipe.cluster.start import start_workers

    start_workers(run)
    return asked_for_cpus(run, "ingest", blocks)


def _outcomes(
    jobs: list[IngestJob], tasks: list[BlockTask], count: Callable[[int, Mapping[str, float]], None]
) -> Iterable[Outcome]:
    if not tasks:
        return (Outcome(job, end_pair(job)) for job in jobs)
    from cdpipe.cluster.ingest import ingest_pairs

    return ingest_pairs(jobs, tasks, count)
