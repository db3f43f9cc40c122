"""The changes of a pair that are worth a look first: ranked objects, each with a chip of both dates."""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from cdpipe.formats.vectors import decode, read_features
from cdpipe.geo.crs import WGS84_WKT, on_earth
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.shapes import outline_in_degrees, outline_on_grid
from cdpipe.report import drawing
from cdpipe.report.drawing import Image, Limits, write_photo
from cdpipe.report.scene import Read, mean_of, shrink
from cdpipe.workspace.location import Location

PER_PAIR = 12  # objects of a pair that get a chip
CHIP = 160  # side of one of a chip's three pictures, in pixels
MIN_SIDE = 40  # of the ground that a chip shows, in pixels of the scene
ROOM = 1.8  # how much wider that is than the object
MAX_CORNERS = 400  # of an outline in the page: finer ones are simplified
DECIMALS = 7  # of degrees: a centimetre
LINE = 2  # between a chip's pictures
NUMBERS = ("area_m2", "pixels", "probability_mean", "probability_max", "agreement")


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


def read_top_changes(
    path: Location, grid: Grid, count: int = PER_PAIR, doubt_at: float | None = None
) -> list[TopChange]:
    """The best ranked objects of a pair, best first.

    Args:
        path: The pair's change objects, see :mod:`cdpipe.objects.features`.
        grid: The pair's, in whose CRS they are; in degrees where they are GeoJSON.
        count: How many at most; no more are held in memory.
        doubt_at: The threshold, where those come first that are most in doubt; None where the surest and largest do.
    """
    degrees = path.suffix == ".geojson" and on_earth(grid.crs)
    best: list[TopChange] = []
    for batch in read_features(path):
        columns = {name: batch.column(name).to_pylist() for name in ("id", *NUMBERS)}
        probability, area, agreement = (
            np.array(columns[name], float) for name in ("probability_mean", "area_m2", "agreement")
        )
        score = rank(probability, area)
        if doubt_at is not None:
            score = rank_doubt(probability, agreement, area, doubt_at)
        shapes = decode(batch)
        for at in np.argsort(-score, kind="stable")[:count]:
            numbers = {name: values[at] for name, values in columns.items()}
            best.append(_top_change(shapes[at], numbers, float(score[at]), grid, WGS84_WKT if degrees else grid.crs))
        best = sorted(best, key=lambda top: (-top.score, top.id))[:count]
    return best


def _top_change(shape: Any, numbers: dict[str, Any], score: float, grid: Grid, crs: str | None) -> TopChange:
    """An object whose shape is in a CRS."""
    flat = _simplify(shape)
    if crs is not None and grid.crs is not None and on_earth(grid.crs):
        flat = shapely.transform(outline_in_degrees(flat, crs), lambda degrees: np.round(degrees, DECIMALS))
        shape = shape if crs == grid.crs else outline_on_grid(shape, grid)
    else:
        numbers["area_m2"] = None
    return TopChange(**numbers, score=score, outline=shapely.geometry.mapping(flat), shape=shape)


def _simplify(shape: Any) -> Any:
    """An outline of at most about ``MAX_CORNERS`` corners, for pages stay light."""
    tolerance = np.sqrt(shapely.area(shape)) / 1000
    while shapely.get_num_coordinates(shape) > MAX_CORNERS and tolerance < np.sqrt(shapely.area(shape)):
        shape, tolerance = shapely.simplify(shape, tolerance), tolerance * 2
    return shape


def write_chip(path: Location, top: TopChange, grid: Grid, read: dict[str, Read], limits: tuple[Limits, Limits]) -> int:
    """Draw an object before, after, and in probability, side by side and outlined; returns the file's bytes.

    Args:
        path: WebP file to write.
        top: The object.
        grid: The scene's.
        read: ``(band, height, width)`` pixels of a window of ``before`` and ``after``, ``(height, width)`` of
            ``probability``; NaN where not observed.
        limits: How bright each date is shown.
    """
    bounds = shapely.bounds(top.shape)
    corners = [grid.row_col(x, y) for x in bounds[[0, 2]] for y in bounds[[1, 3]]]
    (top_row, left), (bottom, right) = np.min(corners, 0), np.max(corners, 0)
    side = max(MIN_SIDE, ROOM * (bottom - top_row), ROOM * (right - left))
    cell = max(1, int(np.ceil(side / CHIP)))
    side = int(np.ceil(side / cell)) * cell
    row = _within(round((top_row + bottom - side) / 2), side, grid.height)
    col = _within(round((left + right - side) / 2), side, grid.width)
    pictures = [
        *(_picture(_mean_cells(read[date], (row, col, side), grid, cell), limit) for date, limit in
          zip(("before", "after"), limits, strict=True)),
        _picture(_mean_cells(read["probability"], (row, col, side), grid, cell), None),
    ]  # fmt: skip
    for picture in pictures:
        _outline(picture, top.shape, grid, (row, col, side))
    line = np.full((CHIP, LINE, 3), 128, np.uint8)
    return write_photo(path, np.hstack([pictures[0], line, pictures[1], line, pictures[2]]))


def _within(start: int, side: int, length: int) -> int:
    """A start from which a square lies within the scene if it fits there, else in its middle."""
    return min(max(start, 0), length - side) if side <= length else (length - side) // 2


def _mean_cells(read: Read, square: tuple[int, int, int], grid: Grid, cell: int) -> NDArray[np.float64]:
    """Means over cells of a square that may reach beyond the scene, NaN where nothing is known; ``(band, n, n)``."""
    row, col, side = square

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

    sums = shrink(read_part, (side, side), cell)  # an object may be as large as the scene
    return mean_of(sums["sum"], sums["observed"])


def _picture(cells: NDArray[np.float64], limits: Limits | None) -> Image:
    missing = np.asarray(np.isnan(cells).any(axis=0))
    if limits is None:
        image = drawing.resize_nearest(drawing.probability_colors(cells[0]), (CHIP, CHIP))
    else:
        stretched = drawing.stretch_between(cells, limits)
        image = cv2.resize(stretched, (CHIP, CHIP), interpolation=cv2.INTER_LINEAR)
    return drawing.hatch(image, drawing.resize_nearest(missing, (CHIP, CHIP)))


def _outline(image: Image, shape: Any, grid: Grid, square: tuple[int, int, int]) -> None:
    """Draw an outline that is seen on bright and on dark ground."""
    row, col, side = square
    rings = []
    for part in shapely.get_parts(shape):
        for ring in (part.exterior, *part.interiors):
            positions = np.array([grid.row_col(x, y) for x, y in ring.coords])
            pixels = (positions[:, ::-1] - (col, row)) * (CHIP / side) - 0.5
            rings.append(np.rint(pixels * 16).astype(np.int32))
    for color, width in (((20, 20, 20), 3), ((255, 255, 255), 1)):
        cv2.polylines(image, rings, True, color, width, cv2.LINE_AA, shift=4)
