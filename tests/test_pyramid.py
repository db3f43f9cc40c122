"""Tiles of a scene, each against NumPy; where they are, and that nothing of it depends on luck."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.geo.grid import Window
from cdpipe.report import drawing, pyramid
from cdpipe.report.pyramid import MARGIN, TILE, Pyramid, list_levels, near_change, write_pyramid
from cdpipe.workspace.location import here

LIMITS = ((0.0, 255.0),)


def make_scene(shape: tuple[int, int], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Smooth grey dates, which lossy pictures keep, with a strip that is not observed and two changed squares."""
    rows, cols = np.indices(shape)
    before = (127 + 90 * np.sin(rows / 40 + seed) * np.cos(cols / 50))[None]
    valid = np.full(shape, 3, np.uint8)
    valid[:, :20] = 2
    change, label = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    change[10:40, 30:60], label[20:50, 30:60] = 1, 1
    change[:, :20] = 255
    probability = np.where(change == 1, 0.9, 0.1).astype(np.float32)
    return {
        "before": before,
        "after": 255 - before,
        "valid": valid,
        "change": change,
        "probability": probability,
        "label": label,
    }


def write(folder: Path, scene: dict[str, NDArray[Any]], cell: int) -> tuple[Pyramid, list[dict[str, Any]]]:
    """All tiles of a scene."""
    shape = scene["change"].shape
    changed = (scene["change"] == 1) | (scene.get("label", scene["change"]) == 1)
    read = {name: lambda window, name=name: scene[name][(..., *window.slices)] for name in scene}
    made = Pyramid(here(folder), shape, read, (LIMITS, LIMITS), near_change(changed, 1))
    return made, write_pyramid(made, cell, threads=2)


def load(folder: Path, layer: str, cell: int, row: int, col: int) -> NDArray[np.uint8]:
    """A tile as red, green, blue and, of an overlay, opacity."""
    image = cv2.imread(
        str(folder / "tiles" / layer / str(cell) / f"{row}-{col}{drawing.suffix_of(layer)}"), cv2.IMREAD_UNCHANGED
    )
    assert image is not None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB))


def test_tiles_are_the_scene_level_by_level(tmp_path: Path) -> None:
    scene = make_scene((700, 1100))
    made, levels = write(tmp_path, scene, cell=3)
    assert [level["cell"] for level in levels] == [1, 2]
    assert [level["cols"] for level in levels] == [3, 2]
    grey = np.rint(scene["after"][0])
    for cell in (1, 2):
        high, wide = 700 // cell, 1100 // cell
        means = grey.reshape(high, cell, wide, cell).mean((1, 3))
        for row in range(-(-high // TILE)):
            for col in range(-(-wide // TILE)):
                tile = load(tmp_path, "after", cell, row, col)
                expected = means[row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE]
                assert tile.shape == (*expected.shape, 3)
                assert np.abs(tile[..., 0] - expected).mean() < 2
    striped = load(tmp_path, "before", 2, 0, 0)[:, :10]
    assert set(np.unique(striped // 16)) <= {value // 16 for value in range(170, 250)}, "stripes where nothing was seen"
    assert sum(made.files.values()) == sum(path.stat().st_size for path in (tmp_path / "tiles").rglob("*.*"))


def test_classes_are_kept_pixel_by_pixel_and_left_out_where_there_are_none(tmp_path: Path) -> None:
    scene = make_scene((700, 1100))
    made, (finest, _) = write(tmp_path, scene, cell=3)
    overlay = load(tmp_path, "change", 1, 0, 0)
    changed = scene["change"][:TILE, :TILE] == 1
    assert (overlay[changed] == (*palette.CHANGED, 255)).all()
    assert not overlay[~changed][:, 3].any()
    outcomes = load(tmp_path, "outcomes", 1, 0, 0)
    hit = changed & (scene["label"][:TILE, :TILE] == 1)
    assert (outcomes[hit] == (*palette.HIT, 255)).all()
    assert [name for name in made.files if "/change/" in name] == ["tiles/change/1/0-0.webp"]
    assert (finest["has"]["change"], finest["has"]["after"]) == ("80", "fc")  # one of six tiles, all of them


def test_of_a_large_scene_only_what_lies_around_change_is_there_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "WHOLE", 600)
    scene = make_scene((700, 1100))
    scene["change"][600, TILE + 10] = 1  # near the border of two tiles of the second row
    write(tmp_path, scene, cell=3)
    fine = {path.name for path in (tmp_path / "tiles" / "before" / "1").iterdir()}
    assert fine == {"0-0.jpg", "1-0.jpg", "1-1.jpg", "0-1.jpg"}
    assert {path.name for path in (tmp_path / "tiles" / "after" / "2").iterdir()} == {"0-0.jpg", "0-1.jpg"}


def test_the_same_scene_makes_the_same_bytes(tmp_path: Path) -> None:
    scene = make_scene((600, 700))
    for name in "ab":
        write(tmp_path / name, scene, cell=2)
    one, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "ab"
    )
    assert one == other


def test_scenes_that_are_shown_pixel_by_pixel_need_no_tiles(tmp_path: Path) -> None:
    made, levels = write(tmp_path, make_scene((60, 70)), cell=1)
    assert (made.files, levels) == ({}, [])


@given(st.integers(1, 200))
def test_levels_end_where_the_whole_picture_is_as_fine(cell: int) -> None:
    levels = list_levels(cell)
    assert levels == [2**at for at in range(len(levels))]
    assert not levels or (levels[-1] < cell <= 2.8 * levels[-1])


@given(st.data())
def test_no_change_is_without_its_pixels(data: st.DataObject) -> None:
    cell, shape = data.draw(st.integers(1, 9)), (data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60)))
    row, col = (data.draw(st.integers(0, length - 1)) for length in shape)
    cells = np.zeros(shape, np.bool_)
    cells[row, col] = True
    wanted = near_change(cells, cell)
    assert wanted(Window(row * cell, col * cell, 1, 1))
    assert wanted(Window(max(0, row * cell - MARGIN), col * cell, 1, 1))
    assert not wanted(Window((row + 1) * cell + MARGIN + cell, col * cell, 50, 50))
