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
