"""Thresholds that a histogram itself suggests, where nobody says which of its pixels changed."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
LEAST_SHARE = 1e-4  # of the pixels on either side of a threshold
ROUNDS = 200  # of expectation maximisation at most
SETTLED = 1e-6


def otsu(counts: Counts, values: NDArray[np.float64]) -> int:
    """The threshold that parts a histogram into classes whose means differ most (Otsu, 1979).

    Args:
        counts: (bin,) pixels.
        values: (bin,) the bins' middles, rising.

    Returns:
        The first bin of the upper class; as many as there are bins where one class has all.
    """
    share, mean, _ = _below(counts, values)
    between = np.divide(
        np.square(mean[-1] * share - mean),
        share * (1 - share),
        out=np.zeros(len(counts)),
        where=(share > 0) & (share < 1),
    )
    return int(between.argmax()) + 1 if between.any() else len(counts)


def kittler_illingworth(counts: Counts, values: NDArray[np.float64]) -> int:
    """The threshold of minimum error, if both classes are normal (Kittler and Illingworth, 1986).

    Args:
        counts: (bin,) pixels.
        values: (bin,) the bins' middles, rising.

    Returns:
        The first bin of the upper class; as many as there are bins where no threshold leaves two classes that vary.
    """
    share, mean, square = _below(counts, values)
    width = values[1] - values[0]
    inside = (share > LEAST_SHARE) & (share < 1 - LEAST_SHARE)
    lower, upper = np.where(inside, share, 1), np.where(inside, 1 - share, 1)
    variances = (
        square / lower - np.square(mean / lower),
        (square[-1] - square) / upper - np.square((mean[-1] - mean) / upper),
    )
    inside &= (variances[0] > width**2 / 12) & (variances[1] > width**2 / 12)
    if not inside.any():
        return len(counts)
    lower_variance, upper_variance = (np.where(inside, each, 1) for each in variances)
    error = (
        lower * np.log(lower_variance)
        + upper * np.log(upper_variance)
        - 2 * (lower * np.log(lower) + upper * np.log(upper))
    )
    return int(np.where(inside, error, np.inf).argmin()) + 1


def expectation_maximisation(counts: Counts, values: NDArray[np.float64]) -> int:
    """Bayes' threshold between two normal classes, fitted by expectation maximisation (Bruzzone and Prieto, 2000).

    Args:
        counts: (bin,) pixels.
        values: (bin,) the bins' middles, rising.

    Returns:
        The first bin above the lower class's mean that more likely is of the upper class; as many as there are bins
        where none is.
    """
    changed = (np.arange(len(counts)) >= otsu(counts, values)).astype(np.float64)
    width = values[1] - values[0]
    lower_mean = float(values[0])
    for _ in range(ROUNDS):
        parts = [counts * (1 - changed), counts * changed]
        sizes = [float(part.sum()) for part in parts]
        if min(sizes) <= LEAST_SHARE * sum(sizes):
            return len(counts)
        means = [float(part @ values) / size for part, size in zip(parts, sizes, strict=True)]
        variances = [
            float(part @ np.square(values - mean)) / size + width**2 / 12
            for part, mean, size in zip(parts, means, sizes, strict=True)
        ]
        lower, upper = (
            np.log(size) - 0.5 * np.log(variance) - 0.5 * np.square(values - mean) / variance
            for size, mean, variance in zip(sizes, means, variances, strict=True)
        )
        before, changed = changed, 1 / (1 + np.exp(np.clip(lower - upper, -50, 50)))
        lower_mean = means[0]
        if np.abs(changed - before).max() < SETTLED:
            break
    found = np.flatnonzero((changed > 0.5) & (values > lower_mean))
    return int(found[0]) if len(found) else len(counts)


def _below(counts: Counts, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Of the pixels up to each bin: their share, and their share of the mean and of the mean square."""
    shares = counts / max(1, int(counts.sum()))
    return np.cumsum(shares), np.cumsum(shares * values), np.cumsum(shares * np.square(values))
