"""Small jobs, one a pair, that run beside or after the others: rasters, evaluation."""

import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from cdpipe.cluster import spread
from cdpipe.cluster.needs import asked_for_cpus, following
from cdpipe.cluster.start import start_workers
from cdpipe.errors import CdpipeError
from cdpipe.runs.run import Run

if TYPE_CHECKING:
    from ray.util.metrics import Counter

LONGEST_REASON = 600  # characters
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # Ray has it in messages, also where there is no terminal

Result = TypeVar("Result")
Item = TypeVar("Item", bound=Hashable)


def run_bounded(
    start: Callable[[Item], Any], items: Iterable[Item], limit: Callable[[], int]
) -> Iterator[tuple[Item, Any, Exception | None]]:
    """Run a task for each item with a bounded number in flight, yielding results as they come.

    Args:
        start: Starts a task.
        items: What to start tasks for, drawn only as there is room.
        limit: Gives the most tasks in flight, now and then: a cluster may grow meanwhile.

    Yields:
        Item, result, and the error instead of a result where the task failed for good.
    """
    waiting = iter(items)
    pending: dict[Any, Item] = {}
    while True:
        while len(pending) < limit():
            item = next(waiting, _END)
            if item is _END:
                break
            pending[start(item)] = item
        if not pending:
            return
        for task in spread.ended(list(pending), wait=True):
            item = pending.pop(task)
            try:
                result, error = spread.result_of(task), None
            except Exception as failure:  # noqa: BLE001 (whatever a task raised is that task's result)
                result, error = None, failure
            yield item, result, error


def describe_failure(error: Exception) -> str:
    """One line about a task that failed for good."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(COLOUR.sub("", str(cause)).split()) or type(cause).__name__
    # a long one is a traceback, whose end says what happened
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON // 4]} ... {text[-LONGEST_REASON // 2 :]}"


def failure_details(error: Exception) -> str:
    """The traceback of a task that failed for good; nothing where its message says all."""
    return "" if isinstance(getattr(error, "cause", error), CdpipeError) else spread.trace_of(error)


_END: Any = object()

ASK_SECONDS = 0.1

Job = TypeVar("Job")


class Background:
    """Tasks started one by one while something else goes on, collected as they end."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Prepare to run ``function`` on jobs."""
        self._start = spread.starter(function, cpus=0.5)
        self._pending: dict[Any, int] = {}
        self._asked = 0.0

    def start(self, number: int, job: Any) -> None:
        """Start a task."""
        self._pending[self._start(job)] = number

    def collect(self, *, wait: bool) -> Iterator[tuple[int, Any, str | None]]:
        """Number, result and failure of each task that has ended, now and then; of all of them if ``wait``."""
        # asking takes time for every task that is pending, and this is called for every block
        if not wait and time.monotonic() - self._asked < ASK_SECONDS:
            return
        self._asked = time.monotonic()
        while self._pending:
            for task in spread.ended(list(self._pending), wait=wait):
                number = self._pending.pop(task)
                try:
                    result, failure = spread.result_of(task), None
                except Exception as error:  # noqa: BLE001 (any failure is this task's alone)
                    result, failure = None, describe_failure(error)
                yield number, result, failure
            if not wait:
                return


def map_pairs(
    run: Run, stage: str, function: Callable[[Job], Result], jobs: Sequence[tuple[str, Job]]
) -> Iterator[tuple[str, Result | None, str | None]]:
    """Run a function on each pair's job, yielding name, result and failure as they come.

    Args:
        run: The run.
        stage: What users know it by.
        function: Takes a job.
        jobs: Each with its pair.
    """
    start = spread.starter(function)
    by_name = dict(jobs)
    with asked_for_cpus(run, stage, len(jobs)):
        for name, result, error in run_bounded(lambda name: start(by_name[name]), by_name, following(2)):
            yield name, result, describe_failure(error) if error is not None else None


def map_every_pair(
    run: Run, title: str, stage: str, function: Callable[[Job], Result], jobs: Sequence[tuple[str, Job]]
) -> dict[str, Result]:
    """Run a function on each pair's job; what goes wrong with a pair is that pair's failure.

    Args:
        run: The run.
        title: Of the step, such as ``audit: pairs``.
        stage: What the reason of a failure begins with.
        function: Takes a job. Every worker imports the module that it is of; a lambda's it does not.
        jobs: Each with its pair.

    Returns:
        Results by pair, in the order of their ids, without the pairs that failed.
    """
    if not jobs:  # Ray, which takes seconds to start, would have nothing to do
        return {}
    start_workers(run)
    results: dict[str, Result] = {}
    with run.step(title, len(jobs)) as advance:
        for pair_id, result, error in map_pairs(run, stage, function, jobs):
            advance(1, "")
            if result is None:
                run.fail(pair_id, f"{stage}: {error}")
            else:
                results[pair_id] = result
    return dict(sorted(results.items()))


# Ray metrics of a run, for whoever watches the cluster: Prometheus reads them from every node's agent.


@cache
def _counter(name: str, description: str) -> "Counter":
    from ray.util.metrics import Counter

    return Counter(name, description, tag_keys=("stage", "part"))


def meter(stage: str, outcome: str, figures: Mapping[str, float]) -> None:
    """Count a block, where there is a cluster to watch.

    Args:
        stage: ``ingest`` or ``predict``.
        outcome: ``done`` or ``failed``.
        figures: What its worker spent and counted; see :mod:`cdpipe.timing`.
    """
    if spread.threads_here():
        return
    _counter("cdpipe_blocks", "blocks worked on").inc(1, {"stage": stage, "part": outcome})
    for name, number in figures.items():
        if number > 0:
            what, _, unit = name.rpartition("_")
            if unit == "seconds":
                _counter("cdpipe_seconds", "seconds that workers spent").inc(number, {"stage": stage, "part": what})
            else:
                _counter(f"cdpipe_{name}", f"{name.replace('_', ' ')}, in all").inc(
                    number, {"stage": stage, "part": ""}
                )
