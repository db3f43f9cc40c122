"""Encoders start from weights of other bands: by name, in the weights' own scale, against the network they are of."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from cdpipe.config.weights import EncoderWeights
from cdpipe.errors import InputError
from cdpipe.models import encoders
from cdpipe.models.encoders import SHARES, Channels, adapt
from cdpipe.models.networks import build_model
from cdpipe.models.pretrained import Pretrained, find_weights, named_weights
from cdpipe.models.torchgeo import PUBLISHED, S2

BANDS = ("coastal", "blue", "green", "red", "nir", "swir16")
MEAN, STD = (0.16, 0.14, 0.13, 0.14, 0.23, 0.22), (0.08, 0.09, 0.08, 0.11, 0.12, 0.13)
BGRN = ("blue", "green", "red", "nir")
PIXELS = 64


def source_encoder(channels: int, name: str = "resnet18") -> nn.Module:
    """An encoder whose weights and running statistics are no others'."""
    torch.manual_seed(7)
    encoder = smp.encoders.get_encoder(name, in_channels=channels)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(module.bias)
    made: nn.Module = encoder.eval()
    return made


def save(path: Path, encoder: nn.Module, prefix: str = "", **others: Tensor) -> Path:
    state = {f"{prefix}{key}": value for key, value in encoder.state_dict().items()} | others
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def given(path: Path, **options: Any) -> Pretrained:
    return find_weights(
        EncoderWeights.model_validate({"file": path, "bands": BANDS, "mean": MEAN, "std": STD, **options})
    )


def image(standardised: dict[str, Tensor], bands: Sequence[str] = BANDS) -> Tensor:
    """What standardised bands stand for in the weights' scale; bands that are not given are at their means."""
    planes = [standardised.get(band, torch.zeros(1, PIXELS, PIXELS)) for band in bands]
    figures = [(MEAN[BANDS.index(band)], STD[BANDS.index(band)]) for band in bands]
    return torch.stack([mean + std * plane for plane, (mean, std) in zip(planes, figures, strict=True)], dim=1)


def first_features(encoder: nn.Module, x: Tensor) -> Tensor:
    """The first features, less the border where the two networks' zeros beyond the image mean different things."""
    with torch.no_grad():
        features: Tensor = encoder.eval()(x)[1]
    return features[..., 2:-2, 2:-2]


# How the dates' standardised bands, a and b, become the one image that the first layer sees.
SEEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": lambda a, b: a - b,
    "stacked": lambda a, b: (a + b) / 2,
    "stacked_difference": lambda a, b: (a + b) / 4 + (a - b) / 2,
}
MADE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": lambda a, b: a - b,
    "stacked": lambda a, b: torch.cat([a, b], 1),
    "stacked_difference": lambda a, b: torch.cat([a, b, a - b], 1),
}


@pytest.mark.parametrize("kind", SEEN)
def test_a_model_of_some_bands_sees_what_the_whole_network_saw(tmp_path: Path, kind: str) -> None:
    source = source_encoder(len(BANDS))
    weights = given(save(tmp_path / "w.pth", source))
    model = build_model("unetplusplus", encoder="resnet18", input=kind, bands=BGRN, encoder_weights=weights)
    a, b = torch.randn(2, 1, 4, PIXELS, PIXELS)
    seen = dict(zip(BGRN, SEEN[kind](a, b).unbind(1), strict=True))
    encoder = model.get_submodule("encoder")
    torch.testing.assert_close(
        first_features(encoder, MADE[kind](a, b)), first_features(source, image(seen)), rtol=1e-4, atol=1e-4
    )
    ours, theirs = encoder.state_dict(), source.state_dict()
    assert ours.keys() == theirs.keys()
    changed = {key for key in ours if ours[key].shape != theirs[key].shape or not torch.equal(ours[key], theirs[key])}
    assert changed == {"conv1.weight", "bn1.running_mean"}


@pytest.mark.parametrize("name", ["siamese_resnet18", "siamese_unet", "siamese_unetplusplus"])
def test_a_siamese_network_sees_each_date_so(tmp_path: Path, name: str) -> None:
    source = source_encoder(len(BANDS))
    options: dict[str, Any] = {} if name == "siamese_resnet18" else {"encoder": "resnet18"}
    weights = given(save(tmp_path / "w.safetensors", source))
    model = build_model(name, bands=BGRN, encoder_weights=weights, **options)
    date = torch.randn(1, 4, PIXELS, PIXELS)
    expected = first_features(source, image(dict(zip(BGRN, date.unbind(1), strict=True))))
    torch.testing.assert_close(first_features(model.get_submodule("encoder"), date), expected, rtol=1e-4, atol=1e-4)


def test_a_grey_stands_for_red_green_and_blue_alike(tmp_path: Path) -> None:
    source = source_encoder(len(BANDS))
    weights = given(save(tmp_path / "w.pth", source))
    model = build_model("unet", encoder="resnet18", encoder_weights=weights)
    grey = torch.randn(1, 1, PIXELS, PIXELS)
    expected = first_features(source, image(dict.fromkeys(("red", "green", "blue"), grey[:, 0])))
    torch.testing.assert_close(first_features(model.get_submodule("encoder"), grey), expected, rtol=1e-4, atol=1e-4)


def test_bands_normalised_together_have_one_scale() -> None:
    weights = Pretrained("w", (("red", 1.0, 2.0), ("nir", 3.0, 4.0), ("blue", 5.0, 6.0)), together=True)
    kernel = torch.randn(2, 3, 3, 3)
    adapted, constant = adapt(kernel, weights, Channels("date", ("nir", "red")))
    values = torch.cat([torch.randn(200_000) * 2 + 1, torch.randn(200_000) * 4 + 3])
    pooled = float(values.std())
    torch.testing.assert_close(adapted, kernel[:, [1, 0]] * pooled, rtol=0.01, atol=1e-3)
    mean = torch.tensor([2.0, 2.0, 5.0])
    torch.testing.assert_close(constant, (kernel.sum((2, 3)) * mean).sum(1))


def test_a_band_that_the_weights_do_not_have_is_refused_with_those_they_have(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", source_encoder(len(BANDS)))
    message = r"w\.pth has no cirrus, pan; it has coastal, blue, green, red, nir, swir16\. .*other_bands: mean\}"
    with pytest.raises(ValueError, match=message):
        build_model("unet", encoder="resnet18", bands=("red", "cirrus", "pan"), encoder_weights=given(path))
    with pytest.raises(ValueError, match="imagenet has no nir; it has red, green, blue"):
        build_model("siamese_resnet18", bands=BGRN, encoder_weights="imagenet")


def test_it_may_start_from_the_others_or_from_nothing() -> None:
    kernel, rgb = torch.randn(5, 3, 7, 7), (("red", 0.0, 1.0), ("green", 0.0, 1.0), ("blue", 0.0, 1.0))
    red, green, blue = kernel.unbind(1)
    mean, _ = adapt(kernel, Pretrained("w", rgb, "mean"), Channels("date", BGRN))
    expected = torch.stack([blue, green, red, (red + green + blue) / 3], 1) * 3 / 4
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(mean.sum(1), kernel.sum(1))  # a white image gives what it gave
    zeros, _ = adapt(kernel, Pretrained("w", rgb, "zeros"), Channels("date", BGRN))
    assert torch.equal(zeros, torch.stack([blue, green, red, torch.zeros_like(red)], 1))
    with pytest.raises(ValueError, match="has no nir"):
        Pretrained("w", rgb, "mean").check_bands(["nir"])


def test_shares_keep_what_unchanged_ground_gives() -> None:
    for kind, shares in SHARES.items():
        dates = {"stacked": 1, "stacked_difference": 0.5}.get(kind)
        assert dates is None or sum(shares[:2]) == dates
    before, after, change = SHARES["stacked_difference"]
    assert (before + change, after - change) == (0.75, -0.25)  # both dates count, unlike in equal thirds


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """ImageNet weights as the library fetches them, made up; and the encoder that they are of."""
    source = source_encoder(3)
    (tmp_path / "config.json").write_text("{}")
    save(tmp_path / "model.safetensors", source)

    def download(_: str, filename: str, **__: Any) -> str:
        return str(tmp_path / filename)

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", download)
    monkeypatch.setattr(encoders, "hf_hub_download", download)
    return source


@pytest.mark.parametrize(
    ("ours", "channels"),
    [
        ({}, 1),
        ({"bands": ("red", "green", "blue")}, 3),
        ({"input": "stacked"}, 6),
        ({"input": "stacked", "bands": ("red", "green", "blue")}, 6),
    ],
)
@pytest.mark.usefixtures("hub")
def test_red_green_and_blue_of_imagenet_are_what_the_library_makes_of_them(ours: dict[str, Any], channels: int) -> None:
    torch.manual_seed(3)
    found = build_model("unetplusplus", encoder="resnet18", encoder_weights="imagenet", **ours).state_dict()
    torch.manual_seed(3)
    expected = smp.UnetPlusPlus("resnet18", in_channels=channels, classes=1, encoder_weights="imagenet").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    kind = "difference" if channels == 1 else ours.get("input", "band_difference")
    kernel = torch.randn(4, 3, 3, 3)
    adapted, constant = adapt(kernel, named_weights("imagenet"), Channels(kind, ("red", "green", "blue")))
    assert not constant.any()
    cycled = kernel.sum(1, keepdim=True) if channels == 1 else kernel.repeat(1, channels // 3, 1, 1) * 3 / channels
    torch.testing.assert_close(adapted, cycled)


def test_other_bands_of_imagenet_go_by_their_names(hub: nn.Module) -> None:
    kernel = hub.get_parameter("conv1.weight")
    for bands in (("blue", "green", "red"), ("green", "red")):
        model = build_model("siamese_resnet18", bands=bands, encoder_weights="imagenet")
        places = [("red", "green", "blue").index(band) for band in bands]
        assert torch.equal(model.get_parameter("encoder.conv1.weight"), kernel[:, places])
    asked = named_weights("imagenet", "mean")
    model = build_model("unetplusplus", encoder="resnet18", bands=BGRN, encoder_weights=asked)
    assert torch.equal(model.get_parameter("encoder.conv1.weight"), adapt(kernel, asked, Channels("date", BGRN))[0])
    assert torch.equal(model.get_parameter("encoder.layer3.0.conv1.weight"), hub.get_parameter("layer3.0.conv1.weight"))


PREFIXES = ["", "module.encoder_q.", "module.", "backbone.", "model.backbone.model.", "encoder."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_stands_before_the_names_is_taken_off(tmp_path: Path, prefix: str) -> None:
    source, others = source_encoder(len(BANDS)), {f"{prefix}fc.weight": torch.zeros(9, 512)}
    if prefix == "module.encoder_q.":  # a whole checkpoint of MoCo: with the slow copy, and a queue
        others |= {f"module.encoder_k.{key}": torch.zeros_like(value) for key, value in source.state_dict().items()}
        others["module.queue"] = torch.zeros(8, 8)
    if prefix == "encoder.":
        others = {"decoder.blocks.0.conv1.weight": torch.zeros(1), "segmentation_head.0.bias": torch.zeros(1)}
    weights = given(save(tmp_path / "w.pth", source, prefix, **others))
    model = build_model("siamese_resnet18", bands=BGRN, encoder_weights=weights)
    found, expected = model.get_submodule("encoder").state_dict(), source.state_dict()
    assert torch.equal(found["layer4.1.conv2.weight"], expected["layer4.1.conv2.weight"])


def test_an_encoder_of_timm_has_its_names_too(tmp_path: Path) -> None:
    weights = given(save(tmp_path / "w.pth", source_encoder(len(BANDS))))
    model = build_model("unet", encoder="tu-resnet18", bands=BGRN, encoder_weights=weights)
    other = build_model("unet", encoder="resnet18", bands=BGRN, encoder_weights=weights)
    first, second = (each.get_submodule("encoder").state_dict() for each in (model, other))
    assert all(torch.equal(first[f"model.{key}"], value) for key, value in second.items())


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    source = source_encoder(len(BANDS))
    broken = source.state_dict()
    del broken["layer2.0.bn1.bias"]
    broken["layer5.weight"] = torch.zeros(1)
    broken["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    torch.save(broken, tmp_path / "w.pth")
    message = (
        r"w\.pth does not fit the encoder: 1 left over: layer5\.weight; 1 missing: layer2\.0\.bn1\.bias; "
        r"1 of another shape: layer1\.0\.conv1\.weight \(64, 64, 5, 5\) instead of \(64, 64, 3, 3\)"
    )
    with pytest.raises(InputError, match=message):
        build_model("siamese_resnet18", bands=BGRN, encoder_weights=given(tmp_path / "w.pth"))
    save(tmp_path / "w.pth", source)
    two = given(tmp_path / "w.pth", bands=("red", "nir"), mean=None, std=None)
    with pytest.raises(InputError, match="expected a first kernel of 2 bands; conv1 takes 6"):
        build_model("siamese_resnet18", bands=("red",), encoder_weights=two)
    torch.save({"something": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"one encoder, which begins with conv1\.weight, found something, \.\.\."):
        build_model("siamese_resnet18", bands=BGRN, encoder_weights=given(tmp_path / "w.pth"))


def test_a_file_that_changed_since_it_was_hashed_is_refused(tmp_path: Path) -> None:
    weights = given(save(tmp_path / "w.pth", source_encoder(len(BANDS))))
    save(tmp_path / "w.pth", source_encoder(len(BANDS), "resnet34"))
    with pytest.raises(InputError, match=r"is not w\.pth: its SHA-256 begins with"):
        build_model("siamese_resnet18", bands=BGRN, encoder_weights=weights)


def test_a_file_runs_no_code(tmp_path: Path) -> None:
    torch.save(source_encoder(len(BANDS)), tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds Python objects"):
        build_model("siamese_resnet18", bands=BGRN, encoder_weights=given(tmp_path / "w.pth"))


MOCO = "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"


def test_torchgeo_s_list_says_bands_scale_and_hash() -> None:
    weights = named_weights(MOCO)
    assert [name for name, _, _ in weights.bands] == list(S2)
    nir, mean, deviation = weights.bands[7]
    assert (nir, round(mean, 5), round(deviation, 5)) == ("nir", 0.23187, 0.12495)
    assert weights.sha256 == "59bfdff9"
    assert {each.encoder for each in PUBLISHED.values()} == {"resnet18", "resnet50"}
    for name, each in PUBLISHED.items():
        assert len({band for band, _, _ in each.bands if band}) == len([band for band, _, _ in each.bands if band])
        assert len(each.revision) == 40
        assert each.sha256 or name.endswith("SOFTCON")
    with pytest.raises(
        ValueError, match=r"no torchgeo:ResNet18_Weights\.SENTINEL2_MOCO; did you mean torchgeo:ResNet18"
    ):
        named_weights("torchgeo:ResNet18_Weights.SENTINEL2_MOCO")
    with pytest.raises(ValueError, match="ALL_MOCO are of resnet18, not of resnet34"):
        build_model("siamese_resnet34", bands=BGRN, encoder_weights=MOCO)


def test_offline_it_is_said_what_to_fetch_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("no connection\nand much more")

    monkeypatch.setattr(encoders, "hf_hub_download", offline)
    url = "https://huggingface.co/torchgeo/resnet18_sentinel2_all_moco/resolve/.*/resnet18_sentinel2_all_moco-59bfdff9.pth"
    with pytest.raises(InputError, match=rf"\(no connection\); download {url} .* encoder_weights: PATH/") as raised:
        build_model("siamese_resnet18", bands=BGRN, encoder_weights=MOCO)
    assert "\n" not in str(raised.value)


def test_what_was_fetched_is_checked_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_encoder(13)
    path = save(tmp_path / "w.pth", source)
    monkeypatch.setattr(encoders, "hf_hub_download", lambda *_, **__: str(path))
    with pytest.raises(InputError, match=r"its SHA-256 begins with .*, expected 59bfdff9"):
        build_model("siamese_resnet18", bands=BGRN, encoder_weights=MOCO)
    moco = PUBLISHED["ResNet18_Weights.SENTINEL2_ALL_MOCO"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    same = type(moco)(moco.encoder, moco.repository, moco.revision, f"made-{digest[:8]}.pth", moco.bands)
    monkeypatch.setattr("cdpipe.models.pretrained.PUBLISHED", {"ResNet18_Weights.SENTINEL2_ALL_MOCO": same})
    model = build_model("siamese_resnet18", bands=("red", "nir"), encoder_weights=MOCO)
    kernel = source.get_parameter("conv1.weight")
    expected = torch.stack([kernel[:, 3] * 0.11449, kernel[:, 7] * 0.12495], 1)
    torch.testing.assert_close(model.get_parameter("encoder.conv1.weight"), expected)
    # a file of that hash is known by it, wherever it lies
    known = find_weights(EncoderWeights.model_validate(str(path)))
    assert (known.name, known.bands, known.option) == (MOCO, moco.bands, MOCO)
    assert known.describe(digest)["sha256"] == digest


def test_a_file_that_nobody_lists_needs_its_bands(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", source_encoder(2))
    with pytest.raises(ValueError, match=r"none of the files that torchgeo lists.*\{file: w\.pth, bands: \[\.\.\.\]\}"):
        find_weights(EncoderWeights.model_validate(str(path)))
    with pytest.raises(InputError, match=r"expected a file of weights at .*nowhere"):
        find_weights(EncoderWeights.model_validate(str(tmp_path / "nowhere.pth")))
    found = find_weights(EncoderWeights.model_validate({"file": path, "bands": ["red", None]}))
    assert found.bands == (("red", 0.0, 1.0), (None, 0.0, 1.0))
    assert json.dumps(found.option)
    assert str(tmp_path) not in json.dumps(found.option)  # the same wherever it lies
