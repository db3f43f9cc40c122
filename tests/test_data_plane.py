"""Shortcuts of the data plane give the bits of the long way, and what nobody saw costs no reading and no network."""

import shutil
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from stored import RGB, bright_squares, store_pair, store_probability

import cdpipe.store.pair
from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import BlockKey, Window
from cdpipe.geo.tilings import PatchGrid, strips_in
from cdpipe.inference.patches import Execution, blend, blend_weights, lay
from cdpipe.models.folder import ModelCard
from cdpipe.prediction.block import Inputs, Member, predict_block, probability_key
from cdpipe.prediction.ensemble import ensemble_block, plan_ensemble
from cdpipe.store.arrays import open_array, read_all
from cdpipe.store.groups import CHANGE_ARRAYS, PROBABILITY_ARRAYS, create_group
from cdpipe.store.normalisation import Recipe, model_input
from cdpipe.store.pair import LabelledPair, StoredPair, read_dates, read_observed, read_scene
from cdpipe.training.augment import augment_sample
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (700, 900)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, LabelledPair]:
    """A pair of 2 × 2 blocks; the second block of the first row is observed at the first date only."""
    workspace = Workspace(here(tmp_path_factory.mktemp("plane")))
    dates, label = bright_squares(SHAPE, seed=1)
    valid = np.full(SHAPE, 3, np.uint8)
    valid[:512, 512:] = 1
    valid[600:, :40] = 0
    return workspace, store_pair(workspace, "p", dates, label, valid)


@given(data=st.data(), kind=st.sampled_from(["difference", "stacked"]))
def test_a_scene_in_strips_is_the_scene_at_once(
    stored: tuple[Workspace, LabelledPair], data: st.DataObject, kind: str
) -> None:
    workspace, item = stored
    row, col = (data.draw(st.integers(0, length - 1)) for length in SHAPE)
    window = Window(row, col, *(data.draw(st.integers(1, n - at)) for n, at in zip(SHAPE, (row, col), strict=True)))
    scalings = item.pair.scalings(Recipe(kind, RGB, "common", together=False))  # type: ignore[arg-type]
    observed = read_observed(workspace, item.pair, window)
    scene = read_scene(workspace, item.pair, window, observed, scalings)
    assert scene.tobytes() == model_input(read_dates(workspace, item.pair, window), observed, scalings).tobytes()


@given(row=st.integers(0, 2000), height=st.integers(1, 2000), rows=st.integers(1, 600))
def test_strips_make_up_their_window_and_start_at_multiples(row: int, height: int, rows: int) -> None:
    strips = list(strips_in(Window(row, 7, height, 30), rows))
    assert [at for strip in strips for at in range(strip.row, strip.stop_row)] == list(range(row, row + height))
    assert all(strip.row % rows == 0 for strip in strips[1:])
    assert {(strip.col, strip.width) for strip in strips} == {(7, 30)}


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    patch=st.sampled_from([8, 16, 32]),
    seed=st.integers(0, 99),
    drop=st.integers(0, 20),
)
def test_patches_laid_side_by_side_are_patches_blended(
    shape: tuple[int, int], patch: int, seed: int, drop: int
) -> None:
    random = np.random.default_rng(seed)
    window = Window(shape[0] // 3, shape[1] // 2, shape[0] - shape[0] // 3, shape[1] - shape[1] // 2)
    patches = [
        (row, col, random.choice(np.array([-0.0, 0.0, 0.3, 1.0], np.float32), (patch, patch)))
        for row, col in PatchGrid(shape, patch, patch).touching(window)
    ][drop:]
    fast, slow = lay(patches, window), blend(patches, blend_weights(patch, patch), window)
    nowhere = np.isnan(slow)
    assert np.array_equal(np.isnan(fast), nowhere)
    assert fast[~nowhere].tobytes() == slow[~nowhere].tobytes()


@given(seed=st.integers(0, 2**31 - 1))
def test_a_sample_turns_as_albumentations_turns_it(seed: int) -> None:
    scene = np.arange(3 * 6 * 6, dtype=np.float32).reshape(3, 6, 6)
    label = scene[0].astype(np.uint8)
    compose = albumentations.Compose([albumentations.D4(p=1.0)], seed=seed)
    expected = compose(image=scene.transpose(1, 2, 0), mask=label)
    turned, turned_label = augment_sample(scene, label, seed)
    assert np.array_equal(turned, expected["image"].transpose(2, 0, 1))
    assert np.array_equal(turned_label, expected["mask"])


def test_models_that_look_at_the_same_pixels_read_them_once(
    stored: tuple[Workspace, LabelledPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sees what it would see alone; another size of patches looks at other pixels."""
    workspace, pair = stored[0], stored[1].pair
    reads: list[Window] = []
    read = cdpipe.store.pair.read_dates

    def counted(workspace: Workspace, pair: StoredPair, window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        reads.append(window)
        return read(workspace, pair, window)

    monkeypatch.setattr("cdpipe.store.pair.read_dates", counted)
    key, execution = BlockKey("p", 0, 0), Execution("none", "float32", "cpu", 1)
    members = []
    for name, architecture, patch in (
        ("grey", "unetplusplus", 64),
        ("colours", "siamese_resnet18", 64),
        ("again", "unetplusplus", 64),
        ("small", "unetplusplus", 32),
    ):
        card = ModelCard(name, architecture, {}, RGB, "common", together=False, patch=patch, weights_sha256="0")
        members.append(Member(card, here(Path()), name, None, 1.0, 0.25, execution))
    alone, once = [], []
    for member in members:
        reads.clear()
        alone.append(Inputs(workspace, pair, key, [member]).take(member))
        once.append(len(reads))
    reads.clear()
    inputs = Inputs(workspace, pair, key, members)
    together = [inputs.take(member) for member in members]
    assert len(reads) == once[0] + once[3]
    for (one_observed, one_scene), (observed, scene) in zip(alone, together, strict=True):
        assert one_scene is not None
        assert scene is not None
        assert one_observed.tobytes() == observed.tobytes()
        assert one_scene.tobytes() == scene.tobytes()
    assert not inputs._scenes


def test_a_block_that_nobody_saw_at_both_dates_reads_no_imagery_and_runs_no_model(
    stored: tuple[Workspace, LabelledPair], tmp_path: Path
) -> None:
    workspace, item = Workspace(here(tmp_path / "work")), stored[1]
    shutil.copytree(stored[0].root.local(), workspace.root.local())
    pair, calls = item.pair, [0]
    card = ModelCard("m", "unetplusplus", {}, RGB, "common", together=False, patch=64, weights_sha256="0")
    member = Member(card, here(Path()), "m", None, 1.0, 0.25, Execution("none", "float32", "cpu", 1))

    def forward(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        calls[0] += 1
        return patches[:, 0]

    own = probability_key(pair.key, member)
    group = workspace.group("probabilities", "p", own)
    create_group(group, PROBABILITY_ARRAYS, pair.grid, pair.block, {})
    for date in ("before", "after"):
        shutil.rmtree((workspace.group("pairs", "p", pair.key) / date / "c").local())
    with pytest.raises(IntegrityError, match=r"no .*before"):
        predict_block(workspace, pair, BlockKey("p", 0, 0), member, forward)
    predict_block(workspace, pair, BlockKey("p", 0, 1), member, forward)
    assert calls == [0]
    (group / "probability" / "c" / "0" / "0").local().write_bytes(b"")
    assert (workspace.records("probabilities", "p", own) / "0_1.json").is_file()
    shutil.copytree(
        (stored[0].root / "store.zarr" / "pairs").local(),
        (workspace.root / "store.zarr" / "pairs").local(),
        dirs_exist_ok=True,
    )
    for key in pair.blocks():
        predict_block(workspace, pair, key, member, forward)
    probability = read_all(open_array(group, "probability"))
    assert np.array_equal(np.isnan(probability), ~read_observed(workspace, pair, Window(0, 0, *SHAPE)))
    assert calls[0] > 0


def test_an_ensemble_of_what_was_just_predicted_is_that_of_what_is_stored(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    dates, _ = bright_squares((520, 300), seed=2)
    pair = store_pair(workspace, "p", dates).pair
    random = np.random.default_rng(3)
    made = {name: random.random((520, 300), np.float32) for name in ("a", "b")}
    for values in made.values():
        values[:9] = np.nan
    store_probability(workspace, pair, "a", made["a"])
    stored = []
    for votes in ((), (0.5, 0.5)):
        ensemble = plan_ensemble([("a", 2.0), ("b", 1.0)], 0.4, votes)
        group = workspace.group("changes", "p", ensemble.key)
        create_group(group, CHANGE_ARRAYS, pair.grid, pair.block, {})
        for kept in (("b",), ("a", "b"), ()):
            for key in pair.blocks():
                block = pair.window(key).slices
                ensemble_block(workspace, pair, key, ensemble, {name: made[name][block] for name in kept})
            stored.append(read_all(open_array(group, "probability")).tobytes())
            stored.append(read_all(open_array(group, "change")).tobytes())
            store_probability(workspace, pair, "b", made["b"])
        assert stored[0:2] == stored[2:4] == stored[4:6]
        stored.clear()
