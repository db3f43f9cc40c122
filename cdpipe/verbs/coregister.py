"""Finds out by how much second dates are moved onto the first, for ``cdpipe ingest`` and ``cdpipe check``."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster
from cdpipe.geo.grid import Grid
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.coregistration import Correction, find_correction, known_corrections, remember_corrections
from cdpipe.pairs.plan import coregistration_key
from cdpipe.verbs.every_pair import map_every_pair
from cdpipe.verbs.session import Session


def coregister_pairs(session: Session, pairs: Sequence[Pair], hashes: Mapping[Path, str]) -> None:
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
