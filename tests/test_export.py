"""Networks leave as files that run elsewhere, with their contract, and models as STAC Items."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import torch
from numpy.typing import NDArray
from project import UNETPLUSPLUS, call, untrained_model
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from cdpipe.errors import EXIT_CONFIG, EXIT_INPUT, CdpipeError
from cdpipe.inference import export
from cdpipe.inference.export import FORMATS, export_network, random_scene
from cdpipe.models.contract import name_channels
from cdpipe.models.folder import ModelCard, load_network, read_card, save_model
from cdpipe.models.networks import build_model
from cdpipe.models.stac_item import ITEM, stac_files
from cdpipe.store.normalisation import DateScaling, InputKind, Recipe, combine_dates
from cdpipe.workspace.location import here

PAGE = Path(__file__).resolve().parents[1] / "docs" / "howto" / "export.md"
RGB = ("red", "green", "blue")


def snippets(word: str) -> str:
    """The page's Python that has a word in it."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(block for block in blocks if word in block)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("models"), "net")


def scene_of(card: ModelCard, batch: int = 1) -> NDArray[np.float32]:
    return random_scene(card.recipe, (batch, card.recipe.channels, card.patch, card.patch))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_runs_elsewhere_as_the_page_says(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in FORMATS[kind].packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    card, name = read_card(here(model)), f"unetplusplus{FORMATS[kind].suffix}"
    shown = call(["export", str(model), "--out", str(tmp_path / name), "--batch", "2"])
    assert (shown.code, shown.err) == (0, "")
    assert f"wrote {tmp_path / name}\n" in shown.out
    scene = scene_of(card, 2) * np.float32(0.5)
    with torch.inference_mode():
        expected = load_network(here(model), card)(torch.from_numpy(scene)).sigmoid().numpy()
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"scene": scene}
    exec(snippets(name), found)  # noqa: S102
    assert np.abs(found["probability"] - expected).max() < 1e-5
    contract = found["contract"]
    assert contract["input"]["shape"] == [2, 1, 64, 64]
    assert contract["input"]["channels"] == ["before grey minus after grey"]
    assert contract["model"]["key"] == card.key
    assert contract["file"]["format"] == kind
    again = export_network(here(model), card, kind, here(tmp_path / "again" / name), 2)
    for file in again.files:
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_the_weights_load_in_plain_torch_as_the_page_says(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    card = read_card(here(model))
    found: dict[str, Any] = {"scene": scene_of(card), "torch": torch}
    exec(snippets("smp.create_model"), found)  # noqa: S102
    assert torch.equal(found["logits"], load_network(here(model), card)(torch.from_numpy(found["scene"])))


def test_another_network_is_never_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CLOSE", -1.0)
    with pytest.raises(CdpipeError, match="probabilities differ from torch's by up to 0, expected at most -1"):
        export_network(here(model), read_card(here(model)), "pt2", here(tmp_path / "net.pt2"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["irmad", "--out", "x.pt2"], EXIT_CONFIG, "irmad is a detector and has no network to export"),
        (["MODEL", "--out", "x.pth"], EXIT_CONFIG, "expected a name that ends in .onnx, .pt2, .xml, or a format"),
        (["MODEL", "--out", "x.onnx", "--format", "pt2"], EXIT_CONFIG, "expected a name that ends in .pt2 for pt2"),
        (["MODEL", "--out", "x.pt2", "--batch", "0"], EXIT_CONFIG, "expected a batch of at least one patch, got 0"),
        (["nowhere", "--out", "x.pt2"], EXIT_INPUT, "expected a model folder with a readable model.json"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], code: int, says: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = call(["export", *(str(model) if each == "MODEL" else each for each in arguments)])
    assert (shown.code, shown.out) == (code, "")
    assert says in shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_why_a_network_cannot_be_exported_is_told_in_a_line(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of what failed first."""
    for package in FORMATS[kind].packages:
        pytest.importorskip(package, reason=f"{package} is not installed")

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x  # what the pixels decide

    monkeypatch.setattr(export, "load_network", lambda *_: Odd())
    shown = call(["export", str(model), "--out", str(tmp_path / f"x{FORMATS[kind].suffix}")])
    assert shown.code == EXIT_CONFIG
    assert shown.err.count("\n") == 1
    assert f"unetplusplus cannot be exported to {kind}: GuardOnDataDependentSymNode: " in shown.err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    shown = call(["export", str(model), "--out", str(tmp_path / "x.onnx")])
    assert shown.code == EXIT_CONFIG
    assert "needs the package(s) onnxscript, not installed here; install cdpipe with its extra [onnx]" in shown.err


@pytest.mark.parametrize("kind", ["difference", "band_difference", "stacked", "stacked_difference"])
def test_channels_are_named_in_their_order(kind: InputKind) -> None:
    """By giving each band of each date a number of its own."""
    recipe = Recipe(kind, RGB, "common", together=False)
    grey = kind == "difference"
    roles, dates = (("grey",) if grey else RGB), ("before", "after")
    numbers = {f"{date} {role}": 10.0**place for place, (date, role) in enumerate(product(dates, roles))}
    before, after = (np.array([[[numbers[f"{date} {role}"]]] for role in roles], np.float32) for date in dates)
    scaling = DateScaling((0, 1, 2), ((1.0, 0.0),) * 3, (1.0, 0.0) if grey else None, kind)
    values = combine_dates(before, after, (scaling, scaling))[:, 0, 0]
    names = name_channels(recipe)
    assert len(names) == recipe.channels
    for name, value in zip(names, values, strict=True):
        first, *second = (numbers[part] for part in name.split(" minus "))
        assert value == np.float32(first - sum(second))


def test_a_model_is_a_stac_item(tmp_path: Path) -> None:
    """Valid by pystac and the schemas it brings; read by its extension for models."""
    arguments: dict[str, Any] = {**UNETPLUSPLUS, "input": "stacked"}
    network = build_model("unetplusplus", **arguments)
    draft = ModelCard("m", "unetplusplus", arguments, RGB, "common", False, 64, "", clip=4.0, threshold=0.25)
    card = save_model(here(tmp_path), draft, network.state_dict(), stac_files)
    values = json.loads((tmp_path / ITEM).read_text())
    JsonSchemaSTACValidator().validate_core(values, pystac.STACObjectType.ITEM, "1.1.0", ITEM)
    weights = tmp_path / values["assets"]["weights"]["href"]
    assert values["assets"]["weights"]["file:size"] == weights.stat().st_size
    assert values["assets"]["weights"]["file:checksum"].endswith(card.weights_sha256)
    mlm = pytest.importorskip("pystac.extensions.mlm", reason="pystac-ext-mlm is not installed")
    item = pystac.Item.from_dict(values)
    said = mlm.MLMExtension.ext(item)
    assert (said.mlm_name, said.architecture, said.framework) == (f"cdpipe {card.key}", "unetplusplus", "PyTorch")
    (scene,), (result,) = said.input, said.output
    assert [str(band) if isinstance(band, str) else band.name for band in scene.bands] == [*RGB, *RGB]
    assert list(scene.input.shape) == [-1, 6, 64, 64]
    assert list(result.result.shape) == [-1, 1, 64, 64]
    assert mlm.AssetGeneralMLMExtension.ext(item.assets["weights"]).artifact_type == "safetensors"
