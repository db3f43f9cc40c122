"""Weights that others saved become model folders, or are refused with a way out; nothing in them is ever run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from project import call, succeed
from test_published import other_weights, published, small
from torch import Tensor

from cdpipe.errors import EXIT_CONFIG, EXIT_INPUT, InputError
from cdpipe.models.folder import check_trained, load_network, read_card
from cdpipe.models.networks import build_model
from cdpipe.models.reading import read_weights
from cdpipe.workspace.location import here

SIAMESE = ("--model", "siamese_resnet18", "--set", "arguments.decoder_channels=[8, 8, 12, 16]")


def release(classes: int) -> dict[str, Tensor]:
    """Weights as the release has them: names behind ``module.``, a last layer of so many classes."""
    weights = other_weights()
    weights["final.0.weight"], weights["final.0.bias"] = torch.rand(classes, 4, 1, 1), torch.rand(classes)
    return {f"module.{key}": value for key, value in weights.items()}


def save(path: Path, value: Any, **options: Any) -> str:
    torch.save(value, path, **options)
    return str(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_release_file_is_what_training_starts_from(tmp_path: Path, zipped: bool) -> None:
    weights = release(classes=5)
    value = {"epoch": 12, "state_dict": weights, "best_score": np.float64(0.8125), "lr": np.float32(0.5)}
    file = save(tmp_path / "xview_best", value, _use_new_zipfile_serialization=zipped)
    out = tmp_path / "m"
    said = succeed(["import-weights", file, *SIAMESE, "--out", str(out)]).out
    assert "epoch 12, best_score 0.8125, lr 0.5" in said
    assert "fresh layer of one class: final.weight, final.bias; train it before" in said
    card = read_card(here(out))
    loaded = published(load_network(here(out), card))
    same = [key for key, value in loaded.items() if torch.equal(value, weights[f"module.{key}"])]
    assert set(loaded) - set(same) == {"final.0.weight", "final.0.bias"}
    with pytest.raises(InputError, match=r"final.weight, final.bias never learned anything"):
        check_trained(here(out), card)


def test_a_plain_state_dict_of_one_class_is_ready_to_predict(tmp_path: Path) -> None:
    state = small().state_dict()
    for name, file in {
        "zip": save(tmp_path / "a.pth", state),
        "tensors": str(tmp_path / "b.safetensors"),
    }.items():
        safetensors.torch.save_file(state, tmp_path / "b.safetensors")
        out = tmp_path / name
        assert "ready to predict" in succeed(["import-weights", file, *SIAMESE, "--out", str(out), "--patch", "64"]).out
        card = read_card(here(out))
        assert (card.name, card.patch, card.statistics, card.together) == (name, 64, "per_date", True)
        check_trained(here(out), card)
        loaded = load_network(here(out), card).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_how_a_network_of_bands_was_normalised_is_said_when_it_is_imported(tmp_path: Path) -> None:
    options = {"encoder": "plain8", "bands": ["nir", "red"]}
    state = build_model("siamese_unet", **options).state_dict()
    file, out = save(tmp_path / "a.pth", state), tmp_path / "m"
    chosen = ["--model", "siamese_unet", "--set", "encoder=plain8", "--set", "bands=[nir, red]", "--bands", "each"]
    said = succeed(["import-weights", file, *chosen, "--method", "robust", "--clip", "3", "--out", str(out)]).out
    assert "per_date statistics, bands each, method robust, clip 3.0" in said
    card = read_card(here(out))
    assert (card.arguments, card.roles, card.method, card.clip) == (options, ("nir", "red"), "robust", 3.0)
    assert card.recipe.channels == 4
    loaded = load_network(here(out), card).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "unetplusplus", "--method", "robust"], "bands: together is for method: moments"),
        (["--model", "unetplusplus", "--method", "robust", "--bands", "each"], "a difference of the greys is normal"),
        (["--model", "unetplusplus", "--clip", "-1"], "clip"),
        (["--model", "unetplusplus", "--clip", "much"], "clip"),
    ],
)
def test_a_normalisation_that_does_not_exist_is_refused(tmp_path: Path, options: list[str], message: str) -> None:
    file = save(tmp_path / "a.pth", {"a": torch.zeros(1)})
    result = call(["import-weights", file, *options, "--out", str(tmp_path / "m")])
    assert result.code == EXIT_CONFIG
    assert message in result.err
    assert not (tmp_path / "m").exists()


class Touch:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_whole_module_is_never_loaded(tmp_path: Path) -> None:
    file = save(tmp_path / "saved.pth", {"state_dict": {}, "bomb": Touch(tmp_path / "ran")})
    found = call(["import-weights", file, *SIAMESE, "--out", str(tmp_path / "m")])
    assert found.code == EXIT_INPUT
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "m").exists()
    file = save(tmp_path / "whole.pth", small())
    found = call(["import-weights", file, *SIAMESE, "--out", str(tmp_path / "m")])
    assert found.code == EXIT_INPUT
    assert "cdpipe.models.siamese.SiameseUnet" in found.err
    assert "torch.save(network.state_dict(), 'whole_state.pth')" in found.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello world", "cannot be read"),
        (b"", "cannot be read"),
        (pickle.dumps({"a": 1}), "expected a"),
        (None, "there is no such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_weights(path)


def test_what_does_not_fit_is_listed_and_nothing_written(tmp_path: Path) -> None:
    weights = release(classes=1)
    del weights["module.bottlenecks.0.seq.0.bias"]
    weights["module.stray"] = torch.zeros(1)
    file = save(tmp_path / "x.pth", weights)
    found = call(["import-weights", file, *SIAMESE, "--out", str(tmp_path / "m")])
    assert found.code == EXIT_INPUT
    assert "1 left over: stray" in found.err
    assert "1 missing: bottlenecks.0.0.bias" in found.err
    assert not (tmp_path / "m").exists()
    for wrong, message in (
        (["--model", "siamese"], "no model named 'siamese'"),
        ([*SIAMESE, "--set", "encodr=x"], "encodr: unknown key; did you mean encoder?"),
    ):
        found = call(["import-weights", file, *wrong, "--out", str(tmp_path / "m")])
        assert found.code == EXIT_CONFIG
        assert message in found.err


def test_a_model_folder_is_never_overwritten(tmp_path: Path) -> None:
    file = save(tmp_path / "x.pth", small().state_dict())
    succeed(["import-weights", file, *SIAMESE, "--out", str(tmp_path / "m")])
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    found = call(["import-weights", file, *SIAMESE, "--out", str(tmp_path / "m")])
    assert found.code == EXIT_INPUT
    assert "is a model folder already" in found.err
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
