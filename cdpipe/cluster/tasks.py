"""Small jobs, one a pair, that run beside or after the others: rasters, evaluation."""

import functools
import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import ray
from ray.util.metrics import Counter

from cdpipe.cluster.needs import asked_for_cpus, following
from cdpipe.cluster.session import start_ray
from cdpipe.errors import CdpipeError
from cdpipe.runs.run import Run
from cdpipe.workspace.clients import add_requests, take_requests

LONGEST_REASON = 600  # characters
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # Ray has it in messages, also where there is no terminal

Result = TypeVar("Result")
Item = TypeVar("Item", bound=Hashable)


def run_bounded(
    submit: Callable[[Item], "ray.ObjectRef[Any]"], items: Iterable[Item], limit: Callable[[], int]
) -> Iterator[tuple[Item, Any, Exception | None]]:
    """Run a task for each item with a bounded number in flight, yielding results as they come.

    Args:
        submit: Starts a task.
        items: What to start tasks for, drawn only as there is room.
        limit: Gives the most tasks in flight, now and then: a cluster may grow meanwhile.

    Yields:
        Item, result, and the error instead of a result where the task failed for good.
    """
    waiting = iter(items)
    pending: dict[ray.ObjectRef[Any], Item] = {}
    while True:
        while len(pending) < limit():
            item = next(waiting, _END)
            if item is _END:
                break
            pending[submit(item)] = item
        if not pending:
            return
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=None)
        # take all that is done: one at a time would let the scheduler wait for the driver
        more, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        for reference in dict.fromkeys([*ready, *more]):
            item = pending.pop(reference)
            try:
                result, error = tallied(ray.get(reference)), None
            except Exception as failure:  # noqa: BLE001 (whatever a task raised is that task's result)
                result, error = None, failure
            yield item, result, error


def with_requests(function: Callable[..., Result]) -> Callable[..., Any]:
    """A function for workers that also gives the requests to object storage that its process has made."""

    @functools.wraps(function)
    def call(*arguments: Any) -> _Counted:
        return _Counted(function(*arguments), take_requests())

    return call


def tallied(answer: Any) -> Any:
    """The result of a function that may be :func:`with_requests`; its requests are added to those of this process."""
    if not isinstance(answer, _Counted):
        return answer
    add_requests(answer.requests)
    return answer.result


@dataclass(frozen=True, slots=True)
class _Counted:
    result: Any
    requests: dict[str, int]


def describe_failure(error: Exception) -> str:
    """One line about a task that failed for good."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(COLOUR.sub("", str(cause)).split()) or type(cause).__name__
    # a long one is a traceback, whose end says what happened
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON // 4]} ... {text[-LONGEST_REASON // 2 :]}"


def failure_details(error: Exception) -> str:
    """The traceback of a task that failed for good; nothing where its message says all."""
    return "" if isinstance(getattr(error, "cause", None), CdpipeError) else str(error)


_END: Any = object()

ASK_SECONDS = 0.1

Job = TypeVar("Job")


class Background:
    """Tasks started one by one while something else goes on, collected as they end."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Prepare to run ``function`` on jobs, in other processes."""
        self._remote = ray.remote(num_cpus=0.5, max_retries=3)(with_requests(function))
        self._pending: dict[ray.ObjectRef[Any], int] = {}
        self._asked = 0.0

    def start(self, number: int, job: Any) -> None:
        """Start a task."""
        self._pending[self._remote.remote(job)] = number

    def collect(self, *, wait: bool) -> Iterator[tuple[int, Any, str | None]]:
        """Number, result and failure of each task that has ended, now and then; of all of them if ``wait``."""
        # asking takes time for every task that is pending, and this is called for every block
        if not wait and time.monotonic() - self._asked < ASK_SECONDS:
            return
        self._asked = time.monotonic()
        while self._pending:
            references = list(self._pending)
            ray.wait(references, timeout=None if wait else 0)
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
            for reference in ready:
                number = self._pending.pop(reference)
                try:
                    result, failure = tallied(ray.get(reference)), None
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
    remote = ray.remote(num_cpus=1, max_retries=3)(with_requests(function))
    by_name = dict(jobs)
    with asked_for_cpus(run, stage, len(jobs)):
        for name, result, error in run_bounded(lambda name: remote.remote(by_name[name]), by_name, following(2)):
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
    start_ray(run)
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
def _counter(name: str, description: str) -> Counter:
    return Counter(name, description, tag_keys=("stage", "part"))


def meter(stage: str, outcome: str, figures: Mapping[str, float]) -> None:
    """Count a block.

    Args:
        stage: ``ingest`` or ``predict``.
        outcome: ``done`` or ``failed``.
        figures: What its worker spent and counted; see :mod:`cdpipe.timing`.
    """
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
