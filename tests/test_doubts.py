"""Results that are not to be believed: models worse than something plain, and scenes unlike what was learned from."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasters import make_config, source_of, utm_grid, write_raster
from stored import RGB, store_pair

from cdpipe.errors import InputError
from cdpipe.evaluation.doubts import doubt_results
from cdpipe.evaluation.scores import BASELINE, ENSEMBLE, PairScores
from cdpipe.evaluation.tables import evaluate_run, write_tables
from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid
from cdpipe.metrics.counts import Counts, ScoreHistogram
from cdpipe.models.familiarity import SceneFacts, describe_learned, doubt_scene, stored_facts
from cdpipe.models.folder import ModelCard
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.unfamiliar import doubt_models
from cdpipe.store.histograms import SHARES
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

Row = dict[str, Any]


def row(layer: str, counts: tuple[int, int, int, int], split: str = "test", pair_id: str | None = None) -> Row:
    """A row of the evaluation, from true and false positives, false and true negatives."""
    tp, fp, fn, tn = counts
    found: Row = {"split": split, "pair_id": pair_id, "layer": layer, "tp": tp, "fp": fp, "fn": fn, "tn": tn}
    nothing = float("nan")
    return found | {
        "iou": tp / (tp + fp + fn) if tp + fp + fn else nothing,
        "precision": tp / (tp + fp) if tp + fp else nothing,
        "recall": tp / (tp + fn) if tp + fn else nothing,
    }


GOOD, FAIR, BAD = (80, 10, 10, 900), (40, 30, 30, 900), (4, 50, 46, 900)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"net": GOOD, ENSEMBLE: GOOD, BASELINE: FAIR}, []),
        ({"net": FAIR, ENSEMBLE: GOOD, BASELINE: FAIR}, []),
        ({"net": FAIR, ENSEMBLE: GOOD, BASELINE: GOOD}, [r"IoU of net \(0.400\) is below the 0.800 that thresholding"]),
        (
            {"net": BAD, ENSEMBLE: BAD, BASELINE: FAIR},
            [
                r"on test pairs the IoU of net \(0.040\), ensemble \(0.040\) is below .* 0.400 .*: try more",
                "IoU is 0.040: of what it calls change 7% is, and it finds 8% of what changed; its changed area is no",
            ],
        ),
        (
            {"net": FAIR, "irmad": GOOD, ENSEMBLE: GOOD},
            [r"net \(0.400\) is below the 0.800 of irmad, which learned nothing"],
        ),
        ({"irmad": FAIR, ENSEMBLE: FAIR, BASELINE: GOOD}, []),
        ({"net": (0, 0, 50, 900), ENSEMBLE: (0, 0, 50, 900)}, ["IoU is 0.000: it finds 0% of what changed"]),
        ({"net": (0, 9, 0, 900), ENSEMBLE: (0, 9, 0, 900)}, []),
        ({}, []),
    ],
)
def test_what_is_worse_than_something_plain_is_said(layers: dict[str, Any], expected: list[str]) -> None:
    rows = [row(layer, counts) for layer, counts in layers.items()]
    doubts = doubt_results(rows, untrained=["irmad"])
    assert len(doubts) == len(expected)
    for doubt, pattern in zip(doubts, expected, strict=True):
        assert re.search(pattern, doubt), doubt


def test_test_pairs_tell_more_than_validation_and_single_pairs_nothing() -> None:
    poor = [row("net", BAD, "val"), row(ENSEMBLE, BAD, "val"), row(BASELINE, FAIR, "val")]
    fine = [row("net", GOOD), row(ENSEMBLE, GOOD), row(BASELINE, FAIR)]
    assert doubt_results([*poor, *fine]) == []
    assert "on validation strips" in doubt_results(poor, cut={"train", "val"})[0]
    barren = [row(layer, (0, 3, 0, 90)) for layer in ("net", ENSEMBLE)]
    assert "on validation pairs" in doubt_results([*poor, *barren])[0]
    assert doubt_results([each | {"split": "train"} for each in poor]) == []
    assert "on labelled pairs" in doubt_results([each | {"split": "unsplit"} for each in poor])[0]
    assert doubt_results([each | {"pair_id": "p"} for each in poor]) == []


def test_the_figures_files_say_it_first(tmp_path: Path) -> None:
    nothing = (0,) * 1002
    plain = ScoreHistogram(0.0, 10.0, (0,) * 900 + (50,) + (0,) * 101, (950, *nothing[1:]))
    scores = PairScores({"net": Counts(*BAD), ENSEMBLE: Counts(*BAD)}, plain)
    evaluation = evaluate_run({"p": scores}, {"p": "test"}, 2)
    assert len(evaluation.doubts) == 2
    write_tables(here(tmp_path), evaluation)
    text = (tmp_path / "evaluation.md").read_text()
    assert text.splitlines()[2].startswith("**Not to be believed: on test pairs the IoU of net (0.040)")
    assert '"doubts"' in (tmp_path / "evaluation.json").read_text()


# Scenes unlike what was learned from.


def make_scene(folder: Path, pair_id: str, low: int, high: int, seed: int) -> Any:
    random = np.random.default_rng(seed)
    dates = tuple(random.integers(low, high, (3, 90, 80)).astype(np.uint16) for _ in range(2))
    return store_pair(Workspace(here(folder)), pair_id, (dates[0], dates[1])).pair, dates


def test_a_card_has_the_range_of_all_that_was_learned_from(tmp_path: Path) -> None:
    (one, first), (other, second) = make_scene(tmp_path, "a", 100, 900, 1), make_scene(tmp_path, "b", 400, 3000, 2)
    learned = describe_learned([one, other], ("red", "blue"), ["s2", "s1", "s2"])
    assert learned["pixel_m"] == pytest.approx([10, 10], rel=2e-3)
    assert learned["sensors"] == ["s1", "s2"]
    assert list(learned["values"]) == ["red", "blue"]
    for role, (low, high) in learned["values"].items():
        bands = [date[RGB.index(role)].astype(float) for dates in (first, second) for date in dates]
        assert low == pytest.approx(min(np.quantile(band, 0.01) for band in bands))
        assert high == pytest.approx(max(np.quantile(band, 0.99) for band in bands))
    scaled = replace(one, units=((0.5, 10.0), (1.0, 0.0)))
    red = stored_facts(scaled).values["red"]
    assert red[0] == pytest.approx(tuple(np.quantile(first[0][0].astype(float), SHARES) * 0.5 + 10))
    assert doubt_scene("net", learned, stored_facts(one)) == doubt_scene("net", learned, stored_facts(other)) == []
    assert describe_learned([replace(one, grid=Grid(9, 9, PIXEL_TRANSFORM))], RGB, [])["pixel_m"] is None


def facts(pixel_m: float | None, median: float) -> SceneFacts:
    levels = tuple(median + share for share in (-3.0, -2, -1, 0, 1, 2, 3))
    return SceneFacts(pixel_m, {"red": (levels, levels), "nir": (levels, levels)})


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (facts(10, 500), None),
        (facts(20, 500), None),
        (facts(5, 101), None),
        (facts(None, 500), None),
        (facts(21, 500), "its pixels are 21 m wide, those that model net learned from 10 m"),
        (facts(4.9, 500), "its pixels are 4.9 m wide"),
        (facts(10, 0.2), r"its values lie outside of .* \(medians: red 0.2, learned 100 to 3,000\)"),
        (facts(10, 3001), "red 3,001, learned 100 to 3,000"),
    ],
)
def test_scenes_far_from_what_was_learned_from_are_doubted(scene: SceneFacts, expected: str | None) -> None:
    learned = {"pixel_m": [10, 10], "values": {"red": [100, 3000]}, "sensors": ["s"]}
    doubts = doubt_scene("net", learned, scene)
    if expected is None:
        assert doubts == []
    else:
        assert len(doubts) == 1
        assert re.search(expected, doubts[0]), doubts
    assert doubt_scene("old", None, scene) == []


def card_of(learned: dict[str, Any] | None) -> ModelCard:
    return ModelCard("net", "unetplusplus", {}, RGB, "common", True, 64, "sha", learned=learned)


def test_the_check_measures_files_and_a_card_keeps_its_key(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    grid = utm_grid(300, 310, (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0))
    values: NDArray[np.uint8] = np.random.default_rng(1).integers(40, 90, (3, *grid.shape), np.uint8)
    for name in ("before", "after"):
        write_raster(tmp_path / f"{name}.tif", values, grid)
    dates = [source_of(tmp_path / f"{name}.tif", config, (1, 2, 3)) for name in ("before", "after")]
    pair = Pair("p", "p", dates[0], dates[1], RGB)
    learned = {"pixel_m": [10, 10], "values": {role: [300.0, 4000.0] for role in RGB}, "sensors": ["s"]}
    pixels, range_ = doubt_models(pair, grid, [card_of(learned), card_of(None)], config)
    assert pixels.startswith("its pixels are 0.5 m wide")
    assert "red 6" in range_
    near = {"pixel_m": [0.4, 0.6], "values": {role: [30.0, 100.0] for role in RGB}, "sensors": []}
    assert doubt_models(pair, grid, [card_of(near)], config) == []
    assert card_of(learned).key == card_of(None).key
    (tmp_path / "after.tif").unlink()
    assert doubt_models(pair, grid, [card_of(None)], config) == []
    with pytest.raises(InputError):
        doubt_models(pair, grid, [card_of(near)], config)
