"""Everything that is wrong with a catalog, and what its pairs are like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.models.ensemble_folder import model_folders
from cdpipe.models.folder import read_card
from cdpipe.pairs.catalog import scan_catalog
from cdpipe.pairs.check import PairReport, check_catalog
from cdpipe.pairs.coregistration import Correction, find_correction
from cdpipe.pairs.deep_check import DeepReport, inspect_pair
from cdpipe.pairs.grouping import CATALOG, files_of, group_findings
from cdpipe.pairs.outlook import Outlook, look_ahead
from cdpipe.pairs.unfamiliar import doubt_models
from cdpipe.runs.run import Run


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found.

    Attributes:
        pairs: What each pair is like, with its problems and warnings.
        inspected: What pairs that were read in full are like, by pair.
        warnings: What to look at: the pair, or ``catalog``, and in words what.
        problems: What is wrong, likewise: none of it may be left for an ingest.
        corrections: What coregistration would do about each pair's shift, where the configuration asks for it.
        outlook: What training would do; None where nothing would be learned, or that is not known.
    """

    pairs: Sequence[PairReport]
    inspected: Mapping[str, DeepReport]
    warnings: Sequence[tuple[str, str]]
    problems: Sequence[tuple[str, str]]
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    outlook: Outlook | None = None


def check(run: Run, *, read: bool = False, deep: bool = False) -> Checked:
    """Open everything that the catalog names and find every problem; nothing is written.

    Args:
        run: The run.
        read: Whether to read every pixel of every file.
        deep: Whether to read all pairs, on Ray, and judge shift, clouds, saturation, radiometric offset and dates.

    Raises:
        InputError: If the catalog itself has mistakes; also naming what is wrong with the files of its other rows.
        ConfigError: If a configured model is not known.
    """
    config, catalog = run.config, scan_catalog(run.config)
    pairs = catalog.pairs
    if catalog.mistakes and not pairs:
        raise InputError(catalog.mistakes)
    from cdpipe.training.plan import needed_bands  # takes seconds: a mistaken catalog need not wait

    with run.step("check: pairs", len(pairs)) as advance:
        report = check_catalog(config, pairs, needed_bands(config), lambda: advance(1, ""), read)
    if catalog.mistakes:  # what is said of all pairs together, such as leaks, would say little without those rows
        problems = [(pair.pair_id, text) for pair in report.pairs for text in pair.problems]
        raise InputError("\n  ".join([catalog.mistakes, *map(str, group_findings(problems, files_of(pairs)))]))
    warnings = [(pair.pair_id, text) for pair in report.pairs for text in pair.warnings]
    inspected, failed = _inspect(run, report.pairs) if deep else ({}, [])
    warnings += [(pair_id, text) for pair_id, pair in inspected.items() for text in pair.warnings]
    warnings += [*_doubts(config, report.pairs), *((CATALOG, text) for text in (*catalog.remarks, *report.warnings))]
    problems = [(pair.pair_id, text) for pair in report.pairs for text in pair.problems]
    problems += [*failed, *((CATALOG, text) for text in report.problems)]
    outlook = None
    if not problems:
        try:
            outlook = look_ahead(config, report.pairs)
        except InputError as error:
            problems.append((CATALOG, f"training: {error}"))
    warnings += [(CATALOG, text) for text in (outlook.doubts() if outlook else ())]
    corrections = {}
    if config.align.coregister == "auto":
        corrections = {
            pair.pair_id: find_correction(pair.pair, pair.before.grid, config)
            for pair in report.pairs
            if not pair.problems and pair.before is not None
        }
    return Checked(report.pairs, inspected, warnings, problems, corrections, outlook)


def _doubts(config: Config, reports: Sequence[PairReport]) -> list[tuple[str, str]]:
    """In which ways good pairs are unlike all that the models learned from which the configuration names."""
    cards = [read_card(folder) for folder in model_folders(config.predict.models)]
    good = [(pair.pair, pair.before.grid) for pair in reports if not pair.problems and pair.before is not None]
    return [(pair.pair_id, doubt) for pair, grid in good for doubt in doubt_models(pair, grid, cards, config)]


def _inspect(run: Run, reports: Sequence[PairReport]) -> tuple[dict[str, DeepReport], list[tuple[str, str]]]:
    """Read all pairs that have no problem yet.

    Returns:
        What was found, by pair in the catalog's order; and pairs that could not be read, each with the reason.
    """
    good = [(pair.pair, pair.before.grid) for pair in reports if not pair.problems and pair.before is not None]
    jobs = [(pair.pair_id, (pair, grid, run.config)) for pair, grid in good]
    if not jobs:
        return {}, []
    from cdpipe.cluster.session import ray_session
    from cdpipe.cluster.tasks import map_pairs

    inspected: dict[str, DeepReport] = {}
    failed = []
    with ray_session(run.config.resources, run.verbose), run.step("check: pairs, in full", len(jobs)) as advance:
        # a lambda, since a function of this module would make every worker import what it does not need
        for pair_id, report, error in map_pairs(run, "check", lambda job: inspect_pair(*job), jobs):
            advance(1, "")
            if report is None:
                failed.append((pair_id, str(error)))
            else:
                inspected[pair_id] = report
    return {pair_id: inspected[pair_id] for pair_id, _ in jobs if pair_id in inspected}, failed
