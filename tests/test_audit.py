"""Audits of stored results give what whole arrays say, whatever the blocks."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from project import Project, array, call, succeed
from stored import bright_squares, store_change, store_pair, store_probability

from cdpipe.errors import EXIT_INPUT, EXIT_PARTIAL
from cdpipe.evaluation.audit import AuditJob, Seams, StoredAudit, audit_stored
from cdpipe.evaluation.audit_tables import describe_stored, pool_audits, table_rows
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import spread_tiles
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (1100, 700)
THRESHOLDS = {"one": 0.5, "two": 0.4, "three": 0.6}


def made_probabilities(valid: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(3)
    smooth = cv2.GaussianBlur(random.normal(0, 1, SHAPE), (0, 0), 6)  # whose outlines lie on no patch grid
    base = 0.5 + 0.25 * smooth / smooth.std()
    found = {}
    for name in THRESHOLDS:
        noisy = (base + random.normal(0, 0.05, SHAPE)).clip(0, 1).astype(np.float32)
        found[name] = np.where(valid == 3, noisy, np.float32(np.nan))
    return found


def audited(folder: Path, block: int, seam: bool = False) -> tuple[StoredAudit, dict[str, NDArray[np.float32]]]:
    workspace = Workspace(here(folder / f"work{block}{seam}"))
    valid = np.full(SHAPE, 3, np.uint8)
    valid[600:, 100:180] = 1
    dates, _ = bright_squares(SHAPE, 1)
    pair = store_pair(workspace, "p", dates, valid=valid, block=block).pair
    probabilities = made_probabilities(valid)
    for name, probability in probabilities.items():
        store_probability(workspace, pair, f"{name:0<12}", probability)
    change = np.where(valid == 3, (probabilities["one"] >= np.float32(0.5)).astype(np.uint8), np.uint8(255))
    if seam:
        change[:576, :576] = np.where(valid == 3, change, 255)[:576, :576] & (np.indices((576, 576)).sum(0) < 0)
    store_change(workspace, pair, "c" * 12, probabilities["one"], change)
    members = tuple((name, f"{name:0<12}", threshold) for name, threshold in THRESHOLDS.items())
    return audit_stored(AuditJob(workspace, pair, "c" * 12, members, ((192, 144),))), probabilities


def test_disagreement_is_that_of_whole_arrays_for_every_size_of_blocks(tmp_path: Path) -> None:
    small, probabilities = audited(tmp_path, 512)
    large, _ = audited(tmp_path, 2048)
    assert (small.pixels, small.split, small.between, small.shift) == (
        large.pixels,
        large.split,
        large.between,
        large.shift,
    )
    assert small.seams.patches.flips == large.seams.patches.flips
    observed = ~np.isnan(probabilities["one"])
    assert small.pixels == observed.sum() < observed.size
    masks = {name: probabilities[name] >= np.float32(threshold) for name, threshold in THRESHOLDS.items()}
    votes = np.sum(list(masks.values()), 0)
    assert small.split == ((votes > 0) & (votes < 3))[observed].sum() > 0
    entry = describe_stored(small)["disagreement"]
    for each in entry["between"]:
        first, second = each["first"], each["second"]
        apart = np.abs(probabilities[first].astype(float) - probabilities[second])[observed].mean()
        assert each["mean_difference"] == pytest.approx(apart, abs=1e-7)
        assert each["share"] == (masks[first] ^ masks[second])[observed].mean()
    assert len(entry["between"]) == 3


def every_score(seams: Seams) -> list[float]:
    return [seams.patches.score, seams.blocks.score, seams.both.score]


def test_lines_of_patches_and_of_blocks_are_told_apart(tmp_path: Path) -> None:
    """Patches of 192 every 144 pixels begin or end at 576, where no block of 512 does."""
    clean, seam = (audited(tmp_path, 512, planted)[0].seams for planted in (False, True))
    assert every_score(clean) == pytest.approx([1, 1, 1], abs=0.25)
    assert seam.patches.score > 1.3 * clean.patches.score
    assert seam.blocks.score == pytest.approx(clean.blocks.score, abs=0.3)
    assert clean.blocks.lines == 3  # 512 and 1024 down, 512 across
    assert clean.patches.lines == (7 + 7) + (4 + 4)  # where patches begin and where they end, down and across


def test_one_model_cannot_disagree(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    dates, label = bright_squares((90, 80), 1)
    pair = store_pair(workspace, "p", dates).pair
    store_change(workspace, pair, "c" * 12, label.astype(np.float32), label)
    found = describe_stored(audit_stored(AuditJob(workspace, pair, "c" * 12, (("one", "k", 0.5),), ((64, 48),))))
    assert found["disagreement"] is None
    assert found["shift"]["windows"] == 1
    pooled = pool_audits({"p": found})
    assert pooled["disagreement"] is None
    assert pooled["swap"] is None
    assert pooled["shift"]["largest_pair"] == "p"
    assert [row[0] for row in table_rows({"p": found}, pooled)] == ["p", "all 1"]


@pytest.mark.parametrize("shape", [(5000, 4000), (300, 9000), (512, 512), (100, 2000), (1, 7)])
@pytest.mark.parametrize("most", [1, 2, 7, 25])
@pytest.mark.parametrize("seed", [None, 1])
def test_spread_tiles_are_whole_apart_and_all_over(shape: tuple[int, int], most: int, seed: int | None) -> None:
    random = None if seed is None else np.random.default_rng(seed)
    tiles = spread_tiles(shape, 512, most, random)
    room = max(1, shape[0] // 512) * max(1, shape[1] // 512)
    assert 1 <= len(set(tiles)) == len(tiles) <= most
    assert len(tiles) > min(most, room) / 2
    for tile in tiles:
        assert tile.row % 512 == tile.col % 512 == 0
        assert tile.shape == (min(512, shape[0]), min(512, shape[1]))
        assert tile.intersect(Window(0, 0, *shape)) == tile
    if len(tiles) >= 4 and min(shape) > 2048:
        assert len({(tile.row > shape[0] / 2, tile.col > shape[1] / 2) for tile in tiles}) == 4


@pytest.mark.usefixtures("in_threads")
@pytest.mark.timeout(900)
def test_the_verb_audits_a_finished_run(branch: Project) -> None:
    path = branch.outputs / "report" / "audits.json"
    cheap = json.loads(path.read_text())
    assert all(each["swap"] is None for each in cheap["pairs"].values())
    path.unlink()
    told = succeed(branch.arguments("audit", "--set", "audit.patches=2")).out
    assert "seam score" in told
    found = json.loads(path.read_text())
    manifest = branch.manifest
    assert list(found["pairs"]) == sorted(pair.pair_id for pair in manifest.pairs)
    for pair in manifest.pairs:
        audit = found["pairs"][pair.pair_id]
        assert {name: audit[name] for name in ("seam", "disagreement", "shift")} == {
            name: cheap["pairs"][pair.pair_id][name] for name in ("seam", "disagreement", "shift")
        }
        change = array(branch, "changes", pair.pair_id, pair.change, "change")
        assert 0 < audit["swap"]["pixels"] <= (change != 255).sum()
        assert audit["identity"]["pixels"] == audit["swap"]["pixels"] > audit["identity_shifted"]["pixels"] - 1
        assert list(audit["swap"]["models"]) == [manifest.models[0]["name"]]
    total = sum(each["swap"]["flips"] for each in found["pairs"].values())
    assert found["pooled"]["swap"]["flips"] == total
    # what models said is kept as long as the results are the same
    before = path.read_bytes()
    succeed(branch.arguments("audit", "--set", "audit.patches=0"))
    assert path.read_bytes() == before
    assert call(branch.arguments("audit", "--set", "name=nothing")).code == EXIT_INPUT


@pytest.mark.usefixtures("in_threads")
@pytest.mark.timeout(900)
def test_a_pair_that_cannot_be_audited_leaves_the_others_their_models(branch: Project) -> None:
    """The models were trained with it, so they must be looked up with it, too."""
    change = next(pair.change for pair in branch.manifest.pairs if pair.pair_id == "val")
    (shard,) = branch.workspace.glob(f"store.zarr/changes/val/{change}/change/c/0/0")
    shard.write_bytes(b"")
    (branch.outputs / "report" / "audits" / "val.json").unlink()  # or what was found before would be kept
    result = call(branch.arguments("audit", "--set", "audit.patches=1"))
    assert (result.code, "failed: pair val: audit" in result.out) == (EXIT_PARTIAL, True)
    audits = json.loads((branch.outputs / "report" / "audits.json").read_text())["pairs"]
    assert {pair_id for pair_id, audit in audits.items() if audit["swap"]} == {"wide", "test", "small", "row"}
