"""Labels: values mean what the configuration says, polygons cover the pixels whose centre they hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform
from rasters import GEOGRAPHIC, make_config, utm_grid, write_raster

from cdpipe.config.label import Label
from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.vector_gate import is_vector
from cdpipe.geo.grid import Grid, Window
from cdpipe.pairs.label_rasters import label_values
from cdpipe.pairs.labels import read_label
from cdpipe.workspace.location import here

GRID = utm_grid(60, 80)
WHOLE = Window(0, 0, 60, 80)
VALUES = np.random.default_rng(5).choice([0, 1, 255], (60, 80)).astype(np.uint8)
FORMATS = {"gpkg": "GPKG", "geojson": "GeoJSON", "shp": "ESRI Shapefile", "fgb": "FlatGeobuf", "json": "GeoJSON"}


def write_shapes(path: Path, shapes: list[Any], crs: str | None = "EPSG:32633", layer: str = "labels") -> Path:
    """Write shapely geometries as the format that the name says."""
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(shape) for shape in shapes], object),
        field_data=[],
        fields=[],
        geometry_type="Unknown",
        crs=crs,
        driver=FORMATS[path.suffix[1:]],
        layer=layer,
        append=path.exists(),
    )
    return path


def box_px(row: float, col: float, stop_row: float, stop_col: float, grid: Grid = GRID) -> Any:
    """A box given in pixels of a grid, in its coordinates."""
    corners = [(row, col), (row, stop_col), (stop_row, stop_col), (stop_row, col)]
    return shapely.Polygon([grid.xy(*corner) for corner in corners])


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ({"changed": [1], "ignore": [255]}, {0: 0, 1: 1, 255: 255}),
        ({"changed": [1, 255]}, {0: 0, 1: 1, 255: 1}),
        ({"changed": [0], "unchanged": [255], "ignore": [1]}, {0: 1, 1: 255, 255: 0}),
    ],
)
def test_values_mean_what_the_configuration_says(
    tmp_path: Path, label: dict[str, list[int]], meaning: dict[int, int]
) -> None:
    path = write_raster(tmp_path / "m.tif", VALUES, GRID)
    got = read_label(here(path), GRID, Window(10, 20, 30, 40), make_config(tmp_path, label=label))
    assert got.dtype == np.uint8
    assert got.tolist() == [[meaning[value] for value in row] for row in VALUES[10:40, 20:60].tolist()]


def test_nodata_is_ignored_unless_it_has_a_meaning(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    as_255 = write_raster(tmp_path / "m.tif", VALUES, GRID, nodata=255)
    assert np.array_equal(read_label(here(as_255), GRID, WHOLE, config), VALUES)
    as_0 = write_raster(tmp_path / "n.tif", VALUES % 255, GRID, nodata=0)
    assert np.array_equal(read_label(here(as_0), GRID, WHOLE, config), VALUES % 255)


def test_nan_is_ignored(tmp_path: Path) -> None:
    grid = utm_grid(1, 3)
    path = write_raster(tmp_path / "m.tif", np.array([[1.0, np.nan, 0.0]], np.float32), grid)
    assert read_label(here(path), grid, Window(0, 0, 1, 3), make_config(tmp_path)).tolist() == [[1, 255, 0]]


def test_values_without_a_meaning_are_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "m.tif", np.array([[0, 1, 7], [9, 7, 1]], np.uint8), utm_grid(2, 3))
    expected = r"m\.tif: value\(s\) 7, 9 are in none of label: changed \[1\], unchanged \[0\], ignore \[\]"
    with pytest.raises(InputError, match=expected):
        read_label(here(path), utm_grid(2, 3), Window(0, 0, 2, 3), make_config(tmp_path))


def test_raw_values_are_counted_over_the_whole_file(tmp_path: Path) -> None:
    values = np.random.default_rng(6).choice([0, 1, 2, 200], (2100, 2100), p=[0.9, 0.06, 0.03, 0.01]).astype(np.uint8)
    path = write_raster(tmp_path / "m.tif", values, utm_grid(2100, 2100), nodata=200, compress="deflate")
    found, counts = np.unique(values, return_counts=True)
    assert label_values(here(path), Input(), Label()) == dict(zip(found.tolist(), counts.tolist(), strict=True))
    floats = write_raster(tmp_path / "f.tif", np.array([[0.5, np.nan, 0.5]]), utm_grid(1, 3))
    assert label_values(here(floats), Input(), Label()) == {0.5: 2}


def test_without_georeference_it_needs_the_pairs_size(tmp_path: Path) -> None:
    config = make_config(tmp_path, label={"ignore": [255]})
    same = write_raster(tmp_path / "m.tif", VALUES, None)
    assert np.array_equal(read_label(here(same), GRID, WHOLE, config), VALUES)
    other = write_raster(tmp_path / "n.tif", VALUES[:50], None)
    with pytest.raises(InputError, match=r"80 x 50 px without georeference; expected 80 x 60 px, the size of 'before'"):
        read_label(here(other), GRID, WHOLE, config)


def test_on_another_grid_the_nearest_pixel_counts_and_outside_is_ignored(tmp_path: Path) -> None:
    config = make_config(tmp_path, label={"ignore": [255]})
    own = utm_grid(60, 80, (10.0, 0.0, 500_204.0, 0.0, -10.0, 3_999_897.0))  # 20.4 px right, 10.3 down
    path = write_raster(tmp_path / "m.tif", VALUES, own)
    expected = np.full(GRID.shape, 255, np.uint8)
    expected[10:, 20:] = VALUES[:50, :60]
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), expected)


def reference_burn(shapes: list[Any], grid: Grid) -> NDArray[np.uint8]:
    """The plain definition, pixel by pixel."""
    rows, cols = np.mgrid[: grid.height, : grid.width] + 0.5
    a, b, c, d, e, f = grid.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    return np.asarray(shapely.contains_xy(shapely.union_all(shapes), x, y), np.uint8)


def circles(seed: int, grid: Grid, number: int = 12) -> list[Any]:
    random = np.random.default_rng(seed)
    places = random.uniform(0, 1, (number, 2)) * grid.shape
    radii = random.uniform(2, 0.2 * min(grid.shape), number) * grid.pixel_size[0]
    return [shapely.Point(grid.xy(*place)).buffer(radius) for place, radius in zip(places, radii, strict=True)]


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_polygons_cover_the_pixels_whose_centre_they_hold(tmp_path: Path, suffix: str) -> None:
    shapes = circles(7, GRID)
    path = tmp_path / f"m.{suffix}"
    assert is_vector(path)
    got = read_label(here(write_shapes(path, shapes)), GRID, WHOLE, make_config(tmp_path))
    expected = reference_burn(shapes, GRID)
    assert 0.1 < expected.mean() < 0.9
    # GeoJSON keeps 7 decimals of degrees: a centimetre
    assert (got != expected).mean() <= (1e-3 if "json" in suffix else 0)


def test_holes_and_parts_are_kept(tmp_path: Path) -> None:
    ring = box_px(5, 5, 30, 30).difference(box_px(10, 10, 20, 20))
    parts = shapely.MultiPolygon([ring, box_px(40, 40, 50, 70)])
    got = read_label(here(write_shapes(tmp_path / "m.gpkg", [parts])), GRID, WHOLE, make_config(tmp_path))
    expected = np.zeros((60, 80), np.uint8)
    expected[5:30, 5:30], expected[40:50, 40:70] = 1, 1
    expected[10:20, 10:20] = 0
    assert np.array_equal(got, expected)


def test_polygons_in_another_crs_come_to_the_grid(tmp_path: Path) -> None:
    shapes = circles(8, GRID)

    def to_degrees(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transform(CRS.from_epsg(32633), CRS.from_epsg(4326), points[:, 0], points[:, 1]), -1)

    moved = [shapely.transform(shape, to_degrees) for shape in shapes]
    path = write_shapes(tmp_path / "m.gpkg", moved, "EPSG:4326")
    assert np.array_equal(read_label(here(path), GRID, WHOLE, make_config(tmp_path)), reference_burn(shapes, GRID))


LARGE = Grid(1300, 1100, (9.0, 2.0, 500_000.0, 2.0, -9.0, 4_000_000.0), GRID.crs)


@pytest.fixture(scope="module")
def large_label(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.uint8]]:
    folder = tmp_path_factory.mktemp("large")
    path = write_shapes(folder / "m.gpkg", circles(9, LARGE, 40))
    return path, read_label(here(path), LARGE, Window(0, 0, *LARGE.shape), make_config(folder))


@settings(max_examples=25)
@given(data=st.data())
def test_no_burnt_pixel_depends_on_the_window(large_label: tuple[Path, NDArray[np.uint8]], data: st.DataObject) -> None:
    path, expected = large_label
    row, col = data.draw(st.integers(0, 1299)), data.draw(st.integers(0, 1099))
    window = Window(row, col, data.draw(st.integers(1, 1300 - row)), data.draw(st.integers(1, 1100 - col)))
    got = read_label(here(path), LARGE, window, make_config(path.parent))
    assert np.array_equal(got, expected[window.slices])


def test_empty_files_and_empty_shapes_mean_no_change(tmp_path: Path) -> None:
    path = tmp_path / "m.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    assert not read_label(here(path), GRID, WHOLE, make_config(tmp_path)).any()
    nothing: dict[str, Any] = {"type": "Feature", "properties": {}, "geometry": None}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [nothing]}))
    assert not read_label(here(path), GRID, WHOLE, make_config(tmp_path)).any()


@pytest.mark.parametrize(
    ("shapes", "crs", "expected"),
    [
        ([shapely.Point(500_100, 3_999_900)], "EPSG:32633", "expected polygons, got Point"),
        ([shapely.LineString([(500_100, 3_999_900), (500_200, 3_999_800)])], "EPSG:32633", "got LineString"),
        ([shapely.box(500_100, 3_999_800, 500_200, 3_999_900)], None, "expected a coordinate reference system"),
    ],
)
def test_what_is_no_polygon_with_a_place_is_refused(
    tmp_path: Path, shapes: list[Any], crs: str | None, expected: str
) -> None:
    path = write_shapes(tmp_path / "m.gpkg", shapes, crs)
    with pytest.raises(InputError, match=expected):
        read_label(here(path), GRID, WHOLE, make_config(tmp_path))


def test_several_layers_are_named(tmp_path: Path) -> None:
    for layer in ("one", "two"):
        write_shapes(tmp_path / "m.gpkg", [box_px(0, 0, 5, 5)], layer=layer)
    with pytest.raises(InputError, match="expected one layer of polygons, got one, two"):
        read_label(here(tmp_path / "m.gpkg"), GRID, WHOLE, make_config(tmp_path))


def test_polygons_need_a_georeferenced_pair(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "m.gpkg", [box_px(0, 0, 5, 5)])
    with pytest.raises(InputError, match="the pair's grid has none; expected a raster label"):
        read_label(here(path), Grid(60, 80), WHOLE, make_config(tmp_path))


def test_files_that_lead_gdal_elsewhere_are_refused(tmp_path: Path) -> None:
    secret = write_shapes(tmp_path / "secret.gpkg", [box_px(0, 0, 5, 5)])
    source = f"<SrcDataSource>{secret}</SrcDataSource>"
    vrt = f'<OGRVRTDataSource><OGRVRTLayer name="labels">{source}</OGRVRTLayer></OGRVRTDataSource>'
    pipeline = {"type": "gdal_streamed_alg", "command_line": f"gdal vector pipeline ! read {secret}"}
    for suffix in FORMATS:
        for content in (vrt, json.dumps(pipeline), "", "{"):
            path = tmp_path / f"trap.{suffix}"
            path.write_text(content)
            with pytest.raises(InputError, match=r"does not begin like one|not readable as polygons"):
                read_label(here(path), GRID, WHOLE, make_config(tmp_path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("m.gpkg", "m.tif"):
        with pytest.raises(InputError, match="there is no such file"):
            read_label(here(tmp_path / name), GRID, WHOLE, make_config(tmp_path))


def test_a_real_sparse_label(shared: Path, tmp_path: Path) -> None:
    """Taizhou: 255 is the file's nodata, most pixels are unlabelled."""
    path = shared / "data" / "landsat_taizhou" / "mask.tif"
    config = make_config(tmp_path)
    counts = label_values(here(path), config.input, config.label)
    grid = Grid(400, 400, (30.0, 0.0, 203_325.0, 0.0, -30.0, 3_604_935.0), CRS.from_epsg(32651).to_wkt())
    label = read_label(here(path), grid, Window(0, 0, 400, 400), config)
    assert {value: int((label == value).sum()) for value in (0, 1, 255)} == counts


def test_degrees_are_a_grid_too(tmp_path: Path) -> None:
    grid = Grid(50, 50, (1e-4, 0.0, 15.0, 0.0, -1e-4, 36.0), GEOGRAPHIC)
    shapes = [shapely.box(15.001, 35.997, 15.003, 35.999)]
    path = write_shapes(tmp_path / "m.geojson", shapes, "EPSG:4326")
    assert np.array_equal(
        read_label(here(path), grid, Window(0, 0, 50, 50), make_config(tmp_path)), reference_burn(shapes, grid)
    )
