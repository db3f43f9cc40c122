"""Augmentation: geometry alike for both dates and the label, looks of each date by itself, all of it by seeds."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import albumentations
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.config.augment import check_transform
from cdpipe.errors import ConfigError
from cdpipe.training.augment import Pipeline, Sample, augment, augment_sample, check_augmentation, make_augmentation

SIDE = 6


def sample(channels: int = 6, side: int = SIDE) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A scene whose pixels all differ, and the label that goes with its first channel."""
    scene = np.arange(channels * side * side, dtype=np.float32).reshape(channels, side, side)
    return scene, scene[0].astype(np.uint8)


def symmetries(values: NDArray[Any]) -> list[NDArray[Any]]:
    """The eight images of (..., side, side) under the symmetries of the square."""
    return [np.rot90(v, turns, (-2, -1)) for v in (values, values[..., ::-1]) for turns in range(4)]


def which(values: NDArray[Any], turned: NDArray[Any]) -> list[int]:
    return [index for index, image in enumerate(symmetries(values)) if np.array_equal(image, turned)]


def test_the_eight_symmetries_occur_about_equally_often() -> None:
    scene, label = sample()
    seen = Counter(which(scene, augment_sample(scene, label, seed)[0])[0] for seed in range(400))
    assert sorted(seen) == list(range(8))
    assert min(seen.values()) > 25  # of 50 expected; the seeds are fixed


@given(seed=st.integers(0, 2**31 - 1), channels=st.sampled_from([1, 3, 6, 8]), side=st.sampled_from([1, 5, 6]))
def test_label_and_every_channel_turn_alike(seed: int, channels: int, side: int) -> None:
    scene, label = sample(channels, side)
    turned, turned_label = augment_sample(scene, label, seed)
    for result, original in ((turned, scene), (turned_label, label)):
        assert result.shape == original.shape
        assert result.dtype == original.dtype
        assert result.flags.c_contiguous
    (symmetry,) = which(scene, turned) if side > 1 else [0]
    np.testing.assert_array_equal(turned_label, symmetries(label)[symmetry])


def test_no_value_is_changed() -> None:
    rng = np.random.default_rng(1)
    scene = rng.normal(0, 1000, (2, SIDE, SIDE)).astype(np.float32)
    label = rng.choice(np.array([0, 1, 255], np.uint8), (SIDE, SIDE))
    for seed in range(8):
        turned, turned_label = augment_sample(scene, label, seed)
        assert np.array_equal(np.sort(turned, axis=None), np.sort(scene, axis=None))
        assert np.array_equal(np.sort(turned_label, axis=None), np.sort(label, axis=None))


def test_the_sample_itself_stays_as_it_is() -> None:
    scene, label = sample()
    for seed in range(60):
        turned, turned_label = augment_sample(scene, label, seed)
        turned[:], turned_label[:] = -1, 77
    assert np.array_equal(scene, sample()[0])
    assert np.array_equal(label, sample()[1])


def test_a_seed_always_turns_alike_in_any_thread_and_whatever_came_before() -> None:
    scene, label = sample()

    def turned(seed: int) -> bytes:
        return augment_sample(scene, label, seed)[0].tobytes()

    seeds = list(range(60))
    first = [turned(seed) for seed in seeds]
    np.random.default_rng().random()
    assert [turned(seed) for seed in reversed(seeds)] == first[::-1]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(turned, seeds)) == first


def test_transforms_follow_each_other_and_labels_keep_their_classes() -> None:
    pipeline = Pipeline([albumentations.D4(p=1.0), albumentations.Rotate(limit=(30, 30), p=1.0)])
    scene, label = sample(6, 32)
    label = np.where(label % 3 == 0, np.uint8(255), label % 3).astype(np.uint8)
    turned, turned_label = augment_sample(scene, label, 5, pipeline)
    assert turned.shape == scene.shape
    assert set(np.unique(turned_label)) <= {0, 1, 2, 255}
    assert not any(np.array_equal(turned_label, image) for image in symmetries(label))


def normal_sample(seed: int = 0, bands: int = 4, side: int = 32) -> Sample:
    """Random dates, a label of all classes, and a corner that was not observed."""
    rng = np.random.default_rng(seed)
    observed = np.ones((side, side), np.bool_)
    observed[:5, :7] = False
    before, after = (np.where(observed, rng.normal(size=(bands, side, side)), 0).astype(np.float32) for _ in range(2))
    label = np.where(observed, rng.choice(np.array([0, 1, 255], np.uint8), observed.shape), 255).astype(np.uint8)
    shown = np.where(observed, rng.uniform(-1, 1, (1, side, side)), 0).astype(np.float32)
    return Sample(before, after, label, observed, shown)


def parts(made: Sample) -> list[bytes]:
    return [array.tobytes() for array in (made.before, made.after, made.label, made.observed, made.shown)]


def apply(transforms: list[Any], seeds: tuple[int, int, int] = (1, 2, 3), given: Sample | None = None) -> Sample:
    made = make_augmentation([check_transform(each) for each in transforms])
    return augment(made, given or normal_sample(), seeds, lambda number: normal_sample(100 + number))


EVERYTHING = [
    {"Paste": {"p": 1}},
    {"BandJitter": {}},
    {"GaussNoise": {"p": 1}},
    {"RandomBrightnessContrast": {"p": 1}},
    {"BandNoise": {"p": 1}},
    {"Haze": {"p": 1}},
    {"ShiftDate": {"p": 1}},
    {"SwapDates": {"p": 0.5}},
    {"Affine": {"p": 1, "scale": [0.8, 1.2]}},
    "D4",
]
LOOKS = [
    "BandJitter",
    {"BandNoise": {"p": 1}},
    {"Haze": {"p": 1}},
    {"GaussNoise": {"p": 1}},
    {"GaussianBlur": {"p": 1}},
]


def test_whatever_happens_is_determined_by_the_seeds_in_any_thread() -> None:
    whole = make_augmentation([check_transform(each) for each in EVERYTHING])

    def made(seed: int) -> list[bytes]:
        return parts(augment(whole, normal_sample(), (seed, seed + 1, seed + 2), lambda n: normal_sample(100 + n)))

    seeds = list(range(24))
    first = [made(seed) for seed in seeds]
    assert len({b"".join(each) for each in first}) == len(seeds)
    np.random.default_rng().random()
    assert [made(seed) for seed in reversed(seeds)] == first[::-1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made, seeds)) == first


def test_augmentation_leaves_what_it_was_given_as_it_is() -> None:
    given = normal_sample()
    apply(EVERYTHING, given=given)
    assert parts(given) == parts(normal_sample())


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_each_date_changes_its_looks_by_itself(look: Any) -> None:
    """A date's seed decides what happens to it, and nothing else; neither pixels nor labels move."""
    given = normal_sample()
    one, other = apply([look], (1, 2, 3)), apply([look], (9, 2, 4))
    assert np.array_equal(one.before, other.before)
    assert not np.array_equal(one.after, other.after)
    assert not np.array_equal(one.before, given.before)
    assert np.array_equal(one.label, given.label)
    same = replace(given, after=given.before)
    alike, apart = apply([look], (1, 5, 5), same), apply([look], (1, 5, 6), same)
    assert np.array_equal(alike.before, alike.after)
    assert not np.array_equal(apart.before, apart.after)
    for made in (one, other, alike, apart):
        assert made.before.dtype == made.after.dtype == np.float32
        assert not made.before[:, ~given.observed].any()
        assert not made.after[:, ~given.observed].any()


def test_jitter_is_a_gain_and_an_offset_for_each_band_of_the_size_that_was_asked_for() -> None:
    jitter = {"BandJitter": {"gain": 0.2, "band_gain": 0, "offset": 0, "band_offset": 0.3}}
    gains, offsets = [], []
    for seed in range(300):
        given = normal_sample(bands=2, side=8)
        made = apply([jitter], (0, seed, 1), given)
        bands = zip(given.before, made.before, strict=True)
        line = [np.polyfit(was[given.observed], now[given.observed], 1) for was, now in bands]
        np.testing.assert_allclose(
            made.before[:, given.observed],
            [gain * band[given.observed] + offset for band, (gain, offset) in zip(given.before, line, strict=True)],
            atol=1e-5,
        )
        gains.append([gain for gain, _ in line])
        offsets.append([offset for _, offset in line])
    np.testing.assert_allclose(np.ptp(gains, axis=1), 0, atol=1e-5)  # all bands alike
    assert np.std(gains) == pytest.approx(0.2, rel=0.15)
    assert np.std(offsets, axis=0) == pytest.approx([0.3, 0.3], rel=0.15)
    assert abs(np.corrcoef(np.transpose(offsets))[0, 1]) < 0.2


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    given = normal_sample(side=64)
    made = apply([{"BandNoise": {"p": 1, "sd": 0.25}}], given=given)
    assert (made.before - given.before)[:, given.observed].std() == pytest.approx(0.25, rel=0.03)


def test_haze_draws_towards_a_bright_grey_by_no_more_than_its_strength() -> None:
    given = normal_sample(side=64)
    made = apply([{"Haze": {"p": 1, "strength": [0.4, 0.4]}}], given=given)
    seen = given.observed
    share = ((made.before - given.before) / (2 - given.before))[:, seen]
    assert share.min() >= -1e-4
    assert share.max() <= 0.4 + 1e-4
    assert np.ptp(share, axis=0).max() < 1e-3  # all bands alike
    assert share.std() > 0.03


def test_the_second_date_is_shifted_under_the_label() -> None:
    moved: Counter[tuple[int, int]] = Counter()
    for seed in range(60):
        given = normal_sample()
        made = apply([{"ShiftDate": {"p": 1, "pixels": 2}}], (seed, 1, 2), given)
        steps = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(
                made.after[:, made.observed], np.roll(given.after, (down, right), (1, 2))[:, made.observed]
            )
        ]
        assert len(steps) == 1
        moved.update(steps)
        kept = made.observed
        assert np.array_equal(made.before[:, kept], given.before[:, kept])
        assert np.array_equal(made.label[kept], given.label[kept])
        assert (made.label[~kept] == 255).all()
        assert not made.after[:, ~kept].any()
        down, right = steps[0]
        inside = np.zeros_like(kept)
        inside[max(down, 0) : 32 + min(down, 0), max(right, 0) : 32 + min(right, 0)] = True
        assert np.array_equal(kept, given.observed & np.roll(given.observed, steps[0], (0, 1)) & inside)
    assert len(moved) > 15


def test_dates_are_swapped_with_the_chance_that_was_asked_for() -> None:
    given = normal_sample()
    swapped = [
        np.array_equal(apply([{"SwapDates": {"p": 0.3}}], (seed, 1, 2)).before, given.after) for seed in range(300)
    ]
    assert 60 < sum(swapped) < 120
    assert parts(apply([{"SwapDates": {"p": 1}}])) == [*parts(given)[1::-1], *parts(given)[2:]]


def test_a_rectangle_of_another_sample_comes_with_both_its_dates_and_its_label() -> None:
    given, other = normal_sample(), normal_sample(100)
    places = set()
    for seed in range(40):
        made = apply([{"Paste": {"p": 1, "side": [0.25, 0.5]}}], (seed, 1, 2))
        pasted = (made.before != given.before).any(axis=0)
        rows, cols = (np.flatnonzero(pasted.any(axis=axis)) for axis in (1, 0))
        inside = np.zeros_like(pasted)
        inside[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] = True
        assert 8 <= rows[-1] - rows[0] + 1 <= 16
        assert 8 <= cols[-1] - cols[0] + 1 <= 16
        for name in ("before", "after", "label", "observed"):
            was, new, now = (getattr(sample, name) for sample in (given, other, made))
            assert np.array_equal(now, np.where(inside, new, was)), name
        places.add((rows[0], cols[0]))
    assert len(places) > 20


def test_geometric_transforms_move_both_dates_and_the_label_alike() -> None:
    """Each band of both dates and the label hold the same picture, which must stay the same."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 2, (32, 32)).astype(np.uint8)
    band = np.repeat(picture[None].astype(np.float32), 4, axis=0)
    given = Sample(band, band.copy(), picture, np.ones((32, 32), np.bool_), band[:1].copy())
    steps = [
        "D4",
        {"Affine": {"p": 1, "scale": [0.7, 1.3], "interpolation": 0}},
        {"ElasticTransform": {"interpolation": 0}},
    ]
    for seed in range(10):
        made = apply(steps, (seed, 1, 2), given)
        counted = made.label != 255
        for bands in (made.before, made.after, made.shown):
            assert np.array_equal(bands[:, counted], np.repeat(made.label[None, counted], len(bands), axis=0))
        assert np.array_equal(made.observed, counted)


def test_what_a_transform_leaves_empty_does_not_count() -> None:
    given = normal_sample()
    made = apply([{"Affine": {"p": 1, "scale": [0.5, 0.5]}}], given=given)
    assert (made.label[0] == 255).all()
    assert not made.before[:, 0].any()


def test_albumentations_sees_deviations_as_a_range_from_0_to_1_and_loses_nothing_beyond() -> None:
    given = normal_sample()
    far = replace(given, before=np.where(given.observed, given.before * 9, 0).astype(np.float32))
    made = apply(
        [{"RandomBrightnessContrast": {"p": 1, "brightness_limit": [0.05, 0.05], "contrast_limit": [0, 0]}}], given=far
    )
    inside = np.abs(far.before) < 3.5
    step = (made.before - far.before)[inside & given.observed]
    np.testing.assert_allclose(step, 0.4, atol=1e-4)  # 0.05 of 8 deviations
    assert made.before.max() > 20


def test_a_transform_that_takes_no_such_bands_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"train.augment.1: ToGray does not take dates of 4 band"):
        check_augmentation([check_transform(each) for each in ("D4", "ToGray")], 4, 32)
    check_augmentation([check_transform(each) for each in ("D4", "ToGray")], 3, 32)


def test_a_list_that_changes_the_size_of_samples_is_refused() -> None:
    scale = {"RandomScale": {"p": 0.5, "scale_limit": [-0.3, 0.3]}}
    with pytest.raises(ConfigError, match=r"train.augment: makes samples of .* pixels out of 32 × 32"):
        check_augmentation([check_transform(scale)], 4, 32)
    back = [{"PadIfNeeded": {"min_height": 32, "min_width": 32}}, {"RandomCrop": {"height": 32, "width": 32}}]
    check_augmentation([check_transform(each) for each in (scale, *back)], 4, 32)
    check_augmentation([check_transform(each) for each in EVERYTHING], 1, 32)
