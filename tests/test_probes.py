"""Models that are run again: what is symmetric has nothing to flip, what is blind to nothing is found out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from stored import bright_squares, store_pair

from cdpipe.evaluation.probes import Probe, ProbeJob, choose_windows, move_half_a_pixel, probe_window
from cdpipe.inference.patches import Execution
from cdpipe.models.folder import ModelCard
from cdpipe.prediction.block import Member, probability_key
from cdpipe.prediction.ensemble import plan_ensemble
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

Net = Callable[[NDArray[np.float32]], NDArray[np.float32]]
PATCH = 64


def member(name: str, weight: float = 1.0) -> Member:
    """A model of the colours of both dates, six channels."""
    card = ModelCard(name, "siamese_resnet18", {}, ("red", "green", "blue"), "common", False, PATCH, name)
    return Member(card, here(Path(name)), name, None, weight, 0.25, Execution("none", "float32", "cpu", 1))


def job(folder: Path, *members: Member, valid: NDArray[np.uint8] | None = None) -> ProbeJob:
    dates, _ = bright_squares((200, 150), 5, squares=12)
    pair = store_pair(Workspace(here(folder)), "p", dates, valid=valid).pair
    ensemble = plan_ensemble([(probability_key(pair.key, each), each.weight) for each in members], 0.5)
    windows = tuple(choose_windows(pair, members, 4))
    return ProbeJob(Workspace(here(folder)), pair, members, ensemble, {each.name: 0.4 for each in members}, windows)


def probed(work: ProbeJob, *nets: Net) -> dict[str, Probe]:
    total: dict[str, Probe] = {}
    for window in work.windows:
        for layer, probe in probe_window(work, window, nets).items():
            total[layer] = total.get(layer, Probe()) + probe
    return total


def distance(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change where the colours are apart, whichever is first."""
    apart = np.abs(patches[:, :3] - patches[:, 3:]).mean(1)
    return np.asarray(np.minimum(apart / 2, 1), np.float32)


def brighter_later(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change where the second date is brighter."""
    return np.asarray(patches[:, 3:].mean(1) - patches[:, :3].mean(1) > 1, np.float32)


def bright(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change wherever the first date is brighter than its mean: false alarms half of the time."""
    return np.asarray(patches[:, :3].mean(1) > 0, np.float32)


def test_a_symmetric_model_does_not_mind_swapped_dates(tmp_path: Path) -> None:
    found = probed(job(tmp_path, member("m")), distance)
    assert (found["m"].swap.flips, found["m"].swap.steps) == (0, 0)
    assert found["m"].swap.pixels == found["ensemble"].swap.pixels == 4 * PATCH * PATCH
    assert found["m"].identity.flips == 0


def test_a_model_that_minds_the_order_is_found_out(tmp_path: Path) -> None:
    found = probed(job(tmp_path, member("m")), brighter_later)["m"]
    assert found.swap.flips > 100
    assert found.swap.steps == found.swap.flips * 2**24
    assert found.identity.flips == 0


def test_false_alarms_where_nothing_changed_are_counted(tmp_path: Path) -> None:
    found = probed(job(tmp_path, member("m")), bright)["m"]
    assert found.identity.flips / found.identity.pixels == pytest.approx(0.5, abs=0.05)


def test_a_shift_and_light_alarm_a_model_that_looks_at_pixels_alone(tmp_path: Path) -> None:
    found = probed(job(tmp_path, member("m")), lambda patches: np.minimum(distance(patches) * 2, 1))["m"]
    assert found.identity.flips == 0
    assert found.identity_shifted.flips > 0.3 * found.identity_shifted.pixels


def test_the_ensemble_is_what_the_run_makes_of_its_members(tmp_path: Path) -> None:
    """A quarter of what minds the order and three quarters of what does not: a flip needs half."""
    found = probed(job(tmp_path, member("a", 1.0), member("b", 3.0)), brighter_later, distance)
    assert found["b"].swap.steps == 0
    assert found["ensemble"].swap.steps == pytest.approx(found["a"].swap.steps / 4, rel=1e-6)


def test_what_is_not_observed_counts_nowhere(tmp_path: Path) -> None:
    valid = np.full((200, 150), 3, np.uint8)
    valid[:, 70:100] = 2
    work = job(tmp_path, member("m"), valid=valid)
    found = probed(work, distance)["m"]
    counted = sum(int((valid[window.slices] == 3).sum()) for window in work.windows)
    assert found.swap.pixels == found.identity.pixels == counted < 4 * PATCH * PATCH
    # left of what is not observed half of a moved pixel is not either
    assert found.identity_shifted.pixels == counted - 2 * PATCH


def test_half_a_pixel_is_half_a_pixel() -> None:
    """A ramp that moves up and left by a half grows by half a step in both directions."""
    ramp = np.add.outer(2.0 * np.arange(6), 10.0 * np.arange(5))[None]
    observed = np.ones((6, 5), np.bool_)
    observed[3, 3] = False
    moved, seen = move_half_a_pixel(ramp, observed)
    np.testing.assert_allclose(moved[0, :-1, :-1], (ramp + 6)[0, :-1, :-1])
    assert sorted(zip(*np.nonzero(~seen), strict=True)) == [(2, 2), (2, 3), (3, 2), (3, 3)]


def test_windows_are_the_same_each_time_and_whole_patches(tmp_path: Path) -> None:
    work = job(tmp_path, member("m"))
    assert tuple(choose_windows(work.pair, work.members, 4)) == work.windows
    assert all(
        window.row % PATCH == window.col % PATCH == 0 and window.shape == (PATCH, PATCH) for window in work.windows
    )
