"""Samples: every pixel has its chance, none depends on blocks, and what is labelled is what was drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
from rasters import GEOGRAPHIC, utm_grid
from stored import bright_squares, store_change, store_pair

from cdpipe.errors import InputError, IntegrityError
from cdpipe.evaluation.area import estimate_area
from cdpipe.evaluation.area_sample import (
    Pixels,
    Population,
    SamplePoint,
    StrataSizes,
    draw_pixels,
    measure_strata,
    place_points,
    read_answers,
    read_facts,
    share_out,
    write_sample,
)
from cdpipe.geo.grid import Grid
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (300, 700)


def population(folder: Path, buffer: float = 0.0, block: int = 256, seed: int = 0) -> Population:
    workspace = Workspace(here(folder / f"{block}-{seed}"))
    dates, label = bright_squares(SHAPE, seed, squares=12)
    pair = store_pair(workspace, "p", dates, label, block=block).pair
    change = label.copy()
    change[:40] = 255
    if not workspace.group("changes", "p", "change").exists():
        store_change(workspace, pair, "change", change.astype(np.float32), change)
    return Population(workspace, pair, "change", buffer)


def change_of(seed: int = 0) -> np.ndarray:
    change = bright_squares(SHAPE, seed, squares=12)[1]
    change[:40] = 255
    return change


def strata_of(points: Pixels, stratum: int) -> list[tuple[int, int]]:
    return [(row, col) for found, row, col in points if found == stratum]


def test_points_lie_in_their_strata_and_differ(tmp_path: Path) -> None:
    found = draw_pixels(population(tmp_path), (200, 100, 0), (1, 0))
    change = change_of()
    for stratum, number in ((0, 200), (1, 100)):
        points = strata_of(found, stratum)
        assert len(set(points)) == number
        assert all(change[point] == stratum for point in points)


def test_nothing_depends_on_blocks(tmp_path: Path) -> None:
    one, other = (population(tmp_path, 35.0, block) for block in (256, 512))
    assert measure_strata(one) == measure_strata(other)
    assert draw_pixels(one, (50, 50, 50), (3, 1)) == draw_pixels(other, (50, 50, 50), (3, 1))
    assert draw_pixels(one, (50, 50, 50), (3, 1)) != draw_pixels(one, (50, 50, 50), (4, 1))


def test_the_stratum_around_change_is_as_wide_as_asked(tmp_path: Path) -> None:
    change = change_of()
    near = np.zeros(SHAPE, bool)
    for row, col in np.argwhere(change == 1):
        near[max(0, row - 4) : row + 5, max(0, col - 4) : col + 5] = True  # 35 m are 4 pixels of 10 m, rounded
    sizes = measure_strata(population(tmp_path, 35.0))
    assert sizes.pixels == (
        int((~near & (change == 0)).sum()),
        int((change == 1).sum()),
        int((near & (change == 0)).sum()),
    )
    assert sizes.areas[1] == pytest.approx(sizes.pixels[1] * 100, rel=2e-3)


def test_a_whole_stratum_may_be_drawn(tmp_path: Path) -> None:
    one = population(tmp_path)
    pixels = measure_strata(one).pixels[1]
    assert sorted(strata_of(draw_pixels(one, (0, pixels, 0), (0, 0)), 1)) == [
        (int(row), int(col)) for row, col in np.argwhere(change_of() == 1)
    ]


def test_every_pixel_has_the_same_chance(tmp_path: Path) -> None:
    """Draws from rows with few and with many pixels; shares of rows within what chance allows."""
    one, change = population(tmp_path), change_of()
    rows = np.zeros(SHAPE[0])
    for seed in range(40):
        for row, _ in strata_of(draw_pixels(one, (0, 100, 0), (seed, 0)), 1):
            rows[row] += 1
    expected = (change == 1).sum(axis=1) * 4000 / (change == 1).sum()
    chosen = expected >= 5
    squared = ((rows - expected)[chosen] ** 2 / expected[chosen]).sum()
    assert squared / chosen.sum() == pytest.approx(1, abs=0.5)
    assert rows[expected == 0].sum() == 0


def test_pairs_share_points_by_area_and_give_no_more_than_they_have() -> None:
    sizes = [
        StrataSizes((0, 1000), (0.0, 4000.0)),
        StrataSizes((0, 4000), (0.0, 4000.0)),
        StrataSizes((0, 3), (0.0, 3.0)),
    ]
    shares = np.array([share_out(sizes, 1, 200, seed) for seed in range(50)])
    assert (shares.sum(axis=1) == 200).all()
    assert shares[:, 0].mean() == pytest.approx(100, abs=5)
    assert share_out(sizes, 1, 9999, 0) == [1000, 4000, 3]
    assert share_out(sizes, 0, 10, 0) == [0, 0, 0]


def sample(path: Path, answers: list[object] | None = None) -> list[SamplePoint]:
    """A sample of two pairs, and what a labeller made of it."""
    grids = {"p": utm_grid(*SHAPE), "q": Grid(50, 50, (1e-4, 0, 15.1, 0, -1e-4, 36.0), GEOGRAPHIC)}
    points, crs = place_points([("p", 1, 3, 4), ("q", 0, 1, 2), ("p", 0, 7, 7)], grids)
    write_sample(path, points, crs, {"run": "r"})
    if answers is not None:
        meta, _, shapes, fields = pyogrio.raw.read(path)
        path.unlink()
        values = [fields[0], fields[1], np.array(answers, object)]
        pyogrio.raw.write(
            str(path),
            shapes,
            values,
            meta["fields"],
            layer="sample",
            driver="GPKG",
            geometry_type="Point",
            crs=meta["crs"],
        )
    return points


def test_the_labeller_sees_no_stratum(tmp_path: Path) -> None:
    points = sample(tmp_path / "s.gpkg")
    meta, _, _, fields = pyogrio.raw.read(tmp_path / "s.gpkg")
    assert list(meta["fields"]) == ["id", "pair_id", "change"]
    assert meta["crs"] == "EPSG:4326"  # of pairs in different systems
    assert list(fields[1]) == ["p", "q", "p"]
    assert all(value is None for value in fields[2])
    listed = [[getattr(point, name) for name in SamplePoint.__slots__] for point in points]
    assert read_facts(here(tmp_path / "s.json")) == (
        {"run": "r", "points": listed},
        points,
    )


def test_answers_are_read_as_people_write_them(tmp_path: Path) -> None:
    points = sample(tmp_path / "s.gpkg", ["1", " Unsure", "0"])
    assert read_answers(tmp_path / "s.gpkg", points, {"p": 1e-4, "q": 1e-4}) == {1: 1, 2: None, 3: 0}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    points = sample(tmp_path / "s.gpkg", [None, "yes", "0"])
    points += [SamplePoint(4, "p", 0, 1, 1, 15.0, 36.0)]
    points[2] = SamplePoint(3, "p", 0, 7, 7, points[2].x + 1e-5, points[2].y)
    with pytest.raises(InputError) as caught:
        read_answers(tmp_path / "s.gpkg", points, {"p": 1e-4, "q": 1e-4})
    text = str(caught.value)
    for line in (
        "1 point(s) missing: 4",
        "moved: the label would be of another pixel: 3",
        "column change: 1",
        "unsure: 2",
    ):
        assert line in text


def test_a_sample_is_not_overwritten_and_its_facts_are_sealed(tmp_path: Path) -> None:
    sample(tmp_path / "s.gpkg")
    with pytest.raises(InputError, match="may have labels"):
        sample(tmp_path / "s.gpkg")
    facts = read_json(here(tmp_path / "s.json"))
    write_json(here(tmp_path / "s.json"), {**facts, "run": "other"})
    with pytest.raises(IntegrityError, match="is not what cdpipe sample wrote"):
        read_facts(here(tmp_path / "s.json"))
    with pytest.raises(InputError, match="not there"):
        read_facts(here(tmp_path / "t.json"))


def test_an_estimate_leaves_unsure_points_out_and_says_what_is_thin() -> None:
    points = [SamplePoint(n, "p", n % 2, 0, 0, 0.0, 0.0) for n in range(120)]
    answers: dict[int, int | None] = {n: int(n % 2 == 1 and n < 100) for n in range(120)}
    answers[1] = None
    found = estimate_area([900.0, 100.0, 0.0], points, answers)
    assert found["counts"] == {"no change": {"unchanged": 60, "changed": 0}, "change": {"unchanged": 10, "changed": 49}}
    assert found["area"]["value"] == pytest.approx(100 * 49 / 59)
    assert found["mapped_area"] == 100
    assert found["unsure"] == 1
    assert len(found["warnings"]) == 1
    with pytest.raises(InputError, match="stratum change: expected at least 2"):
        estimate_area([900.0, 100.0, 0.0], points, answers | dict.fromkeys(range(3, 120, 2)))


def test_pairs_in_pixel_coordinates_are_sampled_in_pixels(tmp_path: Path) -> None:
    one = population(tmp_path, 3.0)
    plain = replace(one, pair=replace(one.pair, grid=Grid(*SHAPE)))
    sizes = measure_strata(plain)
    assert sizes.areas == tuple(map(float, sizes.pixels))
    points, crs = place_points([("p", *draw_pixels(plain, (1, 0, 0), (0, 0))[0])], {"p": plain.pair.grid})
    assert crs is None
    write_sample(tmp_path / "s.gpkg", points, crs, {})
    shapes = shapely.from_wkb(pyogrio.raw.read(tmp_path / "s.gpkg")[2])
    assert (shapes[0].x, shapes[0].y) == (points[0].col + 0.5, -points[0].row - 0.5)
