"""Views of patches and their average."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cdpipe.inference.views import d4_mean, d4_views


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_views_come_patch_by_patch_in_the_documented_order() -> None:
    x = torch.arange(2 * 2 * 9).reshape(2, 2, 3, 3)
    views = d4_views(x)
    assert views.shape == (16, 2, 3, 3)
    for patch in range(2):
        for band in range(2):
            plain = x[patch, band].numpy()
            expected = [np.rot90(p, turns) for p in (plain, np.fliplr(plain)) for turns in range(4)]
            assert np.array_equal(views[8 * patch : 8 * patch + 8, band].numpy(), expected)


def test_the_eight_views_differ() -> None:
    views = d4_views(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert len(torch.unique(views, dim=0)) == 8


@given(
    seed=st.integers(0, 2**32 - 1),
    patches=st.integers(0, 3),
    channels=st.integers(1, 3),
    size=st.integers(1, 7),
)
def test_turning_views_back_gives_the_patch(seed: int, patches: int, channels: int, size: int) -> None:
    # Integers, so that summing eight equal values is exact.
    x = (100 * normal(seed, patches, channels, size, size)).round()
    assert torch.equal(d4_mean(d4_views(x)), x)


@given(seed=st.integers(0, 2**32 - 1), view=st.integers(0, 7), size=st.integers(1, 6))
def test_each_view_is_undone_by_itself(seed: int, view: int, size: int) -> None:
    x = normal(seed, 2, 1, size, size)
    views = d4_views(x).reshape(2, 8, 1, size, size)
    alone = torch.zeros_like(views)
    alone[:, view] = views[:, view]
    assert torch.equal(d4_mean(alone.flatten(0, 1)), x / 8)


@given(seed=st.integers(0, 2**32 - 1))
def test_mean_of_an_operation_that_turns_along_is_the_operation(seed: int) -> None:
    kernel = torch.tensor([[1.0, 2, 1], [2, 5, 2], [1, 2, 1]]).reshape(1, 1, 3, 3) / 17
    x = normal(seed, 2, 1, 8, 8)
    convolved = functional.conv2d(x, kernel, padding=1).tanh()
    torch.testing.assert_close(d4_mean(functional.conv2d(d4_views(x), kernel, padding=1).tanh()), convolved)


def test_mean_of_an_operation_with_a_direction_turns_along() -> None:
    kernel = normal(3, 1, 1, 3, 3)

    def averaged(x: Tensor) -> Tensor:
        return d4_mean(functional.conv2d(d4_views(x), kernel, padding=1).tanh())

    x = normal(4, 1, 1, 8, 8)
    torch.testing.assert_close(averaged(x.rot90(1, (2, 3))), averaged(x).rot90(1, (2, 3)))
    torch.testing.assert_close(averaged(x.flip(3)), averaged(x).flip(3))


@given(seed=st.integers(0, 2**32 - 1), patches=st.integers(1, 5))
def test_a_patch_gets_the_same_bits_in_any_company(seed: int, patches: int) -> None:
    y = normal(seed, 8 * patches, 1, 5, 5)
    together = d4_mean(y)
    alone = [d4_mean(y[8 * n : 8 * n + 8]) for n in range(patches)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together, d4_mean(y.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize(("given_type", "result"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_mean_is_taken_in_float32_or_wider(given_type: torch.dtype, result: torch.dtype) -> None:
    y = torch.rand(8, 1, 4, 4).to(given_type)
    mean = d4_mean(y)
    assert mean.dtype == result
    assert torch.equal(mean, d4_mean(y.to(result)))


@pytest.mark.parametrize("shape", [(1, 1, 4, 5), (1, 4, 4)])
def test_only_batches_of_squares_have_eight_views(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square patches"):
        d4_views(torch.zeros(shape))


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 7))
def test_numpys_arrays_are_treated_as_torchs(seed: int, size: int) -> None:
    x = normal(seed, 2, 3, size, size)
    assert np.array_equal(d4_views(x.numpy()), d4_views(x).numpy())
    y = normal(seed, 16, 1, size, size)
    mean = d4_mean(y.numpy())
    assert mean.dtype == np.float32
    assert mean.tobytes() == d4_mean(y).numpy().tobytes()


def test_mean_needs_all_eight_views() -> None:
    with pytest.raises(ValueError, match="eight views of each patch, got 12"):
        d4_mean(torch.zeros(12, 1, 4, 4))
