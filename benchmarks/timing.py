"""What the benchmarks share: cases that take turns, medians, and a table of what was measured.

Cases are interleaved, since a machine's speed drifts: ratios of one run hold where seconds of two runs do not.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

# cdpipe.cluster.session.MODEL_ENVIRONMENT without what is torch's; importing it would import Ray
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "268435456"}


@dataclass(frozen=True)
class Timing:
    """One call: seconds by the clock, and CPU seconds of all threads of this process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, how much of it, against what, and the target."""

    what: str
    measured: str
    baseline: str = ""
    ratio: float | None = None
    target: str = ""


def interleave(
    cases: dict[str, Callable[[], None]], rounds: int, prepare: Callable[[], None] = lambda: None
) -> dict[str, list[Timing]]:
    """Time every case once a round, in turn; each was called once before, untimed.

    Untimed, too, is what prepares each call: removing what the last one wrote costs as much as a tenth of writing it.
    """
    for case in cases.values():
        prepare()
        case()
    timings: dict[str, list[Timing]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            prepare()
            wall, cpu = time.perf_counter(), time.process_time()
            case()
            timings[name].append(Timing(time.perf_counter() - wall, time.process_time() - cpu))
    return timings


def median_wall(timings: Sequence[Timing]) -> float:
    """Median of the seconds by the clock."""
    return statistics.median(timing.wall for timing in timings)


def median_cpu(timings: Sequence[Timing]) -> float:
    """Median of the CPU seconds."""
    return statistics.median(timing.cpu for timing in timings)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column, justify in (("what", "left"), ("measured", "right"), ("against", "right"), ("ratio", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # a literal of rich's
    table.add_column("target", justify="right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.what, row.measured, row.baseline, ratio, row.target)
    # a table that wraps in a log is unreadable
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def peak_memory(script: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> int:
    """Peak resident memory in bytes (VmHWM) of a script in a process of its own, which prints what it reached last."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **(environment or {})}
    done = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, str(script), *arguments], check=True, capture_output=True, text=True, env=variables
    )
    return int(done.stdout.split()[-1])


def own_peak() -> int:
    """Peak resident memory of this process in bytes; unlike ``ru_maxrss`` nothing is inherited from a parent."""
    status = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
