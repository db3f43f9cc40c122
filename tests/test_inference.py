"""Prediction of windows: the same bits whatever the window, and no patch run in vain."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, tiles_in
from cdpipe.inference.patches import Execution, Forward, Placement, blend_weights, predict_window
from cdpipe.inference.torch import make_forward
from cdpipe.models.networks import build_model

pytestmark = pytest.mark.usefixtures("one_thread")

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass
class Fake:
    """A forward whose value depends on the pixel, the one opposite, and its place in the patch; it notes its input."""

    given: list[Floats] = field(default_factory=list)

    def __call__(self, patches: Floats) -> Floats:
        self.given.append(patches.copy())
        side = patches.shape[-1]
        place = (np.arange(side, dtype=np.float32) / side)[:, None] - np.arange(side, dtype=np.float32) / 7
        value = (patches[:, 0] - 2 * patches[:, 1, ::-1, ::-1] + place) ** 2
        return np.asarray(value / (1 + value), np.float32)


def make_scene(seed: int, shape: tuple[int, int]) -> tuple[Floats, Mask]:
    """A scene of two channels, and a mask with holes of several sizes."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(size=(2, *shape)).astype(np.float32)
    coarse = rng.random((shape[0] // 20 + 1, shape[1] // 20 + 1)) < 0.6
    mask = np.kron(coarse, np.ones((20, 20), np.bool_))[: shape[0], : shape[1]] & (rng.random(shape) < 0.8)
    return scene * mask, mask


def predict(forward: Forward, batch: int, data: tuple[Floats, Mask], patch_grid: PatchGrid, window: Window) -> Floats:
    """Predict a window from its halo alone."""
    place = Placement(patch_grid, window)
    rows, cols = place.halo.slices
    return predict_window(forward, batch, data[0][:, rows, cols].copy(), data[1][rows, cols].copy(), place)


def whole(patch_grid: PatchGrid) -> Window:
    return Window(0, 0, *patch_grid.shape)


def plain_origins(length: int, patch: int, stride: int) -> list[int]:
    origins = [0]
    while origins[-1] + patch < length:
        origins.append(origins[-1] + stride)
    return origins


def plain_prediction(forward: Forward, scene: Floats, patch_grid: PatchGrid) -> NDArray[np.float64]:
    """The whole scene by padding it once and adding up every patch in float64."""
    rows, cols = (plain_origins(length, patch_grid.patch, patch_grid.stride) for length in patch_grid.shape)
    beyond = [(0, origins[-1] + patch_grid.patch) for origins in (rows, cols)]
    padding = [(0, stop - length) for (_, stop), length in zip(beyond, patch_grid.shape, strict=True)]
    padded = np.pad(scene, [(0, 0), *[(0, max(0, after)) for _, after in padding]], mode="reflect")
    weights = blend_weights(patch_grid.patch, patch_grid.stride).astype(np.float64)
    total, weight = np.zeros(padded.shape[1:]), np.zeros(padded.shape[1:])
    for row in rows:
        for col in cols:
            part = np.s_[row : row + patch_grid.patch, col : col + patch_grid.patch]
            total[part] += weights * forward(padded[None, :, *part])[0]
            weight[part] += weights
    return (total / weight)[: patch_grid.shape[0], : patch_grid.shape[1]]


@st.composite
def patch_grids(draw: st.DrawFn) -> PatchGrid:
    patch = draw(st.sampled_from([8, 16, 17, 32]))
    return PatchGrid(
        (draw(st.integers(1, 90)), draw(st.integers(1, 90))), patch, draw(st.integers((patch + 2) // 3, patch))
    )


SHAPES = [(50, 70), (33, 65), (9, 7), (1, 50), (50, 1), (1, 1), (16, 16), (17, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("patch", "stride"), [(16, 12), (16, 16), (16, 5)])
def test_a_scene_of_any_size_is_padded_by_reflection_and_blended(
    shape: tuple[int, int], patch: int, stride: int
) -> None:
    patch_grid = PatchGrid(shape, patch, stride)
    scene, mask = make_scene(1, shape)
    mask[0, 0] = True
    result = predict(Fake(), 3, (scene, mask), patch_grid, whole(patch_grid))
    assert result.shape == shape
    assert result.dtype == np.float32
    assert np.array_equal(np.isnan(result), ~mask)
    np.testing.assert_allclose(result[mask], plain_prediction(Fake(), scene, patch_grid)[mask], rtol=1e-5)


@given(
    patch_grid=patch_grids(),
    seed=st.integers(0, 2**32 - 1),
    block=st.integers(1, 80),
    batches=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_blocks_of_any_size_give_the_bits_of_the_whole_scene(
    patch_grid: PatchGrid, seed: int, block: int, batches: tuple[int, int]
) -> None:
    data = make_scene(seed, patch_grid.shape)
    scene = predict(Fake(), batches[0], data, patch_grid, whole(patch_grid))
    for window in tiles_in(whole(patch_grid), max(block, 5)):
        part = predict(Fake(), batches[1], data, patch_grid, window)
        assert np.array_equal(part, scene[window.slices], equal_nan=True)


def small_net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(2, 12, 3, stride=2, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Dropout2d(0.5),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(12, 1, 3, padding=1),
    )


def tiny_unet() -> nn.Module:
    torch.manual_seed(6)
    return build_model(
        "unetplusplus",
        encoder="mobilenet_v2",
        input="stacked",
        bands=["red"],
        encoder_depth=3,
        decoder_channels=(8, 8, 8),
    )


@pytest.mark.parametrize(
    ("make", "tta", "batch"),
    [(small_net, "none", 1), (small_net, "d4", 1), (small_net, "none", 4), (small_net, "d4", 3), (tiny_unet, "d4", 1)],
)
def test_a_network_gives_every_block_the_bits_of_the_whole_scene(
    make: Callable[[], nn.Module], tta: str, batch: int
) -> None:
    forward = make_forward(make(), Execution(tta, "float32", "cpu", batch))
    patch_grid = PatchGrid((75, 91), 32, 24)
    data = make_scene(7, patch_grid.shape)
    scene = predict(forward, batch, data, patch_grid, whole(patch_grid))
    assert np.nanstd(scene) > 1e-3
    for block in (29, 64):
        for window in tiles_in(whole(patch_grid), block):
            part = predict(forward, batch, data, patch_grid, window)
            assert np.array_equal(part, scene[window.slices], equal_nan=True)


def numbered(shape: tuple[int, int]) -> Floats:
    """A scene whose first channel tells row and column."""
    rows, cols = np.indices(shape)
    return np.stack([rows * 1000 + cols + 1, np.zeros(shape)]).astype(np.float32)


@given(patch_grid=patch_grids(), seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 6), data=st.data())
def test_just_the_patches_with_an_observed_pixel_are_run_in_batches_of_one_size(
    patch_grid: PatchGrid, seed: int, batch: int, data: st.DataObject
) -> None:
    row, col = (data.draw(st.integers(0, length - 1)) for length in patch_grid.shape)
    height, width = (
        data.draw(st.integers(1, length - start)) for length, start in zip(patch_grid.shape, (row, col), strict=True)
    )
    window = Window(row, col, height, width)
    mask = make_scene(seed, patch_grid.shape)[1]
    inside = np.zeros_like(mask)
    inside[window.slices] = mask[window.slices]
    side = patch_grid.patch
    expected = [
        (row, col)
        for row in plain_origins(patch_grid.shape[0], side, patch_grid.stride)
        for col in plain_origins(patch_grid.shape[1], side, patch_grid.stride)
        if inside[row : row + side, col : col + side].any()
    ]
    forward = Fake()
    predict(forward, batch, (numbered(patch_grid.shape), mask), patch_grid, window)
    assert all(patches.shape == (batch, 2, side, side) for patches in forward.given)
    run = [divmod(int(patch[0, 0, 0]) - 1, 1000) for patches in forward.given for patch in patches if patch.any()]
    assert run == expected
    assert len(forward.given) == -(-len(expected) // batch)


def test_nothing_observed_runs_nothing() -> None:
    patch_grid = PatchGrid((40, 40), 16, 12)
    mask = np.ones((40, 40), np.bool_)
    mask[:20, :20] = False
    forward = Fake()
    result = predict(forward, 2, (numbered((40, 40)), mask), patch_grid, Window(0, 0, 20, 20))
    assert np.isnan(result).all()
    assert forward.given == []


def test_the_halo_is_all_that_is_read() -> None:
    patch_grid = PatchGrid((100, 100), 16, 12)
    halo = Placement(patch_grid, Window(50, 40, 10, 10)).halo
    # patches at 36, 48 and 60 hold rows 36 to 75; those at 36 and 48 hold columns 36 to 63
    assert halo == Window(36, 36, 28, 28)
    # the last patches, from 84 on, lie inside; of 97 columns they would hang over by 3, which 93 to 95 fill
    assert Placement(PatchGrid((97, 97), 16, 12), Window(96, 96, 1, 1)).halo == Window(84, 84, 13, 13)


def test_d4_is_the_mean_of_eight_plain_runs() -> None:
    patches = np.random.default_rng(3).normal(size=(2, 2, 32, 32)).astype(np.float32)
    network = small_net()
    plain, d4 = (make_forward(network, Execution(tta, "float32", "cpu", 2)) for tta in ("none", "d4"))
    views: list[Floats] = []
    for turns in range(4):
        for mirrored in (False, True):
            view = np.rot90(patches, turns, (-2, -1))
            answer = plain(np.ascontiguousarray(view[..., ::-1] if mirrored else view))
            views.append(np.rot90(answer[..., ::-1] if mirrored else answer, -turns, (-2, -1)))
    assert np.ptp(views, axis=0).max() > 1e-3
    np.testing.assert_allclose(d4(patches), np.mean(views, axis=0), atol=1e-6)


@pytest.mark.parametrize("tta", ["none", "d4"])
def test_a_forward_gives_probabilities_of_a_network_that_is_not_training(tta: str) -> None:
    patches = 3 * np.random.default_rng(4).normal(size=(3, 2, 32, 32)).astype(np.float32)
    network = small_net().train()
    forward = make_forward(network, Execution(tta, "float32", "cpu", 3))
    result = forward(patches)
    assert result.shape == (3, 32, 32)
    assert result.dtype == np.float32
    assert ((result > 0) & (result < 1)).all()
    assert np.array_equal(forward(patches), result)  # no dropout, no statistics of the batch
    if tta == "none":
        with torch.no_grad():
            logits = network(torch.from_numpy(patches))[:, 0].double().numpy()
        np.testing.assert_allclose(result, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_sure_networks_give_zero_and_one() -> None:
    forward = make_forward(nn.Conv2d(1, 1, 1, bias=False), Execution("d4", "float32", "cpu", 1))
    extreme = np.full((1, 1, 4, 4), 1e30, np.float32)
    assert {float(value) for sign in (1, -1) for value in np.unique(forward(sign * extreme))} == {0.0, 1.0}


def test_bfloat16_is_close_to_float32_and_comes_back_as_float32() -> None:
    patches = np.random.default_rng(5).normal(size=(1, 2, 32, 32)).astype(np.float32)
    exact, coarse = (make_forward(small_net(), Execution("d4", p, "cpu", 1))(patches) for p in ("float32", "bfloat16"))
    assert coarse.dtype == np.float32
    assert 0 < np.abs(coarse - exact).max() < 0.02
