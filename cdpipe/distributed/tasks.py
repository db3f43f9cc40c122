"""Small jobs, one a pair, that run beside or after the others: rasters, evaluation."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from cdpipe.distributed.cluster import describe_failure, run_bounded, tallied, total_cpus, with_requests

ASK_SECONDS = 0.1

Job = TypeVar("Job")
Result = TypeVar("Result")


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
    function: Callable[[Job], Result], jobs: Sequence[tuple[str, Job]]
) -> Iterator[tuple[str, Result | None, str | None]]:
    """Run a function on each pair's job, yielding name, result and failure as they come."""
    remote = ray.remote(num_cpus=1, max_retries=3)(with_requests(function))
    by_name = dict(jobs)
    for name, result, error in run_bounded(lambda name: remote.remote(by_name[name]), by_name, 2 * total_cpus()):
        yield name, result, describe_failure(error) if error is not None else None
