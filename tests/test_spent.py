"""What threads spend is theirs alone, counted once, and told."""

import threading
import time
from contextlib import suppress

from cdpipe.timing import add, counted, take, timed


def test_what_is_within_counts_once() -> None:
    take()
    with timed("read"):
        time.sleep(0.02)
        with timed("write"):
            time.sleep(0.02)
    figures = take()
    assert figures.keys() == {"read_seconds"}
    assert figures["read_seconds"] >= 0.04
    assert take() == {}


def test_threads_do_not_share() -> None:
    take()
    found = []

    def other() -> None:
        counted("patches_run", 3)
        found.append(take())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [{"patches_run": 3}]
    assert take() == {}


def test_a_failure_within_is_counted_too() -> None:
    take()
    with suppress(ValueError), timed("model"):
        int("no number")
    total = {"model_seconds": 1.0}
    add(total, take())
    assert total["model_seconds"] > 1
    with timed("read"):
        pass
    assert "read_seconds" in take()
