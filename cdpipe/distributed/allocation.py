"""How malloc treats memory that is freed."""

import ctypes
import sys

# mallopt's names (malloc.h) and values: what is freed stays with the process, which grows by 256 MiB at a time.
SETTINGS = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28), "M_MMAP_MAX": (-4, 0)}


def keep_freed_memory() -> bool:
    """Have this process keep freed memory for what comes next; returns whether it will.

    By default glibc gives large arrays back to the system at once, and every new one costs a page fault for each 4 KiB:
    a tenth of an ingest. Elsewhere than with glibc nothing happens. The same settings as an environment, which must be
    there before a process starts, are those of :data:`cdpipe.distributed.cluster.MODEL_ENVIRONMENT`.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*setting) for setting in SETTINGS.values())
