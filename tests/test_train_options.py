"""Losses and augmentation in the configuration: how they may be written, and what is refused with a hint."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rasters import make_config

from cdpipe.config.load import parse_config, to_yaml
from cdpipe.config.presets import PRESETS
from cdpipe.config.train import Train
from cdpipe.errors import ConfigError
from cdpipe.workspace.location import here


def train(**options: Any) -> Train:
    return make_config(Path("/nowhere"), train=options).train


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        train(**options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "terms"),
    [
        ("soft_jaccard", {"soft_jaccard": {"weight": 1}}),
        (["dice", "bce"], {"dice": {"weight": 1}, "bce": {"weight": 1, "positive_weight": 1}}),
        ({"dice": 2, "focal": {"gamma": 1}}, {"dice": {"weight": 2}, "focal": {"weight": 1, "gamma": 1}}),
        (
            {"tversky": {"weight": 0.5, "alpha": 0.1, "beta": 0.9}},
            {"tversky": {"weight": 0.5, "alpha": 0.1, "beta": 0.9}},
        ),
    ],
)
def test_losses_are_names_or_weights_or_options(given: Any, terms: dict[str, Any]) -> None:
    assert train(loss=given).loss.model_dump(exclude_none=True) == terms


def test_a_list_of_transforms_spells_out_the_defaults_of_our_own() -> None:
    found = train(augment=["D4", {"BandJitter": {"gain": 0.2}}, {"ShiftDate": None}]).augment
    assert found == (
        {"D4": {"p": 1.0}},
        {"BandJitter": {"p": 1.0, "gain": 0.2, "offset": 0.1, "band_gain": 0.1, "band_offset": 0.1}},
        {"ShiftDate": {"p": 0.3, "pixels": 1}},
    )
    assert train(augment=[{"Affine": {"scale": [0.8, 1.2]}}]).augment == ({"Affine": {"scale": [0.8, 1.2]}},)
    assert train(augment=["D4"]) == train()
    assert train(augment=[]).augment == ()


def weights(given: Any) -> Any:
    return train(models={"unet": {"encoder": "resnet18", "encoder_weights": given}}).models["unet"].encoder_weights


def test_encoder_weights_are_a_name_a_file_or_either_with_options() -> None:
    assert weights("imagenet") == weights({"name": "imagenet"})
    moco = "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO"
    assert (weights(moco).name, weights(moco).file) == (moco, None)
    for file in ("w.pth", "w.safetensors", "weights/w", "/a/w.tar"):
        assert weights(file) == weights({"file": file})
        assert weights(file).file is not None
    assert str(weights("w.pth").file) == "/nowhere/w.pth"  # beside the configuration, as all its paths
    config = make_config(
        Path("/nowhere"), train={"models": {"unet": {"encoder_weights": {"file": "w.pth", "bands": ["red", None]}}}}
    )
    assert parse_config(yaml.safe_load(to_yaml(config, here(Path("/nowhere")))), Path("/nowhere")) == config


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "imagenet", "file": "w.pth"}, "expected name or file, one of the two"),
        ({"other_bands": "mean"}, "expected name or file, one of the two"),
        ({"name": "imagenet", "bands": ["red"]}, "bands: are known of imagenet; they are for a file"),
        ({"file": "w.pth", "std": [1]}, "std: of which bands? give bands"),
        ({"file": "w.pth", "bands": ["red", "red"]}, "bands: expected each band once"),
        ({"file": "w.pth", "bands": [None]}, "bands: expected each band once, and at least one"),
        ({"file": "w.pth", "bands": ["red"], "mean": [1, 2]}, "mean: expected one number for each of the bands, got 2"),
        ({"file": "w.pth", "bands": ["red"], "std": [0]}, "std.0: got 0; Input should be greater than 0"),
        ({"name": "imagenet", "other_bands": "cycle"}, "Input should be 'refuse', 'mean' or 'zeros'"),
        ({"name": "imagenet", "band": ["red"]}, "encoder_weights.band: unknown key; did you mean bands?"),
        (3, "encoder_weights: got 3; Input should be a mapping"),
    ],
)
def test_mistakes_in_encoder_weights_are_told(given: Any, told: str) -> None:
    assert told in refusal(models={"unet": {"encoder_weights": given}})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss": {"dic": 1}}, "train.loss.dic: unknown key; did you mean dice?"),
        ({"loss": {"tversky": {"alpa": 1}}}, "train.loss.tversky.alpa: unknown key; did you mean alpha?"),
        ({"loss": {"bce": -1}}, "train.loss.bce.weight: got -1; Input should be greater than 0"),
        ({"loss": {}}, "train.loss: got {}; expected one or more of dice, bce, soft_jaccard, tversky, focal"),
        ({"loss": 3}, "train.loss: got 3; "),
        ({"augment": ["D4", "BandJiter"]}, "train.augment.1: got 'BandJiter'; no transform named BandJiter; did you"),
        ({"augment": ["d4"]}, "train.augment.0: got 'd4'; no transform named d4; did you mean D4?"),
        ({"augment": ["RandomScal"]}, "no transform named RandomScal; did you mean RandomScale?"),
        ({"augment": ["Compose"]}, "no transform named Compose; "),
        ({"augment": [{"BandJitter": {"gian": 1}}]}, "BandJitter: unknown argument gian, did you mean gain?"),
        (
            {"augment": [{"BandJitter": {"gain": "much"}}]},
            "BandJitter: gain: got 'much'; Input should be a valid number",
        ),
        ({"augment": [{"SwapDates": {"p": 2}}]}, "SwapDates: p: got 2; Input should be less than or equal to 1"),
        ({"augment": [{"Affine": {"scal": 1}}]}, "Affine: unknown argument scal, did you mean scale?"),
        ({"augment": [{"GaussNoise": {"std_range": [0.1, 5]}}]}, "GaussNoise: std_range: got [0.1, 5]; "),
        ({"augment": [{"RandomCrop": {"height": 96}}]}, "RandomCrop: width is missing"),
        ({"augment": [{"D4": 3}]}, "expected one transform with its arguments, such as D4: {p: 1}"),
        ({"augment": [{"D4": {}, "Affine": {}}]}, "expected one transform with its arguments, such as D4: {p: 1}"),
        ({"augment": [7]}, "expected one transform with its arguments, such as D4: {p: 1}"),
        ({"augment": "D4"}, "train.augment: got 'D4'; "),
        ({"optimizer": "sgd"}, "train.optimizer: got 'sgd'; Input should be 'adam' or 'adamw'"),
        ({"ema": 1.0}, "train.ema: got 1.0; Input should be less than 1"),
        ({"pair_weight": "equal"}, "pair_weight: equal needs sampling: pixels; cells are all drawn alike"),
    ],
)
def test_mistakes_are_told_with_what_was_meant(options: dict[str, Any], told: str) -> None:
    assert told in refusal(**options)


def test_all_mistakes_of_a_list_are_told_at_once() -> None:
    text = refusal(augment=["D5x", {"Haze": {"strenth": 1}}, "D4"], loss="dicee")
    assert "3 mistake(s)" in text
    assert "train.augment.0" in text
    assert "Haze: unknown argument strenth, did you mean strength?" in text
    assert "train.loss.dicee: unknown key; did you mean dice?" in text


def test_a_recipe_that_is_spelled_out_says_the_same() -> None:
    options = {
        "loss": {"soft_jaccard": 1, "bce": {"positive_weight": 3}},
        "augment": ["D4", "Paste", {"Affine": {"scale": [0.8, 1.2], "p": 0.5}}],
        "schedule": "cosine",
        "clip_norm": 1,
    }
    config = make_config(Path("/nowhere"), train=options)
    assert parse_config(yaml.safe_load(to_yaml(config, here(Path("/nowhere")))), Path("/nowhere")) == config


def test_the_original_recipe_names_everything_that_a_default_might_change() -> None:
    named = PRESETS["original"]["train"]
    assert Train.model_fields.keys() - named.keys() == {"models", "samples_per_epoch", "warmup", "seed", "folds"}
    recipe = make_config(Path("/nowhere"), preset="original").train
    assert recipe.loss.model_dump(exclude_none=True) == train(loss=["dice", "bce"]).loss.model_dump(exclude_none=True)
    assert (recipe.optimizer, recipe.schedule, recipe.ema, recipe.keep) == ("adam", "exponential", 0, "best")
    assert (recipe.precision, recipe.memory_format, recipe.augment) == (
        "auto_gpu",
        "channels_last",
        ({"D4": {"p": 1}},),
    )


def test_our_own_transforms_are_checked_without_what_takes_seconds_to_import() -> None:
    code = (
        "import sys; from cdpipe.config.augment import OWN; from cdpipe.config.schema import Train; "
        "Train.model_validate({'augment': list(OWN)}); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'albumentations', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
