"""What people write that is not quite right: it is told with its cause, and nothing is lost over it in silence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyogrio.raw import write as write_layer
from rasterio.crs import CRS
from rasters import UTM33, make_config, source_of, utm_grid, write_raster

from cdpipe.config.load import load_config
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.missing_files import why_missing
from cdpipe.formats.polygons import open_layer
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_catalog
from cdpipe.workspace.location import here

GRID = utm_grid(40, 50)
WHOLE = "name: t\ncatalog: pairs.csv\nworkspace: {work}\nsensors: {{s: {{bands: {{red: 1, green: 2, blue: 3}}}}}}\n"


def write_yaml(folder: Path, work: str = "work", more: str = "") -> Path:
    path = folder / "c.yaml"
    path.write_text(WHOLE.format(work=work) + more)
    return path


def warnings_of(label: Path, folder: Path, **options: Any) -> str:
    """All that the check doubts of a pair with a label."""
    image = np.random.default_rng(0).integers(1, 999, (3, *GRID.shape)).astype(np.uint16)
    config = make_config(folder, label=options)
    before, after = (
        source_of(write_raster(folder / f"{date}.tif", image + n, GRID), config, (1, 2, 3))
        for n, date in enumerate(("before", "after"))
    )
    report = check_catalog(config, [Pair("p", "p", before, after, ("red", "green", "blue"), here(label))])
    assert not report.pairs[0].problems
    return "\n".join([*report.warnings, *report.pairs[0].warnings])


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("folder", "it is a folder"),
        ("$DATA/b.tif", "variables of the environment"),
        ("%USERPROFILE%/b.tif", "variables of the environment"),
        ('"b.tif"', "quotes"),
        ("\u201cb.tif\u201d", "quotes"),
        ("\u200bb.tif", "cannot be seen"),
        ("folder\\b.tif", "separated by /"),
        ("B.TIF", "capitals"),
        ("A\u0308.tif", "accents"),
        ("netcdf:b.nc:x", "input.variables"),
        ("other.tif", ""),
    ],
)
def test_why_a_file_is_not_there(tmp_path: Path, name: str, cause: str) -> None:
    (tmp_path / "folder").mkdir()
    for there in ("b.tif", "\u00c4.tif"):
        (tmp_path / there).touch()
    told = why_missing(here(tmp_path / name))
    assert cause in told
    assert bool(told) == bool(cause)


@pytest.mark.parametrize(
    "place", ["D:\\work", "C:/work", "\\\\server\\work", "$HOME/work", "${HOME}/work", "%TEMP%/work"]
)
def test_paths_of_others_are_no_folders_of_ours(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=r"workspace: got .*(not one of Windows|variables of the environment)"):
        load_config(write_yaml(tmp_path, f"'{place}'"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("label: {changed: [#ff0000]}\n", "colours need quotes"),
        ('predict: {models: ["C:\\Users\\x"]}\n', "write / between folders"),
        ("label: {changed: 1}\n", r"got 1; Input should be a list, as \[a, b\]"),
        ("label:\n", r"got None; Input should be a mapping, as \{key: value\}"),
    ],
)
def test_mistakes_in_a_configuration_have_their_words(tmp_path: Path, more: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(write_yaml(tmp_path, more=more))


def test_labels_that_are_mostly_change_are_doubted(tmp_path: Path) -> None:
    label = np.zeros(GRID.shape, np.uint8)
    label[:5] = 1
    assert "swapped" not in warnings_of(write_raster(tmp_path / "label.tif", label, GRID), tmp_path)
    told = warnings_of(write_raster(tmp_path / "inverted.tif", 1 - label, GRID), tmp_path)
    assert "88% of all labelled pixels changed; are label.changed and label.unchanged swapped?" in told


def test_settings_for_polygons_say_nothing_of_rasters(tmp_path: Path) -> None:
    label = write_raster(tmp_path / "label.tif", np.zeros(GRID.shape, np.uint8), GRID)
    assert "label.where, label.covers: for labels of polygons" in warnings_of(label, tmp_path, where="a", covers=True)


@pytest.mark.parametrize(("size", "told"), [(2.0, True), (30.0, False)])
def test_polygons_smaller_than_pixels_are_pointed_out(tmp_path: Path, size: float, told: bool) -> None:
    a, _, c, _, e, f = GRID.transform
    x, y = c + 10.1 * a, f + 10.1 * e
    path, wkb = tmp_path / "label.gpkg", np.array([shapely.to_wkb(shapely.box(x, y - size, x + size, y))], object)
    write_layer(path, geometry=wkb, field_data=[], fields=[], geometry_type="Polygon", crs=GRID.crs, driver="GPKG")
    assert ("no pixel's centre lies in them" in warnings_of(path, tmp_path)) == told


@pytest.mark.parametrize("suffix", [".shx", ".DBF", ".prj"])
def test_parts_of_a_shapefile_lead_to_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"label{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"part of a Shapefile; name its \.shp"):
        open_layer(here(path), make_config(tmp_path))


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_lines_beside_a_scene_are_no_label_of_it(tmp_path: Path, suffix: str) -> None:
    line = shapely.LineString([(500_000, 5_300_000), (600_000, 5_400_000)])
    path, wkb = tmp_path / f"label{suffix}", np.array([shapely.to_wkb(line)], object)
    driver = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}[suffix]
    write_layer(
        path, geometry=wkb, field_data=[], fields=[], geometry_type="LineString", crs="EPSG:32633", driver=driver
    )
    with pytest.raises(InputError, match="expected polygons, got LineString; buffer or remove them"):
        open_layer(here(path), make_config(tmp_path))


@pytest.mark.parametrize(
    ("crs", "understood"), [("EPSG:32633", True), (UTM33, True), ("+proj=utm +zone=33", False), ("x", False)]
)
def test_crs_of_geoparquet_as_programs_write_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], crs: str, understood: bool
) -> None:
    about = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": about}}
    table = pa.table({"geometry": [shapely.to_wkb(shapely.box(0, 0, 1, 1))]})
    path = here(tmp_path / "label.parquet")
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path.local())
    if understood:
        assert CRS.from_user_input(open_layer(path, make_config(tmp_path)).crs).to_epsg() == 32633
    else:
        with pytest.raises(InputError, match="got another form"):
            open_layer(path, make_config(tmp_path))
    assert capfd.readouterr().err == ""
