"""Starting or joining Ray, quietly, and what it has to offer."""

import _thread
import contextlib
import functools
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

# read by Ray when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# a task that the memory monitor kills is otherwise tried again without end
os.environ.setdefault("RAY_task_oom_retries", "3")

import ray
from ray._private import worker as ray_worker
from ray._private.log import PlainRayHandler

from cdpipe.config.schema import Resources
from cdpipe.distributed.quiet import quiet_stderr
from cdpipe.errors import CdpipeError, ConfigError
from cdpipe.workspace.clients import add_requests, take_requests

LONGEST_REASON = 600  # characters
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # Ray has it in messages, also where there is no terminal
STARTS = 3  # of Ray on this machine
WATCH_SECONDS = 1.0
VITAL = ("raylet", "gcs_server")  # of Ray's processes

Result = TypeVar("Result")
Item = TypeVar("Item", bound=Hashable)

# glibc gives freed memory back to the system at once and zeroes it again on the next forward; keeping it
# made batched forwards on the CPU 1.3 to 1.4 times as fast. Read when a process starts, hence by environment.
# Waiting threads that sleep instead of spinning cost a tenth on an idle machine and made training 5 times as
# fast on a busy one.
MODEL_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


@contextlib.contextmanager
def ray_session(resources: Resources, verbose: bool) -> Iterator[None]:
    """Join the cluster of ``RAY_ADDRESS``, or start Ray on this machine for as long as the block lasts.

    Does nothing if this process is connected already. Without ``verbose`` Ray's own chatter stays in its log files.

    Raises:
        ConfigError: If no cluster answers at that address.
        CdpipeError: If Ray does not start here, or its processes here are killed.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {}
    if address == "local":
        local["include_dashboard"] = False
        # one machine that is busy is not one that is lost: Ray would give it up after half a minute without an answer
        os.environ.setdefault("RAY_health_check_failure_threshold", "100")
        if resources.workers != "auto":
            local["num_cpus"] = resources.workers
        if resources.gpus != "auto":
            local["num_gpus"] = resources.gpus
    level = logging.INFO if verbose else logging.ERROR
    _connect(address, logging_level=level, log_to_driver=verbose, **local)
    if threading.current_thread() is threading.main_thread():
        # instead of Ray's own, which print a stack: stopping a job ends like Ctrl-C, and the same command continues
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.ExitStack() as stack:
            if not verbose:
                _silence_ray_data()
                stack.enter_context(quiet_stderr())
            if address == "local":
                stack.enter_context(_watched())
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Give up as soon as Ray's own processes on this machine are gone: calls to Ray would wait for minutes.

    Raises:
        CdpipeError: If they are.
    """
    node: Any = ray_worker._global_node  # noqa: SLF001 (what Ray started here is known nowhere else)
    over = threading.Event()

    def lost() -> list[str]:
        return [str(kind) for kind, _ in node.dead_processes() if kind in VITAL]

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if lost():
                # not SIGINT, which shells have their background processes ignore
                _thread.interrupt_main(signal.SIGTERM)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if gone := lost():
            # whatever the block raised comes of this
            raise CdpipeError(f"Ray's {gone[0]} on this machine was killed or crashed; the same command continues")


def _connect(address: str, **options: Any) -> None:
    # Ray gives up a start of its own after half a minute, which a busy machine may need
    for left in range(STARTS - 1 if address == "local" else 0, -1, -1):
        try:
            ray.init(address=address, **options)
        except Exception as error:
            ray.shutdown()
            if left:
                continue
            reason = " ".join(str(error).split())
            if address == "local":
                raise CdpipeError(f"Ray did not start here, tried {STARTS} times: {reason}") from error
            raise ConfigError(f"RAY_ADDRESS={address}: expected a Ray cluster that answers: {reason}") from error
        return


def total_cpus() -> int:
    """CPUs that Ray may schedule on, at least 1."""
    return max(1, int(_resources().get("CPU", 1)))


def node_cpus() -> list[int]:
    """CPUs of every node that Ray may schedule on."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]


def total_gpus() -> int:
    """GPUs that Ray may schedule on."""
    return int(_resources().get("GPU", 0))


def gpu_kind() -> str:
    """Kind of the GPUs that Ray may schedule on; of several kinds the first by name."""
    kinds = sorted(name for name in _resources() if name.startswith("accelerator_type:"))
    return kinds[0].partition(":")[2] if kinds else "GPU"


def _resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def run_bounded(
    submit: Callable[[Item], "ray.ObjectRef[Any]"], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Any, Exception | None]]:
    """Run a task for each item with a bounded number in flight, yielding results as they come.

    Args:
        submit: Starts a task.
        items: What to start tasks for, drawn only as there is room.
        limit: Most tasks in flight.

    Yields:
        Item, result, and the error instead of a result where the task failed for good.
    """
    waiting = iter(items)
    pending: dict[ray.ObjectRef[Any], Item] = {}
    while True:
        while len(pending) < limit:
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


def _silence_ray_data() -> None:
    """Keep Ray Data's messages and bars off the terminal; its log file still gets them."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, PlainRayHandler):
            handler.setLevel(logging.ERROR)
