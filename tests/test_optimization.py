"""Learning rates against torch's own schedulers, weight decay, and the average of the weights."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cdpipe.config.train import Train
from cdpipe.training.optimization import clip_gradients, learning_rate, make_optimizer, set_rate, update_average


def small_network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def followed(options: Train, steps: int) -> list[tuple[float, float]]:
    """Rate and first beta of every step."""
    optimizer = make_optimizer(small_network(), options)
    found = []
    for step in range(options.epochs * steps):
        set_rate(optimizer, options, step, steps)
        rates = {(group["lr"], group["betas"][0]) for group in optimizer.param_groups}
        assert len(rates) == 1
        found.append(rates.pop())
    return found


def torchs(make: Any, count: int) -> list[tuple[float, float]]:
    optimizer = torch.optim.AdamW(small_network().parameters(), lr=0.01)
    scheduler = make(optimizer)
    found = []
    for _ in range(count):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [0.15, 0.3, 0.5])
@pytest.mark.parametrize(("epochs", "steps"), [(4, 25), (10, 7)])
def test_one_cycle_is_torchs(warmup: float, epochs: int, steps: int) -> None:
    options = Train(
        optimizer="adamw", schedule="one_cycle", learning_rate=0.01, warmup=warmup, epochs=epochs, weight_decay=0.1
    )
    count = epochs * steps
    expected = torchs(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.01, total_steps=count + 1 - 1, pct_start=warmup
        ),
        count - 1,  # torch counts the step that follows the last
    )
    found = followed(options, steps)
    assert len(found) == count
    for (rate, beta), (own_rate, own_beta) in zip(expected, found, strict=False):
        assert own_rate == pytest.approx(rate, rel=1e-9)
        assert own_beta == pytest.approx(beta, rel=1e-9)
    assert found[-1][0] == pytest.approx(0.01 / 25 / 1e4)


def test_cosine_is_torchs_after_a_linear_rise() -> None:
    options = Train(schedule="cosine", learning_rate=0.01, warmup=0.2, epochs=5)
    found = [rate for rate, _ in followed(options, 10)]
    assert found[:10] == pytest.approx([0.001 * step for step in range(1, 11)])
    expected = torchs(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40), 40)
    assert found[10:] == pytest.approx([rate for rate, _ in expected])


def test_exponential_decay_falls_once_an_epoch() -> None:
    options = Train(learning_rate=0.01, decay=0.9, epochs=3)
    assert [rate for rate, _ in followed(options, 4)] == [0.01 * 0.9**epoch for epoch in range(3) for _ in range(4)]


@given(
    schedule=st.sampled_from(["one_cycle", "cosine"]),
    warmup=st.floats(0, 0.99),
    epochs=st.integers(1, 6),
    steps=st.integers(1, 30),
)
def test_a_rate_rises_to_its_highest_once_and_falls(schedule: Any, warmup: float, epochs: int, steps: int) -> None:
    options = Train(schedule=schedule, warmup=warmup, epochs=epochs, learning_rate=0.5)
    rates = [learning_rate(options, step, steps) for step in range(epochs * steps)]
    assert all(0 <= rate <= 0.5 + 1e-12 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_weight_decay_spares_norms_and_biases() -> None:
    network = small_network()
    optimizer = make_optimizer(network, Train(optimizer="adamw", weight_decay=0.5, learning_rate=0.1))
    before = copy.deepcopy(network)
    for weights in network.parameters():
        weights.grad = torch.zeros_like(weights)
    optimizer.step()
    for was, now in zip(before.parameters(), network.parameters(), strict=True):
        expected = was * (1 - 0.1 * 0.5) if was.ndim > 1 else was
        assert torch.allclose(now, expected)
    assert any(weights.ndim > 1 for weights in network.parameters())


def test_without_weight_decay_all_weights_are_one_group() -> None:
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = make_optimizer(small_network(), Train.model_validate({"optimizer": name}))
        assert type(optimizer) is kind
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_an_encoder_learns_at_its_own_share_of_the_rate(decay: float) -> None:
    torch.manual_seed(3)
    network = nn.ModuleDict({"encoder": small_network(), "decoder": nn.Conv2d(1, 1, 1)})
    options = Train(optimizer="adamw", schedule="cosine", learning_rate=0.1, weight_decay=decay, warmup=0.5, epochs=1)
    optimizer = make_optimizer(network, options, 0.1)
    for step in range(10):
        set_rate(optimizer, options, step, 10)
        rates = {id(weights): group["lr"] for group in optimizer.param_groups for weights in group["params"]}
        expected = learning_rate(options, step, 10)
        assert {rates[id(weights)] for weights in network["decoder"].parameters()} == {expected}
        assert {rates[id(weights)] for weights in network["encoder"].parameters()} == {expected * 0.1}
        assert optimizer.param_groups[0]["lr"] == expected  # what the history shows
    assert len(rates) == len(list(network.parameters()))


def test_the_average_is_that_of_the_weights_after_every_step() -> None:
    network = small_network()
    average = copy.deepcopy(network)
    expected = {name: values.clone() for name, values in network.state_dict().items()}
    rng = torch.Generator().manual_seed(1)
    for step in range(30):
        with torch.no_grad():
            for values in network.state_dict().values():
                if values.is_floating_point():
                    values.copy_(torch.randn(values.shape, generator=rng))
                else:
                    values.add_(1)
        update_average(average, network, 0.7, step)
        stays = min(0.7, (2 + step) / (11 + step))
        for name, values in network.state_dict().items():
            if values.is_floating_point():
                expected[name] = stays * expected[name] + (1 - stays) * values
            else:
                expected[name] = values.clone()
    found = average.state_dict()
    assert found["1.num_batches_tracked"] == 30
    for name, values in expected.items():
        assert torch.allclose(found[name], values, atol=1e-6)


def test_long_gradients_are_shortened_and_short_ones_are_not() -> None:
    network = small_network()
    for norm, expected in ((0.0, 50.0), (1.0, 1.0), (80.0, 50.0)):
        weights = list(network.parameters())
        for each in weights:
            each.grad = torch.zeros_like(each)
        assert weights[0].grad is not None
        assert weights[2].grad is not None
        weights[0].grad.view(-1)[0] = 30.0
        weights[2].grad.view(-1)[0] = 40.0
        clip_gradients(network, norm)
        length = math.sqrt(sum(float((each.grad**2).sum()) for each in weights if each.grad is not None))
        assert length == pytest.approx(expected, rel=1e-5)
