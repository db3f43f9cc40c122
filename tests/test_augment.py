"""Augmentation: the eight symmetries of the square, alike for both dates and the label."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import albumentations
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.training.augment import Pipeline, augment_dates, augment_sample

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


def dates(bands: int = 4) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    before = np.arange(bands * SIDE * SIDE, dtype=np.uint16).reshape(bands, SIDE, SIDE)
    return before, before + np.uint16(1000)


def brighter() -> Pipeline:
    """A photometric transform that takes any numbers: a date's own random offset."""

    class Offset(albumentations.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
        def apply(self, img: NDArray[np.uint16], offset: int, **_: Any) -> NDArray[np.uint16]:
            return img + np.uint16(offset)

        def get_params(self) -> dict[str, Any]:
            return {"offset": self.py_random.randint(1, 1000)}

    return Pipeline([Offset(p=1.0)])


def test_each_date_is_changed_by_itself_and_its_pixels_stay_in_place() -> None:
    pipeline = brighter()
    before, after = augment_dates(dates(), (3, 4), pipeline)
    offsets = [date.astype(int) - was for date, was in zip((before, after), dates(), strict=True)]
    assert [np.ptp(offset) for offset in offsets] == [0, 0]
    assert offsets[0].flat[0] != offsets[1].flat[0]
    assert before.shape == dates()[0].shape
    assert before.dtype == np.uint16
    again = augment_dates(dates(), (4, 3), pipeline)
    assert np.array_equal(again[0] - dates()[0], offsets[1])
    assert np.array_equal(again[1] - dates()[1], offsets[0])


def test_dates_are_left_alone_without_transforms() -> None:
    before, after = augment_dates(dates(), (1, 2))
    assert np.array_equal(before, dates()[0])
    assert np.array_equal(after, dates()[1])


def test_transforms_follow_each_other_and_labels_keep_their_classes() -> None:
    pipeline = Pipeline([albumentations.D4(p=1.0), albumentations.Rotate(limit=(30, 30), p=1.0)])
    scene, label = sample(6, 32)
    label = np.where(label % 3 == 0, np.uint8(255), label % 3).astype(np.uint8)
    turned, turned_label = augment_sample(scene, label, 5, pipeline)
    assert turned.shape == scene.shape
    assert set(np.unique(turned_label)) <= {0, 1, 2, 255}
    assert not any(np.array_equal(turned_label, image) for image in symmetries(label))
