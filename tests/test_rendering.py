"""Colours of pixels: stretch, classes, hatching."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from cdpipe.formats import palette
from cdpipe.report import drawing

EVERYWHERE = np.ones((100, 100), np.bool_)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_each_band_is_stretched_between_its_percentiles(dtype: DTypeLike) -> None:
    """Two bands of different ranges come out alike; the outer 2 % are clipped."""
    ramp = np.linspace(0, 100, 10_000).reshape(100, 100)
    bands: NDArray[Any] = np.stack([ramp, ramp + 20, ramp * 0.5]).astype(dtype)
    image = drawing.stretch_bands(bands, EVERYWHERE)
    assert image.shape == (100, 100, 3)
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[-1, -1].tolist() == [255, 255, 255]
    np.testing.assert_allclose(image[50, 0], 128, atol=4)


def test_stretch_ignores_what_was_not_observed() -> None:
    """A gap full of zeros does not darken the picture."""
    bands = np.random.default_rng(0).integers(1000, 2000, (3, 100, 100), np.uint16)
    observed = EVERYWHERE.copy()
    observed[:60] = False
    gap = bands.copy()
    gap[:, :60] = 0
    expected = drawing.stretch_bands(bands[:, 60:], observed[60:])
    np.testing.assert_array_equal(drawing.stretch_bands(gap, observed)[60:], expected)


@pytest.mark.parametrize("value", [0, 7, np.nan])
@pytest.mark.parametrize("observed", [True, False])
def test_flat_or_unseen_imagery_is_grey(value: float, observed: bool) -> None:
    """Nothing to stretch is no reason to fail."""
    bands = np.full((3, 4, 5), value, np.float32)
    assert np.unique(drawing.stretch_bands(bands, np.full((4, 5), observed))).tolist() == [128]


def test_one_band_becomes_grey() -> None:
    """Panchromatic scenes have one band."""
    image = drawing.stretch_bands(np.arange(10_000).reshape(1, 100, 100), EVERYWHERE)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_comparison_with_the_label() -> None:
    """Every combination of change (rows 0, 1, 255) and label (columns 0, 1, 255)."""
    values = np.array([0, 1, 255], np.uint8)
    change, label = np.meshgrid(values, values, indexing="ij")
    assert drawing.compare_with_label(change, label).tolist() == [[0, 2, 0], [3, 1, 4], [255, 255, 255]]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 200), st.integers(1, 200))
def test_resizing_picks_pixels_in_order(height: int, width: int, new_height: int, new_width: int) -> None:
    """Every value is an original one, in order, from first to (within one step) last."""
    array = np.arange(height * width).reshape(height, width)
    resized = drawing.resize_nearest(array, (new_height, new_width))
    assert resized.shape == (new_height, new_width)
    rows, cols = resized[:, 0] // width, resized[0] % width
    np.testing.assert_array_equal(resized, array[np.ix_(rows, cols)])
    for picked, old, new in ((rows, height, new_height), (cols, width, new_width)):
        assert picked[0] == 0
        assert (np.diff(picked) >= 0).all()
        assert picked[-1] >= old - 1 - old / new


def test_enlarging_by_a_whole_number_repeats_pixels() -> None:
    """No pixel is wider than its neighbour."""
    array = np.random.default_rng(0).integers(0, 255, (5, 7, 3))
    expected: NDArray[Any] = array.repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(drawing.resize_nearest(array, (20, 28)), expected)


def test_hatching_covers_the_gap_and_nothing_else() -> None:
    """Both greys of the stripes are there, in the gap alone."""
    image = np.full((40, 40, 3), 9, np.uint8)
    missing = np.zeros((40, 40), np.bool_)
    missing[10:30] = True
    hatched = drawing.hatch(image, missing)
    assert (hatched[~missing] == 9).all()
    assert {tuple(color) for color in hatched[missing]} == {palette.NO_DATA, palette.NO_DATA_STRIPE}
    assert (image == 9).all()


def test_probability_darkens_evenly() -> None:
    """Zero is bright, one is dark, and no step between them gets brighter."""
    colors = drawing.probability_colors(np.linspace(0, 1, 256, dtype=np.float32))
    brightness = colors @ np.array([0.299, 0.587, 0.114])
    assert brightness[0] > 240
    assert brightness[-1] < 5
    assert (np.diff(brightness) < 1).all()


def simulated_lab(color: palette.Rgb, deficiency: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) of a colour as seen with a colour vision deficiency."""
    encoded = np.array(color) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(deficiency @ linear, 0, 1) / (to_xyz @ np.ones(3))
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


# Machado, Oliveira and Fernandes (2009), severity 1.0, in linear RGB.
DEFICIENCIES = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("name", DEFICIENCIES)
def test_outcomes_are_told_apart_with_any_colour_vision(name: str) -> None:
    """Hits, misses, false alarms and unlabelled change differ by far more than the visible 2.3."""
    matrix = np.array(DEFICIENCIES[name])
    colors = [*drawing.OUTCOME_COLORS.values(), (205, 205, 205), (250, 250, 250)]
    labs = [simulated_lab(color, matrix) for color in colors]
    distances = [
        np.linalg.norm(labs[first] - labs[second])
        for first in range(len(drawing.OUTCOME_COLORS))
        for second in range(first + 1, len(colors))
    ]
    assert min(distances) >= 40
