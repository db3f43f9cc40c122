"""Of objects that were found more than once, the one to keep: greedy non-maximum suppression."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def keep_best(same: Sequence[tuple[Node, Node]], rank: Mapping[Node, object]) -> dict[Node, Node]:
    """Which objects to leave out, each with the one that is kept for it.

    The best object is kept and those that are the same as it are left out, then the next best of the rest, and so on:
    of a chain of three whose ends are not the same, the middle one may be left out and both ends kept.

    Args:
        same: Objects of which one is to be kept.
        rank: Of every object in ``same``: something that sorts, the best first, no two alike.
    """
    neighbours: dict[Node, set[Node]] = {}
    for one, other in same:
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    kept_for: dict[Node, Node] = {}
    for node in sorted(neighbours, key=rank.__getitem__):  # type: ignore[arg-type]  # they sort, says the docstring
        if node not in kept_for:
            for neighbour in neighbours[node]:
                kept_for.setdefault(neighbour, node)
            for neighbour in list(neighbours[node]):
                neighbours[neighbour].discard(node)
    return kept_for
