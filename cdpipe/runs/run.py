"""A configuration at work: its workspace, what failed, its log, and whom to tell how far it is."""

import contextlib
import datetime
import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.pairs.catalog import Pair, load_catalog, read_catalog
from cdpipe.pairs.coregistration import known_corrections
from cdpipe.pairs.grouping import group_findings
from cdpipe.pairs.plan import (
    NOT_INGESTED,
    PlannedPair,
    all_source_files,
    known_hashes,
    placed_pairs,
    plan_pairs,
    stored_cells,
    stored_pair,
    why_not_planned,
)
from cdpipe.pairs.splits import Splits, known_splits
from cdpipe.store.pair import StoredPair
from cdpipe.version import __version__
from cdpipe.workspace.clients import take_requests
from cdpipe.workspace.disk import found_no_room
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace, locked
from cdpipe.workspace.location import Location

_LOGGING = threading.Lock()  # stages may overlap

LIBRARIES = ("torch", "segmentation-models-pytorch", "ray", "rasterio", "zarr", "albumentations", "numpy")


@dataclass(frozen=True, slots=True)
class Step:
    """How far a step of the work is.

    Attributes:
        title: What is done, and in which units, such as ``ingest: blocks``.
        done: Units that are done.
        total: Units that there are; never 0.
        note: What else there is to say.
        over: Whether this is the last that is heard of the step, done or given up.
    """

    title: str
    done: int
    total: int
    note: str = ""
    over: bool = False


@dataclass(frozen=True, slots=True)
class Remark:
    """Something worth telling while the work goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair failed; the work on others goes on."""

    pair_id: str
    reason: str


Progress = Callable[[Step | Remark | Failure], None]
Advance = Callable[[int, str], None]


def ignore(_event: Step | Remark | Failure) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def tell_step(progress: Progress, title: str, total: int) -> Iterator[Advance]:
    """Tell how far a step is.

    Args:
        progress: Whom to tell.
        title: What is done, and in which units.
        total: Units that there are; of nothing nothing is told.

    Yields:
        A function to call, by any thread, with the number of units just done and a note.
    """
    done, alone = 0, threading.Lock()

    def advance(count: int, note: str) -> None:
        nonlocal done
        with alone:
            done += count
            progress(Step(title, done, total, note))

    if not total:
        yield lambda _count, _note: None
        return
    progress(Step(title, 0, total))
    try:
        yield advance
    finally:
        progress(Step(title, done, total, over=True))


@dataclass(slots=True)
class Run:
    """A configuration at work, by which all functions of :mod:`cdpipe.api` are called.

    Attributes:
        config: The configuration.
        progress: Called with every step, remark and failure; while a model trains, and when threads have run a network
            on a patch, by another thread.
        verbose: Show Ray's own messages.
        wait: Wait for another run to let go of the workspace instead of giving up.
        failures: Pairs that failed in the last call, with the reason.
        warnings: What the check warned of so far, each told once.
        resources: What is let go of when the outermost call ends, such as Ray.
        holding: How many calls, one within the other, hold the workspace.
    """

    config: Config
    progress: Progress = ignore
    verbose: bool = False
    wait: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    holding: int = 0

    @property
    def workspace(self) -> Workspace:
        """The configuration's workspace."""
        return Workspace(self.config.workspace)

    @property
    def folder(self) -> Location:
        """Folder of this run's outputs."""
        return self.workspace.run(self.config.name)

    def say(self, text: str) -> None:
        """Tell something."""
        self.progress(Remark(text))

    def warn(self, texts: Iterable[str]) -> None:
        """Tell what may be wrong, but for what was told already."""
        for text in texts:
            if text not in self.warnings:
                self.warnings.append(text)
                self.say(f"warning: {text}")

    def recall_warnings(self) -> None:
        """Tell what the check warned of when the pairs were last ingested, for verbs that do not check again."""
        last: dict[str, Any] = next(
            (entry for entry in reversed(self.log_entries()) if entry.get("stage") == "ingest"), {}
        )
        self.warn(last.get("warnings", ()))

    def step(self, title: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Tell how far a step is; see :func:`tell_step`."""
        return tell_step(self.progress, title, total)

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
            self.progress(Failure(pair_id, reason))
        if full:
            raise InputError("stopped, since the disk is full: make room and run the same command again")

    def sum_up_failures(self) -> str:
        """Which pairs failed and why, equal reasons once."""
        return "; ".join(map(str, group_findings(self.failures.items())))

    def log_error(self, text: str, details: str) -> None:
        """Add to the run's ``errors.log``."""
        (self.folder / "errors.log").append(f"{text}\n{details}\n".encode())

    @contextlib.contextmanager
    def hold(self, *, keep_failures: bool = False) -> Iterator[None]:
        """Hold the workspace for writing, and let go of everything at the end; calls may be one within the other.

        Args:
            keep_failures: Leave what ``failed.json`` says of earlier calls as it is.

        Raises:
            ConfigError: If the workspace cannot be written.
            LockedError: If another process holds it.
        """
        if self.holding:
            yield
            return
        self.failures.clear()
        with locked(self.workspace, wait=self.wait), contextlib.ExitStack() as stack:
            self.resources = stack
            if not keep_failures:
                # also when the work is given up: which pairs failed is what the user needs then
                stack.callback(self.write_failures)
            self.holding = 1
            try:
                yield
            finally:
                self.holding = 0

    def write_failures(self) -> None:
        """Write down which pairs failed, for later calls."""
        write_json(self.folder / "failed.json", self.failures)

    def last_failures(self) -> dict[str, str]:
        """Pairs that failed in earlier calls, with the reasons."""
        value = read_json(self.folder / "failed.json")
        return {str(key): str(reason) for key, reason in value.items()} if isinstance(value, dict) else {}

    def log_entries(self) -> list[dict[str, Any]]:
        """The run's ``log.json``: an entry for every stage that was run."""
        return list(read_json(self.folder / "log.json") or [])

    @contextlib.contextmanager
    def logged(self, stage: str, facts: Mapping[str, Any], *, beside: bool = False) -> Iterator[dict[str, Any]]:
        """Add an entry to the run's ``log.json``: what was done, when, how long it took, with which versions.

        Args:
            stage: The stage.
            facts: What is known of it before.
            beside: Whether another stage goes on meanwhile, whose entry then has the requests of both.

        Yields:
            A mapping to add figures to.
        """
        begun, figures = time.monotonic(), dict(facts)
        if not beside:
            take_requests()  # those of an earlier stage
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            yield figures
        finally:
            if not beside:
                figures |= _bill(take_requests(), figures.get("blocks"))
            entry = {"stage": stage, "started": started, "seconds": round(time.monotonic() - begun, 1), **figures}
            entry |= {"failed": dict(self.failures), "versions": versions()}
            with _LOGGING:
                write_json(self.folder / "log.json", [*self.log_entries(), entry])

    def last_rate(self, stage: str, unit: str) -> float | None:
        """Units a second that a stage last reached in this run, if it is known."""
        for entry in reversed(self.log_entries()):
            if entry.get("stage") == stage and entry.get(unit) and entry.get("seconds"):
                return float(entry[unit]) / float(entry["seconds"])
        return None


def chosen_pairs(run: Run, *, only_failed: bool = False) -> list[Pair]:
    """The catalog's pairs, or those of them that failed last time.

    Raises:
        InputError: If the catalog has mistakes, or none failed but only those are wanted.
    """
    catalog = load_catalog(run.config)
    run.warn(f"{run.config.catalog}: {text}" for text in catalog.remarks)
    pairs = catalog.pairs
    if not only_failed:
        return pairs
    last = run.last_failures()
    chosen = [pair for pair in pairs if pair.pair_id in last]
    if not chosen:
        raise InputError(f"--failed: no pair of run {run.config.name} failed last time; run without it")
    return chosen


def planned_pairs(run: Run) -> tuple[list[PlannedPair], dict[str, str]]:
    """All pairs with their keys; and those not ingested, or whose sources changed or are gone, with the reason."""
    pairs = read_catalog(run.config)
    hashes = known_hashes(run.workspace, all_source_files(pairs, run.config))
    planned, failed = plan_pairs(pairs, run.config, hashes, known_corrections(run.workspace))
    lost = [pair for pair in pairs if pair.pair_id in failed]
    return planned, failed | why_not_planned(lost, run.config, run.workspace, hashes)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The pairs that are in the store.

    Attributes:
        pairs: What the catalog says of each and its keys; and its grid and pixels.
        splits: What each split has of them; nothing where there are too few places, and no scene can be cut.
    """

    pairs: tuple[tuple[PlannedPair, StoredPair], ...]
    splits: Splits

    @property
    def planned(self) -> list[PlannedPair]:
        """What the catalog says of each."""
        return [item for item, _ in self.pairs]


def take_inventory(run: Run) -> Inventory:
    """The pairs that are in the store; the others are noted as failed.

    Raises:
        InputError: If none is.
    """
    stored, last = [], run.last_failures()
    planned, failed = planned_pairs(run)
    for item in planned:
        pair = stored_pair(run.workspace, item)
        if pair is None:
            failed[item.pair.pair_id] = NOT_INGESTED
        else:
            stored.append((item, pair))
    # why it could not be ingested tells more than that it is not
    failed = {key: last.get(key, reason) if reason == NOT_INGESTED else reason for key, reason in failed.items()}
    if not stored:
        run.failures |= failed  # for ``--failed``; the message sums them up
        if set(failed.values()) == {NOT_INGESTED}:
            raise InputError(f"{run.config.catalog}: no pair is in the store: {NOT_INGESTED}")
        raise InputError(
            f"{run.config.catalog}: no pair is in the store: {run.sum_up_failures()}; run cdpipe ingest first"
        )
    for pair_id, reason in failed.items():
        run.fail(pair_id, reason)
    items = [item for item, _ in stored]
    splits = known_splits(run.config, placed_pairs(items), stored_cells(run.workspace, items))
    return Inventory(tuple(stored), splits)


def rounded(spent: Mapping[str, float]) -> dict[str, float]:
    """What workers spent and counted, as it stands in the log: seconds to a hundredth, whole numbers."""
    return {
        name: round(number, 2) if name.endswith("_seconds") else round(number) for name, number in sorted(spent.items())
    }


def versions() -> dict[str, str]:
    """Versions of cdpipe and of the libraries that bear on results."""
    return {"cdpipe": __version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def _bill(requests: Mapping[str, int], blocks: Any) -> dict[str, Any]:
    """Requests to object storage of a stage, and for each of its blocks; nothing where there were none."""
    if not requests:
        return {}
    each = {kind: round(number / blocks, 1) for kind, number in requests.items()} if blocks else {}
    return {"requests": dict(requests)} | ({"requests_per_block": each} if each else {})
