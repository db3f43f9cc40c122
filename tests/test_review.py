"""Verdicts on changes become labels that say nothing of what nobody looked at."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from project import Project, array, call, succeed
from rasters import GEOGRAPHIC, make_config
from reports import make_job
from stored import store_probability

from cdpipe.config.label import Label
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.crs import transform_by_gdal
from cdpipe.geo.grid import Grid, Window
from cdpipe.pairs.labels import read_label
from cdpipe.report.review import ReviewJob, raster_values, read_review, write_review_label
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here


def feature(grid: Grid, pair_id: str, verdict: str, square: tuple[int, int, int]) -> dict[str, Any]:
    """A reviewed square: row, column, side."""
    row, col, side = square
    shape = shapely.Polygon([grid.xy(row + i, col + j) for i, j in ((0, 0), (0, side), (side, side), (side, 0))])
    if grid.crs is not None:
        crs = grid.crs
        shape = shapely.transform(shape, lambda xy: np.stack(transform_by_gdal(crs, GEOGRAPHIC, *xy.T), -1))
    properties = {"pair_id": pair_id, "change": f"{row}", "pixels": grid.crs is None, "verdict": verdict}
    geometry = shapely.geometry.mapping(shapely.transform(shape, lambda xy: np.round(xy, 7)))
    return {"type": "Feature", "id": f"{pair_id}/{row}", "geometry": geometry, "properties": properties}


def write_review(path: Path, features: list[dict[str, Any]], run: str = "run") -> Path:
    head = {"type": "FeatureCollection", "cdpipe": {"format": 1, "run": run, "report": "0" * 12}}
    path.write_text(json.dumps({**head, "features": features}))
    return path


SQUARES = {"accepted": (40, 20, 10), "rejected": (60, 100, 17), "unsure": (100, 30, 9)}


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("meaning", [{}, {"changed": [255, 2], "unchanged": [1], "ignore": [0]}])
def test_a_review_is_a_label_that_ingest_reads(tmp_path: Path, labelled: bool, meaning: Mapping[str, Any]) -> None:
    """Accepted is 1, rejected 0, all else 255, or what an earlier label says; whatever values labels have."""
    job = make_job(Workspace(here(tmp_path)), "p", 0)
    grid = job.pair.grid
    path = write_review(tmp_path / "r.geojson", [feature(grid, "p", *each) for each in SQUARES.items()])
    config = make_config(tmp_path, label=meaning)
    label_key = job.label_key if labelled else None
    target = tmp_path / "label.tif"
    verdicts, values = read_review(here(path), "run"), raster_values(config.label)
    counts = write_review_label(ReviewJob(job.workspace, here(target), job.pair, label_key, (), 0.5, verdicts, values))
    assert counts == {"accepted": 1, "rejected": 1, "quiet": 0}

    before = make_label(job.workspace, job.label_key) if labelled else np.full(grid.shape, 255, np.uint8)
    expected = before.copy()
    expected[40:50, 20:30], expected[60:77, 100:117] = 1, 0
    np.testing.assert_array_equal(read_label(here(target), grid, Window(0, 0, *grid.shape), config), expected)


@pytest.mark.parametrize("wanted", [True, False])
def test_ground_that_every_model_is_sure_of_is_unchanged(tmp_path: Path, *, wanted: bool) -> None:
    """Up to a tenth of the threshold, where nobody has labelled anything; verdicts lie on top."""
    job = make_job(Workspace(here(tmp_path)), "p", 0)
    grid, keys = job.pair.grid, ("0123456789ab", "ba9876543210")
    random = np.random.default_rng(3)
    said = random.uniform(0, 0.1, (2, *grid.shape)).astype(np.float32)
    said[0, :35] = np.nan
    for key, probability in zip(keys, said, strict=True):
        store_probability(job.workspace, job.pair, key, probability)
    path = write_review(tmp_path / "r.geojson", [feature(grid, "p", *each) for each in SQUARES.items()])
    target, verdicts = here(tmp_path / "label.tif"), read_review(here(path), "run")
    quiet = keys if wanted else ()
    counts = write_review_label(
        ReviewJob(job.workspace, target, job.pair, None, quiet, 0.4, verdicts, raster_values(Label()))
    )

    expected = np.where((said <= 0.04).all(axis=0) & wanted, 0, 255).astype(np.uint8)
    squares = (slice(40, 50), slice(20, 30)), (slice(60, 77), slice(100, 117))
    for square in squares:
        expected[square] = 255
    assert counts == {"accepted": 1, "rejected": 1, "quiet": int((expected == 0).sum())}
    expected[squares[0]], expected[squares[1]] = 1, 0
    label = read_label(target, grid, Window(0, 0, *grid.shape), make_config(tmp_path))
    np.testing.assert_array_equal(label, expected)


def make_label(workspace: Workspace, key: str | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    project = Project(Path(), workspace.root.local())
    return array(project, "labels", "p", str(key), "label")


def test_pairs_without_georeference_are_reviewed_in_pixels(tmp_path: Path) -> None:
    verdict = feature(Grid(100, 100), "p", "accepted", (10, 20, 5))
    (found,) = read_review(here(write_review(tmp_path / "r.geojson", [verdict])), "run")
    assert found.outline(Grid(100, 100)).bounds == (20, 10, 25, 15)
    with pytest.raises(InputError, match="reviewed with none georeference"):
        found.outline(Grid(100, 100, crs=GEOGRAPHIC))


GOOD = feature(Grid(9, 9), "p", "accepted", (1, 1, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a review that the report saved"),
        ('{"type": "FeatureCollection", "features": []}', "got another file"),
        (json.dumps({"cdpipe": {"format": 2, "run": "run"}, "features": []}), "got another file"),
        (json.dumps({"cdpipe": {"format": 1, "run": "other"}, "features": []}), "a review of run 'other'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.geojson").write_text(text)
    with pytest.raises(InputError, match=message):
        read_review(here(tmp_path / "r.geojson"), "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"properties": {**GOOD["properties"], "pair_id": "../../etc"}}, "pair_id: expected"),
        ({"properties": {**GOOD["properties"], "verdict": "perhaps"}}, "verdict: expected accepted, rejected, unsure"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "geometry: expected a polygon, got Point"),
        ({"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1e999], [1, 0], [0, 0]]]}}, "finite"),
        ({"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1]]]}}, "feature 2: "),
        ({"geometry": None}, "feature 2: "),
        ({"properties": None}, "feature 2: "),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_review(tmp_path / "r.geojson", [GOOD, {**GOOD, **changes}])
    with pytest.raises(InputError, match=message):
        read_review(here(path), "run")


def test_labels_that_are_no_bytes_are_refused() -> None:
    assert raster_values(Label(changed=(255,), unchanged=(0,), ignore=(254,))) == {0: 0, 1: 255, 255: 253}
    for meaning in (Label(changed=(300,)), Label(unchanged=())):
        with pytest.raises(ConfigError, match="label: "):
            raster_values(meaning)


def test_reviewed_pairs_are_ingested_with_their_labels(branch: Project, tmp_path: Path) -> None:
    """The verb, and ingest of the catalog that it writes; validation and test pairs keep their labels."""
    stored = {pair.pair_id: pair for pair in branch.manifest.pairs}
    grid = Grid.from_json(json.loads((branch.workspace / f"store.zarr/pairs/small/{stored['small'].pair}/zarr.json")
                                     .read_text())["attributes"]["grid"])  # fmt: skip
    squares = [("accepted", (4, 5, 6)), ("rejected", (20, 30, 7)), ("unsure", (30, 5, 5))]
    features = [feature(grid, "small", *each) for each in squares] + [feature(grid, "val", "rejected", (1, 1, 3))]
    path = write_review(tmp_path / "review.geojson", features)
    result = succeed([*branch.arguments("review"), str(path), "--out", str(tmp_path / "reviewed")])
    assert "1 change(s) and 1 false alarm(s) in labels of 1 pair(s)" in result.out
    assert "pair val is left alone" in result.out

    with (tmp_path / "reviewed" / "pairs.csv").open() as stream:
        rows = {row["pair_id"]: row for row in csv.DictReader(stream)}
    assert {name: row["split"] for name, row in rows.items()} == {
        "wide": "train",
        "val": "val",
        "test": "test",
        "row": "",
        "small": "train",
    }
    succeed(branch.arguments("ingest", "--set", f"catalog={tmp_path / 'reviewed' / 'pairs.csv'}"))
    keys = [folder.name for folder in branch.workspace.glob("store.zarr/labels/small/*") if "." not in folder.name]
    expected = np.full(grid.shape, 255, np.uint8)
    expected[4:10, 5:11], expected[20:27, 30:37] = 1, 0
    np.testing.assert_array_equal(array(branch, "labels", "small", keys[0], "label"), expected)


def test_a_review_of_nothing_is_refused(branch: Project, tmp_path: Path) -> None:
    path = write_review(tmp_path / "review.geojson", [feature(Grid(9, 9), "wide", "unsure", (1, 1, 3))])
    result = call([*branch.arguments("review"), str(path)])
    assert (result.code, "nothing accepted or rejected" in result.err) == (3, True)
