"""A sample of points as a GeoPackage to label in a GIS, and beside it, sealed, what the labeller must not see."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from rasterio.crs import CRS

from cdpipe.errors import InputError, IntegrityError
from cdpipe.geo.crs import canonical_wkt, transform_points
from cdpipe.geo.grid import Grid
from cdpipe.workspace.local import read_sealed, sync_folder, write_sealed

DEGREES = canonical_wkt(CRS.from_epsg(4326))
ANSWERS = {"0": 0, "1": 1, "unsure": None}
MOVED = 0.01  # of a pixel: points that lie further off were moved


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

    Args:
        points: Pair, stratum, row and column of each, already in a random order: numbers must not tell the stratum.
        grids: The pairs' grids.

    Returns:
        The points, and their CRS (None: pixel coordinates, rows counted downwards as negative y).
    """
    systems = {grids[pair_id].crs for pair_id, *_ in points}
    crs = next(iter(systems)) if len(systems) == 1 else DEGREES
    found = []
    for number, (pair_id, stratum, row, col) in enumerate(points, 1):
        grid = grids[pair_id]
        x, y = grid.xy(row + 0.5, col + 0.5)
        if grid.crs is None:
            y = -y
        elif crs is not None and grid.crs != crs:
            xs, ys = transform_points(grid.crs, crs, np.array([x]), np.array([y]))
            x, y = float(xs[0]), float(ys[0])
        found.append(SamplePoint(number, pair_id, stratum, row, col, x, y))
    return found, crs


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
    write_sealed(facts_path(path), {**facts, "points": listed})
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
        )
    partial.replace(path)
    sync_folder(path.parent)


def read_facts(path: Path) -> tuple[dict[str, Any], list[SamplePoint]]:
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
    return facts, [SamplePoint(*each) for each in facts["points"]]


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
    found = {int(n): (place, answer) for n, place, answer in zip(values[0], where, values[1], strict=True)}
    missing, moved, empty, wrong = [], [], [], []
    answers: dict[int, int | None] = {}
    for point in points:
        place, answer = found.get(point.number, (None, None))
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
