"""Looks at pairs before any work is done, and says everything that is wrong with them at once."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.dates import parse_time
from cdpipe.formats.gate import (
    RasterInfo,
    describe_raster,
    grid_of,
    require_common_place,
    require_imagery,
)
from cdpipe.formats.observed import can_hold
from cdpipe.formats.placement import doubts_of_layer, place_layer
from cdpipe.formats.polygons import open_layer
from cdpipe.formats.tables import read_head_comment
from cdpipe.formats.vector_gate import is_vector
from cdpipe.geo.crs import covered_share, pixel_ratio, place_name, share_coordinates
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.metrics.classes import CHANGED, UNCHANGED
from cdpipe.pairs.bands import doubt_bands
from cdpipe.pairs.beside import doubt_beside, require_no_mask_beside
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.coregistration import CONFIDENT, NOTICEABLE_PX, MeasureShift, Shift, estimate_shift
from cdpipe.pairs.imagery import date_bands, read_on_grid
from cdpipe.pairs.label_rasters import count_label_raster
from cdpipe.pairs.labels import read_label
from cdpipe.pairs.mask_check import MaskFound, sample_mask
from cdpipe.pairs.quality_check import doubt_quality
from cdpipe.pairs.splits import catalog_leaks
from cdpipe.processors import usable_cpus
from cdpipe.store.normalisation import RGB
from cdpipe.workspace.location import Location

NAMED = 3  # pairs in a sentence
COARSE_RATIO = 1.5  # pixel sizes of the dates that differ by more are worth a word


@dataclass(frozen=True, slots=True)
class PairReport:
    """What is known of a pair, as far as its files could be read.

    Attributes:
        pair: The pair.
        problems: What keeps it from being used, each beginning with the file it is about.
        warnings: What may be wrong.
        before: The first date's raster, whose grid is the pair's; ``after`` is the second's.
        overlap: Share of the grid that the second date covers.
        shift: How far the second date seems to lie off.
        observed: Share of the grid observed at both dates, if all pixels were read.
        labelled: Pixels of the label that are 0 or 1.
        changed: Pixels of the label that are 1.
        masks: What each date's own alpha band or mask shows, None where a file has none.
    """

    pair: Pair
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    before: RasterInfo | None = None
    after: RasterInfo | None = None
    overlap: float | None = None
    shift: Shift | None = None
    observed: float | None = None
    labelled: int | None = None
    changed: int | None = None
    masks: tuple[MaskFound | None, MaskFound | None] = (None, None)

    @property
    def pair_id(self) -> str:
        """The pair's name."""
        return self.pair.pair_id


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """What is known of all pairs, what is wrong with them together, and what may be."""

    pairs: tuple[PairReport, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def check_catalog(
    config: Config,
    pairs: Sequence[Pair],
    required: Sequence[str] = RGB,
    advance: Callable[[], None] = lambda: None,
    read_all: bool = False,
    measure: MeasureShift = estimate_shift,
) -> CatalogReport:
    """Check pairs, a few at a time; what is wrong with their files is reported, not raised.

    Args:
        config: The configuration.
        pairs: Pairs of its catalog.
        required: Band roles that the models need.
        advance: Called after each pair.
        read_all: Whether to read every pixel, as ingesting would; else headers, labels and samples.
        measure: Tells how far a pair's second date lies off.

    Raises:
        InputError: If the catalog comes with a word on its data, and none of its rasters is there.
    """
    _require_data(config, pairs)
    reports = []
    with ThreadPoolExecutor(min(4, usable_cpus())) as pool:
        for report in pool.map(lambda pair: check_pair(pair, config, required, read_all, measure), pairs):
            reports.append(report)
            advance()
    problems, warnings = _judge_training(reports, config)
    warnings += [*_unused_quality(config, pairs), *_unused_label(config, pairs), *_doubt_inversion(reports)]
    problems += catalog_leaks([(report.pair, report.before.grid) for report in reports if report.before], config)
    return CatalogReport(tuple(reports), tuple(problems), tuple(warnings))


def _require_data(config: Config, pairs: Sequence[Pair]) -> None:
    """A catalog that is handed on without its rasters begins with a comment that says where these come from."""
    rasters = dict.fromkeys(source.path for pair in pairs for source, _ in pair.dates)
    if not rasters or any(path.is_file() for path in rasters):
        return
    comment = read_head_comment(config.catalog) if config.catalog.is_file() else ""
    if comment:
        raise InputError(
            f"{config.catalog}: none of the {len(rasters)} rasters that it names is there, the first is "
            f"{next(iter(rasters))}; it says: {comment}"
        )


def check_pair(
    pair: Pair,
    config: Config,
    required: Sequence[str] = RGB,
    read_all: bool = False,
    measure: MeasureShift = estimate_shift,
) -> PairReport:
    """Check one pair; what is wrong with its files is reported, not raised."""
    problems, warnings = _missing_roles(pair, required), _doubts_of_row(pair)
    before, after = (_describe(source, config, problems) for source in (pair.before, pair.after))
    dates = ((pair.before, before), (pair.after, after))
    warnings += [
        *_alpha_doubts(dates),
        *doubt_bands(pair, dates),
        *_doubt_nodata(pair, before, after),
        *_doubt_given_nodata(dates),
        *(doubt for source, info in dates if info is not None for doubt in doubt_beside(source, info, config.input)),
    ]
    masks = _look_at_mask(pair.before, before, config, problems), _look_at_mask(pair.after, after, config, problems)
    for source, found in zip((pair.before, pair.after), masks, strict=True):
        warnings += [f"{source.path}: {doubt}" for doubt in (found.doubts if found else ())]
    warnings += _place_doubts(before, after)
    overlap, shift, observed = None, None, None
    labelled: tuple[int, int] | tuple[None, None] = None, None
    warnings += _quality_doubts(pair, (before, after), config, problems)
    if pair.label is not None:
        with _collected(problems):
            labelled = _judge_label(pair.label, before, after, config, warnings)
            if labelled[0] == 0:
                warnings.append(f"{pair.label}: no pixel of it counts, all are ignored: it teaches and judges nothing")
    if before is not None and after is not None:
        known = len(problems)
        overlap = _overlap(before, after, config.align.min_overlap, problems)
        if len(problems) == known:  # only then do pixels of both dates meet
            warnings += _coarse(before, after)
            if config.align.coregister != "off":
                with _collected(problems):
                    shift = measure(pair, before.grid, config)
            warnings += _shift_doubt(pair, shift)
            observed = _read_all(pair, before.grid, config, problems) if read_all else None
    problems = list(dict.fromkeys(problems))  # sampling and reading all may meet the same damage
    seen = before, after, overlap, shift, observed, labelled[0], labelled[1], masks
    return PairReport(pair, tuple(problems), tuple(warnings), *seen)


def _judge_training(reports: Sequence[PairReport], config: Config) -> tuple[list[str], list[str]]:
    """Problems and warnings of the labels together; a catalog without any is for prediction."""
    labelled = [report for report in reports if report.pair.label is not None]
    training = [report for report in labelled if report.pair.split in (None, "train")]
    if labelled and not training:
        return [], ["no pair with a label is left to train with: all have split val or test"]
    problems, warnings = list[str](), list[str]()
    if _barren(training):
        problems.append("no label of a training pair has a changed pixel; is label.changed right?")
    val, test = ([report for report in labelled if report.pair.split == split] for split in ("val", "test"))
    if _barren(val):
        text = f"no label of a val pair has a changed pixel ({_ids(val)})"
        # as training plans it: with folds, other pairs choose where val pairs do not
        chooses = config.predict.takes_trained and config.train.keep == "best"
        (problems if chooses else warnings).append(f"{text}: they can choose neither an epoch nor a threshold")
    if _barren(test):
        warnings.append(f"no label of a test pair has a changed pixel ({_ids(test)}): their figures will say little")
    return problems, warnings


def _barren(reports: Sequence[PairReport]) -> bool:
    """Whether all labels could be counted, and none has a changed pixel."""
    counted = [report.changed for report in reports if report.changed is not None]
    return bool(counted) and len(counted) == len(reports) and not sum(counted)


def _ids(reports: Sequence[PairReport]) -> str:
    names = [report.pair_id for report in reports]
    return ", ".join(names if len(names) <= NAMED else [*names[:NAMED], "..."])


def _unused_quality(config: Config, pairs: Sequence[Pair]) -> list[str]:
    """Sensors that say what quality rasters mean, of which no date has any."""
    dates = [date for pair in pairs for date in pair.dates]
    used = {source.sensor_name for source, _ in dates} - {source.sensor_name for source, valid in dates if valid}
    said = {name: "quality" if sensor.quality else "unusable" for name, sensor in config.sensors.items()}
    return [
        f"sensors.{name}.{said[name]} is given, but no quality raster of its dates; name them in the catalog's columns "
        "before_valid and after_valid"
        for name, sensor in config.sensors.items()
        if name in used and (sensor.quality or sensor.unusable is not None)
    ]


def _unused_label(config: Config, pairs: Sequence[Pair]) -> list[str]:
    """Settings for labels of polygons where all labels are rasters."""
    labels = [pair.label for pair in pairs if pair.label is not None]
    given = [f"label.{name}" for name in ("layer", "where", "ignore_where", "covers") if getattr(config.label, name)]
    if not labels or not given or any(map(is_vector, labels)):
        return []
    return [f"{', '.join(given)}: for labels of polygons, but all labels are rasters, of which every pixel counts"]


def _doubt_inversion(reports: Sequence[PairReport]) -> list[str]:
    """Masks in which what is white did not change, or lists of the configuration that are exchanged."""
    labelled, changed = (sum(getattr(report, name) or 0 for report in reports) for name in ("labelled", "changed"))
    if changed <= labelled / 2:
        return []
    return [f"{changed / labelled:.0%} of all labelled pixels changed; are label.changed and label.unchanged swapped?"]


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems.append(str(error))


def _missing_roles(pair: Pair, required: Sequence[str]) -> list[str]:
    missing = ", ".join(role for role in required if role not in pair.roles)
    names = " and ".join(dict.fromkeys((pair.before.sensor_name, pair.after.sensor_name)))
    text = (
        f"{pair.before.path}: sensor {names} has no band {missing}, which the models need, only "
        f"{', '.join(pair.roles)}; if the file has it, say where in sensors.<name>.bands, or with --bands for two files"
    )
    return [text] if missing else []


def _doubts_of_row(pair: Pair) -> list[str]:
    doubts = []
    if pair.before.path == pair.after.path and pair.before.half is None:
        doubts.append(f"{pair.after.path}: both dates are the same file")
    if pair.before_date and pair.after_date and parse_time(pair.before_date) > parse_time(pair.after_date):
        doubts.append(
            f"{pair.before.path}: before_date {pair.before_date} is later than after_date "
            f"{pair.after_date}; are the dates swapped?"
        )
    return doubts


def _describe(source: Source, config: Config, problems: list[str]) -> RasterInfo | None:
    info = None
    with _collected(problems):
        info = require_imagery(describe_raster(source.path, config.input), config.input)
        info.stored_dtype(date_bands(source, info)[0])
        if source.sensor.mask == "file":
            require_no_mask_beside(info, config.input, f"sensors.{source.sensor_name}.mask: ignore")
    return info


def _alpha_doubts(dates: Sequence[tuple[Source, RasterInfo | None]]) -> list[str]:
    """Bands that are declared as alpha and read as data."""
    doubts = []
    for source, info in dates:
        roles = {band: role for role, band in source.sensor.bands.items()}
        named = [] if info is None or source.half is not None else [band for band in info.mask.alpha if band in roles]
        doubts += [
            f"{source.path}: band {band} is declared as alpha, and read as data, since sensor {source.sensor_name} "
            f"has it as {roles[band]}; if it is transparency, give {roles[band]} another band"
            for band in named
        ]
        doubts += [
            f"{source.path}: band {band} is declared as alpha, and not used as such, since its description says "
            "another thing"
            for band in (() if info is None else info.mask.renamed)
            if band not in roles
        ]
    return doubts


def _quality_doubts(
    pair: Pair, dates: tuple[RasterInfo | None, RasterInfo | None], config: Config, problems: list[str]
) -> list[str]:
    """What may be wrong with the dates' quality rasters; what is wrong becomes a problem."""
    doubts: list[str] = []
    for (source, valid), info in zip(pair.dates, dates, strict=True):
        if valid is None:
            continue
        with _collected(problems):
            own = describe_raster(valid, config.input)
            require_no_mask_beside(own, config.input, "take it away")
            doubts += _lying_doubt(own, info, "its date's raster")
            if info is None or dates[0] is None:
                continue
            own_grid = info.grid if info.grid.placed else dates[0].grid
            doubts += doubt_quality(valid, source, own_grid, dates[0].grid, config.input)
    return list(dict.fromkeys(doubts))  # both dates may have the same


def _look_at_mask(source: Source, info: RasterInfo | None, config: Config, problems: list[str]) -> MaskFound | None:
    found = None
    if info is not None and info.mask:
        with _collected(problems):
            found = sample_mask(source, config)
    return found


def _overlap(before: RasterInfo, after: RasterInfo, least: float, problems: list[str]) -> float | None:
    grid, other = before.grid, after.grid
    known = len(problems)
    with _collected(problems):
        require_common_place(before, after)
    if len(problems) > known:
        return None
    share = covered_share(other, grid)
    if share < least or share == 0:
        problems.append(
            f"{after.path}: covers {share:.0%} of the first date, expected at least {least:.0%} "
            f"(align.min_overlap); it is {place_name(other)}, the first date {place_name(grid)}"
        )
    return share


def _place_doubts(before: RasterInfo | None, after: RasterInfo | None) -> list[str]:
    """How both dates are laid over each other, where no CRS says it."""
    if before is None or after is None or not share_coordinates(before.grid, after.grid) or before.grid.crs is not None:
        return []
    if before.grid.placed:
        return [f"{before.path}: no CRS on either date; both are taken to lie in one plane, by their transforms"]
    unused = [f"{info.path.name}: {info.unused}" for info in (before, after) if info.unused]
    reason = f"that can be used ({'; '.join(unused)})" if unused else "on either date"
    return [f"{before.path}: no georeference {reason}; compared pixel on pixel (input.pixel_coordinates)"]


def _lying_doubt(info: RasterInfo, on: RasterInfo | None, what: str) -> list[str]:
    """A label or valid raster without georeference lies pixel on pixel on what has one."""
    if info.grid.placed or on is None or not on.grid.placed:
        return []
    unused = f" that can be used ({info.unused})" if info.unused else ""
    return [f"{info.path}: no georeference{unused}; taken to lie pixel on pixel on {what}, which has one"]


def _doubt_nodata(pair: Pair, before: RasterInfo | None, after: RasterInfo | None) -> list[str]:
    """Whether one date's file alone says which value means no data, and nothing else says it for the other."""
    if before is None or after is None or (before.nodata is None) == (after.nodata is None):
        return []
    shown = f"nodata {nodata_text(before.nodata)} > {nodata_text(after.nodata)}"
    value = before.nodata if after.nodata is None else after.nodata
    (source, valid), info = (pair.dates[0], before) if before.nodata is None else (pair.dates[1], after)
    if source.sensor.nodata is not None or info.mask or valid is not None or value is None or np.isnan(value):
        return []
    setting = f"sensors.{source.sensor_name}.nodata"
    todo = f"if they are {value:g}, set {setting}: {value:g}"
    if not can_hold(info.dtype, value):
        todo = f"its {info.dtype} values are never {value:g}; if another value means that, give it as {setting}"
    return [f"{source.path}: {shown}: nothing says which pixels of this date are missing; {todo}"]


def _doubt_given_nodata(dates: Sequence[tuple[Source, RasterInfo | None]]) -> list[str]:
    """Nodata that a sensor gives and no pixel can have, or that leaves a file's own tag unused."""
    doubts = []
    for source, info in dates:
        given = source.sensor.nodata
        values = {*given.values()} if isinstance(given, dict) else {given}
        numbers = sorted(value for value in values if isinstance(value, int | float))
        if info is None or not numbers:
            continue
        setting = f"sensors.{source.sensor_name}.nodata"
        impossible = ", ".join(f"{value:g}" for value in numbers if not can_hold(info.dtype, value))
        if impossible:
            doubts.append(f"{source.path}: its {info.dtype} values are never {impossible}, which {setting} gives")
        tag = None if isinstance(given, dict) or info.nodata is None else info.nodata
        if tag is not None and np.isfinite(tag) and can_hold(info.dtype, tag) and not np.isclose(tag, numbers[0], 1e-6):
            doubts.append(
                f"{source.path}: its own nodata value {tag:g} counts as observed, since {setting} gives {numbers[0]:g}"
            )
    return doubts


def nodata_text(value: float | None) -> str:
    """A raster's nodata value for people."""
    return "none" if value is None else f"{value:g}"


def _coarse(before: RasterInfo, after: RasterInfo) -> list[str]:
    ratio = max(pixel_ratio(after.grid, before.grid))
    if 1 / COARSE_RATIO < ratio < COARSE_RATIO or not 0 < ratio < np.inf:
        return []
    size = f"{ratio:.1f} times smaller" if ratio > 1 else f"{1 / ratio:.1f} times larger"
    return [f"{after.path}: its pixels are {size} than the first date's, on whose grid both are compared"]


def _shift_doubt(pair: Pair, shift: Shift | None) -> list[str]:
    if shift is None or shift.length <= NOTICEABLE_PX or shift.confidence <= CONFIDENT:
        return []
    offset = f"{shift.rows:+.1f} rows and {shift.cols:+.1f} columns, confidence {shift.confidence:.2f}"
    return [f"{pair.after.path}: seems to lie off the first date ({offset}); misplaced edges look like change"]


def _judge_label(
    label: Location, before: RasterInfo | None, after: RasterInfo | None, config: Config, warnings: list[str]
) -> tuple[int, int] | tuple[None, None]:
    """Its counts on the first date's grid; where that is not known, the label is looked at as far as it can be."""
    if before is not None:
        return _count_label(label, before, config, warnings)
    if after is not None:
        _count_label(label, after, config, warnings)
    elif is_vector(label):
        open_layer(label, config)
    else:
        describe_raster(label, config.input)
    return None, None


def _count_label(label: Location, on: RasterInfo, config: Config, warnings: list[str]) -> tuple[int, int]:
    """How many pixels of a label count, and how many of them changed; what may be wrong is added to the warnings."""
    grid = on.grid
    if is_vector(label):
        counts = np.zeros(256, np.int64)
        for block in tiles_in(Window(0, 0, *grid.shape), config.align.block):
            counts += np.bincount(read_label(label, grid, block, config).ravel(), minlength=256)
        layer = open_layer(label, config)
        warnings += doubts_of_layer(layer, grid, config.label)
        if layer.kept[0] and not counts[CHANGED] and not config.label.covers and place_layer(layer, grid).on_scene:
            warnings.append(
                f"{label}: some polygons seem to be on the scene, but no pixel's centre lies in them, so all of it "
                "counts as unchanged; are they smaller than its pixels?"
            )
        return int(counts[UNCHANGED] + counts[CHANGED]), int(counts[CHANGED])
    info = describe_raster(label, config.input)
    if covered_share(grid_of(info, grid, "'before'"), grid) == 0:
        own, other = place_name(info.grid), place_name(grid)
        raise InputError(f"{label}: lies outside of the pair; it is {own}, the pair {other}")
    warnings += _lying_doubt(info, on, "the first date")
    if config.label.mask == "file":
        require_no_mask_beside(info, config.input, "label.mask: ignore")
    labelled, changed = count_label_raster(label, config)
    if info.mask and config.label.mask == "file" and 0 < labelled == changed:
        todo = "label.mask: ignore counts what is transparent, too, if that is unchanged"
        warnings.append(f"{label}: all that is not transparent changed, the rest is ignored; {todo}")
    return labelled, changed


def _read_all(pair: Pair, grid: Grid, config: Config, problems: list[str]) -> float | None:
    """Share of the grid's pixels observed at both dates; a date that cannot be read is read no further."""
    readable, observed = list(pair.dates), 0
    for window in tiles_in(Window(0, 0, *grid.shape), config.align.block):
        both = np.ones(window.shape, np.bool_)
        for source, valid in tuple(readable):
            try:
                both &= read_on_grid(source, valid, grid, window, config)[1]
            except InputError as error:
                problems.append(str(error))
                readable.remove((source, valid))
        observed += int(both.sum())
    if len(readable) < len(pair.dates):
        return None
    if not observed:
        problems.append(f"{pair.after.path}: no pixel is observed at both dates")
    return observed / (grid.height * grid.width)
