"""The lock of a workspace in object storage: an object that its holder renews, and that others take over if it stops.

Nobody's clock counts, only what is seen: a holder puts the lock again every few seconds, so its ETag changes. Whoever
finds a lock watches it. If it changes, its holder lives; if it stays for a whole lease, its holder is gone. Every put
is conditional on the ETag that was seen last, so that of several that take over only one succeeds.
"""

import contextlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

from cdpipe.errors import LockedError
from cdpipe.workspace import requests
from cdpipe.workspace.clients import Address, Taken
from cdpipe.workspace.requests import Head

RENEWAL = 5.0  # seconds from one renewal to the next
LEASE = 30.0  # seconds without a renewal after which a lock is taken over
LOOK = 1.0  # seconds between two looks at somebody else's lock

_HELD: list["_Lock"] = []  # by this process


@contextlib.contextmanager
def leased(address: Address, *, wait: bool) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        address: The object that is the lock.
        wait: Wait for a living holder to let go instead of giving up.

    Raises:
        LockedError: If a living holder has it; or if it was lost, since this machine was cut off or stood still for
            a lease. What was written until then is whole, and the same command continues.
    """
    lock = _Lock(address)
    lock.take(wait=wait)
    renewing = threading.Thread(target=lock.keep, daemon=True)
    renewing.start()
    _HELD.append(lock)
    try:
        yield
    except KeyboardInterrupt:
        if not lock.lost:
            raise
        raise lock.error() from None
    finally:
        _HELD.remove(lock)
        lock.ending.set()
        renewing.join()
        lock.let_go()
    if lock.lost:
        raise lock.error()


def confirm(address: Address) -> None:
    """Make sure that this process still holds the lock of the folder that a file lies in, if it held one.

    Raises:
        LockedError: If another has taken it over.
    """
    for lock in _HELD:
        if str(address).startswith(f"{lock.folder}/"):
            lock.renew()
            if lock.lost:
                raise lock.error()


class _Lock:
    """A lock as one process sees it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.folder = str(address).rpartition("/")[0]
        self.lost = False
        self.ending = threading.Event()
        self._own = {"holder": uuid4().hex, "host": platform.node(), "process": os.getpid()}
        self._head: Head | None = None
        self._renewed = 0
        self._turn = threading.Lock()

    def error(self) -> LockedError:
        return LockedError(
            f"workspace {self.folder}: its lock was lost, since it was not renewed for {LEASE:.0f} s, and another "
            "run may be writing now; the same command continues when that has ended"
        )

    def take(self, *, wait: bool) -> None:
        seen: str | None = None
        since = time.monotonic()
        while True:
            found = self._look()
            if found is None or found[0].get("released"):
                if self._put(found[1] if found else None):
                    return
                continue
            values, head = found
            if head.e_tag != seen:
                if seen is not None and not wait:
                    raise LockedError(
                        f"workspace {self.folder}: another run is writing to it (process {values.get('process')} "
                        f"on {values.get('host')}); --wait waits for it"
                    )
                seen, since = head.e_tag, time.monotonic()
            elif time.monotonic() - since >= LEASE and self._put(head):
                return
            time.sleep(LOOK)

    def keep(self) -> None:
        """Renew until the end; whoever loses the lock is interrupted like by Ctrl-C."""
        while not self.ending.wait(RENEWAL):
            self.renew()
            if self.lost:
                # a signal, since _thread.interrupt_main ends no wait; shells have what runs behind them ignore SIGINT
                ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                return

    def renew(self) -> None:
        with self._turn:
            deadline = time.monotonic() + LEASE - 2 * RENEWAL
            while not self.lost:
                try:
                    self.lost = not self._put(self._head, quick=True)
                except OSError:
                    self.lost = time.monotonic() >= deadline
                    time.sleep(LOOK)
                else:
                    return

    def let_go(self) -> None:
        with contextlib.suppress(OSError):
            if not self.lost:
                self._put(self._head, released=True)

    def _look(self) -> tuple[dict[str, object], Head] | None:
        try:
            data, head = requests.read_small(self.address)
        except FileNotFoundError:
            return None
        with contextlib.suppress(ValueError):
            values = json.loads(data)
            if isinstance(values, dict):
                return values, head
        return {}, head

    def _put(self, expected: Head | None, *, released: bool = False, quick: bool = False) -> bool:
        """Put the lock in the place of what is expected there; whether it is ours then."""
        self._renewed += 1
        values = {**self._own, "renewed": self._renewed, "released": released}
        try:
            self._head = requests.write_if(self.address, json.dumps(values).encode(), expected, quick=quick)
        except Taken:
            # perhaps by this very put, the first answer to which got lost
            found = self._look()
            if found is None or found[0].get("holder") != self._own["holder"]:
                return False
            self._head = found[1]
        return True
