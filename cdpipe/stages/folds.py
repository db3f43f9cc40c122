"""Folds for training: groups of pairs, each left out of one model that then predicts it unseen."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdpipe.errors import ConfigError, InputError
from cdpipe.store.pair import LabelledPair


@dataclass(frozen=True, slots=True)
class Part:
    """The pairs that one model learns from and those that its best epoch is chosen by.

    Attributes:
        fold: Which fold is left out; None where there are no folds.
        train: To learn from.
        val: To choose by.
    """

    fold: int | None
    train: tuple[LabelledPair, ...]
    val: tuple[LabelledPair, ...]


def assign_folds(groups: Mapping[str, str], folds: int) -> dict[str, int]:
    """Share groups out evenly over folds; no group is ever split.

    The largest group goes first, each to the fold with the fewest pairs; equals are ordered by a hash of their
    names, so the same pairs always fall into the same folds.

    Args:
        groups: Group of each pair.
        folds: How many folds.

    Returns:
        Fold of each pair, from 0.

    Raises:
        InputError: If there are fewer groups than folds.
    """
    members: dict[str, list[str]] = {}
    for pair_id, group in groups.items():
        members.setdefault(group, []).append(pair_id)
    if len(members) < folds:
        raise InputError(
            f"train.folds: expected at most as many folds as there are groups of labelled training pairs "
            f"({len(members)}), got {folds}; pairs of one group, or closer than a patch, are left out together"
        )
    order = sorted(members, key=lambda group: (-len(members[group]), hashlib.sha256(group.encode()).hexdigest()))
    filled = [0] * folds
    found: dict[str, int] = {}
    for group in order:
        fold = filled.index(min(filled))
        filled[fold] += len(members[group])
        found |= dict.fromkeys(members[group], fold)
    return found


def fold_parts(
    count: int, train: Sequence[LabelledPair], val: Sequence[LabelledPair], folds: Mapping[str, int]
) -> list[Part]:
    """What the model of each fold learns from, and what its best epoch is chosen by.

    Never by the fold that is left out, on which the model is to be judged: by the validation pairs, or where there
    are none by the next fold, which it then does not learn from either.

    Raises:
        ConfigError: If there are too few folds for that.
    """
    if not val and count < 3:
        raise ConfigError(
            "train.folds: expected 3 or more where no pair has the split val, since the best epoch is then chosen by "
            f"another fold than the one left out; got {count}"
        )
    parts = []
    for fold in range(count):
        chooser = [] if val else [item for item in train if folds[item.pair.pair_id] == (fold + 1) % count]
        left = [item for item in train if folds[item.pair.pair_id] != fold and item not in chooser]
        parts.append(Part(fold, tuple(left), tuple(val or chooser)))
    return parts
