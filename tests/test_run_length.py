"""Run-length masks: what is encoded is decoded, whatever the strips and windows, and is what the format says."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from cdpipe.formats.submission import decode_window, encode_strips, format_runs, parse_runs
from cdpipe.geo.grid import Window

Mask = NDArray[np.bool_]

shapes = npst.array_shapes(min_dims=2, max_dims=2, max_side=12)
# rows that repeat make runs go on from column to column
masks = st.one_of(
    npst.arrays(np.bool_, shapes), npst.arrays(np.bool_, shapes, elements=st.sampled_from([True] * 5 + [False]))
)


def strips(mask: Mask, width: int) -> Iterator[Mask]:
    return (mask[:, col : col + width] for col in range(0, mask.shape[1], width))


def plain_text(mask: Mask) -> str:
    """The format, pixel by pixel: columns one after the other, numbered from 1."""
    words: list[int] = []
    last = False
    for number, changed in enumerate(mask.T.flatten().tolist(), 1):
        if changed and not last:
            words += [number, 0]
        if changed:
            words[-1] += 1
        last = changed
    return " ".join(map(str, words))


@given(masks, st.integers(1, 13))
def test_text_is_that_of_the_whole_mask_for_any_strips(mask: Mask, width: int) -> None:
    assert format_runs(encode_strips(strips(mask, width))) == plain_text(mask)


@given(masks, st.integers(1, 13), st.data())
def test_any_window_is_decoded_from_text(mask: Mask, width: int, data: st.DataObject) -> None:
    height, columns = mask.shape
    runs = parse_runs(format_runs(encode_strips(strips(mask, width))), mask.shape)
    np.testing.assert_array_equal(decode_window(runs, height, Window(0, 0, *mask.shape)), mask)
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, columns - 1))
    shape = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, columns - col))
    window = Window(row, col, *shape)
    found = decode_window(runs, height, window)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, mask[window.slices])


def test_the_example_of_the_format() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1]], np.bool_)
    assert format_runs(encode_strips([mask])) == "5 3 10 3"
    assert format_runs(encode_strips(strips(mask, 1))) == "5 3 10 3"
    assert format_runs(encode_strips([np.zeros((3, 4), np.bool_)])) == ""
    assert format_runs(encode_strips(strips(np.ones((3, 4), np.bool_), 1))) == "1 12"


def test_a_window_of_a_scene_larger_than_memory() -> None:
    """400 billion pixels, a run that crosses columns and one that fills many."""
    height, width = 200_000, 2_000_000
    first, last = 1_000_000 * height + 199_990, 1_500_000 * height + 10
    runs = parse_runs(f"3 2 {first + 1} {last - first}", (height, width))
    np.testing.assert_array_equal(decode_window(runs, height, Window(0, 0, 5, 2))[:, 0], [0, 0, 1, 1, 0])
    foot = decode_window(runs, height, Window(199_980, 999_999, 20, 3))
    expected = np.zeros((20, 3), np.bool_)
    expected[10:, 1] = expected[:, 2] = True
    np.testing.assert_array_equal(foot, expected)
    assert decode_window(runs, height, Window(70_000, 1_200_000, 300, 300)).all()
    np.testing.assert_array_equal(decode_window(runs, height, Window(0, 1_500_000, 20, 2)).sum(axis=0), [10, 0])


def test_runs_that_touch_are_read_as_they_are() -> None:
    mask = decode_window(parse_runs(" 2 2  4 1\n", (3, 2)), 3, Window(0, 0, 3, 2))
    np.testing.assert_array_equal(mask, [[0, 1], [1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2 7", "run 2: expected a start and a length, got 7 alone"),
        ("1 2 x 4", "run 2: expected a whole number of up to 18 digits, got 'x'"),
        ("1 -2", "run 1: expected a whole number of up to 18 digits, got '-2'"),
        ("1.0 2", "run 1: expected a whole number"),
        ("1 1_0", "run 1: expected a whole number"),
        ("\u0661 2", "run 1: expected a whole number"),
        ("1 " + "9" * 5000, "run 1: expected a whole number"),
        ("0 2", "run 1: expected a start and a length of at least 1, got 0 2"),
        ("1 2 5 0", "run 2: expected a start and a length of at least 1, got 5 0"),
        ("1 4 4 2", "run 2: expected ascending runs that do not overlap, got 4 2"),
        ("1 1 9 1 3 1", "run 3: expected ascending runs that do not overlap, got 3 1"),
        ("1 1 11 3", "run 2: expected runs within 3 x 4 pixels, got 11 3"),
        ("13 1", "run 1: expected runs within 3 x 4 pixels, got 13 1"),
        ("999999999999999999 999999999999999999", "run 1: expected runs within 3 x 4 pixels"),
    ],
)
def test_a_run_that_cannot_be_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^run") as raised:
        parse_runs(text, (3, 4))
    assert str(raised.value).startswith(says)


def test_what_needs_no_size_is_checked_without() -> None:
    assert parse_runs("11 3").tolist() == [[11, 3]]
    with pytest.raises(ValueError, match="run 2"):
        parse_runs("1 4 4 2")


def test_strips_and_windows_of_other_heights_are_refused() -> None:
    with pytest.raises(ValueError, match="strips of 3 rows, got one of 2"):
        encode_strips([np.ones((3, 1), np.bool_), np.ones((2, 1), np.bool_)])
    with pytest.raises(ValueError, match="mask of 3 rows"):
        decode_window(parse_runs("1 2"), 3, Window(2, 0, 2, 1))
