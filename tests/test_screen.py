"""What the screen says of how far a step is, and for how long it goes on: nothing before that can be told."""

import re

import pytest

from cdpipe.cli import screen as screens
from cdpipe.cli.screen import Screen
from cdpipe.runs.run import tell_step


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(screens, "time", found)
    return found


def lines(told: str) -> list[str]:
    return [" ".join(line.split()) for line in told.splitlines()]


def test_starting_is_no_part_of_the_speed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A minute of starting, then a unit a second: 99 units do not take 99 minutes."""
    with tell_step(Screen().show, "predict: patches", 100) as advance:
        clock.now += 60
        advance(1, "")
        for _ in range(99):
            clock.now += 1
            advance(1, "")
    told = lines(capsys.readouterr().out)
    assert told[0] == "predict: patches: 1/100"
    assert told[1] == "predict: patches: 6/100 1/s ETA 1 min 34 s"
    assert told[-1] == "predict: patches: 100/100 1/s ETA 0 s"


def test_what_comes_all_at_once_has_no_speed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with tell_step(Screen().show, "ingest: blocks", 8) as advance:
        clock.now += 9
        advance(8, "")
    assert lines(capsys.readouterr().out) == ["ingest: blocks: 8/8"]


def test_several_workers_that_end_together_are_not_taken_for_a_fast_one(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with tell_step(Screen().show, "predict: blocks", 40) as advance:
        clock.now += 100
        for _ in range(10):
            for _ in range(4):
                clock.now += 0.1
                advance(1, "")
            clock.now += 59.6
    told = [re.sub(r".*ETA ", "", line) for line in lines(capsys.readouterr().out)]
    assert told[0] == "predict: blocks: 1/40"
    assert told[1] == "8 min 45 s"  # 35 of 40 are left, at four a minute


def test_every_step_is_measured_by_itself(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for speed in (1, 10):
        with tell_step(screen.show, f"step {speed}", 100) as advance:
            for _ in range(3):
                clock.now += 6
                advance(speed, "")
    told = lines(capsys.readouterr().out)
    assert told[1::3] == ["step 1: 2/100 0.167/s ETA 9 min 48 s", "step 10: 20/100 1.67/s ETA 48 s"]
