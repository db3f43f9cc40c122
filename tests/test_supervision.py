"""UNet++ under deep supervision: a list in training, the library's own network in prediction."""

from typing import Any

import pytest
import torch

from cdpipe.models.networks import build_model

NETS: list[tuple[dict[str, Any], int]] = [
    ({"encoder": "plain8", "input": "stacked", "bands": ["red", "nir"]}, 4),
    ({"encoder": "plain8", "encoder_depth": 3}, 1),
    ({"encoder": "mobilenet_v2", "encoder_depth": 3, "decoder_channels": [16, 16, 16]}, 1),
]


@pytest.mark.parametrize(("options", "channels"), NETS)
def test_in_training_every_node_of_the_finest_level_is_heard(options: dict[str, Any], channels: int) -> None:
    torch.manual_seed(1)
    model = build_model("unetplusplus", deep_supervision=True, **options).train()
    said = model(torch.randn(2, channels, 32, 48))
    levels = options.get("encoder_depth", 4)
    assert [each.shape for each in said] == [(2, 1, 32, 48)] * (levels - 1 if options["encoder"] == "plain8" else 2)
    torch.autograd.backward(torch.stack([each.square().mean() for each in said]).sum())
    decoder = [name for name, weights in model.named_parameters() if not name.startswith("encoder.")]
    assert not [name for name in decoder if model.get_parameter(name).grad is None]


@pytest.mark.parametrize(("options", "channels"), NETS)
def test_in_prediction_it_is_the_library_s_own(options: dict[str, Any], channels: int) -> None:
    torch.manual_seed(1)
    model = build_model("unetplusplus", deep_supervision=True, **options).eval()
    plain = build_model("unetplusplus", **options).eval()
    state = model.state_dict()
    plain.load_state_dict({name: value for name, value in state.items() if not name.startswith("deeper.")})
    x = torch.randn(1, channels, 32, 32)
    with torch.no_grad():
        expected = plain(x)
        assert torch.equal(model(x), expected)
        model.training = True  # of this module alone: its norms and dropout stay as they are
        torch.testing.assert_close(model(x)[0], expected)


def test_one_node_has_nothing_deeper() -> None:
    with pytest.raises(ValueError, match="deep_supervision: expected features at every level"):
        build_model("unetplusplus", encoder="plain8", encoder_depth=2, deep_supervision=True)


def test_other_decoders_have_none() -> None:
    with pytest.raises(ValueError, match="unet has no option deep_supervision"):
        build_model("unet", encoder="plain8", deep_supervision=True)
