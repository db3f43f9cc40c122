"""Which models are trained on what, and what becomes of a finished training."""

import csv
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from rasters import make_config
from stored import RGB, TINY_NET, TINY_TRAIN, bright_squares, store_pair, train_config, worker

from cdpipe.api.train import check_starts
from cdpipe.config.train import Train
from cdpipe.errors import EXIT_INPUT, ConfigError, InputError
from cdpipe.geo.grid import Window
from cdpipe.models.folder import ModelCard, load_network, read_card, save_model
from cdpipe.models.networks import build_model
from cdpipe.store.pair import LabelledPair
from cdpipe.training.job import TrainJob
from cdpipe.training.loop import BEST, HISTORY, train_model, write_checkpoint
from cdpipe.training.plan import check_buildable, finish_model, needed_bands, plan_training, trained_model
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

Pairs = tuple[LabelledPair, ...]

# Another value for every option of ``train``; a new option must be added here.
OTHER: dict[str, Any] = {
    "patch": 64,
    "global_batch": 4,
    "epochs": 9,
    "samples_per_epoch": 40,
    "learning_rate": 0.5,
    "decay": 0.5,
    "patience": 3,
    "changed_share": 0.1,
    "precision": "bfloat16",
    "seed": 1,
    "samples_per_pair": 7,
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup": 0.4,
    "clip_norm": 2.0,
    "ema": 0.9,
    "keep": "last",
    "loss": "focal",
    "sampling": "pixels",
    "pair_weight": "sqrt",
    "augment": [],
    "memory_format": "channels_last",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(here(tmp_path_factory.mktemp("plan")))


@pytest.fixture(scope="module")
def pairs(workspace: Workspace) -> Pairs:
    return tuple(store_pair(workspace, f"p{seed}", *bright_squares((100, 120), seed)) for seed in range(3))


def plan(store: Workspace, pairs: Pairs, **sections: Any) -> TrainJob:
    """The job of the only model, trained on two pairs and chosen by the third."""
    config = make_config(store.root.local(), **{"train": TINY_TRAIN, **sections})
    return plan_training(store, config, pairs[:2], pairs[2:])[0]


def with_model(**options: Any) -> dict[str, Any]:
    return TINY_TRAIN | {"models": {"unetplusplus": TINY_NET | options}}


def test_every_option_of_training_has_a_part_in_the_key(workspace: Workspace, pairs: Pairs) -> None:
    assert OTHER.keys() == Train.model_fields.keys() - {"models", "folds"}
    jobs = [plan(workspace, pairs)]
    for name, value in OTHER.items():
        base = {
            key: kept for key, kept in TINY_TRAIN.items() if (name, key) != ("samples_per_pair", "samples_per_epoch")
        }
        if name == "pair_weight":
            base["sampling"] = OTHER["sampling"]
        jobs.append(plan(workspace, pairs, train=base | {name: value}))
    jobs += [plan(workspace, pairs, normalisation={"statistics": "per_date"})]
    jobs += [plan(workspace, pairs, normalisation={"bands": "together"})]
    assert len({job.key for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "resnet18"},
        {"encoder_weights": "imagenet"},
        {"encoder_weights": {"name": "imagenet", "other_bands": "zeros"}},
        {"encoder_learning_rate": 0.1},
        {"arguments": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
        {"architecture": "siamese_resnet18", "encoder": None, "arguments": {}},
        {"bands": ["red", "green", "blue"]},
        {"input": "stacked_difference"},
    ],
)
def test_so_have_all_that_a_network_is_made_of(workspace: Workspace, pairs: Pairs, options: dict[str, Any]) -> None:
    assert plan(workspace, pairs, train=with_model(**options)).key != plan(workspace, pairs).key


def test_so_has_normalisation_as_it_comes_out(workspace: Workspace, pairs: Pairs) -> None:
    train = with_model(input="stacked")

    def key(**options: Any) -> str:
        return plan(workspace, pairs, train=train, normalisation=options).key

    different = [key(), key(clip=4), key(clip=3), key(method="robust"), key(method="robust", clip="none")]
    different += [key(bands="together"), key(statistics="per_date")]
    assert len(set(different)) == len(different)
    assert key(clip="none") == key(method="moments") == different[0]
    assert key(method="robust", clip=4) == different[3]


def test_so_have_pixels_labels_and_their_part(workspace: Workspace, pairs: Pairs) -> None:
    relabelled = dataclasses.replace(pairs[0], label_key=pairs[1].label_key)
    config = train_config(workspace.root.local())
    choices: list[tuple[Pairs, Pairs]] = [
        (pairs[:2], pairs[2:]),
        (pairs[:1], pairs[2:]),
        (pairs, pairs[2:]),
        (pairs[1:], pairs[:1]),
        ((relabelled, pairs[1]), pairs[2:]),
    ]
    made = {plan_training(workspace, config, train, val)[0].key for train, val in choices}
    assert len(made) == len(choices)


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"catalog": "other.csv", "workspace": "elsewhere"},
        {"resources": {"workers": 7, "gpus": 2}},
        {"predict": {"overlap": 0.5, "tta": "none", "threshold": 0.3}},
        {"align": {"min_overlap": 0.7}},
        {"train": TINY_TRAIN | {"models": {"mine": TINY_NET | {"architecture": "unetplusplus"}}}},
    ],
)
def test_names_paths_and_workers_have_none(workspace: Workspace, pairs: Pairs, sections: dict[str, Any]) -> None:
    assert plan(workspace, pairs, **sections).key == plan(workspace, pairs).key


def test_the_order_of_pairs_makes_no_difference(workspace: Workspace, pairs: Pairs) -> None:
    config = train_config(workspace.root.local())
    one, other = (plan_training(workspace, config, order, pairs[2:])[0] for order in (pairs[:2], pairs[1::-1]))
    assert one == other


@pytest.mark.parametrize(("split", "bad"), [("train", (0, 1)), ("val", (2,))])
def test_pairs_without_change_are_refused_by_name(tmp_path: Path, split: str, bad: tuple[int, ...]) -> None:
    workspace, stored = Workspace(here(tmp_path)), []
    for number in range(3):
        dates, label = bright_squares((70, 80), number)
        valid = np.full(label.shape, 3, np.uint8)
        if number in bad:
            valid[label == 1] = 1  # what changed was not observed at the second date
        stored.append(store_pair(workspace, f"p{number}", dates, label, valid))
    ids = ", ".join(f"p{number}" for number in bad)
    with pytest.raises(InputError, match=rf"no changed pixel in any {split} pair \({ids}\): check label.changed"):
        plan_training(workspace, train_config(tmp_path), stored[:2], stored[2:])


def test_a_pair_without_change_beside_others_is_none_the_worse(workspace: Workspace, pairs: Pairs) -> None:
    quiet = store_pair(workspace, "quiet", bright_squares((70, 80), 7)[0])
    jobs = plan_training(workspace, train_config(workspace.root.local()), [pairs[0], quiet], [quiet, pairs[2]])
    assert [item.pair.pair_id for item in jobs[0].train] == ["p0", "quiet"]


def test_both_splits_need_a_pair(workspace: Workspace, pairs: Pairs) -> None:
    for chosen, name in (((), pairs), "train"), ((pairs, ()), "val"):
        with pytest.raises(InputError, match=f"no labelled pair of the split '{name}'"):
            plan_training(workspace, train_config(workspace.root.local()), *chosen)


def test_an_epoch_covers_the_labelled_area_once(tmp_path: Path) -> None:
    workspace, stored = Workspace(here(tmp_path)), []
    for number in range(2):
        dates, label = bright_squares((200, 320), number)
        label[:, 160:] = 255
        stored.append(store_pair(workspace, f"p{number}", dates, label))
    config = train_config(tmp_path, samples_per_epoch="auto", patch=32, global_batch=3)
    samples = 2 * 200 * 160 // 32**2
    assert plan_training(workspace, config, stored, stored)[0].steps == samples // 3
    for samples_per_epoch, steps in ((17, 5), (1, 1)):
        config = train_config(tmp_path, samples_per_epoch=samples_per_epoch, global_batch=3)
        assert plan_training(workspace, config, stored, stored)[0].steps == steps


def test_strips_and_sparse_labels_train_for_some_steps_and_have_keys_of_their_own(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    dates, label = bright_squares((256, 128), 1, squares=40)
    dense = store_pair(workspace, "dense", dates, label)
    half = label.copy()
    half[:100] = 255
    partly = store_pair(workspace, "partly", dates, half)
    half[:200] = 255
    sparse = store_pair(workspace, "sparse", dates, half)
    upper, lower = (dataclasses.replace(dense, within=Window(row, 0, 64, 128)) for row in (0, 192))
    auto = train_config(tmp_path, samples_per_epoch="auto")
    steps = {}
    for name, train in {"dense": dense, "partly": partly, "sparse": sparse, "strip": upper}.items():
        steps[name] = plan_training(workspace, auto, [train], [lower])[0].steps
    assert steps == {"dense": 256 * 128 // 32**2 // 2, "partly": 156 * 128 // 32**2 // 2, "sparse": 32, "strip": 32}
    few = plan_training(workspace, train_config(tmp_path), [upper], [lower])[0]
    assert few.steps == 2, "what the configuration says holds"
    choices = [(upper, lower), (lower, upper), (upper, dense), (dense, lower)]
    keys = {plan_training(workspace, auto, [train], [val])[0].key for train, val in choices}
    assert len(keys) == len(choices)


def test_a_model_is_its_architecture_unless_it_says_so(workspace: Workspace, pairs: Pairs) -> None:
    named = TINY_TRAIN | {"models": {"mine": TINY_NET | {"architecture": "unetplusplus"}, "siamese_resnet18": {}}}
    jobs = plan_training(workspace, make_config(workspace.root.local(), train=named), pairs, pairs)
    assert [(job.name, job.architecture) for job in jobs] == [
        ("mine", "unetplusplus"),
        ("siamese_resnet18", "siamese_resnet18"),
    ]
    with pytest.raises(ConfigError, match=r"train.models.mine: .*name the model after its architecture or give"):
        plan(workspace, pairs, train=TINY_TRAIN | {"models": {"mine": {}}})


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "resnet19"},
        {"encoder": "tu-nothing"},
        {"arguments": {"depth": 3}},
        {"arguments": {"encoder_depth": 3, "decoder_channels": [16, 16]}},
        {"arguments": {"encoder_depth": "deep"}},
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_training(
    workspace: Workspace, pairs: Pairs, options: dict[str, Any]
) -> None:
    with pytest.raises(
        ConfigError, match=r"train.models.unetplusplus: no unetplusplus can be built with .*encoder: .*: "
    ):
        check_buildable(plan(workspace, pairs, train=with_model(**options)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_weights": "imagenet", "bands": ["green", "nir"]}, "imagenet has no nir; it has red, green, blue"),
        ({"arguments": {}, "patch": 40}, r"patches of 40 pixels.*divisible by 32"),
        ({"encoder": "plain8", "arguments": {"encoder_depth": 5}, "patch": 40}, "divisible by 16"),
        ({"encoder": "plain8", "arguments": {}, "encoder_weights": "imagenet"}, "plain8 has no weights 'imagenet'"),
        ({"encoder_weights": "imagnet"}, "mobilenet_v2 has no weights 'imagnet'; there are imagenet"),
    ],
)
def test_bands_and_patches_that_a_network_cannot_eat_are_refused_before_training(
    workspace: Workspace, pairs: Pairs, options: dict[str, Any], message: str
) -> None:
    patch = options.pop("patch", 64)
    with pytest.raises(ConfigError, match=message):
        check_buildable(plan(workspace, pairs, train=with_model(**options) | {"patch": patch}))


def test_a_full_size_network_takes_patches_of_any_multiple_of_8(workspace: Workspace, pairs: Pairs) -> None:
    check_buildable(plan(workspace, pairs, train=with_model(encoder="plain8", arguments={}) | {"patch": 40}))


def make_model(folder: Path, **changes: Any) -> ModelCard:
    """A model folder with the tiny network of ``TINY_NET`` and weights of its own."""
    arguments: dict[str, Any] = {**TINY_NET["arguments"], "encoder": TINY_NET["encoder"]}  # type: ignore[dict-item]
    torch.manual_seed(42)
    state = build_model("unetplusplus", **arguments).state_dict()
    card = ModelCard("mine", "unetplusplus", arguments, RGB, "common", False, 64, "")
    return save_model(here(folder), dataclasses.replace(card, **changes), state)


def test_training_starts_from_a_given_model(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    make_model(tmp_path / "start")
    shutil.copytree(tmp_path / "start", tmp_path / "copy")
    jobs = [plan(workspace, pairs, train=with_model(init_from=str(tmp_path / name))) for name in ("start", "copy")]
    assert jobs[0].key == jobs[1].key != plan(workspace, pairs).key
    seen: list[dict[str, torch.Tensor]] = []

    def wrap(network: torch.nn.Module) -> torch.nn.Module:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(jobs[0], worker(wrap=wrap))
    expected = load_network(here(tmp_path / "start"), read_card(here(tmp_path / "start"))).state_dict()
    assert all(torch.equal(seen[0][name], value) for name, value in expected.items())


def test_a_model_of_another_shape_cannot_be_started_from(tmp_path: Path, workspace: Workspace, pairs: Pairs) -> None:
    make_model(tmp_path / "start")
    wrong: list[dict[str, Any]] = [{"encoder": "resnet18"}, {"arguments": {}}, {"architecture": "siamese_resnet18"}]
    for options in wrong:
        with pytest.raises(ConfigError, match=r"train.models.unetplusplus.init_from: expected a model of .* holds"):
            plan(workspace, pairs, train=with_model(init_from=str(tmp_path / "start"), **options))
    with pytest.raises(InputError, match=r"nowhere: expected a model folder with a readable model.json"):
        plan(workspace, pairs, train=with_model(init_from=str(tmp_path / "nowhere")))


def test_bands_are_asked_for_once(tmp_path: Path, workspace: Workspace) -> None:
    assert needed_bands(make_config(workspace.root.local())) == ("red", "green", "blue")
    make_model(tmp_path / "m", roles=("nir", "red"))
    folders = [str(tmp_path / "m")] * 2
    assert needed_bands(make_config(workspace.root.local(), predict={"models": folders})) == (
        "red",
        "green",
        "blue",
        "nir",
    )


def test_a_robust_normalisation_of_greys_is_refused_before_anything_is_read(workspace: Workspace) -> None:
    def needed(model: dict[str, Any]) -> tuple[str, ...]:
        train = TINY_TRAIN | {"models": {"unetplusplus": model}}
        return needed_bands(make_config(workspace.root.local(), train=train, normalisation={"method": "robust"}))

    with pytest.raises(ConfigError, match=r"train.models.unetplusplus: .* is that of each band.*give bands: \[red, "):
        needed({})
    assert needed({"bands": ["nir"]}) == ("red", "green", "blue", "nir")
    assert needed({"input": "stacked"}) == ("red", "green", "blue")


def trained(job: TrainJob) -> Path:
    """Train a job; the checkpoint that it ends with."""
    checkpoint = job.workspace.model(job.name, job.key) / "checkpoints" / "checkpoint_7"

    def save(_: dict[str, Any] | None, files: dict[str, Any] | None) -> None:
        assert files is not None
        checkpoint.local().mkdir(parents=True, exist_ok=True)
        write_checkpoint(checkpoint.local(), files)

    train_model(job, worker(save))
    return checkpoint.local()


def test_a_finished_training_becomes_a_model_folder(tmp_path: Path, pairs: Pairs, workspace: Workspace) -> None:
    own = Workspace(here(tmp_path / "work"))
    shutil.copytree(workspace.root.local(), own.root.local())
    job = plan(own, pairs, train=TINY_TRAIN | {"epochs": 2, "learning_rate": 0.01})
    assert trained_model(job) is None
    checkpoint = trained(job)
    history = json.loads((checkpoint / HISTORY).read_text())
    weights = torch.load(checkpoint / BEST, weights_only=True)
    folder = own.model(job.name, job.key)
    (folder / "progress.json").local().write_text("{}")
    card = finish_model(job, here(checkpoint))
    names = {"model.safetensors", "model.json", "history.csv", "model.md", "stac-item.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert trained_model(job) == card
    best = max(history, key=lambda row: row["val_iou"])
    assert (card.architecture, card.arguments, card.roles) == (
        job.architecture,
        job.arguments,
        ("red", "green", "blue"),
    )
    assert (card.threshold, card.metrics, card.patch) == (best["best_threshold"], best, 32)
    assert (card.statistics, card.together, card.training_key) == ("common", False, job.key)
    network = load_network(folder, card).state_dict()
    assert all(torch.equal(network[name], value) for name, value in weights.items())
    with (folder / "history.csv").local().open() as stream:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    assert rows == history
    text = (folder / "model.md").read_text()
    assert "learned from: p0, p1\n" in text
    assert "best epoch chosen by: p2\n" in text
    assert f"best epoch: {best['epoch'] + 1}\n" in text


def save_encoder(path: Path, seed: int = 5) -> Path:
    """Weights of the tiny network's encoder, for red, green, blue and one more."""
    torch.manual_seed(seed)
    torch.save(smp.encoders.get_encoder("mobilenet_v2", in_channels=4, depth=3).state_dict(), path)
    return path


def from_file(path: Path, **options: Any) -> dict[str, Any]:
    given = {"file": str(path), "bands": [*RGB, "nir"], "mean": [0.1, 0.2, 0.3, 0.4], "std": [0.1, 0.2, 0.3, 0.4]}
    return with_model(encoder_weights=given | options)


def test_pretrained_weights_have_their_part_by_what_they_are(
    tmp_path: Path, workspace: Workspace, pairs: Pairs
) -> None:
    first, other = save_encoder(tmp_path / "first.pth"), save_encoder(tmp_path / "other.pth", seed=6)
    shutil.copy(first, tmp_path / "copy.pth")
    job, copied = (plan(workspace, pairs, train=from_file(path)) for path in (first, tmp_path / "copy.pth"))
    assert job.key == copied.key
    assert str(tmp_path) not in json.dumps(job.arguments)
    others = [
        from_file(other),
        from_file(first, std=[0.1, 0.2, 0.3, 0.5]),
        from_file(first, bands=[*RGB, "nir08"]),
        from_file(first, other_bands="mean"),
        with_model(),
        with_model(encoder_weights="imagenet"),
    ]
    keys = {plan(workspace, pairs, train=train).key for train in others} | {job.key}
    assert len(keys) == len(others) + 1
    with pytest.raises(InputError, match="expected a file of weights at"):
        plan(workspace, pairs, train=from_file(tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match=r"train.models.unetplusplus.encoder_weights: there is no torchgeo:ResNet19"):
        plan(workspace, pairs, train=with_model(encoder_weights="torchgeo:ResNet19_Weights.ANY"))


def test_a_training_starts_from_them_once_and_its_folder_says_so(
    tmp_path: Path, pairs: Pairs, workspace: Workspace
) -> None:
    own = Workspace(here(tmp_path / "work"))
    shutil.copytree(workspace.root.local(), own.root.local())
    path = save_encoder(tmp_path / "weights.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    train = from_file(path) | {"epochs": 1}
    train["models"]["unetplusplus"] |= {"frozen_epochs": 1, "encoder_learning_rate": 0.5}
    job = plan(own, pairs, train=train)
    check_buildable(job)
    checkpoint = trained(job)
    state, expected = torch.load(checkpoint / BEST, weights_only=True), torch.load(path, weights_only=True)
    deep = "features.5.conv.0.0.weight"
    assert torch.equal(state[f"encoder.{deep}"], expected[deep])  # frozen
    kernel = (expected["features.0.0.weight"][:, :3] * torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)).sum(
        1, keepdim=True
    )
    torch.testing.assert_close(state["encoder.features.0.0.weight"], kernel)
    path.unlink()  # what goes on or predicts needs them no more
    longer = dataclasses.replace(job, options=job.options.model_copy(update={"epochs": 2}))
    train_model(longer, worker(checkpoint=here(checkpoint)))
    card = finish_model(job, here(checkpoint))
    assert card.pretrained == {
        "name": "weights.pth",
        "sha256": digest,
        "bands": [*RGB, "nir"],
        "mean": [0.1, 0.2, 0.3, 0.4],
        "std": [0.1, 0.2, 0.3, 0.4],
        "other_bands": "refuse",
    }
    folder = own.model(job.name, job.key)
    assert read_card(folder) == card
    assert not load_network(folder, card).training
    text = (folder / "model.md").read_text()
    assert (
        f"encoder starts from: weights.pth, kernels of red, green, blue; SHA-256 {digest}; frozen for 1 epoch(s)"
        in text
    )


def test_weights_that_do_not_fit_stop_a_training_before_it_starts(
    tmp_path: Path, workspace: Workspace, pairs: Pairs
) -> None:
    path = save_encoder(tmp_path / "weights.pth")
    said: list[str] = []
    run: Any = SimpleNamespace(say=said.append)
    jobs = [plan(workspace, pairs, train=from_file(path))]
    check_starts(run, jobs)
    assert said == ["train: unetplusplus: the encoder starts from weights.pth"]
    torch.save({"features.0.0.weight": torch.zeros(32, 4, 3, 3)}, path)
    with pytest.raises(InputError, match=r"weights\.pth: its SHA-256 begins with"):
        check_starts(run, jobs)
    with pytest.raises(InputError, match=r"does not fit the encoder: .* missing: features"):
        check_starts(run, [plan(workspace, pairs, train=from_file(path))])
    moco = with_model(encoder_weights="torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO", encoder="resnet18")
    with pytest.raises(InputError, match=r"could not be fetched .*; download https://") as raised:  # tests run offline
        check_starts(run, [plan(workspace, pairs, train=moco)])
    assert raised.value.exit_code == EXIT_INPUT


@pytest.mark.parametrize("spoil", [lambda row: row, lambda row: {**row, "val_precision": math.nan}])
def test_the_same_training_gives_the_same_folder(
    tmp_path: Path, pairs: Pairs, workspace: Workspace, spoil: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Also with figures that are not defined, as precision where nothing is predicted."""
    found = []
    for name in ("a", "b"):
        own = Workspace(here(tmp_path / name))
        shutil.copytree(workspace.root.local(), own.root.local())
        job = plan(own, pairs, train=TINY_TRAIN | {"epochs": 1})
        checkpoint = trained(job)
        rows = [spoil(row) for row in json.loads((checkpoint / HISTORY).read_text())]
        (checkpoint / HISTORY).write_text(json.dumps(rows))
        finish_model(job, here(checkpoint))
        found.append({path.name: path.read_bytes() for path in own.model(job.name, job.key).iterdir()})
        assert trained_model(job) is not None
    assert found[0] == found[1]
