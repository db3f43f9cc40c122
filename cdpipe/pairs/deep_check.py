"""Reads a whole pair before any work is done: shift, clouds, saturation, jumps of the radiometric offset, dates."""

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config, Input
from cdpipe.formats.dates import parse_time
from cdpipe.formats.gate import open_raster
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.coregistration import CONFIDENT, NOTICEABLE_PX, Shift, comparison_windows, measure_shift
from cdpipe.pairs.imagery import read_dates
from cdpipe.store.normalisation import RGB
from cdpipe.workspace.location import Location

# Sentinel-2 products and granules have the time of sensing after an underscore: S2A_MSIL1C_20170816T102021_...
SENTINEL_NAME = re.compile(r"(?:^|_)(20\d{2})(\d{2})(\d{2})T\d{6}(?:_|\.|$)")
DATE = re.compile(r"(\d{4})[-:/]?(\d{2})[-:/]?(\d{2})")
TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "DATE_ACQUIRED")
WRITTEN = "TIFFTAG_DATETIME"  # by many programs: when the file was made

EVERY = 16  # of the pixels of a window are looked at for levels
# Of Sentinel-2 products from processing baseline 04.00 (2022-01-25) on: RADIO_ADD_OFFSET is -1000 digital numbers.
OFFSET, OFFSET_TOLERANCE = 1000, 300
DARK = 1  # percentile: dark ground and shadows, which change less than anything else
# "Bright and white at one date alone": clouds are, but so are fresh snow and new roofs.
BRIGHT, WHITE = 2.5, 0.25  # times the median brightness of both dates; spread of the colours over their mean
CLOUDY, SATURATED = 0.005, 0.001  # shares that are worth a word
MOST_DAYS = 1  # between a file's date and the catalog's: time zones


@dataclass(frozen=True, slots=True)
class FileDate:
    """A date that a file has.

    Attributes:
        day: The day.
        where: What says so: ``name`` or a tag's name.
    """

    day: datetime.date
    where: str

    @property
    def is_certain(self) -> bool:
        """Whether it is the day that the image was taken, and not perhaps one on which it was processed."""
        return self.where != WRITTEN


def file_date(path: Location, settings: Input) -> FileDate | None:
    """The date that a raster's name or tags have, the most certain first; None where there is none.

    Raises:
        InputError: If it cannot be opened.
    """
    named = SENTINEL_NAME.search(path.name)
    day = named and _day(*named.groups())
    if day:
        return FileDate(day, "name")
    with open_raster(path, settings) as dataset:
        tags = {**dataset.tags(ns="IMAGERY"), **dataset.tags()}
    for tag in (*TAGS, WRITTEN):
        dated = DATE.match(tags.get(tag, ""))
        day = dated and _day(*dated.groups())
        if day:
            return FileDate(day, tag)
    return None


def _day(year: str, month: str, day: str) -> datetime.date | None:
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class DateLevels:
    """What the pixels of one date are like.

    Attributes:
        observed: Share of the pair's grid that is observed.
        cloud_like: Share of the observed pixels that are bright and white, and not so at the other date; None without
            red, green and blue.
        saturated: Share of the observed pixels at their band's highest value, of the band that has most of them.
    """

    observed: float
    cloud_like: float | None
    saturated: float


@dataclass(frozen=True, slots=True)
class DeepReport:
    """What reading all of a pair shows.

    Attributes:
        shift: From windows all over the scene, None where none is observed well enough.
        dates: Both dates.
        warnings: What may be wrong.
    """

    shift: Shift | None
    dates: tuple[DateLevels, DateLevels]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    """Counts of one date, window by window."""

    observed: int = 0
    cloud_like: int = 0
    tops: NDArray[Any] | None = None  # the highest value of each band
    at_top: NDArray[np.int64] | None = None  # pixels that have it


def inspect_pair(pair: Pair, grid: Grid, config: Config) -> DeepReport:
    """Read a pair in windows of a block's size and judge it; needs the memory of one window.

    Args:
        pair: The pair.
        grid: Its grid.
        config: Its sections ``input`` and ``align``.

    Raises:
        InputError: If a file cannot be read.
    """
    samples: tuple[list[NDArray[Any]], list[NDArray[Any]]] = [], []

    def read(window: Window) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        (before, seen_before), (after, seen_after) = read_dates(pair, grid, window, config)
        observed = seen_before & seen_after
        for sample, values in zip(samples, (before, after), strict=True):
            sample.append(values[:, observed][:, ::EVERY])
        return before, after, observed

    shift = measure_shift(read, comparison_windows(grid.shape))
    levels = [
        _physical(np.concatenate(sample, 1), source) if sample else np.empty((len(pair.roles), 0), np.float32)
        for sample, source in zip(samples, (pair.before, pair.after), strict=True)
    ]
    warnings = [*_doubt_dates(pair, config), *_doubt_shift(pair, shift, config)]
    median = None
    if all(date.size for date in levels):
        warnings += _doubt_offset(pair, (levels[0], levels[1]))
        median = _visible_median(pair, levels)
    before, after = (_levels(tally, grid, median is not None) for tally in _tally_dates(pair, grid, config, median))
    warnings += [*_doubt_levels(pair.before, before), *_doubt_levels(pair.after, after)]
    return DeepReport(shift, (before, after), tuple(warnings))


def _tally_dates(pair: Pair, grid: Grid, config: Config, median: float | None) -> tuple[_Tally, _Tally]:
    """Count the pixels of both dates; ``median`` of the visible bands, None where none can look like clouds."""
    tallies = _Tally(), _Tally()
    for window in tiles_in(Window(0, 0, *grid.shape), config.align.block):
        both = read_dates(pair, grid, window, config)
        bright = [
            _bright_and_white(pair, _physical(values, source), median) & observed
            for source, (values, observed) in zip((pair.before, pair.after), both, strict=True)
        ]
        for tally, own, (values, observed) in zip(tallies, (0, 1), both, strict=True):
            # what is bright and white at both dates is a roof or a beach: clouds move on
            _count(tally, values, observed, bright[own] & ~bright[1 - own])
    return tallies


def _physical(values: NDArray[Any], source: Source) -> NDArray[np.float32]:
    """Digital numbers with the sensor's offset taken into account, so that dates with and without it compare."""
    return np.asarray(values + np.float32(source.sensor.offset / source.sensor.scale), np.float32)


def _visible_median(pair: Pair, levels: Sequence[NDArray[np.float32]]) -> float | None:
    if not set(RGB) <= set(pair.roles):
        return None
    bands = [pair.roles.index(role) for role in RGB]
    return float(np.median([np.median(date[bands].mean(0)) for date in levels]))


def _bright_and_white(pair: Pair, values: NDArray[np.float32], median: float | None) -> NDArray[np.bool_]:
    if median is None:
        return np.zeros(values.shape[1:], np.bool_)
    colours = values[[pair.roles.index(role) for role in RGB]]
    mean = colours.mean(0)
    return np.asarray((mean > BRIGHT * median) & (np.ptp(colours, 0) < WHITE * mean))


def _count(tally: _Tally, values: NDArray[Any], observed: NDArray[np.bool_], cloud_like: NDArray[np.bool_]) -> None:
    pixels = values[:, observed]
    if not pixels.size:
        return
    tally.observed += pixels.shape[1]
    tally.cloud_like += int(cloud_like.sum())
    tops = pixels.max(1)
    at_top = (pixels == tops[:, None]).sum(1)
    if tally.tops is None or tally.at_top is None:
        tally.tops, tally.at_top = tops, at_top
        return
    higher = np.maximum(tally.tops, tops)
    tally.at_top = tally.at_top * (tally.tops == higher) + at_top * (tops == higher)
    tally.tops = higher


def _levels(tally: _Tally, grid: Grid, with_clouds: bool) -> DateLevels:
    if not tally.observed or tally.at_top is None:
        return DateLevels(0.0, None, 0.0)
    return DateLevels(
        tally.observed / (grid.height * grid.width),
        tally.cloud_like / tally.observed if with_clouds else None,
        float(tally.at_top.max()) / tally.observed,
    )


def _doubt_levels(source: Source, date: DateLevels) -> list[str]:
    doubts = []
    if date.cloud_like is not None and date.cloud_like > CLOUDY:
        share = f"{date.cloud_like:.1%} of its pixels are bright and white at this date alone"
        todo = "for clouds, name a raster of them as this date's valid raster in the catalog"
        doubts.append(f"{source.path}: {share}, as clouds are (and snow, new roofs); {todo}")
    if date.saturated > SATURATED:
        share = f"{date.saturated:.2%} of its pixels have a band's highest value"
        doubts.append(f"{source.path}: {share}: saturated, or nodata that no tag tells")
    return doubts


def _doubt_shift(pair: Pair, shift: Shift | None, config: Config) -> list[str]:
    if config.align.coregister == "auto" or shift is None:
        return []
    if shift.length <= NOTICEABLE_PX or shift.confidence <= CONFIDENT:
        return []
    off = f"{shift.rows:+.2f} rows and {shift.cols:+.2f} columns, {shift.agreeing:.0%} of {shift.windows} windows agree"
    return [f"{pair.after.path}: lies off the first date ({off}); align.coregister: auto corrects small shifts"]


def _doubt_offset(pair: Pair, levels: tuple[NDArray[np.float32], NDArray[np.float32]]) -> list[str]:
    """Whether one date has Sentinel-2's offset and the other not: dark ground is about 1000 higher in all bands."""
    before, after = (np.percentile(date, DARK, axis=1) for date in levels)
    jumps = after - before
    if (np.abs(np.abs(jumps) - OFFSET) > OFFSET_TOLERANCE).any() or len({*np.sign(jumps)}) > 1:
        return []
    source, darkest = (pair.after, after.min()) if jumps[0] > 0 else (pair.before, before.min())
    if darkest < OFFSET - OFFSET_TOLERANCE:
        return []
    listed = ", ".join(f"{role} {jump:+.0f}" for role, jump in zip(pair.roles, jumps, strict=True))
    offset = -OFFSET * source.sensor.scale
    higher = f"its dark pixels are higher than the other date's by about {OFFSET} in every band ({listed})"
    todo = f"give this date a sensor of its own with offset: {offset:g}"
    return [f"{source.path}: {higher}, as in Sentinel-2 products since 2022-01-25; {todo}"]


def _doubt_dates(pair: Pair, config: Config) -> list[str]:
    doubts = []
    first, second = (file_date(source.path, config.input) for source in (pair.before, pair.after))
    if pair.before.half is None and first and second and first.where == second.where and first.day > second.day:
        doubts.append(f"{pair.before.path}: {_say(first)}, after the second date, {second.day}; are the dates swapped?")
    for source, date, given in ((pair.before, first, pair.before_date), (pair.after, second, pair.after_date)):
        if date is None or given is None or not date.is_certain:
            continue
        if abs((date.day - parse_time(given).date()).days) > MOST_DAYS:
            doubts.append(f"{source.path}: {_say(date)}, the catalog says {given}")
    return doubts


def _say(date: FileDate) -> str:
    return f"its {'name' if date.where == 'name' else f'tag {date.where}'} says {date.day}"
