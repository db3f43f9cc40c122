"""Decides whether a pair's second date is moved onto the first, and by how much: only where that is sure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.formats.catalog import Pair
from cdpipe.formats.corrections import Correction
from cdpipe.formats.pixels import read_on_grid
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import spread_tiles
from cdpipe.stages.shift import SIDE, Read, Shift, measure_shift

SIDES = (SIDE, SIDE // 2, SIDE // 4)  # of windows, in pixels: the first of which there are enough
ENOUGH_WINDOWS, MOST_WINDOWS = 9, 25
LEAST_WINDOWS = 4  # that a correction may rest on
LEAST_PX = 0.2  # resampling blurs: a smaller shift is not worth that
MOST_PX = 3.0  # what lies further off is a mistake in the georeference, for a person to look at
LEAST_AGREEING = 0.6  # share of the windows that must be within half a pixel of the others
MOST_SPREAD = 0.25  # px
MOST_LEFT = 0.5  # share of the shift that may be left when it is measured again
DIGITS = 2  # hundredths of a pixel: less is chance


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
    found = (spread_tiles(shape, side, MOST_WINDOWS) for side in SIDES)
    return next(
        (windows for windows in found if len(windows) >= ENOUGH_WINDOWS), spread_tiles(shape, SIDES[-1], MOST_WINDOWS)
    )


def _reader(pair: Pair, grid: Grid, config: Config, shift: tuple[float, float] = (0.0, 0.0)) -> Read:
    def read(window: Window) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        before, seen_before = read_on_grid(pair.before, pair.before_valid, grid, window, config)
        after, seen_after = read_on_grid(pair.after, pair.after_valid, grid, window, config, shift)
        return before, after, seen_before & seen_after

    return read
