"""``predict_array``: for arrays in memory, what the pipeline stores for a pair."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stored import RGB, store_pair

import cdpipe
from cdpipe.config.schema import Backend
from cdpipe.errors import InputError
from cdpipe.geo.grid import Window
from cdpipe.inference.patches import Execution
from cdpipe.models.folder import ModelCard, read_card, save_model
from cdpipe.models.networks import build_model
from cdpipe.prediction.block import Member, load_forward, predict_block, probability_key
from cdpipe.prediction.in_memory import predict_array
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.groups import PROBABILITY_ARRAYS, create_group
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

pytestmark = pytest.mark.usefixtures("one_thread")

Dates = tuple[NDArray[Any], NDArray[Any]]
NETWORKS: dict[str, dict[str, Any]] = {
    "unetplusplus": {"encoder": "mobilenet_v2", "encoder_depth": 3, "decoder_channels": [16, 16, 16]},
    "siamese_resnet18": {"decoder_channels": [8, 8, 8, 8]},
    "siamese_unet": {"encoder": "plain8", "bands": RGB},
    "unet": {"encoder": "plain8", "bands": RGB, "input": "difference"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, one of every architecture and way to normalise that the tests need."""
    root = tmp_path_factory.mktemp("models")
    for name, architecture, statistics, together in (
        ("plain", "unetplusplus", "common", False),
        ("per_date", "unetplusplus", "per_date", True),
        ("siamese", "siamese_resnet18", "common", True),
    ):
        torch.manual_seed(3)
        arguments = NETWORKS[architecture]
        card = ModelCard(name, architecture, arguments, RGB, statistics, together, 32, "")
        save_model(here(root / name), card, build_model(architecture, **arguments).state_dict())
    for name, architecture, statistics in (("robust", "siamese_unet", "per_date"), ("bands", "unet", "common")):
        torch.manual_seed(3)
        arguments = NETWORKS[architecture]
        card = ModelCard(name, architecture, arguments, RGB, statistics, False, 40, "", clip=2.0, method="robust")
        save_model(here(root / name), card, build_model(architecture, **arguments).state_dict())
    arguments = {**NETWORKS["siamese_unet"], "detectors": ("mad",)}
    card = ModelCard("shown", "siamese_unet", arguments, RGB, "common", False, 40, "")
    save_model(here(root / "shown"), card, build_model("siamese_unet", **arguments).state_dict())
    return root


def make_dates(shape: tuple[int, int], seed: int = 1) -> Dates:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(100, 900, (2, 3, *shape)).astype(np.uint16)
    return before, after


def through_the_store(root: Path, dates: Dates, valid: NDArray[np.uint8], member: Member) -> NDArray[np.float32]:
    """What the pipeline stores for the same pixels."""
    workspace = Workspace(here(root))
    pair = store_pair(workspace, "p", dates, valid=valid).pair
    group = workspace.group("probabilities", "p", probability_key(pair.key, member))
    create_group(group, PROBABILITY_ARRAYS, pair.grid, pair.block, {})
    forward = load_forward(member)
    for key in pair.blocks():
        predict_block(workspace, pair, key, member, forward)
    return np.asarray(read_window(open_array(group, "probability"), Window(0, 0, *valid.shape)), np.float32)


def member_of(folder: Path, overlap: float = 0.25, tta: str = "none", backend: str = "torch") -> Member:
    execution = Execution(tta, "float32", "cpu", 1, backend)
    return Member(read_card(here(folder)), here(folder), folder.name, None, 1.0, overlap, execution)


@pytest.mark.parametrize(
    ("model", "shape", "ways"),
    [
        ("plain", (40, 560), (0.25, "none", "torch")),  # two blocks
        ("plain", (40, 560), (0.25, "d4", "openvino")),
        ("plain", (45, 50), (0.5, "d4", "torch")),
        ("plain", (1, 20), (0.25, "d4", "torch")),
        ("siamese", (50, 33), (0.0, "none", "torch")),
        ("bands", (50, 530), (0.25, "d4", "torch")),
        ("bands", (50, 530), (0.5, "none", "torch")),
        ("shown", (50, 530), (0.25, "none", "torch")),
    ],
)
def test_the_stored_path_gives_the_same_bits(
    models: Path, tmp_path: Path, model: str, shape: tuple[int, int], ways: tuple[float, str, Backend]
) -> None:
    overlap, tta, backend = ways
    dates = make_dates(shape)
    observed = np.ones(shape, np.bool_)
    observed[:, shape[1] // 3 : shape[1] // 2] = False
    valid = np.where(observed, np.uint8(3), np.uint8(1))
    stored = through_the_store(tmp_path, dates, valid, member_of(models / model, overlap, tta, backend))
    result = predict_array(*dates, models / model, observed=observed, overlap=overlap, tta=tta, backend=backend)
    assert result.dtype == np.float32
    assert np.array_equal(np.isnan(result), ~observed)
    assert np.array_equal(result, stored, equal_nan=True)
    assert np.nanstd(result) > 0


@pytest.mark.parametrize("model", ["plain", "per_date", "robust"])
def test_what_is_not_finite_is_not_observed(models: Path, tmp_path: Path, model: str) -> None:
    shape = (40, 45)
    before, after = (date.astype(np.float32) for date in make_dates(shape))
    valid = np.full(shape, 3, np.uint8)
    holes: list[tuple[int, NDArray[Any], Any, float]] = [
        (1, before, np.s_[1, 5:20, 5:20], np.nan),
        (2, after, np.s_[:, 30:, :9], np.inf),
        (3, before, np.s_[2, 0, 40:], np.inf),
        (3, after, np.s_[2, 0, 40:], np.inf),
    ]
    filled = before.copy(), after.copy()
    for bits, date, where, value in holes:
        date[where] = value
        for bit, index in ((1, 0), (2, 1)):
            if bits & bit:
                valid[where[1:]] &= ~np.uint8(bit)
                filled[index][:, *where[1:]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        result = predict_array(before, after, models / model, tta="none", backend="torch")
    assert np.array_equal(np.isnan(result), valid != 3)
    stored = through_the_store(tmp_path, filled, valid, member_of(models / model))
    assert np.array_equal(result, stored, equal_nan=True)


@pytest.mark.parametrize("model", ["plain", "per_date", "robust"])
def test_values_outside_of_observed_have_no_influence(models: Path, model: str) -> None:
    before, after = make_dates((40, 45))
    observed = np.random.default_rng(2).random((40, 45)) < 0.7
    clean = predict_array(before, after, models / model, observed=observed, tta="none", backend="torch")
    before[:, ~observed], after[:, ~observed] = 0, 65535
    assert np.array_equal(
        predict_array(before, after, models / model, observed=observed, tta="none", backend="torch"),
        clean,
        equal_nan=True,
    )


def test_d4_over_a_quarter_overlap_is_the_default(models: Path) -> None:
    before, after = make_dates((36, 36))
    result = predict_array(before, after, str(models / "plain"))
    assert np.array_equal(result, predict_array(before, after, models / "plain", overlap=0.25, tta="d4"))
    assert not np.array_equal(result, predict_array(before, after, models / "plain", overlap=0.25, tta="none"))
    assert ((result >= 0) & (result <= 1)).all()


def test_the_order_in_memory_does_not_matter(models: Path) -> None:
    before, after = make_dates((40, 45))
    channels_last = [np.ascontiguousarray(date.transpose(1, 2, 0)).transpose(2, 0, 1) for date in (before, after)]
    plain = predict_array(before, after, models / "plain", tta="none")
    assert np.array_equal(predict_array(channels_last[0], channels_last[1], models / "plain", tta="none"), plain)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 20, 30), (3, 20, 31)), r"expected two arrays of \(3, height, width\) with bands red, green, blue, got"),
        (((4, 20, 30), (4, 20, 30)), "with bands red, green, blue, got .*4, 20, 30"),
        (((3, 20, 30), (4, 20, 30)), "expected two arrays"),
        (((20, 30), (20, 30)), "expected two arrays"),
        (((3, 30), (3, 30)), "expected two arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    models: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]], message: str
) -> None:
    before, after = (np.zeros(shape, np.uint8) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        predict_array(before, after, models / "plain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tta": "D4"}, "expected tta d4 or none, got 'D4'"),
        ({"overlap": 1.0}, "overlap must be at least 0 and below 1"),
        ({"observed": np.ones((20, 1), np.bool_)}, r"expected observed as \(20, 30\) bool"),
        ({"observed": np.ones((20, 30), np.uint8)}, r"expected observed as \(20, 30\) bool, .* got .*uint8"),
    ],
)
def test_options_that_do_not_exist_are_refused(models: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_array(*make_dates((20, 30)), models / "plain", **options)


def test_nothing_to_predict_from_is_said(models: Path, tmp_path: Path) -> None:
    before, after = make_dates((20, 30))
    with pytest.raises(InputError, match="expected a model folder"):
        predict_array(before, after, tmp_path / "nothing")
    with pytest.raises(InputError, match="no pixel is observed at both dates"):
        predict_array(before, after, models / "plain", observed=np.zeros((20, 30), np.bool_))
    with pytest.raises(InputError, match="no pixel is observed at both dates"):
        predict_array(np.full((3, 20, 30), np.nan), after, models / "plain")


def test_a_model_s_name_or_threshold_is_no_part_of_it(models: Path, tmp_path: Path) -> None:
    card = dataclasses.replace(read_card(here(models / "plain")), name="other", threshold=0.9)
    torch.manual_seed(3)
    save_model(here(tmp_path), card, build_model(card.architecture, **card.arguments).state_dict())
    dates = make_dates((20, 30))
    assert np.array_equal(predict_array(*dates, tmp_path), predict_array(*dates, models / "plain"))


def test_the_package_offers_it_without_loading_torch_for_everyone() -> None:
    assert cdpipe.predict_array is predict_array
    code = "import sys, cdpipe; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'predict_all'"):
        cdpipe.predict_all  # noqa: B018 (looked up, not called)
