"""How far the change masks of a pair agree with each other: submissions, and the run's own change."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import NOT_OBSERVED, Counts, count_changes
from cdpipe.pairs.labels import IGNORE
from cdpipe.stages.evaluation import ENSEMBLE, Results, read_masks
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.workspace.layout import Workspace

# Of two masks, the second in the place of a label: tp changed in both, fp in the first alone, fn in the second alone.
Agreement = dict[tuple[str, str], Counts]


def compare_masks(workspace: Workspace, results: Results) -> Agreement:
    """Count where two masks of a pair say the same, for any two of its submissions and the run's change.

    Pixels not observed count nowhere, nor do those that the pair's label says to ignore.
    """
    pair = results.pair
    names = [name for name, _ in results.submissions]
    own = [] if results.change_key is None else [ENSEMBLE]
    found = {both: Counts() for both in combinations([*names, *own], 2)}
    for key in pair.blocks() if found else []:
        layers = _counted(workspace, results, pair.window(key))
        for first, second in found:
            found[first, second] += count_changes(layers[first], layers[second])
    return found


def _counted(workspace: Workspace, results: Results, window: Window) -> dict[str, NDArray[np.uint8]]:
    """Every mask of a pair in a window: 0, 1, 255 for what does not count."""
    masks = read_masks(workspace, results, window)
    if results.label_key is None:
        return masks
    group = workspace.group("labels", results.pair.pair_id, results.label_key)
    ignored = read_window(open_layer(group, "label"), window) == IGNORE
    return {name: np.where(ignored, np.uint8(NOT_OBSERVED), mask) for name, mask in masks.items()}


def tabulate_agreement(found: Mapping[str, Agreement]) -> list[dict[str, Any]]:
    """Rows of two masks each: those of every pair, then pooled over the pairs that have both.

    Args:
        found: By pair.

    Returns:
        Rows with pair_id (None where pooled), pairs (how many), first, second, iou (NaN where neither mask has
        change), differing (pixels) and counts.
    """
    rows = [_row(pair_id, both, [counts]) for pair_id, agreement in found.items() for both, counts in agreement.items()]
    compared = dict.fromkeys(both for agreement in found.values() for both in agreement)
    pooled = {both: [agreement[both] for agreement in found.values() if both in agreement] for both in compared}
    return rows + [_row(None, both, counts) for both, counts in pooled.items()]


def _row(pair_id: str | None, both: tuple[str, str], counts: list[Counts]) -> dict[str, Any]:
    total = sum(counts, Counts())
    return {
        "pair_id": pair_id,
        "pairs": len(counts),
        "first": both[0],
        "second": both[1],
        "iou": total.iou,
        "differing": total.fp + total.fn,
        "both": total.tp,
        "only_first": total.fp,
        "only_second": total.fn,
        "neither": total.tn,
    }
