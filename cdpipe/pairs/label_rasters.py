"""Label rasters as people save them: values of one band, greys of three, colours, indices into a table of colours.

Every pixel has one code: its value, or else its colour, packed beyond all values.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.label import Label, LabelValue, colour_bands
from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, describe_dataset, grid_of, open_raster, raster_errors, read_values
from cdpipe.formats.masks import FileMask
from cdpipe.formats.observed import open_mask
from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.metrics.classes import CHANGED, IGNORE, UNCHANGED
from cdpipe.workspace.location import Location

Classes = NDArray[np.uint8]  # 0, 1 and 255
Code = int | float

COLOUR = 1 << 56  # added to three packed bands of 16 bits
TOP = 2**16 - 1  # of a band of a colour
WIDE = 257  # times a band of 8 bits is the same intensity in 16
SHOWN = 8  # values and colours that a message names
MOST_CODES = 70_000  # that are counted; a label with more is an image
MANY = 16  # values and colours that are more were blurred, by JPEG or by resampling


@dataclass(frozen=True, slots=True)
class LabelRaster:
    """An open label raster, and what makes a code of a pixel.

    Attributes:
        dataset: The open raster.
        info: What it says of itself.
        bands: Bands to read: one of values, or red, green and blue.
        read_mask: Reads where the file says that there is a label at all.
        table: Code of every index into its table of colours, and whether that is opaque; None where indices count.
        nodata: The code that means no data, where there is one.
    """

    dataset: Any
    info: RasterInfo
    bands: tuple[int, ...]
    read_mask: Callable[[Window], NDArray[np.bool_]]
    table: tuple[NDArray[np.int64], NDArray[np.bool_]] | None
    nodata: Code | None

    @property
    def is_wide(self) -> bool:
        """Whether its bands have room for colours of 16 bits."""
        return self.info.dtypes[self.bands[0] - 1] != "uint8"

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the codes of a window, (height, width), and where there is a label at all."""
        values = read_values(self.dataset, self.info.path, self.bands, window)
        present = np.isfinite(values).all(0) & self.read_mask(window)
        if self.table is not None:
            codes, opaque = self.table
            return codes[values[0]], present & opaque[values[0]]
        if len(self.bands) == 1:
            return values[0], present
        return _pack(np.where(present, values, values.dtype.type(0)), self.info.path), present


@contextmanager
def open_label(label: Location, settings: Input, meaning: Label) -> Iterator[LabelRaster]:
    """Open a label raster.

    Args:
        label: The file.
        settings: Which files may be opened.
        meaning: Whether colours have a meaning, and which band counts.

    Raises:
        InputError: If the file is missing, or its bands are neither values nor colours.
    """
    with open_raster(label, settings) as dataset:
        info = describe_dataset(label, dataset, settings)
        bands = _choose_bands(info, meaning.band)
        info.stored_dtype(bands)
        with raster_errors(label):
            coloured = len(bands) == 1 and names_colours(meaning)
            table = _read_table(dataset, bands[0], masked=meaning.mask == "file") if coloured else None
            tags = [dataset.nodatavals[band - 1] for band in bands]
        mask = info.mask.without(bands) if meaning.mask == "file" else FileMask()
        mask = replace(mask, single=tuple(band for band in mask.single if band in bands))
        with open_mask(dataset, label, mask) as read_mask:
            yield LabelRaster(dataset, info, bands, read_mask, table, _nodata_code(tags, table, label))


def read_label_raster(label: Location, grid: Grid, window: Window, config: Config) -> Classes:
    """Read a window of a label raster on the pair's grid; see :func:`cdpipe.pairs.labels.read_label`."""
    with open_label(label, config.input, config.label) as raster:

        def read(part: Window) -> Pixels:
            mapped = _classify(raster, *raster.read(part), config.label)[None]
            return mapped, mapped[0] != IGNORE

        source = WarpSource(str(label), grid_of(raster.info, grid, "'before'"), 1, np.uint8, read)
        values, present = read_warped(source, grid, window, "nearest")
    return np.where(present, values[0], np.uint8(IGNORE))


def count_label_raster(label: Location, config: Config) -> tuple[int, int]:
    """How many pixels of a label raster, all of it, count, and how many of them changed.

    Raises:
        InputError: If the file is missing or damaged, or has values that have no meaning, which are named with how
            often they occur.
    """
    meaning = config.label
    with open_label(label, config.input, meaning) as raster:
        counts = _count_codes(raster)
        changed, unchanged, ignored = (set(_codes_of(listed, raster.is_wide)) for listed in meaning.lists.values())
        unknown = {code: n for code, n in counts.items() if code not in changed | unchanged | ignored | {raster.nodata}}
        if unknown:
            raise InputError(_undeclared(raster, unknown, meaning, counted=True))
    totals = [sum(n for code, n in counts.items() if code in listed) for listed in (changed, unchanged)]
    return sum(totals), totals[0]


def label_values(label: Location, settings: Input, meaning: Label) -> Counter[LabelValue | float]:
    """Count the values and colours of a label raster, all of it; NaN and what is transparent is not counted.

    Raises:
        InputError: If the file is missing or damaged, or its bands are neither values nor colours.
    """
    counts = Counter[LabelValue | float]()
    with open_label(label, settings, meaning) as raster:
        for code, number in _count_codes(raster).items():
            counts[name_of(code) if code >= COLOUR else code] += number
    return counts


def names_colours(meaning: Label) -> bool:
    """Whether a colour has a meaning, so that tables of colours are looked up."""
    return any(isinstance(value, str) for listed in meaning.lists.values() for value in listed)


def name_of(code: Code) -> str:
    """A code in words: a number, or a colour as the configuration writes it."""
    if code < COLOUR:
        return f"{code:.10g}" if isinstance(code, float) else str(code)
    packed = int(code) - COLOUR
    bands = [packed >> shift & TOP for shift in (32, 16, 0)]
    if all(band % WIDE == 0 for band in bands):
        bands = [band // WIDE for band in bands]
    if max(bands) > TOP // WIDE:
        return "/".join(map(str, bands))  # of 16 bits, which no configuration can write
    return "#" + "".join(f"{band:02x}" for band in bands)


def _choose_bands(info: RasterInfo, chosen: int | None) -> tuple[int, ...]:
    """Bands that are values or colours."""
    if chosen is not None:
        if chosen > info.count:
            raise InputError(f"{info.path}: has {info.count} band(s), so no band {chosen} (label.band)")
        return (chosen,)
    alpha = info.mask.alpha
    bands = tuple(band for band in range(1, info.count + 1) if band not in alpha)
    if len(bands) not in (1, 3):
        beside = f" beside {len(alpha)} of alpha" if alpha else ""
        raise InputError(
            f"{info.path}: expected one band of values in a label, or red, green and blue, got {len(bands)} "
            f"bands{beside}; label.band: 1 takes the first of them alone"
        )
    return bands


def _read_table(dataset: Any, band: int, *, masked: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Codes of a band's table of colours, and which of them count: not the transparent ones, if ``masked``."""
    try:
        colours = dataset.colormap(band)
    except ValueError:
        return None
    codes = np.arange(np.iinfo(dataset.dtypes[band - 1]).max + 1, dtype=np.int64)  # what the table lacks is a value
    opaque = np.ones(codes.shape, np.bool_)
    for index, (red, green, blue, alpha) in colours.items():
        [codes[index]] = _codes_of([f"#{red:02x}{green:02x}{blue:02x}"], wide=False)
        opaque[index] = alpha > 0 or not masked
    return codes, opaque


def _nodata_code(
    tags: Sequence[float | None], table: tuple[NDArray[np.int64], NDArray[np.bool_]] | None, label: Location
) -> Code | None:
    """The code of a pixel that has nodata in all bands."""
    values = [tag for tag in tags if tag is not None and np.isfinite(tag)]
    if len(values) < len(tags):
        return None
    if table is not None:
        index = int(values[0])
        return int(table[0][index]) if 0 <= index < len(table[0]) else None
    if len(values) == 1:
        return values[0]
    try:
        return int(_pack(np.array(values)[:, None, None], label)[0, 0])
    except InputError:  # a tag that no pixel can have
        return None


def _pack(bands: NDArray[Any], label: Location) -> NDArray[np.int64]:
    """Codes (height, width) of red, green and blue, (3, height, width): equal ones are a value."""
    if bands.dtype.kind == "f" and not (np.trunc(bands) == bands).all():
        raise InputError(
            f"{label}: three bands of fractions; expected whole numbers, as colours are; "
            "label.band: 1 takes the first of them alone"
        )
    grey = (bands[0] == bands[1]) & (bands[1] == bands[2])
    outside = ~grey & ((bands < 0) | (bands > TOP)).any(0) | (np.abs(bands[0].astype(np.float64)) >= COLOUR)
    if outside.any():
        first = ", ".join(f"{value:.10g}" for value in bands[:, outside][:, 0].tolist())
        raise InputError(
            f"{label}: three bands that differ ({first}) and are no colours of 8 or 16 bits; "
            "label.band: 1 takes the first of them alone"
        )
    red, green, blue = (np.where(grey, 0, band).astype(np.int64) for band in bands)
    return np.where(grey, bands[0].astype(np.int64), COLOUR + (red << 32) + (green << 16) + blue)


def _codes_of(values: Iterable[LabelValue], wide: bool) -> list[int]:
    """Codes of values and colours; of colours as both 8 and 16 bits write them, where there is room for the latter."""
    codes = []
    for value in values:
        if isinstance(value, int):
            codes.append(value)
            continue
        for factor in (1, WIDE) if wide else (1,):
            red, green, blue = (factor * band for band in colour_bands(value))
            codes.append(red if red == green == blue else COLOUR + (red << 32) + (green << 16) + blue)
    return codes


def _classify(raster: LabelRaster, codes: NDArray[Any], present: NDArray[np.bool_], meaning: Label) -> Classes:
    """Map codes to 0, 1 and 255."""
    mapped = np.full(codes.shape, IGNORE, np.uint8)
    unknown = present.copy() if raster.nodata is None else present & (codes != raster.nodata)
    for listed, value in zip(meaning.lists.values(), (CHANGED, UNCHANGED, IGNORE), strict=True):
        known = _codes_of(listed, raster.is_wide)
        if codes.dtype.kind in "iu":  # in their own type, since numpy may compare 64 bits as floats
            limits = np.iinfo(codes.dtype)
            known = [code for code in known if limits.min <= code <= limits.max]
        found = np.isin(codes, np.array(known, codes.dtype))
        mapped[found] = value
        unknown &= ~found
    if unknown.any():
        counts = dict.fromkeys(np.unique(codes[unknown]).tolist(), 0)
        raise InputError(_undeclared(raster, counts, meaning, counted=False))
    mapped[~present] = IGNORE
    return mapped


def _count_codes(raster: LabelRaster) -> Counter[Code]:
    counts = Counter[Code]()
    for part in tiles_in(Window(0, 0, *raster.info.grid.shape), 4 * TILE):
        codes, present = raster.read(part)
        distinct, times = np.unique(codes[present], return_counts=True)
        counts.update(dict(zip(distinct.tolist(), times.tolist(), strict=True)))
        if len(counts) > MOST_CODES:
            break
    return counts


def _undeclared(raster: LabelRaster, counts: Mapping[Code, int], meaning: Label, *, counted: bool) -> str:
    """The message for values and colours that have no meaning."""
    numbers = sorted(code for code in counts if code < COLOUR)
    colours = sorted((code for code in counts if code >= COLOUR), key=lambda code: -counts[code])
    parts = [
        f"{what}(s) {_listed([name_of(code) + (f' ({counts[code]:,} px)' if counted else '') for code in codes])}"
        for what, codes in (("value", numbers), ("colour", colours))
        if codes
    ]
    lists = (f"{name} [{_listed(list(map(repr, listed)))}]" for name, listed in meaning.lists.items())
    text = f"{raster.info.path}: {' and '.join(parts)} are in none of label: {', '.join(lists)}"
    if len(counts) > MANY:
        return f"{text}; so many come from JPEG or resampling: save the label as PNG, as it was drawn"
    return f'{text}; colours are written as label: {{changed: ["{name_of(colours[0])}"]}}' if colours else text


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (", ..." if len(words) > SHOWN else "")
