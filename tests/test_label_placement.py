"""A label beside its scene is not "nothing changed": it is refused, with the likely cause."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform
from rasters import GEOGRAPHIC, make_config, source_of, utm_grid, write_raster
from vector_labels import GRID, box, burnt, to_degrees, write_geojson, write_layer

from cdpipe.errors import InputError
from cdpipe.formats.polygons import SAMPLE
from cdpipe.geo.grid import Grid
from cdpipe.geo.placing import grid_extent, place_shapes, without_leaps
from cdpipe.geo.tilings import block_keys
from cdpipe.geo.turns import full_turn
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_pair
from cdpipe.pairs.ingest import IngestJob, create_pair_groups, ingest_block
from cdpipe.pairs.plan import plan_pair, source_files
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPES = [box(5, 5, 20, 30), box(30, 10, 50, 40), box(10, 50, 40, 70)]
CHANGED = 15 * 25 + 20 * 30 + 30 * 20


def moved(x: float = 0, y: float = 0) -> list[Any]:
    return [shapely.transform(shape, lambda xy: xy + np.array([x, y])) for shape in SHAPES]


def swapped(shapes: list[Any]) -> list[Any]:
    return [shapely.transform(shape, lambda xy: xy[:, ::-1]) for shape in shapes]


def in_crs(code: int) -> list[Any]:
    def move(xy: Any) -> Any:
        return np.stack(transform(CRS.from_epsg(32633), CRS.from_epsg(code), xy[:, 0], xy[:, 1]), -1)

    return [shapely.transform(shape, move) for shape in SHAPES]


def in_pixels(sign: int) -> list[Any]:
    def move(xy: Any) -> Any:
        rows, cols = GRID.row_col(xy[:, 0], xy[:, 1])
        return np.stack([cols, sign * rows], -1)

    return [shapely.transform(shape, move) for shape in SHAPES]


DEGREES = [to_degrees(shape) for shape in SHAPES]
BESIDE: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "exchanged": (lambda: swapped(DEGREES), "latitude and longitude seem to be exchanged"),
    "metres": (lambda: SHAPES, r"numbers fit the scene's own EPSG:32633: state that CRS"),
    "metres exchanged": (lambda: swapped(SHAPES), "fit the scene's own EPSG:32633 with x and y exchanged"),
    "another zone": (lambda: in_crs(32634), "numbers fit EPSG:32634"),
    "Web Mercator": (lambda: in_crs(3857), "numbers fit EPSG:3857"),
    "the sign": (
        lambda: [shapely.transform(shape, lambda xy: xy * [-1, 1]) for shape in DEGREES],
        "the sign of its longitudes seems to be wrong",
    ),
    "pixels": (lambda: in_pixels(1), "seem to be pixels of the scene"),
    "pixels upwards": (lambda: in_pixels(-1), "seem to be pixels of the scene"),
    "a neighbour's": (lambda: [to_degrees(shape) for shape in moved(x=900)], "is it the label of another scene"),
    "no degrees at all": (lambda: moved(x=5e6, y=3e6), "its numbers are no degrees, as EPSG:4326 has them"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_geojson_beside_its_scene_is_refused_with_the_cause(tmp_path: Path, name: str) -> None:
    make, cause = BESIDE[name]
    path = write_geojson(tmp_path / "m.geojson", make())
    with pytest.raises(InputError, match=cause) as error:
        burnt(path)
    text = str(error.value)
    if name.startswith("pixels"):
        return
    assert "none of its 3 polygons lie on the scene" in text
    assert "\n" not in text
    assert "in EPSG:4326, the scene's is x 15 to " in text
    assert "x 500000 to 500800, y 3999400 to 4000000 in EPSG:32633" in text
    if "no degrees" in name or "metres" in name or name in ("another zone", "Web Mercator"):
        with pytest.raises(InputError, match=cause):  # no layer of degrees covers anything there
            burnt(path, covers=True)
    else:
        assert not burnt(path, covers=True).any()


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "kml", "parquet", "gml"])
def test_other_formats_and_projected_coordinates_are_no_exception(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="is it the label of another scene"):
        burnt(write_layer(tmp_path / f"far.{suffix}", moved(y=5000)))
    if suffix != "kml":
        with pytest.raises(InputError, match="x and y seem to be exchanged: swapped, they lie on the scene"):
            burnt(write_layer(tmp_path / f"swapped.{suffix}", swapped(SHAPES)))
        with pytest.raises(InputError, match=r"says or implies EPSG:32633, but its numbers fit EPSG:4326"):
            burnt(write_layer(tmp_path / f"degrees.{suffix}", DEGREES))


def test_unchanged_is_where_the_layer_covers_the_scene(tmp_path: Path) -> None:
    around = [*moved(x=-2000, y=-2000), *moved(x=2000, y=2000)]
    path = write_layer(tmp_path / "city.gpkg", around)
    assert not burnt(path).any()
    assert not doubts(tmp_path, path)


def test_strays_do_not_save_a_layer(tmp_path: Path) -> None:
    """One polygon of 301 on the scene, and the layer's extent ends in its midst."""
    far = [
        shapely.transform(shape, lambda xy, k=k: xy + np.array([3000 + 30 * k, -3000]))
        for k in range(100)
        for shape in SHAPES
    ]
    path = write_layer(tmp_path / "m.gpkg", [box(40, 60, 45, 65), *far])
    with pytest.raises(InputError, match=r"only 0\.3% of its 301 polygons lie on the scene"):
        burnt(path)
    assert burnt(path, covers=True).sum() == 25


def test_a_scene_at_the_edge_of_a_city_is_used_and_told(tmp_path: Path) -> None:
    far = [
        shapely.transform(shape, lambda xy, k=k: xy + np.array([900 + 30 * k, 0]))
        for k in range(200)
        for shape in SHAPES
    ]
    path = write_layer(tmp_path / "m.gpkg", [box(2, 20, 58, 40), *far])
    assert burnt(path).sum() == 56 * 20
    (text,) = doubts(tmp_path, path)
    assert "100% of its polygons lie beside the scene, and 33% of the scene beyond all of them" in text
    assert not doubts(tmp_path, path, covers=True)
    own = write_layer(tmp_path / "own.gpkg", SHAPES)
    assert not doubts(tmp_path, own)


def test_an_impossible_number_among_many_good_ones_changes_nothing(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "m.geojson", [*DEGREES, shapely.box(5000, 5000, 5001, 5001)])
    assert burnt(path).sum() == CHANGED


def test_large_layers_are_judged_by_a_sample_and_their_extent(tmp_path: Path) -> None:
    small = shapely.box(*GRID.xy(30.0, 40.0), *(np.array(GRID.xy(30.0, 40.0)) + 1))
    many = [shapely.transform(small, lambda xy, k=k: xy + np.array([5000 + k, 5000])) for k in range(SAMPLE + 10)]
    path = write_layer(tmp_path / "m.fgb", many)
    with pytest.raises(InputError, match=f"none of its {SAMPLE + 10} polygons lie on the scene"):
        burnt(path)


def pair_of(folder: Path, label: Path, **section: Any) -> tuple[Pair, Any]:
    image = write_raster(folder / "i.tif", np.random.default_rng(0).integers(1, 99, (3, 60, 80), np.uint8), GRID)
    config = make_config(folder, label=section, align={"coregister": "off"})
    source = source_of(image, config, (1, 2, 3))
    return Pair("p", "p", source, source, ("red", "green", "blue"), label=here(label)), config


def doubts(folder: Path, label: Path, **section: Any) -> list[str]:
    return [text for text in check_pair(*pair_of(folder, label, **section)).warnings if label.name in text]


def test_it_is_refused_by_the_check_and_by_every_block(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "m.geojson", swapped(DEGREES))
    pair, config = pair_of(tmp_path, path)
    (problem,) = check_pair(pair, config).problems
    assert "exchanged" in problem
    planned = plan_pair(pair, config, {file: file.sha256() for file in source_files(pair, config)})
    job = IngestJob(Workspace(here(tmp_path / "work")), config, planned)
    create_pair_groups(job)
    (key,) = block_keys("p", planned.grid.shape, config.align.block)
    with pytest.raises(InputError, match="exchanged"):
        ingest_block(job, key, imagery=True, label=True)


MEMBER = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}


def features(crs: list[Any]) -> dict[str, Any]:
    return {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape), **own}
            for shape, own in zip(SHAPES, crs, strict=True)
        ],
    }


def test_a_crs_that_every_feature_states_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.geojson"
    path.write_text(json.dumps(features([{"crs": MEMBER}] * 3)))
    assert burnt(path).sum() == CHANGED
    path.write_text(
        json.dumps(
            {
                "type": "Feature",
                "crs": MEMBER,
                "properties": {},
                "geometry": features([{}] * 3)["features"][0]["geometry"],
            }
        )
    )
    assert burnt(path).sum() == 15 * 25
    geometry = {**shapely.geometry.mapping(SHAPES[0]), "crs": MEMBER}  # as PostGIS writes it
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry}]}))
    assert burnt(path).sum() == 15 * 25
    path.write_text("\n".join(json.dumps(feature) for feature in features([{"crs": MEMBER}] * 3)["features"]))
    assert burnt(path).sum() == CHANGED


@pytest.mark.parametrize(
    "crs",
    [
        [{"crs": MEMBER}, {"crs": MEMBER}, {}],
        [{}, {"crs": MEMBER}, {}],
        [{"crs": MEMBER}, {"crs": MEMBER}, {"crs": {"type": "EPSG", "properties": {"code": 32634}}}],
    ],
)
def test_features_of_several_crs_are_refused(tmp_path: Path, crs: list[Any]) -> None:
    path = tmp_path / "m.geojson"
    path.write_text(json.dumps(features(crs)))
    with pytest.raises(InputError, match=r"expected one coordinate reference system for the file, got .*EPSG:32633"):
        burnt(path)


# The antimeridian


def far_east(kind: str) -> Grid:
    """100 x 200 pixels whose middle lies at 180 degrees."""
    if kind.startswith("degrees"):
        return Grid(100, 200, (0.01, 0.0, float(kind.split()[1]), 0.0, -0.01, 0.5), GEOGRAPHIC)
    crs = CRS.from_epsg(int(kind))
    (x,), (y,) = transform(CRS.from_epsg(4326), crs, [180.0], [0.5])
    return Grid(100, 200, (1000.0, 0.0, x - 100_000, 0.0, -1000.0, y), crs.to_wkt())


SCENES = ("degrees 179", "degrees -181", "32660", "32601")
ACROSS = {
    "split": [shapely.box(179.8, 0, 180, 0.2), shapely.box(-180, 0, -179.8, 0.2)],
    "split, one feature": [shapely.MultiPolygon([shapely.box(179.8, 0, 180, 0.2), shapely.box(-180, 0, -179.8, 0.2)])],
    "leaping": [shapely.Polygon([(179.8, 0), (-179.8, 0), (-179.8, 0.2), (179.8, 0.2)])],
    "beyond 180": [shapely.box(179.8, 0, 180.2, 0.2)],
    "beyond -180": [shapely.box(-180.2, 0, -179.8, 0.2)],
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
def test_labels_in_degrees_meet_scenes_across_the_antimeridian(
    tmp_path: Path, scene: str, name: str, suffix: str
) -> None:
    grid, path = far_east(scene), tmp_path / f"m.{suffix}"
    if suffix == "gpkg":
        write_layer(path, ACROSS[name], crs="EPSG:4326", geometry_type="Unknown")
    else:
        write_geojson(path, ACROSS[name])
    rows, cols = np.nonzero(burnt(path, grid=grid))
    x, y = grid.xy((rows + 0.5).astype(np.float64), (cols + 0.5).astype(np.float64))
    lon, lat = np.array(transform(CRS.from_wkt(str(grid.crs)), CRS.from_epsg(4326), x, y))
    assert len(rows) == pytest.approx(40 * 20 if "degrees" in scene else 44.5 * 22.1, rel=0.03)
    assert (np.abs((lon % 360) - 180) < 0.201).all()
    assert ((lat > -0.001) & (lat < 0.201)).all()


@pytest.mark.parametrize("scene", SCENES)
def test_each_side_of_the_antimeridian_is_found(tmp_path: Path, scene: str) -> None:
    grid = far_east(scene)
    east, west = shapely.box(179.2, -0.4, 179.4, -0.2), shapely.box(-179.4, -0.4, -179.2, -0.2)
    counts = [int(burnt(write_geojson(tmp_path / "m.geojson", some), grid=grid).sum()) for some in ([east], [west])]
    both = burnt(write_geojson(tmp_path / "m.geojson", [east, west]), grid=grid)
    assert both.sum() == sum(counts)
    assert min(counts) > 300
    left, right = both[:, :100].sum(), both[:, 100:].sum()
    assert (left, right) == tuple(counts)


def test_a_projected_layer_meets_a_scene_in_degrees_across_the_antimeridian(tmp_path: Path) -> None:
    grid = far_east("degrees 179")
    zone = far_east("32660")
    path = write_layer(tmp_path / "m.gpkg", [box(40, 80, 60, 120, zone)], crs="EPSG:32660")
    label = burnt(path, grid=grid)
    assert label[:, :100].sum() == pytest.approx(label[:, 100:].sum(), rel=0.1)
    assert label.sum() == pytest.approx(36 * 18, rel=0.05)


def test_a_polar_scene_finds_polygons_of_all_longitudes(tmp_path: Path) -> None:
    grid = Grid(100, 100, (10_000.0, 0.0, -500_000.0, 0.0, -10_000.0, 500_000.0), CRS.from_epsg(3413).to_wkt())
    west, south, east, north = grid_extent(grid, GEOGRAPHIC) or (0, 0, 0, 0)
    assert (west, east, north) == (-180, 180, 90)
    assert 80 < south < 88
    shapes = [shapely.box(lon, 87, lon + 10, 88) for lon in range(-180, 180, 30)]
    label = burnt(write_geojson(tmp_path / "m.geojson", shapes), grid=grid)
    assert label.sum() == pytest.approx(12 * 10 / 360 * np.pi * (33.4**2 - 22.3**2), rel=0.15)


@settings(max_examples=50, deadline=None)
@given(lon=st.floats(-179, 179), width=st.floats(0.01, 100), turns=st.integers(-1, 1), edge=st.floats(-181, 181))
def test_outlines_in_degrees_lie_where_the_grid_counts_them(lon: float, width: float, turns: int, edge: float) -> None:
    """Whatever way longitudes are counted, an outline covers the same places of a grid in degrees."""
    grid = Grid(10, 100, (0.1, 0.0, edge, 0.0, -0.1, 1.0), GEOGRAPHIC)
    plain = shapely.box(lon, 0.0, lon + width, 1.0)
    coordinates = shapely.get_coordinates(plain)
    wrapped = shapely.set_coordinates(
        shapely.Polygon(plain), np.stack([(coordinates[:, 0] + 180) % 360 - 180, coordinates[:, 1]], 1)
    )
    other = shapely.transform(plain, lambda xy: xy + np.array([360 * turns, 0]))
    window = shapely.box(edge, 0, edge + 10, 1)
    areas = [
        shapely.area(shapely.intersection(shapely.union_all(place_shapes(np.array([shape]), GEOGRAPHIC, grid)), window))
        for shape in (plain, wrapped, other)
    ]
    expected = sum(max(0.0, min(lon + width + k, edge + 10) - max(lon + k, edge)) for k in (-720, -360, 0, 360, 720))
    assert areas == pytest.approx([expected] * 3, abs=1e-6)


def test_what_goes_all_around_is_no_leap() -> None:
    world = np.array([shapely.box(-180, -90, 180, 90)])
    assert without_leaps(world, 360.0)[0].equals(world[0])
    assert full_turn(GEOGRAPHIC) == pytest.approx(360)
    assert full_turn(utm_grid(2, 2).crs) is None
    assert full_turn(CRS.from_epsg(4807).to_wkt()) == pytest.approx(400)  # NTF (Paris) has grads
