"""Splits for a catalog that names none: whole places, never two sides of one."""

import hashlib
from collections.abc import Sequence

from cdpipe.errors import InputError
from cdpipe.stages.leaks import place_groups
from cdpipe.stages.pair_plan import PlannedPair
from cdpipe.stages.places import group_places

HELD_OUT = 0.2  # share of the pairs that val and test each get at least
MIN_PLACES = 3


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
    places.sort(key=lambda ids: hashlib.sha256(ids[0].encode()).hexdigest())
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
