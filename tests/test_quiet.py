"""The filter on standard error drops the known noise and nothing else."""

import subprocess
import sys

SCRIPT = """
import os, sys
from cdpipe.cluster.session import quiet_stderr
with quiet_stderr():
    os.write(2, b"[x E 1 1] core_worker.cc:2465: Actor with class name: 'A' has constructor arguments\\n")
    sys.stderr.write("a warning of mine\\n")
    os.write(2, b"an end without newline")
os.write(2, b"\\nafterwards\\n")
"""


def test_only_the_noise_is_dropped() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr == "a warning of mine\nan end without newline\nafterwards\n"
