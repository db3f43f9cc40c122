"""Whether probabilities mean what they say: threshold curves, reliability, expected calibration error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.metrics.counts import ScoreHistogram, counts_by_threshold
from cdpipe.metrics.intervals import pixel_figures

BINS = 15  # as Guo et al. 2017 take


def threshold_curve(histogram: ScoreHistogram) -> dict[str, NDArray[np.float64]]:
    """Scores at every threshold of a histogram.

    Returns:
        threshold, iou, f1, precision, recall, kappa, and said: the share of pixels predicted to have changed; each
        (threshold,) float64, undefined scores NaN.
    """
    counts = np.array([(c.tp, c.fp, c.fn, c.tn) for c in counts_by_threshold(histogram)], np.float64)
    total = max(1.0, float(counts[0].sum()))
    predicted = (counts[:, 0] + counts[:, 1]) / total
    return {"threshold": np.array(histogram.thresholds), **pixel_figures(counts), "said": predicted}


def reliability(histogram: ScoreHistogram, bins: int = BINS) -> tuple[list[dict[str, Any]], float]:
    """How often pixels have changed where a probability says so many per cent (Guo et al. 2017, eqs 2, 3 and 5).

    For the class "change", as its probability is what is handed on: a bin's confidence is its mean probability, its
    accuracy the share of its pixels that have changed. A pixel's probability is taken for the middle of its histogram
    bin.

    Args:
        histogram: Of probabilities, over thresholds from 0 to 1.
        bins: How many bins of equal width.

    Returns:
        For each bin low, high, pixels, probability and changed (both None where no pixel is), and the expected
        calibration error: the mean over pixels of |probability - changed| of their bins, NaN without a pixel.
    """
    fine = len(histogram.changed) - 2
    changed, unchanged = (np.array(part, np.int64) for part in (histogram.changed, histogram.unchanged))
    # element k lies between thresholds k - 1 and k; the first and the last are probabilities below 0 and of exactly 1
    middle = np.clip((np.arange(fine + 2) - 0.5) / fine, 0.0, 1.0)
    place = np.minimum((middle * bins).astype(np.int64), bins - 1)
    pixels = np.bincount(place, changed + unchanged, bins)
    reference = np.bincount(place, changed, bins)
    predicted = np.bincount(place, (changed + unchanged) * middle, bins)
    table = [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "pixels": int(pixels[number]),
            "probability": predicted[number] / pixels[number] if pixels[number] else None,
            "changed": reference[number] / pixels[number] if pixels[number] else None,
        }
        for number in range(bins)
    ]
    total = float(pixels.sum())
    return table, float(np.abs(predicted - reference).sum() / total) if total else float("nan")
