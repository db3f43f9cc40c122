"""Answers that hold for a while: what object storage has said needs not be asked again for every block."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakSet

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

_ALL: "WeakSet[Remembered[Hashable, object]]" = WeakSet()


class Remembered(Generic[Key, Answer]):
    """Answers by key, of all threads of this process; errors are not remembered."""

    def __init__(self, seconds: float, most: int = 10_000) -> None:
        """Remember each for so long, and no more than so many."""
        self._seconds, self._most = seconds, most
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[float, Answer]] = {}
        _ALL.add(self)  # type: ignore[arg-type]

    def get(self, key: Key, ask: Callable[[], Answer]) -> Answer:
        """The answer that is remembered, or else the one that ``ask`` gives now."""
        asked = time.monotonic()
        with self._lock:
            known = self._known.get(key)
        if known is not None and asked - known[0] < self._seconds:
            return known[1]
        answer = ask()
        with self._lock:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = asked, answer
        return answer

    def forget(self, key: Key) -> None:
        """Ask again next time."""
        with self._lock:
            self._known.pop(key, None)

    def forget_all(self) -> None:
        """Ask again for everything."""
        with self._lock:
            self._known.clear()


def forget_everything() -> None:
    """Ask again for everything that anything remembers, as a run does that begins."""
    for answers in list(_ALL):
        answers.forget_all()
