"""The original's nine JSON files become configurations that say the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import call, succeed

from cdpipe.config.load import parse_config
from cdpipe.config.presets import NETWORKS, PRESETS
from cdpipe.errors import EXIT_CONFIG

# file: is_siamese, model, in_filters, saved as
NINE: dict[str, tuple[bool, str, int, str]] = {
    "unet++_resnet34": (False, "resnet34", 1, "unet++_resnet34"),
    "unet++_resnet50": (False, "resnet50", 1, "unet++_resnet50"),
    "unet++_resnext50": (False, "resnext50_32x4d", 1, "unet++_resnext50"),
    "unet++_seresnext50": (False, "se_resnext50_32x4d", 1, "unet++_se_resnext50_32x4d"),
    "siamese_seresnext50": (True, "seresnext50", 24, "siamese_unet_seresnext50"),
    "siamese_resnext101": (True, "resnext101", 48, "siamese_unet_resnext101"),
    "siamese_densenet161": (True, "densenet161", 64, "siamese_unet_densenet161"),
    "siamese_dpn92": (True, "dpn92", 64, "siamese_unet_dpn92"),
    "siamese_snunet32": (True, "snunet", 32, "siamese_unet_snunet"),
}


def original(**changes: Any) -> dict[str, Any]:
    values = {
        "is_siamese": False, "model": "unet++", "model_name": "unet++_resnext50", "in_filters": 1, "img_size": 256,
        "img_channels": 1, "pretrained": "imagenet", "batch": 5, "patience": 7, "device": "cuda",
        "activation": "sigmoid", "sample_submission_path": "data/sample_submission.csv", "mask_path": "data/mask",
        "images_path": "data/Images_composit",
    }  # fmt: skip
    return values | changes


def write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("network", NINE)
def test_each_of_the_nine_says_what_its_preset_says(network: str, tmp_path: Path) -> None:
    siamese, model, filters, saved = NINE[network]
    file = write(
        tmp_path / f"config_{network}.json",
        original(is_siamese=siamese, model=model, in_filters=filters, model_name=saved),
    )
    shown = succeed(["config", "--from", str(file)]).out
    assert "# data (sample_submission_path data/sample_submission.csv" in shown
    values = yaml.safe_load(shown)
    assert [*values["train"]["models"]] == [NETWORKS[network][0]]
    config = parse_config(values, tmp_path)
    recipe = yaml.safe_load(succeed(["config", "--preset", f"original/{network}"]).out)
    assert {key: values[key] for key in ("normalisation", "train", "predict", "align")} == {
        key: recipe[key] for key in ("normalisation", "train", "predict", "align")
    }
    assert config.sensors["kanopus"].bands == {"red": 1, "green": 2, "blue": 3, "nir": 4}


def test_its_own_numbers_win(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", original(img_size=512, batch=2, patience=3, device="cpu", extra=1))
    shown = succeed(["config", "--from", str(file), "--set", "name=mine"]).out
    values = yaml.safe_load(shown)
    train = values["train"]
    assert (train["patch"], train["global_batch"], train["patience"], train["epochs"]) == (512, 2, 3, 150)
    assert (values["name"], values["resources"]["gpus"]) == ("mine", 0)
    assert "not carried over, cdpipe has no such setting: extra" in shown


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (original(model="vgg", model_name="vgg11", pretrained=None), "expected one of the original's networks"),
        (original(is_siamese=True, model_name="siamese_resnet34"), "the original had no siamese_resnet34"),
        (original(batch="many"), "batch: expected a whole number, got 'many'"),
        (original(activation="softmax2d"), "activation: expected sigmoid"),
        ([], "expected a JSON object"),
    ],
)
def test_what_it_cannot_mean_is_said(tmp_path: Path, values: Any, message: str) -> None:
    found = call(["config", "--from", str(write(tmp_path / "c.json", values))])
    assert found.code == EXIT_CONFIG
    assert message in found.err


def test_the_whole_of_a_configuration_is_shown_and_runs_as_shown(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: a\ncatalog: pairs.csv\nworkspace: work\nsensors: {s: {bands: {red: 1, green: 2, blue: 3}}}\n"
        "preset: original/siamese_dpn92\n"
    )
    values = yaml.safe_load(succeed(["config", str(path), "--set", "train.seed=3"]).out)
    assert "preset" not in values
    assert values["train"]["seed"] == 3
    assert values["train"]["models"]["siamese_unet_dpn92"]["architecture"] == "siamese_dpn92"
    assert Path(values["catalog"]) == tmp_path / "pairs.csv"


def test_without_a_source_the_presets_are_listed() -> None:
    for arguments in (["config"], ["config", "--preset", "newest"]):
        found = call(arguments)
        assert found.code == EXIT_CONFIG
        assert all(name in found.err for name in PRESETS)
