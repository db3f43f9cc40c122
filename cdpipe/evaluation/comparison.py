"""Two runs of the same pairs: where their change differs, who is right there, and what that means for the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.evaluation.scores import ENSEMBLE, Results, pair_of, read_masks
from cdpipe.evaluation.tables import UNSPLIT
from cdpipe.formats import palette
from cdpipe.formats.cog import Band, write_cog
from cdpipe.formats.palette import opaque
from cdpipe.geo.grid import Window
from cdpipe.metrics.classes import IGNORE, NOT_OBSERVED
from cdpipe.metrics.counts import Counts, count_changes
from cdpipe.metrics.intervals import Values, intervals_over_pairs, pixel_figures
from cdpipe.pairs.table import SPLITS
from cdpipe.runs.manifest import Manifest, ManifestPair
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

NEITHER, BOTH, ONLY_A, ONLY_B = range(4)
SAME, A_RIGHT, B_RIGHT = range(3)
DIFFERENCE_COLORS = {
    NEITHER: opaque(palette.UNCHANGED),
    BOTH: opaque(palette.CHANGED),
    ONLY_A: opaque(palette.FIRST_RUN),
    ONLY_B: opaque(palette.SECOND_RUN),
    NOT_OBSERVED: palette.TRANSPARENT,
}
RIGHT_COLORS = {
    SAME: opaque(palette.UNCHANGED),
    A_RIGHT: opaque(palette.FIRST_RUN),
    B_RIGHT: opaque(palette.SECOND_RUN),
    NOT_OBSERVED: palette.TRANSPARENT,
}
COMPARED = ("iou", "f1")  # figures of both runs and their difference

Bytes = NDArray[np.uint8]
# Of two masks, the second in the place of a label: tp changed in both, fp in the first alone, fn in the second alone.
Agreement = dict[tuple[str, str], Counts]


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """A pair that both runs have, with equal imagery and label.

    Attributes:
        workspaces: Of both runs.
        pair: The pair, as the first has it.
        label_key: Key of its label, None without one.
        change_keys: Keys of the runs' change.
        parts: Split, or ``unsplit``, of the pair; or of each strip with the pixels that it has; by the ids they go by.
    """

    workspaces: tuple[Workspace, Workspace]
    pair: StoredPair
    label_key: str | None
    change_keys: tuple[str, str]
    parts: Mapping[str, tuple[str, Window | None]]


@dataclass(frozen=True, slots=True)
class PairDifference:
    """How two runs differ on a pair.

    Attributes:
        pixels: Counts of neither, both, only A, only B.
        scores: Counts of both runs against the label; None without one.
    """

    pixels: tuple[int, int, int, int]
    scores: tuple[Counts, Counts] | None


@dataclass(slots=True)
class Shared:
    """What two runs have in common: pairs of both manifests by id, and why others are left out."""

    pairs: list[tuple[ManifestPair, ManifestPair]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def shared_pairs(first: Manifest, second: Manifest) -> Shared:
    """The pairs that two runs can be compared on: the same imagery and the same label."""
    shared = Shared()
    ours, theirs = ({pair.pair_id: pair for pair in run.pairs} for run in (first, second))
    for pair_id in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(pair_id), theirs.get(pair_id)
        if one is None or other is None:
            shared.left_out[pair_id] = f"only in run {'A' if other is None else 'B'}"
        elif one.pair != other.pair:
            shared.left_out[pair_id] = "its imagery is not the same"
        elif one.label != other.label:
            shared.left_out[pair_id] = "its label is not the same"
        elif one.strips != other.strips:
            shared.left_out[pair_id] = "its strips are not the same"
        else:
            shared.pairs.append((one, other))
    return shared


def compare_pair(job: ComparedPair, within: Window | None = None) -> PairDifference:
    """Count block by block; pixels that either run did not observe, or outside of a strip, count nowhere."""
    pixels = np.zeros(NOT_OBSERVED + 1, np.int64)
    scores = [Counts(), Counts()]
    for key in job.pair.blocks():
        window = job.pair.window(key)
        if within is not None:
            common = window.intersect(within)
            if common is None:
                continue
            window = common
        pixels += np.bincount(_difference(job, window).ravel(), minlength=len(pixels))
        if job.label_key is not None:
            label = _read_label(job, window)
            for number, change in enumerate(_changes(job, window)):
                scores[number] += count_changes(change, label)
    neither, both, only_a, only_b = pixels[:4].tolist()
    return PairDifference((neither, both, only_a, only_b), (scores[0], scores[1]) if job.label_key else None)


def write_maps(folder: Location, job: ComparedPair) -> None:
    """``<pair>_difference.tif``, and with a label ``<pair>_right.tif``: where they differ, and who is right there."""
    pair = job.pair
    text = "0 neither, 1 both, 2 only run A, 3 only run B, 255 not observed"
    band = Band("uint8", NOT_OBSERVED, text, DIFFERENCE_COLORS)
    write_cog(folder / f"{pair.pair_id}_difference.tif", lambda window: _difference(job, window), pair.grid, band)
    if job.label_key is not None:
        text = "0 both say the same, 1 run A is right, 2 run B is right, 255 not judged"
        band = Band("uint8", NOT_OBSERVED, text, RIGHT_COLORS)
        write_cog(folder / f"{pair.pair_id}_right.tif", lambda window: _right(job, window), pair.grid, band)


def _changes(job: ComparedPair, window: Window) -> tuple[Bytes, Bytes]:
    """Change of both runs, 255 where either did not observe."""
    first, second = (
        read_window(open_array(workspace.group("changes", job.pair.pair_id, key), "change"), window)
        for workspace, key in zip(job.workspaces, job.change_keys, strict=True)
    )
    unseen = (first == NOT_OBSERVED) | (second == NOT_OBSERVED)
    return np.where(unseen, np.uint8(NOT_OBSERVED), first), np.where(unseen, np.uint8(NOT_OBSERVED), second)


def _read_label(job: ComparedPair, window: Window) -> Bytes:
    group = job.workspaces[0].group("labels", job.pair.pair_id, str(job.label_key))
    return np.asarray(read_window(open_array(group, "label"), window))


def _difference(job: ComparedPair, window: Window) -> Bytes:
    first, second = _changes(job, window)
    kinds = np.array([[NEITHER, ONLY_B], [ONLY_A, BOTH]], np.uint8)
    return np.where(first == NOT_OBSERVED, np.uint8(NOT_OBSERVED), kinds[first & 1, second & 1])


def _right(job: ComparedPair, window: Window) -> Bytes:
    first, second = _changes(job, window)
    label = _read_label(job, window)
    right = np.where(first == label, np.uint8(A_RIGHT), np.uint8(B_RIGHT))
    judged = np.where(first == second, np.uint8(SAME), right)
    return np.where((first == NOT_OBSERVED) | (label > 1), np.uint8(NOT_OBSERVED), judged)


def tabulate_differences(differences: Mapping[str, PairDifference], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of pairs, those that differ most first, then pooled rows of each split with intervals.

    Returns:
        ``split``, ``pair_id`` (None where pooled), ``pairs``, ``neither``, ``both``, ``only_a``, ``only_b`` (pixels);
        of labelled pairs, else None, ``iou_a``, ``iou_b``, ``iou_difference`` (B minus A), the same of F1, and in
        pooled rows of at least two pairs ``iou_difference_low`` and ``_high``, a paired bootstrap over pairs.
    """
    single = [_difference_row(splits[pair_id], pair_of(pair_id), [pair]) for pair_id, pair in differences.items()]
    single.sort(key=lambda row: (-abs(row["iou_difference"] or 0.0), -row["only_a"] - row["only_b"], row["pair_id"]))
    pooled = []
    for split in (*SPLITS, UNSPLIT):
        chosen = [pair for pair_id, pair in sorted(differences.items()) if splits[pair_id] == split]
        if chosen:
            pooled.append(_difference_row(split, None, chosen))
    return single + pooled


def _difference_row(split: str, pair_id: str | None, differences: Sequence[PairDifference]) -> dict[str, Any]:
    pixels = np.array([pair.pixels for pair in differences]).sum(axis=0).tolist()
    row: dict[str, Any] = {"split": split, "pair_id": pair_id, "pairs": len(differences)}
    row |= dict(zip(("neither", "both", "only_a", "only_b"), pixels, strict=True))
    scores = [pair.scores for pair in differences if pair.scores is not None]
    values = np.array([[(c.tp, c.fp, c.fn, c.tn) for c in both] for both in scores], np.float64).reshape(-1, 8)
    figures = {name: float(value) for name, value in _paired(values.sum(axis=0)).items()} if scores else {}
    bounds = intervals_over_pairs(values, _paired) if scores and pair_id is None else {}
    for name in (f"{figure}_{what}" for figure in COMPARED for what in ("a", "b", "difference")):
        row[name] = None if np.isnan(figures.get(name, np.nan)) else figures[name]
        if name.endswith("difference"):
            row[f"{name}_low"], row[f"{name}_high"] = bounds.get(name) or (None, None)
    return row


def _paired(sums: Values) -> dict[str, Values]:
    """Figures of both runs, and B's minus A's, from (..., 8) counts: the same pairs are drawn for both."""
    first, second = pixel_figures(sums[..., :4]), pixel_figures(sums[..., 4:])
    figures: dict[str, Values] = {}
    for name in COMPARED:
        difference = second[name] - first[name]
        figures |= {f"{name}_a": first[name], f"{name}_b": second[name], f"{name}_difference": difference}
    return figures


# How far the change masks of a pair agree with each other: submissions, and the run's own change.


def compare_masks(workspace: Workspace, results: Results) -> Agreement:
    """Count where two masks of a pair say the same, for any two of its submissions and the run's change.

    Pixels not observed count nowhere, nor do those that the pair's label says to ignore.
    """
    pair = results.pair
    names = [name for name, _ in results.submissions]
    own = [] if results.change_key is None else [ENSEMBLE]
    agreement = {both: Counts() for both in combinations([*names, *own], 2)}
    for key in pair.blocks() if agreement else []:
        layers = _counted(workspace, results, pair.window(key))
        for first, second in agreement:
            agreement[first, second] += count_changes(layers[first], layers[second])
    return agreement


def _counted(workspace: Workspace, results: Results, window: Window) -> dict[str, NDArray[np.uint8]]:
    """Every mask of a pair in a window: 0, 1, 255 for what does not count."""
    masks = read_masks(workspace, results, window)
    if results.label_key is None:
        return masks
    group = workspace.group("labels", results.pair.pair_id, results.label_key)
    ignored = read_window(open_array(group, "label"), window) == IGNORE
    return {name: np.where(ignored, np.uint8(NOT_OBSERVED), mask) for name, mask in masks.items()}


def tabulate_agreement(agreements: Mapping[str, Agreement]) -> list[dict[str, Any]]:
    """Rows of two masks each: those of every pair, then pooled over the pairs that have both.

    Args:
        agreements: By pair.

    Returns:
        Rows with pair_id (None where pooled), pairs (how many), first, second, iou (NaN where neither mask has
        change), differing (pixels) and counts.
    """
    rows = [
        _agreement_row(pair_id, both, [counts])
        for pair_id, agreement in agreements.items()
        for both, counts in agreement.items()
    ]
    compared = dict.fromkeys(both for agreement in agreements.values() for both in agreement)
    pooled = {both: [agreement[both] for agreement in agreements.values() if both in agreement] for both in compared}
    return rows + [_agreement_row(None, both, counts) for both, counts in pooled.items()]


def _agreement_row(pair_id: str | None, both: tuple[str, str], counts: list[Counts]) -> dict[str, Any]:
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
