"""The networks of a process that predicts blocks, and the patches that its blocks share."""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

from cdpipe.geo.grid import BlockKey, Window
from cdpipe.inference.patches import Forward
from cdpipe.inference.shared import SharedPatches
from cdpipe.prediction.block import Member, load_forward, probability_key
from cdpipe.store.pair import StoredPair


@dataclass(frozen=True, slots=True)
class Networks:
    """What blocks are predicted with.

    Attributes:
        forward: Gives a model's network.
        shared: By probability key, the patches of a model on a pair of which several of the blocks are made.
    """

    forward: Callable[[Member], Forward]
    shared: Mapping[str, SharedPatches] = field(default_factory=dict)


class LoadedNetworks:
    """Networks of a process: loaded when a block first needs them, and kept."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._turn = threading.Lock()
        self._forwards: dict[str, Forward] = {}  # by the model's name
        self._threads: int | None = None  # that torch had before

    def __call__(self, member: Member) -> Forward:
        """A model's network, ready to run."""
        name = member.card.name
        with self._turn:
            if name not in self._forwards:
                if member.execution.backend != "openvino":
                    import torch

                    # one thread: sums are then in one order on every machine, and two such networks beat one with two
                    self._threads = self._threads or torch.get_num_threads()
                    torch.set_num_threads(1)
                self._forwards[name] = load_forward(member)
            return self._forwards[name]

    def release(self) -> None:
        """Give torch its threads back, in a process that goes on to other work."""
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)


def share_patches(
    blocks: Iterable[tuple[StoredPair, BlockKey, Iterable[Member]]], pool: Executor | None = None
) -> dict[str, SharedPatches]:
    """Have the blocks that a process is going to predict share the patches that lie across their borders.

    Args:
        blocks: Pair, block, and the models whose probability is missing there.
        pool: Threads that run the networks; None: whoever predicts a block, and single blocks share nothing.

    Returns:
        A model's patches on a pair, by probability key.
    """
    windows: dict[str, tuple[StoredPair, Member, list[Window]]] = {}
    for pair, key, members in blocks:
        for member in members:
            if member.card.is_detector:
                continue
            _, _, own = windows.setdefault(probability_key(pair.key, member), (pair, member, []))
            own.append(pair.window(key))
    return {
        key: SharedPatches(member.patch_grid(pair), own, pool)
        for key, (pair, member, own) in windows.items()
        if pool is not None or len(own) > 1
    }
