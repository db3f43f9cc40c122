"""Small jobs, one a pair, that run beside or after the others: rasters, evaluation."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from cdpipe.distributed.cluster import describe_failure, run_bounded, total_cpus

Job = TypeVar("Job")
Result = TypeVar("Result")


class Background:
    """Tasks started one by one while something else goes on, collected as they end."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Prepare to run ``function`` on jobs, in other processes."""
        self._remote = ray.remote(num_cpus=0.5, max_retries=3)(function)
        self._pending: dict[ray.ObjectRef[Any], int] = {}

    def start(self, number: int, job: Any) -> None:
        """Start a task."""
        self._pending[self._remote.remote(job)] = number

    def collect(self, *, wait: bool) -> Iterator[tuple[int, Any, str | None]]:
        """Number, result and failure of each task that has ended; of all of them if ``wait``."""
        while self._pending:
            ready, _ = ray.wait(list(self._pending), timeout=None if wait else 0)
            if not ready:
                return
            number = self._pending.pop(ready[0])
            try:
                result, failure = ray.get(ready[0]), None
            except Exception as error:  # noqa: BLE001 (any failure is this task's alone)
                result, failure = None, describe_failure(error)
            yield number, result, failure


def map_pairs(
    function: Callable[[Job], Result], jobs: Sequence[tuple[str, Job]]
) -> Iterator[tuple[str, Result | None, str | None]]:
    """Run a function on each pair's job, yielding name, result and failure as they come."""
    remote = ray.remote(num_cpus=1, max_retries=3)(function)
    by_name = dict(jobs)
    for name, result, error in run_bounded(lambda name: remote.remote(by_name[name]), by_name, 2 * total_cpus()):
        yield name, result, describe_failure(error) if error is not None else None
