"""Members' stored probabilities together: weighted mean or majority vote, change, and scores against a label."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import BlockKey, Window
from cdpipe.geo.tilings import CHUNK, strips_in
from cdpipe.keys import content_key
from cdpipe.metrics.counts import ScoreHistogram, is_change, score_histogram, threshold_change
from cdpipe.prediction.temperature import logit_histogram, soften
from cdpipe.store.arrays import open_array, read_window, write_block
from cdpipe.store.pair import LabelledPair, StoredPair, read_label
from cdpipe.timing import timed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.records import block_record, write_record

MAJORITY = 0.5  # of the votes; more than that is change


@dataclass(frozen=True, slots=True)
class Ensemble:
    """How members' probabilities become change.

    Attributes:
        key: Key of the result, see :func:`plan_ensemble`.
        members: (probability key, weight) of each member.
        threshold: Change is where the weighted mean is at least this.
        temperatures: What each member's logits are divided by before they are averaged; empty where all are 1.
        votes: Threshold of each member where they vote instead, else empty: change is then where members with more
            than half of the weight see change, and the ensemble's probability is their share.
    """

    key: str
    members: tuple[tuple[str, float], ...]
    threshold: float
    votes: tuple[float, ...] = ()
    temperatures: tuple[float, ...] = ()


def plan_ensemble(
    members: Sequence[tuple[str, float]],
    threshold: float,
    votes: Sequence[float] = (),
    temperatures: Sequence[float] = (),
) -> Ensemble:
    """An ensemble of (probability key, weight), whose key depends on the shares of the weights."""
    softened = tuple(temperatures) if any(each != 1.0 for each in temperatures) else ()
    total = sum(weight for _, weight in members)
    parts = {
        "of": [key for key, _ in members],
        "shares": [weight / total for _, weight in members],
        "threshold": threshold,
    }
    if votes:
        parts["votes"] = list(votes)
    if softened:
        parts["temperatures"] = list(softened)
    return Ensemble(content_key("change", parts), tuple(members), threshold, tuple(votes), softened)


def ensemble_threshold(ensemble: Ensemble) -> float:
    """What the ensemble's probability must reach to be change."""
    # float32 shares of a tie may add up to a trifle more than a half, but not to the next possible share
    return MAJORITY + 1e-5 if ensemble.votes else ensemble.threshold


def ensemble_block(
    workspace: Workspace,
    pair: StoredPair,
    key: BlockKey,
    ensemble: Ensemble,
    known: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> None:
    """Store one block of the ensemble's probability and of the change mask, from the members' stored ones.

    Args:
        workspace: Where the members' probabilities lie and the result goes.
        pair: The pair.
        key: The block.
        ensemble: The ensemble.
        known: By probability key, the block's probabilities that have just been stored and need not be read.
    """
    window = pair.window(key)
    probability, change = np.empty(window.shape, np.float32), np.empty(window.shape, np.uint8)
    threshold = ensemble_threshold(ensemble)
    for strip in strips_in(window, CHUNK):  # which stay in a core's cache
        rows, _ = strip.slices_in(window)
        at_hand = {member: values[rows] for member, values in known.items()}
        probability[rows] = combine(workspace, pair, ensemble, strip, at_hand)
        change[rows] = threshold_change(probability[rows], threshold)
    group = workspace.group("changes", pair.pair_id, ensemble.key)
    records = workspace.records("changes", pair.pair_id, ensemble.key)
    with timed("write"):
        stored = [
            write_block(group, "probability", window, probability),
            write_block(group, "change", window, change),
        ]
        write_record(block_record(records, key), workspace.root, dict(stored))


def combine(
    workspace: Workspace,
    pair: StoredPair,
    ensemble: Ensemble,
    window: Window,
    known: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> NDArray[np.float32]:
    """The ensemble's probability on a window: (height, width) float32, NaN where not observed.

    What ``known`` holds of the window by probability key is not read.
    """

    def read(member: str) -> NDArray[np.float32]:
        if member in known:
            return known[member].copy()
        with timed("read"):
            return read_window(
                open_array(workspace.group("probabilities", pair.pair_id, member), "probability"), window
            )

    return combine_members(ensemble, (read(member) for member, _ in ensemble.members))


def combine_members(ensemble: Ensemble, probabilities: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """An ensemble's probability, of those of its members in their order: each (height, width) float32, overwritten."""
    total = sum(weight for _, weight in ensemble.members)
    result: NDArray[np.float32] | None = None
    for number, given in enumerate(probabilities):
        values = soften(given, ensemble.temperatures[number]) if ensemble.temperatures else given
        if ensemble.votes:
            values = np.where(np.isnan(values), values, np.float32(is_change(values, ensemble.votes[number])))
        values *= np.float32(ensemble.members[number][1] / total)
        result = values if result is None else np.add(result, values, out=result)
    if result is None:
        raise ValueError("expected members")
    return np.minimum(result, np.float32(1), out=result)  # shares may add up to a trifle more


def ensemble_scores(workspace: Workspace, item: LabelledPair, ensemble: Ensemble) -> ScoreHistogram:
    """An ensemble's probability against a pair's label, over thresholds from 0 to 1."""
    return _sum_histograms(workspace, item, ensemble, score_histogram)


def ensemble_logits(workspace: Workspace, item: LabelledPair, ensemble: Ensemble) -> ScoreHistogram:
    """The same over logits, to fit a temperature to."""
    return _sum_histograms(workspace, item, ensemble, logit_histogram)


def _sum_histograms(
    workspace: Workspace,
    item: LabelledPair,
    ensemble: Ensemble,
    make: Callable[[NDArray[np.float32], NDArray[np.uint8]], ScoreHistogram],
) -> ScoreHistogram:
    windows = (item.pair.window(key) for key in item.blocks())
    parts = (
        make(combine(workspace, item.pair, ensemble, window), read_label(workspace, item, window)) for window in windows
    )
    return sum(parts, next(parts))


def sample_members(
    workspace: Workspace, item: LabelledPair, ensembles: Sequence[Ensemble], step: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Probabilities of several ensembles at every ``step``-th pixel of every ``step``-th row of a pair.

    Returns:
        (pixel, ensemble), and the label of each pixel; row by row of the scene, whatever its blocks.
    """
    pair = item.pair
    height, width = (-(-length // step) for length in pair.grid.shape)
    probabilities = np.empty((height, width, len(ensembles)), np.float32)
    labels = np.empty((height, width), np.uint8)
    for key in pair.blocks():
        window = pair.window(key)
        inside = slice(-window.row % step, None, step), slice(-window.col % step, None, step)
        rows = slice(-(-window.row // step), -(-window.stop_row // step))
        cols = slice(-(-window.col // step), -(-window.stop_col // step))
        labels[rows, cols] = read_label(workspace, item, window)[inside]
        for number, ensemble in enumerate(ensembles):
            probabilities[rows, cols, number] = combine(workspace, pair, ensemble, window)[inside]
    return probabilities.reshape(-1, len(ensembles)), labels.ravel()
