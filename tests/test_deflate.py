"""Deflate streams are compared with their checksums by the pixels that GDAL has read, without inflating them again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import utm_grid, write_raster

from cdpipe.config.schema import Input
from cdpipe.formats import damage
from cdpipe.formats.gate import open_raster, read_values
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import here

SHAPE = 240, 192
LAYOUTS = ({"tiled": True, "blockxsize": 64, "blockysize": 80}, {"blockysize": 120})  # rows of one strip and a part


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiles", "strips"])
def test_whole_files_need_no_second_look(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    predictor: int,
    interleave: str,
    layout: dict[str, Any],
) -> None:
    values = np.random.default_rng(0).integers(0, 250, (3, *SHAPE)).astype(dtype)
    options = {"compress": "deflate", "predictor": predictor, "interleave": interleave, **layout}
    path = write_raster(tmp_path / "scene.tif", values, utm_grid(*SHAPE), **options)

    def inflate(*_: Any) -> bool:
        raise AssertionError("the checksum of a whole block did not match")

    monkeypatch.setattr(damage, "_is_whole", inflate)
    with open_raster(here(path), Input()) as dataset:
        for window in (Window(0, 0, *SHAPE), Window(70, 30, 100, 100)):
            read = read_values(dataset, here(path), (3, 1), window)
            assert np.array_equal(read, values[[2, 0]][:, *window.slices])
