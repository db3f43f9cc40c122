"""Where a page says that pixels lie, against pyproj; and how high it shows them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from cdpipe.geo.crs import known_crs
from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid
from cdpipe.report.place import describe_ground, describe_place

GEOD = Geod(ellps="WGS84")


def interpolate(grid: Grid, row: float, col: float) -> tuple[float, float]:
    """Longitude and latitude as ``places.js`` has them."""
    nodes = np.array(describe_place(grid)["nodes"])
    parts = len(nodes) - 1
    down, right = row / grid.height * parts, col / grid.width * parts
    i, j = (min(int(at), parts - 1) for at in (down, right))
    down, right = down - i, right - j
    upper = nodes[i, j] * (1 - right) + nodes[i, j + 1] * right
    lower = nodes[i + 1, j] * (1 - right) + nodes[i + 1, j + 1] * right
    lon, lat = upper * (1 - down) + lower * down
    return float(lon), float(lat)


@pytest.mark.parametrize(
    ("crs", "pixel", "x", "y"),
    [
        ("EPSG:32631", 10.0, 399960.0, 5800020.0),  # a whole tile of Sentinel-2
        ("EPSG:32760", 30.0, 300000.0, 8000000.0),
        ("EPSG:3857", 10.0, 1.2e6, 8.4e6),
        ("EPSG:3413", 40.0, -200000.0, -900000.0),
        ("EPSG:4326", 1e-4, 179.5, 60.0),  # beyond the antimeridian
    ],
)
@given(st.floats(0, 1), st.floats(0, 1))
def test_degrees_are_right_to_part_of_a_pixel(
    crs: str, pixel: float, x: float, y: float, down: float, right: float
) -> None:
    grid = Grid(10980, 10980, (pixel, 0.0, x, 0.0, -pixel, y), known_crs(crs))
    row, col = down * grid.height, right * grid.width
    lon, lat = interpolate(grid, row, col)
    truth = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*grid.xy(row, col))
    _, _, off = GEOD.inv(lon, lat, *truth)
    width = describe_ground(grid)["pixel_m"]
    assert width is not None
    assert off < (0.2 if crs == "EPSG:3413" else 0.1) * width, "near a pole degrees are crooked"


@pytest.mark.parametrize("latitude", [0, 48.7, -60, 80])
def test_pixels_of_degrees_are_as_high_as_on_the_ground(latitude: float) -> None:
    grid = Grid(100, 100, (1e-4, 0.0, 2.0, 0.0, -1e-4, latitude + 0.005), known_crs("EPSG:4326"))
    aspect = describe_ground(grid)["aspect"]
    assert aspect == pytest.approx(1 / math.cos(math.radians(latitude)), rel=0.01)


def test_what_lies_nowhere_has_no_place() -> None:
    assert describe_place(Grid(10, 20)) == {}
    plane = Grid(10, 20, (2.0, 0.0, 5.0, 0.0, -2.0, 7.0))
    assert describe_place(plane) == {"transform": [2.0, 0.0, 5.0, 0.0, -2.0, 7.0], "crs": "none"}
    assert plane.transform != PIXEL_TRANSFORM


def test_corners_and_middle_are_told() -> None:
    place = describe_place(Grid(100, 200, (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), known_crs("EPSG:32633")))
    back = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    xy = [back.transform(*corner) for corner in (*place["corners"], place["centre"])]
    expected = [(500000, 5000000), (502000, 5000000), (502000, 4999000), (500000, 4999000), (501000, 4999500)]
    np.testing.assert_allclose(xy, expected, atol=0.01)
    assert place["crs"] == "EPSG:32633"
