"""Metres on the ground, against geodesics on the ellipsoid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasters import GEOGRAPHIC, UTM33

from cdpipe.errors import InputError
from cdpipe.geo.crs import require_places, transform_by_proj
from cdpipe.geo.grid import Grid
from cdpipe.geo.ground import pixel_steps, ring_areas
from cdpipe.geo.shapes import grid_box
from cdpipe.objects.outlines import densify

WGS84 = Geod(ellps="WGS84")
MERCATOR = CRS.from_epsg(3857).to_wkt()
POLAR = CRS.from_epsg(3031).to_wkt()
FEET = CRS.from_epsg(2263).to_wkt()  # New York, in US survey feet
GRIDS = {
    "utm": Grid(3000, 3000, (10.0, 0.0, 500_000.0, 0.0, -10.0, 6_000_000.0), UTM33),
    "degrees": Grid(3000, 3000, (1e-4, 0.0, 13.0, 0.0, -1e-4, 60.0), GEOGRAPHIC),
    "mercator": Grid(3000, 3000, (10.0, 0.0, 1_500_000.0, 0.0, -10.0, 8_400_000.0), MERCATOR),
    "pole": Grid(3000, 3000, (100.0, 0.0, -150_000.0, 0.0, -100.0, 150_000.0), POLAR),
    "feet": Grid(3000, 3000, (30.0, 0.0, 980_000.0, 0.0, -30.0, 220_000.0), FEET),
    "turned": Grid(3000, 3000, (8.0, 6.0, 500_000.0, 6.0, -8.0, 6_000_000.0), UTM33),
    "antimeridian": Grid(3000, 3000, (1e-3, 0.0, 178.5, 0.0, -1e-3, -10.0), GEOGRAPHIC),
}


def degrees(grid: Grid, points: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of rows and columns."""
    a, b, c, d, e, f = grid.transform
    rows, cols = points.T
    way = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = way.transform(a * cols + b * rows + c, d * cols + e * rows + f)
    return np.asarray(lon), np.asarray(lat)


@pytest.mark.parametrize("name", GRIDS)
@given(st.integers(0, 2900), st.integers(0, 2900), st.integers(1, 99))
def test_areas_are_those_on_the_ellipsoid(name: str, row: int, col: int, side: int) -> None:
    """Areas of geodesic polygons are good to 0.1 m² a vertex (Karney 2013), ours to less than a square millimetre."""
    grid = GRIDS[name]
    ring = np.array([[row, col], [row + side, col], [row + side, col + side], [row, col + side]])
    points, ends = densify(ring, np.array([4]), 5)
    expected, _ = WGS84.polygon_area_perimeter(*degrees(grid, points))
    assert ring_areas(grid, points, ends)[0] == pytest.approx(abs(expected), rel=1e-6, abs=0.1 * len(points))


@pytest.mark.parametrize("name", GRIDS)
@given(st.integers(100, 2900), st.integers(100, 2900))
def test_steps_are_geodesics(name: str, row: int, col: int) -> None:
    grid = GRIDS[name]
    steps = pixel_steps(grid, row, col)
    ends = np.array([[row, col], [row + 1, col], [row, col + 1]])
    lon, lat = degrees(grid, ends)
    for number in (0, 1):
        _, _, metres = WGS84.inv(lon[0], lat[0], lon[number + 1], lat[number + 1])
        assert np.linalg.norm(steps[number]) == pytest.approx(metres, rel=1e-3)
    # the area of a pixel is that of the parallelogram
    pixel, end = densify(np.array([[row, col], [row + 1, col], [row + 1, col + 1], [row, col + 1]]), np.array([4]), 9)
    assert abs(np.linalg.det(steps)) == pytest.approx(ring_areas(grid, pixel, end)[0], rel=1e-3)


def test_without_a_georeference_a_pixel_is_a_square_metre() -> None:
    grid = Grid(9, 9)
    ring, ends = densify(np.array([[1, 1], [3, 1], [3, 6], [1, 6]]), np.array([4]), 64)
    assert ring_areas(grid, ring, ends).tolist() == [10]
    assert np.linalg.norm(pixel_steps(grid, 4, 4), axis=1).tolist() == [1, 1]


def test_areas_of_several_rings_do_not_mix() -> None:
    grid = GRIDS["utm"]
    one, other = np.array([[0, 0], [9, 0], [9, 9], [0, 9]]), np.array([[50, 80], [51, 80], [51, 81], [50, 81]])
    both, ends = densify(np.concatenate([one, other]), np.array([4, 8]), 64)
    single = [ring_areas(grid, *densify(each, np.array([4]), 64))[0] for each in (one, other)]
    assert ring_areas(grid, both, ends).tolist() == pytest.approx(single, rel=1e-12)


def test_what_lies_beyond_a_crs_is_refused() -> None:
    beyond = Grid(100, 100, (1e6, 0.0, 0.0, 0.0, -1e6, 1e9), UTM33)
    with pytest.raises(InputError, match="no place on the Earth"):
        pixel_steps(beyond, 50, 50)
    with pytest.raises(InputError, match="choose another CRS"):
        require_places(UTM33, transform_by_proj("EPSG:4326", UTM33, np.array([105.0]), np.array([0.0])))


def test_the_box_of_a_grid_holds_all_of_it() -> None:
    grid = GRIDS["turned"]
    left, bottom, right, top = grid_box(grid, "EPSG:4326")
    rows, cols = np.mgrid[0:3001:100, 0:3001:100]
    lon, lat = degrees(grid, np.stack([rows.ravel(), cols.ravel()], 1))
    room = 1e-5
    assert left - room <= lon.min() < lon.max() <= right + room
    assert bottom - room <= lat.min() < lat.max() <= top + room
