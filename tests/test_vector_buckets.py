"""Labels of polygons in object storage: every format reads as on a disk."""

from pathlib import Path

import numpy as np
import pytest
from rasters import make_config
from vector_labels import GRID, box, burnt, write_layer, zipped

from cdpipe.errors import InputError
from cdpipe.formats.vector_gate import vector_files
from cdpipe.geo.grid import Window
from cdpipe.pairs.labels import read_label
from cdpipe.workspace.location import Location

SHAPES = [box(5, 5, 25, 40), box(30, 50, 50, 70)]


def upload(path: Path, bucket: Location) -> Location:
    for file in sorted(path.rglob("*")) if path.is_dir() else sorted(path.parent.glob(f"{path.stem}.*")):
        (bucket / str(file.relative_to(path.parent))).write(file.read_bytes())
    return bucket / path.name


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "gdb", "geojson", "parquet", "tab"])
def test_polygons_in_a_bucket_read_as_on_a_disk(bucket: Location, tmp_path: Path, suffix: str) -> None:
    path = write_layer(tmp_path / f"m.{suffix}", SHAPES, ["changed", "unchanged"])
    far, config = upload(path, bucket), make_config(tmp_path, label={"where": "status = 'changed'"})
    label = read_label(far, GRID, Window(0, 0, *GRID.shape), config)
    assert np.array_equal(label, burnt(path, config))
    assert label.sum() == 20 * 35
    inside = [file.name for file in path.iterdir()] if path.is_dir() else [f.name for f in tmp_path.glob("m.*")]
    found = {file.name for file in vector_files(far)}
    assert found <= set(inside)
    assert all(file.sha256() for file in vector_files(far))


def test_a_zip_in_a_bucket_and_what_is_missing(bucket: Location, tmp_path: Path) -> None:
    write_layer(tmp_path / "m.shp", SHAPES)
    path = zipped(tmp_path / "n.shp.zip", *tmp_path.glob("m.*"))
    (bucket / path.name).write(path.read_bytes())
    window, config = Window(0, 0, *GRID.shape), make_config(tmp_path)
    assert read_label(bucket / path.name, GRID, window, config).sum() == 20 * 35 + 20 * 20
    for name in ("x.gpkg", "x.gdb", "x.shp"):
        with pytest.raises(InputError, match=r"there is no such file|expected a folder"):
            read_label(bucket / name, GRID, window, config)
