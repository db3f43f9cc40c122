"""``cdpipe check``: shows what the catalog holds and everything that is wrong with it."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cdpipe.cli.console import make_console, progress
from cdpipe.config.schema import Config
from cdpipe.errors import EXIT_DONE, EXIT_INPUT
from cdpipe.geo.crs import crs_name
from cdpipe.geo.ground import pixel_metres
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.check import PairReport, check_catalog
from cdpipe.pairs.coregistration import CONFIDENT
from cdpipe.pairs.deep_check import DeepReport, inspect_pair

# The part of ``cdpipe check --deep`` that reads all pairs, each in a Ray task, and shows what they are like.

HEAD = ("pair", "shift, px", "windows that agree", "seen", "cloud-like", "saturated")


def inspect_pairs(
    config: Config, console: Console, reports: Sequence[PairReport]
) -> tuple[dict[str, DeepReport], list[tuple[str, str]]]:
    """Read all pairs that have no problem yet.

    Returns:
        What was found, by pair in the catalog's order; and pairs that could not be read, each with the reason.
    """
    good = [(each.pair, each.before.grid) for each in reports if not each.problems and each.before is not None]
    jobs = [(pair.pair_id, (pair, grid, config)) for pair, grid in good]
    if not jobs:
        return {}, []
    from cdpipe.cluster.session import ray_session
    from cdpipe.cluster.tasks import map_pairs

    found: dict[str, DeepReport] = {}
    failed = []
    with ray_session(config.resources, verbose=False), progress(console, "check: pairs, in full", len(jobs)) as advance:
        # a lambda, since a function of this module would make every worker import what it does not need
        for pair_id, report, error in map_pairs(lambda job: inspect_pair(*job), jobs):
            advance(1, "")
            if report is None:
                failed.append((pair_id, str(error)))
            else:
                found[pair_id] = report
    return {pair_id: found[pair_id] for pair_id, _ in jobs if pair_id in found}, failed


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


def run(config: Config, read: bool, deep: bool = False) -> int:
    """Check the catalog and print a table, the warnings, the problems and a summary.

    Args:
        config: The configuration.
        read: Whether to read every pixel of every file.
        deep: Whether to read all pairs on Ray and judge shift, clouds, saturation, radiometric offset and dates.

    Returns:
        The exit code: 0, or 3 if there is a problem.

    Raises:
        InputError: If the catalog itself has mistakes.
        ConfigError: If a configured model is not known.
    """
    pairs = read_catalog(config)
    from cdpipe.training.plan import needed_bands  # torch takes seconds: a mistaken catalog need not wait

    console = make_console()
    with progress(console, "check: pairs", len(pairs)) as advance:
        report = check_catalog(config, pairs, needed_bands(config), lambda: advance(1, ""), read)
    warnings = [(pair.pair_id, text) for pair in report.pairs for text in pair.warnings]
    inspected, failed = inspect_pairs(config, console, report.pairs) if deep else ({}, [])
    warnings += [(pair_id, text) for pair_id, each in inspected.items() for text in each.warnings]
    warnings += [("catalog", text) for text in report.warnings]
    problems = [(pair.pair_id, text) for pair in report.pairs for text in pair.problems]
    problems += [*failed, *(("catalog", text) for text in report.problems)]
    console.print(_table(report.pairs, read))
    if deep:
        console.print(deep_table(inspected))
    _print_list(console, "Warnings", warnings)
    _print_list(console, "Problems", problems)
    if config.align.coregister == "auto":
        _print_corrections(console, config, [pair for pair in report.pairs if not pair.problems])
    console.print(_summary(report.pairs, len(problems), len(warnings)))
    return EXIT_INPUT if problems else EXIT_DONE


def _table(reports: Sequence[PairReport], read: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("pair", overflow="fold", min_width=8)
    table.add_column("split")
    for name in ("size, px", "pixel, m", "CRS", "bands", "overlap", "changed", "shift, px"):
        table.add_column(name, justify="right", overflow="fold")
    if read:
        table.add_column("both seen", justify="right")
    table.add_column("")
    for report in reports:
        row = _row(report)
        if read:
            row.append(_share(report.observed, 0))
        table.add_row(*map(escape, [*row, f"{len(report.problems)} problem(s)" if report.problems else "good"]))
    return table


def _row(report: PairReport) -> list[str]:
    before, after, shift = report.before, report.after, report.shift
    infos = [info for info in (before, after) if info is not None]
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


def _print_list(console: Console, title: str, lines: Sequence[tuple[str, str]]) -> None:
    if lines:
        console.print(f"[bold]{title}[/bold]")
    for pair_id, text in lines:
        console.print(f"  {escape(pair_id)}  {escape(text)}", soft_wrap=True)


def _print_corrections(console: Console, config: Config, reports: Sequence[PairReport]) -> None:
    """What ingest would do about the pairs' shifts."""
    from cdpipe.cli.ingest import describe_corrections
    from cdpipe.pairs.coregistration import find_correction

    grids = [(each.pair, each.before.grid) for each in reports if each.before is not None]
    decided = {pair.pair_id: find_correction(pair, grid, config) for pair, grid in grids}
    for line in describe_corrections(decided):
        console.print(escape(line), soft_wrap=True)


def _summary(reports: Sequence[PairReport], problems: int, warnings: int) -> str:
    good = sum(not report.problems for report in reports)
    labelled = sum(report.labelled or 0 for report in reports)
    changed = sum(report.changed or 0 for report in reports)
    with_label = sum(report.labelled is not None for report in reports)
    share = f", {changed / labelled:.2%} of their pixels changed" if labelled else ""
    return (
        f"{len(reports)} pair(s), {good} good; {with_label} with a label{share}; "
        f"{problems} problem(s), {warnings} warning(s)"
    )
