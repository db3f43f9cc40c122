"""Model folders: what is loaded is what was saved, or it is refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from cdpipe.errors import InputError, IntegrityError
from cdpipe.keys import content_key
from cdpipe.models import folder as model_io
from cdpipe.models.folder import CARD, WEIGHTS, ModelCard, check_trained, load_network, read_card, save_model
from cdpipe.models.networks import build_model
from cdpipe.workspace.location import here

KEYED = ("architecture", "arguments", "statistics", "together", "patch", "weights_sha256")
ARGUMENTS = {"encoder": "mobilenet_v2", "encoder_depth": 3, "decoder_channels": (16, 8, 8)}
DRAFT = ModelCard(
    name="mine",
    architecture="unetplusplus",
    arguments=ARGUMENTS,
    roles=("red", "green", "blue"),
    statistics="common",
    together=False,
    patch=32,
    weights_sha256="",
    training_key="0123456789ab",
    threshold=0.1 + 0.2,
    metrics={"iou": 0.7, "per pair": {"a": None}},
)


def make_network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    network = build_model(DRAFT.architecture, **ARGUMENTS)
    with torch.no_grad():  # so that batch statistics, which are saved too, are not those of a fresh network
        network.train()(torch.randn(2, 1, 32, 32))
    return network.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard]:
    folder = tmp_path_factory.mktemp("models") / "mine"
    return folder, save_model(here(folder), DRAFT, make_network().state_dict())


@pytest.fixture
def copy(saved: tuple[Path, ModelCard], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[0], tmp_path / "copy"))


def change_card(folder: Path, **values: Any) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | values))


def test_a_saved_network_comes_back_bit_by_bit(saved: tuple[Path, ModelCard]) -> None:
    folder, written = saved
    card = read_card(here(folder))
    assert card.key == written.key
    assert card == dataclasses.replace(written, arguments={**ARGUMENTS, "decoder_channels": [16, 8, 8]})
    assert written == dataclasses.replace(DRAFT, weights_sha256=here(folder / WEIGHTS).sha256())
    network, original = load_network(here(folder), card), make_network()
    assert not network.training
    expected, state = original.state_dict(), network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert all(state[name].dtype == expected[name].dtype for name in expected)
    x = torch.randn(1, 1, 64, 32)
    with torch.inference_mode():
        assert torch.equal(network(x), original(x))


def test_the_same_weights_are_the_same_bytes(saved: tuple[Path, ModelCard], tmp_path: Path) -> None:
    state = make_network().state_dict()
    turned = {name: tensor.clone().T.contiguous().T if tensor.ndim == 2 else tensor for name, tensor in state.items()}
    again = save_model(here(tmp_path / "again"), DRAFT, dict(reversed(turned.items())))
    assert again == saved[1]
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (saved[0] / WEIGHTS).read_bytes()
    assert (tmp_path / "again" / CARD).read_bytes() == (saved[0] / CARD).read_bytes()


@pytest.mark.parametrize("place", [0.0, 0.0001, 0.3, 0.7, 1.0])
def test_a_flipped_bit_in_the_weights_is_noticed(copy: Path, place: float) -> None:
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors is not the file that model\.json describes"):
        load_network(here(copy), read_card(here(copy)))


def test_missing_or_cut_off_weights_are_noticed(copy: Path) -> None:
    data = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match="is not the file"):
        load_network(here(copy), read_card(here(copy)))
    (copy / WEIGHTS).unlink()
    with pytest.raises(IntegrityError, match=r"cannot load model\.safetensors"):
        load_network(here(copy), read_card(here(copy)))


def test_weights_of_another_network_are_noticed(copy: Path) -> None:
    other = build_model("unetplusplus", **(ARGUMENTS | {"decoder_channels": (16, 8, 4)}))
    save_model(here(copy), DRAFT, other.state_dict())
    with pytest.raises(IntegrityError, match=r"(?s)cannot load model\.safetensors.*size mismatch"):
        load_network(here(copy), read_card(here(copy)))
    (copy / WEIGHTS).write_bytes(b"not weights")
    change_card(copy, weights_sha256=here(copy / WEIGHTS).sha256())
    with pytest.raises(IntegrityError, match=r"cannot load model\.safetensors"):
        load_network(here(copy), read_card(here(copy)))


def test_a_folder_without_a_readable_card_is_no_model(copy: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError, match=r"expected a model folder with a readable model\.json"):
            read_card(here(folder))
    (copy / CARD).write_bytes((copy / CARD).read_bytes()[:-10])
    with pytest.raises(InputError, match="expected a model folder"):
        read_card(here(copy))


@pytest.mark.parametrize("text", ["[]", "{}", '{"roles": 3}', '{"roles": ["red"]}', "5"])
def test_another_json_file_is_no_card(copy: Path, text: str) -> None:
    (copy / CARD).write_text(text)
    with pytest.raises(InputError, match=r"model\.json is not one that cdpipe wrote"):
        read_card(here(copy))


def test_a_card_of_a_network_that_does_not_exist_is_refused(copy: Path) -> None:
    change_card(copy, architecture="unet3000")
    with pytest.raises(InputError, match="no model named 'unet3000'; there are unetplusplus"):
        read_card(here(copy))
    change_card(copy, architecture="unetplusplus", arguments={"depth": 3})
    with pytest.raises(InputError, match=r"model\.json: unetplusplus has no option depth"):
        load_network(here(copy), read_card(here(copy)))


def test_encoder_weights_are_not_fetched_to_be_overwritten(copy: Path) -> None:
    card = dataclasses.replace(read_card(here(copy)), arguments=ARGUMENTS | {"encoder_weights": "imagenet"})
    assert not load_network(here(copy), card).training  # tests run offline


def test_a_kill_before_the_card_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(path: Path, _: object) -> None:
        assert path.name == CARD
        raise KeyboardInterrupt

    monkeypatch.setattr(model_io, "write_sealed", die)
    with pytest.raises(KeyboardInterrupt):
        save_model(here(tmp_path / "m"), DRAFT, {"a": torch.zeros(3)})
    with pytest.raises(InputError, match="expected a model folder"):
        read_card(here(tmp_path / "m"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_weights_of_any_type_are_saved_as_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor: Tensor = torch.arange(12).reshape(3, 4).to(dtype).T.requires_grad_(dtype.is_floating_point)
    save_model(here(tmp_path), DRAFT, {"a": tensor})
    read = safetensors.torch.load_file(tmp_path / WEIGHTS)["a"]
    assert read.dtype == dtype
    assert torch.equal(read, tensor)


@pytest.mark.parametrize(
    "change",
    [{"name": "other"}, {"training_key": None}, {"threshold": 0.9}, {"metrics": {}}],
    ids=lambda change: next(iter(change)),
)
def test_a_key_does_not_depend_on_what_does_not_bear_on_predictions(change: dict[str, Any]) -> None:
    assert dataclasses.replace(DRAFT, **change).key == DRAFT.key


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "ab"},
        {"patch": 64},
        {"statistics": "per_date"},
        {"together": True},
        {"roles": ("blue", "green", "red")},
        {"architecture": "siamese_resnet18"},
        {"arguments": {**ARGUMENTS, "encoder_depth": 4}},
        {"clip": 4.0},
        {"method": "robust"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_key_depends_on_what_bears_on_predictions(change: dict[str, Any]) -> None:
    assert dataclasses.replace(DRAFT, **change).key != DRAFT.key


def test_a_key_depends_on_every_weight(tmp_path: Path) -> None:
    state = {"a": torch.zeros(100), "b": torch.zeros(100)}
    keys = {save_model(here(tmp_path), DRAFT, state).key}
    state["b"][57] = 1e-45  # the smallest there is
    keys.add(save_model(here(tmp_path), DRAFT, state).key)
    assert len(keys) == 2


def test_weights_that_learned_with_another_arithmetic_are_not_run(tmp_path: Path) -> None:
    draft = dataclasses.replace(DRAFT, architecture="snunet", arguments={"channels": 16}, revision=2)
    state = build_model("snunet", channels=16).state_dict()
    check_trained(here(tmp_path), save_model(here(tmp_path), draft, state))
    card = json.loads((tmp_path / CARD).read_text())
    del card["revision"]  # as cards were before networks had revisions
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"trained with revision 1 of snunet.* revision 2.*init_from: "):
        check_trained(here(tmp_path), read_card(here(tmp_path)))
    change_card(tmp_path, training_key=None)  # imported weights are the published ones, whenever that was
    check_trained(here(tmp_path), read_card(here(tmp_path)))


def test_a_network_s_revision_is_part_of_what_its_models_are_known_by() -> None:
    card = dataclasses.replace(DRAFT, architecture="snunet", arguments={})
    parts = {name: value for name, value in dataclasses.asdict(card).items() if name in KEYED}
    assert card.key != content_key("model", {**parts, "roles": list(card.roles)})
    parts = {name: value for name, value in dataclasses.asdict(DRAFT).items() if name in KEYED}
    assert DRAFT.key == content_key("model", {**parts, "roles": list(DRAFT.roles)})  # others are known as they were
