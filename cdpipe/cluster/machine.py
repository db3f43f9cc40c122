"""What a machine or a cluster has that bears on a run: processors, memory, devices, disk, limits."""

import os
import platform
import resource
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cdpipe.processors import processor_flags, usable_cpus

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where Ray keeps its objects, not a temporary file)
CGROUP = Path("/sys/fs/cgroup")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of one machine; sizes in bytes, None where they cannot be told.

    Attributes:
        name: Its host name.
        cpus: Processors that this process may use.
        flags: Instructions of the processor that make networks fast.
        memory: What a process may use, the container's limit where there is one.
        gpus: Name and memory of each GPU that torch can use.
        driver: Whether there is an NVIDIA driver, whether or not torch can use it.
        shared_memory: Size of ``/dev/shm``, where Ray keeps what tasks hand to each other.
        temporary: Free space of the temporary folder, where Ray spills and logs.
        open_files: How many files a process may have open.
    """

    name: str
    cpus: int
    flags: tuple[str, ...]
    memory: int | None
    gpus: tuple[tuple[str, int], ...]
    driver: bool
    shared_memory: int | None
    temporary: int
    open_files: int


def inspect_machine() -> Machine:
    """Facts of the machine that this process runs on."""
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Machine(
        name=platform.node(),
        cpus=usable_cpus(),
        flags=tuple(flag for flag in FLAGS if flag in processor_flags()),
        memory=_memory(),
        gpus=tuple((device.name, device.total_memory) for device in found),
        driver=Path("/proc/driver/nvidia/version").exists(),
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        temporary=shutil.disk_usage(tempfile.gettempdir()).free,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def inspect_cluster() -> list[Machine]:
    """Facts of every machine of the cluster that this process has joined, by name."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    remote = ray.remote(num_cpus=0)(inspect_machine)
    tasks = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    return sorted(ray.get(tasks), key=lambda machine: machine.name)


def _memory() -> int | None:
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(whole, int((CGROUP / name).read_text()))
        except (OSError, ValueError):  # no such file, or no limit
            continue
    return whole
