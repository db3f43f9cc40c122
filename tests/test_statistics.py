"""Statistics: exact where the pixels are whole numbers, and the same however they are gathered."""

import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CHUNK, tiles_in
from cdpipe.store.statistics import Moments, measure, no_pixels

NARROW = ["uint8", "int8", "uint16", "int16"]
SEEDS = st.integers(0, 2**32 - 1)


def pixels(seed: int, dtype: str, shape: tuple[int, int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values over the whole range of an integer type, normally distributed for others, and a mask."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = rng.normal(300, 70, shape).astype(kind)
    else:
        limits = np.iinfo(kind)
        values = rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    return values, rng.random(shape[1:]) < rng.random()


def brute_force(values: NDArray[Any], mask: NDArray[np.bool_]) -> Moments:
    """Sums in Python's own numbers, pixel by pixel."""
    chosen = [[Fraction(value) for value in band[mask].tolist()] for band in values]
    return Moments(
        int(mask.sum()),
        tuple(sum(band, Fraction()) for band in chosen),
        tuple(
            tuple(sum((a * b for a, b in zip(one, two, strict=True)), Fraction()) for two in chosen) for one in chosen
        ),
    )


@given(
    seed=SEEDS,
    dtype=st.sampled_from(NARROW),
    bands=st.integers(1, 3),
    window=st.builds(Window, st.integers(0, 600), st.integers(0, 600), st.integers(1, 25), st.integers(1, 25)),
)
def test_moments_of_narrow_integers_are_exact(seed: int, dtype: str, bands: int, window: Window) -> None:
    values, mask = pixels(seed, dtype, (bands, *window.shape))
    assert measure(values, mask, window) == brute_force(values, mask)


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 65535), ("int16", -32768), ("uint8", 255)])
def test_cells_full_of_the_largest_values_are_exact(dtype: str, value: int) -> None:
    side = 2 * CHUNK
    values = np.full((2, side, side), value, dtype)
    values[1] //= 3
    number, other = side * side, value // 3
    assert measure(values, np.ones((side, side), np.bool_), Window(0, 0, side, side)) == Moments(
        number,
        (Fraction(number * value), Fraction(number * other)),
        (
            (Fraction(number * value**2), Fraction(number * value * other)),
            (Fraction(number * value * other), Fraction(number * other**2)),
        ),
    )


@given(seed=SEEDS, dtype=st.sampled_from(["float32", "float64", "int32", "uint32"]))
def test_moments_of_wide_types_are_rounded_to_the_last_digits_only(seed: int, dtype: str) -> None:
    values, mask = pixels(seed, dtype, (2, 20, 20))
    found, true = measure(values, mask, Window(250, 0, 20, 20)), brute_force(values, mask)
    size = brute_force(abs(values.astype(np.float64)), mask)
    assert found.count == true.count
    for got, expected, scale in zip(found.sums, true.sums, size.sums, strict=True):
        assert abs(got - expected) <= scale / 2**48
    for got, expected, scale in zip(found.products[0], true.products[0], size.products[0], strict=True):
        assert abs(got - expected) <= scale / 2**48


@settings(max_examples=25)
@given(
    seed=SEEDS,
    dtype=st.sampled_from([*NARROW, "int32", "float32", "float64"]),
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    block=st.sampled_from([256, 512, 768]),
)
def test_any_blocks_in_any_grouping_give_equal_moments(
    seed: int, dtype: str, height: int, width: int, block: int
) -> None:
    values, mask = pixels(seed, dtype, (2, height, width))
    rng = np.random.default_rng(seed)
    scene = Window(0, 0, height, width)
    parts = [measure(values[:, *w.slices], mask[w.slices], w) for w in tiles_in(scene, block)]
    while len(parts) > 1:
        first, second = (parts.pop(int(rng.integers(len(parts)))) for _ in range(2))
        parts.insert(int(rng.integers(len(parts) + 1)), first + second)
    assert parts[0] == measure(values, mask, scene)


@given(seed=SEEDS, cut=st.integers(1, 39), dtype=st.sampled_from(NARROW))
def test_integers_may_be_cut_anywhere(seed: int, cut: int, dtype: str) -> None:
    values, mask = pixels(seed, dtype, (2, 40, 30))
    parts = [Window(0, 0, cut, 30), Window(cut, 0, 40 - cut, 30)]
    above, below = (measure(values[:, *part.slices], mask[part.slices], part) for part in parts)
    assert below + above == measure(values, mask, Window(0, 0, 40, 30))


LAYOUTS: list[Callable[[NDArray[Any]], NDArray[Any]]] = [
    np.asfortranarray,
    lambda v: np.ascontiguousarray(v.transpose(1, 2, 0)).transpose(2, 0, 1),
    lambda v: np.repeat(v, 2, axis=2)[:, :, ::2],
    lambda v: v[:, ::-1].copy()[:, ::-1],
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["fortran", "pixel-interleaved", "strided", "upside-down"])
def test_the_order_in_memory_does_not_matter(layout: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    values, _ = pixels(7, "float32", (3, 300, 270))
    mask = np.random.default_rng(8).random((300, 270)) < 0.7
    window = Window(512, 256, 300, 270)
    assert measure(layout(values), np.asfortranarray(mask), window) == measure(values, mask, window)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38])
def test_masked_pixels_do_not_count_whatever_they_hold(garbage: float) -> None:
    values, _ = pixels(3, "float32", (3, 30, 30))
    mask = np.random.default_rng(4).random((30, 30)) < 0.5
    dirty = np.where(mask, values, np.float32(garbage))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure(dirty, mask, Window(0, 0, 30, 30)) == measure(values, mask, Window(0, 0, 30, 30))


def test_no_pixels_have_no_mean() -> None:
    nothing = measure(np.ones((2, 5, 5), np.uint8), np.zeros((5, 5), np.bool_), Window(0, 0, 5, 5))
    assert nothing == no_pixels(2)
    with pytest.raises(ValueError, match="no pixels"):
        nothing.combine([(0, 1.0)])
    with pytest.raises(ValueError, match="no pixels"):
        nothing.pool([0, 1])
    some = measure(np.ones((2, 5, 5), np.uint8), np.ones((5, 5), np.bool_), Window(0, 0, 5, 5))
    assert nothing + some == some


@given(seed=SEEDS, dtype=st.sampled_from([*NARROW, "float32", "float64"]))
def test_mean_and_deviation_are_those_of_numpy(seed: int, dtype: str) -> None:
    values, mask = pixels(seed, dtype, (4, 20, 20))
    mask[0, 0] = True
    moments = measure(values, mask, Window(0, 0, 20, 20))
    plain = values[:, mask].astype(np.float64)
    weights = [(2, 0.299), (0, 0.587), (3, 0.114)]
    grey = sum(weight * plain[band] for band, weight in weights)
    assert moments.combine(weights) == pytest.approx((np.mean(grey), np.std(grey)), rel=1e-6, abs=1e-6)
    assert moments.combine([(1, 1.0)]) == pytest.approx((plain[1].mean(), plain[1].std()), rel=1e-6, abs=1e-6)
    together = plain[[0, 2, 3]]
    assert moments.pool([0, 2, 3]) == pytest.approx((together.mean(), together.std()), rel=1e-6, abs=1e-6)


@given(
    value=st.floats(-1e6, 1e6, width=32),
    dtype=st.sampled_from(["float32", "float64", "uint16"]),
    side=st.integers(1, 300),
)
def test_a_constant_scene_has_no_deviation(value: float, dtype: str, side: int) -> None:
    # sums in floating point are rounded: their difference is not 0, and may be negative
    values = np.full((3, side, side), abs(int(value)) % 65536 if dtype == "uint16" else value / 3, dtype)
    values[2] = values[2] // 2
    moments = measure(values, np.ones((side, side), np.bool_), Window(0, 0, side, side))
    assert moments.combine([(0, 0.299), (1, 0.587), (2, 0.114)])[1] == 0
    for mean, deviation in (moments.combine([(0, 1.0)]), moments.pool([0, 1])):
        assert mean == pytest.approx(float(values[0, 0, 0]))
        assert deviation == 0


@given(seed=SEEDS, dtype=st.sampled_from(["uint16", "float64"]))
def test_moments_survive_json(seed: int, dtype: str) -> None:
    values, mask = pixels(seed, dtype, (2, 9, 9))
    moments = measure(values, mask, Window(0, 0, 9, 9))
    assert Moments.from_json(moments.to_json()) == moments
