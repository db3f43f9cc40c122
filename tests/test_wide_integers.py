"""Imagery of 64-bit integers, as NumPy and xarray write it: read as 32 bits where that fits, else refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasters import make_config, source_of, utm_grid, write_raster

from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster
from cdpipe.geo.grid import Window
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.check import check_pair
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.plan import plan_pair, source_files
from cdpipe.workspace.location import here

GRID = utm_grid(40, 60)
WHOLE = Window(0, 0, 40, 60)
PIXELS = np.random.default_rng(1).integers(0, 3000, (3, 40, 60))
LIMITS = {"int64": (-(2**31), 2**31 - 1), "uint64": (0, 2**32 - 1)}


def read(path: Path, config: Config, window: Window = WHOLE) -> Any:
    return read_on_grid(source_of(path, config, (1, 2, 3)), None, GRID, window, config)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("profile", [{}, {"compress": "deflate", "predictor": 2}, {"interleave": "band"}])
def test_what_fits_32_bits_is_read_as_such(tmp_path: Path, dtype: str, profile: dict[str, Any]) -> None:
    pixels = PIXELS.astype(dtype)
    pixels[:, 3, 4], pixels[:, 5, 6] = LIMITS[dtype]
    values, observed = read(write_raster(tmp_path / "a.tif", pixels, GRID, **profile), make_config(tmp_path))
    assert values.dtype == dtype.replace("64", "32")
    assert observed.all()
    assert np.array_equal(values.astype(dtype), pixels)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dtype=st.sampled_from(["int64", "uint64"]), data=st.data())
def test_a_value_that_does_not_fit_is_named_with_its_place(tmp_path: Path, dtype: str, data: st.DataObject) -> None:
    lowest, highest = LIMITS[dtype]
    outside = st.integers(highest + 1, int(np.iinfo(dtype).max))
    if dtype == "int64":
        outside |= st.integers(int(np.iinfo(dtype).min), lowest - 1)
    value, row, col = data.draw(outside), data.draw(st.integers(10, 39)), data.draw(st.integers(20, 59))
    pixels = PIXELS.astype(dtype)
    pixels[data.draw(st.integers(0, 2)), row, col] = value
    path, config = write_raster(tmp_path / "a.tif", pixels, GRID), make_config(tmp_path)
    with pytest.raises(InputError, match=rf"a\.tif: value {value} in row {row}, column {col} does not fit 32 bits"):
        read(path, config, Window(10, 20, 30, 40))
    read(path, config, Window(0, 0, 10, 60))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("missing", [0, 7, 2**40, -9999, "lowest", "highest"])
def test_nodata_need_not_fit(tmp_path: Path, dtype: str, missing: Any) -> None:
    """The highest value of 64 bits cannot be written as a float, as a configuration's numbers are."""
    limits = np.iinfo(dtype)
    missing = {"lowest": int(limits.min), "highest": int(limits.max)}.get(missing, missing)
    if not limits.min <= missing:
        pytest.skip("no value of this type")
    pixels = np.where(missing == PIXELS, 1, PIXELS).astype(dtype)
    pixels[1, :7] = missing
    path = write_raster(tmp_path / "a.tif", pixels, GRID)
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1, "green": 2, "blue": 3}, "nodata": missing}})
    values, observed = read(path, config)
    assert np.array_equal(observed, np.arange(40)[:, None] >= np.full(60, 7))
    assert np.array_equal(values, np.where(observed, pixels, 0))
    if abs(missing) < 2**53:  # rasterio writes no other tag of 64 bits as it is
        tagged = write_raster(tmp_path / "b.tif", pixels, GRID, nodata=missing)
        assert np.array_equal(read(tagged, make_config(tmp_path))[1], observed)


def test_stored_arrays_have_32_bits(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    paths = [write_raster(tmp_path / f"{t}.tif", PIXELS.astype(t), GRID) for t in ("int64", "uint64")]
    before, after = (source_of(path, config, (1, 2, 3)) for path in paths)
    pair = Pair("p", "p", before, after, ("red", "green", "blue"))
    planned = plan_pair(pair, config, {path: path.sha256() for path in source_files(pair, config)})
    assert planned.dtypes == ("int32", "uint32")
    assert check_pair(pair, config).problems == ()


VRT = """<VRTDataset rasterXSize="60" rasterYSize="40"><SRS>EPSG:32633</SRS>
<GeoTransform>500000, 10, 0, 4000000, 0, -10</GeoTransform>{}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="{}" band="{}">{}<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>
<SourceBand>{}</SourceBand></SimpleSource></VRTRasterBand>"""


def test_bands_that_are_not_needed_may_be_of_another_type(tmp_path: Path) -> None:
    """As gdalbuildvrt -addalpha makes them: pixels of 16 bits and an alpha band of 8."""
    write_raster(tmp_path / "a.tif", PIXELS.astype(np.uint16), GRID)
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:9] = 0
    write_raster(tmp_path / "alpha.tif", alpha, GRID)
    kinds = [("UInt16", "a.tif", band, "") for band in (1, 2, 3)]
    kinds.append(("Byte", "alpha.tif", 1, "<ColorInterp>Alpha</ColorInterp>"))
    bands = [
        BAND.format(kind, number, colour, name, band) for number, (kind, name, band, colour) in enumerate(kinds, 1)
    ]
    (tmp_path / "a.vrt").write_text(VRT.format("".join(bands)))
    config = make_config(tmp_path, input={"drivers": ["VRT", "GTiff"]})
    values, observed = read(tmp_path / "a.vrt", config)
    assert np.array_equal(observed, alpha > 0)
    assert np.array_equal(values, np.where(observed, PIXELS, 0))
    assert values.dtype == np.uint16
    info = describe_raster(here(tmp_path / "a.vrt"), Input(drivers=("VRT", "GTiff")))
    with pytest.raises(InputError, match=r"bands of different types \(2 uint16, 4 uint8\); expected one type"):
        info.stored_dtype((2, 4))
