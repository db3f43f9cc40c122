"""The best changes of a pair: ranked, outlined, and shown at the right place."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import shapely
from rasters import GEOGRAPHIC, utm_grid
from reports import make_job

from cdpipe.formats.vectors import encode, write_features
from cdpipe.geo.crs import transform_by_gdal
from cdpipe.geo.grid import Grid, Window
from cdpipe.objects.features import SCHEMA
from cdpipe.report.changes import (
    CHIP,
    LINE,
    TopChange,
    chips_to_label,
    outline_changes,
    rank_changes,
    rank_doubt,
    read_top_changes,
    write_chip,
)
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here


def write_squares(path: Path, grid: Grid, squares: list[tuple[str, int, int, int, float]]) -> None:
    """Squares given as id, row, column, side and probability."""
    shapes = [
        shapely.Polygon([grid.xy(row + i, col + j) for i, j in ((0, 0), (0, side), (side, side), (side, 0))])
        for _, row, col, side, _ in squares
    ]
    write_shapes(path, grid, shapes, [each[0] for each in squares], [each[4] for each in squares])


def write_shapes(path: Path, grid: Grid, shapes: list[Any], ids: list[str], probabilities: list[float]) -> None:
    """Objects with the columns that change objects have."""
    count = len(shapes)
    known = {
        "geometry": encode(np.array(shapes, object)),
        "id": ids,
        "area_m2": [each.area for each in shapes],
        "pixels": [4] * count,
        "probability_mean": probabilities,
    }
    batch = pa.RecordBatch.from_pydict({name: known.get(name, [None] * count) for name in SCHEMA.names}, SCHEMA)
    write_features(here(path), [batch], SCHEMA, grid.crs, {})


SQUARES = [("speck", 5, 5, 2, 1.0), ("field", 40, 30, 20, 0.8), ("doubt", 90, 60, 30, 0.5), ("twin", 10, 90, 20, 0.8)]


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
def test_objects_are_ranked_by_probability_and_size(tmp_path: Path, suffix: str) -> None:
    grid, path = utm_grid(150, 150), tmp_path / f"o{suffix}"
    write_squares(path, grid, SQUARES)
    tops = read_top_changes(here(path), grid, count=3)
    assert [top.id for top in tops] == ["field", "twin", "doubt"]
    assert [top.score for top in tops] == pytest.approx([160, 160, 150])
    assert tops[0].agreement is None
    rows, cols = zip(*(grid.row_col(x, y) for x, y in tops[0].shape.exterior.coords), strict=True)
    assert (min(rows), max(rows), min(cols), max(cols)) == pytest.approx((40, 60, 30, 50), abs=2e-3)
    # in pages outlines are in degrees, to a centimetre
    outline = shapely.geometry.shape(tops[0].outline)
    back = np.stack(transform_by_gdal(GEOGRAPHIC, str(grid.crs), *shapely.get_coordinates(outline).T), -1)
    assert shapely.Polygon(back).symmetric_difference(tops[0].shape).area < 8  # a centimetre of 800 m


def test_without_georeference_pixels_rank(tmp_path: Path) -> None:
    """As areas do elsewhere: a layer without a CRS has none."""
    grid, path = Grid(150, 150), tmp_path / "o.gpkg"
    shapes = [shapely.box(10, 10, 10 + side, 10 + side) for side in (3, 30, 10)]
    columns = {
        "geometry": encode(np.array(shapes, object)),
        "id": ["small", "large", "middle"],
        "pixels": [9, 900, 100],
        "probability_mean": [0.9, 0.9, 0.9],
    }
    batch = pa.RecordBatch.from_pydict({name: columns.get(name, [None] * 3) for name in SCHEMA.names}, SCHEMA)
    write_features(here(path), [batch], SCHEMA, None, {})
    assert [top.id for top in read_top_changes(here(path), grid)] == ["large", "middle", "small"]
    assert all(np.isfinite(top.score) for top in read_top_changes(here(path), grid, doubt_at=0.5))


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_outlines_are_drawn_where_the_pixels_are(tmp_path: Path, suffix: str) -> None:
    grid, path = utm_grid(150, 150), tmp_path / f"o{suffix}"
    outer = shapely.Polygon([grid.xy(row, col) for row, col in ((20, 30), (20, 60), (50, 60), (50, 30))])
    hole = shapely.Polygon([grid.xy(row, col) for row, col in ((30, 35), (30, 45), (40, 45), (40, 35))])
    write_shapes(path, grid, [outer.difference(hole)], ["ring"], [0.9])
    ranked, total = rank_changes(here(path), grid, 10)
    (drawn,) = outline_changes(ranked, grid)
    assert (total, drawn["id"], drawn["pixels"]) == (1, "ring", 4)
    rings = [np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / 4 for steps in drawn["rings"]]
    found = shapely.Polygon(rings[0], rings[1:])
    expected = shapely.box(30, 20, 60, 50).difference(shapely.box(35, 30, 45, 40))
    assert found.symmetric_difference(expected).area < 1e-6


def test_a_chip_is_square_on_the_ground(tmp_path: Path) -> None:
    """Of pixels twice as high as wide it shows half as many rows: the square object is twice as high."""
    grid = utm_grid(150, 150)
    write_squares(tmp_path / "o.gpkg", grid, [("x", 60, 60, 20, 0.9)])
    (top,) = read_top_changes(here(tmp_path / "o.gpkg"), grid)
    inside = np.zeros((150, 150))
    inside[60:80, 60:80] = 1
    read = {
        **dict.fromkeys(("before", "after"), lambda window: inside[window.slices][None]),
        "probability": lambda window: inside[window.slices],
    }
    write_chip(here(tmp_path / "c.jpg"), top, grid, read, (((0.0, 1.0),), ((0.0, 1.0),)), aspect=2.0)
    image = cv2.imread(str(tmp_path / "c.jpg"))
    assert image is not None
    bright = image[:, :CHIP, 0] > 200
    high, wide = bright.any(1).sum(), bright.any(0).sum()
    assert high / wide == pytest.approx(2, rel=0.05)


def test_changes_to_label_are_those_in_doubt(tmp_path: Path) -> None:
    grid, path = utm_grid(150, 150), tmp_path / "o.gpkg"
    write_squares(path, grid, SQUARES)
    tops = read_top_changes(here(path), grid, count=3, doubt_at=0.5)
    assert [top.id for top in tops] == ["doubt", "field", "twin"]
    assert [top.score for top in tops] == pytest.approx([300**0.5, 0.4 * 200**0.5, 0.4 * 200**0.5])


@pytest.mark.parametrize(("pairs", "chips"), [(0, 60), (1, 60), (4, 60), (7, 34), (20, 12), (400, 12)])
def test_few_pairs_show_more_of_their_changes(pairs: int, chips: int) -> None:
    assert chips_to_label(pairs) == chips


def test_doubt_is_nearness_to_the_threshold_and_models_that_differ() -> None:
    unknown = float("nan")
    probability, agreement = np.array([0.4, 0.4, 0.4, 0.7, 1.0]), np.array([unknown, 0.5, 1.0, 0.5, unknown])
    found = rank_doubt(probability, agreement, np.full(5, 16.0), 0.4)
    assert found == pytest.approx([2, 2, 1, 1.5, 0])
    assert rank_doubt(probability[:1], agreement[:1], np.array([81.0]), 0.4) == pytest.approx([3])


def test_no_objects_are_no_changes(tmp_path: Path) -> None:
    grid = utm_grid(150, 150)
    write_squares(tmp_path / "o.gpkg", grid, [])
    assert read_top_changes(here(tmp_path / "o.gpkg"), grid) == []


def test_outlines_in_pages_stay_short(tmp_path: Path) -> None:
    job = make_job(Workspace(here(tmp_path)), "p", 0)
    grid = job.pair.grid
    ragged = shapely.Point(grid.xy(70, 90)).buffer(500, quad_segs=2000)
    path = tmp_path / "o.gpkg"
    write_shapes(path, grid, [ragged], ["r"], [0.9])
    (top,) = read_top_changes(here(path), grid)
    outline = shapely.geometry.shape(top.outline)
    assert shapely.get_num_coordinates(ragged) > 8000
    assert shapely.get_num_coordinates(outline) <= 400


def test_outlines_on_the_map_are_finer(tmp_path: Path) -> None:
    grid, path = utm_grid(150, 150), tmp_path / "o.gpkg"
    teeth = [(40 + 5 * (at % 2), 20 + at / 10) for at in range(1200)]
    comb = shapely.Polygon([grid.xy(row, col) for row, col in [*teeth, (100, 140), (100, 20)]])
    write_shapes(path, grid, [comb], ["comb"], [0.9])
    ranked, _ = rank_changes(here(path), grid, 1)
    (drawn,) = outline_changes(ranked, grid)
    assert len(drawn["rings"][0]) == 2 * 1202
    (top,) = read_top_changes(here(path), grid)
    assert shapely.get_num_coordinates(shapely.geometry.shape(top.outline)) <= 400


def test_outlines_of_noise_lose_their_smallest_holes(tmp_path: Path) -> None:
    """A mask of noise is one object with a hole at every few pixels, whose corners no simplification takes away."""
    grid, path = utm_grid(150, 150), tmp_path / "o.gpkg"

    def square(row: int, col: int, side: int) -> list[tuple[float, float]]:
        return [grid.xy(row + i, col + j) for i, j in ((0, 0), (0, side), (side, side), (side, 0))]

    specks = [square(row, col, 1) for row in range(2, 148, 4) for col in range(2, 148, 4) if max(row, col) > 60]
    lake = square(10, 10, 40)
    write_shapes(path, grid, [shapely.Polygon(square(0, 0, 150), [lake, *specks])], ["n"], [0.9])
    ranked, _ = rank_changes(here(path), grid, 1)
    (drawn,) = outline_changes(ranked, grid)
    assert sum(map(len, drawn["rings"])) / 2 <= 4000
    (top,) = read_top_changes(here(path), grid)
    outline = shapely.geometry.shape(top.outline)
    assert outline.is_valid
    assert len(outline.interiors) == 1, "the lake is there, the specks are not"


@pytest.mark.parametrize(("row", "col"), [(40, 30), (0, 0), (130, 130)])
def test_a_chip_shows_its_object_outlined(tmp_path: Path, row: int, col: int) -> None:
    """Also at the scene's corners; the object is bright after, and not before."""
    grid = utm_grid(150, 150)
    write_squares(tmp_path / "o.gpkg", grid, [("x", row, col, 20, 0.9)])
    (top,) = read_top_changes(here(tmp_path / "o.gpkg"), grid)
    inside = np.zeros((150, 150))
    inside[row : row + 20, col : col + 20] = 1
    read = {
        "before": lambda window: np.zeros((3, *window.shape)),
        "after": lambda window: np.stack([inside[window.slices]] * 3),
        "probability": lambda window: inside[window.slices],
    }
    limits = ((0.0, 1.0),) * 3
    size = write_chip(here(tmp_path / "c.jpg"), top, grid, read, (limits, limits))
    assert size == (tmp_path / "c.jpg").stat().st_size < 20_000
    image = cv2.imread(str(tmp_path / "c.jpg"))
    assert image is not None
    assert image.shape == (CHIP, 3 * CHIP + 2 * LINE, 3)
    before, after = image[:, :CHIP], image[:, CHIP + LINE : 2 * CHIP + LINE]
    side = max(40, 36)  # of the ground shown, in pixels of the scene
    top_row, left = (min(max(at + 10 - side // 2, 0), 150 - side) for at in (row, col))
    middle = [round((at + 10 - start) * CHIP / side) for at, start in ((row, top_row), (col, left))]
    assert after[middle[0], middle[1]].mean() > 240
    assert before[middle[0], middle[1]].mean() < 15
    edge = before[middle[0] - CHIP * 10 // side - 3 : middle[0] - CHIP * 10 // side + 4, middle[1]]
    assert row == 0 or edge.max() > 150, "the outline is drawn on the dark date"


def test_a_giant_is_read_in_pieces(tmp_path: Path) -> None:
    grid = utm_grid(3000, 2500)
    shape = shapely.box(*grid.xy(3000, 0), *grid.xy(0, 2500))
    top = TopChange("g", 1.0, None, None, 0.9, None, None, {}, shape)
    most = 0

    def read(window: Window) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        nonlocal most
        most = max(most, window.height * window.width)
        return np.ones((3, *window.shape))

    limits = ((0.0, 1.0),) * 3
    write_chip(here(tmp_path / "g.jpg"), top, grid, {**dict.fromkeys(("before", "after"), read), "probability": lambda
               window: np.ones(window.shape)}, (limits, limits))  # fmt: skip
    assert most <= 1024**2
