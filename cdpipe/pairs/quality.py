"""Quality rasters: cloud masks, scene classifications and quality bits that say which pixels to use."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.quality import QUALITY_PRESETS, Flag, QualityPreset, plain_name
from cdpipe.config.schema import Input, Quality, Sensor
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, describe_dataset, open_raster, read_values
from cdpipe.formats.gate import grid_of as grid_of_raster
from cdpipe.formats.observed import has_data, open_mask
from cdpipe.formats.vector_gate import is_vector
from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.grid import Grid, Window
from cdpipe.pairs.catalog import Source
from cdpipe.workspace.location import Location

WHOLE_NUMBERS = 2**53  # above which not every whole number is a float
SHOWN_BANDS = 12


@dataclass(frozen=True, slots=True)
class Rule:
    """What the values of a sensor's quality rasters mean.

    Attributes:
        flags: What is not used; or, if ``wanted``, what alone is used.
        wanted: Which of the two.
        never: What is not used besides: nothing was observed there.
        above: Values above it are not used; so are those under ``below``.
        below: See ``above``.
        band: Which band the values are in, by number or description; None where the file has only one.
        preset: The preset, None where the sensor names none.
        known: Values that mean something, None where all do: others are not used.
        counted: Values that count even where the file calls them nodata.
    """

    flags: tuple[Flag, ...] = ()
    wanted: bool = False
    never: tuple[Flag, ...] = ()
    above: float | None = None
    below: float | None = None
    band: int | str | None = None
    preset: QualityPreset | None = None
    known: frozenset[int] | None = None
    counted: frozenset[int] = frozenset()

    @property
    def is_threshold(self) -> bool:
        """Whether values are compared with thresholds, and so need not be whole numbers."""
        return self.above is not None or self.below is not None


def rule_of(sensor: Sensor) -> Rule:
    """What a sensor's settings ``unusable`` and ``quality`` say."""
    quality = sensor.quality or Quality(unusable=(0,) if sensor.unusable is None else sensor.unusable)
    preset = QUALITY_PRESETS[quality.preset] if quality.preset else None
    chosen = quality.unusable if quality.usable is None else quality.usable
    if chosen is None and quality.bits is None:
        if preset is None:
            chosen = () if quality.above is not None or quality.below is not None else (0,)
        else:
            chosen = preset.usable or preset.unusable
    by_default = quality.unusable is None and quality.bits is None
    wanted = quality.usable is not None or (by_default and preset is not None and bool(preset.usable))
    flags = [_flag(value, preset) for value in chosen or ()] + [_bit(bit, preset) for bit in quality.bits or ()]
    # what is wanted in a band of its own is not set where nothing was observed
    fill = [] if preset is None or (wanted and preset.has_bands) else [preset.flags[name] for name in preset.fill]
    never = [flag for flag in fill if not (wanted and flag in flags)]
    named = {flag.equals for flag in ({} if preset is None else preset.flags).values() if flag.whole}
    refused = {flag.equals for flag in (*flags, *never) if flag.whole}
    own = {flag.equals for flag in flags if flag.whole}
    return Rule(
        tuple(flags),
        wanted,
        tuple(never),
        quality.above,
        quality.below,
        quality.band,
        preset,
        frozenset(named | own) if preset and preset.has_classes else None,
        frozenset(own if wanted else named - refused),
    )


def _flag(value: int | str, preset: QualityPreset | None) -> Flag:
    return preset.flags[plain_name(value)] if preset and isinstance(value, str) else Flag(int(value))


def _bit(bit: int | str, preset: QualityPreset | None) -> Flag:
    return preset.flags[plain_name(bit)] if preset and isinstance(bit, str) else Flag(1 << int(bit), 1 << int(bit))


@dataclass(frozen=True, slots=True)
class QualityPart:
    """A window of a quality raster.

    Attributes:
        values: (band, height, width), as they are stored; where a threshold decides, as the file scales them.
        present: (height, width), False at the raster's own nodata.
        usable: (height, width), where a pixel may be used; False where not present.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]
    usable: NDArray[np.bool_]


@contextmanager
def open_quality(
    path: Location, source: Source, settings: Input
) -> Iterator[tuple[RasterInfo, Callable[[Window], QualityPart]]]:
    """Open a quality raster.

    Args:
        path: The raster.
        source: Its date, whose sensor says what the values mean.
        settings: Which files may be opened.

    Yields:
        What the raster says of itself, and what reads a window of its own pixels.

    Raises:
        InputError: If the file is missing or damaged, or it is not clear which of its bands to use; so does the reader,
            also where values are no classes.
    """
    rule = rule_of(source.sensor)
    if is_vector(path):
        raise InputError(
            f"{path}: expected a quality raster, got a vector file; burn it into one on the date's grid "
            "(gdal_rasterize -burn 1 -ot Byte), of which 1 is not used (unusable: [1])"
        )
    with open_raster(path, settings) as dataset:
        info = describe_dataset(path, dataset, settings)
        bands, rule = _placed(rule, info, source, dataset)
        # a value that the sensor calls usable counts, although the file calls it nodata
        nodata = [tag if tag not in rule.counted else None for tag in (dataset.nodatavals[band - 1] for band in bands)]
        scales = [(dataset.scales[band - 1], dataset.offsets[band - 1]) for band in bands]
        with open_mask(dataset, path, info.mask.without(bands)) as read_mask:

            def read(part: Window) -> QualityPart:
                observed = read_mask(part)
                if not bands:
                    return QualityPart(observed[None].astype(np.uint8), np.ones(part.shape, np.bool_), observed)
                values = read_values(dataset, path, bands, part)
                present = has_data(values, nodata) & observed
                if rule.is_threshold:
                    values = _scaled(values, scales[0])
                    usable = _within(values[0], rule)
                else:
                    _require_classes(values, present, path, source)
                    usable = _usable(values, bands, rule)
                return QualityPart(values, present, usable & present)

            yield info, read


def read_usable(
    path: Location, source: Source, own_grid: Grid, where: tuple[Grid, Window], settings: Input
) -> NDArray[np.bool_]:
    """Where a quality raster says that a pixel may be used; nowhere outside of it, nor where it has nodata.

    Args:
        path: The quality raster, by its own georeference or else of its date's size.
        source: The date, whose sensor says what the values mean.
        own_grid: The grid on which a raster without georeference lies.
        where: The pair's grid, and pixels of it.
        settings: Which files may be opened.

    Returns:
        (height, width), True where usable; from the nearest pixel, the same whatever the window.

    Raises:
        InputError: If the file is missing, damaged or does not fit, or its values cannot be what the sensor says.
    """
    with open_quality(path, source, settings) as (info, read_part):

        def read(part: Window) -> Pixels:
            usable = read_part(part).usable
            return usable[None].astype(np.uint8), np.ones(part.shape, np.bool_)

        raster = WarpSource(str(path), grid_of_raster(info, own_grid, "its date's raster"), 1, np.uint8, read)
        usable, _ = read_warped(raster, *where, "nearest")  # 0 outside of it
    return np.asarray(usable[0] == 1)


def _placed(rule: Rule, info: RasterInfo, source: Source, dataset: Any) -> tuple[tuple[int, ...], Rule]:
    """The bands to read, none if the file's mask says it all, and the rule with the numbers that they have there."""
    if rule.preset is not None and rule.preset.has_bands:
        wanted = {flag.band for flag in (*rule.flags, *rule.never)}
        numbers = {band: _preset_band(band, rule.preset, info.path, dataset) for band in sorted(wanted)}
        flags, never = (
            tuple(replace(flag, band=numbers[flag.band]) for flag in each) for each in (rule.flags, rule.never)
        )
        return tuple(sorted(set(numbers.values()))), replace(rule, flags=flags, never=never)
    band = _band(rule, info, source, dataset)
    flags, never = (tuple(replace(flag, band=band or 1) for flag in each) for each in (rule.flags, rule.never))
    return () if band is None else (band,), replace(rule, flags=flags, never=never)


def _preset_band(band: int, preset: QualityPreset, path: Location, dataset: Any) -> int:
    """Where a preset's band is: by the names of the file's bands if it has them, else by number."""
    names = {name for name, flag in preset.flags.items() if flag.band == band}
    described = [plain_name(text or "") for text in dataset.descriptions]
    found = [number for number, text in enumerate(described, 1) if text in names]
    if len(found) == 1:
        return found[0]
    if band > dataset.count:
        name = next(name for name in preset.flags if name in names)
        raise InputError(
            f"{path}: expected {name} in band {band}, as in {preset.what}; the file has {dataset.count} band(s)"
        )
    return band


def _band(rule: Rule, info: RasterInfo, source: Source, dataset: Any) -> int | None:
    """The band with the values, where they are in one; None where the file's own mask is all that is meant."""
    path, setting = info.path, f"sensors.{source.sensor_name}.quality"
    if isinstance(rule.band, int):
        if rule.band > dataset.count:
            raise InputError(
                f"{path}: expected band {rule.band} ({setting}.band), the file has {dataset.count} band(s)"
            )
        return rule.band
    if isinstance(rule.band, str):
        found = [n for n, text in enumerate(dataset.descriptions, 1) if plain_name(text or "") == plain_name(rule.band)]
        if len(found) != 1:
            raise InputError(
                f"{path}: expected one band described as {rule.band} ({setting}.band), got {_listed(dataset)}"
            )
        return found[0]
    values = [band for band in dataset.indexes if band not in info.mask.alpha]
    if len(values) == 1:
        return int(values[0])
    if (
        source.sensor.quality is None
        and source.sensor.unusable in (None, (0,))
        and (info.mask.alpha or info.mask.shared)
    ):
        return None  # a picture, of which the mask is meant
    raise InputError(
        f"{path}: expected one band in a valid raster, got {_listed(dataset)}; choose with {_choice(dataset, source)}"
    )


def _choice(dataset: Any, source: Source) -> str:
    """The setting that fits a file of several bands."""
    setting, quality = f"sensors.{source.sensor_name}.quality", source.sensor.quality
    described = [plain_name(text or "") for text in dataset.descriptions]
    if quality is not None and quality.preset is not None:
        own = described.index(quality.preset) + 1 if quality.preset in described else "..."
        return f"{setting}: {{preset: {quality.preset}, band: {own}}}"
    if dataset.count == 8 and (not any(described) or {"clear", "cloud"} <= {*described}):
        return f"{setting}: udm2 for Planet's UDM2, or {setting}: {{band: 1, usable: [1]}}"
    return f"{setting}: {{band: 1, unusable: [0]}}"


def _listed(dataset: Any) -> str:
    """The bands of a file, in words."""
    names = [repr(text)[1:-1][:32] if text else "-" for text in dataset.descriptions[:SHOWN_BANDS]]
    if not any(dataset.descriptions):
        return f"{dataset.count} bands"
    more = ", ..." if dataset.count > SHOWN_BANDS else ""
    return f"{dataset.count} bands ({', '.join(f'{n} {name}' for n, name in enumerate(names, 1))}{more})"


def _scaled(values: NDArray[Any], scale: tuple[float, float]) -> NDArray[Any]:
    return values if scale == (1.0, 0.0) else np.asarray(values * np.float64(scale[0]) + scale[1])


def _within(values: NDArray[Any], rule: Rule) -> NDArray[np.bool_]:
    """Where values are between the thresholds."""
    usable = np.ones(values.shape, np.bool_)
    with np.errstate(invalid="ignore"):
        if rule.above is not None:
            usable &= ~(values > rule.above)
        if rule.below is not None:
            usable &= ~(values < rule.below)
    return usable


def _require_classes(values: NDArray[Any], present: NDArray[np.bool_], path: Location, source: Source) -> None:
    """Refuse values that no class or bits can be.

    Raises:
        InputError: Naming one of them, and the setting for probabilities.
    """
    if values.dtype.kind != "f":
        return
    found = values[:, present]
    odd = found[(found != np.rint(found)) | (np.abs(found) > WHOLE_NUMBERS)]
    if odd.size:
        raise InputError(
            f"{path}: has values such as {odd.flat[0]:.6g}; expected whole numbers, which classes or bits are; if they "
            f"are a probability of cloud, set sensors.{source.sensor_name}.quality: {{above: ...}} to the highest that "
            "is usable (below: ... to the lowest, if high values are good)"
        )


def _usable(values: NDArray[Any], bands: Sequence[int], rule: Rule) -> NDArray[np.bool_]:
    """Where whole values are usable; of NaN and infinity it says nothing."""
    usable = _any_holds(values, bands, rule.flags) == rule.wanted
    if rule.never:
        usable &= ~_any_holds(values, bands, rule.never)
    if rule.known is not None:
        usable &= np.isin(values[0], sorted(rule.known))
    return np.asarray(usable, np.bool_)


def _any_holds(values: NDArray[Any], bands: Sequence[int], flags: Sequence[Flag]) -> NDArray[np.bool_]:
    holds = np.zeros(values.shape[1:], np.bool_)
    for number, band in zip(bands, values, strict=True):
        own = [flag for flag in flags if flag.band == number]
        classes = [flag.equals for flag in own if flag.whole]
        if classes:
            holds |= np.isin(band, classes)
        masked = [flag for flag in own if not flag.whole]
        if masked:
            whole = np.nan_to_num(band, nan=0, posinf=0, neginf=0).astype(np.int64) if band.dtype.kind != "u" else band
            single = [flag.mask for flag in masked if flag.mask == flag.equals and flag.mask.bit_count() == 1]
            if single:  # at once, since they are the rule
                holds |= _bits(whole, sum(set(single))) != 0
            for flag in masked:
                if flag.mask not in single:
                    holds |= _bits(whole, flag.mask) == flag.equals
    return holds


def _bits(values: NDArray[Any], mask: int) -> NDArray[Any]:
    """What a mask leaves of whole values; bits that their type does not have are not set."""
    return np.asarray(values & values.dtype.type(mask & int(np.iinfo(values.dtype).max)))
