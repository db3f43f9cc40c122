"""Detectors on stored pairs: what they find out about one, recorded, and what they say of a window of it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.detect import HALO, Fit, Lattice, change_probability, compared, fit_detector, sample, sample_step
from cdpipe.detectors.neighbours import MARGIN
from cdpipe.errors import InputError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import grow
from cdpipe.keys import content_key
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.timing import timed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import read_record, write_record

FIT = "fit.json"  # the record of what a detector found out, beside those of its blocks


def detector_key(pair_key: str, detector: str, bands: Sequence[str] = ()) -> str:
    """Key of what a detector says about a pair of which it compares these bands, or all."""
    parts: dict[str, Any] = {"pair": pair_key, "model": content_key("detector", {"detector": detector})}
    return content_key("probability", {**parts, **({"bands": list(bands)} if bands else {})})


def fit_record(workspace: Workspace, pair: StoredPair, detector: str, bands: Sequence[str]) -> Location:
    """File of the record of what a detector found out about a pair."""
    some = () if tuple(bands) == tuple(pair.roles) else bands
    return workspace.records("probabilities", pair.pair_id, detector_key(pair.key, detector, some)) / FIT


def known_fit(workspace: Workspace, pair: StoredPair, detector: str, bands: Sequence[str]) -> Fit | None:
    """What a detector found out about a pair, None where that is not recorded."""
    record = read_record(fit_record(workspace, pair, detector, bands))
    return None if record is None else _from_facts(record.facts)


def find_fit(workspace: Workspace, pair: StoredPair, detector: str, bands: Sequence[str]) -> Fit:
    """What a detector finds out about a pair, recorded: the same bytes whoever does it.

    Args:
        workspace: Where the pair lies.
        pair: The pair.
        detector: One of ``DETECTORS``.
        bands: Names of the pair's bands that it compares.

    Raises:
        InputError: If there is nothing to compare; see :func:`cdpipe.detectors.detect.fit_detector`.
    """
    known = known_fit(workspace, pair, detector, bands)
    if known is not None:
        return known
    with timed("compute"):
        fit = fit_pair(workspace, pair, detector, bands)
    write_record(fit_record(workspace, pair, detector, bands), workspace.root, {}, asdict(fit))
    return fit


def fit_pair(workspace: Workspace, pair: StoredPair, detector: str, bands: Sequence[str]) -> Fit:
    """Look at a stored pair, block by block, and find out how to compare its dates.

    Args:
        workspace: Where it lies.
        pair: The pair.
        detector: One of ``DETECTORS``.
        bands: Names of the pair's bands that it compares.

    Raises:
        InputError: If there is nothing to compare.
    """
    step = sample_step(pair.moments["common"][0].count)
    chosen = [pair.roles.index(band) for band in bands]
    shape = tuple(-(-length // step) for length in pair.grid.shape)
    whole = Lattice(
        np.zeros((len(chosen), *shape), np.float32),
        np.zeros((len(chosen), *shape), np.float32),
        np.zeros(shape, np.bool_),
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
        before, after = (date[chosen] for date in read_dates(workspace, pair, held))
        part = sample((before, after), observed, step, (window, held))
        whole.before[:, rows, cols], whole.after[:, rows, cols], whole.seen[rows, cols] = (
            part.before,
            part.after,
            part.seen,
        )
    opposite = np.sign(pair.units[0][0]) != np.sign(pair.units[1][0])
    return fit_detector(detector, whole.pixels, bands, step=step, opposite=bool(opposite))


def compared_bands(pair: StoredPair, recipe: Recipe) -> tuple[str, ...]:
    """The bands of a pair that the detectors compare which a model is shown: its own, as far as they are there."""
    return tuple(band for band in recipe.roles if band in pair.roles)


def find_shown(workspace: Workspace, pair: StoredPair, recipe: Recipe) -> tuple[Fit, ...]:
    """What the detectors that a model is shown find out about a pair, recorded.

    Raises:
        InputError: If there is nothing to compare.
    """
    bands = compared_bands(pair, recipe)
    try:
        return tuple(find_fit(workspace, pair, detector, bands) for detector in recipe.detectors)
    except InputError as error:
        raise InputError(f"pair {pair.pair_id}: {error}") from None


def show(
    fits: Sequence[Fit],
    dates: tuple[NDArray[Any], NDArray[Any]],
    roles: Sequence[str],
    observed: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """What a model is shown of what detectors say.

    Args:
        fits: What they found out about the pair.
        dates: (band, height, width) of each, as stored.
        roles: The bands' names.
        observed: (height, width), True where both dates are observed.

    Returns:
        (detector, height, width): -1 for no change to 1 for change, 0 where not observed. What lies within ``HALO``
        pixels of an edge of the window that is none of the scene's is not right.
    """
    shown = np.zeros((len(fits), *observed.shape), np.float32)
    for channel, fit in zip(shown, fits, strict=True):
        channel[:] = as_shown(change_probability(fit, *compared(fit, dates, roles), observed))
    return shown


def as_shown(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """A detector's probability as a model's input has it: -1 for no change to 1 for change, 0 where not observed."""
    return np.where(np.isnan(probability), np.float32(0), 2 * probability - 1)


def read_shown(workspace: Workspace, pair: StoredPair, window: Window, recipe: Recipe) -> NDArray[np.float32]:
    """What a model is shown of what detectors say on a window of a stored pair; see :func:`show`."""
    held = grow(window, HALO, pair.grid.shape)
    observed = read_observed(workspace, pair, held)
    fits = find_shown(workspace, pair, recipe)
    shown = show(fits, read_dates(workspace, pair, held), pair.roles, observed)
    return shown[:, *window.slices_in(held)]


def _from_facts(facts: dict[str, Any]) -> Fit:
    """A fit as it was before JSON made lists of tuples."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return Fit(**{name: frozen(value) for name, value in facts.items()})
