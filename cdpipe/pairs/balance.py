"""Groups of pairs shared out over folds, each with about as many changed pixels, and pairs."""

from collections.abc import Sequence

CHANGE_COUNTS = 1000  # times as much as the number of pairs
MOST_EXCHANGED = 200  # groups of more are even enough as they were shared out

Size = Sequence[int]  # changed pixels and pairs of a group


def share_out(sizes: Sequence[Size], folds: int) -> list[int]:
    """Fold of each group, from 0: no move of one group and no exchange of two would make the folds more even.

    That is, would lower the sum over folds of their squared shares. It is a whole number, so the same on any machine.

    Args:
        sizes: The groups, the largest first; at least as many as folds.
        folds: How many folds.
    """
    changed, pairs = (max(1, sum(each)) for each in zip(*sizes, strict=True))
    weights = CHANGE_COUNTS * pairs**2, changed**2
    filled: list[Size] = [(0, 0)] * folds
    fold_of: list[int] = []
    for size in sizes:
        growth = [_growth(weights, now, size) for now in filled]
        fold_of.append(growth.index(min(growth)))
        filled[fold_of[-1]] = _plus(filled[fold_of[-1]], size)
    while len(sizes) <= MOST_EXCHANGED and _improve(sizes, weights, filled, fold_of):
        pass
    return fold_of


def _improve(sizes: Sequence[Size], weights: Size, filled: list[Size], fold_of: list[int]) -> bool:
    """Go through all moves and exchanges and do those that make folds more even; whether there were any."""

    def carry(size: Size, start: int, end: int) -> bool:
        """Take so much from one fold to another, if that is better."""
        less = [-each for each in size]
        if _growth(weights, filled[start], less) + _growth(weights, filled[end], size) >= 0:
            return False
        filled[start], filled[end] = _plus(filled[start], less), _plus(filled[end], size)
        return True

    found = False
    for one, size in enumerate(sizes):
        for fold in range(len(filled)):
            if fold != fold_of[one] and carry(size, fold_of[one], fold):
                fold_of[one], found = fold, True
        for other in range(one):
            rest = [mine - theirs for mine, theirs in zip(size, sizes[other], strict=True)]
            if fold_of[one] != fold_of[other] and carry(rest, fold_of[one], fold_of[other]):
                fold_of[one], fold_of[other], found = fold_of[other], fold_of[one], True
    return found


def _growth(weights: Size, now: Size, more: Size) -> int:
    """What the sum of squares grows by if so much comes to a fold; negative where it shrinks."""
    return sum(weight * new * (2 * old + new) for weight, old, new in zip(weights, now, more, strict=True))


def _plus(now: Size, more: Size) -> Size:
    return [old + new for old, new in zip(now, more, strict=True)]
