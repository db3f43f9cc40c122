"""Detectors that need no training: against textbook algebra, brute force, and scenes in which nothing changed."""

import itertools

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from cdpipe.detectors.alteration import alteration, canonical_variates
from cdpipe.detectors.detect import (
    DETECTORS,
    HALO,
    Fit,
    change_probability,
    find_threshold,
    fit_detector,
    sample,
    sample_step,
)
from cdpipe.detectors.moments import MOST_WEIGHT, UNIT, covariance, encode, measure_scale, robust_figures
from cdpipe.detectors.neighbours import MARGIN, mean_of_observed, range_of_observed
from cdpipe.detectors.thresholds import expectation_maximisation, kittler_illingworth, otsu
from cdpipe.errors import InputError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import grow

ROLES = ("blue", "green", "red", "nir")
Scene = NDArray[np.uint16]


def land(seed: int = 0, size: int = 160, bands: int = 4) -> Scene:
    """A scene with structure at many scales, as sensors see it: (band, size, size)."""
    random = np.random.default_rng(seed)
    mixture = random.normal(size=(bands, bands))
    layers = []
    for _ in range(bands):
        layer = np.zeros((size, size))
        for side in (2, 4, 8, 16, 32):
            coarse = random.normal(size=(size // side + 2, size // side + 2))
            layer += np.kron(coarse, np.ones((side, side)))[:size, :size] * side**0.5
        layers.append(layer)
    scene = np.tensordot(mixture, np.stack(layers), 1)
    scene += random.normal(0, 0.2, scene.shape)
    return np.clip(2000 + 120 * scene, 1, 20_000).astype(np.uint16)


def other_day(scene: Scene, seed: int = 1) -> Scene:
    """The same land in another light, with the sensor's noise."""
    gains = np.array([1.3, 0.8, 1.1, 0.9])[: len(scene), None, None]
    noise = np.random.default_rng(seed).normal(0, 12, scene.shape)
    return np.asarray(np.clip(scene * gains + 150 + noise, 1, 65_000), np.uint16)


def fit_of(name: str, before: NDArray[np.generic], after: NDArray[np.generic], observed: NDArray[np.bool_]) -> Fit:
    return fit_detector(name, sample((before, after), observed, 1).pixels, ROLES[: len(before)])


def probability_of(
    name: str, before: NDArray[np.generic], after: NDArray[np.generic], observed: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    seen = np.ones(before.shape[1:], np.bool_) if observed is None else observed
    return change_probability(fit_of(name, before, after, seen), before, after, seen)


def everywhere(scene: NDArray[np.generic]) -> NDArray[np.bool_]:
    return np.ones(scene.shape[1:], np.bool_)


# --- algebra


def textbook_mad(
    pixels: NDArray[np.float64], first: int, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Nielsen's generalised eigenproblems, as the paper writes them: variates a'X - b'Y and the correlations."""
    total = weights.sum()
    mean = pixels @ weights / total
    centred = pixels - mean[:, None]
    joint = (centred * weights) @ centred.T / total
    one, cross, other = joint[:first, :first], joint[:first, first:], joint[first:, first:]
    squares, a = scipy.linalg.eigh(cross @ np.linalg.solve(other, cross.T), one)
    order = np.argsort(squares)[::-1]
    a, correlations = a[:, order], np.sqrt(squares[order])
    b = np.linalg.solve(other, cross.T) @ a
    b /= np.sqrt(np.einsum("ij,ik,kj->j", b, other, b))
    return np.asarray(a.T @ centred[:first] - b.T @ centred[first:]), correlations


def textbook_irmad(pixels: NDArray[np.float64], first: int, rounds: int) -> NDArray[np.float64]:
    weights = np.ones(pixels.shape[1])
    for _ in range(rounds):
        variates, correlations = textbook_mad(pixels, first, weights)
        weights = chi2.sf((variates**2 / (2 * (1 - correlations))[:, None]).sum(0), first)
    return variates


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_mad_is_the_papers_eigenproblem(rounds: int) -> None:
    random = np.random.default_rng(3)
    before = random.normal(size=(3, 3)) @ random.normal(size=(3, 4000)) * 50
    after = random.normal(size=(3, 3)) @ before + random.normal(size=(3, 4000)) * 20
    after[:, :200] += 300  # which changed
    pixels = np.concatenate([before, after]).astype(np.float32)
    scale = measure_scale(pixels)
    codes = encode(pixels, scale)
    one, other = alteration(codes, 3, rounds)
    ours = (one @ codes[:3] - other @ codes[3:]) / UNIT
    expected = textbook_irmad(codes, 3, rounds)
    for mine, theirs in zip(ours - ours.mean(1)[:, None], expected - expected.mean(1)[:, None], strict=True):
        sign = np.sign(mine @ theirs)  # of a canonical variate the algebra leaves open
        assert np.abs(mine - sign * theirs).max() < 0.03 * theirs.std(), "weights have 7 bits, the textbook's 53"


def test_canonical_correlations_of_two_variables_are_their_correlation() -> None:
    joint = np.array([[4.0, -1.5], [-1.5, 1.0]])
    one, other, correlations = canonical_variates(joint, 1)
    assert correlations == pytest.approx([1.5 / 2])
    assert one[0, 0] * joint[0, 1] * other[0, 0] == pytest.approx(0.75)
    assert abs(one[0, 0]) == pytest.approx(0.5)


def test_a_copy_of_a_band_adds_no_variate() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=(2, 1000))
    after = before + random.normal(size=(2, 1000))
    codes = np.rint(np.concatenate([before, before[:1], after, after[:1]]) * UNIT)
    one, other = alteration(codes, 3)
    assert len(one) == len(other) == 2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), cut=st.integers(1, 299))
def test_moments_do_not_depend_on_the_order_of_pixels(seed: int, cut: int) -> None:
    random = np.random.default_rng(seed)
    codes = np.rint(random.normal(0, 3000, (3, 300)))
    weights = random.integers(0, MOST_WEIGHT + 1, 300).astype(np.float64)
    order = np.r_[cut:300, 0:cut]
    mean, joint = covariance(codes, weights)
    again = covariance(codes[:, order], weights[order])
    assert np.array_equal(mean, again[0])
    assert np.array_equal(joint, again[1])
    np.testing.assert_allclose(joint, np.cov(codes / UNIT, aweights=weights, ddof=0), rtol=1e-9, atol=1e-12)


def test_robust_figures_are_those_of_a_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(7, 3, 200_000).astype(np.float32)
    assert robust_figures(values) == pytest.approx((7, 3), rel=0.01)
    mostly = np.zeros(1000, np.float32)
    mostly[:5] = 9
    assert robust_figures(mostly)[1] == pytest.approx(9 * np.sqrt(0.005))
    assert robust_figures(np.full(9, 4, np.float32)) == (4, 0)


# --- thresholds


def error_of(first: int, counts: NDArray[np.int64], values: NDArray[np.float64], rule: str) -> float:
    """What a threshold is to make small, from the pixels themselves; infinite where it parts nothing."""
    pixels = np.repeat(values, counts)
    low, high = (pixels[pixels < values[first]], pixels[pixels >= values[first]]) if first < len(values) else ([], [])
    if not len(low) or not len(high):
        return np.inf
    shares, parts = (len(low) / len(pixels), len(high) / len(pixels)), (np.array(low), np.array(high))
    if rule == "otsu":
        return sum(share * float(part.var()) for share, part in zip(shares, parts, strict=True))
    if min(part.var() for part in parts) <= (values[1] - values[0]) ** 2 / 12:
        return np.inf
    return sum(s * float(np.log(p.var())) - 2 * s * float(np.log(s)) for s, p in zip(shares, parts, strict=True))


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=3, max_size=12).filter(lambda each: sum(each) > 0))
def test_thresholds_are_the_best_of_all(counts: list[int]) -> None:
    histogram, values = np.array(counts), np.arange(len(counts), dtype=np.float64) * 0.5 + 0.25
    for rule, threshold in (("otsu", otsu), ("kittler", kittler_illingworth)):
        found = threshold(histogram, values)
        errors = [error_of(first, histogram, values, rule) for first in range(len(counts) + 1)]
        assert errors[found] == pytest.approx(min(errors)), rule
        assert np.isfinite(errors[found]) or found == len(counts)


def test_every_threshold_parts_two_normal_classes() -> None:
    random = np.random.default_rng(0)
    values = np.arange(200, dtype=np.float64) * 0.05 + 0.025
    pixels = np.concatenate([random.normal(2, 0.3, 50_000), random.normal(6, 0.5, 5_000)])
    counts = np.histogram(pixels, np.arange(201) * 0.05)[0]
    edges = {
        rule.__name__: values[rule(counts, values)] for rule in (otsu, kittler_illingworth, expectation_maximisation)
    }
    assert all(3 < edge < 5 for edge in edges.values()), edges


# --- neighbours


def test_means_and_ranges_leave_out_what_was_not_observed() -> None:
    random = np.random.default_rng(1)
    plane = random.integers(0, 60_000, (7, 9)).astype(np.uint16)
    observed = random.random((7, 9)) < 0.6
    means = mean_of_observed(plane, observed)
    low, high = range_of_observed(plane.astype(np.float32), observed)
    for row, col in itertools.product(range(7), range(9)):
        box = (slice(max(0, row - 1), row + 2), slice(max(0, col - 1), col + 2))
        seen = plane[box][observed[box]].astype(np.float64)
        assert means[row, col] == (np.float32(seen.sum() / len(seen)) if len(seen) else 0)
        assert (low[row, col], high[row, col]) == ((seen.min(), seen.max()) if len(seen) else (np.inf, -np.inf))


# --- detectors


@pytest.mark.parametrize("name", DETECTORS)
def test_a_scene_in_another_light_has_not_changed(name: str) -> None:
    before = land()
    noisy = probability_of(name, before, other_day(before))
    assert (noisy >= 0.5).mean() < 0.001
    assert not (probability_of(name, before, before) >= 0.5).any()


@pytest.mark.parametrize("name", DETECTORS)
def test_dates_half_a_pixel_apart_have_hardly_changed(name: str) -> None:
    scene = land().astype(np.float64)
    shifted = (scene[:, :-1, :-1] + scene[:, 1:, :-1] + scene[:, :-1, 1:] + scene[:, 1:, 1:]) / 4
    before, after = scene[:, :-1, :-1].astype(np.uint16), (shifted * 1.2 + 50).astype(np.uint16)
    assert (probability_of(name, before, after) >= 0.5).mean() < 0.005


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("bands", [1, 4])
def test_what_was_built_is_found(name: str, bands: int) -> None:
    before = land(bands=bands)
    after = other_day(before)
    after[:, 40:60, 30:70] = np.array([9000, 4000, 7500, 3000])[:bands, None, None]
    changed = np.zeros(before.shape[1:], np.bool_)
    changed[40:60, 30:70] = True
    found = probability_of(name, before, after) >= 0.5
    assert found[changed].mean() > 0.8
    assert found[~changed].mean() < 0.01


@pytest.mark.parametrize("name", DETECTORS)
def test_blocks_do_not_show(name: str) -> None:
    """Whatever the tiling: the same sample, and the same probability bit for bit."""
    random = np.random.default_rng(2)
    before = land(4, 96)
    after = other_day(before)
    after[:, 20:40, 50:80] += 3000
    observed = random.random((96, 96)) < 0.9
    step = 3
    whole = sample((before, after), observed, step)
    fit = fit_detector(name, whole.pixels, ROLES, step=step)
    expected = change_probability(fit, before, after, observed)
    assert np.array_equal(np.isnan(expected), ~observed)
    for side in (29, 64):
        for row, col in itertools.product(range(0, 96, side), range(0, 96, side)):
            stop_row, stop_col = min(96, row + side), min(96, col + side)
            top, left = max(0, row - HALO), max(0, col - HALO)
            halo = (slice(top, min(96, stop_row + HALO)), slice(left, min(96, stop_col + HALO)))
            part = change_probability(fit, before[:, *halo], after[:, *halo], observed[halo])
            own = part[row - top : stop_row - top, col - left : stop_col - left]
            assert np.array_equal(own, expected[row:stop_row, col:stop_col], equal_nan=True)
            window = Window(row, col, stop_row - row, stop_col - col)
            held = grow(window, MARGIN, (96, 96))
            half = sample(
                (before[:, *held.slices], after[:, *held.slices]), observed[held.slices], step, (window, held)
            )
            rows, cols = slice(-(-row // step), -(-stop_row // step)), slice(-(-col // step), -(-stop_col // step))
            assert np.array_equal(half.before[:, half.seen], whole.before[:, rows, cols][:, whole.seen[rows, cols]])
            assert np.array_equal(half.after[:, half.seen], whole.after[:, rows, cols][:, whole.seen[rows, cols]])


def test_a_tall_scene_is_worked_on_in_strips_that_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    before = land(5, 96)
    after = other_day(before)
    whole = probability_of("mad", before, after)
    monkeypatch.setattr("cdpipe.detectors.detect.STRIP", 10)
    assert np.array_equal(probability_of("mad", before, after), whole)


def test_a_large_scene_is_sampled() -> None:
    assert sample_step(100) == sample_step(2**19) == 1
    assert sample_step(2**19 + 1) == 2
    assert (10_980 // sample_step(10_980**2)) ** 2 <= 2**19


def test_a_band_of_one_value_is_left_out_and_a_scene_of_one_is_refused() -> None:
    before = land()
    before[1] = 500
    after = other_day(land())
    for name in DETECTORS:
        assert fit_of(name, before, after, everywhere(before)).bands == ("blue", "red", "nir")
        assert np.isfinite(probability_of(name, before[[0, 2, 3]], after[[0, 2, 3]])).all()
    flat = np.full_like(after, 7)
    with pytest.raises(InputError, match="each of the bands blue, green, red, nir has one value everywhere"):
        fit_of("mad", before, flat, everywhere(before))


def test_too_few_pixels_are_refused() -> None:
    before = land()
    observed = np.zeros(before.shape[1:], np.bool_)
    observed[:3, :4] = True
    with pytest.raises(InputError, match="mad: 12 pixel"):
        fit_of("mad", before, before, observed)


def test_normal_noise_alone_has_a_threshold_beyond_it() -> None:
    random = np.random.default_rng(0)
    square = np.square(random.normal(size=(4, 300_000))).sum(0)
    assert find_threshold(square, 4) ** 2 >= chi2.isf(1e-7, 4) * (1 - 1e-9)
    assert find_threshold(np.zeros(1000), 4) ** 2 == pytest.approx(chi2.isf(1e-7, 4))


@pytest.mark.parametrize("name", ["cva", "difference"])
def test_a_date_that_counts_downwards_is_turned(name: str) -> None:
    before = land()
    after = 30_000 - other_day(before)
    pixels = sample((before, after), everywhere(before), 1).pixels
    fit = fit_detector(name, pixels, ROLES, opposite=True)
    assert (change_probability(fit, before, after, everywhere(before)) >= 0.5).mean() < 0.001
