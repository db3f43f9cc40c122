"""What of the machine a process may use."""

import os
from collections.abc import Collection
from pathlib import Path


def usable_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """What the processor has instructions for, as Linux names it: ``avx512_bf16``, ``amx_int8``, ...; else nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def is_faster_in_bfloat16(flags: Collection[str]) -> bool:
    """Whether a processor with these instructions runs networks about twice as fast in bfloat16; see docs/speed.md."""
    return "avx512_bf16" in flags or "amx_bf16" in flags
