"""Splits that leak: pairs to learn from so close to pairs to judge by that a model has seen what it is judged on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.catalog import Pair
from cdpipe.geo.grid import Grid
from cdpipe.stages.places import find_near, has_place, same_group

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Leaks:
    """What is wrong with a split.

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
    here = {pair.pair_id: (pair, grid) for pair, grid in placed if pair.pair_id in splits}

    def apart(one: str, other: str) -> bool:
        return (splits[one] == "train") != (splits[other] == "train")

    found = [
        f"{each.one} ({splits[each.one]}) and {each.other} ({splits[each.other]}) "
        + (f"lie {each.distance:,.0f} m apart" if each.distance else "share ground, 0 m apart")
        + f"; a patch needs {each.needed:,.0f} m"
        for each in find_near({name: grid for name, (_, grid) in here.items()}, patch)
        if apart(each.one, each.other)
    ]
    members: dict[str, list[str]] = {}
    for name, (pair, _) in sorted(here.items()):
        if pair.group is not None:
            members.setdefault(pair.group, []).append(name)
    for group, names in members.items():
        other = next((name for name in names if apart(names[0], name)), None)
        if other is not None:
            sides = f"{names[0]} ({splits[names[0]]}) and {other} ({splits[other]})"
            found.append(f"{sides} are both of group {group}")
    return Leaks(tuple(found), tuple(name for name, (_, grid) in sorted(here.items()) if not has_place(grid)))


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


def place_groups(placed: Sequence[tuple[Pair, Grid]], patch: int) -> list[tuple[str, str]]:
    """Pairs that must stay on one side: those that touch or are closer than a patch, and those of one group."""
    near = find_near({pair.pair_id: grid for pair, grid in placed}, patch)
    return [(each.one, each.other) for each in near] + same_group({pair.pair_id: pair.group for pair, _ in placed})
