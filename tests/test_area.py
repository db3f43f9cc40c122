"""The error-adjusted area: the example of Olofsson et al. (2014), simple random samples, and made-up populations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.evaluation.area import LEAST, Estimate, allocate, estimate, points_needed

# Table 8 of the paper: rows are strata (deforestation, forest gain, stable forest, stable non-forest), columns truth.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
WEIGHTS = PIXELS / PIXELS.sum()


def producers_variance(of: int) -> float:
    """Equation 7, term by term."""
    points, users = COUNTS.sum(axis=1), np.diag(COUNTS) / COUNTS.sum(axis=1)
    total = sum(PIXELS[i] / points[i] * COUNTS[i, of] for i in range(4))
    producers = PIXELS[of] * users[of] / total
    own = PIXELS[of] ** 2 * (1 - producers) ** 2 * users[of] * (1 - users[of]) / (points[of] - 1)
    shares = {i: COUNTS[i, of] / points[i] for i in range(4) if i != of}
    others = sum(float(PIXELS[i]) ** 2 * share * (1 - share) / (points[i] - 1) for i, share in shares.items())
    return float((own + producers**2 * others) / total**2)


def half_widths(estimates: tuple[Estimate, ...]) -> list[float]:
    return [round(1.96 * each.error, 2) for each in estimates]


def values(estimates: tuple[Estimate, ...]) -> list[float]:
    return [round(each.value, 2) for each in estimates]


def test_the_worked_example_of_the_paper() -> None:
    """Section 5.2: accuracies with their 95 % intervals, and 235,086 ± 68,418 pixels of deforestation."""
    found = estimate(WEIGHTS, COUNTS, np.arange(4))
    assert values(found.users) == [0.88, 0.73, 0.93, 0.96]
    assert half_widths(found.users) == [0.07, 0.10, 0.04, 0.02]
    assert values(found.producers) == [0.75, 0.85, 0.93, 0.96]
    for own, equation in zip(found.producers, map(producers_variance, range(4)), strict=True):
        assert own.error == pytest.approx(np.sqrt(equation))
    assert (round(found.overall.value, 2), round(1.96 * found.overall.error, 2)) == (0.95, 0.02)
    deforestation = found.shares[0]
    assert round(deforestation.value * PIXELS.sum()) == 235_086
    assert 1.96 * deforestation.error * PIXELS.sum() == pytest.approx(68_418, abs=1)


def test_the_sample_size_of_the_paper() -> None:
    """Section 5.1: 641 points for a standard error of 0.01."""
    assert points_needed(WEIGHTS, np.array([0.7, 0.6, 0.9, 0.95]), 0.01) == 641


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=4), st.integers(0, 3000))
def test_all_points_are_given_out_and_rare_strata_get_enough(areas: list[int], points: int) -> None:
    weights = np.array(areas) / max(1, sum(areas))
    given_out = allocate(weights, points)
    if not sum(areas):
        assert given_out == [0] * len(areas)
        return
    assert sum(given_out) == points
    there = [number for number, area in zip(given_out, areas, strict=True) if area]
    assert all(number == 0 for number, area in zip(given_out, areas, strict=True) if not area)
    assert min(there) >= min(LEAST, points // len(there))


def test_a_rare_stratum_is_not_left_to_chance() -> None:
    assert allocate(np.array([0.99, 0.01]), 700) == [625, 75]
    assert allocate(np.array([0.98, 0.01, 0.01]), 700) == [550, 75, 75]
    assert allocate(np.array([0.99, 0.01]), 20) == [10, 10]
    assert allocate(np.array([0.5, 0.5, 0.0]), 700) == [350, 350, 0]


def test_a_stratum_around_change_changes_nothing_where_it_is_like_the_rest() -> None:
    """Two strata of one class, as one whose counts are in proportion."""
    whole = estimate(np.array([0.9, 0.1]), np.array([[270, 30], [20, 80]]), np.array([0, 1]))
    parts = estimate(np.array([0.6, 0.1, 0.3]), np.array([[180, 20], [20, 80], [90, 10]]), np.array([0, 1, 0]))
    for name in ("shares", "users", "producers"):
        for one, other in zip(getattr(whole, name), getattr(parts, name), strict=True):
            assert one.value == pytest.approx(other.value)
            assert one.error == pytest.approx(other.error, rel=0.01)


def test_what_a_sample_cannot_tell() -> None:
    with pytest.raises(ValueError, match="at least 2 points"):
        estimate(np.array([0.5, 0.5]), np.array([[1, 0], [3, 3]]), np.array([0, 1]))
    nothing = estimate(np.array([0.9, 0.1]), np.array([[20, 0], [20, 0]]), np.array([0, 1]))
    assert nothing.shares[1] == Estimate(0.0, 0.0)
    assert np.isnan(nothing.producers[1].value)


@pytest.mark.parametrize("buffer", [False, True])
def test_about_95_of_100_intervals_hold_the_truth(buffer: bool) -> None:
    """Populations whose map misses and makes up change; a thousand samples each."""
    random = np.random.default_rng(7)
    weights = np.array([0.80, 0.08, 0.12]) if buffer else np.array([0.92, 0.08])
    true = np.array([0.02, 0.75, 0.15]) if buffer else np.array([0.03, 0.75])
    classes, points = np.array([0, 1, 0][: len(true)]), allocate(weights, 800)
    share = float(weights @ true)
    producers = weights[1] * true[1] / share
    overall = float(weights @ np.where(classes == 1, true, 1 - true))
    held = np.zeros(3)
    for _ in range(1000):
        changed = random.binomial(points, true)
        found = estimate(weights, np.stack([np.array(points) - changed, changed], 1), classes)
        for place, (each, truth) in enumerate(
            [(found.shares[1], share), (found.producers[1], producers), (found.overall, overall)]
        ):
            low, high = each.interval
            held[place] += low <= truth <= high
    assert ((held / 1000 > 0.92) & (held / 1000 < 0.97)).all(), held
