"""Models that are shown what detectors say: the same channels from the store, in training and in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rasters import make_config
from stored import RGB, Dates, store_pair

from cdpipe.detectors.detect import change_probability, fit_detector, sample
from cdpipe.detectors.stored import find_fit, find_shown, fit_record, read_shown
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import Window
from cdpipe.inference.patches import Execution
from cdpipe.models.contract import name_channels
from cdpipe.models.encoders import Channels, adapt
from cdpipe.models.folder import ModelCard
from cdpipe.models.networks import build_model, encoder_channels
from cdpipe.models.pretrained import named_weights
from cdpipe.prediction import block
from cdpipe.prediction.block import Member
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import LabelledPair, StoredPair, read_observed, read_scene
from cdpipe.training.augment import make_augmentation
from cdpipe.training.plan import architecture_of, check_buildable, plan_training
from cdpipe.training.samples import Sampler, draw_sample, draw_window, index_pixels
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SHAPE = (300, 560)
SHOWN = ("mad", "cva")
JITTER = {"BandJitter": {"p": 1.0, **dict.fromkeys(("gain", "offset", "band_gain", "band_offset"), 0.3)}}
RECIPE = Recipe("stacked", RGB, "per_date", together=False, detectors=SHOWN)


def make_dates(shape: tuple[int, int] = SHAPE) -> tuple[Dates, NDArray[np.uint8]]:
    rng = np.random.default_rng(2)
    before = 2000 + rng.normal(0, 300, (3, *shape))
    after = before * 1.2 + rng.normal(0, 30, (3, *shape))
    label = np.zeros(shape, np.uint8)
    label[3:20, 4:30] = label[250:, 255:270] = 1
    after[:, label == 1] += 3000
    return (before.clip(1).astype(np.uint16), after.clip(1).astype(np.uint16)), label


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(here(tmp_path_factory.mktemp("shown")))


@pytest.fixture(scope="module")
def valid() -> NDArray[np.uint8]:
    valid = np.full(SHAPE, 3, np.uint8)
    valid[100:120, 200:300] = 1
    valid[:, 555:] = 0
    return valid


@pytest.fixture(scope="module")
def item(workspace: Workspace, valid: NDArray[np.uint8]) -> LabelledPair:
    dates, label = make_dates()
    return store_pair(workspace, "p", dates, label, valid)


@pytest.fixture(scope="module")
def whole(valid: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is shown of the whole scene, computed from the arrays alone."""
    dates, _ = make_dates()
    observed = valid == 3
    fits = [fit_detector(name, sample(dates, observed, 1).pixels, RGB) for name in SHOWN]
    said = np.stack([change_probability(fit, *dates, observed) for fit in fits])
    return np.where(observed, 2 * said - 1, np.float32(0)).astype(np.float32)


@pytest.mark.parametrize("window", [Window(0, 0, *SHAPE), Window(90, 180, 64, 200), Window(299, 0, 1, 7)])
def test_any_window_of_the_store_shows_what_the_whole_scene_does(
    workspace: Workspace, item: LabelledPair, whole: NDArray[np.float32], window: Window
) -> None:
    observed = read_observed(workspace, item.pair, window)
    scene = read_scene(workspace, item.pair, window, observed, item.pair.scalings(RECIPE))
    shown = read_shown(workspace, item.pair, window, RECIPE)
    assert len(scene) + len(shown) == RECIPE.channels == 8
    assert np.array_equal(shown, whole[:, *window.slices_in(Window(0, 0, *SHAPE))])


def sampler_of(workspace: Workspace, pairs: tuple[LabelledPair, ...], patch: int, *augment: Any) -> Sampler:
    pools = index_pixels(workspace, pairs, "area")
    return Sampler(workspace, pairs, pools, patch, 0.5, RECIPE, 7, make_augmentation(augment))


def test_training_sees_the_same(workspace: Workspace, item: LabelledPair, whole: NDArray[np.float32]) -> None:
    sampler = sampler_of(workspace, (item,), 48)
    for index in range(8):
        _, row, col = draw_window(sampler, np.random.default_rng([7, 0, index]))
        x, label = draw_sample(sampler, 0, index)
        assert np.array_equal(x[6:], whole[:, row : row + 48, col : col + 48])
        assert np.array_equal(label, np.where(x[6] == 0, 255, make_dates()[1][row : row + 48, col : col + 48]))


def test_looks_leave_it_alone_and_dates_may_be_swapped(workspace: Workspace, item: LabelledPair) -> None:
    plain = sampler_of(workspace, (item,), 48)
    other = sampler_of(workspace, (item,), 48, JITTER, {"SwapDates": {"p": 1.0}})
    for index in range(4):
        assert np.array_equal(draw_sample(plain, 0, index)[0][6:], draw_sample(other, 0, index)[0][6:])
        assert not np.array_equal(draw_sample(plain, 0, index)[0][:3], draw_sample(other, 0, index)[0][:3])


def test_a_scene_that_is_smaller_than_a_patch_is_mirrored_with_it(workspace: Workspace) -> None:
    dates, label = make_dates((40, 50))
    small = store_pair(workspace, "small", dates, label)
    x, _ = draw_sample(sampler_of(workspace, (small,), 64), 0, 0)
    assert np.array_equal(x[:, :40, 50:], x[:, :40, 48:34:-1])
    assert np.array_equal(x[:, 40:], x[:, 38:14:-1])


def test_what_is_found_out_is_shared_with_the_detector_as_a_member(workspace: Workspace, item: LabelledPair) -> None:
    fit = find_fit(workspace, item.pair, "mad", item.pair.roles)
    assert find_shown(workspace, item.pair, RECIPE)[0] == fit
    some = Recipe("stacked", ("red", "green"), "per_date", together=False, detectors=("mad",))
    (other,) = find_shown(workspace, item.pair, some)
    assert other.bands == ("red", "green")
    records = [fit_record(workspace, item.pair, "mad", bands) for bands in (RGB, ("red", "green"))]
    assert records[0] != records[1]
    assert all(record.is_file() for record in records)


def test_a_pair_in_which_nothing_can_be_compared_is_named(workspace: Workspace) -> None:
    (before, after), label = make_dates((64, 64))
    flat = store_pair(workspace, "flat", (before, np.full_like(after, 5)), label)
    with pytest.raises(InputError, match="pair flat: mad: there is nothing to compare"):
        draw_sample(sampler_of(workspace, (flat,), 32), 0, 0)


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("unetplusplus", {"encoder": "plain8", "input": "stacked_difference"}, 9),
        ("unet", {"encoder": "resnet18"}, 1),
        ("siamese_unet", {"encoder": "plain8"}, 6),
        ("siamese_unetplusplus", {"encoder": "resnet18"}, 6),
    ],
)
def test_networks_take_what_is_shown_and_use_it(name: str, options: dict[str, Any], channels: int) -> None:
    torch.manual_seed(0)
    network = build_model(name, **options, bands=None if channels == 1 else RGB, detectors=SHOWN).eval()
    x = torch.randn(2, channels + 2, 64, 64)
    with torch.no_grad():
        first = network(x)
        x[:, -1] += 1
        assert first.shape == (2, 1, 64, 64)
        assert not torch.equal(first, network(x))


def test_pretrained_kernels_see_nothing_of_it_at_first() -> None:
    channels = encoder_channels("unetplusplus", {"input": "stacked", "bands": RGB, "detectors": SHOWN})
    assert channels == Channels("stacked", RGB, 2)
    assert (channels.count, channels.suit_library) == (8, False)
    kernel, _ = adapt(torch.randn(4, 3, 7, 7), named_weights("imagenet"), channels)
    assert kernel.shape == (4, 8, 7, 7)
    assert kernel[:, :6].any()
    assert not kernel[:, 6:].any()


def test_a_configuration_names_them_and_a_network_without_refuses(workspace: Workspace, item: LabelledPair) -> None:
    def job(**model: Any) -> Any:
        config = make_config(workspace.root.local(), train={"models": {"unetplusplus": model}, "patch": 64})
        (planned,) = plan_training(workspace, config, [item], [item])
        return planned

    shown, plain = job(encoder="plain8", detectors=["mad"]), job(encoder="plain8")
    assert shown.recipe.detectors == ("mad",)
    assert shown.recipe.channels == plain.recipe.channels + 1
    assert shown.key != plain.key
    check_buildable(shown)
    with pytest.raises(ConfigError, match="has no option detectors"):
        check_buildable(job(architecture="siamese_resnet18", detectors=["mad"]))
    with pytest.raises(ConfigError, match="detectors"):
        job(detectors=["otsu"])
    assert architecture_of("unetplusplus", make_config(workspace.root.local()).train.models["unetplusplus"])


def test_a_contract_names_the_channels_that_are_no_bands() -> None:
    assert name_channels(RECIPE)[5:] == [
        "after blue",
        "2 p - 1 of cdpipe's detector mad, p its probability",
        "2 p - 1 of cdpipe's detector cva, p its probability",
    ]
    assert len(name_channels(RECIPE)) == RECIPE.channels


def test_models_that_are_shown_the_same_share_it(
    workspace: Workspace, item: LabelledPair, whole: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    def member(architecture: str, **options: Any) -> Member:
        card = ModelCard(architecture, architecture, {"detectors": SHOWN, **options}, RGB, "per_date", False, 64, "")
        return Member(card, here(Path()), architecture, None, 1.0, 0.25, Execution("none", "float32", "cpu", 1))

    calls: list[Window] = []

    def read(workspace: Workspace, pair: StoredPair, window: Window, recipe: Recipe) -> NDArray[np.float32]:
        calls.append(window)
        return read_shown(workspace, pair, window, recipe)

    monkeypatch.setattr(block, "read_shown", read)
    members = member("siamese_unet"), member("unet", input="stacked_difference", bands=RGB)
    (key, *_) = item.pair.blocks()
    inputs = block.Inputs(workspace, item.pair, key, members)
    scenes = [inputs.take(each)[1] for each in members]
    assert len(calls) == 1
    for scene, each in zip(scenes, members, strict=True):
        assert scene is not None
        assert len(scene) == each.card.recipe.channels
        assert np.array_equal(scene[-2:], whole[:, *calls[0].slices_in(Window(0, 0, *SHAPE))])
