"""A stratified random sample of a run's pixels: strata from the change mask, points drawn the same for any block size.

A point stands for a pixel. Within a stratum pixels are drawn with probabilities proportional to their area, without
replacement; so they stay right where pixels of different pairs or latitudes differ in area.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from cdpipe.errors import InputError, IntegrityError
from cdpipe.formats.vectors import GEOPACKAGE
from cdpipe.geo.crs import WGS84_WKT, on_earth, transform_by_gdal
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.ground import has_areas, pixel_metres, row_areas
from cdpipe.geo.tilings import grow
from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED
from cdpipe.runs.styles import write_style
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.disk import sync_folder
from cdpipe.workspace.files import read_sealed, write_sealed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here

STRATA = ("no change", "change", "near change")
NEAR = 2  # of the strata, besides unchanged and changed
MAPPED = (0, 1, 0)  # the map's class in each stratum
ANSWERS = {"0": 0, "1": 1, "unsure": None}
MOVED = 0.01  # of a pixel: points that lie further off were moved

Pixels = list[tuple[int, int, int]]  # stratum, row, column


@dataclass(frozen=True, slots=True)
class Population:
    """Where a sample of a pair is drawn from.

    Attributes:
        workspace: The store.
        pair: The pair.
        change_key: Key of its change.
        buffer: How far the stratum around change reaches, in metres (without a CRS in pixels); 0 for none.
    """

    workspace: Workspace
    pair: StoredPair
    change_key: str
    buffer: float

    @property
    def margin(self) -> tuple[int, int]:
        """The buffer in rows and columns."""
        width, height = pixel_metres(self.pair.grid) or (1.0, 1.0)
        return round(self.buffer / height), round(self.buffer / width)


@dataclass(frozen=True, slots=True)
class StrataSizes:
    """Pixels and area (square metres, without a CRS pixels) of a pair's strata."""

    pixels: tuple[int, ...]
    areas: tuple[float, ...]


def measure_strata(population: Population) -> StrataSizes:
    """Count a pair's strata block by block; pixels not observed are in none."""
    counts, areas = _count_rows(population), _row_areas(population.pair)
    return StrataSizes(tuple(counts.sum(axis=1).tolist()), tuple((counts * areas).sum(axis=1).tolist()))


def share_out(sizes: list[StrataSizes], stratum: int, points: int, seed: int) -> list[int]:
    """How many points of a stratum each pair gets: drawn in proportion to area, never more than it has pixels."""
    random = np.random.default_rng([seed, stratum])
    capacity = np.array([of_pair.pixels[stratum] for of_pair in sizes])
    areas = np.array([of_pair.areas[stratum] for of_pair in sizes])
    given = np.zeros(len(sizes), np.int64)
    wanted = min(points, int(capacity.sum()))
    while (missing := wanted - int(given.sum())) > 0:
        open_areas = np.where(given < capacity, areas, 0.0)
        drawn = random.choice(len(sizes), missing, p=open_areas / open_areas.sum())
        given = np.minimum(given + np.bincount(drawn, minlength=len(sizes)), capacity)
    return [int(number) for number in given]


def draw_pixels(population: Population, points: tuple[int, ...], seed: tuple[int, int]) -> Pixels:
    """Draw so many pixels of each stratum of a pair.

    Args:
        population: The pair.
        points: Of each stratum, at most its pixels.
        seed: Of the sample, and the pair's position in it.
    """
    counts, areas = _count_rows(population), _row_areas(population.pair)
    drawn: Pixels = []
    for stratum, wanted in enumerate(points):
        random = np.random.default_rng([*seed, stratum])
        for row, place in _draw_places(random, counts[stratum], areas, wanted):
            strata = _read_strata(population, Window(row, 0, 1, population.pair.grid.width))[0]
            drawn.append((stratum, row, int(np.flatnonzero(strata == stratum)[place])))
    return drawn


def _draw_places(
    random: np.random.Generator, counts: NDArray[np.int64], areas: NDArray[np.float64], wanted: int
) -> list[tuple[int, int]]:
    """Row, and position among the stratum's pixels of that row, of distinct pixels; ordered by both."""
    ends = np.cumsum(counts)
    if 2 * wanted > (int(ends[-1]) if len(ends) else 0):  # drawing until all differ would take long
        ranks = random.permutation(int(ends[-1]))[:wanted]
        rows = np.searchsorted(ends, ranks, side="right")
        return sorted(zip(rows.tolist(), (ranks - ends[rows] + counts[rows]).tolist(), strict=True))
    reach = np.cumsum(counts * areas)
    drawn: dict[tuple[int, int], None] = {}  # a set that keeps its order
    while len(drawn) < wanted:
        row = int(np.searchsorted(reach, random.random() * reach[-1], side="right"))
        drawn[row, int(random.integers(counts[row]))] = None
    return sorted(drawn)


def _count_rows(population: Population) -> NDArray[np.int64]:
    """Pixels of each stratum in every row: (stratum, height)."""
    pair = population.pair
    counts = np.zeros((len(STRATA), pair.grid.height), np.int64)
    for key in pair.blocks():
        window = pair.window(key)
        strata = _read_strata(population, window)
        for stratum in range(len(STRATA)):
            counts[stratum, window.slices[0]] += (strata == stratum).sum(axis=1)
    return counts


def _read_strata(population: Population, window: Window) -> NDArray[np.uint8]:
    """Stratum of every pixel of a window, 255 where not observed."""
    pair, (rows, cols) = population.pair, population.margin
    group = population.workspace.group("changes", pair.pair_id, population.change_key)
    halo = grow(window, max(rows, cols), pair.grid.shape)
    change = read_window(open_array(group, "change"), halo)
    inner = window.slices_in(halo)
    if not (rows or cols):
        return np.asarray(change[inner])
    box = np.ones((2 * rows + 1, 2 * cols + 1), np.uint8)
    near = cv2.dilate((change == CHANGED).astype(np.uint8), box, borderType=cv2.BORDER_CONSTANT, borderValue=0)[inner]
    own = change[inner]
    return np.where((own != NOT_OBSERVED) & (own != CHANGED) & (near > 0), np.uint8(NEAR), own)


def _row_areas(pair: StoredPair) -> NDArray[np.float64]:
    return row_areas(pair.grid) if has_areas(pair.grid) else np.ones(pair.grid.height)


# A sample of points as a GeoPackage to label in a GIS, and beside it, sealed, what the labeller must not see.


@dataclass(frozen=True, slots=True)
class SamplePoint:
    """A point: its number, its pair, its stratum, and the coordinates of its pixel's middle in the file's CRS."""

    number: int
    pair_id: str
    stratum: int
    row: int
    col: int
    x: float
    y: float


def place_points(points: Sequence[tuple[str, int, int, int]], grids: dict[str, Grid]) -> tuple[list[SamplePoint], Any]:
    """Number points and say where they lie: in their pairs' CRS if all share one, else in degrees.

    Pairs of several planes have no coordinates in common: each point has those of its own.

    Args:
        points: Pair, stratum, row and column of each, already in a random order: numbers must not tell the stratum.
        grids: The pairs' grids.

    Returns:
        The points, and their CRS (None: of planes, or pixel coordinates, rows counted downwards as negative y).
    """
    systems = {grids[pair_id].crs for pair_id, *_ in points}
    crs = next(iter(systems)) if len(systems) == 1 else WGS84_WKT if all(map(on_earth, systems)) else None
    placed = []
    for number, (pair_id, stratum, row, col) in enumerate(points, 1):
        grid = grids[pair_id]
        x, y = grid.xy(row + 0.5, col + 0.5)
        if not grid.placed:
            y = -y
        elif crs is not None and grid.crs is not None and grid.crs != crs:
            xs, ys = transform_by_gdal(grid.crs, crs, np.array([x]), np.array([y]))
            x, y = float(xs[0]), float(ys[0])
        placed.append(SamplePoint(number, pair_id, stratum, row, col, x, y))
    return placed, crs


def facts_path(path: Path) -> Path:
    """The file beside a sample that says what was drawn from what."""
    return path.with_suffix(".json")


def write_sample(path: Path, points: Sequence[SamplePoint], crs: str | None, facts: dict[str, Any]) -> None:
    """Write a sample with an empty column ``change``, and its facts beside it.

    Raises:
        InputError: If there is such a file already: somebody may have begun to label it.
    """
    if path.exists():
        raise InputError(f"{path} exists, and may have labels in it; move it away or choose another name with --out")
    listed = [[p.number, p.pair_id, p.stratum, p.row, p.col, p.x, p.y] for p in points]
    write_sealed(here(facts_path(path)), {**facts, "points": listed})
    partial = path.with_name(f"{path.stem}.partial.gpkg")  # by its ending GDAL knows the format
    partial.unlink(missing_ok=True)
    empty = np.array([None] * len(points), object)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # pairs without one have none
        pyogrio.raw.write(
            str(partial),
            geometry=shapely.to_wkb(shapely.points([p.x for p in points], [p.y for p in points])),
            field_data=[
                np.array([p.number for p in points], np.int32),
                np.array([p.pair_id for p in points], object),
                empty,
            ],
            fields=np.array(["id", "pair_id", "change"]),
            geometry_type="Point",
            layer="sample",
            driver="GPKG",
            crs=crs,
            dataset_options=GEOPACKAGE,
        )
    write_style(here(path), "sample")
    partial.replace(path)
    sync_folder(path.parent)


def read_facts(path: Location) -> tuple[dict[str, Any], list[SamplePoint]]:
    """What a sample was drawn from, and its points.

    Raises:
        InputError: If that is not there.
        IntegrityError: If it was altered.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: expected beside the sample what cdpipe sample wrote there, and the file is not there"
        )
    facts = read_sealed(path)
    if facts is None:
        raise IntegrityError(f"{path}: is not what cdpipe sample wrote; draw and label another sample")
    return facts, [SamplePoint(*values) for values in facts["points"]]


def read_answers(path: Path, points: Sequence[SamplePoint], tolerances: dict[str, float]) -> dict[int, int | None]:
    """The label of every point: 0, 1 or None for unsure.

    Args:
        path: The labelled GeoPackage.
        points: What was drawn.
        tolerances: By pair, the size of a pixel in units of the file's CRS.

    Raises:
        InputError: If points are missing, moved, not labelled, or labelled as something else; all mistakes at once.
    """
    try:
        _, _, shapes, values = pyogrio.raw.read(path, layer="sample", columns=["id", "change"])
    except Exception as error:  # noqa: BLE001 (pyogrio's errors share no class, and all mean this)
        raise InputError(f"{path}: expected the GeoPackage of cdpipe sample with its layer sample: {error}") from None
    where = shapely.from_wkb(shapes)
    labelled = {int(n): (place, answer) for n, place, answer in zip(values[0], where, values[1], strict=True)}
    missing, moved, empty, wrong = [], [], [], []
    answers: dict[int, int | None] = {}
    for point in points:
        place, answer = labelled.get(point.number, (None, None))
        text = "" if answer is None or answer != answer else str(answer).strip().lower().removesuffix(".0")  # noqa: PLR0124 (NaN)
        if place is None:
            missing.append(point.number)
        elif shapely.distance(place, shapely.Point(point.x, point.y)) > MOVED * tolerances[point.pair_id]:
            moved.append(point.number)
        elif not text:
            empty.append(point.number)
        elif text not in ANSWERS:
            wrong.append(point.number)
        else:
            answers[point.number] = ANSWERS[text]
    mistakes = {
        "missing": missing,
        "moved: the label would be of another pixel": moved,
        "without a label in the column change": empty,
        f"with a label other than {', '.join(ANSWERS)}": wrong,
    }
    lines = [f"  {len(ids)} point(s) {what}: {_listed(ids)}" for what, ids in mistakes.items() if ids]
    if lines:
        raise InputError("\n".join([f"{path}: {len(points)} points were drawn", *lines]))
    return answers


def _listed(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:10])) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
