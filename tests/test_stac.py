"""A run as STAC: valid by pystac and the schemas it brings, and links that lead to what is there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasters import GEOGRAPHIC, UTM33
from stored import bright_squares, store_change, store_pair, store_probability

from cdpipe.config.schema import Vectors
from cdpipe.geo.grid import Grid
from cdpipe.geo.shapes import footprint
from cdpipe.models.stac_item import ALWAYS
from cdpipe.objects.features import ChangeScene
from cdpipe.runs.products import ensure_written, is_written, recorded, write_product
from cdpipe.runs.rasters import PairRasters, raster_product
from cdpipe.runs.run_layer import plan_run_layer, run_layer_product
from cdpipe.runs.stac import StacCatalog, StacPair, describe_collection, stac_product
from cdpipe.runs.vectors import PairLayer, pair_layer_product
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here
from cdpipe.workspace.records import damaged_objects, read_record

SHAPE = (40, 60)
BARE = StoredPair("bare", "0" * 12, Grid(*SHAPE), 512, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})


def publish(workspace: Workspace, pair: StoredPair, dates: tuple[str | None, str | None]) -> tuple[PairLayer, StacPair]:
    """A pair's products, and what the catalog is to tell of it."""
    probability = np.random.default_rng(0).random(SHAPE, np.float32)
    store_change(workspace, pair, "change", probability, (probability >= 0.5).astype(np.uint8))
    store_probability(workspace, pair, "m", probability)
    layer = PairLayer("run", ChangeScene(workspace, pair, "change", (("m", 0.5),), Vectors(), dates), {})
    rasters = raster_product(PairRasters(workspace, "run", pair, "change", (), {}))
    vectors = pair_layer_product(layer)
    for product in (rasters, vectors):
        ensure_written(product)
    files = recorded(rasters) | recorded(vectors)
    return layer, StacPair(pair, "change", dates, {"2018.tif": ["ab"], "2024.tif": ["cd"]}, files)


def make_catalog(folder: Path) -> StacCatalog:
    """Two pairs, one of them without georeference and dates, and the layer of the run."""
    workspace = Workspace(here(folder))
    placed = store_pair(workspace, "a", *bright_squares(SHAPE, 0)).pair
    vectors, first = publish(workspace, placed, ("2018-05-01", "2024-05-01T10:30:00+02:00"))
    _, second = publish(workspace, BARE, (None, None))
    layer = plan_run_layer([vectors])
    assert layer is not None
    product = run_layer_product(layer)
    ensure_written(product)
    assert recorded(product)
    facts: dict[str, Any] = {"models": [{"name": "net", "key": "k", "weight": 1.0}], "threshold": 0.5}
    return StacCatalog(workspace, "run", (first, second), recorded(product), "1.2.3", facts)


@pytest.fixture
def catalog(tmp_path: Path) -> StacCatalog:
    made = make_catalog(tmp_path)
    product = stac_product(made)
    assert not is_written(product)
    ensure_written(product)
    assert is_written(product)
    return made


def test_collection_and_items_are_valid(catalog: StacCatalog) -> None:
    """Core schemas of STAC 1.1; those of extensions are on the network only."""
    validator = JsonSchemaSTACValidator()
    paths = {path: json.loads(path.read_text()) for path in catalog.folder.local().rglob("*.json")}
    assert len(paths) == 3
    for path, values in paths.items():
        kind = pystac.STACObjectType.COLLECTION if path.name == "collection.json" else pystac.STACObjectType.ITEM
        validator.validate_core(values, kind, "1.1.0", str(path))
    broken = {**values, "stac_version": "7"}
    with pytest.raises(pystac.STACValidationError):
        validator.validate_core(broken, kind, "1.1.0")


def test_pystac_walks_it_and_every_link_leads_somewhere(catalog: StacCatalog) -> None:
    collection = pystac.Collection.from_file(str(catalog.folder / "collection.json"))
    items = list(collection.get_items())
    assert [item.id for item in items] == ["a", "bare"]
    things: list[pystac.Collection | pystac.Item] = [collection, *items]
    for thing in things:
        for asset in thing.assets.values():
            assert not Path(asset.href).is_absolute()
            assert Path(str(asset.get_absolute_href())).exists()
        assert thing.get_root() is collection
    kinds = {"change", "probability", "change_style", "probability_style", "objects", "objects_style", "zarr"}
    assert set(items[0].assets) == kinds
    assert set(collection.assets) == {"objects", "objects_style"}
    assert collection.extent.spatial.bboxes == [items[0].bbox]
    assert collection.extent.temporal.intervals == [[None, None]]  # one pair's dates are not known
    boxes, spans = (
        [[170.0, 0.0, -170.0, 1.0], [5.0, -9.0, 6.0, 0.0]],
        [("2018-01-01T00:00:00Z", "2020-01-01T00:00:00Z")],
    )
    extent = describe_collection(catalog, boxes, spans)["extent"]
    assert extent == {"spatial": {"bbox": [[-180, -9.0, 180, 1.0]]}, "temporal": {"interval": [list(spans[0])]}}


def test_an_item_says_where_when_and_how(catalog: StacCatalog) -> None:
    item, bare = pystac.Collection.from_file(str(catalog.folder / "collection.json")).get_items()
    projection = ProjectionExtension.ext(item)
    assert projection.code == "EPSG:32633"
    assert projection.shape == list(SHAPE)
    assert projection.transform == list(catalog.pairs[0].pair.grid.transform)
    assert item.bbox is not None
    assert shapely.geometry.shape(item.geometry).bounds == pytest.approx(item.bbox)
    assert item.properties["start_datetime"] == "2018-05-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2024-05-01T08:30:00Z"
    assert item.properties["processing:software"] == {"cdpipe": "1.2.3"}
    assert item.properties["cdpipe:threshold"] == 0.5
    assert item.properties["cdpipe:sources"] == {"2018.tif": ["ab"], "2024.tif": ["cd"]}
    assert item.assets["change"].extra_fields["bands"][0]["nodata"] == 255
    checksum = item.assets["objects"].extra_fields["file:checksum"]
    assert checksum == "1220" + catalog.pairs[0].files["runs/run/vectors/a_change.gpkg"]
    assert (bare.geometry, bare.bbox) == (None, None)
    assert (bare.properties["start_datetime"], bare.properties["end_datetime"]) == ALWAYS
    assert not bare.properties["cdpipe:dates_known"]
    text = "".join(path.read_text() for path in catalog.folder.local().rglob("*.json"))
    assert str(catalog.workspace.root) not in text  # links are relative, sources known by name


def test_the_catalog_is_recorded_and_forgets_pairs_that_left(catalog: StacCatalog) -> None:
    record = read_record(stac_product(catalog).record)
    assert record is not None
    assert damaged_objects(record, catalog.workspace.root) == []
    assert len(record.objects) == 3
    before = {path: path.read_bytes() for path in catalog.folder.local().rglob("*.json")}
    write_product(stac_product(catalog))
    assert {path: path.read_bytes() for path in catalog.folder.local().rglob("*.json")} == before
    fewer = StacCatalog(
        catalog.workspace, catalog.run, catalog.pairs[:1], catalog.files, catalog.software, catalog.facts
    )
    product = stac_product(fewer)
    assert not is_written(product)
    write_product(product)
    assert {path.name for path in catalog.folder.local().rglob("*.json")} == {"collection.json", "a.json"}
    assert is_written(product)
    assert not is_written(stac_product(catalog))


def test_a_footprint_is_cut_at_the_antimeridian() -> None:
    grid = Grid(100, 300, (0.01, 0.0, 178.5, 0.0, -0.01, -10.0), GEOGRAPHIC)
    geometry, box = footprint(grid)
    assert geometry["type"] == "MultiPolygon"
    assert box == pytest.approx([178.5, -11.0, -178.5, -10.0])
    shape = shapely.geometry.shape(geometry)
    assert shape.bounds == pytest.approx((-180, -11, 180, -10))
    assert shape.area == pytest.approx(3.0)
    whole, around = footprint(Grid(100, 300, (10.0, 0.0, 500_000.0, 0.0, -10.0, 4e6), UTM33))
    assert whole["type"] == "Polygon"
    assert shapely.geometry.shape(whole).exterior.is_ccw
    assert shapely.geometry.shape(whole).bounds == pytest.approx(around)
