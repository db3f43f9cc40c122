"""Confidence intervals over pairs: pairs are drawn again and again, and figures computed of what was drawn.

Pixels of one scene are alike, so pixels are not what is drawn: the pairs are (a cluster bootstrap; Efron and
Tibshirani 1993, ch. 13, percentile intervals). With few pairs such intervals are somewhat too narrow, with fewer than
:data:`FEWEST` there are none.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of confidence
SIGMAS = 1.96  # of a normal distribution, within which that share lies (as Olofsson et al. 2014 round it)
# Of three pairs the same is drawn three times once in 27, oftener than what lies beyond an interval's end (1 in 40):
# the ends are figures of single pairs then. Of four that is once in 256.
FEWEST = 4
REPLICATES = 2000
SEED = 0
DRAWS_AT_ONCE = 1 << 22  # numbers that are drawn at once, which bounds memory

Values = NDArray[np.float64]
Figures = Callable[[Values], Mapping[str, Values]]
Interval = tuple[float, float]


def intervals_over_pairs(values: Values, figures: Figures, seed: int = SEED) -> dict[str, Interval | None]:
    """Percentile intervals of figures that follow from sums over pairs.

    Args:
        values: (pair, column), such as counts, always in the same order of pairs: the draws go by position.
        figures: Takes sums (draw, column) and gives figures (draw,) by name; NaN where one is undefined.
        seed: Of the draws; figures that are to be compared need the same.

    Returns:
        (low, high) of each figure at the level :data:`LEVEL`; None with fewer than :data:`FEWEST` pairs, or where
        the figure is undefined in every draw. Draws in which it is undefined do not count.
    """
    if len(values) < FEWEST:
        return dict.fromkeys(figures(np.zeros((1, values.shape[1]))))
    drawn = [figures(sums) for sums in _draws(values, seed)]
    intervals: dict[str, Interval | None] = {}
    for name in drawn[0]:
        values_drawn = np.concatenate([part[name] for part in drawn])
        defined = values_drawn[~np.isnan(values_drawn)]
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if defined.size else (0.0, 0.0)
        intervals[name] = (float(low), float(high)) if defined.size else None
    return intervals


def _draws(values: Values, seed: int) -> Iterator[Values]:
    """Sums over as many pairs as there are, drawn with replacement: (draw, column), some draws at a time."""
    random, pairs = np.random.default_rng(seed), len(values)
    step = max(1, DRAWS_AT_ONCE // pairs)
    for start in range(0, REPLICATES, step):
        count = min(step, REPLICATES - start)
        chosen = random.integers(0, pairs, (count, pairs)) + pairs * np.arange(count)[:, None]
        times = np.bincount(chosen.ravel(), minlength=count * pairs).reshape(count, pairs)
        yield times.astype(np.float64) @ values


def pixel_figures(counts: Values) -> dict[str, Values]:
    """IoU, F1, precision, recall and kappa of counts; see :class:`cdpipe.metrics.counts.Counts`.

    Args:
        counts: (..., 4): tp, fp, fn, tn.

    Returns:
        Each (...) float64, NaN where it is undefined.
    """
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    return {
        "iou": share(tp, tp + fp + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "kappa": share(2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)),
    }


def share(part: Values, whole: Values) -> Values:
    """Quotients of (...) and (...), NaN where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0))
