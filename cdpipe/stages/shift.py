"""Estimates how far the second date of a pair lies off the first."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.formats.catalog import Pair
from cdpipe.formats.pixels import read_on_grid
from cdpipe.values.config import Config
from cdpipe.values.grid import Grid, Window

SIDE = 512  # of a window, in pixels
MIN_SIDE = 32  # below which there is too little to compare
MIN_OBSERVED = 0.9  # share of a window; the outline of gaps would be taken for structure

Grey = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """Median over windows: pixels down and right that the second date lies off, and a confidence (0 to 1)."""

    rows: float
    cols: float
    confidence: float

    @property
    def length(self) -> float:
        """Length in pixels."""
        return float(np.hypot(self.rows, self.cols))


def estimate_shift(pair: Pair, grid: Grid, config: Config) -> Shift | None:
    """Compare both dates by phase correlation in up to five windows.

    Args:
        pair: The pair.
        grid: Its grid.
        config: Its sections ``input`` and ``align``.

    Returns:
        The shift, or None where no window is observed well enough at both dates.

    Raises:
        InputError: If a file cannot be read there.
    """
    found = []
    for window in sample_windows(grid.shape):
        before, seen_before = read_on_grid(pair.before, pair.before_valid, grid, window, config)
        after, seen_after = read_on_grid(pair.after, pair.after_valid, grid, window, config)
        observed = seen_before & seen_after
        if observed.mean() >= MIN_OBSERVED and min(window.shape) >= MIN_SIDE:
            found.append(correlate(_grey(before, observed), _grey(after, observed)))
    return Shift(*np.median(found, 0).tolist()) if found else None


def sample_windows(shape: tuple[int, int]) -> list[Window]:
    """The middle of a scene, and the middles of its quarters, as far as they differ."""
    height, width = (min(SIDE, length) for length in shape)
    room = shape[0] - height, shape[1] - width
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
    origins = dict.fromkeys((int(room[0] * down), int(room[1] * right)) for down, right in places)
    return [Window(row, col, height, width) for row, col in origins]


def correlate(before: Grey, after: Grey) -> tuple[float, float, float]:
    """Shift between two images by phase correlation (Kuglin and Hines, 1975).

    Returns:
        Rows and columns that ``after`` lies off, and the peak's share of the correlation.
    """
    hanning = cv2.createHanningWindow(before.shape[::-1], cv2.CV_64F)
    (cols, rows), response = cv2.phaseCorrelate(before, after, hanning)
    return rows, cols, max(0.0, response)


def _grey(values: NDArray[Any], observed: NDArray[np.bool_]) -> Grey:
    """Mean of the bands, stretched between its 2nd and 98th percentile: glints would outweigh all else."""
    grey = values.mean(0, dtype=np.float64)
    low, high = np.percentile(grey[observed], [2, 98])
    stretched = ((grey - low) / max(high - low, 1e-9)).clip(0, 1)
    stretched[~observed] = stretched[observed].mean()
    return np.asarray(stretched - stretched.mean())
