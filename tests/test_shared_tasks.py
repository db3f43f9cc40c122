"""Blocks that share tasks are each done, reported and named as if they were alone."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import contents

from cdpipe.cluster import actors, ingest, predict
from cdpipe.cluster.needs import Actors
from cdpipe.errors import InputError
from cdpipe.geo.grid import BlockKey, Grid
from cdpipe.pairs.ingest import BlockTask
from cdpipe.runs.blocks import in_runs
from cdpipe.runs.plan import BlockWork
from cdpipe.store.groups import CHANGE_ARRAYS, create_group, is_described
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

WRONG = (1, 3)  # pair and column of the block that fails


def tasks_of(blocks: Sequence[int]) -> list[BlockTask]:
    """What is missing of pairs with so many blocks."""
    keys = [(pair, BlockKey(f"p{pair}", 0, col)) for pair, count in enumerate(blocks) for col in range(count)]
    return [BlockTask(pair, key, imagery=True, label=False) for pair, key in keys]


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 100))
def test_portions_are_the_tasks_in_order_each_of_one_pair(blocks: list[int], tasks: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "TASKS", tasks)
        portions = ingest.share_out(tasks_of(blocks))
    assert [task for portion in portions for task in portion] == tasks_of(blocks)
    assert all(len({task.pair for task in portion}) == 1 for portion in portions)
    assert all(len(portion) <= max(1, min(sum(blocks) // tasks, ingest.MOST_BLOCKS_A_TASK)) for portion in portions)


def noting(folder: Path) -> Callable[[int, BlockKey], None]:
    """Work that leaves a byte for each block, and fails at one."""

    def note(pair: int, key: BlockKey) -> None:
        if (pair, key.block_col) == WRONG:
            raise InputError("no such pixels")
        with (folder / f"{pair}_{key.block_col}").open("a") as file:
            file.write(".")

    return note


def test_a_group_that_many_make_at_once_is_made_once(tmp_path: Path) -> None:
    path, grid = tmp_path / "changes" / "key", Grid(300, 700)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: create_group(here(path), CHANGE_ARRAYS, grid, 256, {"of": []}), range(8)))
    assert is_described(here(path), CHANGE_ARRAYS, grid)
    alone = tmp_path / "alone"
    create_group(here(alone), CHANGE_ARRAYS, grid, 256, {"of": []})
    assert contents(path) == contents(alone)
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


@pytest.mark.usefixtures("local_ray")
def test_ingest_shares_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "TASKS", 2)
    monkeypatch.setattr(ingest, "discard_pair", lambda _job: None)
    jobs: list[Any] = [SimpleNamespace(name=f"p{pair}") for pair in range(4)]
    note, tasks, counted = noting(tmp_path), tasks_of([7, 7, 7, 0]), Counter[str]()

    def do(_job: Any, task: BlockTask) -> None:
        note(task.pair, task.key)

    def end(job: Any) -> str:
        return f"end {job.name}"

    outcomes = list(ingest.ingest_pairs(jobs, tasks, lambda count, _: counted.update(blocks=count), do, end))
    ends = {jobs.index(outcome.job): outcome.failure for outcome in outcomes}
    assert ends == {0: "end p0", 1: "block 0,3: no such pixels", 2: "end p2", 3: "end p3"}
    assert len(outcomes) == len(jobs)
    assert counted["blocks"] >= 14 + 4
    assert {path.name for path in tmp_path.iterdir()} >= {f"{pair}_{col}" for pair in (0, 2) for col in range(7)}


def test_work_is_packed() -> None:
    pairs: Any = SimpleNamespace(pairs=[SimpleNamespace(pair_id="p0"), SimpleNamespace(pair_id="p1")])
    work = [
        BlockWork(0, BlockKey("p0", 3, 2**20), (), ensemble=True),
        BlockWork(1, BlockKey("p1", 0, 5), (0, 2, 40), ensemble=False),
    ]
    assert [actors._unpack(pairs, row) for row in actors._pack(work).tolist()] == work


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    workers=st.integers(1, 5),
    kept=st.floats(0.3, 1),
)
def test_runs_are_all_of_the_work_once(sizes: list[tuple[int, int]], workers: int, kept: float) -> None:
    random = np.random.default_rng(0)
    work = [
        BlockWork(pair, BlockKey(f"p{pair}", row, col), (0,), ensemble=True)
        for pair, (rows, cols) in enumerate(sizes)
        for row in range(rows)
        for col in range(cols)
        if random.random() < kept
    ]
    ordered, runs = in_runs(work, workers)
    assert sorted(ordered, key=lambda item: (item.pair, item.key.block_row, item.key.block_col)) == work
    assert [pair for pair, _ in itertools.groupby(item.pair for item in ordered)] == sorted({w.pair for w in work})
    assert [first for first, _ in runs] == [0, *(stop for _, stop in runs[:-1])][: len(runs)]
    assert all(first < stop for first, stop in runs)
    assert (runs[-1][1] if runs else 0) == len(work)
    if len(work) > 2 * workers:
        assert len(runs) >= workers  # everybody gets some


def test_a_run_is_a_compact_part_of_a_scene() -> None:
    work = [BlockWork(0, BlockKey("p", row, col), (0,), ensemble=True) for row in range(8) for col in range(8)]
    ordered, runs = in_runs(work, 2)
    first, stop = runs[0]
    rows = {item.key.block_row for item in ordered[first:stop]}
    assert stop - first == 16
    assert len(rows) == 4
    assert in_runs([*work, *(replace(item, pair=1) for item in work)], 1)[1][0] == (0, 64)


@pytest.mark.usefixtures("local_ray")
def test_prediction_shares_tasks(tmp_path: Path) -> None:
    pairs = [SimpleNamespace(pair_id=f"p{pair}", stored=None, members=()) for pair in range(2)]
    job: Any = SimpleNamespace(workspace=Workspace(here(tmp_path / "work")), pairs=pairs)
    work = [BlockWork(task.pair, task.key, (), ensemble=bool(task.pair)) for task in tasks_of([7, 7])]
    note = noting(tmp_path)

    def do(_job: Any, item: BlockWork, _networks: Any) -> None:
        assert item.ensemble == bool(item.pair)
        note(item.pair, item.key)

    results = list(predict.predict_blocks(job, work, Actors(1, gpus=False), do))
    assert Counter(result.pair for result in results) == {0: 7, 1: 7}
    assert [result.error for result in results if result.error] == ["block 0,3: no such pixels"]
    done = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    places = {(task.pair, task.key.block_col) for task in tasks_of([7, 7])} - {WRONG}
    assert done == {f"{pair}_{col}": "." for pair, col in places}
    assert not list((tmp_path / "work" / "records" / "attempts").rglob("*_*"))
