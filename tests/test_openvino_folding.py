"""A convolution of doubled features becomes one that multiplies less, with the same results; others stay."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cdpipe.inference.openvino import fold_doubling, import_openvino, transposed_kernel

sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes, st.integers(0, 2**32 - 1))
def test_summed_taps_do_what_doubling_and_convolving_does(
    inputs: int, outputs: int, height: int, width: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
    features = torch.from_numpy(random.normal(size=(2, inputs, height, width)))
    expected = nn.functional.conv2d(
        nn.functional.interpolate(features, scale_factor=2), torch.from_numpy(kernel).double(), padding=1
    )
    taps = torch.from_numpy(transposed_kernel(kernel)).double()
    found = nn.functional.conv_transpose2d(features, taps, stride=2, padding=1)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


class Decoder(nn.Module):
    """Features enlarged in one or two ways, concatenated, and convolved as decoders do it."""

    def __init__(self, parts: str, enlargement: dict[str, Any], axis: int, convolution: dict[str, Any]) -> None:
        super().__init__()
        self.parts, self.enlargement, self.axis = parts, enlargement, axis
        channels = CHANNELS * (len(parts) if axis == 1 else 1)
        self.convolution = nn.Conv2d(channels, 4, **{"kernel_size": 3, "padding": 1, **convolution})
        self.norm = nn.BatchNorm2d(4)
        self.norm(torch.randn(9, 4, 5, 5))

    def forward(self, small: Tensor) -> Tensor:
        made = {
            "d": nn.functional.interpolate(small, **self.enlargement),
            "s": nn.functional.interpolate(small, scale_factor=2, mode="bilinear"),
        }
        features = torch.cat([made[part] for part in self.parts], self.axis)
        return torch.relu(self.norm(self.convolution(features)))


CHANNELS = 6
DOUBLE = {"scale_factor": 2}
FOLDED: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "alone": ("d", DOUBLE, 1, {}),
    "before others": ("ds", DOUBLE, 1, {"bias": False}),
    "between others": ("sds", DOUBLE, 1, {}),
    "twice": ("dd", DOUBLE, 1, {}),
}
KEPT: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "nothing doubled": ("ss", DOUBLE, 1, {}),
    "side by side": ("dd", DOUBLE, 3, {}),
    "tripled": ("d", {"scale_factor": 3}, 1, {}),
    "one axis": ("d", {"scale_factor": (2.0, 1.0)}, 1, {}),
    "large taps": ("ds", DOUBLE, 1, {"kernel_size": 5, "padding": 2}),
    "a stride": ("ds", DOUBLE, 1, {"stride": 2}),
    "no padding": ("ds", DOUBLE, 1, {"padding": 0}),
    "dilated": ("ds", DOUBLE, 1, {"dilation": 2, "padding": 2}),
    "groups": ("ds", DOUBLE, 1, {"groups": 2}),
}


@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_a_graph_gives_the_same_and_only_what_can_be_folded_is(name: str) -> None:
    openvino = import_openvino()
    torch.manual_seed(1)
    network = Decoder(*(FOLDED | KEPT)[name]).eval().requires_grad_(False)
    small = torch.randn(1, CHANNELS, 6, 7)
    model = openvino.convert_model(torch.export.export(network, (small,)))
    model.reshape(list(small.shape))
    assert fold_doubling(model) == (name in FOLDED)
    assert any(node.get_type_name() == "ConvolutionBackpropData" for node in model.get_ops()) == (name in FOLDED)
    found = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([small.numpy()])[0]
    assert np.abs(found - network(small).numpy()).max() < 1e-5
