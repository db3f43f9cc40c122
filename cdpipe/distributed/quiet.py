"""Keeps Ray's harmless messages, which its C++ core writes straight to standard error, off the terminal."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator

# an actor of Ray Data is told apart from its arguments, which the driver holds for as long as it lives
NOISE = re.compile(rb"core_worker\.cc:\d+: Actor with class name")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop the known noise from standard error, whoever in this process writes it; all else passes."""
    real = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    pump = threading.Thread(target=_pump, args=(reader, real), daemon=True)
    pump.start()
    try:
        yield
    finally:
        # descriptor 2 was the pipe's last writer, so this also ends the thread, after all that is left
        os.dup2(real, 2)
        pump.join(timeout=5)
        os.close(real)


def _pump(reader: int, real: int) -> None:
    rest = b""
    while data := os.read(reader, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not NOISE.search(line):
                os.write(real, line + b"\n")
    os.close(reader)
    os.write(real, rest)
