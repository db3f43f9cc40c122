"""The training loss against plain arithmetic on the pixels that count."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cdpipe.config.losses import Losses
from cdpipe.training.loss import batch_loss, dice_bce

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


def plain_terms(logits: Tensor, label: Tensor, observed: Tensor, options: dict[str, Any]) -> dict[str, float]:
    """Every term as its paper has it, over the kept pixels, one after the other."""
    keep = (label != 255) & observed.bool()
    chances, targets = 1 / (1 + np.exp(-logits[keep].numpy())), label[keep].numpy().astype(float)
    hits = false_alarms = misses = entropy = focal = 0.0
    for chance, target in zip(chances, targets, strict=True):
        hits += chance * target
        false_alarms += chance * (1 - target)
        misses += (1 - chance) * target
        entropy -= options["positive_weight"] * target * math.log(chance) + (1 - target) * math.log(1 - chance)
        right = chance if target else 1 - chance
        share = options["alpha"] if target else 1 - options["alpha"]
        focal -= share * (1 - right) ** options["gamma"] * math.log(right)
    return {
        "dice": 1 - (2 * hits + 1) / (2 * hits + false_alarms + misses + 1),
        "bce": entropy / len(chances),
        "soft_jaccard": 1 - (hits + 1) / (hits + false_alarms + misses + 1),
        "tversky": 1 - (hits + 1) / (hits + 0.2 * false_alarms + 0.6 * misses + 1),
        "focal": focal / len(chances),
    }


NAMED = {
    "dice": 0.5,
    "bce": {"weight": 2, "positive_weight": 3},
    "soft_jaccard": 1,
    "tversky": {"alpha": 0.2, "beta": 0.6, "weight": 0.7},
    "focal": {"gamma": 1.5, "alpha": 0.8},
}
WEIGHTS = {"dice": 0.5, "bce": 2, "soft_jaccard": 1, "tversky": 0.7, "focal": 1}


@given(seed=st.integers(0, 2**32 - 1))
def test_every_term_is_what_its_paper_says_of_the_kept_pixels(seed: int) -> None:
    logits, label, observed = batch(seed)
    expected = plain_terms(logits, label, observed, {"positive_weight": 3, "gamma": 1.5, "alpha": 0.8})
    for name, options in NAMED.items():
        loss = batch_loss(Losses.model_validate({name: options}), logits, label, observed)
        assert loss.item() == pytest.approx(WEIGHTS[name] * expected[name])
    whole = batch_loss(Losses.model_validate(NAMED), logits, label, observed)
    assert whole.item() == pytest.approx(sum(WEIGHTS[name] * value for name, value in expected.items()))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("garbage", [1e30, math.nan])
def test_ignored_pixels_move_no_term(name: str, garbage: float) -> None:
    losses = Losses.model_validate({name: NAMED[name]})
    logits, label, observed = batch(7)
    ignored = (label == 255) | ~observed
    clean = logits.clone().requires_grad_()
    dirty = torch.where(ignored, garbage, logits).requires_grad_()
    values = [batch_loss(losses, x, label, observed) for x in (clean, dirty)]
    gradients = [torch.autograd.grad(value, x)[0] for value, x in zip(values, (clean, dirty), strict=True)]
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])
    assert not gradients[1][ignored].any()
    nothing = batch_loss(losses, logits, torch.full_like(label, 255))
    assert nothing == 0


@pytest.mark.parametrize("name", NAMED)
def test_gradient_of_every_term_is_the_derivative(name: str) -> None:
    losses = Losses.model_validate({name: NAMED[name]})
    logits, label, observed = batch(2)
    assert torch.autograd.gradcheck(lambda x: batch_loss(losses, x, label, observed), logits.requires_grad_())


def test_terms_of_one_family_agree_where_they_must() -> None:
    """Tversky with halves is Dice, focal with gamma 0 is cross-entropy."""
    logits, label, observed = batch(8)
    values = {
        name: batch_loss(Losses.model_validate(given), logits, label, observed).item()
        for name, given in {
            "bce": "bce",
            "focal": {"focal": {"gamma": 0}},
            "both": ["dice", "bce"],
        }.items()
    }
    assert values["focal"] == pytest.approx(values["bce"])
    assert values["both"] == dice_bce(logits, label, observed).item()
