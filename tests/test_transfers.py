"""Copies to a device and back, and batches that are sent while the one before is computed on.

Of a GPU only what a CPU has, too, is tested here: order, values, errors, and which thread makes what; see
benchmarks/gpu.py for the rest.
"""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cdpipe.inference.patches import Execution
from cdpipe.inference.torch import forward_of
from cdpipe.inference.transfers import receive, send, send_back, sent_ahead, wait

CPU = torch.device("cpu")
WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=WITHOUT_GPU)])
def test_what_is_sent_and_sent_back_is_what_it_was(device: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    back = wait(send_back(2 * receive(send(values, torch.device(device)))))
    np.testing.assert_array_equal(back, 2 * values)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=WITHOUT_GPU)])
def test_threads_that_share_a_device_get_each_their_own_results(device: str) -> None:
    """Three at once, as actors with a GPU have; of their networks one at a time is at work on it."""
    busy, most = 0, 0

    def predict(views: torch.Tensor) -> torch.Tensor:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        result = torch.sigmoid(views[:, :1] * 2)
        busy -= 1
        return result

    forward = forward_of(predict, Execution("d4", "float32", device, 2))
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        values = np.random.default_rng(number)
        patches = [values.normal(size=(2, 3, 16, 16)).astype(np.float32) for _ in range(20)]
        right = [1 / (1 + np.exp(-2 * each[:, 0])) for each in patches]
        given = [forward(each) for each in patches]
        found[number] = all(np.allclose(one, other, atol=1e-6) for one, other in zip(given, right, strict=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: True, 1: True, 2: True}
    assert most == 1 or device == "cpu"


def test_batches_come_in_order_and_the_next_is_made_meanwhile() -> None:
    made: list[int] = []
    next_is_made = threading.Event()

    def batches() -> Iterator[list[list[NDArray[np.float32]]]]:
        for number in range(4):
            assert threading.current_thread() is not threading.main_thread()
            made.append(number)
            if number == 1:
                next_is_made.set()
            yield [[np.full((2, 2), number, np.float32)]]

    came: list[float] = []
    for batch in sent_ahead(batches(), CPU):
        if not came:
            assert next_is_made.wait(10)  # while the first is "computed on", the second is made
        came.append(float(batch[0][0].mean()))
    assert came == [0, 1, 2, 3]
    assert made == [0, 1, 2, 3]
    assert list(sent_ahead([], CPU)) == []


def test_an_error_in_making_a_batch_is_raised_where_the_batch_is_wanted() -> None:
    def batches() -> Iterator[list[list[NDArray[np.float32]]]]:
        yield [[np.zeros((2, 2), np.float32)]]
        raise ValueError("a damaged sample")

    came = sent_ahead(batches(), CPU)
    next(came)
    with pytest.raises(ValueError, match="a damaged sample"):
        next(came)
