"""What lies beside a raster and is not read is refused or told, never dropped in silence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rasters import make_config, source_of, utm_grid, write_mask, write_raster

from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import PairReport, check_pair
from cdpipe.workspace.location import here

HEIGHT, WIDTH = 24, 32
GRID = utm_grid(HEIGHT, WIDTH)
VALUES = np.random.default_rng(5).integers(1, 255, (3, HEIGHT, WIDTH)).astype(np.uint8)
HALF = (np.arange(HEIGHT * WIDTH) % 2).reshape(HEIGHT, WIDTH).astype(np.uint8)
BANDS = {"red": 1, "green": 2, "blue": 3}
NODATA = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
STATISTICS = NODATA.replace("<NoDataValue>7</NoDataValue>", '<Metadata><MDI key="MEAN">7</MDI></Metadata>')


def write_masked(path: Path, values: Any = VALUES) -> Path:
    """A raster with its mask beside it, as GDAL writes one unless it is told to write it inside."""
    mask = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3 > 0
    assert write_mask(write_raster(path, values, GRID), mask, inside=False).is_file()
    return path


def checked(folder: Path, sensor: dict[str, Any] | None = None, sections: Any = None, **files: Any) -> PairReport:
    """The check of before.tif and after.tif, beside which whatever is not there yet is plain."""
    for name in ("before.tif", "after.tif"):
        if not (folder / name).exists():
            write_raster(folder / name, VALUES, GRID)
    config = make_config(folder, sensors={"s": {"bands": BANDS} | (sensor or {})}, **(sections or {}))
    before, after = (source_of(folder / name, config, (1, 2, 3)) for name in ("before.tif", "after.tif"))
    others: dict[str, Any] = {name: here(folder / file) for name, file in files.items()}
    return check_pair(Pair("p", "p", before, after, ("red", "green", "blue"), **others), config)


def test_a_mask_beside_a_date_counts_or_is_refused(tmp_path: Path) -> None:
    write_masked(tmp_path / "after.tif")
    [problem] = checked(tmp_path).problems
    assert problem.startswith(str(tmp_path / "after.tif"))
    assert "after.tif.msk" in problem
    assert "input.sidecars: true, or sensors.s.mask: ignore" in problem
    assert checked(tmp_path, {"mask": "ignore"}).problems == ()
    counted = checked(tmp_path, sections={"input": {"sidecars": True}})
    assert counted.problems == ()
    assert counted.masks[1] is not None
    assert counted.masks[1].share == pytest.approx(1 / 3)


def test_a_mask_beside_a_source_of_a_vrt_counts_or_is_refused(tmp_path: Path) -> None:
    write_masked(tmp_path / "part.tif")
    with rasterio.open(tmp_path / "part.tif") as source:
        copy(source, tmp_path / "after.tif", driver="VRT")
    assert "mask,1" in (tmp_path / "after.tif").read_text()
    opened = {"drivers": ["GTiff", "VRT"]}
    [problem] = checked(tmp_path, sections={"input": opened}).problems
    assert "its mask lies beside it in part.tif.msk" in problem
    counted = checked(tmp_path, sections={"input": opened | {"sidecars": True}})
    assert counted.problems == ()
    assert counted.masks[1] is not None
    assert counted.masks[1].share == pytest.approx(1 / 3)


def test_a_mask_beside_a_quality_raster_or_a_label_counts_or_is_refused(tmp_path: Path) -> None:
    write_masked(tmp_path / "valid.tif", HALF)
    write_masked(tmp_path / "label.tif", HALF)
    for role, way_out in (("before_valid", "take it away"), ("label", "label.mask: ignore")):
        name = f"{role.removeprefix('before_')}.tif"
        files: dict[str, Any] = {role: name}
        [problem] = checked(tmp_path, **files).problems
        assert problem.startswith(f"{tmp_path / name}: its mask lies beside it in {name}.msk")
        assert way_out in problem
        assert checked(tmp_path, sections={"input": {"sidecars": True}}, **files).problems == ()
    assert checked(tmp_path, sections={"label": {"mask": "ignore"}}, label="label.tif").problems == ()


def test_nodata_beside_a_date_is_told(tmp_path: Path) -> None:
    pam = tmp_path / "before.tif.aux.xml"
    pam.write_text(NODATA)
    [warning] = checked(tmp_path).warnings
    assert "before.tif.aux.xml beside it has a nodata value" in warning
    assert checked(tmp_path, {"nodata": 7}).warnings == ()
    pam.write_text(STATISTICS)
    assert checked(tmp_path).warnings == ()


@pytest.mark.parametrize(("shift", "told"), [(0.0, False), (5.0, False), (640.0, True)])
def test_a_world_file_that_contradicts_the_file_is_told(tmp_path: Path, shift: float, told: bool) -> None:
    a, b, c, d, e, f = GRID.transform
    lines = (a, d, b, e, c + a / 2 + shift, f + e / 2)
    (tmp_path / "after.tfw").write_text("\n".join(map(str, lines)))
    warnings = checked(tmp_path).warnings
    assert [("after.tfw" in text and "another place" in text) for text in warnings] == [True] * told


def test_a_world_file_that_is_none_does_no_harm_where_it_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "after.tfw").write_text("no numbers")
    report = checked(tmp_path)
    assert report.problems == ()
    assert report.warnings == ()


@pytest.mark.parametrize(("scale", "told"), [(0.0001, False), (1.0, True)])
def test_a_probability_is_compared_as_the_file_scales_it(tmp_path: Path, scale: float, told: bool) -> None:
    write_raster(tmp_path / "valid.tif", np.where(HALF == 1, 9300, 30).astype(np.uint16), GRID)
    with rasterio.open(tmp_path / "valid.tif", "r+") as dataset:
        dataset.scales = (scale,)
    warnings = checked(tmp_path, {"quality": {"above": 0.4}}, before_valid="valid.tif").warnings
    assert any("another scale" in text for text in warnings) == told
