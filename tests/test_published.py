"""The published networks: their arithmetic, and reading their weights."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cdpipe.models.foreign import load_published
from cdpipe.models.networks import NETWORKS, build_model

SMALL = "siamese_resnet18"
SIAMESE = [name for name, network in NETWORKS.items() if network.published]
# Each layer of an encoder and its place in the published `encoder_stages`.
PUBLISHED_ENCODER = {
    "SENetEncoder": {"layer0.": "0.", "layer1.": "1.1.", "layer2.": "2.", "layer3.": "3.", "layer4.": "4."},
    "ResNetEncoder": {
        "conv1.": "0.0.",
        "bn1.": "0.1.",
        "layer1.": "1.1.",
        "layer2.": "2.",
        "layer3.": "3.",
        "layer4.": "4.",
    },
    "DenseNetEncoder": {
        "features.conv0.": "0.0.",
        "features.norm0.": "0.1.",
        "features.denseblock1.": "1.1.",
        "features.transition1.": "2.0.",
        "features.denseblock2.": "2.1.",
        "features.transition2.": "3.0.",
        "features.denseblock3.": "3.1.",
        "features.transition3.": "4.0.",
        "features.denseblock4.": "4.1.",
        "features.norm5.": "4.2.",
    },
    "DPNEncoder": {
        "features.conv1_1.conv.": "0.0.",
        "features.conv1_1.bn.": "0.1.",
        **{f"features.conv2_{block}.": f"1.{block}." for block in range(1, 4)},
        **{f"features.conv3_{block}.": f"2.{block - 1}." for block in range(1, 5)},
        **{f"features.conv4_{block}.": f"3.{block - 1}." for block in range(1, 21)},
        **{f"features.conv5_{block}.": f"4.{block - 1}." for block in range(1, 4)},
        "features.conv5_bn_ac.": "4.3.",
    },
}


def small() -> nn.Module:
    torch.manual_seed(1)
    return build_model(SMALL, decoder_channels=(8, 8, 12, 16)).eval()


def published(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights under the names they would have been published with."""
    encoder = PUBLISHED_ENCODER[type(model.encoder).__name__]

    def name(key: str) -> str:
        if key.startswith("encoder."):
            rest = key.removeprefix("encoder.")
            prefix = next(prefix for prefix in encoder if rest.startswith(prefix))
            return "encoder_stages." + encoder[prefix] + rest.removeprefix(prefix)
        if key.startswith("bottlenecks."):
            return re.sub(r"^(bottlenecks\.\d)\.", r"\1.seq.", key)
        if key.startswith("final."):
            return key.replace("final.", "final.0.")
        return re.sub(r"^(decoder_stages\.\d|last_upsample)\.", r"\1.layer.", key)

    return {name(key): value.clone() for key, value in model.state_dict().items()}


def other_weights() -> dict[str, Tensor]:
    """Return published weights for ``small()``, no two entries of which are alike."""
    torch.manual_seed(2)
    return {key: torch.rand(value.shape).to(value.dtype) for key, value in published(small()).items()}


def plain_scse_forward(weights: Mapping[str, Tensor], before: list[Tensor], after: list[Tensor]) -> Tensor:
    """Return the published decoder's logits from both dates' features, written out with published names."""

    def convolve(x: Tensor, name: str) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return functional.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    def enlarge(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    y = after[4]
    for level in range(4):
        skip = 3 - level
        y = convolve(enlarge(y), f"decoder_stages.{skip}.layer.1").clamp(min=0)
        y = torch.cat([y, before[skip], after[skip]], 1)
        y = convolve(y, f"bottlenecks.{level}.seq.0").clamp(min=0)
        gates = f"bottlenecks.{level}.seq.2"
        by_channel = convolve(y.mean((2, 3), keepdim=True), f"{gates}.fc1").clamp(min=0)
        by_channel = torch.sigmoid(convolve(by_channel, f"{gates}.fc2"))
        y = torch.cat([y * by_channel, y * torch.sigmoid(convolve(y, f"{gates}.spatial_se.0"))], 1)
    y = convolve(enlarge(y), "last_upsample.layer.1").clamp(min=0)
    return convolve(y, "final.0")


def test_siamese_computes_what_was_published() -> None:
    model = small()
    x = torch.randn(2, 6, 64, 96)
    encoder: Any = model.encoder
    with torch.no_grad():
        expected = plain_scse_forward(published(model), encoder(x[:, :3])[1:], encoder(x[:, 3:])[1:])
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_weights_arrive_where_they_belong(prefix: str) -> None:
    weights, model = other_weights(), small()
    assert load_published(SMALL, model, {prefix + key: value for key, value in weights.items()}) == ()
    loaded = published(model)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())


@pytest.mark.parametrize("name", SIAMESE)
def test_every_siamese_network_knows_its_published_names(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
        weights = published(model)
    weights["final.0.weight"] = torch.empty(5, *weights["final.0.weight"].shape[1:], device="meta")
    weights["final.0.bias"] = torch.empty(5, device="meta")
    assert load_published(name, model, weights) == ("final.weight", "final.bias")


def test_a_last_layer_of_more_classes_leaves_the_fresh_one() -> None:
    weights, model = other_weights(), small()
    weights["final.0.weight"], weights["final.0.bias"] = torch.ones(5, 4, 1, 1), torch.ones(5)
    fresh = model.get_parameter("final.weight").detach().clone()
    assert load_published(SMALL, model, weights) == ("final.weight", "final.bias")
    assert torch.equal(model.get_parameter("final.weight"), fresh)
    loaded = model.state_dict()
    assert torch.equal(loaded["encoder.layer4.1.bn2.running_var"], weights["encoder_stages.4.1.bn2.running_var"])
    assert torch.equal(loaded["bottlenecks.0.0.weight"], weights["bottlenecks.0.seq.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_stages.5.0.weight": torch.zeros(1)}, r"1 left over: encoder_stages.5.0.weight"),
        ({"bottlenecks.0.seq.0.bias": None}, r"1 missing: bottlenecks.0.0.bias"),
        ({"final.0.bias": None}, r"1 missing: final.bias"),
        ({"last_upsample.layer.1.bias": torch.zeros(9)}, r"1 of another shape: .*\(9,\) instead of \(4,\)"),
        ({"final.0.weight": torch.zeros(5, 7, 1, 1)}, r"1 of another shape: final.weight \(5, 7, 1, 1\)"),
        ({"module.final.0.bias": torch.zeros(1)}, r"given twice"),
        ({"encoder.conv1.weight": torch.zeros(1)}, r"1 left over: encoder.conv1.weight"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change: dict[str, Tensor | None], message: str) -> None:
    merged = other_weights() | change
    weights = {key: value for key, value in merged.items() if value is not None}
    model = small()
    untouched = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_published(SMALL, model, weights)
    assert all(torch.equal(value, untouched[key]) for key, value in model.state_dict().items())


def test_many_misfits_are_cut_short() -> None:
    with pytest.raises(ValueError, match=r"missing: [^;]*, \.\.\.$") as raised:
        load_published(SMALL, small(), {})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", ["unetplusplus", "siamese_resnet18", "snunet"])
def test_a_network_s_own_names_are_understood(name: str) -> None:
    options: dict[str, Any] = {"channels": 16} if name == "snunet" else {}
    options |= {"encoder": "resnet18"} if name == "unetplusplus" else {}
    given, model = (build_model(name, **options) for _ in range(2))
    assert load_published(name, model, {f"module.{key}": value for key, value in given.state_dict().items()}) == ()
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in given.state_dict().items())
    last = {"unetplusplus": "segmentation_head.0", "siamese_resnet18": "final", "snunet": "conv_final"}[name]
    weights = given.state_dict()
    for part in ("weight", "bias"):
        weights[f"{last}.{part}"] = weights[f"{last}.{part}"].repeat_interleave(2, 0)
    assert load_published(name, model, weights) == (f"{last}.weight", f"{last}.bias")


def reference_weights(reference: Path, network: str, classes: int) -> dict[str, Tensor]:
    """Return the published entries of a network, with another number of classes, filled by their names."""
    spec = importlib.util.spec_from_file_location("fill_weights", reference / "fill_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    empty = {}
    for line in (reference / "keys" / f"{network}.tsv").read_text().splitlines():
        key, _, sizes = line.partition("\t")
        shape = [int(size) for size in sizes.split("x") if size]
        if key.startswith("final."):
            shape[0] = classes
        empty[key] = torch.empty(shape, dtype=torch.int64 if key.endswith("tracked") else torch.float32)
    filled: dict[str, Tensor] = module.fill(empty)
    return filled


@pytest.mark.parametrize("network", ["seresnext50", "densenet161", "resnext101"])
def test_siamese_networks_give_the_reference_s_outputs(network: str, shared: Path) -> None:
    reference = shared / "reference"
    model = build_model(f"siamese_{network}").eval()
    assert load_published(f"siamese_{network}", model, reference_weights(reference, network, classes=5)) == (
        "final.weight",
        "final.bias",
    )
    assert load_published(f"siamese_{network}", model, reference_weights(reference, network, classes=1)) == ()
    with np.load(reference / "outputs" / f"{network}_64.npz") as arrays, torch.no_grad():
        probability = torch.sigmoid(model(torch.from_numpy(arrays["x"]))).numpy()
        np.testing.assert_allclose(probability, arrays["y"], rtol=0, atol=1e-5)


def test_snunet_gives_the_reference_s_outputs(shared: Path) -> None:
    reference, model = shared / "reference", build_model("snunet").eval()
    assert load_published("snunet", model, reference_weights(reference, "snunet", classes=1)) == ()
    with np.load(reference / "outputs" / "snunet_64.npz") as arrays, torch.no_grad():
        probability = torch.sigmoid(model(torch.from_numpy(arrays["x"]))).numpy()
        assert np.ptp(arrays["y"]) > 0.1
        np.testing.assert_allclose(probability, arrays["y"], rtol=0, atol=1e-5)
