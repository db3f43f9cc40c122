"""Normalisation against plain float64 z-scores of whole images."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.store.normalisation import (
    RGB,
    DateScaling,
    InputKind,
    Recipe,
    combine_dates,
    date_scaling,
    model_input,
    normalise_date,
)
from cdpipe.store.statistics import measure, no_pixels

SHAPE = (31, 27)
WINDOW = Window(0, 0, *SHAPE)
EVERYWHERE = np.ones(SHAPE, np.bool_)
PLAIN_UNIT = (1.0, 0.0)
KINDS: tuple[InputKind, ...] = ("difference", "band_difference", "stacked", "stacked_difference")

Dates = tuple[NDArray[Any], NDArray[Any]]


def dates(seed: int, dtype: str = "uint16", bands: int = 3) -> Dates:
    """Two dates, each band of its own level and contrast."""
    rng = np.random.default_rng(seed)
    level, contrast = rng.uniform(200, 800, (2, bands, 1, 1)), rng.uniform(20, 90, (2, bands, 1, 1))
    before, after = (level + contrast * rng.normal(size=(2, bands, *SHAPE))).clip(0, 1023).astype(dtype)
    return before, after


def recipe(kind: InputKind, *, together: bool = False, clip: float | None = None) -> Recipe:
    return Recipe(kind, RGB, "common", together, clip)


def scalings(
    kind: InputKind, pair: Dates, mask: NDArray[np.bool_], *, together: bool = False, clip: float | None = None
) -> tuple[DateScaling, DateScaling]:
    own = recipe(kind, together=together, clip=clip)
    before, after = (date_scaling(measure(date, mask, WINDOW), RGB, PLAIN_UNIT, own) for date in pair)
    return before, after


def z_score(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The plain definition, over the pixels of the mask in all bands."""
    plain = values.astype(np.float64)
    return np.asarray((plain - plain[..., mask].mean()) / plain[..., mask].std())


def grey(image: NDArray[Any]) -> NDArray[np.float64]:
    red, green, blue = image.astype(np.float64)
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue)


@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
def test_difference_is_the_plain_z_score_of_grey_before_minus_after(seed: int, dtype: str) -> None:
    pair = dates(seed, dtype)
    observed = np.random.default_rng(seed).random(SHAPE) < 0.8
    result = model_input(pair, observed, scalings("difference", pair, observed))
    before, after = (z_score(grey(date), observed) for date in pair)
    assert result.shape == (1, *SHAPE)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], np.where(observed, before - after, 0), atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), together=st.booleans())
def test_stacked_is_the_plain_z_score_of_each_band_or_of_all(seed: int, together: bool) -> None:
    pair = dates(seed)
    observed = np.random.default_rng(seed).random(SHAPE) < 0.8
    result = model_input(pair, observed, scalings("stacked", pair, observed, together=together))
    assert result.shape == (6, *SHAPE)
    assert result.dtype == np.float32
    if together:
        expected = np.concatenate([z_score(date, observed) for date in pair])
    else:
        expected = np.stack([z_score(band, observed) for date in pair for band in date])
    np.testing.assert_allclose(result, np.where(observed, expected, 0), atol=1e-4)


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_models_input_is_its_two_dates_normalised_and_combined(kind: InputKind, clip: float | None) -> None:
    pair = dates(4)
    observed = np.random.default_rng(4).random(SHAPE) < 0.8
    both = scalings(kind, pair, observed, clip=clip)
    before, after = (np.where(observed, normalise_date(*each), 0) for each in zip(pair, both, strict=True))
    assert combine_dates(before, after, both).tobytes() == model_input(pair, observed, both).tobytes()


@given(seed=st.integers(0, 2**32 - 1), clip=st.sampled_from([None, 0.5, 4.0]))
def test_differences_of_bands_are_those_of_the_clipped_z_scores(seed: int, clip: float | None) -> None:
    pair = dates(seed)
    observed = np.random.default_rng(seed).random(SHAPE) < 0.8
    limit = np.inf if clip is None else clip
    before, after = (np.stack([z_score(band, observed).clip(-limit, limit) for band in date]) for date in pair)
    expected = {
        "band_difference": before - after,
        "stacked": np.concatenate([before, after]),
        "stacked_difference": np.concatenate([before, after, before - after]),
    }
    for kind, values in expected.items():
        result = model_input(pair, observed, scalings(kind, pair, observed, clip=clip))  # type: ignore[arg-type]
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, np.where(observed, values, 0), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_clipped_is_each_date_not_their_difference(kind: InputKind) -> None:
    before, after = dates(13)
    before[:, 3, 3], after[:, 3, 3] = 60000, 0  # far beyond, on either side
    both = scalings(kind, (before, after), EVERYWHERE, clip=2.0)
    assert np.abs(model_input((before, after), EVERYWHERE, both)).max() == (2.0 if kind == "stacked" else 4.0)


def test_what_the_original_program_did_to_a_whole_scene() -> None:
    pair = dates(5)
    eaten = [date.astype(np.float64) / 1024 for date in pair]
    colours = [(date - date.mean()) / date.std() for date in eaten]
    greys = [(grey(date) - grey(date).mean()) / grey(date).std() for date in eaten]
    expected = {"difference": (greys[0] - greys[1])[None], "stacked": np.concatenate(colours)}
    for kind in ("difference", "stacked"):
        result = model_input(pair, EVERYWHERE, scalings(kind, pair, EVERYWHERE, together=True))
        np.testing.assert_allclose(result, expected[kind], atol=1e-4)


def test_statistics_may_count_other_pixels_than_are_observed_at_both_dates() -> None:
    pair = dates(6)
    seen_before = np.random.default_rng(1).random(SHAPE) < 0.6
    both = (scalings("difference", pair, seen_before)[0], scalings("difference", pair, EVERYWHERE)[1])
    expected = z_score(grey(pair[0]), seen_before) - z_score(grey(pair[1]), EVERYWHERE)
    result = model_input(pair, seen_before, both)[0]
    np.testing.assert_allclose(result, np.where(seen_before, expected, 0), atol=1e-4)


def test_what_brightened_is_negative() -> None:
    before = np.full((3, *SHAPE), 100, np.uint16)
    before[:, ::2] = 200
    after = before.copy()
    after[:, 5, 5] = 900  # a new bright roof
    result = model_input((before, after), EVERYWHERE, scalings("difference", (before, after), EVERYWHERE))
    assert result[0].argmin() == 5 * SHAPE[1] + 5
    swapped = model_input((after, before), EVERYWHERE, scalings("difference", (after, before), EVERYWHERE))
    np.testing.assert_array_equal(swapped, -result)


@pytest.mark.parametrize("order", [("nir", "blue", "green", "red"), ("green", "nir", "red", "blue")])
def test_bands_are_found_by_their_names(order: tuple[str, ...]) -> None:
    pair = dates(7, bands=4)
    named = dict(zip(order, range(4), strict=True))
    own = recipe("stacked")
    both = [date_scaling(measure(date, EVERYWHERE, WINDOW), order, PLAIN_UNIT, own) for date in pair]
    result = model_input(pair, EVERYWHERE, (both[0], both[1]))
    expected = [z_score(date[named[role]], EVERYWHERE) for date in pair for role in RGB]
    np.testing.assert_allclose(result, expected, atol=1e-4)
    with pytest.raises(ValueError, match="bands red, blue are not among green, nir"):
        date_scaling(no_pixels(2), ("green", "nir"), PLAIN_UNIT, own)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("unit", [(1e-4, 0.0), (1e-4, -0.1), (-0.5, 80.0), (2.5, 1000.0)])
def test_a_sensor_s_unit_is_that_of_the_physical_value(unit: tuple[float, float], together: bool) -> None:
    pair = dates(8)
    physical = [date * unit[0] + unit[1] for date in pair]
    inputs = {}
    for kind in KINDS:
        own = recipe(kind, together=together)
        both = [date_scaling(measure(date, EVERYWHERE, WINDOW), RGB, unit, own) for date in pair]
        inputs[kind] = model_input(pair, EVERYWHERE, (both[0], both[1]))
    parts = physical if together else [band for date in physical for band in date]
    expected = np.concatenate([z_score(part, EVERYWHERE).reshape(-1, *SHAPE) for part in parts])
    np.testing.assert_allclose(inputs["stacked"], expected, atol=1e-4)
    before, after = (z_score(grey(date), EVERYWHERE) for date in physical)
    np.testing.assert_allclose(inputs["difference"][0], before - after, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("value", [0, 513.7])
def test_a_date_of_one_value_becomes_zero(dtype: str, value: float) -> None:
    flat = np.full((3, *SHAPE), value).astype(dtype)
    _, after = dates(9, dtype)
    stacked, difference = (
        model_input((flat, after), EVERYWHERE, scalings(kind, (flat, after), EVERYWHERE))
        for kind in ("stacked", "difference")
    )
    assert not stacked[:3].any()
    np.testing.assert_allclose(difference[0], -z_score(grey(after), EVERYWHERE), atol=1e-4)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("kind", KINDS)
def test_not_observed_is_zero_whatever_is_stored_there(kind: InputKind, garbage: float) -> None:
    clean = dates(10, "float64")
    observed = np.random.default_rng(2).random(SHAPE) < 0.6
    before, after = (np.where(observed, date, garbage) for date in clean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = model_input((before, after), observed, scalings(kind, (before, after), observed))
    assert not result[:, ~observed].any()
    np.testing.assert_array_equal(result, model_input(clean, observed, scalings(kind, clean, observed)))


@given(row=st.integers(0, 30), col=st.integers(0, 26), height=st.integers(1, 31), width=st.integers(1, 27))
@pytest.mark.parametrize("kind", KINDS)
def test_a_window_is_normalised_as_it_is_within_the_scene(
    kind: InputKind, row: int, col: int, height: int, width: int
) -> None:
    pair = dates(11)
    observed = np.random.default_rng(3).random(SHAPE) < 0.8
    both = scalings(kind, pair, observed)
    part = np.s_[row : row + height, col : col + width]
    whole = model_input(pair, observed, both)
    cut = model_input((pair[0][:, *part], pair[1][:, *part]), observed[part], both)
    assert np.array_equal(cut, whole[:, *part])


def test_no_observed_pixel_gives_no_scaling() -> None:
    with pytest.raises(ValueError, match="no pixels"):
        date_scaling(no_pixels(3), RGB, PLAIN_UNIT, recipe("stacked"))


def test_any_bands_may_be_stacked() -> None:
    pair, order = dates(12, bands=4), ("red", "green", "blue", "nir")
    own = Recipe("stacked", ("nir", "red"), "common", together=False)
    both = [date_scaling(measure(date, EVERYWHERE, WINDOW), order, PLAIN_UNIT, own) for date in pair]
    expected = [z_score(date[band], EVERYWHERE) for date in pair for band in (3, 0)]
    np.testing.assert_allclose(model_input(pair, EVERYWHERE, (both[0], both[1])), expected, atol=1e-4)
