"""Starting or joining Ray, quietly, and what it has to offer."""

import _thread
import contextlib
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import ray

from cdpipe.cluster import spread
from cdpipe.cluster.needs import withdraw
from cdpipe.config.resources import Resources
from cdpipe.errors import CdpipeError, ConfigError

# Keeps Ray's harmless messages, which its C++ core writes straight to standard error, off the terminal.

# an actor of Ray Data is told apart from its arguments, which the driver holds for as long as it lives
NOISE = re.compile(rb"core_worker\.cc:\d+: Actor with class name")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop the known noise from standard error, whoever in this process writes it; all else passes."""
    real = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    pump = threading.Thread(target=_pump, args=(reader, real), daemon=True)
    pump.start()
    try:
        yield
    finally:
        # descriptor 2 was the pipe's last writer, so this also ends the thread, after all that is left
        os.dup2(real, 2)
        pump.join(timeout=5)
        os.close(real)


def _pump(reader: int, real: int) -> None:
    rest = b""
    while data := os.read(reader, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not NOISE.search(line):
                os.write(real, line + b"\n")
    os.close(reader)
    os.write(real, rest)


# read by Ray when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
# a task that the memory monitor kills is otherwise tried again without end
os.environ.setdefault("RAY_task_oom_retries", "3")
STARTS = 3  # of Ray on this machine
WATCH_SECONDS = 1.0
VITAL = ("raylet", "gcs_server")  # of Ray's processes
ANSWER_SECONDS = 8.0  # a cluster answers within milliseconds; Ray itself would go on asking for minutes
ADDRESS = re.compile(r"(?:ray://)?(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})")  # a host and the port of its gRPC server
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # none: a frame with which both ends of HTTP/2 begin (RFC 9113, 3.4)
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS


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
        local |= _limits(resources)
    else:
        _require_answer(address)
    level = logging.INFO if verbose else logging.ERROR
    _connect(address, logging_level=level, log_to_driver=verbose, **local)
    spread.end_as_interrupted()  # Ray's own handlers print a stack
    try:
        with contextlib.ExitStack() as stack:
            if not verbose:
                _silence_ray_data()
                stack.enter_context(quiet_stderr())
            if address == "local":
                stack.enter_context(_watched())
            yield
    finally:
        withdraw()  # what was given up in the middle may still be asked for
        ray.shutdown()


def _limits(resources: Resources) -> dict[str, int]:
    """What Ray is to schedule on of this machine, as its options; what they leave out it finds out."""
    found = {}
    if resources.workers != "auto":
        found["num_cpus"] = resources.workers
    if resources.cpus != "auto":
        found["num_cpus"] = resources.cpus
    if resources.gpus != "auto":
        found["num_gpus"] = resources.gpus
    if resources.gpus != "auto" and resources.gpus and resources.device == "auto":
        import torch  # takes seconds

        # Ray would believe in GPUs that there are not
        found["num_gpus"] = min(resources.gpus, torch.cuda.device_count())
    return found


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Give up as soon as Ray's own processes on this machine are gone: calls to Ray would wait for minutes.

    Raises:
        CdpipeError: If they are.
    """
    # Ray starts them as children of this process, or of one that it starts first
    children = psutil.Process().children(recursive=True)
    vital = [(_name(each), each) for each in children if _name(each) in VITAL and _is_alive(each)]
    over = threading.Event()

    def lost() -> list[str]:
        return [name for name, each in vital if not _is_alive(each)]

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


def _name(process: Any) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.name())
    return ""


def _is_alive(process: Any) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _require_answer(address: str) -> None:
    """Ask whatever listens at an address of Ray whether it speaks as Ray does, which is gRPC, on HTTP/2.

    Addresses of other kinds, such as ``auto``, are left to Ray, and so is what is said behind TLS.

    Raises:
        ConfigError: If nothing answers, or something else.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        return
    reasons = ["it does not answer"]
    # in a thread, since looking up a name heeds no timeout
    asking = threading.Thread(target=lambda: reasons.append(_ask(found[1].strip("[]"), int(found[2]))), daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    if reasons[-1]:
        raise ConfigError(
            f"RAY_ADDRESS={address}: expected a Ray cluster that answers there: {reasons[-1]}; is it up, and is this "
            "its address? Without RAY_ADDRESS, Ray is started on this machine"
        )


def _ask(host: str, port: int) -> str:
    """Why there is no gRPC server at an address; nothing where there is one."""
    answer = b""
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return ""
            connection.sendall(HELLO)
            while len(answer) < len(SETTINGS) and (more := connection.recv(64)):
                answer += more
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    kind = slice(3, 4)  # of a frame
    return "" if answer[kind] == SETTINGS[kind] else "what listens there is none"


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


def _resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _silence_ray_data() -> None:
    """Keep Ray Data's messages and bars off the terminal; its log file still gets them."""
    # of tasks that nobody waits for: its actor for statistics forgets all with the node that it was on
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)
