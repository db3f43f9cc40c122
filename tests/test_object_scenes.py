"""Scenes, labels and catalogs in object storage: what comes of them is what comes of files, through the same gate."""

import random
import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
import yaml
from buckets import SECRET, Proxy
from project import CONFIG, Project, make_project, write_catalog
from rasterio.crs import CRS
from rasters import make_config, utm_grid, write_mask, write_raster

from cdpipe.cli.main import main
from cdpipe.config.load import load_config
from cdpipe.config.schema import Config, Input
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.gate import describe_raster, open_raster, parts_of, read_values
from cdpipe.formats.observed import open_mask
from cdpipe.formats.parts import sidecars_of
from cdpipe.geo.crs import canonical_wkt
from cdpipe.geo.grid import Window
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.ingest import IngestJob, create_pair_groups, end_pair, ingest_block, plan_blocks
from cdpipe.pairs.labels import read_label
from cdpipe.pairs.plan import plan_pairs, source_files
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here
from cdpipe.workspace.remembered import forget_everything


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"), ("test", "row"))


def upload(folder: Path, target: Location) -> None:
    """What a tool such as ``aws s3 sync`` does."""
    for file in folder.rglob("*"):
        if file.is_file():
            (target / str(file.relative_to(folder))).take(file)


def config_in(folder: Path, **sections: object) -> Config:
    """A configuration file's content, by way of the file."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **sections}))
    return load_config(path)


def jobs_of(config: Config) -> list[IngestJob]:
    pairs = read_catalog(config)
    hashes = {file: file.sha256() for pair in pairs for file in source_files(pair, config)}
    planned, failed = plan_pairs(pairs, config, hashes)
    assert not failed
    return [IngestJob(Workspace(config.workspace), config, item) for item in planned]


def ingest(config: Config) -> int:
    """Ingest what is missing; the number of blocks that were."""
    jobs = jobs_of(config)
    tasks = plan_blocks(jobs)
    for task in tasks:
        create_pair_groups(jobs[task.pair])
        ingest_block(jobs[task.pair], task.key, imagery=task.imagery, label=task.label)
    assert [end_pair(job) for job in jobs] == [None] * len(jobs)
    return len(tasks)


def contents(folder: Location) -> dict[str, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file, _ in folder.walk()}


def test_from_bucket_to_bucket_the_same_bytes_and_synced_ones_are_not_made_again(
    project: Project, bucket: Location, tmp_path: Path, proxy: Proxy
) -> None:
    near = config_in(project.config.parent, workspace=str(tmp_path / "work"))
    assert ingest(near) == 2
    expected = contents(here(tmp_path / "work"))
    upload(project.config.parent, bucket / "data")
    far = config_in(tmp_path, catalog=f"{bucket}/data/pairs.csv", workspace=f"{bucket}/work")
    proxy.chance, proxy.faults = random.Random(2), {"500": 0.05, "reset": 0.05, "cut": 0.1, "late": 0.05}
    assert ingest(far) == 2
    proxy.faults = {}
    assert contents(bucket / "work") == expected
    # from disk to bucket
    upload(tmp_path / "work", bucket / "synced")
    assert ingest(config_in(tmp_path, catalog=f"{bucket}/data/pairs.csv", workspace=f"{bucket}/synced")) == 0
    # and back
    shutil.rmtree(tmp_path / "work")
    for path, _ in (bucket / "work").walk():
        file = tmp_path / "work" / path.relative_to(bucket / "work")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())
    assert ingest(near) == 0


def test_a_header_costs_a_few_requests_and_a_replaced_scene_is_seen(
    bucket: Location, tmp_path: Path, proxy: Proxy
) -> None:
    grid = utm_grid(900, 900)
    path = bucket / "scene.tif"
    for value in (1, 2):
        path.take(write_raster(tmp_path / "scene.tif", np.full((3, *grid.shape), value, np.uint16), grid))
        proxy.seen.clear()
        assert describe_raster(path, Input()).grid.same_pixels(grid)
        assert sum(proxy.seen.values()) <= 6, proxy.seen
        with open_raster(path, Input()) as dataset:
            assert np.unique(read_values(dataset, path, [1, 2, 3], Window(0, 0, 64, 64))) == [value]


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_polygons_in_a_bucket_are_read_as_files(bucket: Location, tmp_path: Path, suffix: str) -> None:
    grid = utm_grid(40, 50)
    (left, top), (right, bottom) = grid.xy(5, 5), grid.xy(20, 30)
    box = shapely.box(left, bottom, right, top)
    path = tmp_path / f"label{suffix}"
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array([box])), [], [], geometry_type="Polygon", crs=grid.crs, promote_to_multi=False
    )
    upload(tmp_path, bucket)
    config = make_config(tmp_path)
    window = Window(0, 0, *grid.shape)
    near = read_label(here(path), grid, window, config)
    assert 0 < near.sum() < near.size
    np.testing.assert_array_equal(read_label(bucket / path.name, grid, window, config), near)


def test_the_gate_holds_in_a_bucket(bucket: Location, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "a.tif", np.ones((3, 20, 20), np.uint16), utm_grid(20, 20))
    for place in ("in/a.tif", "out/a.tif"):
        (bucket / place).take(scene)
    (bucket / "in/a.vrt").write(b"<VRTDataset/>")
    settings = Input(roots=(bucket / "in",))
    assert describe_raster(bucket / "in/a.tif", settings).count == 3
    for place, reason in {
        "out/a.tif": "outside of",
        "in/../out/a.tif": "outside of|expected an address",
        "in/b.tif": "no such file",
        "in/a.vrt": "expected a raster in GTiff",
    }.items():
        with pytest.raises((InputError, ConfigError), match=reason):
            describe_raster(bucket / place, settings)
    with pytest.raises(InputError, match="outside of"):
        describe_raster(here(scene), settings)
    with pytest.raises(InputError, match="outside of"):
        describe_raster(bucket / "in/a.tif", Input(roots=(here(tmp_path),)))


def test_a_cut_off_or_damaged_scene_in_a_bucket_is_an_input_error(bucket: Location, tmp_path: Path) -> None:
    grid = utm_grid(600, 600)
    values = np.random.default_rng(0).integers(0, 60000, (1, 600, 600)).astype(np.uint16)
    data = write_raster(
        tmp_path / "a.tif", values, grid, tiled=True, blockxsize=256, blockysize=256, compress="deflate"
    ).read_bytes()
    (bucket / "cut.tif").write(data[: len(data) // 2])
    (bucket / "bad.tif").write(data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :])
    for name in ("cut.tif", "bad.tif"):
        with pytest.raises(InputError), open_raster(bucket / name, Input()) as dataset:
            read_values(dataset, bucket / name, [1], Window(0, 0, 600, 600))


def test_a_catalog_names_scenes_anywhere_but_repeats_no_secret(project: Project, tmp_path: Path) -> None:
    rows = [
        {"pair_id": "a", "before": "s3://bucket/b.tif", "after": str(project.config.parent / "test/after.tif")},
        {"pair_id": "b", "before": f"s3://k:{SECRET}@bucket/b.tif", "after": f"https://host/a.tif?token={SECRET}"},
    ]
    write_catalog(tmp_path / "pairs.csv", rows[:1])
    [pair] = read_catalog(config_in(tmp_path, workspace="s3://bucket/work"))
    assert str(pair.before.path) == "s3://bucket/b.tif"
    assert pair.after.path.local() == project.config.parent / "test/after.tif"
    write_catalog(tmp_path / "pairs.csv", rows)
    with pytest.raises(InputError) as caught:
        read_catalog(config_in(tmp_path))
    assert SECRET not in str(caught.value)
    assert str(caught.value).count("not supported") + str(caught.value).count("without user") == 2


def test_a_configuration_prints_addresses_whole_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_in(tmp_path, workspace="s3://bucket/work", input={"roots": ["gs://scenes/2025"]})
    assert main(["config", str(tmp_path / "config.yaml")]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["workspace"], shown["input"]["roots"]) == ("s3://bucket/work", ["gs://scenes/2025"])
    for text in (f"s3://k:{SECRET}@bucket/work", f"s3://bucket/work?X-Amz-Signature={SECRET}"):
        assert main(["config", str(tmp_path / "config.yaml"), "--set", f"workspace={text}"]) == 2
        assert SECRET not in "".join(capsys.readouterr())


def test_world_files_are_found_in_a_bucket(bucket: Location, tmp_path: Path) -> None:
    grid = utm_grid(6, 8)
    (tmp_path / "data").mkdir()
    write_raster(tmp_path / "data" / "a.tif", np.ones((3, 6, 8), np.uint8))
    (tmp_path / "data" / "a.tfw").write_text("10\n0\n0\n-10\n500005\n3999995\n")
    (tmp_path / "data" / "a.prj").write_text(pyproj.CRS.from_epsg(32633).to_wkt("WKT1_ESRI"))
    write_raster(tmp_path / "data" / "b.tif", np.ones((3, 6, 8), np.uint8))
    (tmp_path / "data" / "b.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>")
    upload(tmp_path / "data", bucket)
    found = describe_raster(bucket / "a.tif", Input()).grid
    assert (found.transform, found.crs) == (grid.transform, canonical_wkt(CRS.from_epsg(32633)))
    assert describe_raster(bucket / "b.tif", Input()).placing == bucket / "b.tif.aux.xml"
    with pytest.raises(InputError, match=r"a\.tfw: lies at .* outside of"):
        describe_raster(bucket / "a.tif", Input(roots=(bucket / "a.tif",)))


def test_masks_and_parts_of_a_raster_are_read_from_a_bucket(bucket: Location, tmp_path: Path, proxy: Proxy) -> None:
    grid, window = utm_grid(600, 700), Window(0, 0, 600, 700)
    seen = np.random.default_rng(0).random(grid.shape) > 0.5
    file = write_raster(tmp_path / "a.tif", np.ones((3, *grid.shape), np.uint8), grid, compress="deflate")
    write_mask(file, seen)
    (bucket / "data/a.tif").take(file)
    (bucket / "data/a.tfw").write(b"10\n0\n0\n-10\n500005\n3999995\n")
    (bucket / "data/a.tif.aux.xml").write(b"<PAMDataset></PAMDataset>")
    band = (
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    )
    (bucket / "data/b.vrt").write(f'<VRTDataset rasterXSize="700" rasterYSize="600">{band}</VRTDataset>'.encode())
    path, vrt = bucket / "data/a.tif", Input(drivers=("GTiff", "VRT"), roots=(bucket / "data",))
    with (
        open_raster(path, Input()) as dataset,
        open_mask(dataset, path, describe_raster(path, Input()).mask) as read,
    ):
        assert np.array_equal(read(window), seen)
    assert [file.name for file in parts_of(bucket / "data/b.vrt", vrt)] == ["a.tif"]
    assert [file.name for file in sidecars_of(path)] == ["a.tif.aux.xml"]
    proxy.seen.clear()
    forget_everything()
    assert [file.name for file in parts_of(path, Input())] == ["a.tfw"]
    assert sum(proxy.seen.values()) <= 2, proxy.seen
    with pytest.raises(InputError, match="outside of"):
        describe_raster(bucket / "data/b.vrt", Input(drivers=("VRT",), roots=(bucket / "other",)))
