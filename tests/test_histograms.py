"""Histograms and quantiles against NumPy, whatever the blocks; and robust normalisation by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from stored import store_pair

from cdpipe.geo.grid import Window
from cdpipe.store.histograms import (
    SHARES,
    Histogram,
    count_values,
    from_json,
    merge,
    quantiles,
    robust_figures,
    to_json,
)
from cdpipe.store.normalisation import Recipe, date_scaling, normalise_date
from cdpipe.store.pair import load_pair
from cdpipe.store.statistics import measure
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

NARROW = ["uint8", "int8", "uint16", "int16"]
WIDE = ["int32", "uint32", "int64", "float32", "float64"]
RGB = ("red", "green", "blue")
ROBUST = Recipe("stacked", RGB, "common", together=False, clip=None, method="robust")


def everywhere(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.ones(values.shape[1:], np.bool_)


def finite(dtype: str) -> st.SearchStrategy[Any]:
    """Any value but NaN and infinity."""
    return hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)


def same(first: Histogram, second: Histogram) -> bool:
    return np.array_equal(first.bins, second.bins) and np.array_equal(first.counts, second.counts)


@given(data=st.data(), dtype=st.sampled_from(NARROW))
def test_quantiles_of_narrow_pixels_are_numpy_s(data: st.DataObject, dtype: str) -> None:
    values = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)))
    mask = data.draw(hnp.arrays(np.bool_, values.shape[1:]))
    if not mask.any():
        mask[0, 0] = True
    for band, histogram in zip(values, count_values(values, mask), strict=True):
        assert histogram.counts.sum() == mask.sum()
        expected = np.quantile(band[mask].astype(np.float64), SHARES)
        np.testing.assert_allclose(quantiles(histogram, values.dtype), expected, rtol=1e-12, atol=1e-9)


@given(data=st.data(), dtype=st.sampled_from(WIDE))
def test_each_quantile_of_wide_pixels_lies_within_a_bin_of_numpy_s(data: st.DataObject, dtype: str) -> None:
    # what NumPy interpolates between is a pixel on either side, which are known to a 2048th
    values = data.draw(hnp.arrays(dtype, (1, 5, 7), elements=finite(dtype)))
    [histogram] = count_values(values, everywhere(values))
    limit = float(np.finfo(np.float32).max)
    ranked = np.sort(values.reshape(-1).astype(np.float64).clip(-limit, limit))
    for share, found in zip(SHARES, quantiles(histogram, values.dtype), strict=True):
        position = (len(ranked) - 1) * share
        low, high = ranked[int(position)], ranked[min(int(position) + 1, len(ranked) - 1)]
        room = max(abs(low), abs(high)) / 2048 + 1e-37
        assert low - room <= found <= high + room


@pytest.mark.parametrize(
    ("dtype", "scale", "shift"), [("float32", 0.1, 0.2), ("float64", 1.0, 290.0), ("int32", 900, 0)]
)
def test_wide_pixels_are_told_apart_as_finely_as_they_vary(dtype: str, scale: float, shift: float) -> None:
    values = (np.random.default_rng(1).normal(size=(1, 300, 300)) * scale + shift).astype(dtype)
    [histogram] = count_values(values, everywhere(values))
    expected = np.quantile(values.astype(np.float64), SHARES)
    np.testing.assert_allclose(quantiles(histogram, values.dtype), expected, atol=0.01 * scale)


@given(data=st.data(), dtype=st.sampled_from(NARROW + WIDE))
def test_histograms_do_not_depend_on_blocks_or_their_order(data: st.DataObject, dtype: str) -> None:
    values = np.random.default_rng(data.draw(st.integers(0, 99))).normal(50, 20, (2, 12, 10)).astype(dtype)
    mask = data.draw(hnp.arrays(np.bool_, values.shape[1:]))
    row, col = data.draw(st.integers(1, 11)), data.draw(st.integers(1, 9))
    blocks = [
        count_values(values[:, rows, cols], mask[rows, cols])
        for rows in (slice(0, row), slice(row, None))
        for cols in (slice(0, col), slice(col, None))
    ]
    for band, whole in enumerate(count_values(values, mask)):
        for order in (blocks, blocks[::-1]):
            assert same(merge([block[band] for block in order]), whole)


@given(data=st.data(), dtype=st.sampled_from(NARROW + WIDE))
def test_a_histogram_is_read_back_as_it_was_written(data: st.DataObject, dtype: str) -> None:
    values = data.draw(hnp.arrays(dtype, (2, 3, 4), elements=finite(dtype)))
    for mask in (everywhere(values), data.draw(hnp.arrays(np.bool_, (3, 4)))):
        histograms = count_values(values, mask)
        assert all(map(same, from_json(json.loads(json.dumps(to_json(histograms)))), histograms))


@pytest.mark.parametrize("dtype", NARROW)
def test_large_blocks_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    values = np.random.default_rng(2).normal(50, 20, (2, 12, 10)).astype(dtype)[:, :, ::-1]
    mask = np.random.default_rng(3).random((12, 10)) < 0.5
    whole = count_values(values, mask)
    monkeypatch.setattr("cdpipe.store.histograms.EXACT_PIXELS", 23)
    assert all(map(same, count_values(values, mask), whole))


def test_a_histogram_that_was_cut_off_is_no_histogram() -> None:
    written = to_json(count_values(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), np.ones((3, 4), np.bool_)))
    with pytest.raises(ValueError, match="cut off"):
        from_json({**written, "sizes": [13]})


def test_no_pixels_have_no_quantiles() -> None:
    [histogram] = count_values(np.zeros((1, 2, 2), np.uint8), np.zeros((2, 2), np.bool_))
    with pytest.raises(ValueError, match="no pixels"):
        quantiles(histogram, np.dtype(np.uint8))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_median_and_spread_of_a_normal_band_are_its_mean_and_deviation_whatever_a_tenth_is(dtype: str) -> None:
    rng = np.random.default_rng(3)
    clean = rng.normal(3000, 200, (1, 200, 200))
    clouded = np.where(rng.random(clean.shape) < 0.1, 15000, clean).astype(dtype)
    [histogram] = count_values(clouded, everywhere(clouded))
    median, spread = robust_figures(quantiles(histogram, clouded.dtype))
    assert median == pytest.approx(3000, abs=40)
    assert spread == pytest.approx(200, rel=0.2)
    assert clouded.std() > 3000


def test_a_band_of_which_most_has_one_value_is_spread_by_what_has_not() -> None:
    levels = np.zeros((1, 100, 100), np.uint8)
    levels[0, :10] = 50  # the 5th and 95th percentile differ, the quartiles do not
    [histogram] = count_values(levels, everywhere(levels))
    median, spread = robust_figures(quantiles(histogram, levels.dtype))
    assert median == 0
    assert spread == pytest.approx(50 / 3.2897073)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_robust_normalisation_is_the_plain_formula(dtype: str) -> None:
    date = np.random.default_rng(5).gamma(4, 20, (3, 60, 50)).clip(0, 255).astype(dtype)
    levels = [quantiles(histogram, date.dtype) for histogram in count_values(date, everywhere(date))]
    moments = measure(date, everywhere(date), Window(0, 0, 60, 50))
    normalised = normalise_date(date, date_scaling(moments, RGB, (1.0, 0.0), ROBUST, levels))
    plain = date.astype(np.float64)
    low, median, high = np.quantile(plain, (0.25, 0.5, 0.75), axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(normalised, (plain - median) / ((high - low) / 1.3489795), atol=2e-2)
    flipped = date_scaling(moments, RGB, (-1e-4, 0.1), ROBUST, levels)
    np.testing.assert_allclose(normalise_date(date, flipped), -normalised, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_constant_date_becomes_zero_and_a_nearly_constant_one_is_divided_by_its_deviation(dtype: str) -> None:
    flat = np.full((3, 40, 40), 513).astype(dtype)
    dotted = flat.copy()
    dotted[:, 0, 0] = 1000
    for date, largest in ((flat, 0.0), (dotted, (1000 - 513) / dotted[0].astype(np.float64).std())):
        levels = [quantiles(histogram, date.dtype) for histogram in count_values(date, everywhere(date))]
        moments = measure(date, everywhere(date), Window(0, 0, 40, 40))
        normalised = normalise_date(date, date_scaling(moments, RGB, (1.0, 0.0), ROBUST, levels))
        np.testing.assert_allclose(normalised[:, 1:], 0, atol=0.02)
        assert normalised.max() == pytest.approx(largest, rel=1e-2)


@pytest.mark.parametrize("wrong", [{"kind": "difference"}, {"together": True}])
def test_greys_and_bands_together_have_no_quantiles(wrong: dict[str, Any]) -> None:
    recipe = Recipe(
        **{"kind": "stacked", "roles": RGB, "statistics": "common", "together": False, **wrong, "method": "robust"}
    )
    date = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    moments = measure(date, everywhere(date), Window(0, 0, 4, 4))
    with pytest.raises(ValueError, match="each band"):
        date_scaling(moments, RGB, (1.0, 0.0), recipe, [(0.0,) * 7] * 3)


def test_a_stored_pair_is_normalised_by_the_pixels_that_its_recipe_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    dates = (rng.integers(0, 900, (3, 40, 50), np.uint16), rng.integers(100, 1200, (3, 40, 50), np.uint16))
    valid = rng.integers(0, 4, (40, 50), np.uint8)
    item = store_pair(Workspace(here(tmp_path)), "p", dates, valid=valid)
    pair = load_pair(Workspace(here(tmp_path)), "p", item.pair.key)
    assert pair == item.pair
    assert pair is not None
    for statistics, masks in (("common", (valid == 3, valid == 3)), ("per_date", (valid & 1 > 0, valid & 2 > 0))):
        scalings = pair.scalings(Recipe("stacked", RGB, statistics, together=False, method="robust"))
        for date, mask, scaling in zip(dates, masks, scalings, strict=True):
            low, median, high = np.quantile(date[:, mask].astype(np.float64), (0.25, 0.5, 0.75), axis=1)
            gains, biases = np.array(scaling.each).T
            np.testing.assert_allclose(gains, 1.3489795 / (high - low), rtol=1e-9)
            np.testing.assert_allclose(-biases / gains, median, rtol=1e-9)
