"""Published networks written out plainly from their papers' names, beside ours under the same weights."""

from collections.abc import Mapping

import pytest
import torch
from test_published import published
from torch import Tensor
from torch.nn import functional

from cdpipe.models.foreign import load_published
from cdpipe.models.networks import build_model

Weights = Mapping[str, Tensor]
DPN_STAGES = {1: (1, 3, 256), 2: (0, 4, 512), 3: (0, 20, 1024), 4: (0, 3, 2048)}  # first block, blocks, residual width


def normalise(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return functional.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=eps)


def convolve(weights: Weights, name: str, x: Tensor) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return functional.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)


def dpn_layer(weights: Weights, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    kernel = weights[f"{name}.conv.weight"]
    active = normalise(weights, f"{name}.bn", x, 1e-3).clamp(min=0)
    return functional.conv2d(active, kernel, None, stride, kernel.shape[-1] // 2, 1, groups)


def dpn_features(weights: Weights, x: Tensor) -> list[Tensor]:
    """Chen et al. 2017, "Dual Path Networks": a residual path that is added to and a dense one that grows."""
    x = functional.conv2d(x, weights["encoder_stages.0.0.weight"], None, 2, 3)
    features = [normalise(weights, "encoder_stages.0.1", x, 1e-3).clamp(min=0)]
    residual = dense = torch.empty(0)
    joined = functional.max_pool2d(features[0], 3, 2, 1)
    for stage, (first, blocks, width) in DPN_STAGES.items():
        for number in range(blocks):
            name, stride = f"encoder_stages.{stage}.{first + number}", 2 if stage > 1 and not number else 1
            if not number:
                projected = dpn_layer(weights, f"{name}.c1x1_w_s{stride}", joined, stride)
                residual, dense = projected[:, :width], projected[:, width:]
            y = dpn_layer(weights, f"{name}.c1x1_a", joined)
            y = dpn_layer(weights, f"{name}.c3x3_b", y, stride, groups=32)
            y = dpn_layer(weights, f"{name}.c1x1_c", y)
            residual, dense = residual + y[:, :width], torch.cat([dense, y[:, width:]], 1)
            joined = torch.cat([residual, dense], 1)
        features.append(joined)
    return [*features[:4], normalise(weights, "encoder_stages.4.3.bn", joined, 1e-3).clamp(min=0)]


def dpn92(weights: Weights, x: Tensor) -> Tensor:
    before, after = dpn_features(weights, x[:, :3]), dpn_features(weights, x[:, 3:])
    y = after[4]
    for level in range(4):
        skip = 3 - level
        y = convolve(weights, f"decoder_stages.{skip}.layer.1", functional.interpolate(y, scale_factor=2)).clamp(min=0)
        y = torch.cat([y, before[skip], after[skip]], 1)
        y = convolve(weights, f"bottlenecks.{level}.seq.0", y).clamp(min=0)
    return convolve(weights, "final.0", functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True))


def snunet(weights: Weights, x: Tensor) -> Tensor:
    """Fang et al. 2021, "SNUNet-CD", node by node as its figure has them; gates as its code has them."""

    def node(name: str, *inputs: Tensor) -> Tensor:
        first = convolve(weights, f"conv{name}.conv1", torch.cat(inputs, 1))
        y = normalise(weights, f"conv{name}.bn1", first, 1e-5).clamp(min=0)
        y = normalise(weights, f"conv{name}.bn2", convolve(weights, f"conv{name}.conv2", y), 1e-5)
        return (y + first).clamp(min=0)

    def up(name: str, y: Tensor) -> Tensor:
        return functional.conv_transpose2d(y, weights[f"Up{name}.up.weight"], weights[f"Up{name}.up.bias"], 2)

    def gate(name: str, y: Tensor) -> Tensor:
        squeezed = convolve(weights, f"{name}.fc1", y.mean((2, 3), keepdim=True)).clamp(min=0)
        return torch.sigmoid(2 * convolve(weights, f"{name}.fc2", squeezed))

    def encode(date: Tensor) -> list[Tensor]:
        levels = [node("0_0", date)]
        for level in range(1, 5):
            levels.append(node(f"{level}_0", functional.max_pool2d(levels[-1], 2)))
        return levels

    a, b = encode(x[:, :3]), encode(x[:, 3:])
    x01 = node("0_1", a[0], b[0], up("1_0", b[1]))
    x11 = node("1_1", a[1], b[1], up("2_0", b[2]))
    x02 = node("0_2", a[0], b[0], x01, up("1_1", x11))
    x21 = node("2_1", a[2], b[2], up("3_0", b[3]))
    x12 = node("1_2", a[1], b[1], x11, up("2_1", x21))
    x03 = node("0_3", a[0], b[0], x01, x02, up("1_2", x12))
    x31 = node("3_1", a[3], b[3], up("4_0", b[4]))
    x22 = node("2_2", a[2], b[2], x21, up("3_1", x31))
    x13 = node("1_3", a[1], b[1], x11, x12, up("2_2", x22))
    x04 = node("0_4", a[0], b[0], x01, x02, x03, up("1_3", x13))
    joined, within = torch.cat([x01, x02, x03, x04], 1), gate("ca1", x01 + x02 + x03 + x04)
    return convolve(weights, "conv_final", gate("ca", joined) * (joined + within.repeat(1, 4, 1, 1)))


@pytest.mark.parametrize("size", [64, 160])
@pytest.mark.parametrize(("name", "oracle"), [("siamese_dpn92", dpn92), ("snunet", snunet)])
def test_our_network_computes_what_the_paper_says(name: str, oracle: object, size: int) -> None:
    assert callable(oracle)
    torch.manual_seed(3)
    model = build_model(name).eval()
    weights = model.state_dict() if name == "snunet" else published(model)
    for key, value in weights.items():
        if key.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    load_published(name, model, weights)
    x = torch.randn(1, 6, size, size)
    with torch.no_grad():
        expected, found = torch.sigmoid(oracle(weights, x)), torch.sigmoid(model(x))
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
