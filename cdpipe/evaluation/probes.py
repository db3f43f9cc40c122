"""Audits that run models again: what they say of a pair with its dates swapped, and where nothing changed at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.detect import HALO, Fit, change_probability, compared, fit_detector, sample
from cdpipe.detectors.stored import as_shown, find_fit, find_shown
from cdpipe.errors import InputError
from cdpipe.evaluation.audit import Difference, measure_difference
from cdpipe.evaluation.scores import ENSEMBLE
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, grow, spread_tiles
from cdpipe.inference.patches import Forward, Placement, predict_window
from cdpipe.metrics.classes import CHANGED
from cdpipe.metrics.counts import add_fields, threshold_change
from cdpipe.prediction.block import Member, load_forward, probability_key
from cdpipe.prediction.ensemble import Ensemble, combine, ensemble_threshold
from cdpipe.store.normalisation import DateScaling, model_input
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.workspace.layout import Workspace

BRIGHTER = 1.1  # what the same scene is multiplied by, without its normalisation knowing

Probabilities = NDArray[np.float32]
Images = tuple[NDArray[Any], NDArray[Any]]  # (band, height, width) of each date


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Windows of a pair to run models on.

    Attributes:
        workspace: Where the pair lies.
        pair: The pair.
        members: The models that predict it.
        ensemble: How their probabilities become change.
        thresholds: Of each model alone, by name.
        windows: The windows.
    """

    workspace: Workspace
    pair: StoredPair
    members: tuple[Member, ...]
    ensemble: Ensemble
    thresholds: Mapping[str, float]
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Alarms:
    """Change seen where nothing changed: pixels looked at, and those of them that are change; adds up with ``+``."""

    pixels: int = 0
    flips: int = 0

    __add__ = add_fields


@dataclass(frozen=True, slots=True)
class Probe:
    """What one layer, a model or the ensemble, says of the same windows in other guises; adds up with ``+``.

    Attributes:
        swap: The pair against the pair with its dates swapped.
        identity: The first date against itself.
        identity_shifted: The first date against itself, half a pixel off in both directions and brightened.
    """

    swap: Difference = field(default_factory=Difference)
    identity: Alarms = field(default_factory=Alarms)
    identity_shifted: Alarms = field(default_factory=Alarms)

    __add__ = add_fields


def choose_windows(pair: StoredPair, members: Sequence[Member], most: int) -> list[Window]:
    """Windows of a patch's size (the largest of the models'), drawn by the pair's key from all parts of the scene."""
    side = max(member.card.patch for member in members)
    return spread_tiles(pair.grid.shape, side, most, np.random.default_rng(int(pair.key, 16)))


def probe_models(job: ProbeJob) -> dict[str, Probe]:
    """Load the models and run them on all windows of a job; by model and for the ensemble.

    Raises:
        ConfigError, InputError, IntegrityError: See :func:`cdpipe.prediction.block.open_forward`.
    """
    forwards = [None if member.card.is_detector else load_forward(member) for member in job.members]
    total: dict[str, Probe] = {}
    for window in job.windows:
        for layer, probe in probe_window(job, window, forwards).items():
            total[layer] = total.get(layer, Probe()) + probe
    return total


def probe_window(job: ProbeJob, window: Window, forwards: Sequence[Forward | None]) -> dict[str, Probe]:
    """Run the models on one window in all guises; see :class:`Probe`.

    Args:
        job: The pair and its models.
        window: The window.
        forwards: The models' networks, in their order; None of a detector.
    """
    guises = [
        _detector_guises(job, window, member) if forward is None else _guises(job, window, member, forward)
        for member, forward in zip(job.members, forwards, strict=True)
    ]
    layers = {member.card.name: guise for member, guise in zip(job.members, guises, strict=True)}
    thresholds = {member.card.name: job.thresholds[member.name] for member in job.members}
    keys = [probability_key(job.pair.key, member) for member in job.members]
    layers[ENSEMBLE] = {
        name: combine(
            job.workspace,
            job.pair,
            job.ensemble,
            window,
            {key: guise[name] for key, guise in zip(keys, guises, strict=True)},
        )
        for name in guises[0]
    }
    thresholds[ENSEMBLE] = ensemble_threshold(job.ensemble)
    return {layer: _judge(guise, thresholds[layer]) for layer, guise in layers.items()}


def _guises(job: ProbeJob, window: Window, member: Member, forward: Forward) -> dict[str, Probabilities]:
    """A model's probabilities of a window in all guises, NaN where not observed."""
    # patches side by side: what a patch says is what is audited, not how patches are blended
    patch, recipe = member.card.patch, member.card.recipe
    place = Placement(PatchGrid(job.pair.grid.shape, patch, patch), window)
    held = grow(place.halo, HALO if recipe.detectors else 0, job.pair.grid.shape)
    inner = place.halo.slices_in(held)
    observed = read_observed(job.workspace, job.pair, held)
    dates = read_dates(job.workspace, job.pair, held)
    first, second = job.pair.scalings(recipe)
    known = find_shown(job.workspace, job.pair, recipe)
    moved, moved_observed = move_half_a_pixel(dates[0], observed)

    def predict(
        images: Images, scalings: tuple[DateScaling, DateScaling], usable: NDArray[np.bool_], fits: Sequence[Fit | None]
    ) -> Probabilities:
        seen = usable[inner]
        scene = model_input((images[0][:, *inner], images[1][:, *inner]), seen, scalings)
        said = [_look(fit, own, images, job.pair.roles, usable)[inner] for fit, own in zip(fits, known, strict=True)]
        shown = [as_shown(each)[None] for each in said]
        return predict_window(forward, member.execution.batch, np.concatenate([scene, *shown]), seen, place)

    anew = [None] * len(known)
    return {
        "pair": predict(dates, (first, second), observed, known),
        "swapped": predict(dates[::-1], (second, first), observed, [fit.swapped() for fit in known]),
        "identity": predict((dates[0], dates[0]), (first, first), observed, anew),
        "identity_shifted": predict((dates[0], moved * np.float32(BRIGHTER)), (first, first), moved_observed, anew),
    }


def _detector_guises(job: ProbeJob, window: Window, member: Member) -> dict[str, Probabilities]:
    """A detector's probabilities likewise; it looks anew at what is another scene to it."""
    halo, roles = grow(window, HALO, job.pair.grid.shape), job.pair.roles
    inner = window.slices_in(halo)
    observed = read_observed(job.workspace, job.pair, halo)
    known = find_fit(job.workspace, job.pair, member.card.architecture, roles)
    before, after = read_dates(job.workspace, job.pair, halo)
    moved, moved_observed = move_half_a_pixel(before, observed)
    shifted = (before, moved * np.float32(BRIGHTER))
    return {
        "pair": _look(known, known, (before, after), roles, observed)[inner],
        "swapped": _look(known.swapped(), known, (after, before), roles, observed)[inner],
        "identity": _look(None, known, (before, before), roles, observed)[inner],
        "identity_shifted": _look(None, known, shifted, roles, moved_observed)[inner],
    }


def _look(fit: Fit | None, known: Fit, dates: Images, roles: Sequence[str], usable: NDArray[np.bool_]) -> Probabilities:
    """What a detector says of both dates of a window; without a fit it looks anew at the bands that it knows."""
    before, after = compared(known, dates, roles)
    if fit is None:
        try:
            fit = fit_detector(known.detector, sample((before, after), usable, 1).pixels, known.bands)
        except InputError:  # nothing that differs, as over water
            return np.where(usable, np.float32(0), np.float32(np.nan))
    return change_probability(fit, before, after, usable)


def move_half_a_pixel(
    values: NDArray[Any], observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Move an image half a pixel up and left: each pixel becomes the mean of itself and of three neighbours.

    Args:
        values: (band, height, width), any dtype.
        observed: (height, width), True where observed.

    Returns:
        (band, height, width), the moved image, whose last row and column are means of fewer; and (height, width), where
        all that goes into a mean is observed.
    """
    padded = np.pad(values.astype(np.float32), ((0, 0), (0, 1), (0, 1)), mode="edge")
    seen = np.pad(observed, (0, 1), mode="edge")
    moved = (padded[:, :-1, :-1] + padded[:, 1:, :-1] + padded[:, :-1, 1:] + padded[:, 1:, 1:]) / 4
    return np.asarray(moved, np.float32), seen[:-1, :-1] & seen[1:, :-1] & seen[:-1, 1:] & seen[1:, 1:]


def _judge(guises: Mapping[str, Probabilities], threshold: float) -> Probe:
    masks = {name: threshold_change(values, threshold) for name, values in guises.items()}
    observed = ~np.isnan(guises["pair"])
    alarms = {
        name: Alarms(int((~np.isnan(guises[name])).sum()), int((masks[name] == CHANGED).sum()))
        for name in ("identity", "identity_shifted")
    }
    swap = measure_difference((guises["pair"], guises["swapped"]), (masks["pair"], masks["swapped"]), observed)
    return Probe(swap, alarms["identity"], alarms["identity_shifted"])
