"""The check says everything that is wrong with a pair, and never stumbles over it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasters import NORTH_UP, make_config, source_of, utm_grid, write_raster

from cdpipe.cli.check import check_on_screen
from cdpipe.cli.screen import Screen
from cdpipe.config.schema import Config
from cdpipe.errors import EXIT_DONE, EXIT_INPUT, InputError
from cdpipe.geo.grid import Grid
from cdpipe.pairs.catalog import Pair, read_catalog
from cdpipe.pairs.check import PairReport, check_catalog, check_pair
from cdpipe.pairs.coregistration import SIDE, correlate, estimate_shift, sample_windows
from cdpipe.runs.run import Run
from cdpipe.workspace.location import here

GRID = utm_grid(300, 320)


def texture(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint16]:
    """Something with edges of many sizes, as land has: (3, height, width)."""
    random = np.random.default_rng(seed)
    image = np.zeros(shape)
    for size in (40, 16, 6, 2):
        coarse = random.normal(0, size**0.5, (shape[0] // size + 1, shape[1] // size + 1))
        image += np.kron(coarse, np.ones((size, size)))[: shape[0], : shape[1]]
    scaled = 1000 + 100 * image + random.normal(0, 20, (3, *shape))
    return scaled.clip(1, 60_000).astype(np.uint16)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A pair without a fault."""
    config = make_config(tmp_path)
    label = np.zeros(GRID.shape, np.uint8)
    label[:30, :32] = 1
    return Pair(
        "p",
        "p",
        source_of(write_raster(tmp_path / "before.tif", texture(GRID.shape), GRID), config, (1, 2, 3)),
        source_of(write_raster(tmp_path / "after.tif", texture(GRID.shape), GRID), config, (1, 2, 3)),
        ("red", "green", "blue"),
        here(write_raster(tmp_path / "label.tif", label, GRID)),
    )


def checked(pair: Pair, read_all: bool = False, **sections: Any) -> PairReport:
    return check_pair(pair, make_config(pair.before.path.parent.local(), **sections), read_all=read_all)


def label_of(pair: Pair) -> Path:
    assert pair.label is not None
    return pair.label.local()


def rewrite_after(pair: Pair, values: NDArray[Any], grid: Grid | None, **profile: Any) -> None:
    write_raster(pair.after.path.local(), values, grid, **profile)


def test_a_good_pair_has_nothing_against_it(pair: Pair) -> None:
    report = checked(pair, read_all=True)
    assert (report.problems, report.warnings) == ((), ())
    assert (report.overlap, report.observed) == (1.0, 1.0)
    assert (report.labelled, report.changed) == (300 * 320, 30 * 32)
    assert report.before is not None
    assert report.before.grid == GRID
    assert report.shift is not None
    assert report.shift.length < 0.1


def test_all_files_are_judged_even_if_the_first_is_missing(pair: Pair) -> None:
    pair.before.path.unlink()
    pair.after.path.local().write_bytes(b"II*\0 no TIFF")
    report = checked(pair)
    assert [problem.split(":")[0] for problem in report.problems] == [str(pair.before.path), str(pair.after.path)]


def test_a_label_and_a_date_may_both_be_wrong(pair: Pair) -> None:
    write_raster(label_of(pair), np.full(GRID.shape, 7, np.uint8), GRID)
    rewrite_after(pair, texture(GRID.shape)[:2], GRID)
    label_problem, band_problem = sorted(checked(pair).problems, reverse=True)
    assert "value(s) 7 (96,000 px) are in none of label" in label_problem
    assert "sensor s needs band 3, the file has 2 band(s)" in band_problem


def test_pixels_are_read_even_if_the_label_is_wrong(pair: Pair) -> None:
    write_raster(label_of(pair), np.full(GRID.shape, 7, np.uint8), GRID)
    rewrite_after(pair, np.roll(texture(GRID.shape), 3, 1), GRID)
    report = checked(pair, read_all=True)
    assert (len(report.problems), len(report.warnings), report.observed) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (utm_grid(300, 320, (10.0, 0.0, 503_000.0, 0.0, -10.0, 4_000_000.0)), "covers 6% of the first date"),
        (Grid(300, 320, NORTH_UP, CRS.from_epsg(32651).to_wkt()), "covers 0% .* EPSG:32651 .* EPSG:32633"),
        (None, "got no georeference that can be used"),
    ],
)
def test_dates_of_different_places_are_no_pair(pair: Pair, grid: Grid | None, expected: str) -> None:
    rewrite_after(pair, texture(GRID.shape), grid)
    [problem] = checked(pair).problems
    assert re.search(expected, problem)


def test_an_overlap_of_nothing_is_a_problem_even_if_nothing_is_asked_for(pair: Pair) -> None:
    rewrite_after(pair, texture(GRID.shape), utm_grid(300, 320, (10.0, 0.0, 600_000.0, 0.0, -10.0, 4_000_000.0)))
    assert len(checked(pair, align={"min_overlap": 0.0}).problems) == 1


def test_pixel_coordinates_need_equal_sizes(pair: Pair) -> None:
    for path in (pair.before.path, pair.after.path):
        write_raster(path.local(), texture(GRID.shape), None)
    pair = dataclasses.replace(pair, label=None)
    assert not checked(pair, input={"pixel_coordinates": True}).problems
    rewrite_after(pair, texture((299, 320)), None)
    [problem] = checked(pair, input={"pixel_coordinates": True}).problems
    assert "320 x 299 px without georeference; expected it to lie with the first date" in problem


def test_missing_bands_of_the_models_are_named(pair: Pair) -> None:
    report = check_pair(pair, make_config(pair.before.path.parent.local()), required=("red", "nir", "swir"))
    [problem] = report.problems
    assert "sensor s has no band nir, swir, which the models need" in problem


def test_doubts_are_warnings(pair: Pair) -> None:
    rewrite_after(pair, texture((100, 110)), utm_grid(100, 110, (30.0, 0.0, 500_000.0, 0.0, -30.0, 4_000_000.0)))
    odd = dataclasses.replace(pair, label=None, before_date="2019-01-01", after_date="2018-01-01T00:00:00Z")
    swapped, coarse = checked(odd).warnings[:2]
    assert "before_date 2019-01-01 is later than after_date 2018-01-01T00:00:00Z; are the dates swapped?" in swapped
    assert "its pixels are 3.0 times larger than the first date's" in coarse
    [same] = checked(Pair("p", "p", pair.before, pair.before, pair.roles)).warnings
    assert "both dates are the same file" in same


def test_a_label_drawn_on_something_transparent_is_pointed_out(pair: Pair) -> None:
    red = np.zeros((4, *GRID.shape), np.uint8)
    red[[0, 3], 50:90, 60:200] = 255
    write_raster(label_of(pair), red, GRID, alpha="YES", photometric="RGB")
    meaning: dict[str, Any] = {"changed": ["#ff0000"]}
    report = checked(pair, label=meaning)
    assert (report.labelled, report.changed) == (40 * 140, 40 * 140)
    assert any("all that is not transparent changed" in warning for warning in report.warnings)
    report = checked(pair, label={**meaning, "mask": "ignore"})
    assert (report.labelled, report.changed, report.warnings) == (300 * 320, 40 * 140, ())


def test_an_alpha_band_that_has_a_role_is_pointed_out(pair: Pair) -> None:
    values = np.full((4, *GRID.shape), 255, np.uint8)
    values[:3] = texture(GRID.shape) % 256
    rewrite_after(pair, values, GRID)
    sensors = {"s": {"bands": {"red": 1, "green": 2, "blue": 3, "nir": 4}}}
    config = make_config(pair.before.path.parent.local(), sensors=sensors)
    after = dataclasses.replace(pair.after, sensor=config.sensors["s"])
    warnings = check_pair(dataclasses.replace(pair, after=after), config).warnings
    assert any("band 4 is declared as alpha, and read as data" in warning for warning in warnings)
    assert not any("declared as alpha" in warning for warning in checked(pair).warnings)


@pytest.mark.parametrize("offset", [(4, -3), (-2, 0)])
def test_a_shift_between_the_dates_is_found_and_told(pair: Pair, offset: tuple[int, int]) -> None:
    rewrite_after(pair, np.roll(texture(GRID.shape), offset, (1, 2)), GRID)
    report = checked(pair)
    assert report.shift is not None
    assert (report.shift.rows, report.shift.cols) == pytest.approx(offset, abs=0.2)
    [warning] = report.warnings
    assert f"({offset[0]:+.1f} rows and" in warning


def test_unlike_dates_give_no_shift_warning(pair: Pair) -> None:
    rewrite_after(pair, np.random.default_rng(1).integers(1, 9999, (3, *GRID.shape), np.uint16), GRID)
    assert not checked(pair).warnings


def test_dates_seen_at_different_places_only_are_no_pair(pair: Pair) -> None:
    before, after = texture(GRID.shape), texture(GRID.shape)
    before[:, :, 150:], after[:, :, :150] = 0, 0
    write_raster(pair.before.path.local(), before, GRID, nodata=0)
    rewrite_after(pair, after, GRID, nodata=0)
    assert checked(pair).shift is None
    [problem] = checked(pair, read_all=True).problems
    assert "no pixel is observed at both dates" in problem


def test_reading_all_finds_damage_that_samples_miss(pair: Pair) -> None:
    grid = utm_grid(1500, 1500)
    for source in (pair.before, pair.after):
        write_raster(source.path.local(), texture(grid.shape), grid, tiled=True, blockxsize=256, blockysize=256)
    pair = Pair("p", "p", pair.before, pair.after, pair.roles)
    assert not checked(pair, read_all=True).problems
    for source in (pair.before, pair.after):
        source.path.local().write_bytes(source.path.read_bytes()[:-1000])
    assert not checked(pair).problems
    assert [problem.split(":")[0] for problem in checked(pair, read_all=True).problems] == [
        str(pair.before.path),
        str(pair.after.path),
    ]


def test_a_label_elsewhere_is_a_problem(pair: Pair) -> None:
    far = utm_grid(300, 320, (10.0, 0.0, 600_000.0, 0.0, -10.0, 4_000_000.0))
    write_raster(label_of(pair), np.zeros(GRID.shape, np.uint8), far)
    [problem] = checked(pair).problems
    assert "lies outside of the pair" in problem


def catalog(folder: Path, pair: Pair, splits: str, labels: str) -> Config:
    """A catalog with the pair's rasters, a row for each letter: t, v, s (test) or - and, for its label, 0, 1 or -."""
    write_raster(folder / "0.tif", np.zeros(GRID.shape, np.uint8), GRID)
    write_raster(folder / "1.tif", np.repeat([1, 0], (100, 200))[:, None] * np.ones(GRID.shape, np.uint8), GRID)
    names = {"t": "train", "v": "val", "s": "test", "-": ""}
    rows = [
        f"p{number},{pair.before.path},{pair.after.path},{names[split]},{'' if label == '-' else f'{label}.tif'}"
        for number, (split, label) in enumerate(zip(splits, labels, strict=True))
    ]
    (folder / "pairs.csv").write_text("\n".join(["pair_id,before,after,split,label", *rows]) + "\n")
    return make_config(folder, splits={"allow_leak": True})  # all rows are of one place


@pytest.mark.parametrize(
    ("splits", "labels", "problems", "warnings"),
    [
        ("ttv", "101", 0, 0),
        ("ttv", "001", 1, 0),  # nothing to learn from
        ("--v", "101", 0, 0),
        ("vv", "11", 0, 1),  # nothing to train with
        ("--", "--", 0, 0),  # for prediction
    ],
)
def test_labels_are_judged_together(
    tmp_path: Path, pair: Pair, splits: str, labels: str, problems: int, warnings: int
) -> None:
    config = catalog(tmp_path, pair, splits, labels)
    done: list[None] = []
    report = check_catalog(config, read_catalog(config), advance=lambda: done.append(None))
    assert [item.pair_id for item in report.pairs] == [f"p{number}" for number in range(len(splits))]
    assert len(done) == len(splits)
    assert (len(report.problems), len(report.warnings)) == (problems, warnings)
    assert not any(item.problems for item in report.pairs)


def test_the_verb_shows_a_table_and_tells_by_its_exit_code(
    tmp_path: Path, pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    config = catalog(tmp_path, pair, "tv", "11")
    assert check_on_screen(Run(config), Screen(), read=True) == EXIT_DONE
    output = capsys.readouterr().out
    assert "2 pair(s), 2 good; 2 with a label, 33.33% of their pixels changed; 0 problem(s)" in output
    assert "320 x 300" in output
    (tmp_path / "1.tif").unlink()
    assert check_on_screen(Run(config), Screen()) == EXIT_INPUT
    output = capsys.readouterr().out
    assert f"p0, p1  {tmp_path / '1.tif'}: expected a raster file; there is no such file" in output
    assert "2 pair(s), 0 good" in output


def test_sample_windows_lie_inside_and_apart() -> None:
    for shape in ((300, 320), (512, 2000), (5000, 4000), (1, 7)):
        found = sample_windows(shape)
        assert len(set(found)) == len(found) <= 5
        assert all(window.stop_row <= shape[0] and window.stop_col <= shape[1] for window in found)
        assert {window.shape for window in found} == {(min(SIDE, shape[0]), min(SIDE, shape[1]))}
    assert len(sample_windows((5000, 4000))) == 5


def test_correlation_tells_direction_and_confidence() -> None:
    image = texture((256, 256))[0].astype(np.float64)
    rows, cols, confidence = correlate(image, np.roll(image, (5, -7), (0, 1)))
    assert (rows, cols) == pytest.approx((5, -7), abs=0.2)
    assert confidence > 0.5
    assert correlate(image, texture((256, 256), 9)[0].astype(np.float64))[2] < 0.1


def test_tiny_scenes_have_no_shift(pair: Pair, tmp_path: Path) -> None:
    grid = utm_grid(5, 400)
    for source in (pair.before, pair.after):
        write_raster(source.path.local(), texture(grid.shape), grid)
    assert estimate_shift(pair, grid, make_config(tmp_path)) is None


def test_mismatched_pairs_are_refused(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mismatched"
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1}}})
    for first, second in (("multispectral_t1.tif", "multispectral_t2.tif"), ("sar_t1.tiff", "sar_t2.tiff")):
        before, after = (source_of(folder / name, config, (1,)) for name in (first, second))
        [problem] = check_pair(Pair("p", "p", before, after, ("red",)), config, required=("red",)).problems
        assert "covers 0% of the first date" in problem


@pytest.mark.heavy
@pytest.mark.parametrize("pixel_coordinates", [False, True])
def test_odd_files_never_stumble(shared: Path, tmp_path: Path, pixel_coordinates: bool) -> None:
    files = sorted((shared / "data" / "oddtiffs").glob("*.tif*"))
    config = make_config(tmp_path, sensors={"s": {"bands": {"red": 1}}}, input={"pixel_coordinates": pixel_coordinates})
    good = 0
    for file in files:
        source = source_of(file, config, (1,))
        report = check_pair(Pair("p", "p", source, source, ("red",)), config, required=("red",), read_all=True)
        assert all(problem.startswith(str(file)) and "\n" not in problem for problem in report.problems)
        good += not report.problems
    assert good >= (94 if pixel_coordinates else 50)


def test_real_pairs_are_good_and_their_shift_is_small(shared: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sensors={"s": {"bands": {"blue": 1, "green": 2, "red": 3}}})
    for city in ("abudhabi", "hongkong", "saclay_e"):
        folder = shared / "data" / "oscd" / city
        before, after = (source_of(folder / f"{date}.tif", config, (1, 2, 3)) for date in ("before", "after"))
        pair = Pair(city, city, before, after, ("blue", "green", "red"), here(folder / "mask.tif"))
        report = check_pair(pair, config, read_all=True)
        assert not report.problems
        assert report.shift is not None
        assert report.shift.confidence > 0.3
        assert report.shift.length < 1.5
        assert report.observed is not None
        assert report.observed > 0.99


def test_settings_for_quality_rasters_that_no_pair_has_are_said(pair: Pair) -> None:
    folder = pair.before.path.parent.local()
    bands = {"red": 1, "green": 2, "blue": 3}
    config = make_config(
        folder, sensors={"s": {"bands": bands, "quality": "scl"}, "other": {"bands": bands, "unusable": [1]}}
    )
    (told,) = check_catalog(config, [pair]).warnings
    assert told.startswith("sensors.s.quality is given, but no quality raster of its dates")
    valid = here(write_raster(folder / "valid.tif", np.full(GRID.shape, 4, np.uint8), GRID))
    assert check_catalog(config, [dataclasses.replace(pair, after_valid=valid)]).warnings == ()


@pytest.mark.parametrize(
    ("given", "tag", "said"),
    [
        (-9999, None, "its uint16 values are never -9999, which sensors.s.nodata gives"),
        (0.5, None, "its uint16 values are never 0.5"),
        ({"red": 0, "nir": 70000}, None, "its uint16 values are never 70000"),
        (0, 65535, "its own nodata value 65535 counts as observed, since sensors.s.nodata gives 0"),
        (0, 0, None),
        ("none", 65535, None),
        ({"red": 0}, 65535, None),
        (None, 65535, None),
    ],
)
def test_nodata_that_a_sensor_gives_in_vain_is_said(pair: Pair, given: Any, tag: int | None, said: str | None) -> None:
    rewrite_after(pair, texture(GRID.shape), GRID, nodata=tag)
    folder = pair.before.path.parent.local()
    bands = {"red": 1, "green": 2, "blue": 3, "nir": 3}
    config = make_config(folder, sensors={"s": {"bands": bands, "nodata": given}})
    dates = [dataclasses.replace(date, sensor=config.sensors["s"]) for date in (pair.before, pair.after)]
    warnings = check_pair(dataclasses.replace(pair, before=dates[0], after=dates[1]), config).warnings
    found = [text for text in warnings if text.startswith(f"{pair.after.path}: its ")]
    assert len(found) == (said is not None)
    assert not said or said in found[0]


@pytest.mark.parametrize(
    ("splits", "labels", "problems", "warnings"),
    [
        ("tv", "10", ["no label of a val pair has a changed pixel (p1): they can choose neither"], []),
        ("tvv", "101", [], []),
        ("tvs", "110", [], ["no label of a test pair has a changed pixel (p2): their figures will say little"]),
        ("tvss", "1101", [], []),
        ("tvssss", "110000", [], ["(p2, p3, p4, ...)"]),
    ],
)
def test_splits_without_change_are_told_early(
    tmp_path: Path, pair: Pair, splits: str, labels: str, problems: list[str], warnings: list[str]
) -> None:
    config = catalog(tmp_path, pair, splits, labels)
    report = check_catalog(config, read_catalog(config))
    for found, expected in ((report.problems, problems), (report.warnings, warnings)):
        assert len(found) == len(expected)
        assert all(part in text for part, text in zip(expected, found, strict=True))
    with_model = config.model_copy(update={"predict": config.predict.model_copy(update={"models": (here(tmp_path),)})})
    assert not check_catalog(with_model, read_catalog(config)).problems, "its epoch is chosen already"


def test_a_label_of_which_nothing_counts_is_told(pair: Pair) -> None:
    write_raster(label_of(pair), np.full(GRID.shape, 9, np.uint8), GRID)
    [warning] = checked(pair, label={"ignore": [9]}).warnings
    assert "label.tif: no pixel of it counts, all are ignored" in warning


def test_no_nodata_is_advised_that_a_date_cannot_have(pair: Pair) -> None:
    values = texture(GRID.shape).astype(np.float32)
    write_raster(pair.before.path.local(), values, GRID, nodata=-9999)
    (told,) = [text for text in checked(pair).warnings if "nodata -9999 > none" in text]
    assert "its uint16 values are never -9999; if another value means that" in told


def test_a_catalog_without_its_data_says_where_that_comes_from(tmp_path: Path, pair: Pair) -> None:
    """In one line, from the comment that it begins with; as soon as a raster is there, each that is missing counts."""
    config = catalog(tmp_path, pair, "tv", "11")
    table = (tmp_path / "pairs.csv").read_text().replace(str(pair.before.path), "no.tif")
    missing = table.replace(str(pair.after.path), "none.tif")
    (tmp_path / "pairs.csv").write_text(f"# See how-to.md:\n#  it says how.\n{missing}")
    with pytest.raises(InputError) as refused:
        check_catalog(config, read_catalog(config))
    first = here(tmp_path / "no.tif")
    assert str(refused.value) == (
        f"{config.catalog}: none of the 2 rasters that it names is there, the first is {first}; it says: "
        "See how-to.md: it says how."
    )
    for text in (missing, f"# See how-to.md\n{table}"):
        (tmp_path / "pairs.csv").write_text(text)
        assert all(item.problems for item in check_catalog(config, read_catalog(config)).pairs)
