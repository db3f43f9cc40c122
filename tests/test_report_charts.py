"""Charts show every point where it belongs, and names that can be read."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.report.charts import (
    BOTTOM,
    LABEL_GAP,
    LEFT,
    RIGHT,
    TOP,
    Series,
    line_chart,
    read_history,
    round_ticks,
    training_charts,
)
from cdpipe.report.tables import audits_table, headline
from cdpipe.workspace.location import here

NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(NUMBERS, st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_hold_everything(low: float, span: float, count: int) -> None:
    ticks = round_ticks(low, low + span, count)
    steps = {round(b - a, 9) for a, b in pairwise(ticks)}
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(ticks) <= count + 2
    assert all(f"{step:.0e}"[0] in "125" for step in steps if step > 1e-3)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=5), min_size=1, max_size=4))
def test_lines_stay_in_their_chart_and_names_apart(values: list[list[float]]) -> None:
    series = [Series(f"s{at}", list(enumerate(each))) for at, each in enumerate(values)]
    chart = line_chart("t", series, "x")
    for line, each in zip(chart["lines"], values, strict=True):
        points = [tuple(map(float, point.split())) for point in line["path"][1:].split(" L")]
        assert len(points) == len(each)
        assert all(LEFT <= x <= RIGHT and TOP - 0.1 <= y <= BOTTOM + 0.1 for x, y in points)
    labels = sorted(line["label_y"] for line in chart["lines"])
    assert all(b - a >= LABEL_GAP - 0.2 for a, b in pairwise(labels))
    assert labels[-1] <= BOTTOM


def test_a_history_is_read_without_what_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_iou,note\n0,0.5,0.25,a\n1,0.4,nan,b\n2,0.3,0.75,c\n")
    rows = read_history(here(path))
    assert rows[1] == {"epoch": 1.0, "loss": 0.4}
    loss, validation = training_charts("net", rows, 2.0)
    assert loss["note"] == "From 0.5 in the first epoch to 0.3 in the last."
    assert validation["note"] == "IoU 0.750 in epoch 3 of 3, which is used."
    assert read_history(here(tmp_path / "none.csv")) == []
    assert training_charts("net", [], None) == []


@pytest.mark.parametrize(
    ("values", "number"),
    [({"score": None, "z": 3.0}, None), ({"z": 3.0, "score": 1.5}, 1.5), ({"share": 0.25}, 0.25), ({"x": 1}, None)],
)
def test_an_audit_that_says_nothing_has_no_number(values: dict[str, float | None], number: float | None) -> None:
    assert headline(values) == number


def test_audits_of_some_pairs_leave_gaps_at_others() -> None:
    table = audits_table([("p.html", "p", {"seam": {"score": 1.5}}), ("q.html", "q", {})])
    assert table is not None
    assert [row["cells"] for row in table["rows"]] == [[{"text": "1.500", "value": 1.5}], [{"text": "–", "value": ""}]]
    assert audits_table([("q.html", "q", {})]) is None
