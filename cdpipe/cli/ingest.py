"""``cdpipe ingest``: the catalog's rasters and labels into the store."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from cdpipe.cli.console import duration, free_text, progress, size
from cdpipe.cli.session import Session, chosen_pairs, last_rate, logged, map_every_pair, rounded
from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster
from cdpipe.geo.grid import Grid
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_catalog
from cdpipe.pairs.coregistration import Correction, find_correction, known_corrections, remember_corrections
from cdpipe.pairs.ingest import BlockTask, IngestJob, Outcome, end_pair, plan_blocks
from cdpipe.pairs.plan import coregistration_key, known_hashes, plan_pairs, remember_hashes, source_files
from cdpipe.timing import add
from cdpipe.training.plan import needed_bands
from cdpipe.workspace.location import Location

# Finds out by how much second dates are moved onto the first, for ``cdpipe ingest`` and ``cdpipe check``.


def coregister_pairs(session: Session, pairs: Sequence[Pair], hashes: Mapping[Location, str]) -> None:
    """Decide on all pairs whose dates were not compared yet, remember that, and say what becomes of each pair.

    Pairs that cannot be compared are noted as failed.

    Args:
        session: The session.
        pairs: The pairs.
        hashes: SHA-256 of their files; pairs of which one is missing are left out.
    """
    keys: dict[str, tuple[str, tuple[Pair, Grid, Config]]] = {}
    for pair in pairs:
        try:
            grid = describe_raster(pair.before.path, session.config.input).grid
            keys[pair.pair_id] = coregistration_key(pair, grid, session.config, hashes), (pair, grid, session.config)
        except InputError as error:
            session.fail(pair.pair_id, str(error))
    known = known_corrections(session.workspace)
    jobs = [(pair_id, job) for pair_id, (key, job) in keys.items() if key not in known]
    if jobs:
        known |= _find(session, jobs, {pair_id: key for pair_id, (key, _) in keys.items()})
    decided = {pair_id: known[key] for pair_id, (key, _) in keys.items() if key in known}
    for line in describe_corrections(decided):
        session.say(line)


def _find(
    session: Session, jobs: list[tuple[str, tuple[Pair, Grid, Config]]], keys: Mapping[str, str]
) -> dict[str, Correction]:
    decided = map_every_pair(session, "coregister: pairs", "coregistration", lambda job: find_correction(*job), jobs)
    found = {keys[pair_id]: correction for pair_id, correction in decided.items()}
    remember_corrections(session.workspace, found)
    return found


def describe_corrections(decided: Mapping[str, Correction]) -> Iterable[str]:
    """A line for each pair that does not lie well, and one for all."""
    moved = sum(each.moved for each in decided.values())
    for pair_id, each in decided.items():
        if not each.reason.startswith("lies well"):
            yield f"coregister: {pair_id} {'is moved' if each.moved else 'is left as it is'}: {each.reason}"
    yield f"coregister: {moved} of {len(decided)} pair(s) are moved"


def run(session: Session, *, for_training: bool = False) -> None:
    """Ingest what is not in the store yet.

    Args:
        session: The session.
        for_training: Whether pairs without which nothing could be learned are a mistake.

    Raises:
        InputError: If the check finds unusable pairs and the session does not keep going, or no pair is left.
    """
    pairs = _usable(session, chosen_pairs(session), for_training=for_training)
    if session.dry_run:
        _show_plan(session, pairs)
        return
    with logged(session, "ingest", {}) as figures:
        _hash_sources(session, pairs)
        hashes = known_hashes(session.workspace, [file for pair in pairs for file in source_files(pair)])
        if session.config.align.coregister == "auto":
            coregister_pairs(session, pairs, hashes)
        planned, failed = plan_pairs(pairs, session.config, hashes, known_corrections(session.workspace))
        for pair_id, reason in failed.items():
            session.fail(pair_id, reason)
        jobs = [IngestJob(session.workspace, session.config, item) for item in planned]
        tasks = plan_blocks(jobs)
        done, spent = _ingest(session, jobs, tasks)
        figures |= {"pairs": done, "blocks": len(tasks), **rounded(spent)}
    if not done:
        raise InputError("no pair could be ingested: " + "; ".join(session.failures.values()))
    session.say(f"ingest: {done} pair(s) in {session.workspace.root / 'store.zarr'}, {len(tasks)} block(s) written now")


def _ingest(session: Session, jobs: list[IngestJob], tasks: list[BlockTask]) -> tuple[int, dict[str, float]]:
    """Ingest what is missing; the number of pairs that are in the store then, and what workers spent."""
    done, spent = 0, dict[str, float]()
    with progress(session.console, "ingest: blocks", len(tasks)) as advance:

        def count(blocks: int, figures: Mapping[str, float]) -> None:
            advance(blocks, "")
            add(spent, figures)

        for outcome in _outcomes(session, jobs, tasks, count):
            if outcome.failure is None:
                done += 1
            else:
                session.fail(outcome.job.planned.pair.pair_id, outcome.failure, outcome.details)
    return done, spent


def _outcomes(
    session: Session,
    jobs: list[IngestJob],
    tasks: list[BlockTask],
    count: Callable[[int, Mapping[str, float]], None],
) -> Iterable[Outcome]:
    if not tasks:  # Ray, which takes seconds to start, would have nothing to do
        return (Outcome(job, end_pair(job)) for job in jobs)
    session.start_ray()
    from cdpipe.cluster.ingest import ingest_pairs

    return ingest_pairs(jobs, tasks, count)


def _usable(session: Session, pairs: list[Pair], *, for_training: bool) -> list[Pair]:
    """The pairs in which a check of headers and labels finds no mistake."""
    with progress(session.console, "check: pairs", len(pairs)) as advance:
        report = check_catalog(session.config, pairs, needed_bands(session.config), lambda: advance(1, ""))
    bad = {each.pair_id: each.problems for each in report.pairs if each.problems}
    general = list(report.problems) if for_training else []
    if not bad and not general:
        return pairs
    usable = [pair for pair in pairs if pair.pair_id not in bad]
    if session.keep_going and usable and not general:
        for pair_id, found in bad.items():
            session.fail(pair_id, "; ".join(found))
        return usable
    lines = [*general, *(f"pair {pair_id}: {problem}" for pair_id, found in bad.items() for problem in found)]
    if usable and not general:
        lines.append("mend them, or leave those pairs out with --keep-going")
    raise InputError("\n  ".join([f"{session.config.catalog}: {len(bad) + len(general)} problem(s)", *lines]))


def _hash_sources(session: Session, pairs: list[Pair]) -> None:
    files = list(dict.fromkeys(file for pair in pairs for file in source_files(pair)))
    known = known_hashes(session.workspace, files)
    unknown = [file for file in files if file not in known]
    if not unknown:
        return
    session.start_ray()
    from cdpipe.cluster.ingest import hash_files

    found, unreadable = {}, {}
    with progress(session.console, "hash: files", len(unknown)) as advance:
        for path, hashed, reason in hash_files(unknown, lambda count: advance(count, "")):
            if hashed is None:
                unreadable[path] = reason
            else:
                found[path] = hashed
    remember_hashes(session.workspace, found)
    for pair in pairs:
        for path in source_files(pair):
            if path in unreadable:
                session.fail(pair.pair_id, unreadable[path])


def _show_plan(session: Session, pairs: list[Pair]) -> None:
    """What an ingest from nothing would read and write."""
    blocks = bytes_in = bytes_out = 0
    for pair in pairs:
        before, after = (describe_raster(source.path, session.config.input) for source in (pair.before, pair.after))
        blocks += len(block_keys(pair.pair_id, before.grid.shape, session.config.align.block))
        bytes_in += sum(file.stat().size for file in source_files(pair))
        depth = len(pair.roles) * sum(np.dtype(info.dtype).itemsize for info in (before, after)) + (
            2 if pair.label else 1
        )
        bytes_out += before.grid.height * before.grid.width * depth
    free = session.workspace.root.free_bytes()
    rate = last_rate(session, "ingest", "blocks")
    session.say(f"ingest: {len(pairs)} pair(s), {blocks} block(s) of {session.config.align.block} pixels")
    session.say(f"  reads {size(bytes_in)}, writes at most {size(bytes_out)} before compression{free_text(free)}")
    session.say(f"  time: {duration(blocks / rate)} at the last measured rate" if rate else "  time: not measured yet")
