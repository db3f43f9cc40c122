"""Blocks of a run through its models, wherever that is done: what is done with one, in which order, what came of it."""

import bisect
import contextlib
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from cdpipe.errors import CdpipeError
from cdpipe.geo.grid import BlockKey
from cdpipe.inference.shared import SharedPatches
from cdpipe.prediction.block import Inputs, is_predicted, predict_block, probability_key
from cdpipe.prediction.detection import detect_block
from cdpipe.prediction.ensemble import ensemble_block
from cdpipe.prediction.networks import Networks, share_patches
from cdpipe.runs.plan import BlockWork, RunPlan
from cdpipe.runs.results import create_result_groups
from cdpipe.timing import take
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.records import begin_attempt

# What is done with a block, given the run, what is missing of the block, and what it is predicted with.
DoBlock = Callable[[RunPlan, BlockWork, Networks], None]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What became of a block.

    Attributes:
        pair: Its pair's position in the run.
        error: What went wrong, None where all went well.
        details: A traceback, or nothing.
        spent: What its worker spent and counted; see :mod:`cdpipe.timing`.
    """

    pair: int
    error: str | None
    details: str
    spent: dict[str, float]


def do_block(plan: RunPlan, item: BlockWork, networks: Networks) -> None:
    """Predict what is missing of a block; what an earlier attempt has stored already is left."""
    workspace, pair = plan.workspace, plan.pairs[item.pair]
    create_result_groups(workspace, pair)
    made, members = {}, [pair.members[index] for index in item.members]
    missing = [member for member in members if not is_predicted(workspace, pair.stored, item.key, member)]
    inputs = Inputs(workspace, pair.stored, item.key, [each for each in missing if not each.card.is_detector])
    for member in missing:
        key = probability_key(pair.stored.key, member)
        if member.card.is_detector:
            made[key] = detect_block(workspace, pair.stored, item.key, member)
            continue
        forward, shared = networks.forward(member), networks.shared.get(key)
        made[key] = predict_block(workspace, pair.stored, item.key, member, forward, inputs, shared=shared)
    if item.ensemble:
        ensemble_block(workspace, pair.stored, item.key, pair.change, made)


def try_block(plan: RunPlan, item: BlockWork, networks: Networks, do: DoBlock = do_block) -> BlockResult:
    """Do a block; whatever goes wrong is this block's alone."""
    take()  # what the thread did before
    where = f"block {item.key.block_row},{item.key.block_col}"
    error, details = None, ""
    try:
        attempt = begin_attempt(plan.workspace, item.key)
        crash_point(f"block-begun {item.key.pair_id} {item.key.block_row}_{item.key.block_col}")
        try:
            do(plan, item, networks)
        finally:
            attempt.unlink(missing_ok=True)
    except CdpipeError as failure:
        error = f"{where}: {failure}"
    except Exception as failure:  # noqa: BLE001 (see above)
        _free_memory()
        error, details = f"{where}: {type(failure).__name__}: {failure}", traceback.format_exc()
    finally:
        _finish(plan, item, networks)
    return BlockResult(item.pair, error, details, take())


def share_between(plan: RunPlan, work: Iterable[BlockWork], pool: Executor | None = None) -> dict[str, SharedPatches]:
    """See :func:`cdpipe.prediction.networks.share_patches`."""
    pairs = plan.pairs
    return share_patches(
        (
            (pairs[item.pair].stored, item.key, [pairs[item.pair].members[index] for index in item.members])
            for item in work
        ),
        pool,
    )


def in_runs(work: Iterable[BlockWork], workers: int) -> tuple[list[BlockWork], list[tuple[int, int]]]:
    """Blocks in an order in which those that follow each other are neighbours, cut into runs.

    Blocks of a run share patches; so runs are long at first, and short in the end, lest workers wait for the last of
    them (guided self-scheduling: Polychronopoulos & Kuck 1987). They end with a pair where that is near.

    Args:
        work: What is missing, in the order of pairs.
        workers: How many will take runs, each as soon as it has none.

    Returns:
        The blocks; and of each run where it begins, and where the next does.
    """
    ordered = sorted(work, key=lambda item: (item.pair, _along_curve(item.key)))
    ends = [place for place in range(1, len(ordered)) if ordered[place - 1].pair != ordered[place].pair]
    ends.append(len(ordered))
    runs, first = list[tuple[int, int]](), 0
    while first < len(ordered):
        length = max(1, (len(ordered) - first) // (2 * workers))
        after = bisect.bisect_right(ends, first)
        end = min(ends[after:], key=lambda place: abs(place - first - length))
        stop = end if 2 * abs(end - first - length) <= length else first + length
        runs.append((first, stop))
        first = stop
    return ordered, runs


def _along_curve(key: BlockKey) -> int:
    """A block's place on the Z-order curve (Morton 1966), of which any piece is a compact part of the scene."""
    return sum(
        (key.block_row >> bit & 1) << 2 * bit + 1 | (key.block_col >> bit & 1) << 2 * bit
        for bit in range(max(key.block_row, key.block_col).bit_length())
    )


def _finish(plan: RunPlan, item: BlockWork, networks: Networks) -> None:
    pair = plan.pairs[item.pair]
    for index in item.members if networks.shared else ():
        shared = networks.shared.get(probability_key(pair.stored.key, pair.members[index]))
        if shared is not None:
            shared.finish(pair.stored.window(item.key))


def _free_memory() -> None:
    """Give back what a block that failed held of the GPU."""
    if "torch" in sys.modules:
        with contextlib.suppress(Exception):
            sys.modules["torch"].cuda.empty_cache()
