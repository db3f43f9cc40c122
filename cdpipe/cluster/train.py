"""Training with Ray Train: one or more workers run the same loop, checkpoints lie beside the model."""

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import pyarrow.fs
import ray.train
import ray.train.collective
import ray.train.torch
import ray.util
import torch
from fsspec import AbstractFileSystem
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from torch import nn

from cdpipe.cluster.machine import inspect_cluster, inspect_machine
from cdpipe.cluster.memory import MODEL_ENVIRONMENT
from cdpipe.cluster.needs import WORKER_CPUS, memory
from cdpipe.cluster.session import node_cpus
from cdpipe.cluster.tasks import describe_failure
from cdpipe.config.resources import Resources
from cdpipe.errors import CdpipeError, ConfigError
from cdpipe.training.job import TrainJob, Worker
from cdpipe.training.logs import add_epoch, curves_folder, progress_writer
from cdpipe.training.memory import training_memory
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.files import read_json
from cdpipe.workspace.location import Location, locate
from cdpipe.workspace.remembered import Remembered

# How training workers reach each other: over the network that Ray's nodes know each other by.

INTERFACE = "GLOO_SOCKET_IFNAME"  # Gloo's choice of network; NCCL leaves loopback out by itself


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface that has an address, such as ``eth0``; None if none has."""
    interfaces: dict[str, Any] = psutil.net_if_addrs()
    return next((name for name, own in interfaces.items() if any(each.address == address for each in own)), None)


def use_node_network() -> None:
    """Have this worker's process group use the interface of the node's address, unless the environment names one."""
    name = interface_of(str(ray.util.get_node_ip_address()))  # type: ignore[no-untyped-call]
    if name is not None:
        os.environ.setdefault(INTERFACE, name)


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray's, which has no public name
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_node_network)
        super().on_start(worker_group, backend_config)


class NodeNetwork(TorchConfig):
    """Ray Train's way to connect workers, once each has been told its network."""

    @property
    def backend_cls(self) -> type[Any]:
        """What Ray Train calls when its workers are up."""
        return _Backend


CHECKPOINTS = "checkpoints"
NOTICE = "notice"  # a file in the model's folder: whoever started the training must leave, and waits for a checkpoint
GRACE_SECONDS = 25.0  # what it waits: schedulers kill half a minute after their SIGTERM
MEMORY_SHARE = 0.7  # of a machine, for trainings side by side
RESIZE_SECONDS = 600.0  # between looks for room for more workers: taking them in goes back to the last checkpoint


@dataclass(frozen=True, slots=True)
class Shares:
    """How trainings share out what there is.

    Attributes:
        at_once: How many models are trained side by side.
        workers: Workers of each.
        cpus: CPUs of each worker, and threads of its network where it has no GPU.
        use_gpu: Whether each worker has a GPU.
        made_up: Whether the GPUs are made up, so that networks run on the CPU.
        accelerator: The kind of GPU, where that matters.
        memory: The main memory that each is to have, in bytes; 0 where none was asked for.
    """

    at_once: int
    workers: int
    cpus: int
    use_gpu: bool
    made_up: bool = False
    accelerator: str | None = None
    memory: float = 0.0


def share_out(resources: Resources, jobs: Sequence[TrainJob], gpus: int, cpus: Sequence[int] | None = None) -> Shares:
    """How the trainings of a configuration share out GPUs or CPUs.

    By default as many run side by side as there are GPUs, each on as many of these as share its global batch equally;
    on CPUs as many as there are, where memory allows: two threads for one network are far from twice as fast as one.
    All of the configuration's jobs count, also those that are done: a training that goes on after a kill then has the
    threads that it began with, and gets the same bits.

    Args:
        resources: The configuration's ``resources``.
        jobs: All of the configuration's trainings, at least one.
        gpus: How many GPUs they use, whether or not these are there yet; 0: they run on the CPUs that are there.
        cpus: Of every node; None for what Ray may schedule on.

    Raises:
        ConfigError: If the number of workers asked for cannot share the global batch equally.
    """
    cpus = node_cpus() if cpus is None else cpus
    batch = jobs[0].options.global_batch
    on_cpus = partial(Shares, use_gpu=False, memory=memory(resources).get("memory", 0.0))
    with_gpus = partial(
        on_cpus, cpus=1, use_gpu=True, made_up=resources.device == "cpu", accelerator=resources.accelerator_type
    )
    if resources.workers == "auto":
        if not gpus:
            at_once = _fitting(jobs, cpus)
            return on_cpus(at_once, 1, cpus_of_each(cpus, at_once))
        at_once = min(len(jobs), gpus)
        workers = max(count for count in range(1, gpus // at_once + 1) if batch % count == 0)
        return with_gpus(at_once, workers)
    workers = min(resources.workers, gpus) if gpus else resources.workers
    if batch % workers:
        raise ConfigError(
            f"resources.workers: {workers} training worker(s) cannot share train.global_batch, {batch}, equally"
        )
    if gpus:
        return with_gpus(min(len(jobs), gpus // workers), workers)
    return on_cpus(1, workers, cpus_of_each(cpus, workers))


def _fitting(jobs: Sequence[TrainJob], cpus: Sequence[int]) -> int:
    """How many of the jobs CPUs can train side by side: each has one of its own, and memory for the largest job."""
    machines = [inspect_machine()] if len(cpus) == 1 else inspect_cluster()
    need = max(training_memory(job, 1) for job in {job.model: job for job in jobs}.values())
    room = [int(machine.memory * MEMORY_SHARE) // need for machine in machines if machine.memory is not None]
    return max(1, min(len(jobs), sum(cpus), sum(room)))


def train_on_workers(jobs: Sequence[TrainJob], shares: Shares) -> Iterator[tuple[TrainJob, Location | None]]:
    """Train models to their ends, some side by side, each continuing from its last checkpoint if there is one.

    Where there is no room for all workers of one, or a node is lost, fewer do their parts of the global batch too. A
    node's drain notice, or SIGTERM to this process, makes checkpoints first.

    Yields:
        Each job as it begins, with None; and as it ends, with the folder of its last checkpoint: state, best weights
        and history.

    Raises:
        CdpipeError: If one of them failed; the message says why. The others end with Ray's session.
    """
    waiting, under_way = deque(jobs), list[Location]()
    ended = SimpleQueue[tuple[TrainJob, Location | BaseException]]()

    def run(job: TrainJob) -> None:
        try:
            ended.put((job, _fit(job, shares)))
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits for it)
            ended.put((job, error))

    with _checkpoint_first(under_way):
        while waiting or under_way:
            while waiting and len(under_way) < shares.at_once:
                job = waiting.popleft()
                yield job, None
                under_way.append(_folder(job))
                threading.Thread(target=run, args=[job], daemon=True).start()
            job, result = ended.get()
            under_way.remove(_folder(job))
            if isinstance(result, BaseException):
                raise result
            yield job, result


def _folder(job: TrainJob) -> Location:
    return job.workspace.model(job.name, job.key)


def _fit(job: TrainJob, shares: Shares) -> Location:
    """Train one model; returns the folder of its last checkpoint."""
    folder, workers = _folder(job), shares.workers
    (folder / NOTICE).unlink(missing_ok=True)
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config={
            "job": job,
            "threads": shares.cpus,
            "parts": workers,
            "device": "cpu" if shares.use_gpu and shares.made_up else None,
        },
        torch_config=NodeNetwork(backend="gloo" if shares.use_gpu and shares.made_up else None),
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # as below
            num_workers=workers if workers == 1 else (1, workers),  # type: ignore[arg-type]  # as below
            use_gpu=shares.use_gpu,
            resources_per_worker=_of_each(shares),
            accelerator_type=shares.accelerator,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # the type checker sees the signature before Ray 2.51
            name=CHECKPOINTS,
            **_storage(folder),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=2),
            worker_runtime_env={"env_vars": MODEL_ENVIRONMENT},
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise CdpipeError(f"model {job.name}: training failed: {describe_failure(error)}") from error
    if result.checkpoint is None:
        raise CdpipeError(f"model {job.name}: training ended without a checkpoint in {folder / CHECKPOINTS}")
    return _checkpoint_folder(result.checkpoint, folder)


def _of_each(shares: Shares) -> dict[str, float]:
    """What Ray is to give each worker."""
    of_each = {"GPU": 1.0, "CPU": 1.0} if shares.use_gpu else {"CPU": shares.cpus - 1 + WORKER_CPUS}
    return of_each | ({"memory": shares.memory} if shares.memory else {})


def _storage(folder: Location) -> dict[str, Any]:
    """Where Ray Train keeps what it knows, as its options; workers may be handed a bucket's file system."""
    if not folder.far:
        folder.local().mkdir(parents=True, exist_ok=True)
        return {"storage_path": str(folder)}
    scheme, _, name = str(folder).partition("://")
    handler = pyarrow.fs.FSSpecHandler(BucketFileSystem(scheme=scheme))
    return {"storage_filesystem": pyarrow.fs.PyFileSystem(handler), "storage_path": name}


class BucketFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Buckets as fsspec wants them, by :class:`Location`: requests are tried again, guarded and counted as all others.

    That of obstore does not: it takes no buffers of Arrow, keeps others without a copy, and gives up when an answer
    breaks off.
    """

    cachable = False

    def __init__(self, scheme: str, **options: Any) -> None:
        """The buckets of ``s3``, ``gs`` or ``az``."""
        super().__init__(**options)
        self.scheme = scheme

    def _at(self, path: str) -> Location:
        return locate(f"{self.scheme}://{path.strip('/')}")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and kind of an object or folder."""
        there, name = self._at(path), path.strip("/")
        if there.key and there.is_file():
            return {"name": name, "size": there.stat().size, "type": "file"}
        if there.is_dir():
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies right in a folder."""
        names = [str(each).partition("://")[2] for each in self._at(path).iterdir()]
        return [self.info(name) for name in names] if detail else names

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        """Remove an object, or a folder with all that lies beneath."""
        if recursive:
            self._at(path).remove_tree()
        self._at(path).unlink(missing_ok=True)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return self._at(path).open(2**20) if mode == "rb" else _Upload(self._at(path))


class _Upload:
    """A file of this machine that is stored once it is closed."""

    def __init__(self, to: Location) -> None:
        self._to, self._folder = to, tempfile.TemporaryDirectory()
        self._file = (Path(self._folder.name) / "upload").open("wb")

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._to.take(Path(self._file.name))
            self._folder.cleanup()


def _checkpoint_folder(checkpoint: Checkpoint, beside: Location) -> Location:
    """Where a checkpoint lies, in the storage of something beside it."""
    scheme = str(beside).partition("://")[0]
    return locate(f"{scheme}://{checkpoint.path.strip('/')}" if beside.far else checkpoint.path)


def cpus_of_each(nodes: Sequence[int], workers: int) -> int:
    """Most CPUs that each of some workers can have on nodes of these sizes, at least 1; a worker lies on one node."""
    return max((cpus for cpus in range(1, max(nodes) + 1) if sum(node // cpus for node in nodes) >= workers), default=1)


def _train_worker(config: dict[str, Any]) -> None:
    """What each worker runs."""
    # albumentations and losses take seconds to import, which whoever only starts workers need not wait for
    from cdpipe.training.loop import train_model

    job: TrainJob = config["job"]
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = torch.device(config["device"]) if config["device"] else ray.train.torch.get_device()
    checkpoint = ray.train.get_checkpoint()
    worker = Worker(
        rank=rank,
        world=world,
        parts=config["parts"],
        device=str(device),
        threads=min(config["threads"], 4) if device.type == "cpu" else 4,
        wrap=partial(_share, made_up=config["device"] is not None) if world > 1 else lambda network: network,
        checkpoint=_checkpoint_folder(checkpoint, job.workspace.root) if checkpoint else None,
        save=partial(_save, curves_folder(job)),
        progress=progress_writer(job) if rank == 0 else lambda *_: None,
        leaving=_notices(job.workspace.model(job.name, job.key) / NOTICE),
    )
    train_model(job, worker)


def _share(network: nn.Module, *, made_up: bool) -> nn.Module:
    """The network with gradients averaged over all workers; a shallow decoder leaves deep encoder layers unused."""
    if made_up:  # GPUs, to which Ray's function would move it
        return nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
    return ray.train.torch.prepare_model(network, parallel_strategy_kwargs={"find_unused_parameters": True})


def _save(curves: Location, metrics: dict[str, Any] | None, files: dict[str, Any] | None) -> None:
    """Hand an epoch's metrics to Ray Train; of the first worker, which has files, the state too, and to TensorBoard."""
    if files is None:
        ray.train.report(metrics or {})
        return
    if metrics is not None:
        add_epoch(curves, metrics)
    from cdpipe.training.loop import write_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), files)
        crash_point("checkpoint-unreported")
        ray.train.report(metrics or {}, checkpoint=Checkpoint.from_directory(folder))


def _notices(file: Location) -> Callable[[], bool]:
    """Says once of every notice that it has come: Ray's, that a node is to be drained, or the file."""
    known: tuple[object, bool] = (None, False)
    # this is asked at every step, and in object storage every answer costs
    noticed: Remembered[Location, bool] = Remembered(2.0 if file.far else 0.0)

    def come() -> bool:
        nonlocal known
        drained = ray.train.get_preemption_info()
        found = (drained, ray.train.collective.broadcast_from_rank_zero(noticed.get(file, file.is_file)))
        fresh = found not in (known, (None, False))
        known = found
        return fresh

    return come


@contextlib.contextmanager
def _checkpoint_first(folders: Sequence[Location]) -> Iterator[None]:
    """Have SIGTERM end this process like Ctrl-C, but only when there are new checkpoints, or there was time for them.

    Args:
        folders: Of the models that are being trained, which change.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked, main = threading.Event(), threading.get_ident()

    def on_sigterm(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        threading.Thread(target=leave, daemon=True).start()

    def leave() -> None:
        began = time.monotonic()
        known = {folder: _made_on_notice(folder) for folder in folders}
        for folder in known:
            (folder / NOTICE).write(b"")
        left = dict(known)
        while left and time.monotonic() - began < GRACE_SECONDS:
            time.sleep(0.1)
            left = {
                each: last for each, last in left.items() if each in folders and _made_on_notice(each) in (last, None)
            }
        for folder in known:
            (folder / NOTICE).unlink(missing_ok=True)
        # a real signal, since the thread waits for a lock
        signal.pthread_kill(main, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _made_on_notice(folder: Location) -> str | None:
    """Name of the last checkpoint that a new start would continue from, if it is from within an epoch."""
    state = read_json(folder / CHECKPOINTS / "checkpoint_manager_snapshot.json")
    last = state.get("latest_checkpoint_result") if isinstance(state, dict) else None
    return str(last["checkpoint_dir_name"]) if last and not last["metrics"] else None
