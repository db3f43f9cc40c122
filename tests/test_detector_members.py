"""Detectors are members like any other: planned, stored, keyed, continued, averaged, and found by their names."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasters import make_config
from stored import run_pair, store_pair, store_probability

import cdpipe
from cdpipe.config.detectors import DETECTORS, SHIPPED, WITH_COLOURS, WITHOUT_LABELS, detector_folder, named_model
from cdpipe.config.load import load_config, parse_config, to_yaml
from cdpipe.detectors import detect
from cdpipe.detectors.stored import find_fit, fit_record, known_fit
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import ScoreHistogram
from cdpipe.models.folder import ModelCard, check_trained, read_card, save_model
from cdpipe.pairs.splits import Splits
from cdpipe.prediction.block import probability_key
from cdpipe.prediction.detection import detect_block
from cdpipe.prediction.ensemble import Ensemble, ensemble_block
from cdpipe.runs.ensembles import ensemble_product
from cdpipe.runs.fit import Measure, find_thresholds, fit_members
from cdpipe.runs.members import ModelSource, given_sources, plan_members, untrained_sources
from cdpipe.runs.plan import (
    RunPair,
    RunPlan,
    Thresholds,
    count_patches,
    lacking_bands,
    left_to_networks,
    missing_work,
    model_sources,
    plan_run,
)
from cdpipe.runs.products import ensure_written
from cdpipe.runs.results import create_result_groups
from cdpipe.runs.run import Inventory
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.normalisation import RGB
from cdpipe.training.plan import needed_bands
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (560, 600)
Dates = tuple[NDArray[np.uint16], NDArray[np.uint16]]


def make_dates(seed: int = 0) -> tuple[Dates, NDArray[np.uint8]]:
    """Land at two dates of another light, and where something was built."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 300, (3, SHAPE[0] // 10, SHAPE[1] // 10))
    land = 2000 + np.kron(coarse, np.ones((10, 10))) + random.normal(0, 100, (3, *SHAPE))
    after = land * np.array([1.2, 0.9, 1.1])[:, None, None] + 100 + random.normal(0, 20, (3, *SHAPE))
    label = np.zeros(SHAPE, np.uint8)
    for row, col in ((30, 40), (500, 90), (505, 505), (300, 550)):
        label[row : row + 30, col : col + 30] = 1
    after[:, label == 1] = np.array([[6000], [4000], [5000]])
    return (land.clip(1, 60_000).astype(np.uint16), after.clip(1, 60_000).astype(np.uint16)), label


def make_corner() -> tuple[Dates, NDArray[np.uint8]]:
    """The last rows and columns of that, for networks."""
    (before, after), label = make_dates()
    return (before[:, 450:, 450:], after[:, 450:, 450:]), label[450:, 450:]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(here(tmp_path / "work"))


def plan(workspace: Workspace, stored: Any, names: tuple[str, ...], **predict: Any) -> RunPlan:
    config = make_config(workspace.root.local(), predict={"members": names, **predict})
    members = plan_members(config, untrained_sources(config), "cpu")
    run = RunPlan(workspace, members, (run_pair(stored, members),))
    return run.with_thresholds(config, find_thresholds(config, run, {}))


def do(run: RunPlan) -> None:
    """What a worker does with each block, without a worker."""
    for pair in run.pairs:
        create_result_groups(run.workspace, pair)
    for item in missing_work(run):
        pair = run.pairs[item.pair]
        for index in item.members:
            detect_block(run.workspace, pair.stored, item.key, pair.members[index])
        if item.ensemble:
            ensemble_block(run.workspace, pair.stored, item.key, pair.change)


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of results and records."""
    paths = (path for part in ("store.zarr", "records") for path in (folder / part).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_stored_is_what_arrays_in_memory_give(workspace: Workspace, name: str) -> None:
    dates, label = make_dates()
    random = np.random.default_rng(5)
    valid = np.where(random.random(SHAPE) < 0.95, 3, random.integers(0, 3, SHAPE)).astype(np.uint8)
    run = plan(workspace, store_pair(workspace, "p", dates, valid=valid).pair, (name,))
    do(run)
    pair = run.pairs[0]
    whole = Window(0, 0, *SHAPE)
    group = workspace.group("probabilities", "p", probability_key(pair.stored.key, pair.members[0]))
    stored = read_window(open_array(group, "probability"), whole)
    expected = cdpipe.predict_array(*dates, name, observed=valid == 3)
    assert np.array_equal(stored, expected, equal_nan=True)
    change = read_window(open_array(workspace.group("changes", "p", pair.change.key), "change"), whole)
    assert np.array_equal(change, np.where(valid == 3, expected >= 0.5, 255))
    assert change[label == 1][valid[label == 1] == 3].mean() > 0.8
    assert run.thresholds is not None
    assert run.thresholds.fitted_on == "each pair's own, found without labels"


def test_without_a_model_arrays_get_an_answer() -> None:
    (before, after), label = make_corner()
    found = cdpipe.predict_array(before, after, pixel_m=10, tta="none")
    said = {name: cdpipe.predict_array(before, after, name, tta="none") for name in WITH_COLOURS}
    np.testing.assert_allclose(found, np.mean(list(said.values()), axis=0), atol=1e-6)
    assert np.array_equal(cdpipe.predict_array(before, after, pixel_m=0.5, tta="none"), said[SHIPPED])
    first, second = (np.concatenate([date, date[:2] // 2]) for date in (before, after))  # five, and nobody knows which
    alone = [cdpipe.predict_array(first, second, name) for name in WITHOUT_LABELS]
    np.testing.assert_allclose(cdpipe.predict_array(first, second), np.mean(alone, axis=0), atol=1e-6)
    assert (found >= 0.5)[label == 1].mean() > 0.8
    assert (found >= 0.5)[label == 0].mean() < 0.01


def test_arrays_of_one_band_or_of_many_get_one_too() -> None:
    (before, after), label = make_dates()
    for bands in (before[:1], np.concatenate([before, before[:2] // 2])):
        other = after[:1] if len(bands) == 1 else np.concatenate([after, after[:2] // 2])
        assert (cdpipe.predict_array(bands, other) >= 0.5)[label == 1].mean() > 0.8
    with pytest.raises(InputError, match="no pixel is observed"):
        cdpipe.predict_array(before.astype(float) * np.nan, after)


def test_a_run_that_was_cut_off_continues_with_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    dates, _ = make_dates()
    run = plan(workspace, store_pair(workspace, "p", dates).pair, ("mad", "cva"))
    other = Workspace(here(tmp_path / "other"))
    undisturbed = plan(other, store_pair(other, "p", dates).pair, ("mad", "cva"))
    do(undisturbed)
    for item in list(missing_work(run))[:2]:  # and then the machine was gone
        create_result_groups(workspace, run.pairs[0])
        detect_block(workspace, run.pairs[0].stored, item.key, run.pairs[0].members[0])
    assert len(list(missing_work(run))) == 4
    do(run)
    assert list(missing_work(run)) == []
    assert files_of(workspace.root.local()) == files_of(other.root.local())


def test_blocks_of_any_size_find_out_the_same(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "MOST_PIXELS", 20_000)
    dates, _ = make_dates()
    fits = []
    for name, block in (("small", 512), ("large", 1024)):
        run = plan(workspace, store_pair(workspace, name, dates, block=block).pair, ("irmad",))
        fits.append(find_fit(workspace, run.pairs[0].stored, "irmad", RGB))
    assert fits[0] == fits[1]
    assert fits[0].step == 5
    assert fits[0].pixels == 112 * 120


def test_what_was_found_out_is_recorded_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    dates, _ = make_dates()
    run = plan(workspace, store_pair(workspace, "p", dates).pair, ("mad",))
    stored = run.pairs[0].stored
    assert known_fit(workspace, stored, "mad", RGB) is None
    fit = find_fit(workspace, stored, "mad", RGB)
    monkeypatch.setattr("cdpipe.detectors.stored.fit_pair", None)
    assert find_fit(workspace, stored, "mad", RGB) == known_fit(workspace, stored, "mad", RGB) == fit
    fit_record(workspace, stored, "mad", RGB).write(b"damaged")
    assert known_fit(workspace, stored, "mad", RGB) is None


def test_a_pair_in_which_nothing_can_be_compared_says_so(workspace: Workspace) -> None:
    before, after = make_dates()[0]
    run = plan(workspace, store_pair(workspace, "p", (before, np.full_like(after, 9))).pair, ("mad",))
    with pytest.raises(InputError, match="there is nothing to compare: each of the bands red, green, blue"):
        find_fit(workspace, run.pairs[0].stored, "mad", RGB)


def test_a_detector_needs_no_band_in_particular_and_no_patch(workspace: Workspace) -> None:
    dates, _ = make_dates()
    run = plan(workspace, store_pair(workspace, "p", dates).pair, DETECTORS)
    assert lacking_bands(run) == {}
    assert count_patches(run, missing_work(run)) == 0
    keys = [key for key, _ in run.pairs[0].shares()]
    assert len(set(keys)) == len(DETECTORS)


def test_members_that_are_all_detectors_train_nothing(tmp_path: Path, workspace: Workspace) -> None:
    config = make_config(tmp_path, predict={"members": ["mad", "cva"]})
    assert not config.predict.takes_trained
    assert needed_bands(config) == ()
    sources = model_sources(config, workspace, Inventory((), Splits()))
    assert [source.name for source in sources] == ["mad", "cva"]
    assert make_config(tmp_path, predict={"members": ["mad", "unetplusplus"]}).predict.takes_trained
    assert make_config(tmp_path).predict.takes_trained
    with pytest.raises(ConfigError, match="no model irmda in this run, which has mad"):
        plan_members(make_config(tmp_path, predict={"members": ["mad", "irmda"]}), untrained_sources(config)[:1], "cpu")


def test_detectors_are_named_where_model_folders_are(tmp_path: Path) -> None:
    config = make_config(tmp_path, predict={"models": ["mad", "some/folder"]})
    assert config.predict.models[0] == detector_folder("mad")
    assert config.predict.models[1] == here(tmp_path / "some" / "folder").resolve()
    file = tmp_path / "cdpipe.yaml"
    file.write_text(to_yaml(config, here(tmp_path)))
    assert "- mad\n" in file.read_text()
    assert load_config(file).predict.models == config.predict.models
    given = make_config(tmp_path, predict={"models": ["mad"], "members": ["mad", "cva"]})
    assert [source.name for source in (*given_sources(given), *untrained_sources(given))] == ["mad", "cva"]


def test_a_folder_and_a_detector_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    save_model(here(tmp_path / "mad"), read_card(detector_folder("mad")), {})
    with pytest.raises(ConfigError, match=r"model mad: means the detector that comes with cdpipe, and .* rename"):
        named_model("mad", here(tmp_path))
    assert named_model(tmp_path / "mad", here(tmp_path)) == here(tmp_path / "mad").resolve()
    values = make_config(tmp_path).model_dump(mode="json", exclude_none=True)
    values["train"] = {"models": {"mad": {"architecture": "unet"}}}
    with pytest.raises(ConfigError, match="must not be that of a detector, got mad"):
        parse_config(values, tmp_path)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_cards_that_come_along_are_what_save_model_writes(tmp_path: Path, name: str) -> None:
    card = ModelCard(name, name, {}, (), "common", False, 256, "", threshold=0.5)
    written = save_model(here(tmp_path), card, {})
    own = detector_folder(name)
    assert read_card(own) == written
    check_trained(own, written)
    assert (own / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert set(detect.DETECTORS) == set(DETECTORS)
    assert replace(written, threshold=0.4).key == written.key


@pytest.mark.parametrize(
    ("predict", "names"),
    [
        ({"models": WITH_COLOURS}, WITH_COLOURS),
        ({"models": WITH_COLOURS, "detectors_from_m": 10}, WITH_COLOURS),
        ({"models": WITH_COLOURS, "detectors_from_m": 10.1}, (SHIPPED,)),
        ({"models": WITHOUT_LABELS, "detectors_from_m": 10.1}, WITHOUT_LABELS),  # where they are all there is
    ],
)
def test_detectors_leave_pairs_of_fine_pixels_to_networks(
    workspace: Workspace, predict: dict[str, Any], names: tuple[str, ...]
) -> None:
    stored = store_pair(workspace, "p", make_dates()[0]).pair
    config = make_config(workspace.root.local(), predict=predict)
    inventory = Inventory(((run_pair(stored, ()).planned, stored),), Splits())
    run = plan_run(config, workspace, inventory, plan_members(config, given_sources(config), "cpu"))
    assert tuple(member.name for member in run.pairs[0].members) == names
    assert [each.pair_id for each in left_to_networks(run)] == (["p"] if names == (SHIPPED,) else [])


def test_a_detector_and_a_network_are_averaged(workspace: Workspace) -> None:
    dates, _ = make_dates()
    stored = store_pair(workspace, "p", dates).pair
    config = make_config(workspace.root.local(), predict={"members": ["mad", "cva"], "weights": {"mad": 3.0}})
    sources = [ModelSource(detector_folder(name), name) for name in ("mad", "cva")]
    members = plan_members(config, sources, "cpu")
    run = RunPlan(workspace, members, (run_pair(stored, members),))
    run = run.with_thresholds(config, Thresholds(0.5, {"mad": 0.5, "cva": 0.5}, "a test"))
    do(run)
    whole = Window(0, 0, *SHAPE)
    change = open_array(workspace.group("changes", "p", run.pairs[0].change.key), "probability")
    mad, cva = (cdpipe.predict_array(*dates, name) for name in ("mad", "cva"))
    np.testing.assert_allclose(read_window(change, whole), 0.75 * mad + 0.25 * cva, atol=1e-6)


def test_what_detectors_keep_out_of_bears_on_no_fit(workspace: Workspace, tmp_path: Path) -> None:
    """Two pairs, of which detectors predict one: temperatures and weights of theirs are fitted on that alone."""
    dates, label = make_corner()
    config = make_config(tmp_path, predict={"models": WITH_COLOURS, "temperature": "auto", "weights": "auto"})
    members = plan_members(config, given_sources(config), "cpu")
    pairs = []
    for name, own in (("p", members), ("q", members[:1])):
        item = store_pair(workspace, name, dates, label)
        pairs.append(run_pair(item.pair, own, item.label_key))
        for number, key in enumerate(pairs[-1].probabilities.values()):
            probability = (0.2 + 0.6 * (label if number else label[::-1])).astype(np.float32)
            store_probability(workspace, item.pair, key, probability)
    asked: list[list[str]] = []

    def measure(
        chosen: Sequence[RunPair], ensembles: Mapping[str, Ensemble], how: Measure
    ) -> dict[str, ScoreHistogram]:
        asked.append([pair.pair_id for pair in chosen])
        return {pair.pair_id: how(workspace, pair.to_fit_on, ensembles[pair.pair_id]) for pair in chosen}

    run = RunPlan(workspace, members, tuple(pairs))
    _, fitted = fit_members(config, workspace.run("t"), run, ["p", "q"], measure)
    assert asked == [["p", "q"], ["p"], ["p"]]
    assert set(fitted["weights"]) == set(WITH_COLOURS)
    assert fitted["weights"][SHIPPED] < 0.1


def test_an_ensemble_that_is_handed_on_leaves_fine_pixels_to_its_network(workspace: Workspace) -> None:
    dates, label = make_corner()
    predict = {"models": WITH_COLOURS, "detectors_from_m": 3, "tta": "none", "overlap": 0.25}
    config = make_config(workspace.root.local(), predict=predict)
    members = plan_members(config, given_sources(config), "cpu")
    item = store_pair(workspace, "p", dates, label)
    run = RunPlan(workspace, members, (run_pair(item.pair, members, item.label_key),))
    product = ensemble_product(config, run.with_thresholds(config, find_thresholds(config, run, {})))
    assert product is not None
    ensure_written(product)
    said = {name: cdpipe.predict_array(*dates, name, tta="none") for name in WITH_COLOURS}
    folder = workspace.run("t") / "ensemble"
    together = cdpipe.predict_array(*dates, folder, pixel_m=3)
    np.testing.assert_allclose(together, np.mean(list(said.values()), axis=0), atol=1e-6)
    assert np.array_equal(cdpipe.predict_array(*dates, folder, pixel_m=2.9), said[SHIPPED])
