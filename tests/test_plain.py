"""Networks that start at the full size: what they keep of small changes, what learns, what they have in common."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdpipe.models.fused import FusedSiamese
from cdpipe.models.networks import build_model

RGBN = ("red", "green", "blue", "nir")
FULL: dict[str, tuple[str, dict[str, Any], int]] = {
    "unet": ("unet", {"encoder": "plain8", "input": "stacked", "bands": RGBN}, 8),
    "unet++": ("unetplusplus", {"encoder": "plain8", "input": "stacked_difference", "bands": RGBN}, 12),
    "siamese": ("siamese_unet", {"encoder": "plain8", "bands": RGBN}, 8),
    "siamese++": ("siamese_unetplusplus", {"encoder": "plain8", "bands": RGBN}, 8),
}
HALF: dict[str, tuple[str, dict[str, Any], int]] = {
    "siamese-resnet": ("siamese_unet", {"encoder": "resnet18", "bands": RGBN}, 8),
    "siamese++-resnet": ("siamese_unetplusplus", {"encoder": "resnet18", "bands": RGBN}, 8),
}
ALL = {**FULL, **HALF}


def build(which: str) -> tuple[nn.Module, int]:
    name, options, channels = ALL[which]
    torch.manual_seed(1)
    return build_model(name, **options), channels


@pytest.mark.parametrize("which", ALL)
def test_every_weight_learns_and_every_channel_counts(which: str) -> None:
    model, channels = build(which)
    x = torch.randn(2, channels, 64, 64, requires_grad=True)
    model.train()(x).square().mean().backward()
    assert not [name for name, weights in model.named_parameters() if weights.grad is None or not weights.grad.any()]
    assert x.grad is not None
    assert x.grad.abs().sum(dim=(0, 2, 3)).all()


@pytest.mark.parametrize("which", FULL)
def test_full_size_networks_take_sides_that_are_multiples_of_8(which: str) -> None:
    model, channels = build(which)
    with torch.no_grad():
        assert model.eval()(torch.randn(1, channels, 40, 56)).shape == (1, 1, 40, 56)
        if which != "unet":  # the library's U-Net takes any
            with pytest.raises((ValueError, RuntimeError), match=r"(?s)multiples of 8.*36|36.*divisible by 8"):
                model(torch.randn(1, channels, 36, 40))


@pytest.mark.parametrize("which", ALL)
def test_only_full_size_networks_keep_single_pixels_before_they_half_the_size(which: str) -> None:
    model, channels = build(which)
    seen: list[Tensor] = []
    model.get_submodule("encoder").register_forward_hook(lambda *hooked: seen.append(hooked[2][1]))
    with torch.no_grad():
        model.eval()(torch.randn(1, channels, 64, 64))
    assert seen[0].shape[2:] == ((64, 64) if which in FULL else (32, 32))


@pytest.mark.parametrize("which", FULL)
def test_what_is_decoded_knows_the_first_level_at_full_size(which: str) -> None:
    # with everything below the first level silenced, a single pixel must still be told from its neighbours
    model, channels = build(which)
    encoder = model.eval().get_submodule("encoder")
    encoder.register_forward_hook(
        lambda *hooked: [*hooked[2][:2], *(torch.zeros_like(deeper) for deeper in hooked[2][2:])]
    )
    x = torch.zeros(1, channels, 64, 64)
    dot = x.clone()
    dot[0, -1, 32, 32] = 10
    with torch.no_grad():
        moved = (model(dot) - model(x)).abs()[0, 0]
    assert moved.argmax() // 64 in range(28, 37)
    assert moved[:16].max() == 0


def test_the_notes_network_has_half_a_million_weights() -> None:
    count = {
        name: sum(weights.numel() for weights in build_model(name, bands=RGBN, **options).parameters())
        for name, options in (("unet", {"encoder": "plain16", "input": "stacked"}), ("siamese_unet", {}))
    }
    assert count == {"unet": pytest.approx(500_000, rel=0.02), "siamese_unet": pytest.approx(570_000, rel=0.02)}


def test_wider_encoders_and_other_depths_have_names() -> None:
    for width, depth in ((8, 2), (24, 3), (32, 5), (48, 4)):
        with torch.device("meta"):
            model = build_model("unetplusplus", encoder=f"plain{width}", encoder_depth=depth)
            widths = model.get_submodule("encoder").out_channels
            assert widths == [1, *(width * 2**level for level in range(depth))]
            assert model(torch.empty(1, 1, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("which", [which for which in ALL if which.startswith("siamese")])
def test_both_dates_are_encoded_alike_and_fused_with_their_distance(which: str) -> None:
    model, channels = build(which)
    assert isinstance(model, FusedSiamese)
    model.eval()
    seen: list[Tensor] = []
    for layer in model.fuse:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(2, channels, 64, 64)
    with torch.no_grad():
        model(x)
        model(torch.cat([x[:, 4:], x[:, :4]], dim=1))
        model(torch.cat([x[:, :4], x[:, :4]], dim=1))
    levels = len(model.fuse)
    for straight, swapped, same in zip(seen[:levels], seen[levels : 2 * levels], seen[2 * levels :], strict=True):
        before, after, distance = straight.chunk(3, dim=1)
        torch.testing.assert_close(distance, (before - after).abs())
        torch.testing.assert_close(swapped, torch.cat([after, before, distance], dim=1))
        assert not same.chunk(3, dim=1)[2].any()


def test_in_training_both_dates_share_one_mean() -> None:
    model, _ = build("siamese")
    x = torch.randn(4, 8, 32, 32)
    x[:, 4:] += 3  # a second date that is brighter throughout
    bn = model.get_submodule("encoder.levels.0.bn1")
    seen: list[Tensor] = []
    bn.register_forward_hook(lambda *hooked: seen.append(hooked[2]))
    with torch.no_grad():
        model.train()(x)
    before, after = seen[0].chunk(2)
    assert (before.mean(dim=(0, 2, 3)) - after.mean(dim=(0, 2, 3))).abs().max() > 0.5


def test_channels_are_dropped_in_training_only() -> None:
    model, channels = build("siamese")
    x = torch.randn(1, channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        assert not torch.equal(model.train()(x), model(x))
