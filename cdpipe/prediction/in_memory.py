"""Prediction of two arrays in memory: the same steps as for a stored pair, for notebooks and small scenes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.detectors import FINE_M, SHIPPED, WITH_COLOURS, WITHOUT_LABELS, named_model
from cdpipe.config.schema import Backend
from cdpipe.detectors.detect import Fit, change_probability, compared, fit_detector, sample, sample_step
from cdpipe.detectors.stored import show
from cdpipe.errors import InputError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, patch_stride
from cdpipe.inference.patches import Execution, Placement, predict_window
from cdpipe.inference.shared import SharedPatches
from cdpipe.models.answering import is_finer
from cdpipe.models.ensemble_folder import EnsembleCard, check_members, given_ensemble, shared_weights
from cdpipe.models.folder import ModelCard, check_trained, read_card
from cdpipe.prediction.block import open_forward, suit_execution
from cdpipe.prediction.ensemble import combine_members, plan_ensemble
from cdpipe.processors import usable_cpus
from cdpipe.store.histograms import Quantiles, count_values, quantiles
from cdpipe.store.normalisation import RGB, date_scaling, model_input
from cdpipe.store.statistics import measure
from cdpipe.workspace.location import Location

TTA = ("d4", "none")
BACKENDS = get_args(Backend)
PRECISIONS = ("float32", "bfloat16")
COLOURS = 3, 4  # bands of arrays that are taken for red, green, blue and near infrared


def predict_array(  # noqa: PLR0913 (a function for notebooks, whose options go by name)
    before: NDArray[Any],
    after: NDArray[Any],
    model: str | Path | Location | None = None,
    *,
    observed: NDArray[np.bool_] | None = None,
    overlap: float | None = None,
    tta: str | None = None,
    backend: Backend = "auto",
    precision: str | None = None,
    pixel_m: float | None = None,
) -> NDArray[np.float32]:
    """Probability of change between two images of one place, pixel on pixel.

    Args:
        before: (band, height, width), bands in the order of the model's roles (red, green, blue); for a detector any.
        after: Likewise.
        model: A model folder, or an ensemble's, whose probability is that of its members together; or ``cdpipe``, for
            which near infrared may follow the colours; or a detector, as ``mad``. Default: ``cdpipe``, ``mad`` and
            ``cva`` together, of three or four bands; of fewer or more ``mad`` and ``cva``; of pixels finer than 3 m and
            of 8-bit pictures in three colours of which ``pixel_m`` is not known, ``cdpipe`` alone.
        observed: (height, width), True where both dates are observed; default: everywhere. Values that are
            not finite never count. Per-date statistics leave out what is False here, at either date.
        overlap: Overlap of neighbouring patches as a share of the patch, 0 to below 1; default: the ensemble's, or
            0.25.
        tta: ``d4`` (mean of the eight flips and rotations) or ``none``; default: the ensemble's, or ``d4``.
        backend: ``torch`` or ``openvino``, either on the CPU; ``auto`` is the configuration's default.
        precision: ``float32`` or ``bfloat16``; int8 needs training pairs, and so a configuration. Default: the
            ensemble's, or ``float32``.
        pixel_m: Side of a pixel in metres, which says who answers where no model is named, and of an ensemble with
            ``detectors_from_m`` whether detectors take part.

    Returns:
        (height, width) float32 in 0..1; NaN where not observed.

    Raises:
        ValueError: If the arrays' shapes do not fit, or there is no such augmentation, backend or precision, or an
            ensemble's members read other bands.
        ConfigError: If the backend cannot be had here.
        InputError: If there is no such model or no pixel is observed.
        IntegrityError: If weights are not the ones that a card names.
    """
    names = _answering((before, after), pixel_m) if model is None else (model,)
    folders = [named_model(name) for name in names]
    given = given_ensemble(folders)
    own = {} if given is None else {name: value for name, value in given[1].options.items() if value != "auto"}
    ways = (
        own.get("tta", "d4") if tta is None else tta,
        own.get("precision", "float32") if precision is None else precision,
        backend,
    )
    for name, value, known in zip(("tta", "precision", "backend"), ways, (TTA, PRECISIONS, BACKENDS), strict=True):
        if value not in known:
            raise ValueError(f"expected {name} {' or '.join(known)}, got {value!r}")
    execution = Execution(ways[0], ways[1], "cpu", 1, backend)
    lap = own.get("overlap", 0.25) if overlap is None else overlap
    if given is None:
        said = (_predict_one(each, read_card(each), (before, after), observed, lap, execution) for each in folders)
        return combine_members(plan_ensemble([(str(each), 1.0) for each in folders], 0.0), said)
    return _predict_ensemble(_heard(*given, (before, after), pixel_m), (before, after), observed, lap, execution)


def _heard(
    folder: Location, ensemble: EnsembleCard, dates: tuple[NDArray[Any], NDArray[Any]], pixel_m: float | None
) -> tuple[Location, EnsembleCard]:
    """An ensemble without the detectors that keep out of pixels as fine as these, as it says."""
    cards = check_members(folder, ensemble)
    bands = len(dates[0]) if dates[0].ndim == 3 else 1
    networks = tuple(member for member, card in zip(ensemble.members, cards, strict=True) if not card.is_detector)
    finer = is_finer(ensemble.options.get("detectors_from_m"), pixel_m, bands, lambda: str(np.result_type(*dates)))
    return folder, replace(ensemble, members=networks) if networks and finer else ensemble


def _predict_ensemble(
    given: tuple[Location, EnsembleCard],
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_] | None,
    overlap: float,
    execution: Execution,
) -> NDArray[np.float32]:
    """What an ensemble's members say together."""
    (folder, ensemble), cards = given, check_members(*given)
    names = [member.folder for member in ensemble.members]
    if len({card.roles for card in cards if not card.is_detector}) > 1:
        raise ValueError(f"ensemble {folder}: its members read other bands each; use cdpipe.predict_pair")
    # a vote's thresholds are on its members' own probabilities
    votes = [member.threshold for member in ensemble.members] if ensemble.combination == "vote" else []
    plan = plan_ensemble(
        list(zip(names, shared_weights(ensemble), strict=True)),
        ensemble.threshold,
        votes,
        [member.temperature for member in ensemble.members],
    )
    each = (
        _predict_one(folder / name, card, dates, observed, overlap, execution)
        for name, card in zip(names, cards, strict=True)
    )
    return combine_members(plan, each)


def _answering(dates: tuple[NDArray[Any], NDArray[Any]], pixel_m: float | None) -> tuple[str, ...]:
    """Names of what answers without a model."""
    before, after = dates
    bands = len(before) if before.ndim == 3 else 1
    if bands not in COLOURS:
        return WITHOUT_LABELS
    finer = is_finer(FINE_M, pixel_m, bands, lambda: str(np.result_type(before, after)))
    return (SHIPPED,) if finer else WITH_COLOURS


def _predict_one(
    folder: Location,
    card: ModelCard,
    dates: tuple[NDArray[Any], NDArray[Any]],
    observed: NDArray[np.bool_] | None,
    overlap: float,
    execution: Execution,
) -> NDArray[np.float32]:
    """What one model says."""
    before, after = dates
    check_trained(folder, card)
    roles = _given_roles(card, len(before)) if card.roles else _names(before)
    _check(before, after, observed, roles)
    usable = True if observed is None else observed
    own = [np.isfinite(date).all(axis=0) & usable for date in dates]
    both = own[0] & own[1]
    if not both.any():
        raise InputError("no pixel is observed at both dates")
    if card.is_detector:
        fit = _fit(card.architecture, dates, both, roles)
        return change_probability(fit, *compared(fit, dates, roles), both)
    window = Window(0, 0, *both.shape)
    masks = [both, both] if card.statistics == "common" else own
    scalings = [
        date_scaling(measure(date, mask, window), roles, (1.0, 0.0), card.recipe, _levels(card, date, mask))
        for date, mask in zip(dates, masks, strict=True)
    ]
    scene = model_input((before, after), both, (scalings[0], scalings[1]))
    if card.recipe.detectors:
        fits = [_fit(detector, dates, both, roles) for detector in card.recipe.detectors]
        scene = np.concatenate([scene, show(fits, dates, roles, both)])
    place = Placement(PatchGrid(both.shape, card.patch, patch_stride(card.patch, overlap)), window)
    run = suit_execution(card, execution)
    forward = open_forward(folder, card, run)
    if run.backend in ("torch", "pt2"):  # which shares a patch out among processors by itself
        return predict_window(forward, 1, scene, both, place)
    with ThreadPoolExecutor(usable_cpus(), "cdpipe-patches") as pool:
        return predict_window(forward, 1, scene, both, place, SharedPatches(place.patch_grid, [window], pool))


def _fit(
    detector: str, dates: tuple[NDArray[Any], NDArray[Any]], observed: NDArray[np.bool_], bands: tuple[str, ...]
) -> Fit:
    step = sample_step(int(observed.sum()))
    return fit_detector(detector, sample(dates, observed, step).pixels, bands, step=step)


def _given_roles(card: ModelCard, bands: int) -> tuple[str, ...]:
    """The roles of so many bands: the model's, without those at the end that are not needed and not there."""
    roles = card.roles
    while len(roles) > bands and roles[-1] in card.optional:
        roles = roles[:-1]
    return roles


def _names(date: NDArray[Any]) -> tuple[str, ...]:
    """Of the bands of an array that says nothing of them: as a model's would be called, then by their numbers."""
    bands = len(date) if date.ndim == 3 else 1
    return (*RGB, *(f"band {number}" for number in range(4, bands + 1)))[:bands]


def _levels(card: ModelCard, date: NDArray[Any], mask: NDArray[np.bool_]) -> list[Quantiles] | None:
    if card.method != "robust":
        return None
    return [quantiles(histogram, date.dtype) for histogram in count_values(date, mask)]


def _check(
    before: NDArray[Any], after: NDArray[Any], observed: NDArray[np.bool_] | None, roles: tuple[str, ...]
) -> None:
    expected = (len(roles), *before.shape[1:])
    if before.ndim != 3 or before.shape != expected or after.shape != expected:
        raise ValueError(
            f"expected two arrays of ({len(roles)}, height, width) with bands {', '.join(roles)}, "
            f"got {before.shape} and {after.shape}"
        )
    if observed is not None and (observed.shape != expected[1:] or observed.dtype != np.bool_):
        raise ValueError(
            f"expected observed as {expected[1:]} bool, as the arrays are, got {observed.shape} {observed.dtype}"
        )
