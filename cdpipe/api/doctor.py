"""What this machine or cluster has, and what that means for a run."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import rasterio

from cdpipe.cluster.machine import Machine, inspect_cluster, inspect_machine
from cdpipe.cluster.session import ray_session
from cdpipe.cluster.supply import look_up_supply
from cdpipe.config.resources import Resources
from cdpipe.config.schema import Config
from cdpipe.geo.crs import PROJ_FOLDERS
from cdpipe.processors import is_faster_in_bfloat16
from cdpipe.runs.run import versions
from cdpipe.units import size
from cdpipe.workspace.location import Location

GIB = 2**30
WORKER_MEMORY = 2 * GIB  # most that a worker takes, whichever the scene
TEMPORARY = 20 * GIB  # what Ray spills and logs, at most, in a long run
OPEN_FILES = 4096
EXTRAS = {"openvino": "openvino", "aws": "boto3"}


@dataclass(frozen=True, slots=True)
class Examination:
    """What there is.

    Attributes:
        software: Version of each library, or how to install it.
        machines: What each machine has.
        advice: What to mind, in a line each.
    """

    software: dict[str, str]
    machines: Sequence[Machine]
    advice: Sequence[str]


def examine(config: Config | None = None, *, verbose: bool = False) -> Examination:
    """Look at this machine, or at the cluster that ``RAY_ADDRESS`` names, which is joined and asked.

    Args:
        config: A configuration, whose ``resources``, ``predict`` and workspace are looked at.
        verbose: Show Ray's own messages.

    Raises:
        ConfigError: If no cluster answers at that address.
    """
    startable: list[str] = []
    if os.environ.get("RAY_ADDRESS", "local") == "local":
        machines = [inspect_machine()]
    else:
        with ray_session(Resources(), verbose):
            machines = inspect_cluster()
            startable = look_up_supply().describe_types()
    advice = startable + [line for machine in machines for line in advise(machine, config)] + _advise_environment()
    if config:
        advice += _advise_workspace(config.workspace)
    return Examination(_software(), machines, advice)


def advise(machine: Machine, config: Config | None) -> list[str]:
    """What to mind on a machine, in a line each.

    Args:
        machine: What it has.
        config: The configuration, whose ``resources`` and ``predict`` are looked at.
    """
    found = []
    asked = config.resources.workers if config else "auto"
    workers = len(machine.gpus) or (asked if isinstance(asked, int) else machine.cpus)
    if machine.memory is not None and workers * WORKER_MEMORY > machine.memory:
        fitting = max(1, machine.memory // WORKER_MEMORY)
        found.append(
            f"{machine.name}: {workers} workers may take {size(workers * WORKER_MEMORY)} of {size(machine.memory)} "
            f"memory; set resources.workers: {fitting}"
        )
    if machine.driver and not machine.gpus:
        found.append(
            f"{machine.name}: an NVIDIA driver, but torch sees no GPU: compare torch.version.cuda with nvidia-smi, and "
            "look for CUDA_VISIBLE_DEVICES; models run on the CPU until then"
        )
    precision = None if machine.gpus or config is None else config.predict.precision
    if precision == "bfloat16" and not is_faster_in_bfloat16(machine.flags):
        found.append(f"{machine.name}: no bfloat16 instructions, so it is emulated; set predict.precision: float32")
    if precision in ("auto", "float32") and is_faster_in_bfloat16(machine.flags):
        found.append(
            f"{machine.name}: networks take about half the time with predict.precision: bfloat16, a quarter with int8; "
            "docs/speed.md says what it costs"
        )
    if machine.shared_memory is not None and machine.shared_memory < GIB:
        found.append(
            f"{machine.name}: /dev/shm has {size(machine.shared_memory)}, so Ray keeps its objects on disk; "
            "in a container give --shm-size=2g"
        )
    if machine.temporary < TEMPORARY:
        found.append(
            f"{machine.name}: {size(machine.temporary)} free for what Ray spills and logs; "
            "set RAY_TMPDIR to a larger disk for long runs"
        )
    if machine.open_files < OPEN_FILES:
        found.append(f"{machine.name}: {machine.open_files} open files a process; ulimit -n {OPEN_FILES} or more")
    return found


def _advise_environment() -> list[str]:
    """Variables by which other installations often lead GDAL and PROJ astray; cdpipe does not start with a bad PROJ."""
    return [
        f"environment variable {name}={os.environ[name]}: read instead of what comes with rasterio; "
        f"unset {name} unless that is meant"
        for name in (*PROJ_FOLDERS, "GDAL_DATA")
        if name in os.environ
    ]


def _advise_workspace(workspace: Location) -> list[str]:
    if workspace.far:
        return [f"workspace {workspace}: {_access(workspace)}"]
    path = workspace.local()
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    found = [f"workspace {workspace}: {size(free)} free; cdpipe predict --dry-run says how much a run writes"]
    if not os.access(there, os.W_OK):
        found.append(f"workspace {workspace}: {there} cannot be written by this user")
    return found


def _access(workspace: Location) -> str:
    try:
        found = workspace.is_dir()
    except OSError as error:
        return str(error)
    return "in object storage, " + ("where something lies already" if found else "where nothing lies yet")


def _software() -> dict[str, str]:
    extras = {
        f"extra {extra}": importlib.metadata.version(package)
        if importlib.util.find_spec(package)
        else f'not installed: pip install "cdpipe[{extra}]"'
        for extra, package in EXTRAS.items()
    }
    return {"Python": sys.version.split()[0], **versions(), "GDAL": rasterio.__gdal_version__, **extras}
