"""Line charts for the report: of training and evaluation, from series of figures to paths and ticks of a drawing."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdpipe.report.tables import without_twins
from cdpipe.report.words import figure, is_known
from cdpipe.workspace.location import Location

WIDTH, HEIGHT = 400, 230  # of a drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 38, 296, 12, 196  # of what is drawn in; names stand right of it
STYLES = ("s1", "s2", "s3", "s4")
LABEL_GAP = 14  # between names of lines that end near each other

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line.

    Attributes:
        name: What it shows.
        points: In the order in which they are joined.
        mark: A point to circle, None for none.
    """

    name: str
    points: Sequence[Point]
    mark: Point | None = None


def line_chart(
    title: str, series: Sequence[Series], x_label: str, y_range: Point | None = None, note: str = ""
) -> dict[str, Any]:
    """A chart as its template draws it.

    Args:
        title: What it shows.
        series: Up to four lines, of finite numbers.
        x_label: What the axis counts.
        y_range: Lowest and highest value; by default round numbers around what is there.
        note: A sentence below the title that says what to see.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y_ticks = round_ticks(*(y_range or (min(0.0, *ys), max(ys))))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(point: Point) -> Point:
        x = LEFT + (point[0] - x_low) / (x_high - x_low) * (RIGHT - LEFT)
        y = BOTTOM - (point[1] - y_low) / (y_high - y_low) * (BOTTOM - TOP)
        return round(x, 1), round(y, 1)

    lines = []
    for style, line in zip(STYLES, series, strict=False):
        places = [place(point) for point in line.points]
        mark = place(line.mark) if line.mark else None
        lines.append(
            {
                "name": line.name,
                "style": style,
                "path": "M" + " L".join(f"{x} {y}" for x, y in places),
                "mark": {"x": mark[0], "y": mark[1]} if mark else None,
                "label_y": places[-1][1] + 4,
            }
        )
    _spread(lines)
    x_ticks = [tick for tick in round_ticks(x_low, x_high, 6) if x_low <= tick <= x_high]
    return {
        "title": title,
        "note": note,
        "x_label": x_label,
        "lines": lines,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "bottom": BOTTOM,
        "y_ticks": [{"at": place((x_low, tick))[1], "text": f"{tick:.10g}"} for tick in y_ticks],
        "x_ticks": [{"at": place((tick, y_low))[0], "text": f"{tick:.10g}"} for tick in x_ticks],
    }


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, about ``count`` steps of 1, 2 or 5 times ten."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(step for factor in (1, 2, 5, 10) if span / (step := factor * power) <= count + 1e-9)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 1 - math.floor(math.log10(step))  # or 0.1 + 0.2 would show
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


def _spread(lines: list[dict[str, Any]]) -> None:
    """Move names of lines apart, so that none lies on another, or below the axis."""
    in_order = sorted(lines, key=lambda line: line["label_y"])
    above = -math.inf
    for line in in_order:
        line["label_y"] = above = max(line["label_y"], above + LABEL_GAP)
    below = BOTTOM + LABEL_GAP
    for line in reversed(in_order):
        line["label_y"] = below = round(min(line["label_y"], below - LABEL_GAP), 1)


def read_history(path: Location) -> list[dict[str, float]]:
    """Rows of a model's ``history.csv``; none where there is no such file. Cells that are no number are left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return []
    rows = []
    for row in csv.DictReader(text.splitlines()):
        numbers = {name: _number(value) for name, value in row.items() if name}
        rows.append({name: value for name, value in numbers.items() if value is not None})
    return [row for row in rows if "epoch" in row]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def training_charts(model: str, rows: Sequence[dict[str, float]], best_epoch: float | None) -> list[dict[str, Any]]:
    """Loss and validation figures of a model over its epochs, counted from 1; none where it has no history."""
    charts = []
    loss = _series("loss", "loss", rows, best_epoch)
    if loss:
        first, last = loss.points[0][1], loss.points[-1][1]
        note = f"From {first:.3g} in the first epoch to {last:.3g} in the last."
        charts.append(line_chart(f"{model}: training loss", [loss], "epoch", note=note))
    names = (("IoU", "val_iou"), ("F1", "val_f1"), ("precision", "val_precision"), ("recall", "val_recall"))
    lines = [line for name, column in names if (line := _series(name, column, rows, best_epoch))]
    if lines:
        best = lines[0].mark
        note = f"{lines[0].name} {best[1]:.3f} in epoch {best[0]:.0f} of {len(rows)}, which is used." if best else ""
        charts.append(line_chart(f"{model}: validation", lines, "epoch", (0.0, 1.0), note))
    return charts


def _series(name: str, column: str, rows: Sequence[dict[str, float]], best_epoch: float | None) -> Series | None:
    points = [(row["epoch"] + 1, row[column]) for row in rows if column in row]
    mark = next((point for point in points if best_epoch is not None and point[0] == best_epoch + 1), None)
    marked = mark if column in ("loss", "val_iou") else None
    return Series(name, points, marked) if points else None


def evaluation_charts(evaluation: Any) -> list[dict[str, Any]]:
    """Precision over recall, F1 over thresholds and reliability of the most telling split, as far as there are any."""
    if not isinstance(evaluation, dict):
        return []
    curves, calibration = (without_twins(evaluation.get(name) or []) for name in ("curves", "calibration"))
    splits = {figures["split"] for figures in (*curves, *calibration)}
    split = next((name for name in ("test", "val", "unsplit", "train") if name in splits), None)
    chosen = [curve for curve in curves if curve["split"] == split][-4:]
    charts = []
    for title, x, y, label in (
        (f"Precision over recall, {split}", "recall", "precision", "recall"),
        (f"F1 over the threshold, {split}", "threshold", "f1", "threshold"),
    ):
        series = [Series(curve["layer"], points) for curve in chosen if (points := _points(curve["points"], x, y))]
        if series:
            charts.append(line_chart(title, series, label, (0.0, 1.0)))
    reliable = [table for table in calibration if table["split"] == split][-3:]
    series = [Series(table["layer"], points) for table in reliable if (points := _bins(table["bins"]))]
    if series:
        errors = ", ".join(f"{table['layer']} {figure(table.get('ece'))}" for table in reliable)
        charts.append(
            line_chart(
                f"Share that changed over probability, {split}",
                [*series, Series("ideal", [(0.0, 0.0), (1.0, 1.0)])],
                "probability",
                (0.0, 1.0),
                f"Expected calibration error: {errors}.",
            )
        )
    return charts


def _points(points: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    return [(point[x], point[y]) for point in points if is_known(point.get(x)) and is_known(point.get(y))]


def _bins(bins: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    return _points([row for row in bins if row.get("pixels")], "probability", "changed")
