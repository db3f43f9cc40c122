"""What malloc is told holds for the process that tells it."""

import subprocess
import sys

import pytest

from cdpipe.cluster.memory import keep_freed_memory

# page faults of filling a large array again and again
FAULTS = """
import resource
import numpy as np
from cdpipe.cluster.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(48 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(*, keep: bool) -> int:
    script = FAULTS.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


def test_large_arrays_are_made_of_memory_that_was_freed() -> None:
    if not keep_freed_memory():
        pytest.skip("no glibc here")
    assert faults(keep=True) < faults(keep=False) / 10
