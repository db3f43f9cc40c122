"""The training loss against plain arithmetic on the pixels that count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cdpipe.training.loss import dice_bce

Batch = tuple[Tensor, Tensor, Tensor]


def batch(seed: int, *, changed: float = 0.3, ignored: float = 0.2, unobserved: float = 0.2) -> Batch:
    """Return random logits, label (0, 1, 255) and observed."""
    rng = np.random.default_rng(seed)
    shape = (2, 1, 5, 7)
    label = (rng.random(shape) < changed).astype("uint8")
    label[rng.random(shape) < ignored] = 255
    observed = rng.random(shape) >= unobserved
    logits = rng.normal(0, 3, shape)
    return torch.from_numpy(logits), torch.from_numpy(label), torch.from_numpy(observed)


def plain(logits: Tensor, label: Tensor, observed: Tensor, smooth: float = 1.0) -> float:
    """Return Dice + BCE computed pixel by pixel on the probabilities of kept pixels alone."""
    keep = (label != 255) & observed.bool()
    probability = 1 / (1 + np.exp(-logits[keep].numpy()))
    target = label[keep].numpy().astype(float)
    entropy = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))
    dice = 1 - (2 * (probability * target).sum() + smooth) / (probability.sum() + target.sum() + smooth)
    return float(dice + entropy.mean())


@given(seed=st.integers(0, 2**32 - 1), smooth=st.sampled_from([1e-6, 1.0, 10.0]))
def test_loss_is_that_of_the_kept_pixels(seed: int, smooth: float) -> None:
    logits, label, observed = batch(seed)
    assert dice_bce(logits, label, observed, smooth).item() == pytest.approx(plain(logits, label, observed, smooth))


def test_everything_counts_as_observed_by_default() -> None:
    logits, label, _ = batch(5)
    assert dice_bce(logits, label).item() == pytest.approx(plain(logits, label, torch.ones_like(label)))


@given(seed=st.integers(0, 2**32 - 1), garbage=st.sampled_from([1e30, -1e30, math.inf, math.nan]))
def test_ignored_pixels_move_neither_loss_nor_gradient(seed: int, garbage: float) -> None:
    logits, label, observed = batch(seed)
    ignored = (label == 255) | ~observed
    clean = logits.clone().requires_grad_()
    dirty = torch.where(ignored, garbage, logits).requires_grad_()
    losses = [dice_bce(x, label, observed.to(torch.uint8)) for x in (clean, dirty)]
    gradients = [torch.autograd.grad(loss, x)[0] for loss, x in zip(losses, (clean, dirty), strict=True)]
    assert losses[0] == losses[1]
    assert torch.equal(gradients[0], gradients[1])
    assert not gradients[1][ignored].any()
    assert gradients[1][~ignored].all()


@pytest.mark.parametrize(("ignored", "unobserved"), [(1.1, 0.0), (0.0, 1.1)])
def test_nothing_to_learn_from_is_a_zero_that_can_be_differentiated(ignored: float, unobserved: float) -> None:
    logits, label, observed = batch(1, ignored=ignored, unobserved=unobserved)
    logits.requires_grad_()
    loss = dice_bce(logits, label, observed)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_gradient_is_the_derivative() -> None:
    logits, label, observed = batch(2)
    assert torch.autograd.gradcheck(lambda x: dice_bce(x, label, observed), logits.requires_grad_())


@pytest.mark.parametrize("changed", [0.0, 1.1])
def test_sure_and_right_costs_nothing_and_sure_and_wrong_stays_finite(changed: float) -> None:
    _, label, observed = batch(3, changed=changed)
    right = torch.where(label == 1, 500.0, -500.0)
    assert dice_bce(right, label, observed).item() == pytest.approx(0, abs=1e-6)
    logits = (-right).requires_grad_()
    wrong = dice_bce(logits, label, observed)
    assert 500 < wrong.item() < 502
    assert torch.autograd.grad(wrong, logits)[0].isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, label, observed = batch(4)
    coarse = logits.to(torch.bfloat16)
    loss = dice_bce(coarse, label, observed)
    assert loss.dtype == torch.float32
    assert loss == dice_bce(coarse.float(), label, observed)


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \[\(2, 1, 4, 4\), \(2, 4, 4\)\]"):
        dice_bce(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8))
