"""What the user sees: a bar on a terminal, a line every few seconds in a log, sizes and times in plain units."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_SECONDS = 5.0
LOG_WIDTH = 160

Advance = Callable[[int, str], None]


def make_console() -> Console:
    """A console as wide as the terminal, or wide enough for tables in a log."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=LOG_WIDTH)


@contextlib.contextmanager
def progress(console: Console, title: str, total: int) -> Iterator[Advance]:
    """Show how far a stage is.

    Yields:
        A function to call with the number of units just done and a note to show beside the bar.
    """
    if total == 0:
        yield lambda _done, _note: None
    elif console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(title, total=total, note="")
            yield lambda done, note: bar.update(task, advance=done, note=note)
    else:
        yield _LogLines(console, title, total).advance


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console)


class _LogLines:
    """Prints a line of progress now and then."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self.console, self.title, self.total = console, title, total
        self.done, self.begun, self.printed = 0, time.monotonic(), 0.0

    def advance(self, done: int, note: str) -> None:
        """Count units; print if it is time or the last has just been done."""
        self.done += done
        now = time.monotonic()
        if (not done or self.done < self.total) and now - max(self.printed, self.begun) < LOG_SECONDS:
            return
        self.printed = now
        rate = self.done / max(now - self.begun, 1e-3)
        left = (self.total - self.done) / rate if rate else 0.0
        parts = [f"{self.title}: {self.done}/{self.total}", f"{rate:.3g}/s", f"ETA {duration(left)}", note]
        self.console.print("  ".join(part for part in parts if part), markup=False)


def duration(seconds: float) -> str:
    """Seconds as the two largest units: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Bytes in binary units: 512 B, 3.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def free_text(count: int | None) -> str:
    """The end of a line about what is written: how much is free, if there is any limit."""
    return "" if count is None else f"; {size(count)} free"
