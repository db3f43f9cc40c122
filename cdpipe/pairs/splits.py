"""Splits and folds: which pairs a model learns from and which it is judged on, never two sides of one place.

Pairs that share ground, or lie closer than a patch, are one place, as are those that the catalog puts into one group.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.crs import on_earth
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.shapes import find_near
from cdpipe.geo.tilings import CELL
from cdpipe.pairs.balance import share_out
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.strips import ALL_SPLITS, TRAIN_AND_VAL, Counts, cut_strips, largest_patch
from cdpipe.store.pair import LabelledPair

HELD_OUT = 0.2  # share of the pairs that val and test each get at least
MIN_PLACES = 3
SHOWN = 5  # leaks that a message names

Placed = Sequence[tuple[Pair, Grid]]  # pairs with their grids
ReadCells = Callable[[Pair, Grid], Counts]  # labelled and changed pixels of a pair's cells, (2, rows, cols)


@dataclass(frozen=True, slots=True)
class Splits:
    """What each split has of the pairs.

    Attributes:
        whole: Split of each pair that is in one as a whole.
        strips: Of pairs that are cut, by pair and split: the pixels whose labels count there.
    """

    whole: Mapping[str, str] = field(default_factory=dict)
    strips: Mapping[str, Mapping[str, Window]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any pair is in a split."""
        return bool(self.whole or self.strips)

    def parts(self, split: str) -> dict[str, Window | None]:
        """Pairs of a split, with the strip of those of which it has but that."""
        whole = dict[str, Window | None]({name: None for name, of_pair in self.whole.items() if of_pair == split})
        return whole | {name: strips[split] for name, strips in self.strips.items() if split in strips}


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


def place_groups(placed: Placed, patch: int) -> list[tuple[str, str]]:
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


def find_leaks(placed: Placed, splits: Mapping[str, str], patch: int) -> Leaks:
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


def catalog_leaks(placed: Placed, config: Config) -> list[str]:
    """What is wrong with the splits that a catalog gives, in words; those that are made do not leak."""
    if config.splits.allow_leak or not config.predict.takes_trained:  # given models learned from other pairs
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


def split_leaks(placed: Placed, splits: Splits, patch: int) -> Leaks:
    """The same of all that splits have: of pairs that are cut a strip counts, with as much ground as it has.

    Strips of one scene need no look: they were cut with a patch between them.
    """
    grids = {pair.pair_id: (pair, grid) for pair, grid in placed}
    whole = [(pair, grid) for pair, grid in placed if pair.pair_id in splits.whole]
    found = find_leaks(whole, splits.whole, patch)
    leaks, unplaced = list(found.leaks), dict.fromkeys(found.unplaced)
    for name, strips in splits.strips.items():
        pair, grid = grids[name]
        for split, window in strips.items():
            strip = replace(pair, pair_id=f"{name}, strip of {split}", group=None), grid.crop(window)
            told = find_leaks([*whole, strip], {**splits.whole, strip[0].pair_id: split}, patch).leaks
            leaks += [leak for leak in told if leak not in found.leaks]
        if not on_earth(grid.crs):
            unplaced.setdefault(name)
    return Leaks(tuple(leaks), tuple(unplaced))


def split_pairs(placed: Placed, buffer: int) -> dict[str, str]:
    """Split of each labelled pair, as a whole.

    A catalog that gives any pair a split is taken at its word. Otherwise pairs whose footprints touch or lie closer
    than the buffer, and those of one group, are one place; places go to test, then val, then train, in an order that
    depends on their names alone. A pair without georeference is a place of its own, unless its group says otherwise.

    Args:
        placed: Pairs with their grids.
        buffer: What must lie between places, in pixels.

    Raises:
        InputError: If there are too few separate places for three splits.
    """
    labelled = [(pair, grid) for pair, grid in placed if pair.label is not None]
    given = {pair.pair_id: pair.split for pair, _ in placed if pair.split}
    if given or not labelled:
        return given
    places = _places(labelled, buffer)
    if len(places) < MIN_PLACES:
        raise InputError(f"{_too_few(labelled, places)}: add the column")
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


def _places(labelled: Placed, buffer: int) -> list[list[str]]:
    return group_places([pair.pair_id for pair, _ in labelled], place_groups(labelled, buffer))


def _too_few(labelled: Placed, places: Sequence[Sequence[str]]) -> str:
    return (
        f"the catalog has no column split and its {len(labelled)} labelled pair(s) cover {len(places)} separate "
        f"place(s); {MIN_PLACES} are needed for train, val and test"
    )


def find_splits(config: Config, placed: Placed, read_cells: ReadCells) -> Splits:
    """What each split has: whole pairs, or strips of scenes where there are too few places for that.

    Args:
        config: The configuration.
        placed: Pairs with their grids.
        read_cells: Counts a pair's label, see :func:`cdpipe.pairs.strips.cut_strips`.

    Raises:
        InputError: If there are too few places, and no scene can be cut.
    """
    labelled = [(pair, grid) for pair, grid in placed if pair.label is not None]
    given = {pair.pair_id: pair.split for pair, _ in placed if pair.split}
    shares = _shares(config, labelled, given)
    if not shares:
        return Splits(split_pairs(placed, config.split_buffer))
    to_cut = [(pair, grid) for pair, grid in labelled if given.get(pair.pair_id, "train") == "train"]
    if config.train.folds is not None:
        raise InputError(
            f"train.folds: folds are of whole places, and the labelled pairs to learn from cover "
            f"{len(_places(to_cut, config.split_buffer))}; leave train.folds out, and strips of the scenes become "
            f"{', '.join(shares)}"
        )
    strips: dict[str, Mapping[str, Window]] = {}
    reasons = []
    for pairs in _scenes(to_cut, config.train.patch):
        (first, grid), *_ = pairs
        cells = np.stack([read_cells(pair, grid) for pair, grid in pairs]).sum(axis=0, dtype=np.int64)
        found = cut_strips(cells, grid.shape, config.train.patch, shares)
        if found is None:
            reasons.append(f"{first.pair_id} cannot be cut into strips: {_why_whole(cells, grid, config, shares)}")
        else:
            strips |= dict.fromkeys((pair.pair_id for pair, _ in pairs), found)
    if not strips:
        few = "no pair has the split val" if given else _too_few(labelled, _places(labelled, config.split_buffer))
        raise InputError(f"{few}; {'; '.join(reasons[:SHOWN])}")
    # a scene without change, or a small one, is for learning as it is
    whole = {pair.pair_id: "train" for pair, _ in to_cut if pair.pair_id not in strips}
    return Splits({name: split for name, split in given.items() if name not in strips} | whole, strips)


def _shares(config: Config, labelled: Placed, given: Mapping[str, str]) -> Mapping[str, int]:
    """Which splits scenes are to be cut into; empty where whole pairs are split."""
    if not labelled or not config.predict.takes_trained or config.splits.by == "places":
        return {}
    always = config.splits.by == "strips"
    if not given:
        few = always or len(_places(labelled, config.split_buffer)) < MIN_PLACES
        return ALL_SPLITS if few else {}
    of_labels = {given.get(pair.pair_id) for pair, _ in labelled}
    chooses = config.train.keep == "best" and config.train.folds is None
    return TRAIN_AND_VAL if "train" in of_labels and "val" not in of_labels and (always or chooses) else {}


def _scenes(labelled: Placed, buffer: int) -> list[list[tuple[Pair, Grid]]]:
    """Pairs of one place on one grid together: they are cut alike.

    Raises:
        InputError: If pairs on different grids share ground.
    """
    by_id = {pair.pair_id: (pair, grid) for pair, grid in labelled}
    scenes: list[list[tuple[Pair, Grid]]] = []
    for ids in _places(labelled, buffer):
        here: list[list[tuple[Pair, Grid]]] = []
        for pair, grid in map(by_id.__getitem__, ids):
            same = next((scene for scene in here if grid.same_pixels(scene[0][1])), None)
            if same is None:
                here.append([(pair, grid)])
            else:
                same.append((pair, grid))
        near = find_near({scene[0][0].pair_id: scene[0][1] for scene in here}, buffer)
        if near:
            raise InputError(
                f"{near[0].one} and {near[0].other} share ground on different grids, so they cannot be cut into strips "
                "for train, val and test: take the label of one out of the catalog, or put them on one grid"
            )
        scenes += here
    return scenes


def _why_whole(cells: Counts, grid: Grid, config: Config, shares: Mapping[str, int]) -> str:
    """Why a scene cannot be cut, and what would help."""
    changed, where = int(cells[1].sum()), int(np.count_nonzero(cells[1]))
    if not changed:
        return "no labelled, observed pixel of it changed"
    size = f"{grid.width} x {grid.height} pixels, {changed:,} of them changed in {where} cell(s) of {CELL} pixels"
    need = f"each of {', '.join(shares)} needs some of them, with a patch of {config.train.patch} pixels in between"
    smaller = largest_patch(cells, grid.shape, config.train.patch, shares)
    todo = "label more of it, or other scenes" if smaller is None else f"train.patch: {smaller} would do"
    return f"{size}; {need}: {todo}"


def known_splits(config: Config, placed: Placed, read_cells: ReadCells) -> Splits:
    """The same for prediction and evaluation, which need no splits: none where there are too few places."""
    try:
        return find_splits(config, placed, read_cells)
    except InputError:
        return Splits()


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
