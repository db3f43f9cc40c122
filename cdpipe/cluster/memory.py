"""How processes that run networks treat freed memory and waiting threads."""

import ctypes
import sys
from typing import Any

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

# mallopt's names (malloc.h) and values: what is freed stays with the process, which grows by 256 MiB at a time.
SETTINGS = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28), "M_MMAP_MAX": (-4, 0)}


def keep_freed_memory() -> bool:
    """Have this process keep freed memory for what comes next; returns whether it will.

    By default glibc gives large arrays back to the system at once, and every new one costs a page fault for each 4 KiB:
    a tenth of an ingest. Elsewhere than with glibc nothing happens. The same settings as an environment, which must be
    there before a process starts, are those of :data:`MODEL_ENVIRONMENT`.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and all(mallopt(*setting) for setting in SETTINGS.values())


def give_back_memory() -> None:
    """Give what was freed back to the system, before work of another kind begins; elsewhere than with glibc nothing."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where there is no such function."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
