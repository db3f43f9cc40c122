"""A pair's change as features: its objects as polygons in map coordinates, with their attributes."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from cdpipe.config.schema import Vectors
from cdpipe.errors import InputError
from cdpipe.formats.dates import parse_time
from cdpipe.formats.vectors import GEOMETRY, encode
from cdpipe.geo.grid import Floats, Grid, Window
from cdpipe.geo.ground import has_areas, pixel_steps, ring_areas
from cdpipe.geo.tilings import grow, tiles_in
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.metrics.counts import is_change
from cdpipe.objects.components import MAXIMUM, PIXELS, PROBABILITY, SIDES, UNIT, UNSEEN, VOTES
from cdpipe.objects.find import STEP, Objects, find_objects, too_many
from cdpipe.objects.morphology import clean_mask, ground_disc
from cdpipe.objects.outlines import densify
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace

SCHEMA = pa.schema(
    [
        (GEOMETRY, pa.binary()),
        ("id", pa.string()),
        ("pair_id", pa.string()),
        ("area_m2", pa.float64()),
        ("pixels", pa.int64()),
        ("probability_mean", pa.float64()),
        ("probability_max", pa.float64()),
        ("agreement", pa.float64()),
        ("observed", pa.float64()),
        ("before_date", pa.date32()),
        ("after_date", pa.date32()),
    ]
)
BATCH = 5000  # features
GROUND_TILE = 1024  # side of the fixed tiles for which a pixel's size on the ground is told, in pixels
MAX_RADIUS = 128  # of opening and closing, in pixels: what a pixel depends on must stay small beside a window
_SIDE = 64  # longest straight line from corner to corner whose area is taken, in pixels


@dataclass(frozen=True, slots=True)
class ChangeScene:
    """A pair's change, and how it is made into objects.

    Attributes:
        workspace: The store.
        pair: The pair.
        change_key: Key of its change.
        members: Probability key and threshold of each model.
        options: What is cleaned, left out and simplified.
        dates: Of the pair, in ISO 8601, None where they are not known.
    """

    workspace: Workspace
    pair: StoredPair
    change_key: str
    members: tuple[tuple[str, float], ...]
    options: Vectors
    dates: tuple[str | None, str | None]


def change_features(scene: ChangeScene, folder: Path, step: int = STEP) -> Iterator[pa.RecordBatch]:
    """Features of :data:`SCHEMA` by first pixel: the same whatever the stored blocks and the windows.

    Args:
        scene: The change.
        folder: For what does not fit into memory.
        step: Side of the windows in pixels.

    Raises:
        InputError: If a radius is too large, or part of the scene has no place on the Earth.
        RefusedError: If there are more than the options allow, before the first of them is given.
    """
    most = scene.options.max_objects
    if not scene.options.min_area_m2:  # then all objects are features, and need not be outlined to be counted
        yield from _find_features(scene, folder, step, most)
        return
    # how many are left is known last; until then they wait in a file
    file, count = folder / "features.arrow", 0
    with pa.OSFile(str(file), "wb") as stream, pa.ipc.new_file(stream, SCHEMA) as waiting:
        for batch in _find_features(scene, folder, step):
            count += len(batch)
            if count > most:
                raise too_many(most)
            waiting.write_batch(batch)
    with pa.OSFile(str(file)) as stream, pa.ipc.open_file(stream) as found:
        for number in range(found.num_record_batches):
            yield found.get_batch(number)


def _find_features(scene: ChangeScene, folder: Path, step: int, most: int | None = None) -> Iterator[pa.RecordBatch]:
    grid = scene.pair.grid
    for objects in find_objects(
        grid.shape,
        lambda window: read_state(scene, window),
        lambda window: _read_figures(scene, window),
        folder,
        step,
        most,
    ):
        areas, polygons = _object_areas(objects, grid), _pixel_polygons(objects)
        keep = np.flatnonzero(areas >= scene.options.min_area_m2)
        outlines = polygons[keep]
        if scene.options.simplify_m and len(keep):
            steps = pixel_steps(grid, float(objects.first[0] // grid.width), grid.width / 2)
            outlines = simplify(outlines, steps, scene.options.simplify_m)
        for start in range(0, len(keep), BATCH):
            chosen = keep[start : start + BATCH]
            yield _features(scene, objects, areas, chosen, to_map(outlines[start : start + BATCH], grid))


def read_state(scene: ChangeScene, window: Window) -> NDArray[np.uint8]:
    """Change of a window with a border of one pixel, opened and closed.

    Returns:
        (height + 2, width + 2) of 0 unchanged, 1 changed, 255 not observed or outside the scene.
    """
    shape = scene.pair.grid.shape
    framed = grow(window, 1, shape)
    state = np.full((window.height + 2, window.width + 2), NOT_OBSERVED, np.uint8)
    row, col = framed.row - window.row + 1, framed.col - window.col + 1
    inner = state[row : row + framed.height, col : col + framed.width]
    change = open_array(scene.workspace.group("changes", scene.pair.pair_id, scene.change_key), "change")
    options = scene.options
    if not options.opening_m and not options.closing_m:
        inner[...] = read_window(change, framed)
        return state
    for part in tiles_in(framed, GROUND_TILE):
        opening, closing = (
            _disc(scene.pair.grid, part.row // GROUND_TILE, part.col // GROUND_TILE, radius)
            for radius in (options.opening_m, options.closing_m)
        )
        reach = sum(side - 1 for disc in (opening, closing) for side in (max(disc.shape),))
        source = grow(part, reach, shape)
        cleaned = clean_mask(read_window(change, source), opening, closing)
        inner[part.slices_in(framed)] = cleaned[part.slices_in(source)]
    return state


@lru_cache(maxsize=1024)
def _disc(grid: Grid, tile_row: int, tile_col: int, radius: float) -> NDArray[np.uint8]:
    steps = pixel_steps(grid, (tile_row + 0.5) * GROUND_TILE, (tile_col + 0.5) * GROUND_TILE)
    shortest = min(np.linalg.norm(steps, axis=1))
    if radius / shortest > MAX_RADIUS:
        raise InputError(
            f"vectors: opening_m and closing_m: expected at most {MAX_RADIUS} pixels, got {radius:g} m where a pixel "
            f"has {shortest:.3g} m"
        )
    return ground_disc(steps, radius)


def _read_figures(scene: ChangeScene, window: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The ensemble's probability, and how many models see change."""
    store, pair_id = scene.workspace, scene.pair.pair_id
    votes = np.zeros(window.shape, np.uint8)
    for key, threshold in scene.members:
        layer = open_array(store.group("probabilities", pair_id, key), "probability")
        votes += is_change(read_window(layer, window), threshold)
    ensemble = open_array(store.group("changes", pair_id, scene.change_key), "probability")
    return read_window(ensemble, window), votes


def _object_areas(objects: Objects, grid: Grid) -> NDArray[np.float64]:
    areas = ring_areas(grid, *densify(objects.points, objects.ends, _SIDE))
    outer = np.cumsum(objects.rings) - objects.rings
    return np.asarray(2 * areas[outer] - np.add.reduceat(areas, outer))


def _pixel_polygons(objects: Objects) -> NDArray[Any]:
    """Polygons of columns and rows."""
    points, ends = densify(objects.points, objects.ends, 1 << 40)
    offsets = np.concatenate([[0], ends]), np.concatenate([[0], np.cumsum(objects.rings)])
    coordinates = points[:, ::-1].astype(np.float64)
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, coordinates, offsets))


def simplify(polygons: NDArray[Any], steps: NDArray[np.float64], tolerance: float) -> NDArray[Any]:
    """Leave out corners, so that no two outlines come to cross that did not before.

    Corners go whose triangle with their neighbours is smaller than the tolerance squared (Visvalingam and Whyatt 1993),
    as coverages are simplified: where objects touch, they go on touching. Those that are left are pixel corners.

    Args:
        polygons: (objects,) of columns and rows.
        steps: (2, 2) metres, see :func:`cdpipe.geo.ground.pixel_steps`.
        tolerance: In metres.

    Returns:
        (objects,) of columns and rows.
    """
    matrix = steps[::-1]  # columns, as x, before rows
    ground = shapely.transform(polygons, lambda points: points @ matrix)
    simple = shapely.coverage_simplify(ground, tolerance)
    inverse = np.linalg.inv(matrix)
    return np.asarray(shapely.transform(simple, lambda points: np.rint(points @ inverse)))


def to_map(polygons: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Place polygons on the map, outer rings counter-clockwise.

    Args:
        polygons: (objects,) of columns and rows.
        grid: Their scene's.

    Returns:
        (objects,) in units of the grid's CRS.
    """

    def place(points: Floats) -> Floats:
        cols, rows = points.T
        return np.stack(grid.xy(rows, cols), 1)

    return np.asarray(shapely.orient_polygons(shapely.transform(polygons, place)))


def _day(text: str | None) -> datetime.date | None:
    """The day, in UTC, of a date or time in ISO 8601."""
    return None if text is None else parse_time(text).astimezone(datetime.UTC).date()


def _features(
    scene: ChangeScene,
    objects: Objects,
    areas: NDArray[np.float64],
    chosen: NDArray[np.int64],
    polygons: NDArray[Any],
) -> pa.RecordBatch:
    pair_id, grid = scene.pair.pair_id, scene.pair.grid
    figures = objects.figures[chosen]
    pixels = figures[:, PIXELS]
    rows, cols = np.divmod(objects.first[chosen], grid.width)
    columns = {
        GEOMETRY: encode(polygons),
        "id": [f"{pair_id}_{row}_{col}" for row, col in zip(rows.tolist(), cols.tolist(), strict=True)],
        "pair_id": [pair_id] * len(chosen),
        "area_m2": areas[chosen].round(3) if has_areas(grid) else [None] * len(chosen),
        "pixels": pixels,
        "probability_mean": (figures[:, PROBABILITY] / pixels / UNIT).round(6),
        "probability_max": (figures[:, MAXIMUM] / UNIT).round(6),
        "agreement": (figures[:, VOTES] / pixels / len(scene.members)).round(6),
        "observed": (1 - figures[:, UNSEEN] / figures[:, SIDES]).round(6),
        "before_date": [_day(scene.dates[0])] * len(chosen),
        "after_date": [_day(scene.dates[1])] * len(chosen),
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)
