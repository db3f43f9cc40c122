"""Estimates how far the second date of a pair lies off the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.formats.catalog import Pair
from cdpipe.formats.pixels import read_on_grid
from cdpipe.geo.grid import Grid, Window

SIDE = 512  # of a window, in pixels
MIN_SIDE = 32  # below which there is too little to compare
MIN_OBSERVED = 0.9  # share of a window; the outline of gaps would be taken for structure
CONFIDENT = 0.1  # measured: a confidence of 0.13 and more was right, of 0.07 and less was not
NEAR_PX = 0.5  # within which a window agrees with the others

Grey = NDArray[np.float64]
# both dates of a window, each (band, height, width), and (height, width) where both are observed
Read = Callable[[Window], tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the second date lies off, from several windows.

    Attributes:
        rows: Pixels down, the median of the windows whose confidence is enough (of all where none is).
        cols: Pixels right, likewise.
        confidence: Median confidence of the windows, 0 to 1.
        spread: Median distance in pixels of those windows from that median.
        agreeing: Share of all windows that have enough confidence and lie within half a pixel of the median.
        windows: How many were compared.
    """

    rows: float
    cols: float
    confidence: float
    spread: float
    agreeing: float
    windows: int

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

    def read(window: Window) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        before, seen_before = read_on_grid(pair.before, pair.before_valid, grid, window, config)
        after, seen_after = read_on_grid(pair.after, pair.after_valid, grid, window, config)
        return before, after, seen_before & seen_after

    return measure_shift(read, sample_windows(grid.shape))


def measure_shift(read: Read, windows: Sequence[Window]) -> Shift | None:
    """Compare both dates by phase correlation in some windows, which may be read from anywhere.

    Args:
        read: Reads a window.
        windows: The windows.

    Returns:
        The shift, or None where no window is observed well enough at both dates.
    """
    found = []
    for window in windows:
        if min(window.shape) < MIN_SIDE:
            continue
        before, after, observed = read(window)
        if observed.mean() >= MIN_OBSERVED:
            found.append(correlate(_grey(before, observed), _grey(after, observed)))
    return _judge(np.array(found)) if found else None


def _judge(found: NDArray[np.float64]) -> Shift:
    """The shift that windows (rows, columns, confidence) speak for."""
    sure = found[:, 2] > CONFIDENT
    telling = found[sure] if sure.any() else found
    rows, cols = np.median(telling[:, :2], 0).tolist()
    away = np.hypot(found[:, 0] - rows, found[:, 1] - cols)
    spread = float(np.median(away[sure] if sure.any() else away))
    agreeing = float((sure & (away <= NEAR_PX)).mean())
    return Shift(rows, cols, float(np.median(found[:, 2])), spread, agreeing, len(found))


def sample_windows(shape: tuple[int, int]) -> list[Window]:
    """The middle of a scene, and the middles of its quarters, as far as they differ."""
    height, width = (min(SIDE, length) for length in shape)
    room = shape[0] - height, shape[1] - width
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
    origins = dict.fromkeys((int(room[0] * down), int(room[1] * right)) for down, right in places)
    return [Window(row, col, height, width) for row, col in origins]


def correlate(before: Grey, after: Grey) -> tuple[float, float, float]:
    """Shift between two images by phase correlation (Kuglin and Hines, 1975), refined below a pixel.

    The refinement is that of Hrazdíra et al. (2020): on Sentinel-2 pairs that were moved by known parts of a pixel
    it was within 0.06 px, where the centroid of the peak was up to 0.4 px off.

    Returns:
        Rows and columns that ``after`` lies off, and the peak's share of the correlation.
    """
    hanning = cv2.createHanningWindow(before.shape[::-1], cv2.CV_64F)
    _, response = cv2.phaseCorrelate(before, after, hanning)
    if not response > 0:  # one of them is flat
        return 0.0, 0.0, 0.0
    cols, rows = cv2.phaseCorrelateIterative(before * hanning, after * hanning)
    return float(rows), float(cols), float(response)


def _grey(values: NDArray[Any], observed: NDArray[np.bool_]) -> Grey:
    """Mean of the bands, stretched between its 2nd and 98th percentile: glints would outweigh all else."""
    grey = values.mean(0, dtype=np.float64)
    low, high = np.percentile(grey[observed], [2, 98])
    stretched = ((grey - low) / max(high - low, 1e-9)).clip(0, 1)
    stretched[~observed] = stretched[observed].mean()
    return np.asarray(stretched - stretched.mean())
