"""What a run consists of: only what an option bears on is worked on again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rasters import make_config
from stored import RGB, bright_squares, run_pair, store_pair

from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError
from cdpipe.geo.grid import BlockKey
from cdpipe.models.folder import ModelCard, save_model
from cdpipe.prediction.block import predict_block, probability_key
from cdpipe.prediction.ensemble import Ensemble, ensemble_block
from cdpipe.runs.members import DEFAULT_THRESHOLD, ModelSource, plan_members, suggested_threshold
from cdpipe.runs.plan import RunPlan, Thresholds, lacking_bands, missing_work, unbiased
from cdpipe.runs.results import create_result_groups, finish_results
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here
from cdpipe.workspace.records import GROUP_RECORD, block_record, damaged_objects, read_record

CARD = ModelCard("m", "unetplusplus", {}, RGB, "common", together=False, patch=64, weights_sha256="")


def save_models(folder: Path, *names: str) -> list[Path]:
    """Model folders, each with weights of its own; no network is ever built of them."""
    for number, name in enumerate(names):
        state = {"weight": torch.full((2,), float(number))}
        save_model(here(folder / name), dataclasses.replace(CARD, name=name, threshold=0.1 * (number + 2)), state)
    return [folder / name for name in names]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(here(tmp_path / "work"))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return save_models(tmp_path, "one", "two", "three")


@pytest.fixture
def pair(workspace: Workspace) -> StoredPair:
    """A pair of three blocks."""
    return store_pair(workspace, "p", *bright_squares((70, 600), 0), block=256).pair


def plan(
    workspace: Workspace,
    pairs: Sequence[StoredPair],
    folders: Sequence[Path],
    threshold: float = 0.5,
    **predict: Any,
) -> RunPlan:
    options: dict[str, Any] = {"tta": "none", "overlap": 0.0} | predict
    config = make_config(workspace.root.local(), predict=options)
    members = plan_members(config, sources(folders), "cpu")
    run = RunPlan(workspace, members, tuple(run_pair(pair, members) for pair in pairs))
    return with_ensembles(config, run, threshold)


def sources(folders: Sequence[Path]) -> list[ModelSource]:
    return [ModelSource(here(folder), folder.name) for folder in folders]


def with_ensembles(config: Config, run: RunPlan, threshold: float) -> RunPlan:
    thresholds = Thresholds(threshold, {member.name: threshold for member in run.members}, "a test")
    return run.with_thresholds(config, thresholds)


def missing(run: RunPlan) -> list[tuple[int, int, tuple[int, ...], bool]]:
    """Pair, block column, members and ensemble of every piece of work."""
    return [(item.pair, item.key.block_col, item.members, item.ensemble) for item in missing_work(run)]


def forward(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stands in for all networks."""
    return np.asarray(1 / (1 + np.exp(-patches[:, 0])), np.float32)


def do(run: RunPlan) -> None:
    """Do all that is missing."""
    for pair in run.pairs:
        create_result_groups(run.workspace, pair)
    for item in missing_work(run):
        pair = run.pairs[item.pair]
        for index in item.members:
            predict_block(run.workspace, pair.stored, item.key, pair.members[index], forward)
        if item.ensemble:
            ensemble_block(run.workspace, pair.stored, item.key, pair.change)


def test_everything_is_missing_until_it_is_done(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    job = plan(workspace, [pair], folders[:2])
    assert missing(job) == [(0, col, (0, 1), True) for col in range(3)]
    do(job)
    assert missing(job) == []


def test_a_probability_alone_can_be_wanted(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    job = plan(workspace, [pair], folders[:1])
    job = dataclasses.replace(job, pairs=tuple(dataclasses.replace(each, ensemble=None) for each in job.pairs))
    do(job)
    assert missing(job) == []
    assert missing(plan(workspace, [pair], folders[:1])) == [(0, col, (), True) for col in range(3)]


@pytest.mark.parametrize("change", [{"threshold": 0.6}, {"weights": {"one": 3.0}}])
def test_threshold_and_weights_redo_the_ensemble_only(
    workspace: Workspace, pair: StoredPair, folders: list[Path], change: dict[str, Any]
) -> None:
    do(plan(workspace, [pair], folders[:2]))
    job = plan(workspace, [pair], folders[:2], **change)
    assert missing(job) == [(0, col, (), True) for col in range(3)]
    do(job)
    assert missing(job) == missing(plan(workspace, [pair], folders[:2])) == []


def test_weights_count_by_their_shares(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    plain, tenfold = (
        plan(workspace, [pair], folders[:2], weights={"one": 1.5 * times, "two": 0.5 * times}) for times in (1, 8)
    )
    assert plain.pairs[0].change.key == tenfold.pairs[0].change.key


def test_a_third_model_is_the_only_one_that_runs(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    do(plan(workspace, [pair], folders[:2]))
    job = plan(workspace, [pair], folders)
    assert missing(job) == [(0, col, (2,), True) for col in range(3)]
    do(job)
    assert missing(plan(workspace, [pair], folders[1:])) == [(0, col, (), True) for col in range(3)]


@pytest.mark.parametrize("change", [{"overlap": 0.5}, {"tta": "d4"}, {"precision": "bfloat16"}])
def test_how_models_are_run_redoes_all_of_them(
    workspace: Workspace, pair: StoredPair, folders: list[Path], change: dict[str, Any]
) -> None:
    do(plan(workspace, [pair], folders[:2]))
    assert missing(plan(workspace, [pair], folders[:2], **change)) == [(0, col, (0, 1), True) for col in range(3)]


def test_other_options_redo_nothing(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    do(plan(workspace, [pair], folders[:2]))
    for change in ({"model_rasters": True}, {"precision": "float32"}, {"overlap": 0.001}):  # as large a stride
        assert missing(plan(workspace, [pair], folders[:2], **change)) == []


def test_another_pair_runs_alone(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    do(plan(workspace, [pair], folders[:1]))
    other = store_pair(workspace, "q", *bright_squares((70, 300), 1), block=256).pair
    job = plan(workspace, [other, pair], folders[:1])
    assert missing(job) == [(0, col, (0,), True) for col in range(2)]
    assert list(missing_work(job, [1])) == []


def test_a_withdrawn_record_redoes_its_block(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    job = plan(workspace, [pair], folders[:2])
    do(job)
    key, block = probability_key(pair.key, job.members[1]), BlockKey("p", 0, 2)
    group = workspace.group("probabilities", "p", key)
    before = {path: path.read_bytes() for path in group.local().rglob("*") if path.is_file()}
    block_record(workspace.records("probabilities", "p", key), block).unlink()
    assert missing(job) == [(0, 2, (1,), False)]
    do(job)
    assert {path: path.read_bytes() for path in group.local().rglob("*") if path.is_file()} == before


def test_a_probability_is_of_its_model_pair_and_manner(
    workspace: Workspace, pair: StoredPair, folders: list[Path]
) -> None:
    member = plan(workspace, [pair], folders[:1]).members[0]
    cards: list[dict[str, Any]] = [{"weights_sha256": "0"}, {"together": True}, {"statistics": "per_date"}]
    runs: list[dict[str, Any]] = [{"tta": "d4"}, {"precision": "bfloat16"}, {"device": "cuda"}, {"batch": 2}]
    changed = [
        member,
        dataclasses.replace(member, overlap=0.5),
        dataclasses.replace(member, card=dataclasses.replace(member.card, patch=128), overlap=0.5),  # the same stride
        *(dataclasses.replace(member, card=dataclasses.replace(member.card, **values)) for values in cards),
        *(dataclasses.replace(member, execution=dataclasses.replace(member.execution, **values)) for values in runs),
    ]
    keys = [probability_key(pair.key, each) for each in changed] + [probability_key("other", member)]
    assert len(set(keys)) == len(keys)
    card = dataclasses.replace(member.card, name="x", threshold=0.9, training_key="y", metrics={"iou": 1})
    renamed = dataclasses.replace(member, card=card, folder=here(Path("elsewhere")), weight=7.0)
    assert probability_key(pair.key, renamed) == keys[0]


def test_groups_are_recorded_once_they_are_done(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    job = plan(workspace, [pair], folders[:2])
    do(job)
    finish_results(workspace, job.pairs[0])
    paths = list((workspace.root / "records").glob(f"[pc][rh]*/p/*/{GROUP_RECORD}"))
    assert len(paths) == 3
    for path in paths:
        record = read_record(path)
        assert record is not None
        assert not damaged_objects(record, workspace.root)
        group = workspace.root / "store.zarr" / path.parent.relative_to(workspace.root / "records")
        arrays = ("probability", "change")
        blocks = {file.relative_to(workspace.root) for name in arrays for file in (group / name).glob("c/*/*")}
        stored = {file.relative_to(workspace.root) for file, _ in group.walk()}
        assert set(record.objects) == stored - blocks
    times = [path.stat().tag for path in paths]
    finish_results(workspace, job.pairs[0])
    assert [path.stat().tag for path in paths] == times


def test_members_are_what_the_configuration_says(tmp_path: Path, folders: list[Path]) -> None:
    config = make_config(tmp_path, predict={"weights": {"two": 2.5}, "overlap": 0.3})
    one, two = plan_members(config, sources(folders[:2]), "cpu")
    assert (one.card.name, one.folder, one.weight, one.overlap) == ("one", here(folders[0]), 1.0, 0.3)
    assert two.weight == 2.5
    assert (one.execution.tta, one.execution.precision, one.execution.batch) == ("d4", "float32", 1)
    gpu = plan_members(config, sources(folders[:2]), "cuda")[0].execution
    assert (gpu.precision, gpu.device) == ("bfloat16", "cuda")
    exact = make_config(tmp_path, predict={"precision": "float32", "tta": "none"})
    gpu = plan_members(exact, sources(folders[:1]), "cuda")[0].execution
    assert (gpu.precision, gpu.tta) == ("float32", "none")


def test_models_must_be_told_apart_and_weights_belong_to_one(tmp_path: Path, folders: list[Path]) -> None:
    same = [folders[0], *save_models(tmp_path / "more", "one")]
    with pytest.raises(ConfigError, match="expected models of different names, got one, one"):
        plan_members(make_config(tmp_path), sources(same), "cpu")
    for key, value in {
        "weights": {"four": 1.0},
        "members": ["one", "four"],
        "threshold": {"four": 0.1},
    }.items():
        config = make_config(tmp_path, predict={key: value, "ensemble": "vote"})
        with pytest.raises(ConfigError, match=f"predict.{key}: no model four in this run, which has one, two"):
            plan_members(config, sources(folders[:2]), "cpu")


def test_without_validation_pairs_the_models_own_thresholds_are_averaged() -> None:
    cards = [(dataclasses.replace(CARD, threshold=value), weight) for value, weight in ((0.2, 3.0), (0.6, 1.0))]
    unknown = (dataclasses.replace(CARD, threshold=None), 5.0)
    threshold, source = suggested_threshold([*cards, unknown])
    assert threshold == pytest.approx((3 * 0.2 + 0.6) / 4)
    assert "mean of the models' own" in source
    assert suggested_threshold([unknown])[0] == DEFAULT_THRESHOLD


def test_members_may_be_some_of_the_models(tmp_path: Path, folders: list[Path]) -> None:
    config = make_config(tmp_path, predict={"members": ["three", "one"]})
    assert [member.name for member in plan_members(config, sources(folders), "cpu")] == ["one", "three"]


def test_a_pair_is_never_predicted_by_a_model_that_learned_from_it(
    workspace: Workspace, pair: StoredPair, folders: list[Path]
) -> None:
    """Three folds of one model beside a model without folds; the second pair belongs to the second fold."""
    other = save_models(folders[0].parent / "more", "four")
    given = [ModelSource(here(folder), "net", fold) for fold, folder in enumerate(folders)] + sources(other)
    config = make_config(workspace.root.local(), predict={"tta": "none", "overlap": 0.0, "weights": {"net": 3.0}})
    members = plan_members(config, given, "cpu")
    pairs = (pair, dataclasses.replace(pair, pair_id="q", key="q"))
    both = (run_pair(pairs[0], unbiased(members, None)), run_pair(pairs[1], unbiased(members, 1)))
    job = RunPlan(workspace, members, both)
    assert [pair.members for pair in job.pairs] == [members, (members[1], members[3])]
    assert list(job.pairs[0].probabilities) == ["one", "two", "three", "four"]
    assert list(job.pairs[1].probabilities) == ["net", "four"]
    job = with_ensembles(config, job, 0.5)
    keys = [[probability_key(each.key, member) for member in members] for each in pairs]
    assert job.pairs[0].change.members == tuple(zip(keys[0], (1.0, 1.0, 1.0, 1.0), strict=True))
    assert job.pairs[1].change.members == ((keys[1][1], 3.0), (keys[1][3], 1.0))
    assert {(item.pair, item.members) for item in missing_work(job)} == {(0, (0, 1, 2, 3)), (1, (0, 1))}


def test_bands_that_a_pair_lacks_are_named(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    job = plan(workspace, [pair], folders[:2])
    card = dataclasses.replace(CARD, name="far", roles=("red", "nir", "swir"))
    infrared = dataclasses.replace(job.members[0], card=card)
    assert lacking_bands(job) == {}
    job = dataclasses.replace(job, members=(*job.members, infrared))
    reason = "model far needs the bands nir, swir, stored are red, green, blue"
    assert lacking_bands(job) == {pair.pair_id: reason}


def test_an_ensemble_names_what_it_is_made_of(workspace: Workspace, pair: StoredPair, folders: list[Path]) -> None:
    job = plan(workspace, [pair], folders[:2], threshold=0.25, weights={"one": 2.0})
    ensemble = job.pairs[0].change
    keys = [probability_key(pair.key, member) for member in job.members]
    assert ensemble == Ensemble(ensemble.key, ((keys[0], 2.0), (keys[1], 1.0)), 0.25)
