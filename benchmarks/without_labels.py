"""What is found without any label: detectors, the model that comes with cdpipe, and means of their probabilities.

Labels only judge. Every threshold is 0.5, which detectors and the model bring along; the best one by the labels stands
beside it, to show what that costs. All pairs' pixels are pooled. The second date is resampled onto the first one's grid
by its georeference, and not shifted.

    .venv/bin/python benchmarks/without_labels.py configs/oscd.csv --bands blue=1,green=2,red=3,nir=4
"""

import argparse
import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rich.console import Console
from rich.table import Table

import cdpipe
from cdpipe.config.detectors import named_model
from cdpipe.metrics.counts import Counts, ScoreHistogram, counts_by_threshold, score_histogram
from cdpipe.models.folder import read_card

BINS = 1000
COUNTS = dict[str, ScoreHistogram]


def main() -> None:
    """Predict, judge and print; with ``--out`` figures of every pair, too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path, help="a table with the columns pair_id, before, after, label")
    parser.add_argument("--bands", default="red=1,green=2,blue=3")
    parser.add_argument("--changed", type=int, nargs="*", default=[1], help="values of labels")
    parser.add_argument("--ignore", type=int, nargs="*", default=[], help="likewise")
    parser.add_argument("--model", default="cdpipe")
    parser.add_argument("--detectors", nargs="*", default=["mad", "cva"])
    parser.add_argument("--tta", default="none", choices=("none", "d4"))
    parser.add_argument("--pairs", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    numbers = {role: int(band) for role, band in (each.split("=") for each in options.bands.split(","))}
    found: dict[str, COUNTS] = {}
    with options.catalog.open(newline="") as table:
        for row in csv.DictReader(line for line in table if not line.startswith("#")):
            if not options.pairs or row["pair_id"] in options.pairs:
                own = found[row["pair_id"]] = judge(options, numbers, row)
                print(row["pair_id"], {layer: round(at_half(each).f1, 3) for layer, each in own.items()}, flush=True)
    layers = next(iter(found.values()))
    pooled = {layer: sum_up([each[layer] for each in found.values()]) for layer in layers}
    show(f"{options.catalog.stem}: {len(found)} pair(s), all pixels pooled", pooled)
    if options.out:
        cases = {"pooled": pooled, **found}
        options.out.write_text(json.dumps({name: figures(each) for name, each in cases.items()}, indent=1))


def judge(options: argparse.Namespace, numbers: dict[str, int], row: dict[str, str]) -> COUNTS:
    """The histograms of one pair, by layer."""
    folder = options.catalog.parent
    (before, after), values = read_dates(folder / row["before"], folder / row["after"], folder / row["label"], numbers)
    label = np.where(np.isin(values, options.ignore), 255, np.isin(values, options.changed)).astype(np.uint8)
    observed = (before != 0).any(axis=0) & (after != 0).any(axis=0)
    roles = [role for role in read_card(named_model(options.model)).roles if role in numbers]
    order = [list(numbers).index(role) for role in roles]
    said = {
        options.model: cdpipe.predict_array(
            before[order], after[order], options.model, observed=observed, tta=options.tta
        )
    }
    for detector in options.detectors:
        said[detector] = cdpipe.predict_array(before, after, detector, observed=observed)
    for count in range(2, len(options.detectors) + 2):
        for names in itertools.combinations([options.model, *options.detectors], count):
            said[" + ".join(names)] = np.mean([said[name] for name in names], axis=0)
    return {layer: score_histogram(probability, label, bins=BINS) for layer, probability in said.items()}


def read_dates(
    before: Path, after: Path, label: Path, numbers: dict[str, int]
) -> tuple[list[NDArray[Any]], NDArray[np.uint8]]:
    """Both dates (band, height, width) on the first one's grid, and the values of the label there."""
    with rasterio.open(before) as one, rasterio.open(after) as other, rasterio.open(label) as mask:
        first, bands = one.read(list(numbers.values())), list(numbers.values())
        if one.crs is None or (one.transform == other.transform and one.shape == other.shape):
            return [first, other.read(bands)], mask.read(1)
        second = np.zeros_like(first)
        reproject(
            rasterio.band(other, bands),
            second,
            dst_transform=one.transform,
            dst_crs=one.crs,
            resampling=Resampling.bilinear,
        )
        return [first, second], mask.read(1)


def sum_up(histograms: list[ScoreHistogram]) -> ScoreHistogram:
    """All pairs' pixels together."""
    total = histograms[0]
    for each in histograms[1:]:
        total += each
    return total


def at_half(histogram: ScoreHistogram) -> Counts:
    """Counts at the threshold 0.5."""
    return counts_by_threshold(histogram)[BINS // 2]


def figures(layers: COUNTS) -> dict[str, dict[str, float]]:
    """What stands in the JSON file."""
    return {layer: {name: round(value, 4) for name, value in scores(own).items()} for layer, own in layers.items()}


def scores(histogram: ScoreHistogram) -> dict[str, float]:
    """F1, precision and recall at 0.5, the best F1 with its threshold, and average precision."""
    every, own = counts_by_threshold(histogram), at_half(histogram)
    known = [(counts.f1, place / BINS) for place, counts in enumerate(every) if counts.f1 == counts.f1]
    best, threshold = max(known, default=(0.0, 0.0))
    told = [counts for counts in reversed(every) if counts.tp + counts.fp and counts.tp + counts.fn]
    steps = np.diff([0.0, *(counts.recall for counts in told)])
    area = float(sum(step * counts.precision for step, counts in zip(steps, told, strict=True)))
    shown = {"f1": own.f1, "precision": own.precision, "recall": own.recall}
    return {**shown, "best_f1": best, "best_at": threshold, "average_precision": area}


def show(title: str, layers: COUNTS) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in ("layer", "F1 at 0.5", "precision", "recall", "best F1", "at", "average precision"):
        table.add_column(column)
    for layer, own in layers.items():
        table.add_row(layer, *(f"{value:.3f}" for value in scores(own).values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
