"""Patches that several blocks are made of: computed once, kept until the last of these blocks has them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Executor, Future

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid
from cdpipe.timing import counted, timed

Origin = tuple[int, int]  # scene row and column of a patch's first pixel
# origins of a batch, or fewer, in; their probabilities (batch, patch, patch) out
RunBatch = Callable[[Sequence[Origin]], NDArray[np.float32]]


class SharedPatches:
    """A model's patches on a pair, for the blocks that one process predicts.

    What a network says of a patch does not depend on the block that asks, so a patch that lies across a border is
    computed by whichever block comes first. Threads may ask at the same time: each begins with what nobody else has
    begun, and then waits for the rest, so no two wait for each other without end.
    """

    def __init__(self, grid: PatchGrid, windows: Iterable[Window], pool: Executor | None = None) -> None:
        """Compute nothing yet.

        Args:
            grid: Where the model's patches lie.
            windows: The blocks to be predicted; each is to be :meth:`finish`-ed once, whatever becomes of it.
            pool: Threads that run the network; None: the one that asks.
        """
        self._grid, self._pool = grid, pool
        self._lock = threading.Lock()
        self._users: Counter[Origin] = Counter(origin for window in windows for origin in grid.touching(window))
        self._patches: dict[Origin, Future[NDArray[np.float32]]] = {}
        self._given_up = False

    def obtain(self, origins: Sequence[Origin], batch: int, run: RunBatch) -> list[NDArray[np.float32]]:
        """What the network says of patches.

        Args:
            origins: The patches.
            batch: How many ``run`` takes at once.
            run: Computes some of them.

        Returns:
            For each (patch, patch).

        Raises:
            Exception: Whatever ``run`` raised, here or for another block that had begun with the patch.
            CancelledError: After :meth:`give_up`, or once the pool is shut down.
        """
        with self._lock:
            if self._given_up:
                raise CancelledError
            own = [origin for origin in origins if origin not in self._patches]
            self._patches |= {origin: Future() for origin in own}
            wanted = [self._patches[origin] for origin in origins]
        counted("patches_run", len(own))
        with timed("model"):
            for first in range(0, len(own), batch):
                if self._pool is None:
                    self._fill(own[first : first + batch], run)
                else:
                    self._submit(self._pool, own[first : first + batch], run)
            return [patch.result() for patch in wanted]

    def finish(self, window: Window) -> None:
        """A block is done, or given up: patches that no other is made of are forgotten."""
        with self._lock:
            for origin in self._grid.touching(window):
                self._users[origin] -= 1
                if self._users[origin] <= 0:
                    del self._users[origin]
                    self._patches.pop(origin, None)

    def give_up(self) -> None:
        """Have all who wait for a patch fail, and all who ask for one from now on: its pool runs nothing any more."""
        with self._lock:
            self._given_up = True
            for patch in self._patches.values():
                patch.cancel()  # but for those that are there already

    def __len__(self) -> int:
        """How many patches are kept."""
        return len(self._patches)

    def _submit(self, pool: Executor, origins: Sequence[Origin], run: RunBatch) -> None:
        try:
            pool.submit(self._fill, origins, run)
        except RuntimeError as error:  # shut down meanwhile
            raise CancelledError from error

    def _fill(self, origins: Sequence[Origin], run: RunBatch) -> None:
        with self._lock:
            patches = [self._patches[origin] for origin in origins]
        try:
            values = run(origins)
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            with self._lock:  # who asks later tries again
                for origin in origins:
                    self._patches.pop(origin, None)
            for patch in patches:
                patch.set_exception(error)
        else:
            for patch, own in zip(patches, values, strict=False):
                patch.set_result(own)
