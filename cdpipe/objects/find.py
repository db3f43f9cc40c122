"""Change objects of a scene: connected components found window by window, each with its figures and its outline.

Memory does not grow with the scene. What is found lies in files, one for each band of rows in which objects begin; only
of what crosses windows a few numbers are kept, until it is known what belongs together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import RefusedError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import count_tiles, tiles_in
from cdpipe.metrics.classes import CHANGED
from cdpipe.objects.components import Pieces, find_pieces, join_pieces, merge_figures
from cdpipe.objects.outlines import find_corners, trace_rings

Numbers = NDArray[np.int64]
ReadState = Callable[[Window], NDArray[np.uint8]]
ReadFigures = Callable[[Window], tuple[NDArray[np.float32], NDArray[np.uint8]]]

STEP = 2048  # side of the windows, in pixels
BAND_PIXELS = 1 << 22  # of a scene, whose objects are held at once: noise has one on every eighth pixel
_SEAM_CHUNK = 1 << 20  # corners read at once


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects of a band, by first pixel.

    Attributes:
        first: (objects,) first pixel, as the scene's are counted row by row.
        figures: (objects, 6) see :class:`cdpipe.objects.components.Pieces`.
        points: (vertices, 2) row and column of the rings' vertices, see :func:`cdpipe.objects.outlines.trace_rings`.
        ends: (rings,) where each ring ends.
        rings: (objects,) how many rings each has, the outer one first.
    """

    first: Numbers
    figures: Numbers
    points: Numbers
    ends: Numbers
    rings: Numbers


@dataclass(slots=True)
class _Survey:
    """What is known while windows go by: files, and the pieces that reach a window's border."""

    folder: Path
    shape: tuple[int, int]
    first: list[Numbers] = field(default_factory=list)
    figures: list[Numbers] = field(default_factory=list)
    touching: list[Numbers] = field(default_factory=list)
    count: int = 0
    whole: int = 0

    @property
    def band(self) -> int:
        """Rows of a band."""
        return max(1, BAND_PIXELS // self.shape[1])

    def spill(self, kind: str, first: Numbers, values: Numbers) -> None:
        """Append lines to the files of the bands in which their objects begin."""
        bands = first // self.shape[1] // self.band
        for band in np.unique(bands):
            chosen = bands == band
            lines = np.column_stack([first[chosen], values[chosen]])
            with (self.folder / f"{band}.{kind}").open("ab") as stream:
                stream.write(lines.tobytes())

    def load(self, band: int, kind: str, columns: int) -> Numbers:
        """Read lines back."""
        file = self.folder / f"{band}.{kind}"
        lines = np.fromfile(file, np.int64) if file.is_file() else np.zeros(0, np.int64)
        return lines.reshape(-1, columns)


def find_objects(
    shape: tuple[int, int],
    read_state: ReadState,
    read_figures: ReadFigures,
    folder: Path,
    step: int = STEP,
    most: int | None = None,
) -> Iterator[Objects]:
    """Find all 4-connected objects of a scene, in the order of their first pixels.

    What is yielded does not depend on the size of the windows.

    Args:
        shape: Rows and columns of the scene.
        read_state: Returns 0, 1, 255 of a window grown by one pixel on each side: (height + 2, width + 2).
        read_figures: Returns the probability of a window, and how many models see change.
        folder: For what does not fit into memory; made by the caller, and removed by it.
        step: Side of the windows in pixels.
        most: How many objects there may be; None for any number.

    Raises:
        RefusedError: If there are more; of very many that is known before the scene is read to its end.
    """
    survey = _Survey(folder, shape)
    above = np.zeros(shape[1] + 1, np.int64)  # ids along the row above the windows, from one pixel left of the scene
    below, left = above.copy(), np.zeros(0, np.int64)
    for window in tiles_in(Window(0, 0, *shape), step):
        if window.col == 0:
            above, below = below, np.zeros_like(above)
            left = np.zeros(window.height, np.int64)
        state = read_state(window)
        ids = np.zeros(window.shape, np.int64)
        if (state[1:-1, 1:-1] == CHANGED).any():
            pieces = find_pieces(state, *read_figures(window), window, shape[1])
            ids = _number(survey, pieces)[pieces.labels]
            if most is not None and survey.whole > most:
                raise too_many(most)
        _join(survey, ids, above[window.col : window.stop_col + 1], left, window)
        below[window.col + 1 : window.stop_col + 1] = ids[-1]
        left = ids[:, -1]
    _resolve_seams(survey)
    if most is not None and survey.whole > most:
        raise too_many(most)
    for band in range(count_tiles(shape[0], survey.band)):
        yield from _assemble(survey, band)


def too_many(most: int) -> RefusedError:
    """What is said of a scene with more objects than this."""
    return RefusedError(
        f"more than {most:,} change objects (vectors.max_objects), which looks like noise, so none are written; its "
        "rasters are. Raise predict.threshold, or leave out small objects with vectors.opening_m or "
        "vectors.min_area_m2, or allow more"
    )


def _number(survey: _Survey, pieces: Pieces) -> Numbers:
    """Ids of a window's pieces by label: those that are whole have ``-1 - first``, the others count from 1."""
    whole = pieces.whole
    parts = np.flatnonzero(~whole)
    ids = -1 - pieces.first
    ids[parts] = survey.count + 1 + np.arange(len(parts))
    survey.count += len(parts)
    survey.whole += len(pieces.first) - len(parts)
    survey.first.append(pieces.first[parts])
    survey.figures.append(pieces.figures[parts])
    survey.spill("objects", pieces.first[whole], pieces.figures[whole])
    return np.concatenate([[0], ids])


def _join(survey: _Survey, ids: Numbers, above: Numbers, left: Numbers, window: Window) -> None:
    """Note which pieces meet across the window's upper and left side, and all corners but those of the next windows."""
    bottom, right = (
        int(stop == length) for stop, length in zip((window.stop_row, window.stop_col), survey.shape, strict=True)
    )
    framed = np.zeros((window.height + 1 + bottom, window.width + 1 + right), np.int64)
    framed[1 : window.height + 1, 1 : window.width + 1] = ids
    framed[0, : window.width + 1] = above
    framed[1 : window.height + 1, 0] = left
    for one, other in ((framed[0], framed[1]), (framed[:, 0], framed[:, 1])):
        both = (one != 0) & (other != 0)
        both[0] = False  # the first pixel of either is that of another window's side
        survey.touching.append(np.unique(np.stack([one[both], other[both]], 1) - 1, axis=0))
    owners, corners = find_corners(framed, window.row, window.col)
    whole = owners < 0
    survey.spill("corners", -1 - owners[whole], corners[whole, None])
    with (survey.folder / "seams").open("ab") as stream:
        stream.write(np.column_stack([owners[~whole], corners[~whole]]).tobytes())


def _resolve_seams(survey: _Survey) -> None:
    """Bring what belongs to objects that cross windows to the other files."""
    if not survey.count:
        return
    first, figures = np.concatenate(survey.first), np.concatenate(survey.figures)
    roots = join_pieces(survey.count, survey.touching)
    first, figures = merge_figures(roots, first, figures)
    whole = np.flatnonzero(roots == np.arange(survey.count))
    survey.whole += len(whole)
    survey.spill("objects", first[whole], figures[whole])
    with (survey.folder / "seams").open("rb") as stream:
        while len(lines := np.fromfile(stream, np.int64, 2 * _SEAM_CHUNK).reshape(-1, 2)):
            survey.spill("corners", first[roots[lines[:, 0] - 1]], lines[:, 1:])


def _assemble(survey: _Survey, band: int) -> Iterator[Objects]:
    """The objects of a band, if there are any."""
    objects = survey.load(band, "objects", 7)
    if not len(objects):
        return
    objects = objects[np.argsort(objects[:, 0])]
    corners = survey.load(band, "corners", 2)
    points, ends, owners = trace_rings(corners[:, 0], corners[:, 1])
    _, rings = np.unique(owners, return_counts=True)
    yield Objects(objects[:, 0], objects[:, 1:], points, ends, rings)
