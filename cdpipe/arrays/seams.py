"""Seams of a change mask: whether it flips more often across some lines of a scene than across all others."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.metrics.counts import NOT_OBSERVED, Sums

SIGMAS = 1.96  # of a normal distribution: 95 % lie within


@dataclass(frozen=True, slots=True)
class SeamScore(Sums):
    """How often change flips across chosen lines, against what the other lines of the same scenes let expect.

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
    return np.stack([each.sum(1 - axis, dtype=np.int64) for each in (both, flips)])


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
        counts: See :func:`score_lines`.
        chosen: Likewise.
        phases: (lines,), the phase of every line.
    """
    kinds = (phases == phase for phase in np.unique(phases))
    return sum((score_lines(counts[:, kind], chosen[kind]) for kind in kinds), SeamScore())


def lattice_lines(length: int, places: Iterable[int]) -> NDArray[np.bool_]:
    """Mark lines by the pixel that they lie before.

    Args:
        length: Pixels along the axis.
        places: Pixels, of which those that are no line of the scene are left out.

    Returns:
        (length - 1,), in the order of :func:`count_flips`.
    """
    chosen = np.zeros(length + 1, np.bool_)
    chosen[[place for place in places if 0 <= place <= length]] = True
    return chosen[1:length]
