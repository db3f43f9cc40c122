"""Files that ``cdpipe export`` wrote predict as the model did; whatever else a file holds is refused and never run."""

import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from project import untrained_model
from rasters import make_config

from cdpipe.config.load import load_config
from cdpipe.errors import ConfigError, InputError, IntegrityError
from cdpipe.inference import backends
from cdpipe.inference.export import export_network, random_scene
from cdpipe.inference.exported import make_exported_forward
from cdpipe.inference.graphs import load_graph
from cdpipe.inference.patches import Execution
from cdpipe.models.ensemble_folder import EnsembleCard, EnsembleMember, check_members, read_ensemble
from cdpipe.models.folder import read_card
from cdpipe.prediction.block import Member, probability_key
from cdpipe.prediction.in_memory import predict_array
from cdpipe.runs.ensembles import EnsembleFolder, write_ensemble
from cdpipe.runs.members import plan_members, untrained_sources
from cdpipe.runs.verify import _is_there
from cdpipe.training.plan import needed_bands
from cdpipe.workspace.location import here

KINDS = {"pt2": 3, "onnx": 1}  # and how many patches each takes at once


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("models"), "net")


@pytest.fixture(scope="module")
def files(model: Path) -> dict[str, Path]:
    """The model as files, which go by other names."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    found = {}
    for kind, batch in KINDS.items():
        found[kind] = model.parent / f"given-{kind}.{kind}"
        export_network(here(model), read_card(here(model)), kind, here(found[kind]), batch)
    return found


def dates() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(0)
    before, after = (random.normal(1000, 100, (3, 90, 130)).astype(np.float32) for _ in range(2))
    after[:, 20:50, 30:80] += 800
    before[:, :5] = np.nan
    return before, after


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_a_file_predicts_as_its_model(kind: str, tta: str, model: Path, files: dict[str, Path]) -> None:
    expected = predict_array(*dates(), model, tta=tta)
    found = predict_array(*dates(), files[kind], tta=tta)
    assert np.isnan(found[:5]).all()
    assert np.nanmax(np.abs(found - expected)) < 1e-5
    assert np.nanstd(expected) > 1e-3, "not all the same"


def test_its_graph_has_the_bits_of_torch(files: dict[str, Path], model: Path) -> None:
    scene = torch.from_numpy(random_scene(read_card(here(model)).recipe, (3, 1, 64, 64)))
    with torch.inference_mode():
        assert torch.equal(load_graph(files["pt2"])(scene), torch.export.load(files["pt2"]).module()(scene))


@pytest.mark.parametrize("kind", KINDS)
def test_its_card_is_what_its_contract_says_and_its_key_is_of_its_bytes(
    kind: str, model: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    own, card = read_card(here(model)), read_card(here(files[kind]))
    assert (card.name, card.patch, card.threshold, card.recipe) == (f"given-{kind}", 64, own.threshold, own.recipe)
    other = tmp_path / f"other.{kind}"
    other.write_bytes(files[kind].read_bytes())
    assert read_card(here(other)).key == card.key != own.key
    with other.open("ab") as stream:
        stream.write(b"\x70\x01" if kind == "onnx" else b"")  # an unknown field, and nothing
    if kind == "onnx":
        assert read_card(here(other)).key != card.key
    run = Execution("d4", "float32", "cpu", 1, kind)
    keys = {probability_key("0", Member(each, here(model), "m", None, 1.0, 0.25, run)) for each in (own, card)}
    assert len(keys) == 2


def test_it_takes_part_beside_trained_models_by_its_path(files: dict[str, Path], tmp_path: Path) -> None:
    """A path counts from the configuration; the member goes by the file's name, for weights and thresholds, too."""
    given = tmp_path / "given.pt2"
    given.write_bytes(files["pt2"].read_bytes())
    config = load_config(make_file(tmp_path, members=["given.pt2", "mad", "unetplusplus"], weights={"given": 2.0}), [])
    assert config.predict.takes_trained
    assert config.predict.files == (str(given),)
    assert config.predict.member_names == ("given", "mad", "unetplusplus")
    alone = load_config(
        make_file(tmp_path, members=["given.pt2", "mad"], weights={"given": 2.0}, backend="openvino"), []
    )
    assert not alone.predict.takes_trained
    assert needed_bands(alone) == ("red", "green", "blue")
    pytest.importorskip("openvino", reason="openvino is not installed")
    members = plan_members(alone, untrained_sources(alone), "cpu")
    assert {each.name: each.weight for each in members} == {"given": 2.0, "mad": 1.0}
    run = next(each.execution for each in members if each.name == "given")
    assert (run.backend, run.precision, run.device, run.tta) == ("pt2", "float32", "cpu", "d4")
    wrong = load_config(make_file(tmp_path, members=["given.pt2"], weights={"gone": 1.0}), [])
    with pytest.raises(ConfigError, match=r"predict\.weights: no model gone in this run, which has given"):
        plan_members(wrong, untrained_sources(wrong), "cpu")


def make_file(folder: Path, **predict: Any) -> Path:
    config = make_config(folder, predict={}).model_dump(mode="json", exclude_none=True)
    path = folder / "cdpipe.yaml"
    path.write_text(
        json.dumps({name: config[name] for name in ("name", "catalog", "workspace", "sensors")} | {"predict": predict})
    )
    return path


def test_it_is_handed_on_with_an_ensemble(files: dict[str, Path], tmp_path: Path) -> None:
    """As a folder like any model's, which predicts the same, also after the file itself is gone."""
    cards = {kind: read_card(here(file)) for kind, file in files.items()}
    members = tuple(
        EnsembleMember(card.name, card.name, None, 1.0, 1.0, 0.5, kind, card.weights_sha256)
        for kind, card in cards.items()
    )
    ensemble = EnsembleCard("run", "mean", 0.5, "x", "", {"overlap": 0.25, "tta": "none"}, members, "cdpipe")
    written = write_ensemble(EnsembleFolder(here(tmp_path / "ensemble"), ensemble, tuple(map(here, files.values()))))
    assert all(file.sha256() == digest for file, digest in written.items())
    folder = here(tmp_path / "ensemble")
    again = check_members(folder, read_ensemble(folder))
    assert [card.key for card in again] == [card.key for card in cards.values()]
    found = predict_array(*dates(), folder / "pt2", tta="none")
    assert np.array_equal(found, predict_array(*dates(), files["pt2"], tta="none"), equal_nan=True)
    handed = tmp_path / "ensemble" / "pt2" / "network.pt2"
    handed.write_bytes(handed.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=r"network\.pt2 is not the file that model\.json describes"):
        check_members(folder, read_ensemble(folder))


def test_verification_notices_another_file_of_the_same_name(files: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(files["onnx"].read_bytes())
    key = read_card(here(file)).key
    assert _is_there(here(file), key)
    assert not _is_there(here(file), "000000000000")
    file.unlink()
    assert not _is_there(here(file), key)


def rewritten(source: Path, target: Path, changes: dict[str, Callable[[bytes], bytes]]) -> Path:
    """A copy of a .pt2 with some entries, told by how they end, made others; at most one new."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            change = next((each for end, each in changes.items() if name.endswith(end)), bytes)
            new.writestr(name, change(old.read(name)))
    return target


def in_json(*path: Any, value: Any) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        whole = inner = json.loads(data)
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        return json.dumps(whole).encode()

    return change


class Payload:
    """What would run if it were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


NODES = ("graph_module", "graph", "nodes")
FROM_FILE = {"target": "torch.ops.aten.from_file.default", "inputs": [], "outputs": [], "name": "x"}
HOSTILE = {
    "an operation that reads files": ({"models/model.json": in_json(*NODES, 0, value=FROM_FILE)}, "from_file"),
    "an operation that is none of torch": (
        {"models/model.json": in_json(*NODES, 0, "target", value="os.system")},
        "the operation os.system",
    ),
    "an expression": (
        {"models/model.json": in_json(*NODES, 1, "inputs", 1, "arg", value={"as_expr": {"expr_str": "print(1)"}})},
        "an argument as_expr",
    ),
    "another format": ({"models/model.json": in_json("schema_version", "major", value=99)}, "export it again"),
    "no JSON": ({"models/model.json": lambda _: b"[]"}, "is not what this version's cdpipe export writes"),
    "a weight that is too short": ({"weights/weight_0": lambda data: data[:8]}, "cdpipe export writes"),
    "a weight that is no number": (
        {"weights/weight_0": lambda data: b"\xff" * len(data)},
        "NaN or infinity",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_file_holds_beside_operators_refuses_it(case: str, files: dict[str, Path], tmp_path: Path) -> None:
    changes, says = HOSTILE[case]
    file = rewritten(files["pt2"], tmp_path / "net.pt2", changes)
    refuse(file, says)


def test_objects_are_never_unpickled(files: dict[str, Path], tmp_path: Path) -> None:
    def with_pickle(data: bytes) -> bytes:
        config = json.loads(data)
        for told in config["config"].values():
            told["use_pickle"] = True
        return json.dumps(config).encode()

    bomb = pickle.dumps(Payload(tmp_path / "mark"))
    changes = {"model_weights_config.json": with_pickle, "weights/weight_0": lambda _: bomb}
    changes |= {"sample_inputs/model.pt": lambda _: bomb}
    refuse(rewritten(files["pt2"], tmp_path / "net.pt2", changes), "as a Python object, which cdpipe never loads")
    changes.pop("model_weights_config.json")
    changes.pop("weights/weight_0")
    load_graph(rewritten(files["pt2"], tmp_path / "net2.pt2", changes))
    assert not (tmp_path / "mark").exists()


def refuse(file: Path, says: str) -> None:
    """It is refused in one line when its network is opened."""
    card = read_card(here(file))
    with pytest.raises(InputError) as caught:
        make_exported_forward(here(file), card, Execution("none", "float32", "cpu", 1, "pt2"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_files_without_a_contract_that_can_be_kept_are_refused_with_the_way_out(
    kind: str, files: dict[str, Path], tmp_path: Path
) -> None:
    whole = files[kind].read_bytes()
    (tmp_path / f"random.{kind}").write_bytes(bytes(range(256)) * 40)
    (tmp_path / f"empty.{kind}").write_bytes(b"")
    (tmp_path / f"cut.{kind}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"two words.{kind}").write_bytes(whole)
    (tmp_path / f"other.{kind}").write_bytes(whole.replace(b'"input": {', b'"xnput": {'))
    for name in ("random", "empty", "cut", "two words", "none", "other"):
        with pytest.raises(InputError, match=r"cdpipe export|rename it") as caught:
            read_card(here(tmp_path / f"{name}.{kind}"))
        assert "\n" not in str(caught.value)


def test_a_pt2_of_others_is_refused(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Sigmoid())
    torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 8, 8),)), tmp_path / "theirs.pt2")
    with pytest.raises(InputError, match="has no contract of cdpipe's inside, so nobody knows what its channels are"):
        read_card(here(tmp_path / "theirs.pt2"))


CONTRACT_MISTAKES: dict[str, Callable[[dict[str, Any]], None]] = {
    "another kind": lambda told: told["input"].update(kind="radar"),
    "no bands": lambda told: told["input"].pop("bands"),
    "too many channels": lambda told: told["input"].update(shape=[3, 7, 64, 64]),
    "no square": lambda told: told["input"].update(shape=[3, 1, 64, 32]),
    "a threshold of 7": lambda told: told["output"].update(threshold=7),
    "an unknown detector": lambda told: told["input"].update(detectors=["x"]),
    "another method": lambda told: told["normalisation"].update(method="magic"),
}


@pytest.mark.parametrize("mistake", CONTRACT_MISTAKES)
def test_a_contract_that_is_not_kept_is_refused(mistake: str, files: dict[str, Path], tmp_path: Path) -> None:
    def change(data: bytes) -> bytes:
        told = json.loads(data)
        CONTRACT_MISTAKES[mistake](told)
        return json.dumps(told).encode()

    file = rewritten(files["pt2"], tmp_path / "net.pt2", {"extra/cdpipe.json": change})
    with pytest.raises(InputError, match="its contract is none that this version keeps"):
        read_card(here(file))


def test_what_is_not_installed_is_told_before_any_work(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    config = load_config(make_file(tmp_path, members=[str(files["onnx"])]), [])
    with pytest.raises(ConfigError, match=r"onnxruntime, not installed here; install cdpipe with its extra \[onnx\]"):
        plan_members(config, untrained_sources(config), "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_takes_something_else_than_it_says_is_refused(kind: str, files: dict[str, Path]) -> None:
    card = read_card(here(files[kind]))
    for other in (replace(card, patch=32), replace(card, arguments={**card.arguments, "batch": 2})):
        with pytest.raises(InputError, match="cannot be run") as caught:
            make_exported_forward(here(files[kind]), other, Execution("none", "float32", "cpu", 1, kind))
        assert "\n" not in str(caught.value)
