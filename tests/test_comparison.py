"""Two runs compared: counts and maps are those of whole arrays, and the difference has a paired interval."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from project import call, succeed
from stored import Bytes, bright_squares, store_change, store_pair

from cdpipe.evaluation.comparison import PairDifference, shared_pairs, tabulate_differences
from cdpipe.metrics.counts import Counts, count_changes
from cdpipe.runs.manifest import Manifest, ManifestPair, write_manifest
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (300, 600)
PAIRS = 6


def guess(seed: int, label: Bytes, wrong: float) -> Bytes:
    """A change mask that is wrong on a share of the pixels, and did not see the first rows."""
    random = np.random.default_rng(seed)
    change = np.where(random.random(label.shape) < wrong, 1 - label, label).astype(np.uint8)
    change[: 10 + seed % 7] = 255
    return change


def make_run(folder: Path, name: str, wrong: float, pairs: int = PAIRS) -> Path:
    """A finished run on pairs of its own workspace, the last without a label; what it says by pair."""
    workspace = Workspace(here(folder))
    listed = []
    for number in range(pairs):
        dates, label = bright_squares(SHAPE, number)
        item = store_pair(workspace, f"p{number}", dates, label, block=256)
        change = guess(round(1000 * wrong) + number, label, wrong)
        store_change(workspace, item.pair, name, change.astype(np.float32), change)
        own = None if number == PAIRS - 1 else item.label_key
        split = "test" if number else "val"
        listed.append(ManifestPair(f"p{number}", split, item.pair.key, own, {}, name, {}))
    write_manifest(workspace.run(name), Manifest(name, [], "mean", 0.5, "", listed))
    return workspace.run(name).local()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("comparison")
    return make_run(folder / "one", "a", 0.05), make_run(folder / "two", "b", 0.02, PAIRS + 1)


def test_runs_of_different_workspaces_are_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shown = succeed(["compare", *map(str, runs), "--out", str(tmp_path)]).out
    assert "left out: pair p6: only in run B" in shown
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["left_out"] == {"p6": "only in run B"}
    by_pair = {row["pair_id"]: row for row in found["rows"] if row["pair_id"]}
    for number in range(PAIRS):
        label = bright_squares(SHAPE, number)[1]
        first, second = guess(50 + number, label, 0.05), guess(20 + number, label, 0.02)
        seen = (first != 255) & (second != 255)
        expected = np.select([first & second == 1, first == 1, second == 1], [1, 2, 3], 0)
        expected = np.where(seen, expected, 255)
        with rasterio.open(tmp_path / "maps" / f"p{number}_difference.tif") as dataset:
            assert (dataset.read(1) == expected).all()
            assert dataset.nodata == 255
        row = by_pair[f"p{number}"]
        assert [row[name] for name in ("neither", "both", "only_a", "only_b")] == [
            int((expected == value).sum()) for value in range(4)
        ]
        if number == PAIRS - 1:
            assert row["iou_a"] is None
            assert not (tmp_path / "maps" / f"p{number}_right.tif").exists()
            continue
        judged = np.where(seen, label, 255).astype(np.uint8)
        scores = [count_changes(change, judged) for change in (first, second)]
        assert (row["iou_a"], row["iou_b"]) == pytest.approx((scores[0].iou, scores[1].iou))
        with rasterio.open(tmp_path / "maps" / f"p{number}_right.tif") as dataset:
            right = np.select([first == second, first == label], [0, 1], 2)
            assert (dataset.read(1) == np.where(seen, right, 255)).all()
    pooled = next(row for row in found["rows"] if row["pair_id"] is None and row["split"] == "test")
    assert 0 < pooled["iou_difference_low"] < pooled["iou_difference"] < pooled["iou_difference_high"]
    single = next(row for row in found["rows"] if row["pair_id"] is None and row["split"] == "val")
    assert single["iou_difference_low"] is None


def test_rows_are_ordered_by_what_differs_and_pairs_are_drawn_together() -> None:
    """Two runs that differ by the same in every pair differ by that in every draw, however pairs differ."""
    found = {}
    for number, tp in enumerate([10, 400, 30, 900]):
        scores = Counts(tp, 2 * tp, tp, 9), Counts(2 * tp, 2 * tp, 0, 9)
        found[f"p{number}"] = PairDifference((0, 0, number, 0), scores)
    found["q"] = PairDifference((0, 0, 0, 0), (Counts(5, 0, 5), Counts(9, 0, 1)))
    rows = tabulate_differences(found, dict.fromkeys([f"p{n}" for n in range(4)], "test") | {"q": "val"})
    assert [row["pair_id"] for row in rows] == ["q", "p3", "p2", "p1", "p0", None, None]
    pooled = next(row for row in rows if row["split"] == "test" and row["pair_id"] is None)
    assert pooled["iou_difference"] == pytest.approx(0.25)
    assert (pooled["iou_difference_low"], pooled["iou_difference_high"]) == pytest.approx((0.25, 0.25))


def test_only_equal_pairs_are_compared() -> None:
    def manifest(*pairs: tuple[str, str, str | None]) -> Manifest:
        listed = [ManifestPair(name, "test", key, label, {}, "c", {}) for name, key, label in pairs]
        return Manifest("r", [], "mean", 0.5, "", listed)

    first = manifest(("a", "1", "l"), ("b", "1", "l"), ("c", "1", "l"), ("d", "1", None))
    second = manifest(("a", "2", "l"), ("b", "1", "m"), ("c", "1", "l"), ("e", "1", None))
    shared = shared_pairs(first, second)
    assert [one.pair_id for one, _ in shared.pairs] == ["c"]
    assert shared.left_out == {
        "a": "its imagery is not the same",
        "b": "its label is not the same",
        "d": "only in run A",
        "e": "only in run B",
    }


def test_what_is_no_run_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    refused = call(["compare", str(runs[0]), str(tmp_path)])
    assert refused.code == 3
    assert "expected the folder of a finished run" in refused.err
    other = make_run(tmp_path / "three", "c", 0.01, 0)
    assert "they share none" in call(["compare", str(runs[0]), str(other)]).err
