"""Means and votes of stored probabilities against the same on plain arrays."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stored import bright_squares, store_pair, store_probability

from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import score_histogram
from cdpipe.prediction.ensemble import Ensemble, ensemble_block, ensemble_scores, plan_ensemble
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.groups import CHANGE_ARRAYS, create_group
from cdpipe.store.pair import LabelledPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (70, 300)
NAMES = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(here(tmp_path_factory.mktemp("ensemble")))


@pytest.fixture(scope="module")
def item(workspace: Workspace) -> LabelledPair:
    return store_pair(workspace, "p", *bright_squares(SHAPE, 0), block=256)


@pytest.fixture(scope="module")
def members(workspace: Workspace, item: LabelledPair) -> dict[str, NDArray[np.float32]]:
    """Probabilities in steps of a tenth, so that many pixels lie on a threshold; some are not observed."""
    found = {}
    rng = np.random.default_rng(1)
    for name in NAMES:
        values = (rng.integers(0, 11, SHAPE) / 10).astype(np.float32)
        values[:5] = np.nan
        found[name] = values
        store_probability(workspace, item.pair, name, values)
    return found


def store(workspace: Workspace, item: LabelledPair, ensemble: Ensemble) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probability and change as they come out of the store."""
    group = workspace.group("changes", "p", ensemble.key)
    create_group(group, CHANGE_ARRAYS, item.pair.grid, item.pair.block, {})
    for key in item.pair.blocks():
        ensemble_block(workspace, item.pair, key, ensemble)
    whole = Window(0, 0, *SHAPE)
    probability, change = (read_window(open_array(group, name), whole) for name in ("probability", "change"))
    return probability, change


def test_the_mean_is_the_plain_weighted_mean(
    workspace: Workspace, item: LabelledPair, members: dict[str, NDArray[np.float32]]
) -> None:
    ensemble = plan_ensemble([("one", 3.0), ("two", 1.0)], 0.4)
    probability, change = store(workspace, item, ensemble)
    expected = members["one"] * np.float32(0.75) + members["two"] * np.float32(0.25)
    np.testing.assert_array_equal(probability, expected)
    assert (change[:5] == 255).all()
    np.testing.assert_array_equal(change[5:], expected[5:] >= np.float32(0.4))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (3.0, 1.0, 1.0, 1.0)])
def test_a_vote_is_won_by_more_than_half_of_the_weight(
    workspace: Workspace, item: LabelledPair, members: dict[str, NDArray[np.float32]], weights: tuple[float, ...]
) -> None:
    names, thresholds = NAMES[: len(weights)], (0.3, 0.5, 0.7, 0.2)[: len(weights)]
    ensemble = plan_ensemble(list(zip(names, weights, strict=True)), 0.5, thresholds)
    probability, change = store(workspace, item, ensemble)
    votes = np.stack([members[name] >= np.float32(own) for name, own in zip(names, thresholds, strict=True)])
    won = np.tensordot(weights, votes, 1)
    np.testing.assert_allclose(probability[5:], won[5:] / sum(weights), atol=1e-6)
    assert np.isnan(probability[:5]).all()
    assert (change[:5] == 255).all()
    np.testing.assert_array_equal(change[5:], 2 * won[5:] > sum(weights))
    assert (2 * won[5:] == sum(weights)).any() == (sum(weights) % 2 == 0)  # ties were among them


def test_the_key_depends_on_all_that_decides_the_result() -> None:
    plain = plan_ensemble([("a", 1.0), ("b", 1.0)], 0.5)
    assert plan_ensemble([("a", 2.0), ("b", 2.0)], 0.5).key == plain.key
    others = [
        plan_ensemble([("a", 2.0), ("b", 1.0)], 0.5),
        plan_ensemble([("a", 1.0), ("c", 1.0)], 0.5),
        plan_ensemble([("a", 1.0), ("b", 1.0)], 0.4),
        plan_ensemble([("a", 1.0), ("b", 1.0)], 0.5, (0.5, 0.5)),
        plan_ensemble([("a", 1.0), ("b", 1.0)], 0.5, (0.5, 0.4)),
    ]
    assert len({plain.key, *(each.key for each in others)}) == 6


def test_scores_of_an_ensemble_are_those_of_the_weighted_mean(
    workspace: Workspace, item: LabelledPair, members: dict[str, NDArray[np.float32]]
) -> None:
    label = read_window(open_array(workspace.group("labels", "p", item.label_key), "label"), Window(0, 0, *SHAPE))
    found = ensemble_scores(workspace, item, plan_ensemble([("one", 3.0), ("two", 1.0)], 0.0))
    mean = members["one"] * np.float32(0.75) + members["two"] * np.float32(0.25)
    assert found == score_histogram(mean, label)
    assert sum(found.changed) == int((np.isfinite(mean) & (label == 1)).sum())


def test_shares_never_add_up_to_more_than_one(workspace: Workspace, item: LabelledPair) -> None:
    names = [f"full{number}" for number in range(7)]
    for name in names:
        store_probability(workspace, item.pair, name, np.ones(SHAPE, np.float32))
    for count in range(1, 8):
        probability, _ = store(workspace, item, plan_ensemble([(name, 1.0) for name in names[:count]], 0.5))
        assert probability.max() <= 1
