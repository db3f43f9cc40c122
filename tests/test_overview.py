"""What a pair's page shows and counts is what the whole scene says."""

import math
from pathlib import Path

import numpy as np
import pytest
from rasters import UTM33
from stored import bright_squares, store_change, store_pair

from cdpipe.geo.grid import Grid
from cdpipe.geo.ground import row_areas
from cdpipe.report.drawing import OUTCOMES, compare_with_label
from cdpipe.report.pair import read_overview
from cdpipe.report.place import describe_ground
from cdpipe.report.scene import shown_bands
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (530, 610)


def test_an_overview_is_of_the_whole_scene_whatever_its_blocks(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    (before, after), label = bright_squares(SHAPE, 0, squares=40)
    label[:50] = 255
    valid = random.choice(np.array([0, 1, 2, 3], np.uint8), SHAPE, p=[0.1, 0.1, 0.1, 0.7])
    probability = np.where(valid == 3, random.random(SHAPE, np.float32), np.float32(np.nan))
    change = np.where(valid == 3, (probability >= 0.6).astype(np.uint8), np.uint8(255))
    found = []
    for block in (512, 1024):
        workspace = Workspace(here(tmp_path / str(block)))
        pair = store_pair(workspace, "p", (before, after), label, valid, block)
        store_change(workspace, pair.pair, "abcdefabcdef", probability, change)
        found.append(read_overview(workspace, pair.pair, "abcdefabcdef", pair.label_key, max_side=100))
    one, other = found
    cell = one.cell
    assert cell == 7

    # the first cell, and the last, which the edge cuts off
    for rows, cols, place in ((slice(0, 7), slice(0, 7), (0, 0)), (slice(525, 530), slice(609, 610), (75, 87))):
        seen, observed = valid[rows, cols] & 1 > 0, change[rows, cols] != 255
        pixels = observed.size
        if seen.any():
            np.testing.assert_allclose(one.dates[0][:, *place], before[:, rows, cols][:, seen].mean(axis=1))
        assert one.observed[place] == observed.sum() / pixels
        if observed.any():
            assert one.changed[place] == (change[rows, cols] == 1).sum() / observed.sum()
            assert one.probability[place] == pytest.approx(np.nanmean(probability[rows, cols]), rel=1e-6)
    outcome = compare_with_label(change, label)
    for number, name in OUTCOMES.items():
        assert one.figures[name] == (outcome == number).sum()
    changed, observed_pixels = int((change == 1).sum()), int((change != 255).sum())
    assert (one.figures["changed_px"], one.figures["observed_px"]) == (changed, observed_pixels)
    area = row_areas(pair.pair.grid).mean()
    assert one.figures["changed_m2"] == pytest.approx(changed * area, rel=1e-5)

    assert one.figures == other.figures
    for mine, theirs in ((one.dates[1], other.dates[1]), (one.probability, other.probability)):
        np.testing.assert_array_equal(mine, theirs)


def test_without_colours_the_first_band_is_shown() -> None:
    assert shown_bands(("nir", "blue", "green", "red")) == [3, 2, 1]
    assert shown_bands(("nir", "red")) == [0]


@pytest.mark.parametrize("turn", [0, 45, 90, 200])
def test_north_is_found_in_turned_grids(turn: int) -> None:
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    grid = Grid(80, 80, (10 * cos, 10 * sin, 5e5, 10 * sin, -10 * cos, 5e6), UTM33)  # up points `turn` west of north
    found = describe_ground(grid)
    assert found["pixel_m"] == pytest.approx(10, rel=1e-3)
    assert ((found["north"] or 0) - turn + 180) % 360 - 180 == pytest.approx(0, abs=0.2)


def test_without_georeference_neither_length_nor_north_is_known() -> None:
    assert describe_ground(Grid(10, 10)) == {"pixel_m": None, "north": None, "aspect": 1.0}
