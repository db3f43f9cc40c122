"""Audits that run models again: what they say of a pair with its dates swapped, and where nothing changed at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.detect import HALO, Fit, change_probability, fit_detector, sample
from cdpipe.errors import InputError
from cdpipe.evaluation.audit import Difference, measure_difference
from cdpipe.evaluation.scores import ENSEMBLE
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, grow, spread_tiles
from cdpipe.inference.patches import Forward, Placement, predict_window
from cdpipe.metrics.classes import CHANGED
from cdpipe.metrics.counts import add_fields, threshold_change
from cdpipe.prediction.block import Member, load_forward, probability_key
from cdpipe.prediction.detection import find_fit
from cdpipe.prediction.ensemble import Ensemble, combine, ensemble_threshold
from cdpipe.store.normalisation import DateScaling, model_input
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.workspace.layout import Workspace

BRIGHTER = 1.1  # what the same scene is multiplied by, without its normalisation knowing

Probabilities = NDArray[np.float32]


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
    patch = member.card.patch
    place = Placement(PatchGrid(job.pair.grid.shape, patch, patch), window)
    observed = read_observed(job.workspace, job.pair, place.halo)
    dates = read_dates(job.workspace, job.pair, place.halo)
    first, second = job.pair.scalings(member.card.recipe)
    moved, moved_observed = move_half_a_pixel(dates[0], observed)

    def predict(
        images: tuple[NDArray[Any], NDArray[Any]], scalings: tuple[DateScaling, DateScaling], usable: NDArray[np.bool_]
    ) -> Probabilities:
        return predict_window(forward, member.execution.batch, model_input(images, usable, scalings), usable, place)

    return {
        "pair": predict(dates, (first, second), observed),
        "swapped": predict(dates[::-1], (second, first), observed),
        "identity": predict((dates[0], dates[0]), (first, first), observed),
        "identity_shifted": predict((dates[0], moved * np.float32(BRIGHTER)), (first, first), moved_observed),
    }


def _detector_guises(job: ProbeJob, window: Window, member: Member) -> dict[str, Probabilities]:
    """A detector's probabilities likewise; it looks anew at what is another scene to it."""
    halo = grow(window, HALO, job.pair.grid.shape)
    inner = window.slices_in(halo)
    observed = read_observed(job.workspace, job.pair, halo)
    known = find_fit(job.workspace, job.pair, member)
    chosen = [job.pair.roles.index(band) for band in known.bands]
    before, after = (date[chosen] for date in read_dates(job.workspace, job.pair, halo))
    moved, moved_observed = move_half_a_pixel(before, observed)

    def look(dates: tuple[NDArray[Any], NDArray[Any]], usable: NDArray[np.bool_], fit: Fit | None) -> Probabilities:
        if fit is None:
            try:
                fit = fit_detector(known.detector, sample(dates, usable, 1).pixels, known.bands)
            except InputError:  # nothing that differs, as over water
                return np.where(usable, np.float32(0), np.float32(np.nan))[inner]
        return change_probability(fit, *dates, usable)[inner]

    return {
        "pair": look((before, after), observed, known),
        "swapped": look((after, before), observed, known.swapped()),
        "identity": look((before, before), observed, None),
        "identity_shifted": look((before, moved * np.float32(BRIGHTER)), moved_observed, None),
    }


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
