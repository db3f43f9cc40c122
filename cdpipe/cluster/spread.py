"""Tasks of a run in processes of Ray, or in threads of this process: what is over before Ray would have started.

Either way a task is one of the plain functions of the floors beneath, which store what they make and record it; so
keys, bytes and what is left after a kill are the same. NumPy, compression and networks let other threads run meanwhile.
"""

import concurrent.futures
import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cdpipe.config.resources import Resources
from cdpipe.processors import usable_cpus
from cdpipe.workspace.clients import add_requests, take_requests

Result = TypeVar("Result")
RETRIES = 3  # of a worker that is lost (killed, out of memory); an error in the data is not tried again


@dataclass(slots=True)
class _Here:
    """The threads of this process; none where tasks are Ray's."""

    threads: int = 0
    pool: ThreadPoolExecutor | None = None


_HERE = _Here()


def threads_here() -> int:
    """How many threads of this process do tasks; 0 where Ray does."""
    return _HERE.threads


def ray_runs() -> bool:
    """Whether this process has joined Ray, which is not imported to know it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def may_stay_here(resources: Resources) -> bool:
    """Whether threads can do a run's tasks: no cluster was asked for or joined, and there is no GPU to be used."""
    if resources.ray == "always" or os.environ.get("RAY_ADDRESS", "local") != "local":
        return False
    if ray_runs():
        return False
    return resources.gpus == 0 or (resources.gpus == "auto" and not any(Path("/dev").glob("nvidia[0-9]*")))


def count_threads(resources: Resources) -> int:
    """Threads for a run's tasks: as many as it may use CPUs, of those that this process may."""
    asked = [number for number in (resources.workers, resources.cpus) if number != "auto"]
    return max(1, *asked) if asked else usable_cpus()


@contextlib.contextmanager
def done_by(threads: int) -> Iterator[None]:
    """Have so many threads of this process do tasks while the block lasts, or Ray if there are none.

    Tasks of threads that are not begun when the block ends are dropped.
    """
    before = _HERE.threads, _HERE.pool
    _HERE.threads, _HERE.pool = threads, ThreadPoolExecutor(threads, "cdpipe") if threads else None
    try:
        yield
    finally:
        own = _HERE.pool
        _HERE.threads, _HERE.pool = before
        if own is not None:
            own.shutdown(wait=True, cancel_futures=True)


def end_as_interrupted() -> None:
    """Have SIGTERM end this process as Ctrl-C does: jobs are stopped by it, and the same command continues."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def starter(function: Callable[..., Result], cpus: float = 1, **options: Any) -> Callable[..., Any]:
    """A function that starts a task with its arguments.

    Args:
        function: What the task does.
        cpus: How many of Ray's CPUs it takes.
        options: What else Ray is to know of it.
    """
    if _HERE.pool is not None:
        return functools.partial(_HERE.pool.submit, function)
    import ray

    task = ray.remote(num_cpus=cpus, max_retries=RETRIES, **options)(_with_requests(function))
    start: Callable[..., Any] = task.remote
    return start


def shared(value: Any) -> Any:
    """A value that many tasks are given as an argument, handed over once."""
    if _HERE.pool is not None:
        return value
    import ray

    return ray.put(value)


def ended(tasks: Sequence[Any], *, wait: bool) -> list[Any]:
    """Those of the tasks that have ended, in their order.

    Args:
        tasks: What :func:`starter`'s functions gave.
        wait: Wait for one at least.
    """
    if _HERE.pool is not None:
        futures: Sequence[Future[Any]] = tasks
        done, _ = concurrent.futures.wait(futures, None if wait else 0, concurrent.futures.FIRST_COMPLETED)
        return [task for task in futures if task in done]
    import ray

    ray.wait(list(tasks), timeout=None if wait else 0)
    # all that are done: one at a time would let Ray's scheduler wait for this process
    ready, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
    return list(ready)


def result_of(task: Any) -> Any:
    """What an ended task returned.

    Raises:
        Exception: What it raised; Ray's own has that as its cause.
    """
    if isinstance(task, Future):
        return task.result()
    import ray

    answer = ray.get(task)
    if isinstance(answer, _Counted):
        add_requests(answer.requests)
        return answer.result
    return answer


def trace_of(error: BaseException) -> str:
    """Where a task's error was raised."""
    # Ray's has the worker's traceback in its text
    return str(error) if hasattr(error, "cause") else "".join(traceback.format_exception(error))


def _with_requests(function: Callable[..., Result]) -> Callable[..., Any]:
    """A function for workers that also gives the requests to object storage that its process has made."""

    @functools.wraps(function)
    def call(*arguments: Any) -> _Counted:
        return _Counted(function(*arguments), take_requests())

    return call


@dataclass(frozen=True, slots=True)
class _Counted:
    result: Any
    requests: dict[str, int]
