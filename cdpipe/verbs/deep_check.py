"""The part of ``cdpipe check --deep`` that reads all pairs, each in a Ray task, and shows what they are like."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cdpipe.config.schema import Config
from cdpipe.pairs.check import PairReport
from cdpipe.pairs.deep_check import DeepReport, inspect_pair
from cdpipe.verbs.console import progress

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
