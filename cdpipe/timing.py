"""What a worker's thread spends its time on, in a few named parts, and what it counts meanwhile."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PARTS = ("read", "model", "write")


class _Own(threading.local):
    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.within = False


_OWN = _Own()


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Add the seconds of the block to ``<part>_seconds``; what is timed within it belongs to it already.

    Args:
        part: One of ``PARTS``.
    """
    if _OWN.within:
        yield
        return
    _OWN.within, begun = True, time.perf_counter()
    try:
        yield
    finally:
        _OWN.within = False
        counted(f"{part}_seconds", time.perf_counter() - begun)


def counted(what: str, number: float) -> None:
    """Add to a figure of the calling thread, such as ``patches_run``."""
    _OWN.figures[what] = _OWN.figures.get(what, 0.0) + number


def take() -> dict[str, float]:
    """The calling thread's figures since it was last asked."""
    figures, _OWN.figures = _OWN.figures, {}
    return figures


def add(total: dict[str, float], figures: Mapping[str, float]) -> None:
    """Add figures to others."""
    for name, number in figures.items():
        total[name] = total.get(name, 0.0) + number
