"""Splits and folds: which pairs a model learns from and which it is judged on, never two sides of one place.

Pairs that share ground, or lie closer than a patch, are one place, as are those that the catalog puts into one group.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.crs import on_earth
from cdpipe.geo.grid import Grid
from cdpipe.geo.shapes import find_near
from cdpipe.pairs.balance import share_out
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.plan import PlannedPair
from cdpipe.store.pair import LabelledPair

HELD_OUT = 0.2  # share of the pairs that val and test each get at least
MIN_PLACES = 3
SHOWN = 5  # leaks that a message names


def group_places(names: Sequence[str], together: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Pairs of each place, sorted: two that belong together are of one place, and so are chains of them."""
    place = {name: name for name in names}

    def root(name: str) -> str:
        while place[name] != name:
            place[name] = place[place[name]]
            name = place[name]
        return name

    for one, other in together:
        low, high = sorted((root(one), root(other)))
        place[high] = low
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def same_group(groups: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Pairs that the catalog puts into one group: each with the first of its group."""
    first: dict[str, str] = {}
    links = [(first.setdefault(group, name), name) for name, group in sorted(groups.items()) if group is not None]
    return [(one, other) for one, other in links if one != other]


def place_groups(placed: Sequence[tuple[Pair, Grid]], patch: int) -> list[tuple[str, str]]:
    """Pairs that must stay on one side: those that touch or are closer than a patch, and those of one group."""
    near = [(near.one, near.other) for near in find_near({pair.pair_id: grid for pair, grid in placed}, patch)]
    return near + same_group({pair.pair_id: pair.group for pair, _ in placed})


@dataclass(frozen=True, slots=True)
class Leaks:
    """What is wrong with a split: pairs to learn from so near to pairs to judge by that a model has seen these.

    Attributes:
        leaks: Each in words: two pairs, and the distance or the group they share.
        unplaced: Pairs of the split without georeference, of which it cannot be told.
    """

    leaks: tuple[str, ...]
    unplaced: tuple[str, ...]


def find_leaks(placed: Sequence[tuple[Pair, Grid]], splits: Mapping[str, str], patch: int) -> Leaks:
    """Pairs of the split train that touch, or lie closer than a patch to, pairs of val or test; or share their group.

    Args:
        placed: Pairs with their grids.
        splits: Split of each pair that has one.
        patch: Side of a patch in pixels.
    """
    of_split = {pair.pair_id: (pair, grid) for pair, grid in placed if pair.pair_id in splits}

    def apart(one: str, other: str) -> bool:
        return (splits[one] == "train") != (splits[other] == "train")

    leaks = [
        f"{near.one} ({splits[near.one]}) and {near.other} ({splits[near.other]}) "
        + (f"lie {near.distance:,.0f} m apart" if near.distance else "share ground, 0 m apart")
        + f"; a patch needs {near.needed:,.0f} m"
        for near in find_near({name: grid for name, (_, grid) in of_split.items()}, patch)
        if apart(near.one, near.other)
    ]
    members: dict[str, list[str]] = {}
    for name, (pair, _) in sorted(of_split.items()):
        if pair.group is not None:
            members.setdefault(pair.group, []).append(name)
    for group, names in members.items():
        other = next((name for name in names if apart(names[0], name)), None)
        if other is not None:
            sides = f"{names[0]} ({splits[names[0]]}) and {other} ({splits[other]})"
            leaks.append(f"{sides} are both of group {group}")
    return Leaks(tuple(leaks), tuple(name for name, (_, grid) in sorted(of_split.items()) if not on_earth(grid.crs)))


def catalog_leaks(placed: Sequence[tuple[Pair, Grid]], config: Config) -> list[str]:
    """What is wrong with the splits that a catalog gives, in words; those that are made do not leak."""
    if config.splits.allow_leak or config.predict.models:  # given models learned from other pairs
        return []
    splits = {pair.pair_id: pair.split for pair, _ in placed if pair.split and pair.label}
    leaks = find_leaks(placed, splits, config.train.patch).leaks
    return [f"the splits leak: {describe_leaks(leaks)}; splits.allow_leak: true accepts it"] if leaks else []


def describe_leaks(leaks: Sequence[str]) -> str:
    """The first few in a line."""
    return "; ".join(leaks[:SHOWN]) + (f"; and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else "")


def refuse_leaks(leaks: Sequence[str]) -> None:
    """Refuse a split that leaks.

    Raises:
        InputError: If there are leaks.
    """
    if leaks:
        raise InputError(
            f"the splits leak, so figures on val and test would flatter the models: {describe_leaks(leaks)}. Move the "
            "pairs to one side in the catalog's column split, or accept it with splits.allow_leak: true"
        )


def split_pairs(planned: Sequence[PlannedPair], buffer: int) -> dict[str, str]:
    """Split of each labelled pair.

    A catalog that gives any pair a split is taken at its word. Otherwise pairs whose footprints touch or lie closer
    than the buffer, and those of one group, are one place; places go to test, then val, then train, in an order that
    depends on their names alone. A pair without georeference is a place of its own, unless its group says otherwise.

    Args:
        planned: The pairs.
        buffer: What must lie between places, in pixels.

    Raises:
        InputError: If there are too few separate places for three splits.
    """
    labelled = [item for item in planned if item.label_key is not None]
    given = {item.pair.pair_id: item.pair.split for item in planned if item.pair.split}
    if given or not labelled:
        return given
    together = place_groups([(item.pair, item.grid) for item in labelled], buffer)
    places = group_places([item.pair.pair_id for item in labelled], together)
    if len(places) < MIN_PLACES:
        raise InputError(
            f"the catalog has no column split and its {len(labelled)} labelled pair(s) cover {len(places)} separate "
            f"place(s); {MIN_PLACES} are needed for train, val and test: add the column"
        )
    places.sort(key=lambda ids: _hashed(ids[0]))
    splits: dict[str, str] = {}
    for split in ("test", "val"):
        wanted, taken = HELD_OUT * len(labelled), 0
        # a place each is left for the splits that come after
        while taken < wanted and len(places) > (2 if split == "test" else 1):
            ids = places.pop()
            taken += len(ids)
            splits |= dict.fromkeys(ids, split)
    return splits | {pair_id: "train" for ids in places for pair_id in ids}


def known_splits(planned: Sequence[PlannedPair], buffer: int) -> dict[str, str]:
    """The same for prediction and evaluation, which need no splits: none where there are too few places."""
    try:
        return split_pairs(planned, buffer)
    except InputError:
        return {}


@dataclass(frozen=True, slots=True)
class Part:
    """The pairs that one model learns from and those that its epochs are validated on; a fold predicts the rest unseen.

    Attributes:
        fold: Which fold is left out; None where there are no folds.
        train: To learn from.
        val: To validate on, and to choose the best epoch by if that is kept.
    """

    fold: int | None
    train: tuple[LabelledPair, ...]
    val: tuple[LabelledPair, ...]


def assign_folds(
    groups: Mapping[str, str], folds: int, changed: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int]:
    """Share groups out over folds, so that each has about as many changed pixels, and pairs; no group is ever split.

    Changed pixels are what a model learns from and a threshold is fitted on, so they come first; the number of pairs
    decides where they hardly do, as among groups without change. Equals are ordered by a hash of their names, so the
    same pairs always fall into the same folds.

    Args:
        groups: Group of each pair.
        folds: How many folds.
        changed: Changed pixels of each pair; 0 where they are not known.

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
    sizes = {group: (sum(changed.get(pair_id, 0) for pair_id in ids), len(ids)) for group, ids in members.items()}
    order = sorted(sizes, key=lambda group: (*(-size for size in sizes[group]), _hashed(group)))
    fold_of = share_out([sizes[group] for group in order], folds)
    return {pair_id: fold for group, fold in zip(order, fold_of, strict=True) for pair_id in members[group]}


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def fold_parts(
    count: int,
    train: Sequence[LabelledPair],
    val: Sequence[LabelledPair],
    folds: Mapping[str, int],
    *,
    choose: bool = True,
) -> list[Part]:
    """What the model of each fold learns from, and what its epochs are validated on.

    Where that chooses the best epoch (``choose``), never on the fold that is left out, on which the model is to be
    judged: on the validation pairs, or where there are none on the next fold, which it then does not learn from either.
    Where nothing is chosen, on the validation pairs or else on the fold that is left out.

    Raises:
        ConfigError: If there are too few folds for that.
    """
    if choose and not val and count < 3:
        raise ConfigError(
            "train.folds: expected 3 or more where no pair has the split val, since the best epoch is then chosen by "
            f"another fold than the one left out; got {count}"
        )
    parts = []
    for fold in range(count):
        watched = (fold + 1) % count if choose else fold
        others = [] if val else [item for item in train if folds[item.pair.pair_id] == watched]
        left = [item for item in train if folds[item.pair.pair_id] != fold and item not in others]
        parts.append(Part(fold, tuple(left), tuple(val or others)))
    return parts
