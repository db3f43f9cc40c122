"""Ensemble folders: what a run writes is what another reads, whole or refused, with its weights and its threshold."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasters import make_config
from stored import RGB, bright_squares, run_pair, store_pair

import cdpipe
from cdpipe.config.schema import Config
from cdpipe.errors import CdpipeError, ConfigError, InputError, IntegrityError
from cdpipe.models.ensemble_folder import (
    ENSEMBLE,
    EnsembleCard,
    EnsembleMember,
    find_ensemble,
    model_folders,
    read_ensemble,
    write_card,
)
from cdpipe.models.folder import CARD, WEIGHTS, ModelCard, read_card, save_model
from cdpipe.models.networks import build_model
from cdpipe.prediction.temperature import soften
from cdpipe.runs.ensembles import EnsembleFolder, adopt_options, ensemble_product, write_ensemble
from cdpipe.runs.fit import find_thresholds, wants_fitting
from cdpipe.runs.members import ModelSource, check_given, given_sources, plan_members
from cdpipe.runs.plan import UNSEEN, RunPlan, Thresholds, unbiased
from cdpipe.runs.products import ensure_written, is_written, recorded
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here
from cdpipe.workspace.records import damaged_objects, read_record

NETWORK: dict[str, Any] = {"encoder": "plain8", "bands": RGB, "input": "difference"}
NAMES = ("net-fold1", "net-fold2", "other")
THRESHOLDS = Thresholds(0.21, {"net": 0.3, "other": 0.6}, "best F1, 0.612, on out-of-fold pairs p")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of folds and one beside them."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        card = ModelCard(name, "unet", NETWORK, RGB, "common", False, 32, "", threshold=0.1 * (seed + 1))
        save_model(here(root / name), card, build_model("unet", **NETWORK).state_dict())
    (root / NAMES[0] / "model.md").write_text("# net-fold1\n")
    return root


def trained_run(folder: Path, models: Path, **predict: Any) -> tuple[Config, RunPlan]:
    """A run of the three models over a pair of the second fold and one of none."""
    options = {"tta": "none", "overlap": 0.5, "weights": {"net": 3.0}} | predict
    config = make_config(folder, predict=options)
    sources = [ModelSource(here(models / name), name.partition("-")[0]) for name in NAMES]
    sources = [dataclasses.replace(each, fold=fold) for each, fold in zip(sources, (0, 1, None), strict=True)]
    members = tuple(dataclasses.replace(each, temperature=1.5) for each in plan_members(config, sources, "cpu"))
    workspace = Workspace(here(folder / "work"))
    item = store_pair(workspace, "p", *bright_squares((40, 40), 0), block=256)
    other = dataclasses.replace(item.pair, pair_id="q", key="q")
    pairs = (run_pair(item.pair, unbiased(members, 1), item.label_key), run_pair(other, members))
    plan = RunPlan(workspace, members, pairs, {"p": UNSEEN[0]})
    return config, plan.with_thresholds(config, THRESHOLDS)


@pytest.fixture
def handed_on(tmp_path: Path, models: Path) -> Path:
    """A copy of what the run hands on, elsewhere."""
    config, plan = trained_run(tmp_path, models)
    product = ensemble_product(config, plan)
    assert product is not None
    ensure_written(product)
    shutil.copytree(tmp_path / "work" / "runs" / "t" / "ensemble", tmp_path / "elsewhere" / "net")
    shutil.rmtree(tmp_path / "work" / "runs")
    return tmp_path / "elsewhere" / "net"


def test_a_run_hands_on_all_that_prediction_needs(tmp_path: Path, models: Path, handed_on: Path) -> None:
    card = read_ensemble(here(handed_on))
    assert (card.name, card.combination, card.threshold) == ("t", "mean", 0.21)
    assert card.fitted_on == THRESHOLDS.fitted_on
    assert card.options == {"overlap": 0.5, "tta": "none", "precision": "auto"}
    assert [(each.name, each.layer, each.fold, each.weight, each.temperature) for each in card.members] == [
        ("net-fold1", "net", 0, 3.0, 1.5),
        ("net-fold2", "net", 1, 3.0, 1.5),
        ("other", "other", None, 1.0, 1.5),
    ]
    # a pair of a fold is predicted by that fold's model and the one that has no folds
    assert "2 of the 3 models" in card.note
    assert "share 0.375, temperature 1.5, own threshold 0.300" in (handed_on / "ensemble.md").read_text()
    for name in NAMES:
        assert (handed_on / name / WEIGHTS).read_bytes() == (models / name / WEIGHTS).read_bytes()
        assert read_card(here(handed_on / name)) == read_card(here(models / name))
    assert (handed_on / NAMES[0] / "model.md").is_file()
    config = adopt_options(make_config(tmp_path, predict={"models": [str(handed_on)]}))
    check_given(config)
    assert (config.predict.tta, config.predict.overlap) == ("none", 0.5)


def test_from_which_pixels_on_detectors_take_part_is_handed_on(tmp_path: Path, models: Path) -> None:
    product = ensemble_product(*trained_run(tmp_path, models, detectors_from_m=3.0))
    assert product is not None
    ensure_written(product)
    folder = find_ensemble(here(tmp_path / "work" / "runs" / "t")) or here(tmp_path)
    assert read_ensemble(folder).options["detectors_from_m"] == 3.0
    assert adopt_options(make_config(tmp_path, predict={"models": [str(folder)]})).predict.detectors_from_m == 3.0


def given(tmp_path: Path, folder: Path, **predict: Any) -> tuple[Config, RunPlan]:
    """A run over a pair with a label, for validation, that is given the ensemble."""
    config = adopt_options(make_config(tmp_path, predict={"models": [str(folder)], **predict}))
    members = plan_members(config, given_sources(config), "cpu")
    workspace = Workspace(here(tmp_path / "other"))
    item = store_pair(workspace, "p", *bright_squares((40, 40), 0), block=256)
    pair = run_pair(item.pair, members, item.label_key)
    own = read_ensemble(find_ensemble(here(folder)) or here(folder))
    return config, RunPlan(workspace, members, (pair,), {"p": UNSEEN[1]}, own=own)


def test_models_of_folds_share_the_threshold_that_was_fitted_for_them_all(tmp_path: Path, models: Path) -> None:
    """Their own are each from one fold; a model beside them keeps its own."""
    config, plan = trained_run(tmp_path, models)
    assert wants_fitting(config, plan)
    fitted = {None: (0.21, "all"), "net": (0.4, "net")}
    assert find_thresholds(config, plan, fitted).models == {"net": 0.4, "other": pytest.approx(0.3)}
    assert find_thresholds(config, plan, {None: (0.21, "all")}).models["net"] == 0.21


def test_another_run_computes_what_the_first_did(tmp_path: Path, models: Path, handed_on: Path) -> None:
    """The same keys: the same models, run in the same way, with the same shares, temperatures and threshold."""
    _, first = trained_run(tmp_path / "again", models)
    config, second = given(tmp_path, handed_on)
    assert not wants_fitting(config, second)
    second = second.with_thresholds(config, find_thresholds(config, second, {}))
    whole = dataclasses.replace(first.pairs[1], stored=second.pairs[0].stored)
    assert second.pairs[0].probabilities == whole.probabilities
    whole = dataclasses.replace(first, pairs=(whole,)).with_thresholds(config, THRESHOLDS).pairs[0]
    assert second.pairs[0].change == whole.change
    assert second.thresholds == Thresholds(0.21, THRESHOLDS.models, f"of the ensemble t: {THRESHOLDS.fitted_on}")
    assert ensemble_product(config, second) is None  # it would be the same again


@pytest.mark.parametrize(
    ("options", "fits", "threshold"),
    [
        ({"threshold": 0.4}, False, 0.4),
        ({"aim": {"precision": 0.8}}, True, 0.21),
        ({"weights": {"net": 1.0}}, True, 0.21),
        ({"members": ["other"]}, True, 0.21),
        ({"temperature": "auto"}, True, 0.21),
        ({"weights": "auto"}, True, 0.21),
        ({"overlap": 0.25}, False, 0.21),
    ],
)
def test_what_the_configuration_asks_for_wins(
    tmp_path: Path, handed_on: Path, options: dict[str, Any], fits: bool, threshold: float
) -> None:
    config, plan = given(tmp_path, handed_on, **options)
    assert wants_fitting(config, plan) == fits
    found = find_thresholds(config, plan, {})
    assert found.ensemble == threshold
    if fits:
        assert "as there was nothing to fit another on" in found.fitted_on
        assert find_thresholds(config, plan, {None: (0.7, "a test")}).ensemble == 0.7
    assert config.predict.overlap == options.get("overlap", 0.5)
    fitted_anew = options.get("temperature") == "auto"
    assert {member.temperature for member in plan.members} == {1.0 if fitted_anew else 1.5}


def test_a_vote_stays_a_vote(tmp_path: Path, models: Path) -> None:
    config, plan = trained_run(tmp_path, models, ensemble="vote")
    product = ensemble_product(config, plan)
    assert product is not None
    ensure_written(product)
    config, plan = given(tmp_path, tmp_path / "work" / "runs" / "t")  # the run's folder will do as well
    assert config.predict.ensemble == "vote"
    found = plan.with_thresholds(config, find_thresholds(config, plan, {})).pairs[0].change
    assert found.votes == (0.3, 0.3, 0.6)
    config, plan = given(tmp_path, tmp_path / "work" / "runs" / "t", ensemble="mean")
    assert wants_fitting(config, plan)


def test_another_ensemble_takes_the_place_of_the_first(tmp_path: Path, models: Path) -> None:
    config, plan = trained_run(tmp_path, models)
    first = ensemble_product(config, plan)
    assert first is not None
    ensure_written(first)
    before = {path: path.read_bytes() for path in first.replaces[0].parent.local().rglob("*") if path.is_file()}
    record = read_record(first.record)
    assert record is not None
    assert {plan.workspace.root.local() / name for name in record.objects} == set(before)
    assert damaged_objects(record, plan.workspace.root) == []
    config, fewer = trained_run(tmp_path, models, members=["other"])
    second = ensemble_product(config, fewer)
    assert second is not None
    ensure_written(second)
    assert is_written(second)
    assert not is_written(first)
    folder = second.replaces[0].parent
    assert {path.name for path in folder.iterdir()} == {"other", "ensemble.md", ENSEMBLE}
    ensure_written(first)
    assert {path: path.read_bytes() for path in folder.local().rglob("*") if path.is_file()} == before
    assert recorded(second) == {}


def test_models_alone_make_no_ensemble_without_labels(tmp_path: Path, models: Path) -> None:
    config, plan = trained_run(tmp_path, models)
    named = make_config(tmp_path, predict={"models": [str(models / name) for name in NAMES]})
    assert ensemble_product(named, plan) is not None
    unlabelled = dataclasses.replace(plan, pairs=plan.pairs[1:])
    assert ensemble_product(named, unlabelled) is None
    assert ensemble_product(config, unlabelled) is not None


def test_models_inside_of_what_a_run_would_replace_are_refused(tmp_path: Path, models: Path) -> None:
    config, plan = trained_run(tmp_path, models)
    product = ensemble_product(config, plan)
    assert product is not None
    ensure_written(product)
    inside = [str(tmp_path / "work" / "runs" / "t" / "ensemble" / name) for name in NAMES]
    with pytest.raises(ConfigError, match="would be replaced by what this run hands on"):
        check_given(make_config(tmp_path, predict={"models": inside}))
    check_given(make_config(tmp_path, name="u", predict={"models": inside}))
    check_given(make_config(tmp_path, predict={"models": [str(tmp_path / "work" / "runs" / "t")]}))


def test_a_model_that_reads_other_bands_is_handed_on_anew(tmp_path: Path, models: Path) -> None:
    config, plan = trained_run(tmp_path, models)
    first = ensemble_product(config, plan)
    card = dataclasses.replace(plan.members[0].card, roles=("nir", "red", "green"))  # the same weights
    members = (dataclasses.replace(plan.members[0], card=card), *plan.members[1:])
    second = ensemble_product(config, dataclasses.replace(plan, members=members))
    assert first is not None
    assert second is not None
    assert first.key != second.key


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / ENSEMBLE).read_text())
    change(values)
    (folder / ENSEMBLE).write_text(json.dumps(values))


def cut_weights(folder: Path) -> None:
    weights = folder / "other" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])


def swap_members(folder: Path) -> None:
    shutil.rmtree(folder / "other")
    shutil.copytree(folder / NAMES[0], folder / "other")


DAMAGE: dict[str, tuple[Callable[[Path], object], type[CdpipeError], str]] = {
    "member": (lambda folder: shutil.rmtree(folder / "other"), InputError, "its member other is missing; copy"),
    "card": (lambda folder: (folder / "other" / CARD).write_text("{"), InputError, "readable model.json"),
    "weights": (lambda folder: (folder / "other" / WEIGHTS).unlink(), IntegrityError, "cannot load model.safetensors"),
    "cut": (cut_weights, IntegrityError, "SHA-256 differs"),
    "swapped": (swap_members, InputError, "is not the model that its weights and threshold were fitted with"),
    "half": (lambda folder: (folder / ENSEMBLE).write_text('{"format": 1'), InputError, "not one that cdpipe wrote"),
    "list": (lambda folder: (folder / ENSEMBLE).write_text("[]"), InputError, "not one that cdpipe wrote"),
    "later": (lambda folder: edit(folder, lambda v: v.update(format=2)), InputError, "format 2, this version"),
    "none": (lambda folder: edit(folder, lambda v: v.update(members=[])), InputError, "expected members"),
    "threshold": (lambda folder: edit(folder, lambda v: v.update(threshold=7)), InputError, "thresholds from 0 to 1"),
    "nan": (lambda folder: edit(folder, lambda v: v.update(threshold=None)), InputError, "not one that cdpipe wrote"),
    "weight": (lambda folder: edit(folder, lambda v: v["members"][0].update(weight=0)), InputError, "positive weight"),
    "text": (
        lambda folder: edit(folder, lambda v: v["members"][0].update(weight="1")),
        InputError,
        "numbers of member",
    ),
    "outside": (lambda folder: edit(folder, lambda v: v["members"][0].update(folder="../..")), InputError, "beside it"),
    "far": (lambda folder: edit(folder, lambda v: v["members"][0].update(folder="s3://a/b")), InputError, "beside it"),
    "option": (lambda folder: edit(folder, lambda v: v["options"].update(backend="x")), InputError, "options overlap"),
    "way": (lambda folder: edit(folder, lambda v: v["options"].update(tta="d5")), InputError, "options that cdpipe"),
    "sort": (lambda folder: edit(folder, lambda v: v.update(combination="median")), InputError, "mean or vote"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_ensemble_that_is_not_whole_is_refused(tmp_path: Path, handed_on: Path, name: str) -> None:
    damage, error, said = DAMAGE[name]
    damage(handed_on)
    with pytest.raises(error, match=said):
        check_given(adopt_options(make_config(tmp_path, predict={"models": [str(handed_on)]})))


def test_a_threshold_may_be_set_by_hand(handed_on: Path) -> None:
    edit(handed_on, lambda values: values.update(threshold=0.5))
    assert read_ensemble(here(handed_on)).threshold == 0.5


def test_an_ensemble_stands_alone_and_its_models_do_not(handed_on: Path, models: Path) -> None:
    assert model_folders([here(handed_on)]) == [here(handed_on / name) for name in NAMES]
    with pytest.raises(ConfigError, match=r"stands alone; got .*: name the model folders inside it to mix them"):
        model_folders([here(handed_on), here(models / "other")])
    mixed = [here(handed_on / "other"), here(models / "net-fold1")]
    assert model_folders(mixed) == mixed
    assert find_ensemble(here(models / "other")) is None
    assert find_ensemble(here(handed_on / "nowhere")) is None


def test_damaged_weights_are_not_handed_on(tmp_path: Path, models: Path) -> None:
    shutil.copytree(models / "other", tmp_path / "other")
    card = read_card(here(tmp_path / "other"))
    (tmp_path / "other" / WEIGHTS).write_bytes(b"?")
    member = EnsembleMember("other", "other", None, 1.0, 1.0, 0.5, "other", card.weights_sha256)
    spec = EnsembleFolder(here(tmp_path / "e"), EnsembleCard("e", "mean", 0.5, "", "", {}, (member,), ""), ())
    with pytest.raises(IntegrityError, match="run cdpipe verify"):
        write_ensemble(dataclasses.replace(spec, sources=(here(tmp_path / "other"),)))
    assert find_ensemble(spec.folder) is None


@pytest.mark.parametrize("combination", ["mean", "vote"])
def test_arrays_get_what_the_members_say_together(models: Path, handed_on: Path, combination: str) -> None:
    edit(handed_on, lambda values: values.update(combination=combination))
    edit(handed_on, lambda values: [each.update(temperature=2.0) for each in values["members"]])
    random = np.random.default_rng(0)
    before, after = random.integers(100, 900, (2, 3, 40, 50)).astype(np.uint16)
    observed = np.ones((40, 50), np.bool_)
    observed[:, 20:30] = False
    ways: dict[str, Any] = {"observed": observed, "overlap": 0.5, "tta": "none"}  # those of the ensemble
    alone = [soften(cdpipe.predict_array(before, after, models / name, **ways), 2.0) for name in NAMES]
    if combination == "vote":
        alone = [
            np.where(observed, each >= np.float32(at), np.nan) for each, at in zip(alone, (0.3, 0.3, 0.6), strict=True)
        ]
    expected = np.tensordot([0.375, 0.375, 0.25], np.stack(alone), 1)
    found = cdpipe.predict_array(before, after, handed_on, observed=observed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.nanstd(found) > 0


def test_a_card_comes_back(tmp_path: Path) -> None:
    member = EnsembleMember("a", "a", None, 1, 1.0, 0.5, "a", "0" * 64)
    card = EnsembleCard("e", "vote", 0.5, "x", "", {"tta": "d4"}, (member,), "cdpipe")
    folder: Location = here(tmp_path)
    write_card(folder, card)
    data = (tmp_path / ENSEMBLE).read_bytes()
    assert read_ensemble(folder) == card
    write_card(folder, card)
    assert (tmp_path / ENSEMBLE).read_bytes() == data
