"""The map of all pairs: everything in its place, lines at round degrees, the antimeridian no border."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cdpipe.report import locator
from cdpipe.report.facts import PairPage
from cdpipe.report.locator import draw_locator


def pair(name: str, west: float, south: float, side: float = 0.1) -> PairPage:
    corners = [[west, south + side], [west + side, south + side], [west + side, south], [west, south]]
    return PairPage(name, name, "", ("", ""), ("s", "s"), {"place": {"corners": corners}}, [])


def degrees(map_: dict[str, Any], x: float, y: float) -> tuple[float, float]:
    """Where a point of the map is, by its graticule alone."""

    def between(lines: list[dict[str, Any]], at: float) -> float:
        values = [float(re.sub(r"°.*", "", line["text"])) * (-1 if line["text"][-1] in "WS" else 1) for line in lines]
        rise = (values[1] - values[0] + 540) % 360 - 180
        return float(values[0] + (at - lines[0]["at"]) * rise / (lines[1]["at"] - lines[0]["at"]))

    return between(map_["meridians"], x), between(map_["parallels"], y)


def test_without_a_place_there_is_no_map() -> None:
    nowhere = PairPage("n", "n", "", ("", ""), ("s", "s"), {"place": {}}, [])
    assert draw_locator([nowhere]) is None
    found = draw_locator([nowhere, pair("p", 10, 50)])
    assert found is not None
    assert (len(found["pairs"]), found["left_out"]) == (1, 1)


places = st.tuples(st.floats(-180, 180), st.floats(-80, 80))


@given(st.lists(places, min_size=1, max_size=6), st.sampled_from([0.005, 0.1, 1.0]))
def test_pairs_lie_where_the_graticule_says(where: list[tuple[float, float]], side: float) -> None:
    found = draw_locator([pair(f"p{at}", *place, side) for at, place in enumerate(where)])
    assert found is not None
    assume(len(found["meridians"]) > 1 and len(found["parallels"]) > 1)
    tolerance = 360 / found["width"]
    for (west, south), mark in zip(where, found["pairs"], strict=True):
        assert -1 <= mark["x"] <= found["width"] + 1
        assert -1 <= mark["y"] <= found["height"] + 1
        lon, lat = degrees(found, mark["x"], mark["y"])
        assert (lon - west - side / 2 + 180) % 360 - 180 == pytest.approx(0, abs=tolerance)
        assert lat == pytest.approx(south + side / 2, abs=tolerance)


def test_a_map_across_the_antimeridian_is_small() -> None:
    found = draw_locator([pair("w", 179.0, -17), pair("e", -178.5, -16)])
    assert found is not None
    texts = [line["text"] for line in found["meridians"]]
    assert "180° W" in texts or "180°" in texts or "179° W" in texts
    assert {text[-1] for text in texts} >= {"E", "W"}
    assert found["pairs"][0]["x"] < found["pairs"][1]["x"]


def test_a_coastline_is_drawn_on_maps_that_are_coarse_enough_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one, world = draw_locator([pair("p", 2.3, 48.8)]), draw_locator([pair("p", 2.3, 48.8), pair("q", -122, 37)])
    assert one is not None
    assert world is not None
    assert one["coast"] == []
    assert all(re.fullmatch(r"M[-\d. e L]+Z", path) for path in world["coast"])
    assert len(str(world)) < 150_000
    monkeypatch.setattr(locator, "COAST", ("none.shp",))
    locator._land.cache_clear()
    bare = draw_locator([pair("p", 2.3, 48.8), pair("q", -122, 37)])
    locator._land.cache_clear()
    assert bare is not None
    assert bare["coast"] == []
    assert bare["pairs"] == world["pairs"]


def test_names_keep_off_each_other_and_off_other_marks() -> None:
    rng = np.random.default_rng(0)
    found = draw_locator([pair(f"name {at}", *rng.uniform(-30, 30, 2)) for at in range(60)])
    assert found is not None
    boxes = [
        (mark["text_x"], mark["y"] - 5, mark["text_x"] + 6 * len(mark["name"]), mark["y"] + 5)
        for mark in found["pairs"]
        if mark["text_x"] is not None
    ]
    assert 5 < len(boxes) < 60
    for at, (x0, y0, x1, y1) in enumerate(boxes):
        assert all(x1 < left or x0 > right or y1 < top or y0 > low for left, top, right, low in boxes[:at])
