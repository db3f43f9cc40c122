"""Sensors of a starting configuration, as the files themselves name their bands."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster
from cdpipe.pairs.bands import band_roles, bands_by_role
from cdpipe.pairs.layouts.search import FoundPair, FoundPairs, settings
from cdpipe.store.normalisation import RGB
from cdpipe.workspace.location import here

Bands = tuple[tuple[str, int], ...]  # role and number


def name_sensors(found: FoundPairs) -> FoundPairs:
    """Give pairs the sensors that their files tell: one for each order of bands that some of them name.

    The headers of all images are read. Files that do not name red, green and blue are taken for the most common order,
    which a hint says; where none does, or the layout knows the bands, nothing changes.
    """
    if found.bands is not None:
        return found
    named = [_named_bands(pair) for pair in found.pairs]
    orders = [order for dates in named for order in dates if order]
    if not orders:
        return found
    common = sorted(dict.fromkeys(orders), key=orders.count, reverse=True)
    names = {order: found.sensor if n == 1 else f"{found.sensor}_{n}" for n, order in enumerate(common, 1)}
    pairs = found.pairs
    if len(common) > 1:
        pairs = tuple(
            dataclasses.replace(pair, before_sensor=names[before or common[0]], after_sensor=names[after or common[0]])
            for pair, (before, after) in zip(found.pairs, named, strict=True)
        )
    return dataclasses.replace(
        found,
        pairs=pairs,
        sensors={name: dict(order) for order, name in names.items()},
        hints=(*found.hints, *_hints(found.pairs, named, names)),
    )


def _named_bands(pair: FoundPair) -> tuple[Bands, Bands]:
    """The bands of both dates; nothing where a file does not name red, green and blue, or cannot be opened."""
    if pair.composite is None:
        before, after = (_roles(path) for path in pair.images)
    else:
        roles = _roles(pair.composite)
        before, after = roles[: len(roles) // 2], roles[len(roles) // 2 :]
    return _order(before), _order(after)


def _order(roles: Sequence[str]) -> Bands:
    numbers = bands_by_role(roles)
    return tuple(numbers.items()) if set(RGB) <= set(numbers) else ()


def _roles(path: Path) -> Sequence[str]:
    try:
        return band_roles(describe_raster(here(path), settings()))
    except InputError:  # for the check to tell
        return ()


def _hints(pairs: Sequence[FoundPair], named: Sequence[tuple[Bands, Bands]], names: Mapping[Bands, str]) -> list[str]:
    hints = []
    if len(names) > 1:
        orders = {name: ", ".join(f"{role} {number}" for role, number in order) for order, name in names.items()}
        shown = "; ".join(f"{name}: {order}" for name, order in orders.items())
        hints.append(f"the files name their bands in {len(names)} orders, so there are as many sensors ({shown})")
    unnamed = [pair.name for pair, dates in zip(pairs, named, strict=True) if not all(dates)]
    if unnamed:
        taken = f"they are taken for those of sensor {next(iter(names.values()))}"
        hints.append(f"{len(unnamed)} pair(s), such as {unnamed[0]}, have files that do not name their bands; {taken}")
    return hints
