"""Georeferences are used or refused, never dropped: transforms without a CRS, world files, planes of their own."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasters import NORTH_UP, UTM33, make_config, source_of, utm_grid, write_raster

from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.evaluation.area_sample import place_points
from cdpipe.formats.gate import describe_raster, grid_of, require_common_place, require_imagery
from cdpipe.formats.stack import stack_bands
from cdpipe.formats.vectors import GEOMETRY, decode, encode, read_features, write_features
from cdpipe.geo.crs import canonical_wkt, crs_name, on_earth, plane_unit
from cdpipe.geo.grid import Grid, Transform, Window
from cdpipe.geo.ground import has_areas, pixel_metres, pixel_steps, ring_areas, row_areas
from cdpipe.geo.shapes import find_near
from cdpipe.objects.features import to_map
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_pair
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.labels import read_label
from cdpipe.workspace.location import here

SITE = canonical_wkt(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'))
FEET = canonical_wkt(
    CRS.from_wkt(
        'ENGCRS["Site",EDATUM["x"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["US survey foot",0.304800609601219]]'
    )
)
SHAPE = (60, 80)
PLANES: dict[str, Transform] = {
    "north up": NORTH_UP,
    "south up": (10.0, 0.0, 5000.0, 0.0, 10.0, 7000.0),
    "turned": (8.0, 6.0, 100.0, 6.0, -8.0, 200.0),
    "west up": (0.0, -10.0, 5000.0, -10.0, 0.0, 7000.0),
    "pixels from elsewhere": (1.0, 0.0, 64.0, 0.0, 1.0, 32.0),
}
LAND = np.random.default_rng(0).integers(1, 60_000, (3, 200, 200), np.uint16)


def make_pair(folder: Path, before: Grid | None, after: Grid | None, **profile: Any) -> Pair:
    """A pair of one landscape: its first date starts at row and column 20 of it, its second at 30 and 28."""
    config = make_config(folder)
    for name, grid, (row, col) in (("before", before, (20, 20)), ("after", after, (30, 28))):
        pixels = LAND[:, row : row + SHAPE[0], col : col + SHAPE[1]]
        write_raster(folder / f"{name}.tif", pixels, grid, **profile)
    first, second = (source_of(folder / f"{name}.tif", config, (1, 2, 3)) for name in ("before", "after"))
    return Pair("p", "p", first, second, ("red", "green", "blue"))


def later(grid: Grid) -> Grid:
    """Where the second date of :func:`make_pair` lies if the first lies on a grid."""
    return grid.moved(10, 8)


@pytest.mark.parametrize("transform", PLANES.values(), ids=PLANES)
@pytest.mark.parametrize("crs", [None, SITE, FEET])
def test_two_dates_in_one_plane_are_aligned_to_the_pixel(tmp_path: Path, transform: Transform, crs: str | None) -> None:
    grid = Grid(*SHAPE, transform, crs)
    pair = make_pair(tmp_path, grid, later(grid))
    config = make_config(tmp_path)  # pixel_coordinates is not asked for
    report = check_pair(pair, config)
    assert not report.problems
    assert report.overlap == pytest.approx(50 * 72 / 4800, abs=0.01)
    said = [text for text in report.warnings if "no CRS on either date; both are taken to lie in one plane" in text]
    assert len(said) == (crs is None)
    assert report.before is not None
    assert report.before.grid == grid
    for source, row, col in ((pair.before, 20, 20), (pair.after, 30, 28)):
        values, seen = read_on_grid(source, None, grid, Window(0, 0, *SHAPE), config)
        expected = LAND[:, 20:80, 20:100]
        there = np.zeros(SHAPE, np.bool_)
        there[row - 20 :, col - 20 :] = True
        assert (seen == there).all()
        assert (values[:, seen] == expected[:, seen]).all()


@pytest.mark.parametrize("crs", [None, SITE])
def test_other_pixels_of_the_plane_are_resampled_as_gdal_does(tmp_path: Path, crs: str | None) -> None:
    grid = Grid(40, 50, NORTH_UP, crs)
    fine = Grid(100, 120, (4.0, 0.0, NORTH_UP[2] - 3, 0.0, -4.0, NORTH_UP[5] + 5), crs)
    pixels = LAND[:, :100, :120]
    config = make_config(tmp_path, align={"resampling": "nearest"})
    source = source_of(write_raster(tmp_path / "a.tif", pixels, fine), config, (1, 2, 3))
    values, seen = read_on_grid(source, None, grid, Window(0, 0, 40, 50), config)
    expected = np.zeros((3, 40, 50), np.uint16)
    plane = CRS.from_epsg(32633)  # any that both lie in
    reproject(
        pixels,
        expected,
        src_transform=Affine(*fine.transform),
        src_crs=plane,
        dst_transform=Affine(*grid.transform),
        dst_crs=plane,
        resampling=Resampling.nearest,
    )
    assert seen.any()
    assert (values == expected).all()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            utm_grid(*SHAPE),
            Grid(*SHAPE, NORTH_UP),
            "after.tif has a transform without a CRS.*-a_srs EPSG:32633 after.tif",
        ),
        (Grid(*SHAPE, NORTH_UP), utm_grid(*SHAPE), "before.tif has a transform without a CRS.*EPSG:32633 before.tif"),
        (utm_grid(*SHAPE), None, "after.tif has no georeference that can be used; give it .*-unsetgt"),
        (None, Grid(*SHAPE, NORTH_UP), "before.tif has no georeference that can be used; give it"),
        (
            utm_grid(*SHAPE),
            Grid(*SHAPE, crs=UTM33),
            r"no georeference that can be used \(EPSG:32633, but no transform\)",
        ),
        (Grid(*SHAPE, NORTH_UP, SITE), utm_grid(*SHAPE), "in site around.*no way from a plane of its own"),
        (Grid(*SHAPE, NORTH_UP, SITE), Grid(*SHAPE, NORTH_UP, FEET), "in Site around.*in site around.*no way"),
        (Grid(*SHAPE, NORTH_UP, SITE), Grid(*SHAPE, NORTH_UP), "after.tif has a transform without a CRS"),
    ],
)
@pytest.mark.parametrize("leave", [False, True])
def test_one_place_and_another_are_refused_with_both_and_the_way_out(
    tmp_path: Path, before: Grid | None, after: Grid | None, told: str, leave: bool
) -> None:
    pair = make_pair(tmp_path, before, after)
    config = make_config(tmp_path, input={"pixel_coordinates": leave})
    problems = check_pair(pair, config).problems
    if leave or (before is not None and after is not None and after.transform == NORTH_UP):
        [problem] = problems
        assert problem.count("80 x 60 px") == 2
        with pytest.raises(InputError, match=told) as caught:
            require_common_place(*(describe_raster(source.path, config.input) for source in (pair.before, pair.after)))
        assert str(caught.value) == problem
        assert len(problem.splitlines()) == 1
    assert problems


def test_pixels_lie_on_pixels_only_where_neither_date_has_a_place_and_that_is_said(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, None, None)
    config = make_config(tmp_path, input={"pixel_coordinates": True}, align={"coregister": "off"})
    report = check_pair(pair, config)
    assert not report.problems
    [warning] = report.warnings
    assert warning.endswith("no georeference on either date; compared pixel on pixel (input.pixel_coordinates)")
    [first, _] = check_pair(pair, make_config(tmp_path)).problems
    assert "set input.pixel_coordinates: true" in first


def test_a_georeference_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, Grid(*SHAPE, crs=UTM33), None)
    config = make_config(tmp_path, input={"pixel_coordinates": True}, align={"coregister": "off"})
    [warning] = check_pair(pair, config).warnings
    assert "no georeference that can be used (before.tif: EPSG:32633, but no transform); compared pixel" in warning


# World files and .prj files; how these are read, see test_worldfile.


def world_file(grid: Grid) -> str:
    a, b, _, d, e, _ = grid.transform
    x, y = grid.xy(0.5, 0.5)
    return f"{a}\n{d}\n{b}\n{e}\n{x}\n{y}\n"


@pytest.mark.parametrize("sidecars", [False, True])
@pytest.mark.parametrize("crs", [None, UTM33])
@pytest.mark.parametrize(("driver", "suffix"), [("GTiff", "tfw"), ("PNG", "pgw")])
def test_world_files_place_both_dates(
    tmp_path: Path, sidecars: bool, crs: str | None, driver: str, suffix: str
) -> None:
    grid = utm_grid(*SHAPE)
    pair = make_pair(tmp_path, None, None, driver=driver)
    for name, place in (("before", grid), ("after", later(grid))):
        (tmp_path / f"{name}.{suffix}").write_text(world_file(place))
        if driver == "PNG":  # a name that says the format
            (tmp_path / f"{name}.png").write_bytes((tmp_path / f"{name}.tif").read_bytes())
        if crs is not None:
            (tmp_path / f"{name}.prj").write_text(pyproj.CRS.from_wkt(crs).to_wkt("WKT1_ESRI"))
    settings = Input(drivers=("GTiff", "PNG"), sidecars=sidecars)
    end = "png" if driver == "PNG" else "tif"
    infos = [describe_raster(here(tmp_path / f"{name}.{end}"), settings) for name in ("before", "after")]
    assert infos[0].grid == Grid(*SHAPE, NORTH_UP, None if crs is None else canonical_wkt(CRS.from_wkt(crs)))
    assert infos[1].grid == later(infos[0].grid)
    require_common_place(*infos)
    if driver == "GTiff":
        values, seen = read_on_grid(pair.after, None, infos[0].grid, Window(0, 0, *SHAPE), make_config(tmp_path))
        assert seen.sum() == 50 * 72
        assert (values[:, seen] == LAND[:, 20:80, 20:100][:, seen]).all()


def test_a_prj_names_the_crs_of_a_raster_with_a_transform(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", LAND[:, :60, :80], Grid(*SHAPE, NORTH_UP))
    assert describe_raster(here(path), Input()).grid == Grid(*SHAPE, NORTH_UP)
    (tmp_path / "a.prj").write_text(pyproj.CRS.from_epsg(32633).to_wkt("WKT1_ESRI"))
    assert describe_raster(here(path), Input()).grid.crs == canonical_wkt(CRS.from_epsg(32633))


def test_a_world_file_out_of_the_roots_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = write_raster(data / "a.tif", LAND[:, :60, :80])
    (tmp_path / "secret.tfw").write_text(world_file(utm_grid(*SHAPE)))
    (data / "a.tfw").symlink_to(tmp_path / "secret.tfw")
    settings = make_config(tmp_path, input={"roots": ["data"]}).input
    with pytest.raises(InputError, match=r"a\.tfw: lies at .*secret.tfw, outside of"):
        describe_raster(here(path), settings)


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("grid", [None, Grid(*SHAPE, NORTH_UP)])
def test_a_georeference_in_a_pam_file_is_named_and_read_by_leave(
    tmp_path: Path, grid: Grid | None, leave: bool
) -> None:
    path = write_raster(tmp_path / "a.tif", LAND[:, :60, :80], grid)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>500000, 10, 0, 4000000, 0, -10</GeoTransform></PAMDataset>"
    )
    info = describe_raster(here(path), Input())
    with pytest.raises(InputError, match=r"beside it in a\.tif\.aux\.xml, .* set input.sidecars: true"):
        require_imagery(info, Input(pixel_coordinates=leave))
    with pytest.raises(InputError, match=r"set input\.sidecars: true"):
        grid_of(info, utm_grid(*SHAPE), "'before'")
    read = describe_raster(here(path), Input(sidecars=True))
    assert require_imagery(read, Input(sidecars=True)).grid == Grid(
        *SHAPE, NORTH_UP, canonical_wkt(CRS.from_epsg(32633))
    )


# Labels and valid rasters


def label_config(folder: Path) -> Config:
    return make_config(folder, label={"changed": [1], "unchanged": [0]})


@pytest.mark.parametrize("crs", [None, SITE])
def test_a_label_in_the_pairs_plane_lies_by_its_transform(tmp_path: Path, crs: str | None) -> None:
    grid = Grid(*SHAPE, NORTH_UP, crs)
    values = np.random.default_rng(1).integers(0, 2, SHAPE, np.uint8)
    label = here(write_raster(tmp_path / "l.tif", values, later(grid)))
    found = read_label(label, grid, Window(0, 0, *SHAPE), label_config(tmp_path))
    assert (found[10:, 8:] == values[:50, :72]).all()
    assert (found[:10] == 255).all()
    assert (found[:, :8] == 255).all()


@pytest.mark.parametrize("of_label", [None, UTM33])
def test_a_label_that_names_no_crs_is_taken_where_its_pixels_are_the_pairs(
    tmp_path: Path, of_label: str | None
) -> None:
    """Or names one where the pair's dates do not."""
    grid = Grid(*SHAPE, NORTH_UP, UTM33 if of_label is None else None)
    values = np.random.default_rng(1).integers(0, 2, SHAPE, np.uint8)
    same = here(write_raster(tmp_path / "l.tif", values, Grid(*SHAPE, NORTH_UP, of_label)))
    assert (read_label(same, grid, Window(0, 0, *SHAPE), label_config(tmp_path)) == values).all()
    other = here(write_raster(tmp_path / "m.tif", values, later(Grid(*SHAPE, NORTH_UP, of_label))))
    with pytest.raises(InputError, match=r"expected it to lie with 'before'.*has a transform without a CRS and"):
        read_label(other, grid, Window(0, 0, *SHAPE), label_config(tmp_path))


def test_masks_without_a_place_lie_on_dates_of_their_size_and_that_is_said(tmp_path: Path) -> None:
    grid = Grid(*SHAPE, NORTH_UP)
    pair = make_pair(tmp_path, grid, later(grid))
    label = here(write_raster(tmp_path / "l.tif", np.ones(SHAPE, np.uint8)))
    valid = here(write_raster(tmp_path / "v.tif", np.ones(SHAPE, np.uint8)))
    pair = Pair("p", "p", pair.before, pair.after, pair.roles, label, after_valid=valid)
    report = check_pair(pair, label_config(tmp_path))
    assert not report.problems
    said = [text for text in report.warnings if "taken to lie pixel on pixel on" in text]
    assert [text.partition(": ")[0] for text in said] == [str(valid), str(label)]
    _, seen = read_on_grid(pair.after, valid, grid, Window(0, 0, *SHAPE), label_config(tmp_path))
    assert seen.sum() == 50 * 72


# Planes of their own


def test_a_plane_is_its_name_and_unit() -> None:
    spellings = [
        'LOCAL_CS["site",UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH]]',
        'LOCAL_CS["site",LOCAL_DATUM["d",32767],UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]',
        'ENGCRS["site",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
    ]
    assert {canonical_wkt(CRS.from_wkt(text)) for text in spellings} == {SITE}
    assert (crs_name(SITE), on_earth(SITE), plane_unit(SITE)) == ("site", False, 1)
    assert plane_unit(FEET) == pytest.approx(0.3048006)
    assert plane_unit(canonical_wkt(CRS.from_wkt('LOCAL_CS["x",UNIT["pixel",1]]'))) is None
    assert plane_unit(UTM33) is plane_unit(None) is None


@pytest.mark.parametrize(("crs", "unit"), [(SITE, 1.0), (FEET, 0.304800609601219)])
def test_areas_and_lengths_in_a_plane_are_its_own(crs: str, unit: float) -> None:
    grid = Grid(50, 70, PLANES["turned"], crs)
    assert has_areas(grid)
    assert pixel_metres(grid) == pytest.approx((10 * unit, 10 * unit))
    assert row_areas(grid) == pytest.approx(np.full(50, 100 * unit**2))
    ring = np.array([[0, 0], [0, 30], [20, 30], [20, 0], [0, 0]])
    assert ring_areas(grid, ring, np.array([5])) == pytest.approx([20 * 30 * 100 * unit**2])
    assert pixel_steps(grid, 3, 4) == pytest.approx(np.array([[6, -8], [8, 6]]) * unit)
    assert find_near({"a": grid, "b": grid}, 64) == []


def test_a_plane_without_a_name_is_counted_in_pixels() -> None:
    grid = Grid(50, 70, NORTH_UP)
    assert not has_areas(grid)
    assert pixel_metres(grid) is None
    ring = np.array([[0, 0], [0, 30], [20, 30], [20, 0], [0, 0]])
    assert ring_areas(grid, ring, np.array([5])) == pytest.approx([600])


@pytest.mark.parametrize("crs", ["EPSG:4978", "EPSG:5773"])
def test_a_crs_of_no_map_is_refused(tmp_path: Path, crs: str) -> None:
    path = tmp_path / "a.vrt"
    wkt = pyproj.CRS.from_user_input(crs).to_wkt("WKT2_2019").replace('"', "&quot;")
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="6"><SRS>{wkt}</SRS><GeoTransform>5,1,0,7,0,-1</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    with pytest.raises(InputError, match="which is of no map; expected a projected one"):
        describe_raster(here(path), Input(drivers=("VRT",)))


def test_stacked_bands_keep_a_plane(tmp_path: Path) -> None:
    grid = Grid(*SHAPE, NORTH_UP)
    bands = {name: write_raster(tmp_path / f"{name}.tif", LAND[0, :60, :80], grid) for name in ("red", "nir")}
    stack_bands(bands, tmp_path / "stack.tif", Input())
    with rasterio.open(tmp_path / "stack.tif") as dataset:
        assert (dataset.transform[:6], dataset.crs) == (NORTH_UP, None)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
@pytest.mark.parametrize("crs", [None, SITE, FEET])
def test_objects_of_a_plane_keep_its_coordinates(tmp_path: Path, suffix: str, crs: str | None) -> None:
    grid = Grid(*SHAPE, PLANES["turned"], crs)
    placed = to_map(np.array([shapely.box(3, 4, 10, 20)]), grid)
    schema = pa.schema([(GEOMETRY, pa.binary()), ("id", pa.string())])
    batch = pa.RecordBatch.from_pydict({GEOMETRY: encode(placed), "id": ["x"]}, schema=schema)
    write_features(here(tmp_path / f"a{suffix}"), [batch], schema, crs, {})
    [found] = decode(next(iter(read_features(here(tmp_path / f"a{suffix}")))))
    assert found.equals(placed[0])
    if suffix == ".gpkg":
        written = pyogrio.read_info(tmp_path / "a.gpkg")["crs"]
        assert (written is None) == (crs is None)
        assert crs is None or canonical_wkt(CRS.from_user_input(written)) == crs


def test_points_of_an_area_lie_in_their_plane() -> None:
    points = [("a", 0, 2, 3)]
    for crs in (None, SITE):
        grid = Grid(*SHAPE, PLANES["south up"], crs)
        [point], found = place_points(points, {"a": grid})
        assert (found, point.x, point.y) == (crs, *grid.xy(2.5, 3.5))
    two = {"a": Grid(*SHAPE, NORTH_UP, SITE), "b": Grid(*SHAPE, NORTH_UP, FEET)}
    placed, found = place_points([*points, ("b", 0, 2, 3)], two)
    assert found is None
    assert {(point.x, point.y) for point in placed} == {two["a"].xy(2.5, 3.5)}


@pytest.mark.parametrize(("of_pair", "of_label"), [(SITE, UTM33), (UTM33, SITE), (None, UTM33), (SITE, FEET)])
def test_polygons_of_another_kind_of_place_are_refused(tmp_path: Path, of_pair: str | None, of_label: str) -> None:
    grid = Grid(*SHAPE, NORTH_UP, of_pair)
    x, y = grid.xy(30.0, 40.0)
    write_polygon(tmp_path / "a.gpkg", x, y, of_label)
    with pytest.raises(InputError, match=r"nobody knows where it lies|has none") as caught:
        read_label(here(tmp_path / "a.gpkg"), grid, Window(0, 0, *SHAPE), label_config(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(str(tmp_path / "a.gpkg"))


@pytest.mark.parametrize("crs", [None, SITE])
def test_polygons_in_the_pairs_plane_are_burnt(tmp_path: Path, crs: str | None) -> None:
    grid = Grid(*SHAPE, NORTH_UP, crs)
    x, y = grid.xy(30.0, 40.0)
    write_polygon(tmp_path / "a.gpkg", x, y, crs)
    label = read_label(here(tmp_path / "a.gpkg"), grid, Window(0, 0, *SHAPE), label_config(tmp_path))
    assert label.sum() == label[20:40, 30:50].sum() == 400


def write_polygon(path: Path, x: float, y: float, crs: str | None) -> None:
    """A square of 200 units around a point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.raw.write(
            path,
            np.array([shapely.to_wkb(shapely.box(x - 100, y - 100, x + 100, y + 100))]),
            [],
            [],
            geometry_type="Polygon",
            crs=crs,
        )
