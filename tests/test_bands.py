"""What files call their bands is understood where it is certain, compared with the configuration, and used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from project import call, succeed, untrained_model
from rasterio.enums import ColorInterp
from rasters import utm_grid, write_raster

from cdpipe.api.ingest import plan_ingest
from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, describe_raster
from cdpipe.formats.masks import FileMask
from cdpipe.pairs.bands import DEFAULT, agree, band_roles, bands_by_role, choose_bands, role_of_text
from cdpipe.runs.run import Run
from cdpipe.workspace.location import here

GRID = utm_grid(40, 48)
SIXTEEN = ("undefined",) * 16


def info_of(descriptions: Sequence[str], name: str = "scene.tif", colours: Sequence[str] = SIXTEEN) -> RasterInfo:
    """What a raster with these bands says of itself."""
    path = here(Path("/data") / name)
    alpha = tuple(band for band, colour in enumerate(colours[: len(descriptions)], 1) if colour == "alpha")
    return RasterInfo(
        path,
        "GTiff",
        GRID,
        len(descriptions),
        ("uint16",) * len(descriptions),
        None,
        (256, 256),
        FileMask(alpha),
        False,
        tuple(descriptions),
        tuple(colours[: len(descriptions)]),
    )


@pytest.mark.parametrize(
    ("text", "role"),
    [
        *(("red", "red"), ("Red", "red"), ("RED", "red"), ("sr_red", "red"), ("Band 4 - Red", "red"), ("rouge", "red")),
        *(("coastal_blue", "coastal"), ("green_i", "green05"), ("Coastal aerosol", "coastal"), ("Grün", "green")),
        *(("Red Edge", "rededge"), ("rededge", "rededge"), ("RedEdge_1", "rededge071"), ("red edge 3", "rededge078")),
        *(("NIR", "nir"), ("Near-Infrared", "nir"), ("NIR narrow", "nir08"), ("swir1", "swir16"), ("SWIR 2", "swir22")),
        *(("B4, central wavelength 665 nm", "red"), ("B2, central wavelength 490 nm", "blue"), ("0.665 um", "red")),
        *(("Band 30 (842.3 Nanometers)", "nir"), ("630-680 nm", "red"), ("0.45 \u2013 0.52 \u00b5m", "blue")),
        *(("blue_2018", "blue"), ("red (B04)", "red"), ("Kanal 3 rot", "red"), ("panchromatic", "pan")),
        # no role, or none for certain
        *(("", ""), ("Band 1", ""), ("band_4", ""), ("b1", ""), ("Gray", ""), ("VV", ""), ("red minus green", "")),
        *(("red mask", ""), ("NDVI", ""), ("infra red", ""), ("credit", ""), ("rotation", ""), ("vert pol", "")),
        *(("red, central wavelength 842 nm", ""), ("nir ratio", ""), ("10 m", ""), ("2500 nm", ""), ("red_std", "")),
    ],
)
def test_a_name_in_words_or_by_wavelength(text: str, role: str) -> None:
    assert role_of_text(text) == role


S2 = ("blue", "green", "red", "nir")
ALL_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


@pytest.mark.parametrize(
    ("names", "file", "roles"),
    [
        (("B02", "B03", "B04", "B08"), "scene.tif", S2),
        (("B2", "B3", "B4", "B8"), "scene.tif", S2),
        (("B2, 10 m", "B3, 10 m", "B4, 10 m", "B8, 10 m"), "scene.tif", S2),
        (("B04_before", "B03_before", "B02_before"), "scene.tif", ("red", "green", "blue")),
        (("T33UUP_20180922T100019_B04_10m", "B03", "B02"), "scene.tif", ("red", "green", "blue")),
        (("B04", "B05", "B8A", "B11"), "scene.tif", ("red", "rededge071", "nir08", "swir16")),
        # HLS calls Landsat's near infrared B05, so only what both have is certain
        (("B02", "B03", "B04", "B05"), "scene.tif", ("blue", "green", "red", "")),
        (("B02", "B03", "B04", "B05"), "S2A_scene.tif", ("blue", "green", "red", "rededge071")),
        (("B02", "B03", "B04", "B05"), "LC08_scene.tif", ("blue", "green", "red", "nir08")),
        # Landsat 5 and 7 count from blue, 8 and 9 from coastal
        (("B4", "B3", "B2"), "scene.tif", ("", "", "")),
        (("B4", "B3", "B2"), "LC08_L2SP.tif", ("red", "green", "blue")),
        (("B4", "B3", "B2"), "LT05_L2SP.tif", ("nir08", "red", "green")),
        (("B4", "B3", "B2"), "landsat8_and_landsat5.tif", ("", "", "")),
        (("SR_B4", "SR_B3", "SR_B2"), "scene.tif", ("", "", "")),
        (("SR_B4", "SR_B3", "SR_B2", "SR_B6"), "scene.tif", ("red", "green", "blue", "swir16")),
        (
            tuple(f"SR_B{n}" for n in (1, 2, 3, 4, 5, 7)),
            "scene.tif",
            ("blue", "green", "red", "nir08", "swir16", "swir22"),
        ),
        # perhaps only counted
        (("B1", "B2", "B3"), "scene.tif", ("", "", "")),
        (("B01", "B02", "B03", "B04"), "scene.tif", ("", "", "", "")),
        (("B1", "B2", "B3"), "S2_export.tif", ("", "", "")),
        (("Band 1", "Band 2", "Band 3"), "scene.tif", ("", "", "")),
        (
            ALL_S2,
            "scene.tif",
            (
                *("coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078"),
                *("nir", "nir08", "nir09", "cirrus", "swir16", "swir22"),
            ),
        ),
        (("R", "G", "B", "NIR"), "scene.tif", ("red", "green", "blue", "nir")),
        (("R", "G"), "scene.tif", ("", "")),
        # PlanetScope of four and of eight bands
        (("blue", "green", "red", "nir"), "scene.tif", S2),
        (
            ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            "scene.tif",
            ("coastal", "blue", "green05", "green", "yellow", "red", "rededge", "nir"),
        ),
    ],
)
def test_the_bands_of_a_file(names: Sequence[str], file: str, roles: Sequence[str]) -> None:
    assert band_roles(info_of(names, file)) == tuple(roles)


def test_the_sensor_of_the_configuration_tells_what_a_number_means() -> None:
    assert band_roles(info_of(("B4", "B3", "B2")), "landsat5") == ("nir08", "red", "green")
    assert band_roles(info_of(("B4", "B3", "B2")), "my_sensor") == ("", "", "")


def test_colours_count_where_nothing_is_described() -> None:
    bgr = ("blue", "green", "red", "alpha")
    assert band_roles(info_of(("",) * 4, colours=bgr)) == ("blue", "green", "red", "alpha")
    assert bands_by_role(band_roles(info_of(("",) * 4, colours=bgr))) == {"blue": 1, "green": 2, "red": 3}
    assert band_roles(info_of(("red", "green", "blue", ""), colours=bgr))[:3] == ("red", "green", "blue")


def test_roles_agree_within_a_family_only() -> None:
    assert agree("nir", "nir08")
    assert agree("swir", "swir22")
    assert agree("rededge", "rededge075")
    assert agree("green", "green05")
    for one, other in (("red", "rededge"), ("nir08", "nir2"), ("nir", "nir09"), ("swir16", "swir22"), ("red", "blue")):
        assert not agree(one, other)


def write(path: Path, names: Sequence[str | None], colours: Sequence[ColorInterp] = (), **profile: Any) -> Path:
    """A raster of bands with descriptions and colours."""
    values = np.random.default_rng(0).integers(1, 200, (len(names), *GRID.shape), np.uint16)
    write_raster(path, values, GRID, **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = tuple(names)
        if colours:
            dataset.colorinterp = tuple(colours)
    return path


def test_the_gate_reads_names_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ["two\nlines \x1b[31m", None, "x" * 5000])
    info = describe_raster(here(tmp_path / "a.tif"), Input())
    assert info.descriptions == ("two lines [31m", "", "x" * 100)
    assert info.colours == ("gray", "undefined", "undefined")


def configure(folder: Path, bands: str, rows: Sequence[str] = ("p,b.tif,a.tif",), more: str = "") -> Path:
    (folder / "pairs.csv").write_text("\n".join(["pair_id,before,after", *rows]) + "\n")
    config = folder / "c.yaml"
    config.write_text(
        f"name: t\ncatalog: pairs.csv\nworkspace: work\nsensors: {{s: {{bands: {bands}{more}}}}}\n"
        'align: {coregister: "off"}\ntrain: {models: {unet: {encoder: resnet18}}, patch: 64}\n'
    )
    return config


SENTINEL = ("B02", "B03", "B04", "B08")


@pytest.mark.parametrize("verb", [["check"], ["ingest", "--dry-run"]])
def test_swapped_bands_are_told_with_what_the_file_has(tmp_path: Path, verb: list[str]) -> None:
    rows = []
    for number in range(5):
        for date in "ba":
            write(tmp_path / f"{number}{date}.tif", SENTINEL)
        rows.append(f"p{number},{number}b.tif,{number}a.tif")
    config = configure(tmp_path, "{red: 1, green: 2, blue: 3}", rows)
    shown = succeed([*verb, str(config)]).out.splitlines()
    [line] = [line for line in shown if "swapped" in line]
    assert "5 pairs (p0, p1, p2, ...)" in line
    assert "band 1 says 'B02' (blue), sensor s calls it red" in line
    assert "band 3 says 'B04' (red), sensor s calls it blue" in line
    assert "band 2" not in line
    assert "sensors.s.bands: {blue: 1, green: 2, red: 3}" in line
    assert "10 files" in line


@pytest.mark.parametrize("bands", ["{red: 3, green: 2, blue: 1, nir: 4}", "{B04: 3, B03: 2, B02: 1, B08: 4}"])
def test_what_fits_is_not_told(tmp_path: Path, bands: str) -> None:
    for name in "ba":
        write(tmp_path / f"{name}.tif", SENTINEL)
    config = configure(tmp_path, bands, more=", nodata: none")
    shown = call(["check", str(config)]).out
    assert "0 warning(s)" in shown
    assert "B04 B03 B02" in shown or bands.startswith("{B04")


def test_dates_in_different_orders_are_told(tmp_path: Path) -> None:
    write(tmp_path / "b.tif", ("blue", "green", "red", "nir"))
    write(tmp_path / "a.tif", ("red", "green", "blue", "nir"))
    shown = succeed(["check", str(configure(tmp_path, "{red: 1, green: 2, blue: 3, nir: 4}"))]).out
    assert "b.tif: bands look swapped: band 1 says 'blue', sensor s calls it red" in shown
    assert "the dates' files name their bands in different orders; give each date a sensor of its own" in shown


def test_both_halves_of_a_composite_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "ab.tif", [*SENTINEL, "red", "green", "blue", "nir"])
    config = configure(tmp_path, "{red: 1, green: 2, blue: 3}")
    (tmp_path / "pairs.csv").write_text("pair_id,composite\np,ab.tif\n")
    shown = succeed(["check", str(config)]).out
    assert "band 1 says 'B02' (blue), sensor s calls it red" in shown
    assert "band 5" not in shown
    write(tmp_path / "ab.tif", [*SENTINEL, *SENTINEL])
    shown = succeed(["check", str(config)]).out
    assert "band 5 says 'B02' (blue), sensor s calls it red; band 7 says 'B04' (red), sensor s calls it blue" in shown


def test_a_picture_in_false_colours_is_not_doubted(tmp_path: Path) -> None:
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    for name in "ba":
        write(tmp_path / f"{name}.tif", [None] * 3, colours, photometric="RGB")
    config = configure(tmp_path, "{nir: 1, red: 2, green: 3}")
    assert "coloured" not in call(["check", str(config)]).out
    config = configure(tmp_path, "{blue: 1, green: 2, red: 3}")
    assert "band 1 is coloured red, sensor s calls it blue" in call(["check", str(config)]).out


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [(0, None, "nodata 0 > none"), (None, 7, "nodata none > 7"), (0, 0, None), (0, 9, None), (None, None, None)],
)
def test_nodata_of_one_date_alone_is_told(
    tmp_path: Path, before: int | None, after: int | None, shown: str | None
) -> None:
    for name, nodata in (("b", before), ("a", after)):
        write(tmp_path / f"{name}.tif", [None] * 3, nodata=nodata)
    out = succeed(["check", str(configure(tmp_path, "{red: 1, green: 2, blue: 3}"))]).out
    told = [line for line in out.splitlines() if "nothing says which pixels" in line]
    assert len(told) == (shown is not None)
    if shown:
        assert shown in told[0]
        assert f"set sensors.s.nodata: {before if after is None else after}" in told[0]
    given = configure(tmp_path, "{red: 1, green: 2, blue: 3}", more=", nodata: 0")
    assert "nothing says which pixels" not in succeed(["check", str(given)]).out


def build(folder: Path) -> tuple[dict[str, dict[str, dict[str, int]]], str, str]:
    """Run ``cdpipe catalog --config`` on pairs in one folder: the sensors, the catalog, and what was said."""
    config, table = folder / "c.yaml", folder / "pairs.csv"
    options = ["--before", "{id}_b.tif", "--after", "{id}_a.tif", "--out", str(table), "--config", str(config)]
    said = succeed(["catalog", "patterns", str(folder), *options]).out
    return yaml.safe_load(config.read_text())["sensors"], table.read_text(), said


def test_the_starting_configuration_names_bands_as_the_files_do(tmp_path: Path) -> None:
    for name in ("1_b", "1_a"):
        write(tmp_path / f"{name}.tif", SENTINEL)
    sensors, table, _ = build(tmp_path)
    assert sensors == {"my_sensor": {"bands": {"blue": 1, "green": 2, "red": 3, "nir": 4}}}
    assert "sensor" not in table


def test_it_goes_by_colours_where_there_are_no_names_and_leaves_alpha_out(tmp_path: Path) -> None:
    colours = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha)
    for name in ("1_b", "1_a"):
        write(tmp_path / f"{name}.tif", [None] * 4, colours)
    assert build(tmp_path)[0] == {"my_sensor": {"bands": {"blue": 1, "green": 2, "red": 3}}}


def test_it_has_a_sensor_for_each_order_of_bands(tmp_path: Path) -> None:
    orders = {"1_b": SENTINEL, "1_a": ("red", "green", "blue", "nir"), "2_b": SENTINEL, "2_a": [None] * 4}
    for name, names in orders.items():
        write(tmp_path / f"{name}.tif", names)
    sensors, table, said = build(tmp_path)
    assert sensors == {
        "my_sensor": {"bands": {"blue": 1, "green": 2, "red": 3, "nir": 4}},
        "my_sensor_2": {"bands": {"red": 1, "green": 2, "blue": 3, "nir": 4}},
    }
    head, first, second = (line.split(",") for line in table.splitlines())
    sensor = [head.index("before_sensor"), head.index("after_sensor")]
    assert [first[column] for column in sensor] == ["my_sensor", "my_sensor_2"]
    assert [second[column] for column in sensor] == ["my_sensor", "my_sensor"]
    assert "the files name their bands in 2 orders" in said
    assert "1 pair(s), such as 2, have files that do not name their bands" in said


NEEDED = ("red", "green", "blue")
BGRN, RGBN = {"blue": 1, "green": 2, "red": 3, "nir": 4}, {"red": 1, "green": 2, "blue": 3, "nir": 4}


@pytest.mark.parametrize(
    ("before", "after", "expected", "said"),
    [
        (("", "", ""), ("", "", ""), (DEFAULT, DEFAULT), 0),
        (SENTINEL, ("red", "green", "blue", "nir"), (BGRN, RGBN), 2),
        (SENTINEL, ("",) * 4, (BGRN, BGRN), 2),
        (("",) * 4, SENTINEL, (BGRN, BGRN), 2),
        (("",) * 3, SENTINEL, (DEFAULT, BGRN), 1),
        (("", "", "", "nir"), ("", "", "", "nir"), (RGBN, RGBN), 2),
        # near infrared first: there is no blue, which the check tells
        (("nir", "red", "green"), ("nir", "red", "green"), ({"nir": 1, "red": 2, "green": 3},) * 2, 2),
    ],
)
def test_two_files_are_each_mapped_by_their_own_names(
    before: Sequence[str], after: Sequence[str], expected: tuple[dict[str, int], dict[str, int]], said: int
) -> None:
    first, second, texts = choose_bands(info_of(before, "b.tif"), info_of(after, "a.tif"), NEEDED)
    assert (first, second) == expected
    assert len(texts) == said


def test_a_models_own_word_for_a_band_is_found() -> None:
    infos = [info_of(("B02", "B03", "B04", "B8A")), info_of(("B02", "B03", "B04", "B8A"))]
    first, _, _ = choose_bands(infos[0], infos[1], ("red", "nir"))
    assert first["nir"] == first["nir08"] == 4


def test_predict_without_a_configuration_maps_bands_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both dates in different orders; what the user gives wins, and is doubted."""
    write(tmp_path / "b.tif", SENTINEL)
    write(tmp_path / "a.tif", ("red", "green", "blue", "nir"))
    untrained_model(tmp_path, "third")
    seen: list[Config] = []

    def stop(run: Run, **_: object) -> None:
        plan_ingest(run)
        seen.append(run.config)
        raise InputError("far enough")

    monkeypatch.setattr("cdpipe.api.predict.ingest", stop)
    places = {"before": "b.tif", "after": "a.tif", "model": "third", "out": "out"}
    options = [text for name, place in places.items() for text in (f"--{name}", str(tmp_path / place))]
    result = call(["predict", *options])
    assert "far enough" in result.err
    assert {name: sensor.bands for name, sensor in seen[0].sensors.items()} == {"given": BGRN, "given_after": RGBN}
    assert f"{tmp_path / 'b.tif'}: bands as the file names them: blue=1,green=2,red=3,nir=4" in result.out
    assert "warning: " not in result.out
    result = call(["predict", *options, "--set", "sensors.given.nodata=0"])
    assert [sensor.nodata for sensor in seen.pop().sensors.values()] == [0, 0]  # of one date alone it would be change
    result = call(["predict", *options, "--bands", "red=1,green=2,blue=3"])
    assert [sensor.bands for sensor in seen[1].sensors.values()] == [DEFAULT]
    assert "b.tif: bands look swapped: band 1 says 'B02' (blue), sensor given calls it red" in result.out
