"""What all verbs share: the loaded configuration, the pairs and what became of them, the run's log."""

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console

from cdpipe.cli.console import make_console, progress
from cdpipe.config.schema import Config
from cdpipe.errors import EXIT_DONE, EXIT_PARTIAL, InputError
from cdpipe.pairs.catalog import Pair, read_catalog
from cdpipe.pairs.coregistration import known_corrections
from cdpipe.pairs.plan import PlannedPair, known_hashes, plan_pairs, source_files, stored_pair
from cdpipe.store.pair import StoredPair
from cdpipe.version import __version__
from cdpipe.workspace.clients import take_requests
from cdpipe.workspace.disk import found_no_room
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace, locked
from cdpipe.workspace.location import Location


class Unfinished(Exception):  # noqa: N818 (no error: it ends a look at a run)
    """There is something to do, which needs Ray."""


@dataclass(slots=True)
class Session:
    """One call of the command line.

    Attributes:
        config: The configuration.
        console: Where to print.
        dry_run: Print the plan and stop.
        keep_going: Leave out pairs that the check finds unusable instead of stopping.
        only_failed: Ingest only pairs that failed last time.
        verbose: Show Ray's own messages.
        wait: Wait for another run to let go of the workspace instead of giving up.
        only_pairs: Ids or names of the pairs to predict; all if empty.
        only_splits: Splits to predict; all if empty.
        submissions: Submissions to evaluate beside the run.
        template: Submission whose ids and order the run's own is to have.
        rasters: Submission to write as rasters.
        review: Verdicts to make labels of.
        out: Where to write what a verb makes, None for the usual place.
        request: The command line's options, for those that only one verb has.
        looking: Only find out whether there is anything to do; then :class:`Unfinished` is raised.
        failures: Pairs that failed in this call, with the reason.
        resources: What is let go of when the call ends, such as Ray.
    """

    config: Config
    console: Console
    dry_run: bool = False
    keep_going: bool = False
    only_failed: bool = False
    verbose: bool = False
    wait: bool = False
    only_pairs: tuple[str, ...] = ()
    only_splits: tuple[str, ...] = ()
    submissions: tuple[Location, ...] = ()
    template: Location | None = None
    rasters: Location | None = None
    review: Location | None = None
    out: Location | None = None
    request: argparse.Namespace = field(default_factory=argparse.Namespace)
    looking: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start_ray(self) -> None:
        """Connect to Ray unless that is done; ``resources`` lets go of it again.

        Raises:
            Unfinished: If the run is only looked at.
        """
        if self.looking:
            raise Unfinished
        from cdpipe.cluster.session import ray_session

        self.resources.enter_context(ray_session(self.config.resources, self.verbose))

    @property
    def workspace(self) -> Workspace:
        """The configuration's workspace."""
        return Workspace(self.config.workspace)

    @property
    def run_folder(self) -> Location:
        """Folder of this run's outputs."""
        return self.workspace.run(self.config.name)

    def wants(self, pair: Pair, split: str | None) -> bool:
        """Whether a pair is among those that were asked for."""
        named = not self.only_pairs or pair.pair_id in self.only_pairs or pair.name in self.only_pairs
        return named and (not self.only_splits or split in self.only_splits)

    def fail(self, pair_id: str, reason: str, details: str = "") -> None:
        """Note that a pair failed; the first reason is kept, details go to the run's ``errors.log``.

        Raises:
            InputError: If that was for want of room: the work on other pairs would be lost, too.
        """
        full = found_no_room(reason)
        if details and not full:
            self.log_error(f"pair {pair_id}: {reason}", details)
        if pair_id not in self.failures:
            self.failures[pair_id] = reason
            text = reason if reason.startswith(f"pair {pair_id}") else f"pair {pair_id}: {reason}"
            self.console.print(f"failed: {text}", markup=False, style="red")
        if full:
            raise InputError("stopped, since the disk is full: make room and run the same command again")

    def log_error(self, text: str, details: str) -> None:
        """Add to the run's ``errors.log``."""
        (self.run_folder / "errors.log").append((f"{text}\n{details}\n").encode())

    def write_failures(self) -> None:
        """Write down which pairs failed, for ``--failed`` and later stages."""
        write_json(self.run_folder / "failed.json", self.failures)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)


def chosen_pairs(session: Session) -> list[Pair]:
    """The catalog's pairs, or those of them that failed last time.

    Raises:
        InputError: If the catalog has mistakes, or none failed but only those are wanted.
    """
    pairs = read_catalog(session.config)
    if not session.only_failed:
        return pairs
    last = read_failures(session)
    chosen = [pair for pair in pairs if pair.pair_id in last]
    if not chosen:
        raise InputError(f"--failed: no pair of run {session.config.name} failed last time; run without it")
    return chosen


def planned_pairs(session: Session) -> list[PlannedPair]:
    """All pairs with their keys; those whose sources changed or are gone are noted as failed."""
    pairs = read_catalog(session.config)
    files = [file for pair in pairs for file in source_files(pair)]
    planned, failed = plan_pairs(
        pairs, session.config, known_hashes(session.workspace, files), known_corrections(session.workspace)
    )
    last = read_failures(session)
    for pair_id, reason in failed.items():
        session.fail(pair_id, last.get(pair_id, reason))
    return planned


def stored_pairs(session: Session) -> list[tuple[PlannedPair, StoredPair]]:
    """The pairs that are in the store; the others are noted as failed.

    Raises:
        InputError: If none is.
    """
    found, last = [], read_failures(session)
    for planned in planned_pairs(session):
        stored = stored_pair(session.workspace, planned)
        if stored is None:
            session.fail(planned.pair.pair_id, last.get(planned.pair.pair_id, "not ingested; run cdpipe ingest"))
        else:
            found.append((planned, stored))
    if not found:
        raise InputError(f"no pair of {session.config.catalog} is in the store; run cdpipe ingest first")
    return found


def read_failures(session: Session) -> dict[str, str]:
    """Pairs that failed in earlier calls, with the reasons."""
    value = read_json(session.run_folder / "failed.json")
    return {str(key): str(reason) for key, reason in value.items()} if isinstance(value, dict) else {}


def close(session: Session) -> int:
    """Say how many pairs failed and give the exit code."""
    if not session.failures:
        return EXIT_DONE
    session.say(
        f"{len(session.failures)} pair(s) failed; mend them and run the same command, or only them with --failed"
    )
    return EXIT_PARTIAL


@contextlib.contextmanager
def logged(session: Session, stage: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Add an entry to the run's ``log.json``: what was done, when, how long it took, with which versions.

    Yields:
        A mapping to add figures to.
    """
    begun, figures = time.monotonic(), dict(facts)
    take_requests()  # those of an earlier stage
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        yield figures
    finally:
        path = session.run_folder / "log.json"
        figures |= _bill(take_requests(), figures.get("blocks"))
        entries = read_json(path) or []
        entry = {"stage": stage, "started": started, "seconds": round(time.monotonic() - begun, 1), **figures}
        write_json(path, [*entries, {**entry, "failed": dict(session.failures), "versions": versions()}])


def rounded(spent: Mapping[str, float]) -> dict[str, float]:
    """What workers spent and counted, as it stands in the log: seconds to a hundredth, whole numbers."""
    return {
        name: round(number, 2) if name.endswith("_seconds") else round(number) for name, number in sorted(spent.items())
    }


def _bill(requests: Mapping[str, int], blocks: Any) -> dict[str, Any]:
    """Requests to object storage of a stage, and for each of its blocks; nothing where there were none."""
    if not requests:
        return {}
    each = {kind: round(number / blocks, 1) for kind, number in requests.items()} if blocks else {}
    return {"requests": dict(requests)} | ({"requests_per_block": each} if each else {})


def versions() -> dict[str, str]:
    """Versions of cdpipe and of the libraries that bear on results."""
    libraries = ("torch", "segmentation-models-pytorch", "ray", "rasterio", "zarr", "albumentations", "numpy")
    return {"cdpipe": __version__, **{name: importlib.metadata.version(name) for name in libraries}}


def last_rate(session: Session, stage: str, unit: str) -> float | None:
    """Units a second that a stage last reached in this run, if it is known."""
    for entry in reversed(read_json(session.run_folder / "log.json") or []):
        if entry.get("stage") == stage and entry.get(unit) and entry.get("seconds"):
            return float(entry[unit]) / float(entry["seconds"])
    return None


# Runs one verb of a configuration: lock, work, write down what failed.

FOLDED = {"sample": ("area", "run_sample"), "review": ("report", "run_review"), "verify": ("status", "run_verify")}
READ_ONLY = ("status",)
KEEPS_FAILURES = ("status", "verify", "submission", "threshold", "sample", "area", "report", "review")


def run(config: Config, options: argparse.Namespace) -> int:
    """Run the verb that was asked for and give the exit code."""
    session = Session(
        config,
        make_console(),
        dry_run=getattr(options, "dry_run", False),
        keep_going=getattr(options, "keep_going", False),
        only_failed=getattr(options, "failed", False),
        verbose=options.verbose,
        wait=options.wait,
        only_pairs=tuple(getattr(options, "pair", None) or ()),
        only_splits=tuple(getattr(options, "split", None) or ()),
        submissions=tuple(getattr(options, "submission", None) or ()),
        template=getattr(options, "template", None),
        rasters=getattr(options, "rasters", None),
        review=getattr(options, "review", None),
        out=getattr(options, "out", None),
        request=options,
    )
    return run_session(session, options.verb)


def run_session(session: Session, verb: str) -> int:
    """Run a verb and give the exit code; the workspace is held while it writes."""
    # only this verb's module: others would import what takes seconds
    module, name = FOLDED.get(verb, (verb, "run"))
    run_one = getattr(importlib.import_module(f"cdpipe.cli.{module}"), name)
    if session.dry_run or verb in READ_ONLY:
        run_one(session)
        return EXIT_DONE
    with locked(session.workspace, wait=session.wait), session.resources as stack:
        if verb not in KEEPS_FAILURES:
            # also when the verb gives up: which pairs failed is what the user needs then
            stack.callback(session.write_failures)
        run_one(session)
        return close(session)


# A function's results on every pair of a run, by Ray tasks; what goes wrong with a pair is that pair's failure.

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_every_pair(
    session: Session, title: str, stage: str, function: Callable[[Job], Result], jobs: Sequence[tuple[str, Job]]
) -> dict[str, Result]:
    """Run a function on each pair's job, with a bar.

    Args:
        session: The session.
        title: Of the bar, such as ``audit: pairs``.
        stage: What the reason of a failure begins with.
        function: Takes a job. One of a verb's module makes every worker import what that verb does; a lambda does not.
        jobs: Each with its pair.

    Returns:
        Results by pair, in the order of their ids, without the pairs that failed.
    """
    session.start_ray()
    from cdpipe.cluster.tasks import map_pairs

    found: dict[str, Result] = {}
    with progress(session.console, title, len(jobs)) as advance:
        for pair_id, result, error in map_pairs(function, jobs):
            advance(1, "")
            if result is None:
                session.fail(pair_id, f"{stage}: {error}")
            else:
                found[pair_id] = result
    return dict(sorted(found.items()))
