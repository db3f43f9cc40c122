"""What training will do with a catalog: which pairs or strips are train, val and test, and whether that is enough."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import CELL, count_tiles, tiles_in
from cdpipe.metrics.classes import CHANGED, IGNORE
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import PairReport
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.labels import count_cells, read_label
from cdpipe.pairs.splits import MIN_PLACES, Placed, ReadCells, Splits, find_splits
from cdpipe.pairs.strips import Counts, strip_name
from cdpipe.pairs.table import SPLITS

NAMED = 3  # pairs of a split that are named
FEW = 100  # changed pixels of a split: fewer are worth a word
FEW_MEANS = {
    "train": "few to learn from; label more, or start from a trained model (train.models.<name>.init_from)",
    "val": "few to choose an epoch and a threshold by; label more",
    "test": "so few that figures on them will say little; label more",
}


@dataclass(frozen=True, slots=True)
class SplitPart:
    """A pair, or a strip of one, in a split: what it is in words, and its labelled and changed pixels."""

    split: str
    name: str
    labelled: int
    changed: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What training will do.

    Attributes:
        parts: What each split has.
        made: How the splits were made, where the catalog does not give them; None where it does.
    """

    parts: tuple[SplitPart, ...] = ()
    made: str | None = None

    def lines(self) -> list[str]:
        """A line for each split or, where scenes are cut, strip; and how they were made."""
        lines = []
        for split in SPLITS:
            of_split = [part for part in self.parts if part.split == split]
            if not of_split:
                continue
            names = [part.name for part in of_split]
            shown = ", ".join(names) if len(names) <= NAMED else f"{', '.join(names[:NAMED])}, ..."
            labelled, changed = (sum(getattr(part, name) for part in of_split) for name in ("labelled", "changed"))
            counted = f"{len(names)} pairs: " if len(names) > 1 else ""
            lines.append(f"{split}: {counted}{shown}; {labelled:,} labelled pixels, {changed:,} of them changed")
        return [*lines, *([self.made] if self.made else [])]

    def doubts(self) -> list[str]:
        """Splits with too little change."""
        doubts = []
        for split, meaning in FEW_MEANS.items():
            changed = [part.changed for part in self.parts if part.split == split]
            if changed and 0 < sum(changed) < FEW:
                doubts.append(f"{split} has {sum(changed):,} changed pixel(s), {meaning}")
        return doubts


def look_ahead(config: Config, reports: Sequence[PairReport]) -> Outlook | None:
    """What training would do with pairs that were checked; None where nothing would be learned, or a pair has problems.

    Only where scenes have to be cut are pixels read.

    Raises:
        InputError: If there are too few places, and no scene can be cut.
    """
    labelled = [report for report in reports if report.pair.label is not None]
    if not labelled or not config.predict.takes_trained or any(report.problems for report in labelled):
        return None
    placed = [(report.pair, report.before.grid) for report in reports if report.before is not None]
    read = cells_of_files(config)
    splits = find_splits(config, placed, read)
    whole = {report.pair_id: (report.labelled or 0, report.changed or 0) for report in labelled}
    return describe_splits(config, placed, splits, whole, read)


def describe_splits(
    config: Config, placed: Placed, splits: Splits, whole: Mapping[str, tuple[int, int]], read_cells: ReadCells
) -> Outlook:
    """What each split has, in words and pixels.

    Args:
        config: The configuration.
        placed: Pairs with their grids.
        splits: What each split has.
        whole: Labelled and changed pixels of pairs that are not cut.
        read_cells: Counts the label of one that is.
    """
    parts = [SplitPart(split, name, *whole[name]) for name, split in splits.whole.items() if name in whole]
    for pair, grid in placed:
        strips = splits.strips.get(pair.pair_id, {})
        cells = read_cells(pair, grid) if strips else np.zeros((2, 0, 0), np.int64)
        for split, strip in strips.items():
            labelled, changed = _count_within(cells, strip)
            parts.append(SplitPart(split, f"{pair.pair_id} ({strip_name(strip, grid.shape)})", labelled, changed))
    return Outlook(tuple(parts), _how_made(config, placed, splits))


def _count_within(cells: Counts, strip: Window) -> tuple[int, int]:
    rows = slice(strip.row // CELL, count_tiles(strip.stop_row, CELL))
    cols = slice(strip.col // CELL, count_tiles(strip.stop_col, CELL))
    labelled, changed = cells[:, rows, cols].sum(axis=(1, 2)).tolist()
    return labelled, changed


def _how_made(config: Config, placed: Placed, splits: Splits) -> str | None:
    if splits.strips:
        why = "splits.by: strips" if config.splits.by == "strips" else f"fewer than {MIN_PLACES} places to split"
        if any(pair.split for pair, _ in placed) and config.splits.by != "strips":
            why = "no pair has the split val"
        return (
            f"{why}, so scenes are cut into strips with at least {config.train.patch} pixels (train.patch) in between; "
            "figures on these say what to expect on the rest of their scenes, and less of any other"
        )
    return None if any(pair.split for pair, _ in placed) else "made by places, since the catalog has no column split"


def cells_of_files(config: Config) -> Callable[[Pair, Grid], Counts]:
    """A function that counts a pair's label in 64-pixel cells, as ingest would, and each pair once."""
    known: dict[str, Counts] = {}

    def read(pair: Pair, grid: Grid) -> Counts:
        if pair.pair_id not in known:
            known[pair.pair_id] = _count_files(pair, grid, config)
        return known[pair.pair_id]

    return read


def _count_files(pair: Pair, grid: Grid, config: Config) -> Counts:
    if pair.label is None:
        raise InputError(f"pair {pair.pair_id}: has no label")
    rows, cols = (count_tiles(length, CELL) for length in grid.shape)
    cells = np.zeros((2, rows, cols), np.int64)
    for window in tiles_in(Window(0, 0, *grid.shape), config.align.block):
        label = read_label(pair.label, grid, window, config)
        if (label == IGNORE).all():
            continue
        for source, valid in pair.dates:
            label = np.where(read_on_grid(source, valid, grid, window, config)[1], label, np.uint8(IGNORE))
        counts = np.stack([count_cells(label != IGNORE), count_cells(label == CHANGED)])
        row, col = window.row // CELL, window.col // CELL
        cells[:, row : row + counts.shape[1], col : col + counts.shape[2]] = counts
    return cells
