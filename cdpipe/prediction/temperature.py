"""Temperatures and weights of an ensemble's models, fitted to pixels that no model learned from."""

import math

import numpy as np
from numpy.typing import NDArray

from cdpipe.metrics.classes import CHANGED, IGNORE
from cdpipe.metrics.counts import ScoreHistogram, counts_by_threshold, score_histogram

LOGIT_RANGE, LOGIT_BINS = 16.0, 1024  # float32 probabilities near 1 have logits of up to 16.6
MOST = 20.0  # a temperature of more, or of less than a twentieth, fits nothing: all is right, or all wrong
EM_STEPS = 300
DIGITS = 4  # of what is fitted: more would only be noise

Values = NDArray[np.float32]


def soften(probability: Values, temperature: float) -> Values:
    """Probabilities with their logits divided by a temperature (Guo et al. 2017, section 4.2).

    Args:
        probability: (...), 0 to 1; NaN stays NaN.
        temperature: Above 0; 1 changes no bit.

    Returns:
        (...) float32 in 0 to 1.
    """
    if temperature == 1.0:
        return probability
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits(probability) / np.float32(temperature))), np.float32)


def logits(probability: Values) -> Values:
    """Log odds.

    Args:
        probability: (...), 0 to 1.

    Returns:
        (...) float32; infinite at 0 and 1.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(probability) - np.log1p(-probability), np.float32)


def logit_histogram(probability: Values, label: NDArray[np.uint8]) -> ScoreHistogram:
    """What :func:`fit_temperature` needs of some pixels.

    Args:
        probability: (...), 0 to 1; NaN is left out.
        label: (...), of the same shape: 0 unchanged, 1 changed, 255 ignore, which is left out.
    """
    return score_histogram(logits(probability), label, -LOGIT_RANGE, LOGIT_RANGE, LOGIT_BINS)


def fit_temperature(histogram: ScoreHistogram) -> float:
    """The temperature with the least log loss on the pixels of a histogram of logits; 1 where there are none.

    The loss is convex in the temperature's inverse, so bisection of its slope finds it.
    """
    changed, unchanged = np.array(histogram.changed, np.float64), np.array(histogram.unchanged, np.float64)
    step = 2 * LOGIT_RANGE / LOGIT_BINS
    middle = np.clip((np.arange(len(changed)) - 0.5) * step - LOGIT_RANGE, -LOGIT_RANGE, LOGIT_RANGE)

    def slope(inverse: float) -> float:
        predicted = 1 / (1 + np.exp(-middle * inverse))
        return float((middle * (unchanged * predicted - changed * (1 - predicted))).sum())

    if not changed.sum() + unchanged.sum():
        return 1.0
    low, high = math.log(1 / MOST), math.log(MOST)
    for _ in range(60):
        inverse = (low + high) / 2
        low, high = (low, inverse) if slope(math.exp(inverse)) > 0 else (inverse, high)
    return round(math.exp(-(low + high) / 2), DIGITS)


def fit_weights(probabilities: Values, label: NDArray[np.uint8]) -> list[float]:
    """The weights of a mean of models with the least log loss, by expectation maximisation of a mixture.

    Args:
        probabilities: (pixel, model), 0 to 1; a pixel with a NaN is left out.
        label: (pixel,): 0 unchanged, 1 changed, 255 ignore, which is left out.

    Returns:
        Shares that add up to 1, equal where no pixel is left. A model that the others make useless has 0.
    """
    models = probabilities.shape[1]
    kept = (label != IGNORE) & ~np.isnan(probabilities).any(axis=1)
    reference = label[kept, None] == CHANGED
    likelihood = np.where(reference, probabilities[kept], 1 - probabilities[kept]).astype(np.float64)
    likelihood = np.maximum(likelihood, 1e-7)  # float32's last bit: certainty that is wrong must not weigh for ever
    shares = np.full(models, 1 / models)
    for _ in range(EM_STEPS if len(likelihood) else 0):
        joint = likelihood * shares
        shares = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    rounded = [round(float(share), DIGITS) for share in shares[:-1]]
    return [*rounded, round(1 - sum(rounded), DIGITS)]


def threshold_for(histogram: ScoreHistogram, figure: str, wanted: float) -> float:
    """The threshold that reaches a precision at the highest recall, or a recall at the highest precision.

    Args:
        histogram: Of probabilities.
        figure: ``precision`` or ``recall``.
        wanted: At least this much of it.

    Raises:
        ValueError: If no threshold reaches it; the most that one does is said.
    """
    other = {"precision": "recall", "recall": "precision"}[figure]
    offers = list(zip(histogram.thresholds, counts_by_threshold(histogram), strict=True))
    good = [(getattr(counts, other), threshold) for threshold, counts in offers if getattr(counts, figure) >= wanted]
    if not good:
        most = max((value for _, counts in offers if (value := getattr(counts, figure)) == value), default=0.0)
        raise ValueError(f"{figure} {wanted:g} is reached by no threshold; the most is {most:.3f}")
    return max(good)[1]
