"""The networks by name: what they take, give and refuse."""

import subprocess
import sys
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from cdpipe.errors import InputError
from cdpipe.models.networks import NETWORKS, build_model, input_kind, required_bands

DECODERS = [name for name, network in NETWORKS.items() if "difference" in network.inputs]
RGBN = ("red", "green", "blue", "nir")
SMALL: dict[str, dict[str, Any]] = {
    "unetplusplus": {"encoder": "resnet18", "decoder_channels": (16, 8, 8, 8, 4)},
    "siamese_resnet18": {"decoder_channels": (8, 8, 12, 16)},
    "snunet": {"channels": 16},
    "siamese_unet": {"encoder": "plain8"},
    "siamese_unetplusplus": {"encoder": "plain8"},
    **{name: {"encoder": "resnet18"} for name in DECODERS if name != "unetplusplus"},
    "segformer": {"encoder": "mit_b0"},
    "dpt": {"encoder": "tu-vit_tiny_patch16_224"},
}


def small(name: str) -> nn.Module:
    torch.manual_seed(1)
    return build_model(name, **SMALL[name]).eval()


@pytest.mark.parametrize("name", SMALL)
def test_a_model_takes_one_tensor_and_gives_logits(name: str) -> None:
    kind = "difference" if name in DECODERS else "stacked"
    assert input_kind(name) == kind
    assert required_bands(name) == ("red", "green", "blue")
    model = small(name)
    x = torch.randn(2, 1 if kind == "difference" else 6, 128, 160)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 1, *x.shape[2:])
        assert torch.equal(model(x), logits)
    assert ((logits < 0) | (logits > 1)).any()  # not squeezed by a sigmoid


EATEN = {
    "difference": ("band_difference", 4),
    "stacked": ("stacked", 8),
    "stacked_difference": ("stacked_difference", 12),
}


@pytest.mark.parametrize(("name", "asked"), [(name, asked) for name in DECODERS for asked in EATEN])
def test_a_decoder_may_read_any_bands_of_both_dates_and_their_difference(name: str, asked: str) -> None:
    options, (kind, channels) = {**SMALL[name], "bands": RGBN, "input": asked}, EATEN[asked]
    _check_bands(name, options, kind, channels)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in DECODERS])
def test_a_siamese_network_may_read_any_bands(name: str) -> None:
    _check_bands(name, {**SMALL[name], "bands": RGBN}, "stacked", 8)


def _check_bands(name: str, options: dict[str, Any], kind: str, channels: int) -> None:
    assert input_kind(name, options) == kind
    assert required_bands(name, options) == RGBN
    torch.manual_seed(1)
    model = build_model(name, **options).eval()
    with torch.no_grad():
        assert model(torch.randn(1, channels, 128, 128)).shape == (1, 1, 128, 128)


def test_a_difference_without_bands_is_that_of_the_greys() -> None:
    assert input_kind("unetplusplus", {"input": "difference"}) == "difference"
    assert input_kind("unetplusplus", {"input": "difference", "bands": None}) == "difference"
    assert input_kind("unetplusplus", {"bands": ["red", "green", "blue"]}) == "band_difference"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unetplusplus", {"input": "stacked", "bands": RGBN}),
        ("siamese_resnet18", {"bands": ("nir",)}),
        ("siamese_unet", {"encoder": "resnet18", "bands": RGBN}),
    ],
)
def test_weights_of_red_green_and_blue_are_not_cycled_through_other_bands(name: str, options: dict[str, Any]) -> None:
    message = r"encoder_weights: imagenet has no nir; it has red, green, blue\. Leave out"
    with pytest.raises(ValueError, match=message):
        build_model(name, encoder_weights="imagenet", **options)


def test_every_network_of_the_library_is_there_and_those_that_were_published() -> None:
    assert set(DECODERS) == smp.MODEL_ARCHITECTURES_MAPPING.keys()
    assert {"siamese_seresnext50", "siamese_resnext101", "siamese_densenet161", "siamese_dpn92"} < NETWORKS.keys()


def test_what_is_known_of_networks_needs_no_torch() -> None:
    code = (
        "import sys\nfrom cdpipe.models.networks import NETWORKS, input_kind, required_bands\n"
        "for name in NETWORKS: input_kind(name), required_bands(name)\n"
        "assert not {'torch', 'segmentation_models_pytorch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unetplusplus_is_the_library_s_own() -> None:
    with torch.device("meta"):
        ours = build_model("unetplusplus").state_dict()
        theirs = smp.UnetPlusPlus("resnext50_32x4d", in_channels=1, classes=1, encoder_weights=None).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: v.shape for key, v in theirs.items()}


def test_unetplusplus_passes_options_on() -> None:
    with torch.device("meta"):
        model = build_model("unetplusplus", encoder="resnet34", encoder_depth=3, decoder_channels=[32, 16, 8])
    assert model.get_parameter("segmentation_head.0.weight").shape == (1, 8, 3, 3)


@pytest.mark.parametrize("ask", [build_model, input_kind, required_bands])
def test_an_unknown_name_is_answered_with_those_that_exist(ask: Any) -> None:
    with pytest.raises(ValueError, match="no model named 'unett'; there are unetplusplus, siamese_seresnext50"):
        ask("unett")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "unetplusplus",
            {"decoder_chanels": (8,)},
            "no option decoder_chanels; it accepts .*decoder_channels",
        ),
        ("unetplusplus", {"activation": "sigmoid"}, "no option activation"),
        ("unetplusplus", {"input": "sum"}, "expected input difference, stacked or stacked_difference, got 'sum'"),
        ("snunet", {"encoder": "resnet34"}, "no option encoder; it accepts channels"),
        (
            "fpn",
            {"encoder": "plain16"},
            "plain16 starts at the full size, which fpn does not expect; take unet",
        ),
        ("unet", {"encoder": "plain16", "encoder_weights": "imagenet"}, "plain16 has no weights 'imagenet'.* none"),
        ("unet", {"encoder": "plain17"}, "no encoder named 'plain17'; did you mean plain"),
        ("unet", {"encoder": "plain16", "encoder_depth": 1}, "encoder_depth: expected 2 to 6 levels, got 1"),
        ("unet", {"encoder": "plain16", "decoder_channels": [8]}, "decoder_channels: expected 3, from deep .*, got 8"),
        ("siamese_unet", {"decoder_channels": [64, 32]}, "decoder_channels: expected 3, .* got 64, 32"),
        ("siamese_unetplusplus", {"decoder_channels": [64, 32, 16, 8]}, "decoder_channels: expected 3"),
        ("siamese_unet", {"encoder": "resnet18", "decoder_channels": [64]}, "decoder_channels: expected 5"),
        (
            "siamese_unet",
            {"encoder": "mit_b0"},
            "mit_b0 has no features at half the size; take another, such",
        ),
        ("siamese_unet", {"input": "stacked"}, "no option input; it accepts encoder, "),
        ("siamese_resnet18", {"encoder": "resnet34"}, "no option encoder; it accepts encoder_weights"),
        ("siamese_resnet18", {"decoder_channels": (8, 8)}, r"4 decoder channel counts.* and \(8, 8\)"),
        ("unetplusplus", {"encoder": "resnet81"}, "no encoder named 'resnet81'; did you mean resnet"),
        ("siamese_resnet18", {"encoder_weights": "imgnet"}, "resnet18 has no weights 'imgnet'; .*imagenet"),
    ],
)
def test_options_that_do_not_exist_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, **options)


def test_weights_out_of_reach_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(repository: str, **_: Any) -> str:
        raise FileNotFoundError(f"no connection, no {repository}")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    with pytest.raises(InputError, match=r"(?s)imagenet weights.*encoder_weights: null.*smp-hub/resnet18") as raised:
        build_model("siamese_resnet18", encoder_weights="imagenet")
    assert "no connection" in str(raised.value)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 6, 64, 48), (6, 64, 64)])
def test_siamese_refuses_other_inputs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="6, H, W"):
        small("siamese_resnet18")(torch.zeros(shape))


def test_siamese_drops_whole_channels_before_the_last_layer_in_training_only() -> None:
    model = small("siamese_resnet18")
    seen: list[Tensor] = []
    final = model.get_submodule("final")
    final.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    before_dropout: list[Tensor] = []
    model.get_submodule("last_upsample").register_forward_hook(lambda *hooked: before_dropout.append(hooked[2]))
    x = torch.randn(40, 6, 32, 32)
    with torch.no_grad():
        model(x)
        model.train()(x)
    assert torch.equal(seen[0], before_dropout[0])
    kept = seen[1].ne(0).flatten(2).any(2)
    torch.testing.assert_close(seen[1], before_dropout[1] / 0.9 * kept[..., None, None])
    alive = before_dropout[1].ne(0).flatten(2).any(2)
    assert 0 < (alive & ~kept).sum() < 0.3 * alive.sum()
