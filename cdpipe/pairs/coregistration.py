"""How far a pair's second date lies off the first, and whether it is moved onto it: only where that is sure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import spread_tiles
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.imagery import read_dates
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace

SIDE = 512  # of a window, in pixels
MIN_SIDE = 32  # below which there is too little to compare
MIN_OBSERVED = 0.9  # share of a window; the outline of gaps would be taken for structure
CONFIDENT = 0.1  # measured: a confidence of 0.13 and more was right, of 0.07 and less was not
NEAR_PX = 0.5  # within which a window agrees with the others
NOTICEABLE_PX = 1.0  # off by more is worth a word, where it is not corrected
SIDES = (SIDE, SIDE // 2, SIDE // 4)  # of windows, in pixels: the first of which there are enough
ENOUGH_WINDOWS, MOST_WINDOWS = 9, 25
LEAST_WINDOWS = 4  # that a correction may rest on
LEAST_PX = 0.2  # resampling blurs: a smaller shift is not worth that
MOST_PX = 3.0  # what lies further off is a mistake in the georeference, for a person to look at
LEAST_AGREEING = 0.6  # share of the windows that must be within half a pixel of the others
MOST_SPREAD = 0.25  # px
MOST_LEFT = 0.5  # share of the shift that may be left when it is measured again
DIGITS = 2  # hundredths of a pixel: less is chance

Grey = NDArray[np.float64]
# Reads a window: both dates, each (band, height, width), and (height, width) where both are observed.
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


MeasureShift = Callable[[Pair, Grid, Config], Shift | None]


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
    return measure_shift(_reader(pair, grid, config), sample_windows(grid.shape))


def measure_shift(read: Read, windows: Sequence[Window]) -> Shift | None:
    """Compare both dates by phase correlation in some windows, which may be read from anywhere.

    Args:
        read: Reads a window.
        windows: The windows.

    Returns:
        The shift, or None where no window is observed well enough at both dates.
    """
    shifts = []
    for window in windows:
        if min(window.shape) < MIN_SIDE:
            continue
        before, after, observed = read(window)
        if observed.mean() >= MIN_OBSERVED:
            shifts.append(correlate(_grey(before, observed), _grey(after, observed)))
    return _judge(np.array(shifts)) if shifts else None


def _judge(shifts: NDArray[np.float64]) -> Shift:
    """The shift that windows speak for: (windows, 3) of rows, columns and confidence."""
    sure = shifts[:, 2] > CONFIDENT
    telling = shifts[sure] if sure.any() else shifts
    rows, cols = np.median(telling[:, :2], 0).tolist()
    away = np.hypot(shifts[:, 0] - rows, shifts[:, 1] - cols)
    spread = float(np.median(away[sure] if sure.any() else away))
    agreeing = float((sure & (away <= NEAR_PX)).mean())
    return Shift(rows, cols, float(np.median(shifts[:, 2])), spread, agreeing, len(shifts))


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

    Args:
        before: (height, width).
        after: Likewise.

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


@dataclass(frozen=True, slots=True)
class Correction:
    """What coregistration decided of a pair.

    Attributes:
        rows: Pixels of the pair's grid, down, that the second date is taken to lie off; 0 where it is left as it is.
        cols: Likewise to the right.
        reason: Why it is moved, or left, in words.
        windows: How many windows were compared.
        agreeing: Share of them that agree on a shift.
        spread: Median distance in pixels of single windows from that shift; NaN without windows.
    """

    rows: float
    cols: float
    reason: str
    windows: int
    agreeing: float
    spread: float

    @property
    def moved(self) -> bool:
        """Whether the second date is moved."""
        return (self.rows, self.cols) != (0.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`known_corrections` understands."""
        return asdict(self)


def known_corrections(workspace: Workspace) -> dict[str, Correction]:
    """The corrections that are known, by the keys of :func:`cdpipe.pairs.plan.coregistration_key`."""
    remembered = read_json(workspace.corrections)
    values = remembered.items() if isinstance(remembered, dict) else ()
    return {key: Correction(**value) for key, value in values}


def remember_corrections(workspace: Workspace, decided: Mapping[str, Correction]) -> None:
    """Add to the corrections that are known."""
    known = {**known_corrections(workspace), **decided}
    write_json(workspace.corrections, {key: correction.to_json() for key, correction in known.items()})


def find_correction(pair: Pair, grid: Grid, config: Config) -> Correction:
    """Measure a pair's shift in windows all over the scene, and see that the second date moved by it lies better.

    The windows are tiles of the pair's grid, so that nothing depends on blocks, workers or order.

    Args:
        pair: The pair.
        grid: Its grid.
        config: Its sections ``input`` and ``align``.

    Returns:
        What to do, and why.

    Raises:
        InputError: If a file cannot be read there.
    """
    windows = comparison_windows(grid.shape)
    first = measure_shift(_reader(pair, grid, config), windows)
    doubt = _doubt(first)
    if first is None or doubt is not None:
        return _decide(first, (0.0, 0.0), doubt or "")
    again = measure_shift(_reader(pair, grid, config, (first.rows, first.cols)), windows)
    if again is None or again.length > MOST_LEFT * first.length:
        left = "nothing" if again is None else f"{again.length:.2f} px"
        return _decide(first, (0.0, 0.0), f"unsure: moved by {first.length:.2f} px it would lie off by {left}")
    moved = round(first.rows, DIGITS), round(first.cols, DIGITS)
    return _decide(first, moved, f"lies off by {moved[0]:+.2f} rows and {moved[1]:+.2f} columns")


def _doubt(shift: Shift | None) -> str | None:
    """Why a pair is left as it is; None if it is to be moved."""
    if shift is None:
        return "unsure: no window is observed well enough at both dates"
    length, windows = shift.length, shift.windows
    reasons = (
        (windows < LEAST_WINDOWS, f"unsure: {windows} window(s) to compare, expected at least {LEAST_WINDOWS}"),
        (
            shift.agreeing < LEAST_AGREEING,
            f"unsure: {shift.agreeing:.0%} of {windows} windows agree, expected {LEAST_AGREEING:.0%}",
        ),
        (
            shift.spread > MOST_SPREAD,
            f"unsure: windows lie {shift.spread:.2f} px apart, expected at most {MOST_SPREAD}: no one shift mends that",
        ),
        (
            length > MOST_PX,
            f"too far off: {length:.1f} px, of which at most {MOST_PX:g} are corrected; mend the georeference",
        ),
        (length < LEAST_PX, f"lies well: {length:.2f} px off"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def _decide(shift: Shift | None, moved: tuple[float, float], reason: str) -> Correction:
    if shift is None:
        return Correction(*moved, reason, 0, 0.0, 0.0)
    return Correction(*moved, reason, shift.windows, round(shift.agreeing, 3), round(shift.spread, 3))


def comparison_windows(shape: tuple[int, int]) -> list[Window]:
    """Windows all over a scene: large ones where there is room for enough of them."""
    for side in SIDES:
        windows = spread_tiles(shape, side, MOST_WINDOWS)
        if len(windows) >= ENOUGH_WINDOWS:
            break
    return windows


def _reader(pair: Pair, grid: Grid, config: Config, shift: tuple[float, float] = (0.0, 0.0)) -> Read:
    def read(window: Window) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        (before, seen_before), (after, seen_after) = read_dates(pair, grid, window, config, shift)
        return before, after, seen_before & seen_after

    return read


def describe_corrections(decided: Mapping[str, Correction]) -> Iterator[str]:
    """A line for each pair that does not lie well, and one for all."""
    moved = sum(correction.moved for correction in decided.values())
    for pair_id, correction in decided.items():
        if not correction.reason.startswith("lies well"):
            what = "is moved" if correction.moved else "is left as it is"
            yield f"coregister: {pair_id} {what}: {correction.reason}"
    yield f"coregister: {moved} of {len(decided)} pair(s) are moved"
