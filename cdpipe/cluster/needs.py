"""Asking a cluster for what a stage of a run needs, waiting for it, and letting go of it at the stage's end."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from cdpipe.cluster import spread
from cdpipe.cluster.private import describe_starts
from cdpipe.cluster.supply import Bundle, Supply, look_up_supply
from cdpipe.config.resources import Resources
from cdpipe.errors import ConfigError, ShortageError
from cdpipe.runs.run import Run
from cdpipe.units import duration
from cdpipe.workspace.remembered import Remembered

POLL_SECONDS = 0.5
TELL_SECONDS = 60.0
# Ray Data and Ray Train ask the autoscaler too, every 20 s, and each request takes the place of all before it.
RENEW_SECONDS = 10.0
FOLLOW_SECONDS = 2.0
# A node takes minutes to come, a block seconds: with fewer for each it would come for nothing.
BLOCKS_A_CPU, BLOCKS_A_GPU = 4, 16
WORKER_CPUS = 0.6  # of a training worker: on one of its CPUs a little is left over, or nothing else could be scheduled
ACTOR_CPUS = 0.5  # of an actor that holds models: whole ones would leave none to feed them with on a small machine


_OPEN: dict[threading.Event, "Need"] = {}  # all that is asked for at this moment, by stages that may overlap
_ASKING = threading.Lock()  # or what has just ended could be asked for again
NO_GPU = "set resources.gpus: 0, and networks run on CPUs"
NO_CPU = "start Ray on nodes with CPUs, or an autoscaler that does"


@dataclass(frozen=True, slots=True)
class Need:
    """What a stage of a run asks for.

    Attributes:
        what: Ray's name of it: ``GPU`` or ``CPU``.
        count: How many.
        each: What goes with each of them, of one node.
        key: The configuration's key that says how many; empty where that follows from the work and the cluster.
    """

    what: str
    count: int
    each: Bundle
    key: str = ""


@dataclass(frozen=True, slots=True)
class Actors:
    """The actors that hold models.

    Attributes:
        count: How many, at least 1; not all of them need be there yet.
        gpus: Whether each has a GPU, else a part of a CPU.
        grow: Whether nodes that join by themselves get some, too.
        resources: What else of Ray's each needs: the kind of its GPU.
        memory: The main memory that each is to have, in bytes; 0 where none was asked for.
    """

    count: int
    gpus: bool
    grow: bool = False
    resources: dict[str, float] = field(default_factory=dict)
    memory: int = 0


def accelerator(resources: Resources) -> dict[str, float]:
    """What Ray's nodes have that hold the kind of GPU which a run asks for; nothing where any will do."""
    return {f"accelerator_type:{resources.accelerator_type}": 0.001} if resources.accelerator_type else {}


def memory(resources: Resources) -> dict[str, float]:
    """The main memory, in bytes, of each worker that predicts or trains; nothing where that is left open."""
    return {"memory": resources.memory_gib * 2**30} if resources.memory_gib else {}


def gpu_need(resources: Resources, supply: Supply) -> Need:
    """The GPUs that a run uses: those it asks for, or all that there are and may be; none of them may be there yet."""
    each = {"GPU": 1.0, **accelerator(resources), **memory(resources)}
    if resources.gpus == "auto":
        return Need("GPU", supply.could(each), each)
    return Need("GPU", resources.gpus, each, "resources.gpus")  # 0 where networks are to run on CPUs


def cpu_need(resources: Resources, supply: Supply, most: int, *, networks: bool = False) -> Need:
    """The CPUs that a stage uses.

    Args:
        resources: What the run asks for.
        supply: What there is and may be.
        most: How many tasks could run at once.
        networks: Whether they run networks.
    """
    each = {"CPU": 1.0, **(memory(resources) if networks else {})}
    if resources.cpus == "auto":
        return Need("CPU", max(1, min(most, supply.without_gpus().could(each))), each)
    return Need("CPU", max(1, min(most, resources.cpus)), each, "resources.cpus")


def affordable(run: Run, need: Need, supply: Supply) -> Need:
    """The need, or as much of it as the cluster can ever give.

    Raises:
        ConfigError: If nothing of it can, or the run is to stop for want of some.
    """
    could = supply.could(need.each)
    if need.count <= could:
        return need
    text = _describe_excess(need, supply)
    if not could:
        raise ConfigError(f"{text}; " + (NO_GPU if need.what == "GPU" else NO_CPU))
    if run.config.resources.on_shortage == "stop":
        raise ConfigError(f"{text}; ask for at most {could}, or set resources.on_shortage: continue")
    return replace(need, count=could)


def _describe_excess(need: Need, supply: Supply) -> str:
    asked = f"{need.key}: {need.count}" if need.key else f"{need.count} {need.what}(s)"
    kind = next((name.partition(":")[2] for name in need.each if name.startswith("accelerator_type:")), "")
    room = f"{need.each['memory'] / 2**30:g} GiB of memory" if "memory" in need.each else ""
    extras = f", each with {' and '.join(filter(None, (kind, room)))}," if kind or room else ""
    return f"{asked}{extras} cannot be had: {supply.describe(need.what)}"


def plan_gpus(run: Run) -> int:
    """How many GPUs the run's models use, whether or not they are there yet; 0: they run on CPUs.

    Raises:
        ConfigError: If it asks for some and there can be none.
    """
    supply = look_up_supply()
    need = gpu_need(run.config.resources, supply)
    return affordable(run, need, supply).count if need.count else 0


def plan_device(run: Run) -> str:
    """What kind of device the run's networks run on: ``cuda`` or ``cpu``; see :func:`plan_gpus`."""
    return "cuda" if run.config.resources.device == "auto" and plan_gpus(run) else "cpu"


def gpu_kind(resources: Resources) -> tuple[str, tuple[str, ...]]:
    """The kind of GPU that a run plans for, and all that there are or may be, by Ray's names.

    Of several the first by name, so that it does not depend on which node comes first.
    """
    if resources.accelerator_type:
        return resources.accelerator_type, (resources.accelerator_type,)
    supply = look_up_supply()
    known = [*supply.nodes, *(kind.resources for kind in supply.types)]
    names = sorted({name.partition(":")[2] for each in known for name in each if name.startswith("accelerator_type:")})
    return (names[0] if names else "GPU"), tuple(names)


def following(least: int, each: int = 2) -> Callable[[], int]:
    """A limit for tasks in flight that follows the cluster as it grows and shrinks.

    Tasks that wait have the autoscaler start nodes, with GPUs, too, when there can be no more of the others; so there
    are never more than those others have room for.

    Args:
        least: How many in any case.
        each: How many for each CPU: with fewer, workers wait for the driver between short tasks.
    """
    known: Remembered[str, int] = Remembered(FOLLOW_SECONDS)
    supply, cpu = look_up_supply(), {"CPU": 1.0}
    spared = supply.without_gpus()
    most = sys.maxsize if spared is supply else max(1, spared.could(cpu))
    return lambda: min(most, max(least, each * known.get("CPUs", lambda: look_up_supply().has(cpu))))


@contextlib.contextmanager
def asked_for_models(run: Run, stage: str, blocks: int) -> Iterator[Actors]:
    """As :func:`asked`, for GPUs where the run uses any, else for CPUs.

    Args:
        run: The run.
        stage: Its stage, as users know it.
        blocks: How many blocks there are to do.

    Yields:
        The actors to work with.
    """
    supply, resources = look_up_supply(), run.config.resources
    need = gpu_need(resources, supply)
    gpus, most, auto = need.count > 0, blocks, resources.gpus == "auto"
    if gpus and auto and supply.types:
        most = -(-blocks // BLOCKS_A_GPU)
    if not gpus:
        auto = resources.workers == "auto"
        need = cpu_need(resources, supply, blocks, networks=True)
        if resources.workers != "auto":
            need = Need("CPU", resources.workers, {"CPU": ACTOR_CPUS, **memory(resources)}, "resources.workers")
    with asked(run, stage, replace(need, count=min(need.count, max(1, most)))) as count:
        # of actors without GPUs, which hold a part of a CPU each, Ray Data would put two on every CPU
        grow = gpus and auto and not supply.types and len(supply.nodes) > 1
        yield Actors(count, gpus, grow, accelerator(resources) if gpus else {}, int(memory(resources).get("memory", 0)))


@contextlib.contextmanager
def asked_for_training(run: Run, models: int, gpus: int) -> Iterator[None]:
    """As :func:`asked`, for training workers, each with a GPU and a CPU that feeds it, or with CPUs alone.

    Args:
        run: The run.
        models: How many models are to be trained.
        gpus: How many GPUs that uses, see :func:`plan_gpus`.
    """
    supply, resources = look_up_supply(), run.config.resources
    if gpus:
        need = Need("GPU", gpus, {"GPU": 1.0, "CPU": 1.0, **accelerator(resources), **memory(resources)})
    elif resources.workers == "auto":
        need = cpu_need(resources, supply, models, networks=True)
    else:
        need = Need("CPU", resources.workers, {"CPU": WORKER_CPUS, **memory(resources)}, "resources.workers")
    with asked(run, "train", need):
        yield


@contextlib.contextmanager
def asked_for_prediction(run: Run, blocks: int, pairs: int) -> Iterator[Actors]:
    """As :func:`asked_for_models`; where there are no blocks to do, for CPUs that make the products of some pairs."""
    if blocks:
        with asked_for_models(run, "predict", blocks) as actors:
            yield actors
        return
    with asked_for_cpus(run, "products", pairs):
        yield Actors(1, gpus=False)


@contextlib.contextmanager
def asked_for_cpus(run: Run, stage: str, tasks: int) -> Iterator[None]:
    """As :func:`asked`, for CPUs that run some tasks."""
    if not tasks:
        yield
        return
    with asked(run, stage, cpu_need(run.config.resources, look_up_supply(), -(-tasks // BLOCKS_A_CPU))):
        yield


@contextlib.contextmanager
def asked(run: Run, stage: str, need: Need) -> Iterator[int]:
    """Ask the cluster's autoscaler for what a stage needs until the block ends, however it ends.

    The block begins as soon as the first of it is there, or all of it where the run is to stop for want of some. On
    one machine, and on a cluster without an autoscaler, there is nobody to ask, and nothing to wait for.

    Yields:
        How many there are or will be.

    Raises:
        ConfigError: If the cluster can never give any of it, or all where the run is to stop for want of some.
        ShortageError: If it did not come in time.
    """
    supply, wanted = look_up_supply(), need
    need = affordable(run, wanted, supply)
    if need != wanted:
        run.say(f"{stage}: {_describe_excess(wanted, supply)}; goes on with {need.count}")
    if not supply.types:
        yield need.count
        return
    over = threading.Event()
    _OPEN[over] = need
    try:
        _request()
        since = time.monotonic()
        came = _wait(run, stage, need, since)
        keeper = threading.Thread(target=_keep, args=(run, stage, need, (came, since), over), daemon=True)
        keeper.start()
        try:
            yield need.count
        finally:
            over.set()
            keeper.join(RENEW_SECONDS)  # not for ever, should the cluster have gone
    finally:
        withdraw(over)


def withdraw(*which: threading.Event) -> None:
    """Let go of what the autoscaler was asked for, if it was for anything: nodes that idle may go.

    Args:
        which: Of what was asked, that which ends; all of it if none is given.
    """
    ended = [over for over in which or list(_OPEN) if over in _OPEN]
    for over in ended:
        over.set()
        del _OPEN[over]
    if ended and spread.ray_runs():
        with contextlib.suppress(Exception):  # a cluster that is gone has nothing requested
            _request()


def request_resources(bundles: list[dict[str, float]]) -> None:
    """Ray's own of that name."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def _request() -> None:
    """Ask for all that stages need at this moment: a request takes the place of the one before it."""
    with _ASKING:
        request_resources(bundles=[dict(need.each) for need in _OPEN.values() for _ in range(need.count)])


def _wait(run: Run, stage: str, need: Need, since: float) -> int:
    """Wait for the first, or for all, and say so; how many came."""
    resources = run.config.resources
    enough = need.count if resources.on_shortage == "stop" else 1
    told = renewed = since
    clock = time.strftime("%H:%M:%S")
    has = first = look_up_supply().has(need.each)
    wanted = f"{need.count} {need.what}(s)" + ("" if enough == need.count else ", of which the first will do")
    if has < enough:
        run.say(f"{stage}: asked at {clock} for {wanted}; waits: {look_up_supply().describe(need.what)}")
    while has < enough:
        now = time.monotonic()
        if now - since > 60 * resources.wait_minutes:
            raise ShortageError(_describe_shortage(stage, need, has, now - since))
        if now - told > TELL_SECONDS:
            told = now
            waited = f"{stage}: waits since {clock} ({duration(now - since)}) for {wanted}; {has} there"
            run.say("; ".join([waited, *describe_starts()]))
        if now - renewed > RENEW_SECONDS:
            renewed = now
            _request()
        time.sleep(POLL_SECONDS)
        has = look_up_supply().has(need.each)
    if has > first or first < enough:
        run.say(f"{stage}: begins with {_of(has, need)} after {duration(time.monotonic() - since)}")
    return min(has, need.count)


def _of(has: int, need: Need) -> str:
    return f"{min(has, need.count)} of {need.count} {need.what}(s)"


def _describe_shortage(stage: str, need: Need, has: int, waited: float) -> str:
    parts = [f"{stage}: asked for {need.count} {need.what}(s), and in {duration(waited)} {has} came"]
    parts += [look_up_supply().describe(need.what), *describe_starts()]
    ways = "look at ray status, wait longer with resources.wait_minutes"
    ways += ", or ask for less with resources.gpus (0: CPUs alone)" if need.what == "GPU" else ""
    return f"{'; '.join(parts)}; {ways}; nothing is asked for any more"


def _keep(run: Run, stage: str, need: Need, start: tuple[int, float], over: threading.Event) -> None:
    """Renew the request while the stage goes on, and tell what comes and goes, and what does not come in time."""
    known, since = start
    late = known < need.count
    while not over.wait(RENEW_SECONDS):
        with contextlib.suppress(Exception):  # whatever ails the cluster, the stage itself tells
            _request()
            has = min(look_up_supply().has(need.each), need.count)
            if has != known:
                run.say(f"{stage}: now {_of(has, need)} there")
                known = has
            if late and time.monotonic() - since > 60 * run.config.resources.wait_minutes:
                late = False
                if has < need.count:
                    parts = [f"{stage}: goes on with {_of(has, need)}", *describe_starts()]
                    run.say("; ".join(parts) + "; more are taken in when they come")
