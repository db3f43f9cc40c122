"""What ``cdpipe check`` found, as tables."""

from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdpipe.formats.gate import RasterInfo
from cdpipe.geo.crs import crs_name
from cdpipe.geo.ground import pixel_metres
from cdpipe.pairs.check import PairReport, nodata_text
from cdpipe.pairs.coregistration import CONFIDENT
from cdpipe.pairs.deep_check import DeepReport

NAME_WIDTH = 12  # letters shown of a band's name
HEAD = ("pair", "shift, px", "windows that agree", "seen", "cloud-like", "saturated")


def deep_table(found: Mapping[str, DeepReport]) -> Table:
    """A row for each pair; what differs between the dates stands as ``before > after``."""
    table = Table(*HEAD, box=SIMPLE_HEAD, pad_edge=False)
    for pair_id, each in found.items():
        shift = each.shift
        shown = ("-", "-") if shift is None else (f"{shift.length:.2f}", f"{shift.agreeing:.0%} of {shift.windows}")
        observed, saturated = (
            " > ".join(f"{value:{form}}" for value in values)
            for values, form in (
                ([date.observed for date in each.dates], ".0%"),
                ([date.saturated for date in each.dates], ".3%"),
            )
        )
        clouds = " > ".join("-" if date.cloud_like is None else f"{date.cloud_like:.1%}" for date in each.dates)
        table.add_row(escape(pair_id), *shown, observed, clouds, saturated)
    return table


def pair_table(reports: Sequence[PairReport], *, read: bool) -> Table:
    """A row for each pair, with nodata and names of bands where there are any.

    Args:
        reports: What is known of the pairs.
        read: Whether their pixels were read.
    """
    columns = _more_columns(reports, read=read)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("pair", overflow="fold", min_width=8)
    table.add_column("split")
    for name in ("size, px", "pixel, m", "CRS", "bands", "overlap", "changed", "shift, px"):
        table.add_column(name, justify="right", overflow="fold")
    for name in columns:
        names = name == "band names"
        table.add_column(name, justify="left" if names else "right", overflow="fold", min_width=11 if names else None)
    table.add_column("")
    for report in reports:
        row = [*_row(report), *(tell(report) for tell in columns.values())]
        table.add_row(*map(escape, [*row, f"{len(report.problems)} problem(s)" if report.problems else "good"]))
    return table


def _more_columns(reports: Sequence[PairReport], *, read: bool) -> dict[str, Callable[[PairReport], str]]:
    """Columns that not every catalog needs, and what stands there of a pair."""
    infos = [info for report in reports for info in _infos(report)]
    columns: dict[str, tuple[bool, Callable[[PairReport], str]]] = {
        "transparent": (any(found for report in reports for found in report.masks), _transparent),
        "both seen": (read, lambda report: _share(report.observed, 0)),
        "nodata": (
            any(info.nodata is not None for info in infos),
            lambda report: _both([nodata_text(info.nodata) for info in _infos(report)]),
        ),
        "band names": (
            any(any(info.descriptions) for info in infos),
            lambda report: _both(_band_names(report)),
        ),
    }
    return {name: tell for name, (needed, tell) in columns.items() if needed}


def _infos(report: PairReport) -> list[RasterInfo]:
    return [info for info in (report.before, report.after) if info is not None]


def _transparent(report: PairReport) -> str:
    return " > ".join("-" if found is None else f"{found.share:.1%}" for found in report.masks)


def _row(report: PairReport) -> list[str]:
    before, shift = report.before, report.shift
    infos = _infos(report)
    changed = None if not report.labelled else (report.changed or 0) / report.labelled
    doubt = "" if shift is None or shift.confidence > CONFIDENT else "?"
    return [
        report.pair.pair_id,
        report.pair.split or "-",
        f"{before.grid.width} x {before.grid.height}" if before else "-",
        _both([_metres(pixel_metres(info.grid)) for info in infos]),
        _both([crs_name(info.grid.crs) for info in infos]),
        f"{len(report.pair.roles)} {_both([info.dtype for info in infos])}",
        _share(report.overlap, 0),
        _share(changed, 2),
        f"{shift.length:.1f}{doubt}" if shift else "-",
    ]


def _band_names(report: PairReport) -> list[str]:
    """What each date's file calls the bands that are used."""
    dates = ((report.pair.before, report.before), (report.pair.after, report.after))
    return [
        " ".join((info.descriptions[band - 1] or "-")[:NAME_WIDTH] for band in source.band_numbers(info.count))
        for source, info in dates
        if info is not None
    ]


def _both(texts: list[str]) -> str:
    """What holds for both dates, once if it is the same."""
    return " > ".join(dict.fromkeys(texts)) or "-"


def _metres(size: tuple[float, float] | None) -> str:
    if size is None:
        return "?"
    width, height = (f"{side:.3g}" for side in size)
    return width if width == height else f"{width} x {height}"


def _share(share: float | None, digits: int) -> str:
    return "-" if share is None else f"{share:.{digits}%}"


def summarise(reports: Sequence[PairReport], problems: int, warnings: int) -> str:
    """A line about all pairs."""
    good = sum(not report.problems for report in reports)
    labelled = sum(report.labelled or 0 for report in reports)
    changed = sum(report.changed or 0 for report in reports)
    with_label = sum(report.labelled is not None for report in reports)
    share = f", {changed / labelled:.2%} of their pixels changed" if labelled else ""
    return (
        f"{len(reports)} pair(s), {good} good; {with_label} with a label{share}; "
        f"{problems} problem(s), {warnings} warning(s)"
    )
