"""The changes of a pair that are worth a look first: ranked objects, each with a chip of both dates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from cdpipe.formats.vectors import decode, read_features
from cdpipe.geo.crs import on_earth
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.shapes import outline_in_degrees, outline_on_grid
from cdpipe.report import drawing
from cdpipe.report.drawing import Image, Limits, write_photo
from cdpipe.report.scene import Read, mean_of, shrink
from cdpipe.workspace.location import Location

PER_PAIR = 12  # objects of a pair that get a chip
TO_LABEL = 240  # likewise of few pairs together that nobody has labelled: as many as somebody may look at in an hour
MOST_PER_PAIR = 60  # of these
ON_PAGE = 1000  # objects that are outlined on its page
CHIP = 160  # side of one of a chip's three pictures, in pixels
MIN_SIDE = 40  # of the ground that a chip shows, in pixels of the scene as they are longest
ROOM = 1.8  # how much wider that is than the object
MAX_CORNERS = 400  # of an outline in a gallery: finer ones are simplified
MAP_CORNERS = 4000  # likewise on the map, where they are looked at closely
DECIMALS = 7  # of degrees: a centimetre
LINE = 2  # between a chip's pictures
NUMBERS = ("area_m2", "pixels", "probability_mean", "probability_max", "agreement")

Place = tuple[int, int, int, int]  # first row, first column, height and width in pixels


@dataclass(frozen=True, slots=True)
class TopChange:
    """An object to look at.

    Attributes:
        id: Its name within the pair.
        score: What it is ranked by, see :func:`rank` and :func:`rank_doubt`.
        area_m2: On the ground, None where that is not known.
        pixels: Of the scene.
        probability_mean: Over its pixels; so is ``probability_max``.
        agreement: Share of the models that see it, None where that is not known.
        outline: A GeoJSON geometry in longitude and latitude, or in columns and rows where there is no georeference.
        shape: In the grid's coordinates; in no JSON.
    """

    id: str
    score: float
    area_m2: float | None
    pixels: float | None
    probability_mean: float
    probability_max: float | None
    agreement: float | None
    outline: dict[str, Any]
    shape: Any

    def to_json(self) -> dict[str, Any]:
        """What a page shows of it."""
        return {key: value for key, value in asdict(self).items() if key != "shape"}


def rank(probability: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean probability times the square root of the area: neither specks nor doubtful giants come first.

    Args:
        probability: ``(objects,)``, 0 to 1.
        area: ``(objects,)`` in square metres.
    """
    return probability * np.sqrt(area)


def rank_doubt(
    probability: NDArray[np.float64], agreement: NDArray[np.float64], area: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    """How much a verdict would teach: that is uncertainty sampling (Settles 2009) and query by committee in one.

    An object counts for the nearer its mean probability is to the threshold, and the more evenly models are divided on
    it; and for the fourth root of its area, since a verdict labels all its pixels, but on giants is seldom the same for
    all of them.

    Args:
        probability: ``(objects,)``, mean over the object, 0 to 1.
        agreement: ``(objects,)``, share of the models that see it; NaN where that is not known.
        area: ``(objects,)`` in square metres.
        threshold: From which on probabilities are change.
    """
    near = 1 - (np.abs(probability - threshold) / max(threshold, 1 - threshold)).clip(0, 1)
    divided = 1 - np.abs(2 * agreement - 1)
    return (near + np.where(np.isnan(divided), near, divided)) / 2 * area**0.25


def chips_to_label(pairs: int) -> int:
    """How many objects of each of so many unlabelled pairs get a chip."""
    return min(max(TO_LABEL // max(pairs, 1), PER_PAIR), MOST_PER_PAIR)


@dataclass(frozen=True, slots=True)
class Ranked:
    """An object in its layer, with its rank's score.

    Attributes:
        numbers: Its id and :data:`NUMBERS`.
        score: What it is ranked by, see :func:`rank` and :func:`rank_doubt`.
        shape: In the grid's coordinates.
    """

    numbers: dict[str, Any]
    score: float
    shape: Any


def rank_changes(path: Location, grid: Grid, count: int, doubt_at: float | None = None) -> tuple[list[Ranked], int]:
    """The best ranked objects of a pair, best first, and how many there are in all.

    Where no areas are known, pixels count for them.

    Args:
        path: The pair's change objects, see :mod:`cdpipe.objects.features`.
        grid: The pair's, in whose CRS they are; in degrees where they are GeoJSON.
        count: How many at most; no more are held in memory.
        doubt_at: The threshold, where those come first that are most in doubt; None where the surest and largest do.
    """
    best: list[Ranked] = []
    total = 0
    for batch in read_features(path):
        total += len(batch)
        columns = {name: batch.column(name).to_pylist() for name in ("id", *NUMBERS)}
        probability, area, pixels, agreement = (
            np.array(columns[name], float) for name in ("probability_mean", "area_m2", "pixels", "agreement")
        )
        size = np.where(np.isnan(area), pixels, area)
        score = rank(probability, size)
        if doubt_at is not None:
            score = rank_doubt(probability, agreement, size, doubt_at)
        shapes = decode(batch)
        best += [
            Ranked({name: values[at] for name, values in columns.items()}, float(score[at]), shapes[at])
            for at in np.argsort(-score, kind="stable")[:count]
        ]
        best = sorted(best, key=lambda each: (-each.score, each.numbers["id"]))[:count]
    if path.suffix == ".geojson" and on_earth(grid.crs):
        best = [replace(each, shape=outline_on_grid(each.shape, grid)) for each in best]
    return best, total


def read_top_changes(
    path: Location, grid: Grid, count: int = PER_PAIR, doubt_at: float | None = None
) -> list[TopChange]:
    """The best ranked objects of a pair as a gallery shows them; see :func:`rank_changes`."""
    return [top_change(each, grid) for each in rank_changes(path, grid, count, doubt_at)[0]]


def top_change(each: Ranked, grid: Grid) -> TopChange:
    """An object as a gallery shows it."""
    numbers, flat = dict(each.numbers), _simplify(each.shape)[1]
    if on_earth(grid.crs):
        degrees = outline_in_degrees(flat, str(grid.crs))
        flat = shapely.transform(degrees, lambda points: np.round(points, DECIMALS))
    else:
        numbers["area_m2"] = None
    return TopChange(**numbers, score=each.score, outline=shapely.geometry.mapping(flat), shape=each.shape)


def outline_changes(changes: Sequence[Ranked], grid: Grid) -> list[dict[str, Any]]:
    """Objects as a page draws them: their figures, and their outlines in pixels.

    Args:
        changes: Best first.
        grid: The scene's.

    Returns:
        Of each ``id``, its figures, and ``rings``: of each ring the column and row of its first corner and then the
        steps from corner to corner, in quarters of a pixel.
    """
    return [
        {
            "id": each.numbers["id"],
            **{name: _short(each.numbers[name]) for name in NUMBERS},
            "rings": [_steps(ring, grid) for ring in _rings(_simplify(each.shape)[0])],
        }
        for each in changes
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _rings(shape: Any) -> list[NDArray[np.float64]]:
    rings = [ring for part in shapely.get_parts(shape) for ring in (part.exterior, *part.interiors)]
    return [shapely.get_coordinates(ring)[:-1] for ring in rings]


def _steps(ring: NDArray[np.float64], grid: Grid) -> list[int]:
    rows, cols = grid.row_col(ring[:, 0], ring[:, 1])
    quarters = np.rint(np.stack([cols, rows], 1) * 4).astype(np.int64)
    return [int(step) for step in np.diff(quarters, axis=0, prepend=0).ravel()]


@lru_cache(ON_PAGE)  # a page asks for both, and one outline of a million corners takes a second
def _simplify(shape: Any) -> tuple[Any, Any]:
    """An outline of at most about as many corners as the map has, and as a gallery has, for pages stay light."""
    tolerance, simple = np.sqrt(shapely.area(shape)) / 1000, []
    for most in (MAP_CORNERS, MAX_CORNERS):
        while shapely.get_num_coordinates(shape) > most and tolerance < np.sqrt(shapely.area(shape)):
            shape, tolerance = _coarser(shape, tolerance), tolerance * 2
        simple.append(shape)
    return simple[0], simple[1]


def _coarser(shape: Any, tolerance: float) -> Any:
    """A polygon without details smaller than a square of this side: noise has a hole at every other pixel."""
    parts = []
    for part in shapely.get_parts(shape):
        holes = np.array(part.interiors, object)
        parts.append(shapely.polygons(part.exterior, holes[shapely.area(shapely.polygons(holes)) >= tolerance**2]))
    return shapely.coverage_simplify([shapely.multipolygons(parts) if len(parts) > 1 else parts[0]], tolerance)[0]


def write_chip(
    path: Location,
    top: TopChange,
    grid: Grid,
    read: dict[str, Read],
    limits: tuple[Limits, Limits],
    aspect: float = 1.0,
) -> int:
    """Draw an object before, after, and in probability, side by side and outlined; returns the file's bytes.

    Args:
        path: JPEG file to write.
        top: The object.
        grid: The scene's.
        read: ``(band, height, width)`` pixels of a window of ``before`` and ``after``, ``(height, width)`` of
            ``probability``; NaN where not observed.
        limits: How bright each date is shown.
        aspect: A pixel's height for each width: what is drawn is a square on the ground.
    """
    bounds = shapely.bounds(top.shape)
    corners = [grid.row_col(x, y) for x in bounds[[0, 2]] for y in bounds[[1, 3]]]
    (top_row, left), (bottom, right) = np.min(corners, 0), np.max(corners, 0)
    # in widths of a pixel, or in heights where these are less
    high, wide = max(aspect, 1.0), max(1 / aspect, 1.0)
    side = max(MIN_SIDE, ROOM * (bottom - top_row) * high, ROOM * (right - left) * wide)
    cell = max(1, int(np.ceil(side / max(high, wide) / CHIP)))
    height, width = (int(np.ceil(side / longer / cell)) * cell for longer in (high, wide))
    row = _within(round((top_row + bottom - height) / 2), height, grid.height)
    col = _within(round((left + right - width) / 2), width, grid.width)
    place = row, col, height, width
    pictures = [
        *(_picture(_mean_cells(read[date], place, grid, cell), limit) for date, limit in
          zip(("before", "after"), limits, strict=True)),
        _picture(_mean_cells(read["probability"], place, grid, cell), None),
    ]  # fmt: skip
    for picture in pictures:
        _outline(picture, top.shape, grid, place)
    line = np.full((CHIP, LINE, 3), 128, np.uint8)
    return write_photo(path, np.hstack([pictures[0], line, pictures[1], line, pictures[2]]))


def _within(start: int, side: int, length: int) -> int:
    """A start from which a span lies within the scene if it fits there, else in its middle."""
    return min(max(start, 0), length - side) if side <= length else (length - side) // 2


def _mean_cells(read: Read, place: Place, grid: Grid, cell: int) -> NDArray[np.float64]:
    """Means over cells of a rectangle that may reach beyond the scene, NaN where nothing is known; ``(band, n, m)``."""
    row, col, height, width = place

    def read_part(part: Window) -> dict[str, NDArray[Any]]:
        top, left = row + part.row, col + part.col
        rows = slice(max(-top, 0), min(grid.height - top, part.height))
        cols = slice(max(-left, 0), min(grid.width - left, part.width))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return {}
        inside = Window(top + rows.start, left + cols.start, rows.stop - rows.start, cols.stop - cols.start)
        pixels = np.atleast_3d(read(inside).astype(np.float64).T).T
        known = np.full((len(pixels), *part.shape), np.nan)
        known[:, rows, cols] = pixels
        observed = np.isfinite(known)
        return {"sum": np.where(observed, known, 0), "observed": observed}

    sums = shrink(read_part, (height, width), cell)  # an object may be as large as the scene
    return mean_of(sums["sum"], sums["observed"])


def _picture(cells: NDArray[np.float64], limits: Limits | None) -> Image:
    missing = np.asarray(np.isnan(cells).any(axis=0))
    if limits is None:
        image = drawing.resize_nearest(drawing.probability_colors(cells[0]), (CHIP, CHIP))
    else:
        stretched = drawing.stretch_between(cells, limits)
        image = cv2.resize(stretched, (CHIP, CHIP), interpolation=cv2.INTER_LINEAR)
    return drawing.hatch(image, drawing.resize_nearest(missing, (CHIP, CHIP)))


def _outline(image: Image, shape: Any, grid: Grid, place: Place) -> None:
    """Draw an outline that is seen on bright and on dark ground."""
    row, col, height, width = place
    rings = []
    for ring in _rings(shape):
        rows, cols = grid.row_col(ring[:, 0], ring[:, 1])
        pixels = np.stack([(cols - col) / width, (rows - row) / height], 1) * CHIP - 0.5
        rings.append(np.rint(pixels * 16).astype(np.int32))
    for color, thickness in (((20, 20, 20), 3), ((255, 255, 255), 1)):
        cv2.polylines(image, rings, True, color, thickness, cv2.LINE_AA, shift=4)
