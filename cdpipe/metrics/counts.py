"""Scores of a change map: integer counts that add up over blocks and pairs, and what follows from them."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED, UNCHANGED

Sums = TypeVar("Sums")


def add_fields(one: Sums, other: Sums) -> Sums:
    """Add two data classes field by field: the ``+`` of those that count over blocks, windows and pairs."""
    names: tuple[Any, ...] = fields(one)  # type: ignore[arg-type]  # a data class, says the docstring
    return type(one)(*(getattr(one, field.name) + getattr(other, field.name) for field in names))


@dataclass(frozen=True)
class Counts:
    """Pixels by prediction and reference; counts of disjoint pixels add up with ``+``.

    A score whose denominator is zero is NaN: nothing was there to be judged.

    Attributes:
        tp: Predicted changed, and changed in the reference.
        fp: Predicted changed, unchanged in the reference.
        fn: Predicted unchanged, changed in the reference.
        tn: Predicted unchanged, and unchanged in the reference.
    """

    __add__ = add_fields

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @property
    def iou(self) -> float:
        """Intersection over union of the changed pixels, tp / (tp + fp + fn)."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn)."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the predicted change that the reference has, tp / (tp + fp)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the reference's change that was predicted, tp / (tp + fn)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def kappa(self) -> float:
        """Agreement beyond chance (Cohen 1960): 0 as good as chance, 1 perfect."""
        chance = (self.tp + self.fp) * (self.fp + self.tn) + (self.tp + self.fn) * (self.fn + self.tn)
        return _ratio(2 * (self.tp * self.tn - self.fp * self.fn), chance)


@dataclass(frozen=True)
class ScoreHistogram:
    """How many changed and unchanged pixels score between neighbouring thresholds; adds up with ``+``.

    Element k counts the pixels whose score reaches exactly k of ``thresholds``, so that counts derived from
    it equal those taken directly at any of these. Plain integers: exact, and ready for JSON.
    """

    low: float
    high: float
    changed: tuple[int, ...]
    unchanged: tuple[int, ...]

    def __add__(self, other: "ScoreHistogram") -> "ScoreHistogram":
        if (self.low, self.high, len(self.changed)) != (other.low, other.high, len(other.changed)):
            raise ValueError(f"histograms differ: {_describe(self)} and {_describe(other)}")
        changed = tuple(a + b for a, b in zip(self.changed, other.changed, strict=True))
        unchanged = tuple(a + b for a, b in zip(self.unchanged, other.unchanged, strict=True))
        return ScoreHistogram(self.low, self.high, changed, unchanged)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds on offer, evenly spaced from ``low`` to ``high``."""
        return _thresholds(self.low, self.high, len(self.changed) - 2)


def is_change(score: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Where a score is a change: score >= threshold, the threshold taken in float32; NaN never is.

    In float32, because stored probabilities are: 0.4 stored reaches a threshold of 0.4.

    Args:
        score: (...), any shape.
        threshold: In the score's unit.

    Returns:
        (...), of the same shape.
    """
    return score >= np.float32(threshold)


def threshold_change(probability: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Change mask of a probability.

    Args:
        probability: (...), any shape, 0 to 1; NaN where not observed.
        threshold: See :func:`is_change`.

    Returns:
        (...), of the same shape: 1 at or above the threshold, 0 below, 255 where not observed.
    """
    change = is_change(probability, threshold).view(np.uint8)
    unknown = np.isnan(probability)
    if unknown.any():
        change[unknown] = NOT_OBSERVED
    return change


def count_scores(score: NDArray[np.floating], label: NDArray[np.uint8], threshold: float) -> Counts:
    """Count a probability (or another score) against a label.

    Args:
        score: (...), any shape; NaN where not observed, which is left out.
        label: (...), of the same shape; 0 unchanged, 1 changed, 255 ignore, which is left out.
        threshold: See :func:`is_change`.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(score, label)
    return _count(is_change(score, threshold), label, ~np.isnan(score))


def count_changes(change: NDArray[np.uint8], label: NDArray[np.uint8]) -> Counts:
    """Count a change mask against a label.

    Args:
        change: (...), any shape; 0 unchanged, 1 changed, 255 not observed, which is left out.
        label: (...), of the same shape; 0 unchanged, 1 changed, 255 ignore, which is left out.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(change, label)
    return _count(change == CHANGED, label, change != NOT_OBSERVED)


def score_histogram(
    score: NDArray[np.floating],
    label: NDArray[np.uint8],
    low: float = 0.0,
    high: float = 1.0,
    bins: int = 1000,
) -> ScoreHistogram:
    """Count scores by the thresholds they reach, of ``bins + 1`` spread evenly over ``low`` to ``high``.

    Args:
        score: (...), any shape; NaN where not observed, which is left out. What lies outside the range counts too.
        label: (...), of the same shape; 0 unchanged, 1 changed, 255 ignore, which is left out.
        low: The lowest threshold.
        high: The highest.
        bins: Steps between them.

    Raises:
        ValueError: If the shapes differ or the thresholds do not rise.
    """
    _check_shapes(score, label)
    if not (bins >= 1 and np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"expected at least one bin and low < high, got {bins} bins from {low} to {high}")
    edges = np.array(_thresholds(low, high, bins), np.float32)
    observed = ~np.isnan(score)

    def reached(pixels: NDArray[np.bool_]) -> tuple[int, ...]:
        places = _count_reached(score[pixels], edges)
        return tuple(np.bincount(places, minlength=bins + 2).tolist())

    return ScoreHistogram(low, high, reached(observed & (label == CHANGED)), reached(observed & (label == UNCHANGED)))


def _count_reached(scores: NDArray[np.floating], edges: NDArray[np.float32]) -> NDArray[np.int32]:
    """How many of evenly spaced thresholds each score reaches.

    What ``np.searchsorted(edges, scores, side="right")`` gives, several times as fast: the place is worked out, and
    rounding, which may put it one off, is put right by comparing.
    """
    steps, width = len(edges) - 1, edges[-1] - edges[0]
    place = np.clip((scores - edges[0]) * (steps / width), 0, steps).astype(np.int32)
    place += scores >= edges[np.minimum(place + 1, steps)]
    np.minimum(place, steps, out=place)
    place -= scores < edges[place]
    return np.asarray(place + 1, np.int32)


def counts_by_threshold(histogram: ScoreHistogram) -> tuple[Counts, ...]:
    """For each of the histogram's thresholds, what :func:`count_scores` gives on the same pixels."""
    tp, fp = sum(histogram.changed), sum(histogram.unchanged)
    fn = tn = 0
    counts = []
    # The last element reaches every threshold: it is never on the unchanged side of one.
    for changed, unchanged in zip(histogram.changed[:-1], histogram.unchanged[:-1], strict=True):
        tp, fn = tp - changed, fn + changed
        fp, tn = fp - unchanged, tn + unchanged
        counts.append(Counts(tp, fp, fn, tn))
    return tuple(counts)


def best_threshold(*histograms: ScoreHistogram) -> tuple[float, float]:
    """The threshold with the highest mean F1 of some histograms, and that mean; of several equal ones, the middle one.

    The middle one, because scores of other pairs are then least likely to cross it. Histograms without a changed pixel
    have no part in the mean: their F1 is 0 at any threshold that anything reaches.

    Args:
        histograms: One of all pixels together, or one of each pair, with the same thresholds.

    Raises:
        ValueError: If there is no changed pixel, so that no threshold is better than another.
    """
    telling = [each for each in histograms if sum(each.changed)]
    if not telling:
        raise ValueError("expected at least one changed pixel to choose a threshold by, got none")
    curves = [[counts.f1 for counts in counts_by_threshold(each)] for each in telling]
    scores = [sum(column) / len(curves) for column in zip(*curves, strict=True)]
    best = max(scores)
    equal = [index for index, score in enumerate(scores) if score == best]
    return telling[0].thresholds[equal[len(equal) // 2]], best


def _thresholds(low: float, high: float, bins: int) -> tuple[float, ...]:
    return tuple(low + (high - low) * k / bins for k in range(bins + 1))


def _count(change: NDArray[np.bool_], label: NDArray[np.uint8], observed: NDArray[np.bool_]) -> Counts:
    changed, unchanged = observed & (label == CHANGED), observed & (label == UNCHANGED)
    tp, fp = int(np.count_nonzero(change & changed)), int(np.count_nonzero(change & unchanged))
    return Counts(tp, fp, int(np.count_nonzero(changed)) - tp, int(np.count_nonzero(unchanged)) - fp)


def _check_shapes(array: NDArray[np.generic], label: NDArray[np.uint8]) -> None:
    if array.shape != label.shape:
        raise ValueError(f"expected a label of the shape {array.shape} of what it judges, got {label.shape}")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _describe(histogram: ScoreHistogram) -> str:
    return f"{len(histogram.changed) - 2} bins from {histogram.low} to {histogram.high}"


@dataclass(frozen=True, slots=True)
class NearCounts:
    """Scores that forgive a border that is a pixel or two off: pixels of change, and those with a counterpart nearby.

    Counts of disjoint pixels add up with ``+``.

    Attributes:
        predicted: Pixels predicted to have changed.
        predicted_near: Those of them with a changed pixel of the reference within the tolerance.
        reference: Pixels that have changed in the reference.
        reference_near: Those of them with a predicted pixel within the tolerance.
    """

    predicted: int = 0
    predicted_near: int = 0
    reference: int = 0
    reference_near: int = 0

    __add__ = add_fields


def count_near(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], inner: tuple[slice, slice], tolerance: int
) -> NearCounts:
    """Count the pixels of a block whose counterpart lies at most so many pixels away (Euclidean, pixel centres).

    Args:
        predicted: (height, width), predicted change of the block and of as many pixels around it as the tolerance has,
            inside the scene.
        reference: (height, width), change of the reference there.
        inner: The block in these.
        tolerance: In pixels; 0 gives the plain counts.
    """
    near_reference, near_predicted = (_dilate(mask, tolerance)[inner] for mask in (reference, predicted))
    predicted, reference = predicted[inner], reference[inner]
    masks = (predicted, predicted & near_reference, reference, reference & near_predicted)
    return NearCounts(*(int(np.count_nonzero(mask)) for mask in masks))


def _dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    steps = np.arange(-radius, radius + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0)
