"""``cdpipe catalog`` writes a table and a configuration that the other verbs read, and says what it did."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import ArrayLike
from project import call, succeed
from rasters import utm_grid, write_raster

from cdpipe.config.load import load_config
from cdpipe.config.schema import Quality
from cdpipe.errors import EXIT_CONFIG, EXIT_INPUT
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.layouts.write import guess_meaning
from cdpipe.workspace.location import here

GRID = utm_grid(20, 30)


def write_images(folder: Path, names: tuple[str, ...], suffix: str = "tif", bands: int = 3) -> None:
    random = np.random.default_rng(0)
    for date in ("A", "B"):
        (folder / date).mkdir(parents=True, exist_ok=True)
        for name in names:
            pixels = random.integers(0, 255, (bands, *GRID.shape), np.uint8)
            driver = {"tif": "GTiff", "png": "PNG", "jpg": "JPEG"}[suffix]
            write_raster(folder / date / f"{name}.{suffix}", pixels, GRID if suffix == "tif" else None, driver=driver)


def write_label(folder: Path, name: str, values: ArrayLike, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.asarray(values, np.uint8), GRID.shape)
    driver = {"tif": "GTiff", "png": "PNG", "jpg": "JPEG"}[suffix]
    return write_raster(folder / f"{name}.{suffix}", pixels, driver=driver)


def assert_good(config: Path, pairs: int) -> None:
    """All pairs can be used; of scenes this small nothing can be learned, which the check says."""
    found = call(["check", str(config)])
    assert found.code == EXIT_INPUT
    assert f"{pairs} pair(s), {pairs} good" in found.out
    (problem,) = found.out.split("Problems\n")[1].splitlines()[:-1]
    assert problem.startswith("  catalog  training: ")


def test_a_folder_becomes_a_catalog_and_a_configuration(tmp_path: Path) -> None:
    data = tmp_path / "data set"
    write_images(data, ("Кама 2", "Кама 10", "val_1"), "png")
    write_label(data / "label", "Кама 2", [0, 255])
    out, config = tmp_path / "p" / "pairs.csv", tmp_path / "my config.yaml"
    result = succeed(["catalog", "folders", str(data), "--out", str(out), "--config", str(config)])
    assert result.out.splitlines() == [
        f"found 3 pair(s) in {data}: 3 without split; 1 with a label",
        "  without a label (2): val_1, Кама 10",
        f"wrote {out}",
        f"wrote {config}; look at its sensors and label values",
        f"next: cdpipe check '{config}'",
    ]
    loaded = load_config(config)
    assert [pair.name for pair in read_catalog(loaded)] == ["val_1", "Кама 2", "Кама 10"]
    assert (loaded.name, loaded.workspace) == ("data-set", here(tmp_path / "work"))
    assert (loaded.input.drivers, loaded.input.pixel_coordinates) == (("GTiff", "PNG"), True)
    assert (loaded.label.changed, loaded.label.unchanged) == ((255,), (0,))
    assert loaded.sensors["my_sensor"].bands == {"red": 1, "green": 2, "blue": 3}
    assert_good(config, 3)


def test_the_original_gets_its_preset(tmp_path: Path) -> None:
    name = "KVI_20180922_SCN3_UN91__KV1_20190804_SCN2_UN92"
    composites, masks = tmp_path / "data" / "x" / "8_ch", tmp_path / "data" / "mask" / "mask"
    composites.mkdir(parents=True)
    write_raster(composites / f"{name}.tif", np.ones((8, *GRID.shape), np.uint16), GRID)
    write_label(masks, name, [0, 1], "tif")
    config = tmp_path / "c.yaml"
    succeed(["catalog", "original", str(tmp_path), "--out", str(tmp_path / "p.csv"), "--config", str(config)])
    loaded = load_config(config)
    assert (loaded.preset, loaded.predict.threshold) == ("original", 0.4)
    assert loaded.sensors["kanopus"].bands == {"red": 1, "green": 2, "blue": 3, "nir": 4}
    assert not loaded.input.pixel_coordinates
    [pair] = read_catalog(loaded)
    assert (pair.pair_id, pair.split, pair.before_date) == (name, "train", "2018-09-22")
    assert_good(config, 1)


@pytest.mark.parametrize(("bands", "roles"), [(1, (1, 1, 1)), (2, (1, 1, 1)), (6, (1, 2, 3))])
def test_any_number_of_bands_makes_a_start(bands: int, roles: tuple[int, ...], tmp_path: Path) -> None:
    write_images(tmp_path, ("a",), bands=bands)
    config = tmp_path / "c.yaml"
    patterns = ["--before", "A/{id}.tif", "--after", "B/{id}.tif"]
    files = ["--out", str(tmp_path / "p.csv"), "--config", str(config)]
    succeed(["catalog", "patterns", str(tmp_path), *patterns, *files])
    assert tuple(load_config(config).sensors["my_sensor"].bands.values()) == roles
    assert f"What the {bands} band(s) are: a guess" in config.read_text()
    succeed(["check", str(config)])


def test_quality_rasters_are_found_and_named(tmp_path: Path) -> None:
    """As the configuration says by their names, which nothing does silently."""
    write_images(tmp_path, ("a",), bands=3)
    write_raster(tmp_path / "A" / "a_SCL.tif", np.full(GRID.shape, 4, np.uint8), GRID)
    config = tmp_path / "c.yaml"
    patterns = ["--before", "A/{id}.tif", "--after", "B/{id}.tif", "--before-valid", "A/{id}_SCL.tif"]
    succeed(
        ["catalog", "patterns", str(tmp_path), *patterns, "--out", str(tmp_path / "p.csv"), "--config", str(config)]
    )
    loaded = load_config(config)
    assert loaded.sensors["my_sensor"].quality == Quality(preset="scl")
    [pair] = read_catalog(loaded)
    assert pair.before_valid == here(tmp_path / "A" / "a_SCL.tif")
    assert pair.after_valid is None
    assert "no pixel of it is unusable: it has 4 vegetation (100%)" in succeed(["check", str(config)]).out


@pytest.mark.parametrize(
    ("masks", "meaning"),
    [
        ([[0, 1]], {"changed": (1,), "unchanged": (0,)}),
        ([[0], [0, 255]], {"changed": (255,), "unchanged": (0,)}),
        ([[0, 1, 255]], {"changed": (1,), "unchanged": (0,), "ignore": (255,)}),
        ([[1], [1, 2]], {"changed": (2,), "unchanged": (1,)}),
        ([[0, 3], [0, 7]], {"changed": (3, 7), "unchanged": (0,)}),
        ([[0]] * 21 + [[0, 255]], {"changed": (255,), "unchanged": (0,)}),  # the first ones show no change
        ([[0]], {"changed": (1,), "unchanged": (0,)}),
        ([range(0, 256, 5)], {"changed": tuple(range(128, 256)), "unchanged": tuple(range(128))}),
    ],
)
def test_the_meaning_of_masks_is_seen_in_their_values(
    masks: list[list[int]], meaning: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    files = [write_label(tmp_path, f"{number:02}", values) for number, values in enumerate(masks)]
    assert guess_meaning(files) == meaning


def test_masks_in_jpeg_are_cut_at_half(tmp_path: Path) -> None:
    files = [tmp_path / "missing.jpg", write_label(tmp_path, "a", [0, 0, 255, 255], "jpg")]
    assert guess_meaning(files) == {"changed": tuple(range(128, 256)), "unchanged": tuple(range(128))}


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    write_images(tmp_path, ("a",))
    out, config = tmp_path / "pairs.csv", tmp_path / "c.yaml"
    arguments = ["catalog", "folders", str(tmp_path), "--out", str(out), "--config", str(config)]
    out.write_text("mine")
    result = call(arguments)
    assert (result.code, out.read_text(), config.exists()) == (EXIT_CONFIG, "mine", False)
    assert result.err == f"cdpipe: {out} exists already; --force overwrites it, --out names another file\n"
    config.write_text("mine")
    result = call([*arguments, "--force"])
    assert (result.code, out.read_text(), config.read_text()) == (EXIT_CONFIG, "mine", "mine")
    assert "never overwritten" in result.err
    result = succeed([*arguments[:-2], "--force"])
    assert result.out.splitlines()[-1].startswith(f"next: set catalog: {out} in your configuration")
    assert out.read_text().startswith("pair_id,before,after\n")


def test_the_catalog_lies_in_the_current_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "data", ("a",))
    monkeypatch.chdir(tmp_path)
    succeed(["catalog", "folders", "data"])
    assert (tmp_path / "pairs.csv").read_text() == "pair_id,before,after\na,data/A/a.tif,data/B/a.tif\n"


def test_long_lists_are_cut(tmp_path: Path) -> None:
    write_images(tmp_path, ("x",))
    for number in range(12):
        (tmp_path / "A" / f"{number}.tif").touch()
    result = succeed(["catalog", "folders", str(tmp_path), "--out", str(tmp_path / "p.csv")])
    assert "  left out, in A without a partner in B (12): 0, 1, 10, 11, 2, 3, 4, 5, ...\n" in result.out


@pytest.mark.parametrize("layout", ["original", "folders", "oscd", "patterns"])
def test_nothing_found_is_a_mistake_in_the_input(layout: str, tmp_path: Path) -> None:
    more = ["--before", "a{id}", "--after", "b{id}"] if layout == "patterns" else []
    result = call(["catalog", layout, str(tmp_path), "--out", str(tmp_path / "p.csv"), *more])
    assert result.code == EXIT_INPUT
    assert result.err.startswith(f"cdpipe: {tmp_path}: ")
    assert not list(tmp_path.iterdir())


def test_the_catalog_is_written_as_csv_only(tmp_path: Path) -> None:
    write_images(tmp_path, ("a",))
    result = call(["catalog", "folders", str(tmp_path), "--out", str(tmp_path / "pairs.xlsx")])
    assert result.code == EXIT_CONFIG
    assert "expected a name for CSV" in result.err


def test_columns_are_two(tmp_path: Path) -> None:
    result = call(["catalog", "original", str(tmp_path), "--columns", "first", "--out", str(tmp_path / "p.csv")])
    assert result.code == EXIT_CONFIG
    assert "expected the names of two columns as BEFORE,AFTER, got 'first'" in result.err


def test_rasters_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    write_images(tmp_path, ("a",))
    for date in "AB":
        (tmp_path / date / "a.tif").write_bytes(b"no raster")
    files = ["--out", str(tmp_path / "p.csv"), "--config", str(tmp_path / "c.yaml")]
    result = call(["catalog", "folders", str(tmp_path), *files])
    assert result.code == EXIT_INPUT
    assert "no raster of the pairs can be opened" in result.err
    assert not (tmp_path / "c.yaml").exists()


def test_real_samples_make_good_catalogs(shared: Path, tmp_path: Path) -> None:
    files = ["--out", str(tmp_path / "levir.csv"), "--config", str(tmp_path / "levir.yaml")]
    told = succeed(["catalog", "folders", str(shared / "data" / "levir_samples"), *files]).out
    assert "found 11 pair(s)" in told
    assert "7 test, 3 train, 1 val; 11 with a label" in told
    assert "left out, dates of different size without georeference (1): test_113_0256 (768 x 384, 768 x 383)" in told
    patterns = ["--before", "A.tif", "--after", "B.tif", "--label", "mask.tif"]
    files = ["--out", str(tmp_path / "landsat.csv"), "--config", str(tmp_path / "landsat.yaml")]
    succeed(["catalog", "patterns", str(shared / "data" / "landsat_taizhou"), *patterns, *files])
    label = yaml.safe_load((tmp_path / "landsat.yaml").read_text())["label"]
    assert label == {"changed": [1], "unchanged": [0], "ignore": [255]}
    for name in ("levir", "landsat"):
        fits = ["--set", "train.patch=64"]  # one scene of 400 pixels
        assert "0 problem(s)" in succeed(["check", str(tmp_path / f"{name}.yaml"), *fits]).out
