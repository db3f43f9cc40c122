"""Audits of a pair's stored results that need no label: seams, disagreement of models, shift between the dates."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, spread_tiles
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.metrics.counts import add_fields, threshold_change
from cdpipe.metrics.intervals import SIGMAS
from cdpipe.pairs.coregistration import SIDE, Shift, measure_shift
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.workspace.layout import Workspace

SHIFT_WINDOWS = 25
PHASES = 2  # lines that are compared with each other: even or odd ones
STEPS = 2**24  # of a probability: differences are summed as whole numbers, so that nothing depends on blocks


@dataclass(frozen=True, slots=True)
class SeamScore:
    """Seams of a change mask: how often it flips across chosen lines, against what all others let expect.

    Scores of several scenes add up with ``+``: each scene is compared with itself alone.

    Attributes:
        lines: How many lines were chosen.
        neighbours: Pairs of neighbouring pixels across them, both observed.
        flips: Of these, how many differ.
        expected: How many would, if the chosen lines were like the others.
        variance: Of ``flips - expected``, from how far the other lines differ among themselves.
    """

    lines: int = 0
    neighbours: int = 0
    flips: int = 0
    expected: float = 0.0
    variance: float = 0.0

    __add__ = add_fields

    @property
    def score(self) -> float:
        """Flips for each that was expected: 1 without seams, NaN where none was expected."""
        return self.flips / self.expected if self.expected else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Where the score lies with 95 % confidence."""
        reach = SIGMAS * self.variance**0.5 / self.expected if self.expected else float("nan")
        return max(0.0, self.score - reach), self.score + reach

    @property
    def z(self) -> float:
        """Standard deviations that the flips lie above what was expected."""
        return (self.flips - self.expected) / self.variance**0.5 if self.variance else float("nan")


def count_flips(mask: NDArray[np.uint8], axis: int) -> NDArray[np.int64]:
    """Count neighbours, and those of them that differ, across every line between pixels along an axis.

    Args:
        mask: (height, width): 0, 1, and 255 where not observed, which counts nowhere.
        axis: 0 for the lines between rows, 1 for those between columns.

    Returns:
        (2, lines): neighbours and flips; line k lies before pixel k + 1.
    """
    first, second = (mask[:-1], mask[1:]) if axis == 0 else (mask[:, :-1], mask[:, 1:])
    both = (first != NOT_OBSERVED) & (second != NOT_OBSERVED)
    flips = both & (first != second)
    return np.stack([pixels.sum(1 - axis, dtype=np.int64) for pixels in (both, flips)])


def score_lines(counts: NDArray[np.int64], chosen: NDArray[np.bool_]) -> SeamScore:
    """Compare chosen lines with all others.

    The flips of one line hang together (an object's edge lies along it), so that what chance does is told by how
    the lines differ, as for a ratio estimated from clusters (Cochran, Sampling Techniques, 1977, chapter 6), not by
    the number of pixels.

    Args:
        counts: (2, lines): neighbours and flips of every line; see :func:`count_flips`.
        chosen: (lines,), True for those that may be seams.
    """
    (near, flips), (near_else, flips_else) = counts[:, chosen], counts[:, ~chosen]
    neighbours, others = int(near.sum()), int(near_else.sum())
    if not neighbours or not others:
        return SeamScore()
    rate = int(flips_else.sum()) / others
    squares = float((near_else.astype(np.float64) ** 2).sum())
    spread = float(((flips_else - rate * near_else) ** 2).sum()) / squares
    own = float((near.astype(np.float64) ** 2).sum())
    variance = spread * (own + squares * (neighbours / others) ** 2)
    return SeamScore(int(chosen.sum()), neighbours, int(flips.sum()), rate * neighbours, variance)


def score_in_phase(counts: NDArray[np.int64], chosen: NDArray[np.bool_], phases: NDArray[np.integer]) -> SeamScore:
    """The same where each line is compared only with those of its own phase.

    A decoder doubles its resolution step by step, and so its masks flip less often across even lines than across odd
    ones (measured: by up to a half), on which no edge of a patch may lie.

    Args:
        counts: (2, lines), see :func:`score_lines`.
        chosen: (lines,), likewise.
        phases: (lines,), the phase of every line.
    """
    kinds = (phases == phase for phase in np.unique(phases))
    return sum((score_lines(counts[:, kind], chosen[kind]) for kind in kinds), SeamScore())


def grid_lines(length: int, places: Iterable[int]) -> NDArray[np.bool_]:
    """Mark lines by the pixel that they lie before.

    Args:
        length: Pixels along the axis.
        places: Pixels, of which those that are no line of the scene are left out.

    Returns:
        (length - 1,), True for the marked ones, in the order of :func:`count_flips`.
    """
    chosen = np.zeros(length + 1, np.bool_)
    chosen[[place for place in places if 0 <= place <= length]] = True
    return chosen[1:length]


@dataclass(frozen=True, slots=True)
class AuditJob:
    """A pair with what a run stored of it.

    Attributes:
        workspace: Where it lies.
        pair: The pair.
        change_key: Key of its change.
        members: Name, probability key and threshold of each model.
        patches: (side, stride) of the patches that the models' probabilities are made of.
    """

    workspace: Workspace
    pair: StoredPair
    change_key: str
    members: tuple[tuple[str, str, float], ...]
    patches: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Seams:
    """Seam scores across the edges of patches, across those of blocks, and across both together."""

    patches: SeamScore
    blocks: SeamScore
    both: SeamScore


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two probabilities of the same pixels are apart; those of disjoint pixels add up with ``+``.

    Attributes:
        pixels: Pixels observed.
        flips: Of these, how many are change in one alone.
        steps: Sum of the absolute differences, in steps of 2**-24.
    """

    pixels: int = 0
    flips: int = 0
    steps: int = 0

    __add__ = add_fields


@dataclass(frozen=True, slots=True)
class StoredAudit:
    """What the stored results of a pair say of themselves.

    Attributes:
        seams: Of the change.
        pixels: Pixels observed.
        split: Of these, how many are change for some models and not for others.
        between: Any two models.
        shift: Of the second date as it is stored, None where no window is observed well enough.
    """

    seams: Seams
    pixels: int
    split: int
    between: Mapping[tuple[str, str], Difference]
    shift: Shift | None


def audit_stored(job: AuditJob) -> StoredAudit:
    """Audit a pair's stored results, block by block; pixels not observed count nowhere.

    Raises:
        IntegrityError: If anything stored is missing or damaged.
    """
    pixels = split = 0
    between = {(first[0], second[0]): Difference() for first, second in combinations(job.members, 2)}
    for key in job.pair.blocks() if between else ():
        layers = _read_members(job, job.pair.window(key))
        masks = np.stack([threshold_change(layers[name], threshold) for name, _, threshold in job.members])
        observed = ~np.isnan(layers[job.members[0][0]])
        pixels += int(observed.sum())
        split += int((observed & (masks != masks[0]).any(0)).sum())
        for first, second in combinations(range(len(masks)), 2):
            names = job.members[first][0], job.members[second][0]
            between[names] += measure_difference(
                (layers[names[0]], layers[names[1]]), (masks[first], masks[second]), observed
            )
    return StoredAudit(_score_seams(job), pixels, split, between, _stored_shift(job))


def measure_difference(
    probabilities: tuple[NDArray[np.float32], NDArray[np.float32]],
    masks: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    counted: NDArray[np.bool_],
) -> Difference:
    """Compare two probabilities and the change that is made of each.

    Args:
        probabilities: Each (height, width), 0 to 1 where counted.
        masks: Each (height, width): 0 or 1 where counted.
        counted: (height, width), True for the pixels to compare.
    """
    apart = np.abs(probabilities[0][counted].astype(np.float64) - probabilities[1][counted])
    return Difference(
        int(counted.sum()),
        int((counted & (masks[0] != masks[1])).sum()),
        int(np.rint(apart * STEPS).astype(np.int64).sum()),
    )


def _read_members(job: AuditJob, window: Window) -> dict[str, NDArray[np.float32]]:
    groups = {name: job.workspace.group("probabilities", job.pair.pair_id, key) for name, key, _ in job.members}
    return {name: read_window(open_array(group, "probability"), window) for name, group in groups.items()}


def _score_seams(job: AuditJob) -> Seams:
    counts = _count_lines(job)
    shape = job.pair.grid.shape
    patch_grids = [PatchGrid(shape, patch, stride) for patch, stride in job.patches]
    patches = np.concatenate([grid_lines(length, _patch_edges(patch_grids, axis)) for axis, length in enumerate(shape)])
    blocks = np.concatenate([grid_lines(length, range(0, length, job.pair.block)) for length in shape])
    phases = np.concatenate([np.arange(1, length) % PHASES for length in shape])
    either = patches | blocks

    def score(chosen: NDArray[np.bool_]) -> SeamScore:
        used = chosen | ~either  # each kind against the lines of neither
        return score_in_phase(counts[:, used], chosen[used], phases[used])

    return Seams(score(patches), score(blocks), score(either))


def _patch_edges(patch_grids: Iterable[PatchGrid], axis: int) -> Iterator[int]:
    """First pixel of every patch along an axis, and the one after its last."""
    for patch_grid in patch_grids:
        for origin in patch_grid.origins(axis):
            yield from (origin, origin + patch_grid.patch)


def _count_lines(job: AuditJob) -> NDArray[np.int64]:
    """(2, lines): neighbours and flips across the lines between rows, then across those between columns."""
    layer = open_array(job.workspace.group("changes", job.pair.pair_id, job.change_key), "change")
    counts = [np.zeros((2, length - 1), np.int64) for length in job.pair.grid.shape]
    for key in job.pair.blocks():
        own = job.pair.window(key)
        # the pixels above and left of the block belong to its first lines
        up, left = min(own.row, 1), min(own.col, 1)
        wide = Window(own.row - up, own.col - left, own.height + up, own.width + left)
        mask = read_window(layer, wide)
        counts[0][:, wide.row : wide.stop_row - 1] += count_flips(mask[:, left:], 0)
        counts[1][:, wide.col : wide.stop_col - 1] += count_flips(mask[up:], 1)
    return np.concatenate(counts, 1)


def _stored_shift(job: AuditJob) -> Shift | None:
    def read(window: Window) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.bool_]]:
        observed = read_observed(job.workspace, job.pair, window)
        return *read_dates(job.workspace, job.pair, window), observed

    return measure_shift(read, spread_tiles(job.pair.grid.shape, SIDE, SHIFT_WINDOWS))
