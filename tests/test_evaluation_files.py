"""The report: figures that programs and people read the same, and pictures of what is stored."""

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import bright_squares, store_change, store_pair

from cdpipe.evaluation.scores import BASELINE, ENSEMBLE, PairScores
from cdpipe.evaluation.tables import PIXEL_FIGURES, Evaluation, evaluate_run, sum_up_test, write_tables
from cdpipe.metrics.counts import Counts, ScoreHistogram, score_histogram
from cdpipe.report.pictures import PairRasters, PictureJob, draw_pair, draw_picture
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

Row = dict[str, Any]
SHAPE = (60, 1500)  # every second pixel of it fits a picture


@pytest.fixture
def evaluation() -> Evaluation:
    """Three pairs; in the second nothing changed and nothing was found."""
    zeros = (0,) * 1002
    found = {
        "p": PairScores({"net": Counts(6, 2, 4, 88), ENSEMBLE: Counts(7, 1, 3, 89)}, histogram(250)),
        "q": PairScores({"net": Counts(tn=50), ENSEMBLE: Counts(tn=50)}, ScoreHistogram(0.0, 10.0, zeros, zeros)),
    }
    net = {"net": score_histogram(np.array([0.9, 0.2], np.float32), np.array([1, 0], np.uint8))}
    found["r"] = dataclasses.replace(found["p"], counts={"net": Counts(1, 2, 3, 4)}, probabilities=net, area_km2=2.0)
    evaluation = evaluate_run(found, {"p": "test", "q": "val", "r": "test"}, tolerance=3)
    return dataclasses.replace(evaluation, doubts=())  # of which test_doubts.py is


@pytest.fixture
def rows(evaluation: Evaluation) -> list[Row]:
    return list(evaluation.rows)


def histogram(place: int) -> ScoreHistogram:
    """Changed pixels that all reach 2.5 or so, unchanged ones that reach 0 only."""
    counts = [[10 if number == at else 0 for number in range(1002)] for at in (place, 1)]
    return ScoreHistogram(0.0, 10.0, tuple(counts[0]), tuple(counts[1]))


def test_json_and_csv_hold_all_figures(tmp_path: Path, evaluation: Evaluation, rows: list[Row]) -> None:
    write_tables(here(tmp_path), evaluation)
    loaded = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert [list(row) for row in loaded] == [sorted(row) for row in rows]
    with (tmp_path / "summary.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert len(loaded) == len(table) == len(rows)
    for row, in_json, in_csv in zip(rows, loaded, table, strict=True):
        assert in_csv.keys() == row.keys()
        for name, value in row.items():
            nothing = value is None or (isinstance(value, float) and math.isnan(value))
            assert in_json[name] == (None if nothing else value)
            assert in_csv[name] == ("" if nothing else str(value))
    assert any(row["iou"] is None for row in loaded)


def test_the_table_shows_what_can_be_said(tmp_path: Path, evaluation: Evaluation, rows: list[Row]) -> None:
    write_tables(here(tmp_path), evaluation)
    text = (tmp_path / "evaluation.md").read_text()
    first, second, _ = (part.splitlines() for part in text.split("\n\n", 1)[1].split("\n\n", 2))
    lines, more = ([line.strip("| ").split(" | ") for line in part] for part in (first, second))
    assert len(lines) == 2 + len(rows)
    assert {len(line) for line in lines} == {8}
    assert {len(line) for line in more} == {6}
    assert ["test", "p", "net", "0.500", "0.667", "0.750", "0.600", "0.634"] in lines
    assert ["test", "all", ENSEMBLE, "0.636", "0.778", "0.875", "0.700", "0.756"] in lines
    assert ["val", "q", "net", "-", "-", "-", "-", "-"] in lines
    assert ["test", "p", f"{BASELINE} (best at 0.01)", "1.000", "1.000", "1.000", "1.000", "1.000"] in lines
    assert not [line for line in lines if line[1] == "q" and line[2].startswith(BASELINE)], "nothing changed there"
    assert lines[2 + 7 + 2][:4] == ["test", "all", "net", "0.389"]
    assert more[0][2] == "F1 within 3 px"
    assert ["test", "net", "-", "-", "-", "0.150"] in more
    assert "chosen in hindsight" in text


def test_few_pairs_have_no_interval_and_say_so(rows: list[Row]) -> None:
    by_layer = {row["layer"]: row for row in rows if row["pair_id"] is None and row["split"] == "test"}
    for layer, told in (("net", "2 pairs:"), (ENSEMBLE, "1 pair:")):
        assert by_layer[layer]["iou_low"] is None
        assert by_layer[layer]["no_interval"].startswith(told)
    counts = [Counts(6, 2, 4, 88), Counts(1, 2, 3, 4), Counts(9, 1, 1, 1), Counts(2, 2, 2, 9), Counts(tn=9)]
    for pairs, known in ((5, True), (3, False)):
        found = {f"p{at}": PairScores({"net": each}, histogram(250)) for at, each in enumerate(counts[-pairs:])}
        row = next(row for row in evaluate_run(found, dict.fromkeys(found, "test"), 3).rows if row["pair_id"] is None)
        assert (row["iou_low"] is not None) == (row["no_interval"] is None) == known
        assert not known or row["iou_low"] < row["iou"] < row["iou_high"]
    assert row["no_interval"] == "2 pairs with change: an interval over pairs needs at least 4"


def test_curves_and_calibration_are_written_pooled(tmp_path: Path, evaluation: Evaluation) -> None:
    write_tables(here(tmp_path), evaluation)
    loaded = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(loaded) == {"rows", "intervals", "tolerance_px", "curves", "calibration"}
    assert [(each["split"], each["layer"]) for each in loaded["curves"]] == [("test", "net")]
    points = {point["threshold"]: point for point in loaded["curves"][0]["points"]}
    assert len(points) == 101
    assert (points[0.2]["precision"], points[0.5]["precision"], points[0.95]["precision"]) == (0.5, 1.0, None)
    with (tmp_path / "curves.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 1001
    assert loaded["calibration"][0]["ece"] == pytest.approx((0.1 + 0.2) / 2, abs=1e-3)
    assert loaded["tolerance_px"] == 3


def test_pooled_figures_are_those_of_the_split(evaluation: Evaluation, rows: list[Row]) -> None:
    told = f"net {7 / 18:.3f}, {ENSEMBLE} {7 / 11:.3f}, {BASELINE} 1.000"
    assert sum_up_test(evaluation) == f"IoU on test pairs, which neither training nor selection saw: {told}"
    others = [row for row in rows if row["split"] != "test"]
    assert sum_up_test(dataclasses.replace(evaluation, rows=others)) is None
    assert set(PIXEL_FIGURES) <= rows[0].keys()


def unchanged(tp: int = 0, fp: int = 0, fn: int = 0, tn: int = 0) -> PairScores:
    """A pair whose label has no change, by its counts."""
    nothing, judged = (0,) * 1002, (fp + tn, *(0,) * 1001)
    return PairScores({"net": Counts(tp, fp, fn, tn)}, ScoreHistogram(0.0, 10.0, nothing, judged))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"tn": 90}, "no pixel of the test pairs' labels changed, so IoU and F1 say nothing; .* net 0 of 90"),
        ({"fp": 4, "tn": 86}, "no pixel of the test pairs' labels changed, .* falsely changed pixels: net 4 of 90"),
        ({}, "no pixel of the test pairs' labels counts, so there are no figures of them"),
    ],
)
def test_labels_without_change_get_no_baseline_and_no_degenerate_figures(
    tmp_path: Path, counts: dict[str, int], expected: str
) -> None:
    evaluation = evaluate_run({"p": unchanged(**counts)}, {"p": "test"}, 3)
    assert re.fullmatch(expected, sum_up_test(evaluation) or "")
    assert {row["layer"] for row in evaluation.rows} == {"net"}, "no threshold on nothing is best"
    write_tables(here(tmp_path), evaluation)
    text = (tmp_path / "evaluation.md").read_text()
    assert "nan" not in text
    assert "best at" not in text
    assert "-: not defined, where no pixel counts, or none changed by the label and none was found" in text
    loaded = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert all(row["recall"] is None for row in loaded["rows"])


def test_the_same_figures_give_the_same_bytes(tmp_path: Path, evaluation: Evaluation) -> None:
    found = []
    for name in ("a", "b"):
        write_tables(here(tmp_path / name), evaluation)
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"evaluation.json", "summary.csv", "curves.csv", "evaluation.md"}


@pytest.mark.parametrize("labelled", [True, False])
def test_a_picture_shows_what_is_stored(tmp_path: Path, labelled: bool) -> None:
    workspace = Workspace(here(tmp_path))
    dates, label = bright_squares(SHAPE, 0)
    valid = np.full(SHAPE, 3, np.uint8)
    valid[:20, 100:300] = 1
    item = store_pair(workspace, "p", dates, label, valid)
    probability = np.where(valid == 3, np.random.default_rng(1).random(SHAPE, np.float32), np.float32(np.nan))
    change = np.where(valid == 3, probability >= 0.5, 255).astype(np.uint8)
    store_change(workspace, item.pair, "change", probability, change)
    job = PictureJob(
        workspace=workspace,
        path=here(tmp_path / "drawn.png"),
        pair=item.pair,
        label_key=item.label_key if labelled else None,
        change_key="change",
        dates=("2020-01-01", "2021-01-01"),
        threshold=0.5,
        counts=Counts(6, 2, 4, 88) if labelled else None,
    )
    draw_picture(job)
    expected = PairRasters(
        pair_id="p",
        before=dates[0][:, ::2, ::2],
        after=dates[1][:, ::2, ::2],
        valid=valid[::2, ::2],
        probability=probability[::2, ::2],
        change=change[::2, ::2],
        label=label[::2, ::2] if labelled else None,
        dates=job.dates,
        threshold=0.5,
        iou=0.5 if labelled else None,
        f1=2 / 3 if labelled else None,
        grid=item.pair.grid,
    )
    draw_pair(here(tmp_path / "expected.png"), expected)
    drawn = job.path.read_bytes()
    assert drawn == (tmp_path / "expected.png").read_bytes()
    # which band is red is known by its role, not by its place
    draw_picture(dataclasses.replace(job, pair=dataclasses.replace(item.pair, roles=("blue", "green", "red"))))
    swapped = dataclasses.replace(expected, before=expected.before[::-1], after=expected.after[::-1])
    draw_pair(here(tmp_path / "expected.png"), swapped)
    assert job.path.read_bytes() == (tmp_path / "expected.png").read_bytes() != drawn
