"""One block through a detector, which needs no training: it finds out from the pair itself what to look for."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.detect import HALO, Fit, Lattice, change_probability, fit_detector, sample, sample_step
from cdpipe.detectors.neighbours import MARGIN
from cdpipe.geo.grid import BlockKey
from cdpipe.geo.tilings import grow
from cdpipe.prediction.block import Member, probability_key, store_probability
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.timing import timed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import read_record, write_record

FIT = "fit.json"  # the record of what a detector found out, beside those of its blocks


def fit_record(workspace: Workspace, pair: StoredPair, member: Member) -> Location:
    """File of the record of what a detector found out about a pair."""
    return workspace.records("probabilities", pair.pair_id, probability_key(pair.key, member)) / FIT


def known_fit(workspace: Workspace, pair: StoredPair, member: Member) -> Fit | None:
    """What a detector found out about a pair, None where that is not recorded."""
    record = read_record(fit_record(workspace, pair, member))
    return None if record is None else _from_facts(record.facts)


def find_fit(workspace: Workspace, pair: StoredPair, member: Member) -> Fit:
    """What a detector finds out about a pair, recorded: the same bytes whoever does it.

    Raises:
        InputError: If there is nothing to compare; see :func:`cdpipe.detectors.detect.fit_detector`.
    """
    known = known_fit(workspace, pair, member)
    if known is not None:
        return known
    with timed("compute"):
        fit = fit_pair(workspace, pair, member.card.architecture)
    write_record(fit_record(workspace, pair, member), workspace.root, {}, asdict(fit))
    return fit


def fit_pair(workspace: Workspace, pair: StoredPair, detector: str) -> Fit:
    """Look at a stored pair, block by block, and find out how to compare its dates.

    Raises:
        InputError: If there is nothing to compare.
    """
    step = sample_step(pair.moments["common"][0].count)
    shape = tuple(-(-length // step) for length in pair.grid.shape)
    bands = len(pair.roles)
    whole = Lattice(
        np.zeros((bands, *shape), np.float32), np.zeros((bands, *shape), np.float32), np.zeros(shape, np.bool_)
    )
    for key in pair.blocks():
        window = pair.window(key)
        rows, cols = (
            slice(-(-first // step), -(-stop // step))
            for first, stop in ((window.row, window.stop_row), (window.col, window.stop_col))
        )
        held = grow(window, MARGIN, pair.grid.shape)
        observed = read_observed(workspace, pair, held)
        if not observed.any():
            continue
        part = sample(read_dates(workspace, pair, held), observed, step, (window, held))
        whole.before[:, rows, cols], whole.after[:, rows, cols], whole.seen[rows, cols] = (
            part.before,
            part.after,
            part.seen,
        )
    opposite = np.sign(pair.units[0][0]) != np.sign(pair.units[1][0])
    return fit_detector(detector, whole.pixels, pair.roles, step=step, opposite=bool(opposite))


def detect_block(workspace: Workspace, pair: StoredPair, key: BlockKey, member: Member) -> NDArray[np.float32]:
    """Compute and store one block of one detector's probability.

    Args:
        workspace: Where the pair lies and the result goes.
        pair: The pair.
        key: The block.
        member: The detector.

    Returns:
        What was stored: (height, width), NaN where not observed.

    Raises:
        InputError: If there is nothing to compare in the pair.
    """
    fit, window = find_fit(workspace, pair, member), pair.window(key)
    halo = grow(window, HALO, pair.grid.shape)
    inner = window.slices_in(halo)
    with timed("read"):
        observed = read_observed(workspace, pair, halo)
        dates = read_dates(workspace, pair, halo) if observed[inner].any() else None
    if dates is None:
        probability = np.full(window.shape, np.nan, np.float32)
    else:
        chosen = [pair.roles.index(band) for band in fit.bands]
        with timed("compute"):
            probability = change_probability(fit, dates[0][chosen], dates[1][chosen], observed)[inner]
    store_probability(workspace, pair, key, member, probability)
    return probability


def _from_facts(facts: dict[str, Any]) -> Fit:
    """A fit as it was before JSON made lists of tuples."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return Fit(**{name: frozen(value) for name, value in facts.items()})
