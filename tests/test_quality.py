"""Quality rasters: what presets, values, bits, thresholds, bands and a file's own nodata leave usable."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import make_config, source_of, utm_grid, write_mask, write_raster

from cdpipe.config.load import to_yaml
from cdpipe.config.quality import QUALITY_PRESETS, named_presets
from cdpipe.config.schema import Quality
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import Grid, Transform, Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.pairs.catalog import Source
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.quality import read_usable
from cdpipe.pairs.quality_check import doubt_quality
from cdpipe.workspace.location import here

SIDE = 16
GRID = utm_grid(SIDE, SIDE)
COARSE: Transform = (20.0, 0.0, 500_000.0, 0.0, -20.0, 4_000_000.0)


def sensor_source(folder: Path, **sensor: Any) -> Source:
    """A date of a sensor ``s`` with these settings for its quality rasters."""
    config = make_config(folder, sensors={"s": {"bands": {"red": 1}, **sensor}})
    return source_of(folder / "a.tif", config, (1,))


def usable(folder: Path, values: Any, descriptions: tuple[str, ...] = (), **sensor: Any) -> NDArray[np.bool_]:
    """What of a 16 x 16 quality raster is usable; ``nodata`` and other keys of a profile are not the sensor's."""
    profile = {key: sensor.pop(key) for key in ("nodata",) if key in sensor}
    path = write_raster(folder / "q.tif", values, GRID, **profile)
    if descriptions:
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = descriptions
    source = sensor_source(folder, **sensor)
    config = make_config(folder)
    return read_usable(here(path), source, GRID, (GRID, Window(0, 0, SIDE, SIDE)), config.input)


def every(dtype: Any, count: int = SIDE * SIDE) -> NDArray[Any]:
    """All values from 0 on, in order."""
    return np.arange(count, dtype=dtype).reshape(SIDE, SIDE)


def refused(folder: Path, **sensor: Any) -> str:
    """What is said of a sensor's settings that are a mistake, in one line."""
    with pytest.raises(ConfigError) as error:
        sensor_source(folder, **sensor)
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    return lines[1]


# What the products' own documents say, written down once more.
@pytest.mark.parametrize(
    ("preset", "good"),
    [
        ("scl", {2, 4, 5, 6, 7}),
        ("fmask", {0, 1}),
        ("python_fmask", {1, 5}),
        ("s2cloudless", {0}),
        ("omnicloudmask", {0}),
    ],
)
def test_classes_of_a_preset(tmp_path: Path, preset: str, good: set[int]) -> None:
    values = every(np.uint8)
    assert np.array_equal(usable(tmp_path, values, quality=preset), np.isin(values, list(good)))
    whole_floats = usable(tmp_path, values.astype(np.float32), quality=preset)
    assert np.array_equal(whole_floats, np.isin(values, list(good)))


@pytest.mark.parametrize(
    ("preset", "bad_bits"),
    [
        ("qa_pixel", (0, 1, 2, 3, 4, 5)),
        ("hls_fmask", (0, 1, 2, 3, 4)),
        ("udm", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("qa60", (10, 11)),
    ],
)
def test_bits_of_a_preset(tmp_path: Path, preset: str, bad_bits: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (SIDE, SIDE)).astype(np.uint16)
    values[0] = [1 << bit for bit in range(16)]
    values[1] = [0, 21824, 22280, 1, 21952, 23888, *values[1, 6:]]
    mask = sum(1 << bit for bit in bad_bits)
    expected = (values & mask) == 0
    if preset == "hls_fmask":
        expected &= values != 255
    assert np.array_equal(usable(tmp_path, values, quality=preset), expected)
    signed = usable(tmp_path, values.astype(np.int16), quality=preset)  # some tools write QA bands so
    assert np.array_equal(signed, expected)


def test_landsat_values_that_everyone_knows(tmp_path: Path) -> None:
    """21824 is clear, 21952 clear water, 22280 cloud, 23888 cloud shadow, 30048 snow, 54596 cirrus, 1 fill."""
    known = [21824, 21952, 22280, 23888, 30048, 54596, 1]
    values = np.resize(np.array(known, np.uint16), (SIDE, SIDE))
    assert np.array_equal(usable(tmp_path, values, quality="qa_pixel"), np.isin(values, [21824, 21952]))
    chosen = usable(tmp_path, values, quality={"preset": "qa_pixel", "unusable": ["cloud", "Cloud Shadow"]})
    assert np.array_equal(chosen, ~np.isin(values, [22280, 23888, 1]))  # fill never is
    by_level = usable(tmp_path, values, quality={"preset": "qa_pixel", "unusable": ["cirrus_confidence_high"]})
    assert np.array_equal(by_level, ~np.isin(values, [54596, 1]))
    wanted = usable(tmp_path, values, quality={"preset": "qa_pixel", "usable": ["water"]})
    assert np.array_equal(wanted, values == 21952)
    plain = usable(tmp_path, values, unusable=[1, 22280])
    assert np.array_equal(plain, ~np.isin(values, [1, 22280]))


def test_names_replace_what_a_preset_leaves_out(tmp_path: Path) -> None:
    values = every(np.uint8)
    chosen = usable(tmp_path, values, quality={"preset": "scl", "unusable": ["cloud_high_probability", 3]})
    assert np.array_equal(chosen, np.isin(values, [1, 2, 4, 5, 6, 7, 8, 10, 11]))
    wanted = usable(tmp_path, values, quality={"preset": "scl", "usable": ["vegetation", "not_vegetated", 12]})
    assert np.array_equal(wanted, np.isin(values, [4, 5, 12]))


@given(
    st.lists(st.integers(0, 31), min_size=1, max_size=4),
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.float32, np.float64]),
    st.integers(0, 2**32 - 1),
)
def test_a_pixel_is_usable_if_none_of_the_bits_is_set(
    tmp_path_factory: pytest.TempPathFactory, bits: list[int], dtype: Any, seed: int
) -> None:
    highest = {np.uint8: 2**8, np.uint16: 2**16, np.float32: 2**24}.get(dtype, 2**32)
    values = np.random.default_rng(seed).integers(0, highest, (SIDE, SIDE)).astype(dtype)
    expected = np.ones(values.shape, np.bool_)
    for bit in bits:
        expected &= values.astype(np.int64) // 2**bit % 2 == 0
    assert np.array_equal(usable(tmp_path_factory.mktemp("bits"), values, quality={"bits": bits}), expected)


@given(st.floats(-10, 110, width=32), st.floats(-10, 110, width=32), st.booleans())
def test_a_threshold_leaves_what_is_not_beyond_it(
    tmp_path_factory: pytest.TempPathFactory, one: float, other: float, both: bool
) -> None:
    low, high = sorted((one, other))
    values = np.random.default_rng(7).uniform(0, 100, (SIDE, SIDE)).astype(np.float32)
    values[0, :4] = [np.nan, np.inf, low, high]
    quality = {"above": high} | ({"below": low} if both else {})
    expected = np.isfinite(values) & (values <= np.float32(high))
    if both:
        expected &= values >= np.float32(low)
    assert np.array_equal(usable(tmp_path_factory.mktemp("above"), values, quality=quality), expected)


def test_thresholds_of_whole_numbers_and_of_scaled_ones(tmp_path: Path) -> None:
    values = every(np.uint8)
    assert np.array_equal(usable(tmp_path, values, quality={"above": 40}), values <= 40)
    assert np.array_equal(usable(tmp_path, values, quality={"below": 60.5}), values >= 61)
    with rasterio.open(tmp_path / "q.tif", "r+") as dataset:
        dataset.scales = (0.01,)
    source = sensor_source(tmp_path, quality={"above": 0.4})
    window = Window(0, 0, SIDE, SIDE)
    got = read_usable(here(tmp_path / "q.tif"), source, GRID, (GRID, window), make_config(tmp_path).input)
    assert np.array_equal(got, values <= 40)


@pytest.mark.parametrize(
    ("dtype", "nodata", "sensor"),
    [
        (np.uint8, 255, {"unusable": [1]}),
        (np.uint8, 255, {"quality": {"unusable": [1]}}),
        (np.uint8, 255, {"quality": {"bits": [3]}}),
        (np.uint8, 99, {"quality": "scl"}),
        (np.uint8, 4, {"quality": {"above": 40}}),
        (np.int16, -9999, {"unusable": [1]}),
        (np.float32, -9999, {"quality": {"above": 40}}),
        (np.float32, np.nan, {"quality": {"above": 40}}),
        (np.float32, np.nan, {"unusable": [1]}),
        (np.float64, np.inf, {"unusable": [1]}),
    ],
)
def test_its_own_nodata_is_unusable(tmp_path: Path, dtype: Any, nodata: float, sensor: dict[str, Any]) -> None:
    values = np.full((SIDE, SIDE), 4, dtype)
    if nodata == 4:
        values[:] = 5
    values[3, 4:9] = nodata
    expected = np.ones(values.shape, np.bool_)
    expected[3, 4:9] = False
    assert np.array_equal(usable(tmp_path, values, nodata=nodata, **sensor), expected)


def test_a_value_that_is_called_usable_counts_although_the_file_calls_it_nodata(tmp_path: Path) -> None:
    """Tools love to tag masks of 0 and 1 with nodata 0."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[2:5, 2:5] = 1
    assert not usable(tmp_path, mask, nodata=0, unusable=[1]).any()
    assert np.array_equal(usable(tmp_path, mask, nodata=0, quality={"usable": [0]}), mask == 0)
    assert np.array_equal(usable(tmp_path, mask, nodata=0, quality="omnicloudmask"), mask == 0)
    assert not usable(tmp_path, mask, nodata=0, quality="scl").any()


def test_values_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    probability = np.full((SIDE, SIDE), 2.25, np.float32)
    for sensor in ({}, {"unusable": [1]}, {"quality": "scl"}, {"quality": {"bits": [1]}}):
        with pytest.raises(InputError, match=r"has values such as 2.25.*sensors.s.quality: \{above: ...\}"):
            usable(tmp_path, probability, **sensor)
    with pytest.raises(InputError, match=r"has values such as 1e\+30"):
        usable(tmp_path, np.full((SIDE, SIDE), 1e30), quality={"bits": [1]})


def test_polygons_of_clouds_are_no_raster(tmp_path: Path) -> None:
    path = tmp_path / "MSK_CLOUDS_B00.gml"
    path.write_text("<gml/>")
    with pytest.raises(InputError, match="got a vector file; burn it into one"):
        read_usable(
            here(path), sensor_source(tmp_path), GRID, (GRID, Window(0, 0, SIDE, SIDE)), make_config(tmp_path).input
        )


UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "udm1")


def udm2() -> NDArray[np.uint8]:
    bands = np.zeros((8, SIDE, SIDE), np.uint8)
    bands[5, :4] = 1
    bands[2, 4:6] = 1
    bands[3, 6:8] = 1
    bands[7, :, 12:] = 1
    bands[:7, :, 12:] = 0
    bands[0] = (bands[[2, 3, 5, 7]] == 0).all(0)
    bands[6] = 80
    return bands


def test_planets_mask_of_eight_bands(tmp_path: Path) -> None:
    bands = udm2()
    clear = bands[0] == 1
    assert np.array_equal(usable(tmp_path, bands, quality="udm2"), clear)
    assert np.array_equal(usable(tmp_path, bands, quality={"band": 1, "usable": [1]}), clear)
    assert np.array_equal(usable(tmp_path, bands, UDM2, quality={"band": "Clear"}), clear)
    assert np.array_equal(usable(tmp_path, bands, quality={"band": 7, "below": 90}), np.zeros_like(clear))
    chosen = usable(tmp_path, bands, quality={"preset": "udm2", "unusable": ["cloud", "shadow"]})
    assert np.array_equal(chosen, (bands[5] == 0) & (bands[2] == 0) & (bands[7] == 0))
    swapped = usable(tmp_path, bands[::-1], UDM2[::-1], quality="udm2")  # by the bands' names where it has them
    assert np.array_equal(swapped, clear)
    assert np.array_equal(usable(tmp_path, bands[0], quality="udm2"), clear)  # the band alone, cut out


def test_several_bands_need_a_choice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 8 bands; choose with sensors.s.quality: udm2 for Planet's UDM2"):
        usable(tmp_path, udm2())
    with pytest.raises(InputError, match=r"got 8 bands \(1 clear, 2 snow, .*8 udm1\); .*udm2"):
        usable(tmp_path, udm2(), UDM2)
    with pytest.raises(InputError, match=r"\(1 red, 2 SCL\); choose with sensors.s.quality: \{preset: scl, band: 2"):
        usable(tmp_path, udm2()[:2], ("red", "SCL"), quality="scl")
    with pytest.raises(InputError, match=r"expected band 9 \(sensors.s.quality.band\), the file has 8 band"):
        usable(tmp_path, udm2(), quality={"band": 9})
    with pytest.raises(InputError, match=r"expected one band described as SCL .*, got 8 bands \(1 clear"):
        usable(tmp_path, udm2(), UDM2, quality={"band": "SCL", "preset": "scl"})
    with pytest.raises(InputError, match=r"expected cloud in band 6, as in Planet UDM2; the file has 2 band"):
        usable(tmp_path, udm2()[:2], quality={"preset": "udm2", "unusable": ["cloud"]})


def test_a_class_band_among_others_is_found_by_its_description(tmp_path: Path) -> None:
    stack = np.stack([every(np.uint16) + 900, every(np.uint16) % 12])
    got = usable(tmp_path, stack, ("B02", "SCL"), quality={"preset": "scl", "band": "scl"})
    assert np.array_equal(got, np.isin(stack[1], [2, 4, 5, 6, 7]))


def test_masks_and_alpha_of_a_quality_raster_count(tmp_path: Path) -> None:
    """A picture with alpha stands for its alpha; of grey with alpha, and of a mask inside of the file, both count."""
    transparent = ones(0, rows=5, other=200)
    window = (GRID, Window(0, 0, SIDE, SIDE))
    files = make_config(tmp_path).input
    picture = np.stack([ones(0, rows=3, other=9)] * 3 + [transparent])
    path = write_raster(tmp_path / "rgba.tif", picture, GRID, photometric="RGB", alpha="YES")
    got = read_usable(here(path), sensor_source(tmp_path), GRID, window, files)
    assert np.array_equal(got, transparent > 0)
    with pytest.raises(InputError, match=r"got 4 bands; choose with"):
        read_usable(here(path), sensor_source(tmp_path, unusable=[1]), GRID, window, files)
    by_number = read_usable(here(path), sensor_source(tmp_path, quality={"band": 4}), GRID, window, files)
    assert np.array_equal(by_number, transparent > 0)
    clouds = ones(1, rows=7, other=0)
    grey = np.stack([clouds, transparent])
    path = write_raster(tmp_path / "la.tif", grey, GRID, photometric="MINISBLACK", alpha="YES")
    got = read_usable(here(path), sensor_source(tmp_path, unusable=[1]), GRID, window, files)
    assert np.array_equal(got, (clouds == 0) & (transparent > 0))
    path = tmp_path / "ocm.tif"  # as OmniCloudMask writes it: 0 is clear, the mask says where nothing was observed
    write_mask(write_raster(path, clouds.T, GRID), transparent > 0)
    got = read_usable(here(path), sensor_source(tmp_path, quality="omnicloudmask"), GRID, window, files)
    assert np.array_equal(got, (clouds.T == 0) & (transparent > 0))


CORNERS = st.tuples(st.integers(0, 40), st.integers(0, 40))


@settings(max_examples=20)
@given(st.lists(CORNERS, min_size=1, max_size=5), st.sampled_from([10, 20, 60]))
def test_a_window_gives_what_the_whole_gives(
    tmp_path_factory: pytest.TempPathFactory, corners: list[tuple[int, int]], pixel: int
) -> None:
    folder = tmp_path_factory.mktemp("windows")
    grid = utm_grid(60, 60)
    side = 600 // pixel
    scl = np.random.default_rng(pixel).integers(0, 12, (side, side)).astype(np.uint8)
    own = utm_grid(side, side, (float(pixel), 0.0, 500_000.0, 0.0, -float(pixel), 4_000_000.0))
    path = here(write_raster(folder / "q.tif", scl, own))
    source, files = sensor_source(folder, quality="scl"), make_config(folder).input
    whole = read_usable(path, source, grid, (grid, Window(0, 0, 60, 60)), files)
    expected = np.isin(np.kron(scl, np.ones((pixel // 10, pixel // 10), np.uint8)), [2, 4, 5, 6, 7])
    assert np.array_equal(whole, expected)
    for row, col in corners:
        window = Window(row, col, 20, 20)
        assert np.array_equal(read_usable(path, source, grid, (grid, window), files), whole[window.slices])


def test_a_date_is_observed_where_its_quality_raster_says_so(tmp_path: Path) -> None:
    source = sensor_source(tmp_path, quality="scl", nodata=7)
    values = np.ones((1, SIDE, SIDE), np.uint8)
    values[0, 5] = 7
    write_raster(source.path.local(), values, GRID)
    scl = np.full((8, 8), 4, np.uint8)
    scl[0] = 9
    valid = write_raster(tmp_path / "scl.tif", scl, utm_grid(8, 8, COARSE))
    observed = read_on_grid(source, here(valid), GRID, Window(0, 0, SIDE, SIDE), make_config(tmp_path))[1]
    expected = np.ones((SIDE, SIDE), np.bool_)
    expected[[0, 1, 5]] = False
    assert np.array_equal(observed, expected)


def test_settings_that_contradict_each_other_are_mistakes(tmp_path: Path) -> None:
    told = "sensors.s"
    assert "expected unusable or quality, got both" in refused(tmp_path, unusable=[0], quality="scl")
    assert f"{told}.quality.preset: got 'slc'; Input should be one of scl, qa_pixel" in refused(tmp_path, quality="slc")
    assert "cloud_medium_probability" in refused(tmp_path, quality={"preset": "scl", "unusable": ["clouds"]})
    assert "names are of a preset" in refused(tmp_path, quality={"unusable": ["cloud"]})
    assert "expected one of unusable, usable" in refused(tmp_path, quality={"unusable": [1], "usable": [0]})
    assert "is for a probability" in refused(tmp_path, quality={"preset": "scl", "above": 40}).replace(
        "are for", "is for"
    )
    assert "leave nothing" in refused(tmp_path, quality={"above": 40, "below": 60})
    assert "or give bits: [3]" in refused(tmp_path, quality={"preset": "qa_pixel", "unusable": [3]})
    assert "has classes and no bits" in refused(tmp_path, quality={"preset": "scl", "bits": [3]})
    assert "knows its bands" in refused(tmp_path, quality={"preset": "udm2", "band": 3})
    assert "did you mean preset" in refused(tmp_path, quality={"presett": "scl"})
    assert "bits: expected numbers from 0" in refused(tmp_path, quality={"bits": [32]})
    assert "usable: expected at least one" in refused(tmp_path, quality={"usable": []})


@pytest.mark.parametrize(
    ("name", "presets"),
    [
        ("T33UUP_20200101T100031_SCL_20m.jp2", ("scl",)),
        ("scl.tif", ("scl",)),
        ("S2A.SCL.tif", ("scl",)),
        ("LC08_L2SP_193024_20200101_02_T1_QA_PIXEL.TIF", ("qa_pixel",)),
        ("20200101_100031_1034_3B_udm2_clip.tif", ("udm2",)),
        ("20160101_3B_AnalyticMS_DN_udm.tif", ("udm",)),
        ("HLS.S30.T33UUP.2020001T100031.v2.0.Fmask.tif", ("hls_fmask",)),
        ("LC08_Fmask4.tif", ("fmask", "python_fmask")),
        ("MSK_CLDPRB_20m.jp2", ()),
        ("cloud_probability.tif", ()),
        ("prob.tif", ()),
        ("problem.tif", None),
        ("my_cloudmask.tif", ("s2cloudless", "omnicloudmask")),
        ("S2A_OCM_v1.tif", ("omnicloudmask",)),
        ("S2_QA60.tif", ("qa60",)),
        ("MSK_CLASSI_B00.jp2", ("msk_classi",)),
        ("2020_clouds.tif", ("s2cloudless", "omnicloudmask")),
        ("cloudfree.tif", None),
        ("St_Cloudy.tif", None),
        ("valid.tif", None),
        ("sclerosis.tif", None),
        ("muscle_mask.tif", None),
    ],
)
def test_names_of_products(name: str, presets: tuple[str, ...] | None) -> None:
    assert named_presets(name) == presets


def test_presets_only_name_what_they_have() -> None:
    for preset in QUALITY_PRESETS.values():
        assert {*preset.unusable, *preset.usable, *preset.fill} <= {*preset.flags}
        assert bool(preset.unusable) != bool(preset.usable)


def test_presets_are_documented() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "howto" / "clouds.md").read_text()
    for name, preset in QUALITY_PRESETS.items():
        assert re.search(rf"\b{name}\b", inspect.getsource(Quality))
        (row,) = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        assert all(f"`{each}`" in row for each in (*preset.unusable, *preset.usable)) or name == "udm"


def test_settings_survive_being_written_out(tmp_path: Path) -> None:
    sensors = {
        "a": {"bands": {"red": 1}, "quality": "SCL"},
        "b": {"bands": {"red": 1}, "quality": {"preset": "QA_PIXEL", "unusable": ["Cloud"]}},
        "c": {"bands": {"red": 1}, "unusable": [3]},
        "d": {"bands": {"red": 1}},
    }
    config = make_config(tmp_path, sensors=sensors)
    assert config.sensors["a"].quality == Quality(preset="scl")
    assert make_config(tmp_path, **yaml.safe_load(to_yaml(config, here(tmp_path)))).sensors == config.sensors


def test_the_three_bands_of_a_level_1c_mask(tmp_path: Path) -> None:
    bands = np.random.default_rng(3).integers(0, 2, (3, SIDE, SIDE)).astype(np.uint8)
    assert np.array_equal(usable(tmp_path, bands, quality="msk_classi"), ~bands.any(0))
    chosen = usable(tmp_path, bands, quality={"preset": "msk_classi", "unusable": ["opaque_cloud"]})
    assert np.array_equal(chosen, bands[0] == 0)


@pytest.fixture
def doubts(tmp_path: Path) -> Callable[..., list[str]]:
    """What is said of a quality raster of the pair's grid, or of another."""

    def find(
        values: Any, grid: Grid | None = GRID, name: str = "q.tif", nodata: Any = None, **sensor: Any
    ) -> list[str]:
        path = here(write_raster(tmp_path / name, values, grid, nodata=nodata))
        source = sensor_source(tmp_path, **sensor)
        found = doubt_quality(path, source, GRID, GRID, make_config(tmp_path).input)
        assert all(text.startswith(f"{path}: ") for text in found)
        return [text.removeprefix(f"{path}: ") for text in found]

    return find


def ones(value: float = 1, rows: int = 1, other: float = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    values = np.full((SIDE, SIDE), other, dtype)
    values[:rows] = value
    return values


def test_a_mask_that_matches_nothing_is_said(doubts: Callable[..., list[str]]) -> None:
    """A mask of 1 and 2 where only 0 is unusable."""
    assert doubts(ones(2, other=1)) == [
        "no pixel of it is unusable: it has 1 (94%), 2 (6%); does sensors.s.unusable say what is?"
    ]
    (told,) = doubts(ones(4, other=5), quality="scl")
    assert "it has 5 not_vegetated (94%), 4 vegetation (6%)" in told
    (told,) = doubts(np.full((SIDE, SIDE), 21952, np.uint16), quality="qa_pixel")
    assert "it has 21952 clear + water (100%)" in told
    assert doubts(ones(0, other=1)) == []


def test_a_mask_that_leaves_nothing_is_said(doubts: Callable[..., list[str]]) -> None:
    """A mask that has 1 for cloud where 0 is unusable; and one whose clear value is tagged as nodata."""
    (told,) = doubts(np.zeros((SIDE, SIDE), np.uint8))
    assert "100% of it is unusable: it has 0 (100%)" in told
    (told,) = doubts(ones(1, rows=5))  # of clouds
    assert "69% of it is unusable: it has 0 (69%), 1 (31%)" in told
    assert doubts(ones(9, rows=15, other=4), quality="scl") == []
    (told,) = doubts(ones(1), nodata=0, unusable=[1])
    assert "100% of it is unusable: it has no data of its own (94%), 1 (6%)" in told


def test_values_that_no_class_has_are_said(doubts: Callable[..., list[str]]) -> None:
    (told,) = doubts(ones(12, other=4), quality="scl")
    assert told.startswith("12 (6%) is no class of Sentinel-2 L2A scene classification (SCL) and counts as unusable")
    (told,) = doubts(ones(5, other=1), quality="fmask")
    assert "(or python_fmask)" in told
    (told,) = doubts(every(np.uint8, 256) % 100)
    assert "has 100 different values, 0 to 99, more than classes have; for a probability give" in told
    assert "has 256 different values, 0 to 255000" in doubts(every(np.int32) * 1000)[0]
    assert "different values" not in str(doubts(every(np.int32), quality={"bits": [3]}))
    told = doubts(every(np.int32) + 1)[0]
    assert "256 different values, 1 to 256" in told


def test_thresholds_on_another_scale_are_said(doubts: Callable[..., list[str]]) -> None:
    share = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.float32)
    assert doubts(share, quality={"above": 0.4}) == []
    told = doubts(share, quality={"above": 40})
    assert "its values are 0 to 1, on another scale than 40 (sensors.s.quality); is 0.4 meant?" in told[0]
    assert "no pixel of it is unusable: it has values from 0 to 1" in told[1]
    told = doubts(share * 100, quality={"above": 0.4})
    assert "its values are 0 to 100, on another scale than 0.4 (sensors.s.quality); is 40 meant?" in told[0]


def test_names_of_bands_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        usable(tmp_path, udm2()[:2], ("a\nb" * 40, "\x1b[31m"))
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 400


def test_names_are_said_where_only_the_default_holds(doubts: Callable[..., list[str]]) -> None:
    (told,) = doubts(ones(0, other=9), name="T33UUP_SCL_20m.tif")
    assert "its name looks like a known product; give sensors.s.quality: scl (Sentinel-2 L2A scene" in told
    (told,) = doubts(ones(0, other=9), name="2020_clouds.tif")
    assert "or sensors.s.unusable with the values that are cloud" in told
    (told,) = doubts(ones(0, other=9), name="fmask.tif")
    assert "quality: fmask (Fmask (of its authors)) or sensors.s.quality: python_fmask" in told
    (told,) = doubts(ones(0, other=9), name="CLDPRB.tif")
    assert "a probability; give sensors.s.quality: {above: ...}" in told
    assert doubts(ones(0, other=9), name="SCL.tif", unusable=[0]) == []


def test_a_raster_beside_the_pair_is_refused_and_a_part_of_it_said(doubts: Callable[..., list[str]]) -> None:
    beside = utm_grid(SIDE, SIDE, (10.0, 0.0, 600_000.0, 0.0, -10.0, 4_000_000.0))
    with pytest.raises(InputError, match="lies outside of the pair"):
        doubts(ones(0, other=1), beside)
    half = utm_grid(SIDE, SIDE // 2)
    (told,) = doubts(ones(0, other=1)[:, : SIDE // 2], half)
    assert told == "covers 50% of the pair; what lies outside of it counts as not observed"


def test_only_what_lies_over_the_pair_is_counted(doubts: Callable[..., list[str]]) -> None:
    """A scene of clouds around a pair without any."""
    scl = np.full((SIDE * 3, SIDE * 3), 9, np.uint8)
    scl[SIDE : 2 * SIDE, SIDE : 2 * SIDE] = 4
    around = utm_grid(SIDE * 3, SIDE * 3, (10.0, 0.0, 500_000.0 - 160, 0.0, -10.0, 4_000_000.0 + 160))
    (told,) = doubts(scl, around, quality="scl")
    assert "no pixel of it is unusable: it has 4 vegetation (100%)" in told


def test_windows_cover_a_large_raster_once(tmp_path: Path) -> None:
    grid = utm_grid(2100, 2100)
    values = np.zeros(grid.shape, np.uint8)
    values[::2] = 3
    path = here(write_raster(tmp_path / "q.tif", values, grid))
    source, files = sensor_source(tmp_path, unusable=[9]), make_config(tmp_path).input
    (told,) = doubt_quality(path, source, grid, grid, files)
    assert "it has 0 (50%), 3 (50%)" in told
    assert sum(window.height * window.width for window in tiles_in(Window(0, 0, *grid.shape), 2048)) == values.size
