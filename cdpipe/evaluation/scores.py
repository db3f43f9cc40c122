"""Counts of a run's results against labels, block by block: pixels, objects, probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cdpipe.formats.submission import Runs, decode_window
from cdpipe.geo.grid import Window
from cdpipe.geo.ground import has_areas, row_areas
from cdpipe.geo.tilings import grow
from cdpipe.metrics.classes import CHANGED, IGNORE, NOT_OBSERVED
from cdpipe.metrics.counts import (
    Counts,
    NearCounts,
    ScoreHistogram,
    add_fields,
    count_changes,
    count_near,
    score_histogram,
    threshold_change,
)
from cdpipe.objects.components import Components, sum_by_component
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.normalisation import RGB, Recipe
from cdpipe.store.pair import LabelledPair, StoredPair, read_label, read_observed, read_scene
from cdpipe.workspace.layout import Workspace

Mask = NDArray[np.bool_]

ENSEMBLE = "ensemble"
BASELINE = "grey difference"
TOLERANCE = 2  # pixels by which a border may be off, by default
BASELINE_RECIPE = Recipe("difference", RGB, "common", together=False)
BASELINE_RANGE, BASELINE_BINS = 10.0, 1000  # of |difference| in standard deviations


@dataclass(frozen=True, slots=True)
class ObjectCounts:
    """Objects of change: connected components across blocks, of a result and of the label that is its reference.

    Counts of different pairs add up with ``+``.

    Attributes:
        reference: Objects of the label, as far as they were observed.
        hit: Those of them with a pixel that was predicted to have changed.
        predicted: Predicted objects.
        false: Those of them all of whose pixels are labelled unchanged; one that reaches into ignored pixels is not
            judged.
    """

    reference: int = 0
    hit: int = 0
    predicted: int = 0
    false: int = 0

    __add__ = add_fields


class ObjectTally:
    """Counts objects of a label and of the layers that are compared with it; blocks must come row by row."""

    def __init__(self, width: int) -> None:
        """Begin a scene of so many columns."""
        self._width = width
        self._label = Components(width)
        self._layers: dict[str, Components] = {}
        # by layer, for each number of a component: pixels of an object of the label that are hit, and pixels of a
        # predicted one that are not labelled unchanged
        self._hits: dict[str, list[NDArray[np.int64]]] = {}
        self._excused: dict[str, list[NDArray[np.int64]]] = {}

    def add(self, window: Window, label: NDArray[np.uint8], observed: Mask, layers: Mapping[str, Mask]) -> None:
        """Count a block.

        Args:
            window: Where it lies.
            label: (height, width): 0 unchanged, 1 changed, 255 ignore.
            observed: (height, width), True where both dates are observed.
            layers: Where each layer predicts change, each (height, width).
        """
        reference = self._label.add(window, (label == CHANGED) & observed)
        for name, change in layers.items():
            self._hits.setdefault(name, []).append(_count(reference, change))
            predicted = self._layers.setdefault(name, Components(self._width)).add(window, change)
            self._excused.setdefault(name, []).append(_count(predicted, label != 0))

    def counts(self) -> dict[str, ObjectCounts]:
        """Counts of every layer."""
        roots = self._label.roots()
        counts = {}
        for name, components in self._layers.items():
            hits = sum_by_component(roots, _joined(self._hits[name]))
            excused = sum_by_component(components.roots(), _joined(self._excused[name]))
            counts[name] = ObjectCounts(len(hits), int((hits > 0).sum()), len(excused), int((excused == 0).sum()))
        return counts


def _count(ids: NDArray[np.int64], mask: Mask) -> NDArray[np.int64]:
    """Pixels of the mask in each component of a block, by its number from the block's first one on."""
    inside = ids > 0
    if not inside.any():
        return np.zeros(0, np.int64)
    first = int(ids[inside].min())
    chosen = ids[inside & mask] - first
    return np.bincount(chosen, minlength=int(ids.max()) - first + 1).astype(np.int64)


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), *parts])  # number 0 is outside


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of a pair lie.

    Attributes:
        pair: The pair.
        label_key: Key of its label, None without one.
        members: Name, probability key and threshold of each model.
        change_key: Key of the ensemble's change, None where nothing was predicted.
        submissions: Name and mask of each submission that has the pair.
        tolerance: Pixels by which a border may be off.
        strips: The pixels whose labels count in each split, where the pair is cut.
    """

    pair: StoredPair
    label_key: str | None
    members: tuple[tuple[str, str, float], ...]
    change_key: str | None
    submissions: tuple[tuple[str, Runs], ...] = ()
    tolerance: int = TOLERANCE
    strips: Mapping[str, Window] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairScores:
    """What evaluation found out about a pair.

    Attributes:
        counts: Pixel counts of each model, of the ensemble and of each submission.
        baseline: Absolute difference of normalised grey, over thresholds.
        near: Of the same layers, pixels with their counterpart nearby.
        objects: Of the same layers, objects found, missed and made up.
        probabilities: Of each model and the ensemble, over thresholds from 0 to 1.
        area_km2: Of what was judged: observed, and labelled changed or unchanged; NaN without a georeference.
    """

    counts: dict[str, Counts]
    baseline: ScoreHistogram
    near: dict[str, NearCounts] = field(default_factory=dict)
    objects: dict[str, ObjectCounts] = field(default_factory=dict)
    probabilities: dict[str, ScoreHistogram] = field(default_factory=dict)
    area_km2: float = float("nan")


def evaluate_parts(workspace: Workspace, results: Results) -> dict[str, PairScores]:
    """Scores of a pair by its id, or of each strip of one that is cut, by :func:`strip_id`."""
    pair_id = results.pair.pair_id
    if not results.strips:
        return {pair_id: evaluate_pair(workspace, results)}
    return {strip_id(pair_id, split): evaluate_pair(workspace, results, at) for split, at in results.strips.items()}


def strip_id(pair_id: str, split: str) -> str:
    """What a pair's strip goes by where pairs go by their ids, none of which has a slash."""
    return f"{pair_id}/{split}"


def pair_of(part_id: str) -> str:
    """The pair of what goes by its id or a strip's."""
    return part_id.partition("/")[0]


def evaluate_pair(workspace: Workspace, results: Results, within: Window | None = None) -> PairScores:
    """Count hits and misses of every layer of a pair; labels that say "ignore" and pixels not observed are left out.

    Args:
        workspace: Where the pair lies.
        results: Where its results lie.
        within: Pixels whose labels count; None for all.

    Raises:
        ValueError: If the pair has no label.
    """
    pair = results.pair
    if results.label_key is None:
        raise ValueError(f"pair {pair.pair_id}: expected a label, got none")
    item = LabelledPair(pair, results.label_key, within)
    counts: dict[str, Counts] = {}
    near: dict[str, NearCounts] = {}
    probabilities: dict[str, ScoreHistogram] = {}
    baseline = _no_scores()
    objects, judged_in_row = ObjectTally(pair.grid.width), np.zeros(pair.grid.height, np.int64)
    for key in pair.blocks():
        window = pair.window(key)
        halo = grow(window, results.tolerance, pair.grid.shape)
        inner = window.slices_in(halo)
        label = read_label(workspace, item, halo)
        own_label, observed = label[inner], read_observed(workspace, pair, window)
        judged_in_row[window.slices[0]] += (observed & (own_label != IGNORE)).sum(axis=1)
        changes, scores = _layers(workspace, results, halo)
        for name, change in changes.items():
            counts[name] = counts.get(name, Counts()) + count_changes(change[inner], own_label)
            predicted, reference = (
                (change == CHANGED) & (label != IGNORE),
                (label == CHANGED) & (change != NOT_OBSERVED),
            )
            near[name] = near.get(name, NearCounts()) + count_near(predicted, reference, inner, results.tolerance)
        for name, probability in scores.items():
            own = score_histogram(probability[inner], own_label)
            probabilities[name] = probabilities[name] + own if name in probabilities else own
        objects.add(window, own_label, observed, {name: change[inner] == CHANGED for name, change in changes.items()})
        if set(RGB) <= set(pair.roles):
            difference = _grey_difference(workspace, pair, window)
            baseline += score_histogram(difference, own_label, high=BASELINE_RANGE, bins=BASELINE_BINS)
    area_km2 = float(judged_in_row @ row_areas(pair.grid)) / 1e6 if has_areas(pair.grid) else float("nan")
    return PairScores(counts, baseline, near, objects.counts(), probabilities, area_km2)


def _layers(
    workspace: Workspace, results: Results, window: Window
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
    """Change of every layer of a pair in a window, and the probability of those that have one."""
    pair_id = results.pair.pair_id
    changes: dict[str, NDArray[np.uint8]] = {}
    probabilities: dict[str, NDArray[np.float32]] = {}
    for name, probability_key, threshold in results.members:
        group = workspace.group("probabilities", pair_id, probability_key)
        probabilities[name] = read_window(open_array(group, "probability"), window)
        changes[name] = threshold_change(probabilities[name], threshold)
    if results.change_key is not None:
        group = workspace.group("changes", pair_id, results.change_key)
        probabilities[ENSEMBLE] = read_window(open_array(group, "probability"), window)
    return changes | read_masks(workspace, results, window), probabilities


def read_masks(workspace: Workspace, results: Results, window: Window) -> dict[str, NDArray[np.uint8]]:
    """The run's change and every submission of a pair in a window.

    Returns:
        By name, each (height, width): 0 unchanged, 1 changed, 255 not observed.
    """
    pair = results.pair
    masks: dict[str, NDArray[np.uint8]] = {}
    if results.change_key is not None:
        group = workspace.group("changes", pair.pair_id, results.change_key)
        masks[ENSEMBLE] = read_window(open_array(group, "change"), window)
    if results.submissions:
        observed = read_observed(workspace, pair, window)
        for name, runs in results.submissions:
            changed = decode_window(runs, pair.grid.height, window).astype(np.uint8)
            masks[name] = np.where(observed, changed, np.uint8(NOT_OBSERVED))
    return masks


def _no_scores() -> ScoreHistogram:
    zeros = (0,) * (BASELINE_BINS + 2)
    return ScoreHistogram(0.0, BASELINE_RANGE, zeros, zeros)


def _grey_difference(workspace: Workspace, pair: StoredPair, window: Window) -> NDArray[np.float32]:
    """Absolute difference of the dates' normalised grey, NaN where not observed."""
    observed = read_observed(workspace, pair, window)
    scalings = pair.scalings(BASELINE_RECIPE)
    difference = read_scene(workspace, pair, window, observed, scalings)[0]
    return np.where(observed, np.abs(difference), np.float32(np.nan))
