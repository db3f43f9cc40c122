"""What a quality raster is like over its pair, and whether it says what its owner means."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.quality import QUALITY_PRESETS, QualityPreset, named_presets
from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import grid_of
from cdpipe.geo.crs import covered_share, project_positions
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.geo.turns import meeting_turns, turned
from cdpipe.pairs.catalog import Source
from cdpipe.pairs.quality import QualityPart, Rule, open_quality, rule_of
from cdpipe.workspace.location import Location

# Unusable, from which on a word is due: masks of 0 and 1 are easily read the wrong way round, unless it is said how.
MUCH, ALMOST_ALL = 0.5, 0.99
COVERED = 0.999  # told from 64 x 64 points
MANY = 16  # values that no list of classes has; probabilities and bits do
COUNTED = 4096  # different values
SHOWN = 6
OUTLINE = 33  # points along each side of the pair whose places in the quality raster are computed


@dataclass(slots=True)
class _Tally:
    """Counts over the pixels of a quality raster that lie over its pair."""

    pixels: int = 0
    usable: int = 0
    nodata: int = 0
    values: Counter[float] = field(default_factory=Counter)
    more: bool = False  # than were counted
    lowest: float = np.inf
    highest: float = -np.inf


def doubt_quality(path: Location, source: Source, own_grid: Grid, grid: Grid, settings: Input) -> list[str]:
    """Read what of a quality raster lies over a pair, in windows, and tell what may be wrong with it.

    Args:
        path: The raster.
        source: Its date.
        own_grid: The grid on which a raster without georeference lies.
        grid: The pair's grid.
        settings: Which files may be opened.

    Returns:
        Doubts, each beginning with the file.

    Raises:
        InputError: If it cannot be read, lies outside of the pair, or its values cannot be what the sensor says.
    """
    tally = _Tally()
    with open_quality(path, source, settings) as (info, read):
        place = grid_of(info, own_grid, "its date's raster")
        window = _over(place, grid)
        if window is None:
            raise InputError(f"{path}: a quality raster that lies outside of the pair; expected one that covers it")
        _count(tally, read, window, whole=not rule_of(source.sensor).is_threshold)
    doubts = [*_doubt_name(path, source), *_doubt_values(tally, source), *_doubt_share(tally, source)]
    covered = covered_share(place, grid)
    if covered < COVERED:
        doubts.append(f"covers {covered:.0%} of the pair; what lies outside of it counts as not observed")
    return [f"{path}: {doubt}" for doubt in doubts]


def _over(place: Grid, grid: Grid) -> Window | None:
    """The pixels of a raster that lie over a grid, None if there are none."""
    if place.crs == grid.crs:
        place = turned(place, meeting_turns(place, grid)[0])
    steps = np.linspace(0, 1, OUTLINE)
    rows, cols = np.meshgrid(steps * grid.height, steps * grid.width, indexing="ij")
    places = np.stack(project_positions(grid, place, rows, cols), -1).reshape(-1, 2)
    known = places[np.isfinite(places).all(1)]
    if not known.size:
        return None
    top, left = np.fmax(np.floor(known.min(0)), 0)
    bottom, right = np.fmin(np.ceil(known.max(0)), place.shape)
    if top >= bottom or left >= right:
        return None
    return Window(int(top), int(left), int(bottom - top), int(right - left))


def _count(tally: _Tally, read: Callable[[Window], QualityPart], window: Window, *, whole: bool) -> None:
    for tile in tiles_in(window, 4 * TILE):
        common = tile.intersect(window)
        if common is None:
            continue
        part = read(common)
        tally.pixels += part.usable.size
        tally.usable += int(part.usable.sum())
        tally.nodata += int((~part.present).sum())
        found = part.values[0][part.present]
        if not found.size:
            continue
        tally.lowest, tally.highest = min(tally.lowest, float(found.min())), max(tally.highest, float(found.max()))
        values, times = _unique(found) if whole else (found[:0], found[:0])
        tally.more |= len(values) > COUNTED
        for value, number in zip(values[:COUNTED].tolist(), times[:COUNTED].tolist(), strict=True):
            if value in tally.values or len(tally.values) < COUNTED:
                tally.values[value] += number
            else:
                tally.more = True


def _unique(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:  # many times faster than sorting
        times = np.bincount(values)
        return np.flatnonzero(times), times[times > 0]
    return np.unique(values, return_counts=True)


def _doubt_name(path: Location, source: Source) -> list[str]:
    """What the file's name tells where the sensor says nothing of its quality rasters."""
    sensor = source.sensor
    presets = named_presets(path.name)
    if sensor.quality is not None or sensor.unusable is not None or presets is None:
        return []
    setting = f"sensors.{source.sensor_name}.quality"
    if not presets:
        todo = f"a probability; give {setting}: {{above: ...}}"
    else:
        known = " or ".join(f"{setting}: {name} ({QUALITY_PRESETS[name].what})" for name in presets)
        other = f", or sensors.{source.sensor_name}.unusable with the values that are cloud" if len(presets) > 1 else ""
        todo = f"a known product; give {known}{other}"
    return [f"only 0 counts as unusable (the default), but its name looks like {todo}"]


def _doubt_values(tally: _Tally, source: Source) -> list[str]:
    rule, setting = rule_of(source.sensor), f"sensors.{source.sensor_name}.quality"
    if rule.is_threshold:
        return _doubt_threshold(tally, rule, setting)
    if rule.preset is not None and rule.known is not None:
        unknown = {value: n for value, n in tally.values.items() if value not in rule.known}
        means = f"no class of {rule.preset.what} and counts as unusable"
        right = f"is {setting} the right preset{_other_preset(rule.preset)}?"
        return [f"{_shown(unknown, tally, None)} is {means}; {right}"] if unknown else []
    if rule.preset is None and all(flag.whole for flag in rule.flags) and len(tally.values) > MANY:
        number = f"{'more than ' if tally.more else ''}{len(tally.values)} different values"
        todo = f"for a probability give {setting}: {{above: ...}}, for bits a preset or {setting}: {{bits: [...]}}"
        return [f"has {number}, {tally.lowest:g} to {tally.highest:g}, more than classes have; {todo}"]
    return []


def _other_preset(preset: QualityPreset | None) -> str:
    pairs = ("fmask", "python_fmask")
    other = [name for name in pairs if QUALITY_PRESETS[name] is not preset]
    return f" (or {other[0]})" if len(other) == 1 else ""


def _doubt_threshold(tally: _Tally, rule: Rule, setting: str) -> list[str]:
    limits = [limit for limit in (rule.above, rule.below) if limit is not None]
    if tally.lowest > tally.highest:  # no value at all
        return []
    given = " and ".join(f"{limit:g}" for limit in limits)
    values = f"its values are {tally.lowest:.3g} to {tally.highest:.3g}, on another scale than {given} ({setting})"
    if max(limits) > 1 >= tally.highest:
        return [f"{values}; is {max(limits) / 100:g} meant?"]
    if 0 < max(limits) <= 1 and tally.highest > 2:
        return [f"{values}; is {max(limits) * 100:g} meant?"]
    return []


def _doubt_share(tally: _Tally, source: Source) -> list[str]:
    """Whether next to nothing, or next to all, is unusable."""
    rule = rule_of(source.sensor)
    unusable = 1 - tally.usable / tally.pixels
    if 0 < unusable < (MUCH if source.sensor.quality is None else ALMOST_ALL):
        return []
    values = _values(tally, rule)
    what = f"sensors.{source.sensor_name}.{'unusable' if source.sensor.quality is None else 'quality'}"
    if unusable == 0:
        return [f"no pixel of it is unusable: it has {values}; does {what} say what is?"]
    return [f"{_percent(unusable)} of it is unusable: it has {values}; does {what} say what is?"]


def _values(tally: _Tally, rule: Rule) -> str:
    parts = []
    if tally.nodata:
        parts.append(f"no data of its own ({_percent(tally.nodata / tally.pixels)})")
    if rule.is_threshold and tally.lowest <= tally.highest:
        parts.append(f"values from {tally.lowest:.4g} to {tally.highest:.4g}")
    elif tally.values:
        parts.append(_shown(tally.values, tally, rule.preset))
    return ", ".join(parts)


def _shown(values: dict[float, int], tally: _Tally, preset: QualityPreset | None) -> str:
    """The most frequent values with their names and shares."""
    frequent = sorted(values.items(), key=lambda each: -each[1])
    parts = []
    for value, number in frequent[:SHOWN]:
        name = preset.name_of(value) if preset else ""
        parts.append(f"{value:g}{f' {name}' if name else ''} ({_percent(number / tally.pixels)})")
    return ", ".join([*parts, *(["..."] if len(frequent) > SHOWN else [])])


def _percent(share: float) -> str:
    """A share in percent that reads 0 or 100 only where it is."""
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{min(max(share, 0.0001), 0.9999):.{0 if 0.01 <= share < 0.99 else 2}%}"
