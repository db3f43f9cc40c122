"""The batch of a GPU: chosen by its speed and memory, remembered for its kind, and part of the key."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.inference.patches import Execution
from cdpipe.models.folder import ModelCard
from cdpipe.prediction.block import Member, probability_key
from cdpipe.runs.members import MOST, batch_name, choose_batch, remember_batches, remembered_batches, with_batches
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

CARD = ModelCard(
    "m", "unetplusplus", {}, ("red", "green", "blue"), "common", together=False, patch=64, weights_sha256=""
)
MEMBER = Member(CARD, here(Path("m")), "m", None, 1.0, 0.25, Execution("d4", "bfloat16", "cuda", 8))


@given(st.integers(0, 6), st.floats(1.2, 2.0), st.sampled_from([MemoryError, torch.OutOfMemoryError, None]))
def test_the_batch_is_where_more_brings_nothing_or_does_not_fit(best: int, gain: float, ends: type | None) -> None:
    def rate(batch: int) -> float:
        if batch > 2**best and ends is not None:
            raise ends
        return gain ** min(batch.bit_length() - 1, best)

    assert choose_batch(rate) == min(2**best, MOST)


def test_what_else_goes_wrong_while_probing_is_told() -> None:
    def rate(batch: int) -> float:
        if batch > 1:
            raise ZeroDivisionError
        return 1.0

    with pytest.raises(ZeroDivisionError):
        choose_batch(rate)


def test_batches_are_remembered_by_kind_of_device_and_bear_on_the_key(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    assert remembered_batches(workspace) == {}
    other = dataclasses.replace(MEMBER, execution=dataclasses.replace(MEMBER.execution, tta="none"))
    remember_batches(workspace, "A100", {batch_name(MEMBER): 32})
    remember_batches(workspace, "A100", {batch_name(other): 64})
    remember_batches(workspace, "T4", {batch_name(MEMBER): 2})
    known = remembered_batches(workspace)
    assert {kind: len(batches) for kind, batches in known.items()} == {"A100": 2, "T4": 1}
    assert [each.execution.batch for each in with_batches([MEMBER, other], known["A100"])] == [32, 64]
    assert [each.execution.batch for each in with_batches([MEMBER, other], known["T4"])] == [2, 8]
    keys = {probability_key("p", with_batches([MEMBER], batches)[0]) for batches in [{}, *known.values()]}
    assert len(keys) == 3
