"""What a run uses of a machine, or asks a cluster for."""

from typing import Annotated, Literal

from pydantic import Field

from cdpipe.config.section import Auto, Positive, Section


class Resources(Section):
    """What a run uses; never bears on ingest results, and on predictions only by their kind of device.

    On one machine ``workers`` and ``gpus`` are what the run may use. On a cluster they are what it asks for, whether
    or not it is there yet; ``auto`` is all that there is or that the autoscaler may start, as far as there is work for
    it. A stage begins with the first node that comes and takes in others as they come.
    """

    workers: Positive | Auto = "auto"
    """For networks where there are no GPUs."""
    gpus: Annotated[int, Field(ge=0)] | Auto = "auto"
    """For networks; 0: none, they run on CPUs."""
    cpus: Positive | Auto = "auto"
    """For everything else."""
    accelerator_type: str | None = None
    """Ask for GPUs of a kind, by the name that Ray gives it, such as L4 (``ray status -v``)."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Ask for so much main memory with each worker that predicts or trains: large blocks or patches may need more
    than nodes have for each CPU or GPU."""
    device: Literal["auto", "cpu"] = "auto"
    """``cpu`` has networks run on the CPU also where they are given GPUs: to try out a cluster whose GPUs are made
    up."""
    ray: Literal["auto", "always"] = "auto"
    """``always`` starts Ray also where scenes are few and small and there is no GPU; their tasks are otherwise done
    by threads of one process, which saves the seconds that Ray takes to start."""
    wait_minutes: Annotated[float, Field(ge=0)] = 30
    """For nodes: if none, or not all, came in that time, the run stops."""
    on_shortage: Literal["continue", "stop"] = "continue"
    """``continue`` with the nodes that came, or ``stop`` if not all of them do."""
