"""Blocks share patches: the same bits as each block alone, no patch run twice, nothing kept, failures passed on."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, tiles_in
from cdpipe.inference.patches import Placement, predict_window
from cdpipe.inference.shared import SharedPatches

Floats = NDArray[np.float32]


class Fake:
    """A network whose answer depends on each pixel's place in the patch; it counts the patches it was given."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.patches = 0

    def __call__(self, patches: Floats) -> Floats:
        with self.lock:
            self.patches += len(patches)
        place = np.arange(patches.shape[-1], dtype=np.float32)[:, None] / 7
        value = (patches[:, 0] - 2 * patches[:, 1, ::-1] + place) ** 2
        return np.asarray(value / (1 + value), np.float32)


def scene_of(seed: int, shape: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((shape[0] // 16 + 1, shape[1] // 16 + 1)) < 0.8, np.ones((16, 16), np.bool_))
    observed = mask[: shape[0], : shape[1]]
    return rng.normal(size=(2, *shape)).astype(np.float32) * observed, observed


def predict(
    fake: Fake, data: tuple[Floats, NDArray[np.bool_]], place: Placement, shared: SharedPatches | None = None
) -> Floats:
    rows, cols = place.halo.slices
    try:
        return predict_window(fake, 1, data[0][:, rows, cols], data[1][rows, cols], place, shared)
    finally:
        if shared is not None:
            shared.finish(place.window)


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    patch=st.integers(8, 40),
    stride=st.integers(5, 40),
    block=st.sampled_from([16, 24, 48]),
    threads=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_the_bits_of_blocks_alone(
    shape: tuple[int, int], patch: int, stride: int, block: int, threads: int, seed: int
) -> None:
    grid, data = PatchGrid(shape, patch, min(stride, patch)), scene_of(seed, shape)
    windows = list(tiles_in(Window(0, 0, *shape), block))
    np.random.default_rng(seed).shuffle(windows)
    alone, together = Fake(), Fake()
    expected = [predict(alone, data, Placement(grid, window)) for window in windows]
    if threads:
        with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(2) as drivers:
            shared = SharedPatches(grid, windows, pool)
            work = [drivers.submit(predict, together, data, Placement(grid, window), shared) for window in windows]
            found = [each.result() for each in work]
    else:
        shared = SharedPatches(grid, windows)
        found = [predict(together, data, Placement(grid, window), shared) for window in windows]
    for own, other in zip(expected, found, strict=True):
        assert own.tobytes() == other.tobytes()
    assert together.patches <= min(alone.patches, len(grid.origins(0)) * len(grid.origins(1)))
    assert not len(shared)


def test_every_patch_is_run_once() -> None:
    grid, data = PatchGrid((200, 200), 32, 24), scene_of(1, (200, 200))
    windows = list(tiles_in(Window(0, 0, 200, 200), 50))
    data[1][:] = True
    shared, fake, kept = SharedPatches(grid, windows), Fake(), []
    for window in windows:
        predict(fake, data, Placement(grid, window), shared)
        kept.append(len(shared))
    assert fake.patches == len(grid.origins(0)) * len(grid.origins(1)) == 64
    assert max(kept) <= 2 * 8 + 4  # those on the line to the blocks below, not the whole scene's
    assert kept[-1] == 0


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failure_reaches_who_waits_and_is_tried_again_later(threads: int) -> None:
    grid, data = PatchGrid((64, 128), 32, 24), scene_of(1, (64, 128))
    data[1][:] = True
    windows = [Window(0, 0, 64, 64), Window(0, 64, 64, 64)]
    fake, fails = Fake(), [True]

    def forward(patches: Floats) -> Floats:
        if fails:
            raise MemoryError("no room for a patch")
        return fake(patches)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        shared = SharedPatches(grid, windows, pool if threads else None)
        place = Placement(grid, windows[0])
        with pytest.raises(MemoryError, match="no room"):
            predict_window(forward, 1, data[0][:, :, : place.halo.width], data[1][:, : place.halo.width], place, shared)
        shared.finish(windows[0])
        fails.clear()
        found = predict(fake, data, Placement(grid, windows[1]), shared)
    assert found.tobytes() == predict(Fake(), data, Placement(grid, windows[1])).tobytes()
    assert not len(shared)


def test_who_waits_when_work_is_given_up_does_not_wait_for_ever() -> None:
    grid, data = PatchGrid((64, 128), 32, 24), scene_of(1, (64, 128))
    data[1][:] = True
    windows = [Window(0, 0, 64, 64), Window(0, 64, 64, 64)]
    begun, go_on = threading.Event(), threading.Event()

    def forward(patches: Floats) -> Floats:
        begun.set()
        assert go_on.wait(30)
        return patches[:, 0]

    def work(window: Window) -> str:
        place = Placement(grid, window)
        rows, cols = place.halo.slices
        try:
            predict_window(forward, 1, data[0][:, rows, cols], data[1][rows, cols], place, shared)
        except CancelledError:
            return "given up"
        return "done"

    pool = ThreadPoolExecutor(1)
    shared = SharedPatches(grid, windows, pool)
    with ThreadPoolExecutor(2) as drivers:
        tasks = [drivers.submit(work, window) for window in windows]
        assert begun.wait(30)
        pool.shutdown(wait=False, cancel_futures=True)  # all but the patch that is at work
        go_on.set()
        pool.shutdown(wait=True)
        shared.give_up()
        assert [task.result(30) for task in tasks] == ["given up", "given up"]
    with pytest.raises(CancelledError):
        shared.obtain([(0, 0)], 1, lambda _: np.zeros((1, 32, 32), np.float32))


def test_who_asks_when_the_pool_is_shut_down_is_told_that_work_is_given_up() -> None:
    windows = [Window(0, 0, 64, 64)]
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(CancelledError):
        SharedPatches(PatchGrid((64, 64), 32, 24), windows, pool).obtain(
            [(0, 0)], 1, lambda _: np.zeros((1, 32, 32), np.float32)
        )
