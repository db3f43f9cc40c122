"""Evaluation: counts are those of whole arrays, pooled ones their sums, and the baseline is what it says."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from stored import Bytes, Dates, bright_squares, store_change, store_pair, store_probability

from cdpipe.evaluation.scores import (
    BASELINE,
    ENSEMBLE,
    ObjectCounts,
    PairScores,
    Results,
    evaluate_pair,
    evaluate_parts,
)
from cdpipe.evaluation.tables import evaluate_run, sum_up_test, tabulate
from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import Counts, NearCounts, counts_by_threshold, score_histogram
from cdpipe.store.pair import LabelledPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (300, 700)
THRESHOLDS = {"one": 0.3, "two": 0.55}


class Case:
    """A pair of six blocks, its label, and what two models and their ensemble say about it; all made up."""

    def __init__(self, workspace: Workspace, pair_id: str, seed: int, block: int = 256) -> None:
        random = np.random.default_rng(seed)
        self.dates, self.label = bright_squares(SHAPE, seed, squares=20)
        self.label[random.random(SHAPE) < 0.1] = 255
        self.valid = np.full(SHAPE, 3, np.uint8)
        self.valid[:50, :300] = 1
        self.observed = self.valid == 3
        self.workspace = workspace
        self.item: LabelledPair = store_pair(workspace, pair_id, self.dates, self.label, self.valid, block)
        self.probabilities = {name: self.guess(random) for name in THRESHOLDS}
        self.mean: NDArray[np.float32] = (self.probabilities["one"] + self.probabilities["two"]) / np.float32(2)
        self.change = np.where(self.observed, self.mean >= np.float32(0.4), 255).astype(np.uint8)
        self.change[:, 500:][self.observed[:, 500:]] = 0  # nothing is found there
        for name, probability in self.probabilities.items():
            store_probability(workspace, self.item.pair, name, probability)
        store_change(workspace, self.item.pair, "change", self.mean, self.change)

    def guess(self, random: np.random.Generator) -> NDArray[np.float32]:
        """Better than chance, NaN where not observed."""
        noise = random.random(SHAPE, np.float32)
        return np.where(self.observed, 0.75 * noise + 0.25 * (self.label == 1), np.nan).astype(np.float32)

    def scores(self) -> PairScores:
        members = tuple((name, name, threshold) for name, threshold in THRESHOLDS.items())
        return evaluate_pair(self.workspace, Results(self.item.pair, self.item.label_key, members, "change"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    workspace = Workspace(here(tmp_path_factory.mktemp("evaluation")))
    return [Case(workspace, f"p{seed}", seed) for seed in range(3)]


def plain_counts(change: NDArray[np.bool_], label: Bytes, observed: NDArray[np.bool_]) -> Counts:
    counts = {
        (predicted, reference): int((observed & (change == predicted) & (label == reference)).sum())
        for predicted in (True, False)
        for reference in (0, 1)
    }
    return Counts(tp=counts[True, 1], fp=counts[True, 0], fn=counts[False, 1], tn=counts[False, 0])


def grey_difference(dates: Dates, observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Absolute difference of the dates' normalised luma."""
    grey = []
    for red, green, blue in (date.astype(np.float64) for date in dates):
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        grey.append((luma - luma[observed].mean()) / luma[observed].std())
    return np.asarray(np.abs(grey[0] - grey[1]))


def test_counts_are_those_of_whole_arrays(cases: list[Case]) -> None:
    case = cases[0]
    assert len(case.item.pair.blocks()) == 6
    counts = case.scores().counts
    assert list(counts) == ["one", "two", ENSEMBLE]
    for name, threshold in THRESHOLDS.items():
        change = case.probabilities[name] >= np.float32(threshold)
        assert counts[name] == plain_counts(change, case.label, case.observed)
    assert counts[ENSEMBLE] == plain_counts(case.change == 1, case.label, case.observed)
    judged = int((case.observed & (case.label != 255)).sum())
    for each in counts.values():
        assert each.tp + each.fp + each.fn + each.tn == judged
        assert min(each.tp, each.fp, each.fn, each.tn) > 0


def test_each_strip_is_judged_by_its_own_labels_alone(cases: list[Case]) -> None:
    case, strips = cases[1], {"train": Window(0, 0, 300, 320), "test": Window(0, 448, 300, 252)}
    members = tuple((name, name, threshold) for name, threshold in THRESHOLDS.items())
    results = Results(case.item.pair, case.item.label_key, members, "change", strips=strips)
    scores = evaluate_parts(case.workspace, results)
    assert list(scores) == ["p1/train", "p1/test"]
    for split, strip in strips.items():
        label = np.full(SHAPE, 255, np.uint8)
        label[strip.slices] = case.label[strip.slices]
        found = scores[f"p1/{split}"]
        assert found.counts[ENSEMBLE] == plain_counts(case.change == 1, label, case.observed)
        assert found.objects[ENSEMBLE].reference == len(objects_of((label == 1) & case.observed))
        assert sum(found.baseline.changed) == int(((label == 1) & case.observed).sum())
    evaluation = evaluate_run(scores, {"p1/train": "train", "p1/test": "test"}, 2)
    assert [(row["split"], row["pair_id"]) for row in evaluation.rows if row["layer"] == ENSEMBLE] == [
        ("train", "p1"),
        ("test", "p1"),
        ("train", None),
        ("test", None),
    ]
    assert "strips of the same scene (p1)" in (evaluation.caution or "")
    assert (sum_up_test(evaluation) or "").startswith("IoU on strips of test")
    assert evaluate_run({"p1": case.scores()}, {"p1": "test"}, 2).caution is None


def test_nothing_is_counted_where_all_is_ignored_or_not_observed(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    dates, label = bright_squares((64, 64), 0)
    valid = np.full(label.shape, 3, np.uint8)
    valid[:32] = 2
    label[32:] = 255
    item = store_pair(workspace, "p", dates, label, valid)
    probability = np.where(valid == 3, np.float32(0.9), np.float32(np.nan))
    store_probability(workspace, item.pair, "net", probability)
    store_change(workspace, item.pair, "change", probability, np.where(valid == 3, 1, 255).astype(np.uint8))
    scores = evaluate_pair(workspace, Results(item.pair, item.label_key, (("net", "net", 0.5),), "change"))
    assert scores.counts == {"net": Counts(), ENSEMBLE: Counts()}
    assert sum(scores.baseline.changed + scores.baseline.unchanged) == 0
    rows = tabulate({"p": scores}, {"p": "test"})
    assert all(math.isnan(row["iou"]) for row in rows)


def objects_of(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    ids, count = ndimage.label(mask)
    return [ids == number + 1 for number in range(count)]


def test_objects_are_those_of_the_whole_scene(cases: list[Case]) -> None:
    case = cases[0]
    reference, predicted = (case.label == 1) & case.observed, case.change == 1
    labelled_objects, predicted_objects = objects_of(reference), objects_of(predicted)
    expected = ObjectCounts(
        len(labelled_objects),
        sum((pixels & predicted).any() for pixels in labelled_objects),
        len(predicted_objects),
        sum((case.label[pixels] == 0).all() for pixels in predicted_objects),
    )
    found = case.scores().objects[ENSEMBLE]
    assert found == expected
    assert 0 < found.hit < found.reference
    assert 0 < found.false < found.predicted


def test_probabilities_and_judged_area_are_those_of_the_whole_scene(cases: list[Case]) -> None:
    case, scores = cases[0], cases[0].scores()
    for name, probability in {**case.probabilities, ENSEMBLE: case.mean}.items():
        assert scores.probabilities[name] == score_histogram(probability, case.label)
    judged = (case.observed & (case.label != 255)).sum()
    assert scores.area_km2 == pytest.approx(judged * 100 / 1e6, rel=2e-3)  # 10 m pixels, near the zone's middle


def test_borders_are_forgiven_alike_in_every_block(cases: list[Case]) -> None:
    case = cases[0]
    predicted, reference = (case.change == 1) & (case.label != 255), (case.label == 1) & case.observed
    near_reference, near_predicted = (ndimage.distance_transform_edt(~mask) <= 2 for mask in (reference, predicted))
    masks = (predicted, predicted & near_reference, reference, reference & near_predicted)
    expected = NearCounts(*(int(mask.sum()) for mask in masks))
    assert case.scores().near[ENSEMBLE] == expected


def test_nothing_depends_on_the_size_of_a_block(tmp_path: Path, cases: list[Case]) -> None:
    assert Case(Workspace(here(tmp_path)), "p0", 0, block=512).scores() == cases[0].scores()


def test_the_baseline_is_the_best_threshold_of_plain_differencing(cases: list[Case]) -> None:
    """No threshold on the difference, of a great many, does better; what it counts is what it says."""
    case = cases[0]
    difference = grey_difference(case.dates, case.observed)
    row = tabulate({"p": case.scores()}, {"p": "val"})[2 + 1]
    assert row["layer"] == BASELINE
    direct = plain_counts(difference >= row["threshold"], case.label, case.observed)
    assert row["iou"] == pytest.approx(direct.iou, abs=1e-4)  # rounding may take a pixel across
    for threshold in np.arange(0, 10, 0.037):
        assert plain_counts(difference >= threshold, case.label, case.observed).iou <= row["iou"] + 2e-3
    assert row["iou"] > 0.3


def test_pooled_rows_are_sums_over_the_pairs_of_a_split(cases: list[Case]) -> None:
    scores = {case.item.pair.pair_id: case.scores() for case in cases}
    rows = tabulate(scores, {"p0": "test", "p1": "train", "p2": "test"})
    layers = ["one", "two", ENSEMBLE, BASELINE]
    expected = [("test", "p0"), ("train", "p1"), ("test", "p2"), ("train", None), ("test", None)]
    assert [(row["split"], row["pair_id"], row["layer"]) for row in rows] == [
        (split, pair, layer) for split, pair in expected for layer in layers
    ]
    found = {(row["split"], row["pair_id"], row["layer"]): row for row in rows}
    for layer in layers[:3]:
        for name in ("tp", "fp", "fn", "tn"):
            assert found["test", None, layer][name] == sum(found["test", pair, layer][name] for pair in ("p0", "p2"))
            assert found["train", None, layer][name] == found["train", "p1", layer][name]
        row = found["test", None, layer]
        assert row["iou"] == row["tp"] / (row["tp"] + row["fp"] + row["fn"])
        assert row["f1"] == 2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"])
        assert row["threshold"] is None
    pooled = found["test", None, BASELINE]
    curves = counts_by_threshold(scores["p0"].baseline + scores["p2"].baseline)
    assert pooled["iou"] == max(counts.iou for counts in curves if not math.isnan(counts.iou))
    assert pooled["iou"] <= max(found["test", pair, BASELINE]["iou"] for pair in ("p0", "p2"))
