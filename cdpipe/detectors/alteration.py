"""Multivariate alteration detection, once and iteratively reweighted.

Canonical correlation analysis (Hotelling, 1936) finds the combinations of the first date's bands and of the second's
that are most alike. What differs between them, the MAD variates (Nielsen, Conradsen and Simpson, 1998), depends on no
gain, offset or mixture of bands. Iterated (Nielsen, 2007), pixels weigh as much as they look unchanged.
"""

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.moments import MOST_WEIGHT, UNIT, covariance

NEGLIGIBLE = 1e-5  # of the largest variance: combinations of bands that vary less are what rounding leaves of copies
LEAST_VARIANCE = 1e-6  # of a MAD variate whose parts have variance 1: that of codes
ITERATIONS = 30
SETTLED = 1e-3  # the most that a canonical correlation still moves

Matrix = NDArray[np.float64]


def canonical_variates(joint: Matrix, first: int) -> tuple[Matrix, Matrix, Matrix]:
    """Combinations of two sets of variables that are correlated most.

    Args:
        joint: (variable, variable) covariance of both sets, the first set first.
        first: Variables of the first set.

    Returns:
        (variate, variable of the first set) and (variate, variable of the second): combinations of variance 1, by
        falling correlation; and (variate,) these correlations. As many variates as the smaller set has independent
        variables.
    """
    one, other = _whitening(joint[:first, :first]), _whitening(joint[first:, first:])
    left, correlations, right = np.linalg.svd(one @ joint[:first, first:] @ other.T, full_matrices=False)
    return left.T @ one, right @ other, correlations.clip(0, 1)


def _whitening(covariances: Matrix) -> Matrix:
    """(variable, band): combinations of variance 1 that are not correlated, without those that hardly vary."""
    variances, directions = np.linalg.eigh(covariances)
    kept = variances > NEGLIGIBLE * variances[-1]
    return np.asarray((directions[:, kept] / np.sqrt(variances[kept])).T)


def alteration(codes: Matrix, first: int, iterations: int = 1) -> tuple[Matrix, Matrix]:
    """Combinations of both dates' bands whose differences are the MAD variates.

    Args:
        codes: (band, pixel) of both dates, the first date's bands first; see :func:`cdpipe.detectors.moments.encode`.
        first: Bands of the first date.
        iterations: 1 for MAD; more for its reweighted form, which ends as soon as the correlations are settled.

    Returns:
        (variate, band of the first date) and (variate, band of the second), for values in spreads.
    """
    weights, before = None, np.zeros(0)
    for _ in range(iterations):
        mean, joint = covariance(codes, weights)
        one, other, correlations = canonical_variates(joint, first)
        if len(before) == len(correlations) and np.abs(correlations - before).max() < SETTLED:
            break
        before = correlations
        if iterations > 1:
            weights = no_change_weights(codes, mean, (one, other), correlations)
            if not weights.any():
                break
    return one, other


def no_change_weights(
    codes: Matrix, mean: Matrix, combinations: tuple[Matrix, Matrix], correlations: Matrix
) -> NDArray[np.float64]:
    """How much each pixel looks unchanged: the chance of a chi-square at least that of its standardised MAD variates.

    Args:
        codes: (band, pixel) of both dates.
        mean: (band,) in spreads.
        combinations: See :func:`canonical_variates`.
        correlations: Likewise.

    Returns:
        (pixel,) whole numbers from 0 to ``MOST_WEIGHT``.
    """
    from scipy.special import chdtrc

    one, other = combinations
    deviations = np.sqrt(np.maximum(2 * (1 - correlations), LEAST_VARIANCE))
    difference = np.hstack([one, -other]) / deviations[:, None]
    variates = difference @ (codes / UNIT - mean[:, None])
    return np.asarray(np.rint(MOST_WEIGHT * chdtrc(len(variates), np.square(variates).sum(0))))
