"""What answers without a model against labels: F1, precision and recall of detectors and the model that comes along.

    python benchmarks/detectors.py configs/oscd.yaml

Pairs are read, and moved onto each other, as the configuration says; nothing is stored. No label bears on what is
found: labels judge it alone. Other rows show a detector with the threshold rules of other papers. The last line is how
the model was made as sure on real scenes as detectors are (benchmarks/shipped_model.py).
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cdpipe
from cdpipe.config.detectors import SHIPPED, WITH_COLOURS, WITHOUT_LABELS, named_folder
from cdpipe.config.load import load_config
from cdpipe.config.schema import Config
from cdpipe.detectors.detect import DETECTORS, Fit, change_probability, fit_detector, sample, sample_step
from cdpipe.detectors.thresholds import expectation_maximisation, kittler_illingworth, otsu
from cdpipe.formats.gate import describe_raster
from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import Counts, ScoreHistogram, counts_by_threshold, score_histogram
from cdpipe.models.folder import read_card
from cdpipe.pairs.catalog import Pair, read_catalog
from cdpipe.pairs.coregistration import find_correction
from cdpipe.pairs.imagery import read_dates
from cdpipe.pairs.labels import read_label

Rule = Callable[[NDArray[np.int64], NDArray[np.float64]], int]
Dates = tuple[NDArray[Any], NDArray[Any]]
# Power of the distance between variates in whose histogram each rule looks.
RULES: dict[str, tuple[Rule, float]] = {
    "Otsu": (otsu, 1.0),
    "Kittler-Illingworth": (kittler_illingworth, 1.0),
    "Kittler-Illingworth, fourth root of the chi-square": (kittler_illingworth, 0.5),
    "expectation maximisation, fourth root of the chi-square": (expectation_maximisation, 0.5),
}
BINS, MOST = 2000, 100.0  # of a distance
LEVELS = 1000  # of a probability


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a configuration with labelled pairs, such as configs/oscd.yaml")
    config = load_config(parser.parse_args().config)
    found: dict[str, list[ScoreHistogram]] = {}
    for pair in read_catalog(config):
        if pair.label is not None:
            for name, scores in measure(pair, config):
                found.setdefault(name, []).append(scores)
    print("| | F1, all pixels | precision | recall | mean F1 of a pair |\n|---|---|---|---|---|")
    for name, of_pairs in found.items():
        print(describe(name, of_pairs))
    logits = logits_to_match(found[SHIPPED], [found[name] for name in WITHOUT_LABELS])
    print(f"{SHIPPED} marks as many pixels as {' and '.join(WITHOUT_LABELS)} on average if raised by {logits} logits")


def describe(name: str, histograms: Sequence[ScoreHistogram]) -> str:
    """A row of the table."""
    counts = [at_half(each) for each in histograms]
    total = sum(counts[1:], counts[0])
    mean = float(np.mean([0.0 if np.isnan(each.f1) else each.f1 for each in counts]))
    return f"| {name} | {total.f1:.3f} | {total.precision:.3f} | {total.recall:.3f} | {mean:.3f} |"


def at_half(histogram: ScoreHistogram) -> Counts:
    """Counts at the threshold 0.5."""
    return counts_by_threshold(histogram)[LEVELS // 2]


def logits_to_match(own: Sequence[ScoreHistogram], others: Sequence[Sequence[ScoreHistogram]]) -> float:
    """What to add to a layer's logits for as many marked pixels as others have on average; labels do not matter."""

    def marked(counts: Counts) -> int:
        return counts.tp + counts.fp

    wanted = np.mean([sum(marked(at_half(each)) for each in other) for other in others])
    thresholds = enumerate(counts_by_threshold(sum(own[1:], own[0])))
    threshold = next(place for place, counts in thresholds if marked(counts) <= wanted) / LEVELS
    return round(math.log((1 - threshold) / threshold), 2)


def measure(pair: Pair, config: Config) -> Iterator[tuple[str, ScoreHistogram]]:
    """Scores of each detector, and of other thresholds, on one pair."""
    grid = describe_raster(pair.before.path, config.input).grid
    shift = (0.0, 0.0)
    if config.align.coregister == "auto":
        correction = find_correction(pair, grid, config)
        shift = correction.rows, correction.cols
    whole = Window(0, 0, *grid.shape)
    (before, one), (after, other) = read_dates(pair, grid, whole, config, shift)
    observed = one & other
    assert pair.label is not None  # noqa: S101 (the caller's promise)
    label = read_label(pair.label, grid, whole, config)
    step = sample_step(int(observed.sum()))
    pixels = sample((before, after), observed, step).pixels
    fits = {name: fit_detector(name, pixels, pair.roles, step=step) for name in DETECTORS}
    said = {name: change_probability(fits[name], before, after, observed) for name in WITHOUT_LABELS}
    order = [pair.roles.index(role) for role in read_card(named_folder(SHIPPED)).roles if role in pair.roles]
    said[SHIPPED] = cdpipe.predict_array(before[order], after[order], SHIPPED, observed=observed)
    for names in (WITH_COLOURS, WITHOUT_LABELS, (SHIPPED, "mad"), (SHIPPED,)):
        together = np.mean([said[name] for name in names], axis=0)
        yield " and ".join(names), score_histogram(together, label, bins=LEVELS)
    for name, fit in fits.items():
        yield name, judge(fit, (before, after), observed, label)
        distances = distances_of(fit, pixels)
        for rule, (threshold, power) in RULES.items():
            other_fit = replace(fit, threshold=threshold_by(threshold, distances, power))
            yield f"{name}, {rule}", judge(other_fit, (before, after), observed, label)


def judge(fit: Fit, dates: Dates, observed: NDArray[np.bool_], label: NDArray[np.uint8]) -> ScoreHistogram:
    """What a detector says of a pair against its label."""
    return score_histogram(change_probability(fit, *dates, observed), label, bins=LEVELS)


def distances_of(fit: Fit, pixels: Dates) -> NDArray[np.float64]:
    """(pixel,) distances between both dates' variates."""
    one, other = (
        np.array(combination) @ (date - np.array(middles)[:, None])
        for combination, date, middles in zip(fit.combinations, pixels, fit.middles, strict=True)
    )
    return np.asarray(np.sqrt(np.square(one - other - np.array(fit.offsets)[:, None]).sum(0)))


def threshold_by(rule: Rule, distances: NDArray[np.float64], power: float) -> float:
    """The distance at which a rule parts a histogram of a power of the distances; no floor where nothing changed."""
    width = MOST**power / BINS
    places = np.minimum(distances**power / width, BINS - 1).astype(np.int64)
    first = rule(np.bincount(places, minlength=BINS), (np.arange(BINS, dtype=np.float64) + 0.5) * width)
    return float((max(1, first) * width) ** (1 / power))


if __name__ == "__main__":
    main()
