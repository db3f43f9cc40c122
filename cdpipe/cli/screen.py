"""What the user sees of a run: a bar on a terminal, a line every few seconds in a log, remarks and failures."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from cdpipe.api.opening import open_run
from cdpipe.errors import EXIT_DONE, EXIT_PARTIAL
from cdpipe.pairs.grouping import kind_of
from cdpipe.runs.run import Failure, Remark, Run, Step
from cdpipe.units import duration, three_digits

LOG_SECONDS = 5.0
LOG_WIDTH = 160
FAILURES_SHOWN = 3  # of a kind


class Screen:
    """Shows what a run tells; what a verb has to say is printed with it, too."""

    def __init__(self) -> None:
        """As wide as the terminal, or wide enough for tables in a log."""
        console = Console(highlight=False, soft_wrap=False)
        self.console = console if console.is_terminal else Console(highlight=False, width=LOG_WIDTH)
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}  # steps with a bar, by title; some go on side by side
        self._lines: dict[str, _Line] = {}  # where there are no bars
        self._failed: Counter[str] = Counter()  # by what the failures have in common
        self._untold = 0

    def show(self, event: Step | Remark | Failure) -> None:
        """Show how far a step is, a remark, or that a pair failed."""
        match event:
            case Remark(text):
                self.say_path(text)
            case Failure():
                self._show_failure(event)
            case Step() if self.console.is_terminal:
                self._show_bar(event)
            case Step():
                self._show_line(event)

    def say(self, text: str) -> None:
        """Print a line."""
        self._count_untold()
        self.console.print(text, markup=False)

    def say_path(self, text: str) -> None:
        """Print a line that ends in a path, which is never broken."""
        self._count_untold()
        self.console.print(text, markup=False, soft_wrap=True)

    def alert(self, text: str) -> None:
        """Print what nobody may overlook."""
        self._count_untold()
        self.console.print(text, markup=False, style="red")

    def show_table(self, table: RenderableType) -> None:
        """Print a table."""
        self._count_untold()
        self.console.print(table)

    def _show_failure(self, failure: Failure) -> None:
        """Print the first few failures of a kind; the others are counted before anything else is printed."""
        pair_id, reason = failure.pair_id, failure.reason
        kind = kind_of(pair_id, reason)
        self._failed[kind] += 1
        if self._failed[kind] > FAILURES_SHOWN:
            self._untold += 1
            return
        text = reason if reason.startswith(f"pair {pair_id}") else f"pair {pair_id}: {reason}"
        self.console.print(f"failed: {text}", markup=False, style="red", soft_wrap=True)

    def _count_untold(self) -> None:
        if self._untold:
            self.console.print(f"failed: {self._untold} more pair(s), for reasons like those above", style="red")
            self._untold = 0

    def _show_bar(self, step: Step) -> None:
        if self._bars is None:
            self._bars = _make_bars(self.console)
            self._bars.start()
        if step.title not in self._tasks:
            self._tasks[step.title] = self._bars.add_task(step.title, total=step.total, note="")
        self._bars.update(self._tasks[step.title], completed=step.done, note=step.note)
        if step.over:
            del self._tasks[step.title]
        if not self._tasks:
            self._bars.stop()
            self._bars = None

    def _show_line(self, step: Step) -> None:
        now = time.monotonic()
        if step.over:
            self._lines.pop(step.title, None)
            return
        if step.title not in self._lines:
            self._lines[step.title] = _Line(now)
            return
        line = self._lines[step.title]
        more, line.done = step.done - line.done, step.done
        if more and line.first is None:
            line.first = now, step.done
        if (not more or step.done < step.total) and now - max(line.printed, line.begun) < LOG_SECONDS:
            return
        line.printed = now
        parts = [f"{step.title}: {step.done}/{step.total}", line.speed(step, now), step.note]
        self.say("  ".join(part for part in parts if part))


@dataclass(slots=True)
class _Line:
    """What was last said of a step in a log."""

    begun: float
    done: int = 0
    printed: float = 0.0
    first: tuple[float, int] | None = None  # when its first units were done, and how many

    def speed(self, step: Step, now: float) -> str:
        """Units a second and the time that is left, from the first units on: what came before was starting, too."""
        if self.first is None or step.done == self.first[1] or now == self.first[0]:
            return ""
        rate = (step.done - self.first[1]) / (now - self.first[0])
        return f"{three_digits(rate)}/s  ETA {duration((step.total - step.done) / rate)}"


def _make_bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def open_on_screen(options: argparse.Namespace, overrides: Sequence[str] = ()) -> tuple[Run, Screen]:
    """The run that the command line means, and the screen that shows what it tells.

    Raises:
        ConfigError: If the configuration has mistakes.
    """
    screen = Screen()
    run = open_run(options.config, overrides=[*options.set, *overrides], progress=screen.show)
    run.verbose, run.wait = getattr(options, "verbose", False), getattr(options, "wait", False)
    return run, screen


def exit_code(run: Run, screen: Screen) -> int:
    """Say how many pairs failed, and give the exit code."""
    if not run.failures:
        return EXIT_DONE
    screen.say(f"{len(run.failures)} pair(s) failed; mend them and run the same command, or only them with --failed")
    return EXIT_PARTIAL
