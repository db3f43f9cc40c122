"""Areas of pixels: exact in degrees, and of the ground, not of the projection."""

import math

import numpy as np
import pytest
from rasterio.crs import CRS
from rasters import GEOGRAPHIC, utm_grid

from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid
from cdpipe.geo.ground import row_areas

AXIS, FLATTENING = 6_378_137.0, 1 / 298.257223563


def zone_area(south: float, north: float, degrees: float) -> float:
    """Area of the WGS 84 ellipsoid between two parallels, in closed form (Snyder 1987, eq. 3-12)."""
    e = math.sqrt(FLATTENING * (2 - FLATTENING))

    def q(latitude: float) -> float:
        sine = math.sin(math.radians(latitude))
        return (1 - e * e) * (sine / (1 - (e * sine) ** 2) + math.atanh(e * sine) / e)

    return AXIS**2 / 2 * math.radians(degrees) * (q(north) - q(south))


@pytest.mark.parametrize("north", [0.5, 45.0, 70.0, -30.0])
def test_pixels_in_degrees_have_the_area_of_their_zone(north: float) -> None:
    size = 1e-4
    grid = Grid(200, 300, (size, 0, 10.0, 0, -size, north), GEOGRAPHIC)
    areas = row_areas(grid)
    exact = [zone_area(north - size * (row + 1), north - size * row, size) for row in range(200)]
    np.testing.assert_allclose(areas, exact, rtol=2e-4)
    assert areas.sum() == pytest.approx(zone_area(north - 200 * size, north, size), rel=1e-6)


def test_a_metre_of_a_map_is_taken_for_what_it_is_on_the_ground() -> None:
    assert row_areas(utm_grid(70, 50)) == pytest.approx(100 / 0.9996**2, rel=1e-4)
    mercator = CRS.from_epsg(3857).to_wkt()
    north = AXIS * math.log(math.tan(math.pi / 4 + math.radians(60) / 2))
    there = row_areas(Grid(10, 10, (10.0, 0, 0, 0, -10.0, north), mercator))
    assert there == pytest.approx(100 / 4, rel=0.01)  # a half of the scale at 60 degrees


def test_pixels_without_a_place_have_no_area() -> None:
    with pytest.raises(ValueError, match="CRS"):
        row_areas(Grid(2, 2, PIXEL_TRANSFORM, None))
