"""Folds: groups stay together, sizes are even, and nothing is chosen by what a model is judged on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasters import utm_grid

from cdpipe.errors import ConfigError, InputError
from cdpipe.pairs.splits import assign_folds, fold_parts
from cdpipe.store.pair import LabelledPair, StoredPair


def pairs(*ids: str) -> list[LabelledPair]:
    facts: Any = (utm_grid(4, 4), 512, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})
    return [LabelledPair(StoredPair(pair_id, pair_id, *facts), "label") for pair_id in ids]


def ids(items: tuple[LabelledPair, ...]) -> set[str]:
    return {item.pair.pair_id for item in items}


@given(
    groups=st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    folds=st.integers(2, 8),
)
def test_groups_stay_together_and_folds_are_even(groups: dict[str, str], folds: int) -> None:
    if len(set(groups.values())) < folds:
        with pytest.raises(InputError, match=r"train.folds: expected at most as many folds as there are groups"):
            assign_folds(groups, folds)
        return
    found = assign_folds(groups, folds)
    assert found.keys() == groups.keys()
    assert set(found.values()) == set(range(folds))
    for group in set(groups.values()):
        assert len({found[pair_id] for pair_id, own in groups.items() if own == group}) == 1
    sizes = [list(found.values()).count(fold) for fold in range(folds)]
    largest = max(list(groups.values()).count(group) for group in set(groups.values()))
    assert max(sizes) - min(sizes) <= largest
    shuffled = dict(reversed(groups.items()))
    assert assign_folds(shuffled, folds) == found


# Changed pixels of the 14 labelled cities of the Onera data set.
CITIES = {
    "abudhabi": 23592,
    "aguasclaras": 4056,
    "beihai": 17318,
    "beirut": 33918,
    "bercy": 1046,
    "bordeaux": 2380,
    "cupertino": 18942,
    "hongkong": 13379,
    "mumbai": 12244,
    "nantes": 3449,
    "paris": 458,
    "pisa": 9130,
    "rennes": 4932,
    "saclay_e": 4346,
}


def shares(found: dict[str, int], changed: dict[str, int], folds: int) -> list[int]:
    return [sum(changed[pair_id] for pair_id, own in found.items() if own == fold) for fold in range(folds)]


def test_folds_have_about_as_many_changed_pixels() -> None:
    """Known folds of four have 36.8 to 38.1 thousand; by the number of pairs alone they are far from even."""
    alone = {name: name for name in CITIES}
    found = shares(assign_folds(alone, 4, CITIES), CITIES, 4)
    assert max(found) - min(found) < 1300
    by_pairs = shares(assign_folds(alone, 4), CITIES, 4)
    assert max(by_pairs) - min(by_pairs) > 10 * 1300


@given(
    sizes=st.lists(st.integers(0, 50), min_size=4, max_size=12),
    pairs=st.integers(1, 3),
    folds=st.integers(2, 4),
)
def test_no_move_and_no_exchange_makes_folds_more_even(sizes: list[int], pairs: int, folds: int) -> None:
    groups = {f"{number}-{pair}": str(number) for number in range(len(sizes)) for pair in range(pairs)}
    changed = dict(zip(groups, (size for size in sizes for _ in range(pairs)), strict=True))
    found = assign_folds(groups, folds, changed)
    fold_of = [found[f"{number}-0"] for number in range(len(sizes))]
    assert set(fold_of) == set(range(folds))

    def unevenness(given: list[int]) -> int:
        return sum(sum(size for size, own in zip(sizes, given, strict=True) if own == f) ** 2 for f in range(folds))

    # exact where changed pixels alone can tell: what pairs count is less than one of them
    least = unevenness(fold_of)
    for one in range(len(sizes)):
        others = [[*fold_of[:one], fold, *fold_of[one + 1 :]] for fold in range(folds)]
        for other in range(one):
            swapped = list(fold_of)
            swapped[one], swapped[other] = swapped[other], swapped[one]
            others.append(swapped)
        assert all(least <= unevenness(given) + sum(sizes) ** 2 / 1000 for given in others)


def test_places_without_change_are_shared_out_by_their_number() -> None:
    changed = {f"{number:03}": 1000 if number < 4 else 0 for number in range(300)}
    found = assign_folds({pair_id: pair_id for pair_id in changed}, 4, changed)
    assert shares(found, changed, 4) == [1000] * 4
    assert shares(found, dict.fromkeys(changed, 1), 4) == [75] * 4


def test_each_fold_is_left_out_once_and_chooses_nothing() -> None:
    train, folds = pairs("a", "b", "c", "d"), {"a": 0, "b": 1, "c": 2, "d": 0}
    parts = fold_parts(3, train, [], folds)
    assert [part.fold for part in parts] == [0, 1, 2]
    assert [(ids(part.train), ids(part.val)) for part in parts] == [
        ({"c"}, {"b"}),
        ({"a", "d"}, {"c"}),
        ({"b"}, {"a", "d"}),
    ]


def test_validation_pairs_choose_where_there_are_some() -> None:
    train, val, folds = pairs("a", "b"), pairs("v"), {"a": 0, "b": 1}
    parts = fold_parts(2, train, val, folds)
    assert [(ids(part.train), ids(part.val)) for part in parts] == [({"b"}, {"v"}), ({"a"}, {"v"})]
    with pytest.raises(ConfigError, match="expected 3 or more where no pair has the split val"):
        fold_parts(2, train, [], folds)
