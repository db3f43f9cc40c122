"""A stored pair: what ingest stored is what later stages read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import utm_grid
from stored import RGB, store_pair

from cdpipe.errors import InputError, IntegrityError
from cdpipe.geo.grid import Window
from cdpipe.store.normalisation import Recipe, date_scaling
from cdpipe.store.pair import StoredPair, load_pair, read_dates, read_observed
from cdpipe.store.statistics import Moments, measure
from cdpipe.workspace.files import write_sealed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here
from cdpipe.workspace.records import GROUP_RECORD

SHAPE = (530, 700)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A pair, where it is stored, and its pixels."""

    workspace: Workspace
    pair: StoredPair
    dates: tuple[NDArray[Any], NDArray[Any]]
    valid: NDArray[np.uint8]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    rng = np.random.default_rng(1)
    before = rng.integers(0, 2**16, (3, *SHAPE), np.uint16)
    after = rng.normal(0, 1, (3, *SHAPE)).astype(np.float32)
    valid = rng.integers(0, 4, SHAPE, np.uint8)
    workspace = Workspace(here(tmp_path_factory.mktemp("w")))
    return Stored(workspace, store_pair(workspace, "p", (before, after), valid=valid).pair, (before, after), valid)


def test_a_finished_pair_is_loaded_as_it_was_stored(stored: Stored) -> None:
    loaded = load_pair(stored.workspace, "p", stored.pair.key)
    assert loaded == stored.pair
    assert loaded.moments["common"][0] == measure(stored.dates[0], stored.valid == 3, Window(0, 0, *SHAPE))


def test_a_pair_without_its_last_record_is_not_finished(stored: Stored, tmp_path: Path) -> None:
    assert load_pair(stored.workspace, "p", "0" * 12) is None
    assert load_pair(stored.workspace, "q", stored.pair.key) is None
    workspace = Workspace(here(tmp_path))
    pair = store_pair(workspace, "p", (stored.dates[0][:, :9, :9], stored.dates[1][:, :9, :9])).pair
    record = workspace.records("pairs", "p", pair.key) / GROUP_RECORD
    record.local().write_bytes(record.read_bytes()[:-9])
    assert load_pair(workspace, "p", pair.key) is None


@pytest.mark.parametrize(
    "change",
    [
        {"grid": {"height": 0, "width": 5, "transform": [1, 0, 0, 0, 1, 0], "crs": None}},
        {"units": [[1, 0]]},
        {"moments": {"common": [1, 2]}},
        {"block": None},
        {"roles": 3},
    ],
)
def test_a_record_that_makes_no_sense_is_damage(stored: Stored, tmp_path: Path, change: dict[str, Any]) -> None:
    workspace = Workspace(here(tmp_path))
    record = workspace.records("pairs", "p", "k") / GROUP_RECORD
    record.parent.local().mkdir(parents=True)
    write_sealed(record, {"objects": {}, "facts": stored.pair.to_json() | change})
    with pytest.raises(IntegrityError, match="pair p: damaged record"):
        load_pair(workspace, "p", "k")


@pytest.mark.parametrize("left_out", ["grid", "units", "levels"])
def test_a_record_of_another_version_is_told_as_such(stored: Stored, tmp_path: Path, left_out: str) -> None:
    workspace = Workspace(here(tmp_path))
    record = workspace.records("pairs", "p", "k") / GROUP_RECORD
    record.parent.local().mkdir(parents=True)
    facts = {name: value for name, value in stored.pair.to_json().items() if name != left_out}
    write_sealed(record, {"objects": {}, "facts": facts})
    with pytest.raises(InputError, match=f"pair p: was ingested by another version .* record its {left_out}; run"):
        load_pair(workspace, "p", "k")


@given(data=st.data())
def test_any_window_reads_both_dates_in_their_own_type(stored: Stored, data: st.DataObject) -> None:
    row, col = (data.draw(st.integers(0, length - 1)) for length in SHAPE)
    window = Window(row, col, data.draw(st.integers(1, SHAPE[0] - row)), data.draw(st.integers(1, SHAPE[1] - col)))
    for read, written in zip(read_dates(stored.workspace, stored.pair, window), stored.dates, strict=True):
        assert read.dtype == written.dtype
        assert np.array_equal(read, written[:, *window.slices])
    observed = read_observed(stored.workspace, stored.pair, window)
    assert observed.dtype == np.bool_
    assert np.array_equal(observed, stored.valid[window.slices] == 3)


@given(height=st.integers(1, 2000), width=st.integers(1, 2000), block=st.sampled_from([512, 1024]))
def test_blocks_cover_the_scene_once(height: int, width: int, block: int) -> None:
    pair = StoredPair("p", "k", utm_grid(height, width), block, RGB, ((1.0, 0.0), (1.0, 0.0)), {})
    covered = np.zeros((height, width), np.uint8)
    for key in pair.blocks():
        covered[pair.window(key).slices] += 1
    assert (covered == 1).all()


def test_each_date_is_normalised_by_its_own_statistics_and_unit(stored: Stored) -> None:
    units = ((1e-4, -0.1), (-2.0, 5.0))
    pair = dataclasses.replace(stored.pair, units=units)
    scene = Window(0, 0, *SHAPE)
    for statistics, masks in (
        ("common", (stored.valid == 3, stored.valid == 3)),
        ("per_date", (stored.valid & 1 > 0, stored.valid & 2 > 0)),
    ):
        for together in (True, False):
            recipe = Recipe("difference", RGB, statistics, together)
            expected = tuple(
                date_scaling(measure(date, mask, scene), RGB, unit, recipe)
                for date, mask, unit in zip(stored.dates, masks, units, strict=True)
            )
            assert pair.scalings(recipe) == expected


def test_moments_are_kept_exactly(stored: Stored) -> None:
    text = json.dumps(stored.pair.to_json())
    for name, dates in json.loads(text)["moments"].items():
        assert tuple(Moments.from_json(date) for date in dates) == stored.pair.moments[name]
