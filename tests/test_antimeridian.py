"""Scenes and labels on either side of the antimeridian: the same values as the same content away from it."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasters import make_config, source_of, write_raster

from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.crs import canonical_wkt, covered_share, pixel_ratio, transform_by_proj
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.shapes import (
    counted_from_west,
    find_near,
    footprint,
    grid_box,
    outline_in_degrees,
    outline_on_grid,
    transform_polygons,
)
from cdpipe.geo.turns import meeting_turns, period, turned
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.quality_check import doubt_quality
from cdpipe.workspace.location import here

DEGREES = canonical_wkt(CRS.from_epsg(4326))
NAD83 = canonical_wkt(CRS.from_epsg(4269))
MERCATOR = canonical_wkt(CRS.from_epsg(3857))
TURN = 2 * np.pi * 6378137
LAND = np.random.default_rng(0).integers(1, 60_000, (2, 240, 240), np.uint16)
STEP = 1 / 1024  # degrees; a number whose sums with 360 are exact
RESAMPLED = pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
TURNS = pytest.mark.parametrize("turns", [-1, 0, 1])
# UTM zones at the antimeridian, zones that lie alike at Greenwich, and an easting
ZONES = pytest.mark.parametrize(("zone", "other", "x"), [(60, 30, 809_000.0), (1, 31, 170_000.0)])


def degrees(west: float, width: int = 240, north: float = -16.0, height: int = 240, crs: str = DEGREES) -> Grid:
    return Grid(height, width, (STEP, 0.0, west, 0.0, -STEP, north), crs)


def utm(zone: int, x: float, y: float = 8_230_000.0, side: int = 300, size: float = 90.0) -> Grid:
    return Grid(side, side, (size, 0.0, x, 0.0, -size, y), canonical_wkt(CRS.from_epsg(32700 + zone)))


def mercator(west: float, size: float = 110.0) -> Grid:
    """Web Mercator from a longitude on, which may be beyond 180."""
    return Grid(300, 300, (size, 0.0, west / 360 * TURN, 0.0, -size, -1_800_000.0), MERCATOR)


def source_on(grid: Grid) -> WarpSource:
    pixels = LAND[:, : grid.height, : grid.width]

    def read(window: Window) -> Pixels:
        part = pixels[:, *window.slices].copy()
        return part, part[0] > 500

    return WarpSource("test", grid, 2, np.uint16, read)


def warped(source: Grid, grid: Grid, resampling: str) -> Pixels:
    return read_warped(source_on(source), grid, Window(0, 0, *grid.shape), resampling)


def same(one: Pixels, other: Pixels, resampling: str) -> None:
    """Equal but for a few pixels that lie in the midst of two."""
    assert one[1].any()
    assert (one[1] == other[1]).mean() > 0.9995
    both = one[1] & other[1]
    close = np.abs(one[0][:, both].astype(float) - other[0][:, both]) <= (1 if resampling == "bilinear" else 0)
    assert close.mean() > 0.9995


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize(("of", "to"), [*product((-360, 0, 360), repeat=2), (720, 0)])
def test_degrees_lie_on_degrees_however_they_are_counted(of: int, to: int, resampling: str) -> None:
    source, grid = degrees(179.875), degrees(179.875 + 37.25 * STEP)
    expected = warped(degrees(-0.125), degrees(-0.125 + 37.25 * STEP), resampling)
    found = warped(turned(source, of // 360), turned(grid, to // 360), resampling)
    assert (found[1] == expected[1]).all()
    assert (found[0] == expected[0]).all()
    assert covered_share(turned(source, of // 360), turned(grid, to // 360)) == pytest.approx(203 / 240, abs=0.01)


def test_the_same_pixels_are_the_same_whichever_way_they_are_counted() -> None:
    values, seen = warped(degrees(-180.125), degrees(179.875), "bilinear")
    assert (seen == (LAND[0] > 500)).all()
    assert (values == LAND * seen).all()


@RESAMPLED
@TURNS
@ZONES
def test_degrees_lie_on_utm_across_the_antimeridian(
    zone: int, other: int, x: float, turns: int, resampling: str
) -> None:
    expected = warped(degrees(-0.125), utm(other, x), resampling)
    source, grid = turned(degrees(179.875), turns), utm(zone, x)
    same(warped(source, grid, resampling), expected, resampling)
    away = degrees(-0.125)
    assert covered_share(source, grid) == pytest.approx(covered_share(away, utm(other, x)), abs=0.01)
    assert pixel_ratio(source, grid) == pytest.approx(pixel_ratio(away, utm(other, x)), rel=1e-6)


@RESAMPLED
@TURNS
@ZONES
def test_utm_lies_on_degrees_across_the_antimeridian(
    zone: int, other: int, x: float, turns: int, resampling: str
) -> None:
    expected = warped(utm(other, x, side=240), degrees(-0.125), resampling)
    same(warped(utm(zone, x, side=240), turned(degrees(179.875), turns), resampling), expected, resampling)


@RESAMPLED
@pytest.mark.parametrize(("of", "to"), product((-1, 0, 1), repeat=2))
def test_two_kinds_of_degrees_meet(of: int, to: int, resampling: str) -> None:
    expected = warped(degrees(-0.125), degrees(-0.1, crs=NAD83), resampling)
    source, grid = turned(degrees(179.875), of), turned(degrees(179.9, crs=NAD83), to)
    same(warped(source, grid, resampling), expected, resampling)


def test_neighbouring_zones_meet() -> None:
    expected = warped(utm(30, 809_000.0, side=240), utm(31, 170_000.0), "bilinear")
    same(warped(utm(60, 809_000.0, side=240), utm(1, 170_000.0), "bilinear"), expected, "bilinear")


@RESAMPLED
@TURNS
def test_web_mercator_is_counted_like_degrees(turns: int, resampling: str) -> None:
    source, grid = mercator(179.875), mercator(179.9)
    own = Grid(240, 240, source.transform, source.crs)
    expected = warped(Grid(240, 240, mercator(-0.125).transform, MERCATOR), mercator(-0.1), resampling)
    same(warped(turned(own, turns), grid, resampling), expected, resampling)
    # onto it, and from it, across the edge of the world
    expected = warped(degrees(-0.125), mercator(-0.125), resampling)
    same(warped(degrees(179.875), turned(source, turns), resampling), expected, resampling)
    expected = warped(Grid(240, 240, mercator(-0.125).transform, MERCATOR), degrees(-0.125), resampling)
    same(warped(turned(own, turns), degrees(179.875), resampling), expected, resampling)
    expected = warped(Grid(240, 240, mercator(-0.125).transform, MERCATOR), utm(30, 809_000.0), resampling)
    same(warped(turned(own, turns), utm(60, 809_000.0), resampling), expected, resampling)


@pytest.mark.parametrize("west", [-5.0, 355.0, -365.0, 175.0, -180.0])
def test_a_grid_around_the_earth_covers_what_lies_across_its_ends(west: float) -> None:
    globe = Grid(180, 360, (1.0, 0.0, 0.0, 0.0, -1.0, 90.0), DEGREES)  # 0 to 360
    pixels = np.arange(180 * 360, dtype=np.uint32).reshape(1, 180, 360)
    source = WarpSource(
        "globe", globe, 1, np.uint32, lambda window: (pixels[:, *window.slices].copy(), np.ones(window.shape, np.bool_))
    )
    grid = Grid(20, 10, (1.0, 0.0, west, 0.0, -1.0, 40.0), DEGREES)
    values, seen = read_warped(source, grid, Window(0, 0, 20, 10), "bilinear")
    assert seen.all()
    assert covered_share(globe, grid) == 1
    columns = (np.arange(10) + round(west)) % 360
    assert (values == pixels[:, 50:70][:, :, columns]).all()


def test_places_that_do_not_meet_do_not() -> None:
    assert covered_share(degrees(0.0), degrees(179.875)) == 0
    assert covered_share(degrees(179.0), degrees(-179.5)) == 0
    assert not warped(degrees(178.0), degrees(-179.0), "nearest")[1].any()
    assert meeting_turns(degrees(0.0), degrees(90.0)) == [0]


@pytest.mark.parametrize(
    ("code", "units"), [(4326, 360), (4807, 400), (3857, TURN), (3832, TURN), (32633, None), (3031, None)]
)
def test_a_turn_is_once_around(code: int, units: float | None) -> None:
    found = period(canonical_wkt(CRS.from_epsg(code)))
    assert found == (None if units is None else pytest.approx(units, rel=1e-9))
    assert period(None) is None


@pytest.mark.parametrize("second", [179.875, -180.125])
def test_dates_in_files_are_aligned(tmp_path: Path, second: float) -> None:
    config = make_config(tmp_path)
    source = source_of(write_raster(tmp_path / "a.tif", LAND, degrees(second)), config, (1, 2))
    values, seen = read_on_grid(source, None, degrees(179.875).moved(20, 30), Window(0, 0, 240, 240), config)
    assert seen.sum() == 220 * 210
    assert (values[:, :220, :210] == LAND[:, 20:, 30:]).all()
    assert here(tmp_path / "a.tif") == source.path


def test_footprints_and_boxes_agree_however_degrees_are_counted() -> None:
    found = [footprint(turned(degrees(179.875), turns)) for turns in (-1, 0, 1)]
    assert found[0] == found[1] == found[2]
    geometry, box = found[0]
    assert box == [179.875, -16.234375, -179.890625, -16.0]
    assert geometry["type"] == "MultiPolygon"
    assert {grid_box(turned(degrees(179.875), turns), "EPSG:4326") for turns in (-1, 0, 1)} == {
        (-180.0, -16.234375, 180.0, -16.0)
    }
    assert {grid_box(turned(degrees(-179.875), turns), "EPSG:4326") for turns in (-1, 0, 1)} == {
        (-179.875, -16.234375, -179.640625, -16.0)
    }
    near = find_near({"a": degrees(179.7, crs=NAD83), "b": degrees(-180.1), "c": degrees(0.0)}, 1)
    assert [(each.one, each.other, each.distance) for each in near] == [("a", "b", 0)]


def test_one_object_of_two_zones_has_the_same_longitudes() -> None:
    """So that the layer of a run has it once, whichever corner its outline begins with."""
    square = shapely.box(179.99, -16.1, 180.01, -16.05)
    moved = []
    for code, start in ((32760, 0), (32701, 2)):
        corners = np.roll(np.array(square.exterior.coords)[:-1], start, axis=0)
        x, y = transform_by_proj("EPSG:4326", f"EPSG:{code}", corners[:, 0], corners[:, 1])
        [found] = transform_polygons(np.array([shapely.Polygon(np.stack([x, y], 1))]), f"EPSG:{code}", "EPSG:4326")
        moved.append(found)
    for found in moved:
        assert found.bounds == pytest.approx(square.bounds, abs=1e-7)
    [turned_back] = counted_from_west(np.array([shapely.box(-180.01, -16.1, -179.99, -16.05)]))
    assert turned_back.bounds == pytest.approx(square.bounds)


@pytest.mark.parametrize("grid", [degrees(179.875), degrees(-180.125), utm(60, 809_000.0)])
def test_an_outline_in_degrees_comes_back_to_its_grid(grid: Grid) -> None:
    """As a review of the report is burnt onto the pair again."""
    x, y = grid.xy(np.array([60.0, 60, 90, 90]), np.array([100.0, 160, 160, 100]))
    shape = shapely.Polygon(np.stack([x, y], 1))
    outline = outline_in_degrees(shape, str(grid.crs))
    west, _, east, _ = outline.bounds
    assert 179 < west < 180 < east < 181
    assert shapely.hausdorff_distance(outline_on_grid(outline, grid), shape) < 1e-6 * grid.pixel_size[0] + 1e-9


@pytest.mark.parametrize("x", [-100_000.0, 0.0, 20_000.0, 500_000.0])
@pytest.mark.parametrize(("code", "pole"), [(3031, -90), (3413, 90)])
def test_scenes_at_a_pole_have_valid_footprints(code: int, pole: int, x: float) -> None:
    grid = Grid(200, 200, (1000.0, 0.0, x, 0.0, -1000.0, 100_000.0), canonical_wkt(CRS.from_epsg(code)))
    geometry, box = footprint(grid)
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid
    assert (max(abs(box[1]), abs(box[3])) == 90) == (x <= 0 < x + 200_000)
    rows, cols = (values.ravel() for values in grid.middles(20))
    lon, lat = transform_by_proj(str(grid.crs), "EPSG:4326", *grid.xy(rows, cols))
    assert shapely.contains_xy(shape.buffer(1e-3), lon, lat).mean() > 0.97
    assert np.sign(lat).mean() == np.sign(pole)


def test_a_quality_raster_across_the_antimeridian_is_looked_at(tmp_path: Path) -> None:
    grid = degrees(179.875)
    config = make_config(tmp_path)
    source = source_of(write_raster(tmp_path / "a.tif", LAND, grid), config, (1, 2))
    mask = np.ones((240, 240), np.uint8)
    mask[:, 200:] = 0
    valid = here(write_raster(tmp_path / "v.tif", mask, degrees(-180.125)))
    assert doubt_quality(valid, source, grid, grid, config.input) == []
    _, seen = read_on_grid(source, valid, grid, Window(0, 0, 240, 240), config)
    assert (seen == (mask == 1)).all()


@pytest.mark.parametrize("west", [0.0, -180.0])
@pytest.mark.parametrize(("zone", "x"), [(30, 809_000.0), (31, 170_000.0), (60, 809_000.0), (1, 170_000.0)])
def test_a_grid_around_the_earth_covers_scenes_in_utm(west: float, zone: int, x: float) -> None:
    globe = Grid(1800, 3600, (0.1, 0.0, west, 0.0, -0.1, 90.0), DEGREES)

    def read(window: Window) -> Pixels:
        rows, cols = np.mgrid[window.slices]
        return (rows * 3600 + cols)[None].astype(np.uint32), np.ones(window.shape, np.bool_)

    grid = utm(zone, x, side=60, size=2000.0)
    values, seen = read_warped(WarpSource("globe", globe, 1, np.uint32, read), grid, Window(0, 0, 60, 60), "nearest")
    assert seen.all()
    assert covered_share(globe, grid) == 1
    rows, cols = np.mgrid[0:60, 0:60] + 0.5
    lon, lat = transform_by_proj(str(grid.crs), "EPSG:4326", *(each.ravel() for each in grid.xy(rows, cols)))
    expected = np.floor((90 - lat) * 10) * 3600 + np.floor((lon - west) % 360 * 10) % 3600
    assert (values[0].ravel() == expected).mean() > 0.95  # GDAL follows a curve to an eighth of a pixel
