"""Pairs are predicted while others are still ingested, and nothing but the time of it is different."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import end, family, kill, start
from project import (
    PRODUCTS,
    Project,
    by_threads,
    contents,
    make_project,
    succeed,
    untrained_model,
    write_catalog,
    write_pair,
)

from cdpipe.api import ahead
from cdpipe.api.ahead import _Ahead, predicting_ahead
from cdpipe.api.ingest import ALONE, ingest
from cdpipe.api.opening import open_run
from cdpipe.api.predict import predict
from cdpipe.cluster import ingest as ingest_tasks
from cdpipe.cluster.tasks import Background
from cdpipe.errors import ShortageError
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.plan import PlannedPair
from cdpipe.pairs.splits import Splits
from cdpipe.runs.run import Failure, Remark, Step
from cdpipe.workspace.records import GROUP_RECORD

KINDS = ("pairs", "labels", "probabilities", "changes")
MADE = ("store.zarr/**/*", *(f"records/{kind}/*/*/*.json" for kind in KINDS), *PRODUCTS, "runs/run/manifest.json")


def make(folder: Path, blocks: int, threshold: Any, **sections: Any) -> Project:
    """A small pair, a long one of many blocks, and a labelled one to fit thresholds on, which comes last."""
    untrained_model(folder, "third")
    predict = {"models": ["third"], "tta": "none", "threshold": threshold}
    project = make_project(folder, (), predict=predict, **sections)
    shapes = {"small": (40, 53), "long": (30, blocks * 512), "val": (90, 131)}
    rows = [write_pair(folder, name, shape, split="val" if name == "val" else "") for name, shape in shapes.items()]
    write_catalog(folder / "pairs.csv", rows)
    return project


def stored(project: Project, name: str) -> bool:
    return bool(list(project.workspace.glob(f"records/pairs/{name}/*/{GROUP_RECORD}")))


def published(project: Project, name: str) -> bool:
    return (project.outputs / "rasters" / f"{name}_change.tif").exists()


@pytest.mark.usefixtures("local_ray")
def test_pairs_are_published_before_the_last_is_ingested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a threshold is fitted first: the pair to fit on is ingested before all others."""
    # one block after the other, and nothing meanwhile: else it is chance which pair is in the store when the first wave
    # begins, and the ingest is held up for one that the next would have
    collect = Background.collect
    monkeypatch.setattr(ingest_tasks, "following", lambda *_: lambda: 1)
    monkeypatch.setattr(Background, "collect", lambda self, **_: collect(self, wait=True))
    monkeypatch.setattr(ahead, "LEAST_LEFT", 4)  # no other wave, of the rest, begins when the ingest goes on
    project, titles = make(tmp_path, 12, "auto"), list[str]()

    def listen(event: Step | Remark | Failure) -> None:
        """Hold up the ingest shortly before its end until the pair that was ingested first is published."""
        if isinstance(event, Step):
            titles.append(event.title)
            if event.title == "ingest: blocks" and event.done == event.total - 3:
                deadline = time.monotonic() + 200
                while not published(project, "val"):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                assert not stored(project, "long")

    run = open_run(project.config, overrides=[f"workspace={project.workspace}"], progress=listen)
    with run.hold():
        with predicting_ahead(run) as follower:
            ingest(run, follower=follower)
        with by_threads():
            predict(run)
    assert titles.index("predict meanwhile: blocks") < len(titles) - titles[::-1].index("ingest: blocks") - 1
    assert [pair.pair_id for pair in project.manifest.pairs] == ["small", "long", "val"]


@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("threshold", ["auto", 0.5])
def test_a_run_that_is_killed_while_stages_overlap_goes_on(tmp_path: Path, threshold: float | str) -> None:
    project, log = make(tmp_path, 400, threshold), tmp_path / "log.txt"
    process = start(project, log)
    # as soon as something is predicted, which on an idle machine is long before the last pair is ingested
    while not list(project.workspace.glob("records/probabilities/*/*/0_*.json")):
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    known = family(process.pid)
    process.send_signal(signal.SIGKILL)
    end(process, known)
    kill(known)
    succeed(project.arguments("pipeline"))
    alone = Project(project.config, tmp_path / "alone")
    succeed(alone.arguments("ingest"))
    succeed(alone.arguments("predict"))
    assert contents(project.workspace, *MADE) == contents(alone.workspace, *MADE)


@pytest.fixture
def waves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prediction ahead whose waves are only noted, and its pairs, of which one is to be fitted on."""
    project = make(tmp_path, 2, "auto")
    run = open_run(project.config, overrides=[f"workspace={project.workspace}"])
    begun: list[tuple[list[str], bool]] = []

    def note(_self: _Ahead, ready: Sequence[PlannedPair], may_fit: bool) -> None:
        begun.append(([item.pair.pair_id for item in ready], may_fit))

    monkeypatch.setattr(_Ahead, "_predict", note)
    pairs = [
        PlannedPair(pair, SimpleNamespace(shape=(30, 600)), ("", ""), pair.pair_id, pair.label and "label", {})  # type: ignore[arg-type]
        for pair in read_catalog(run.config)
    ]
    monkeypatch.setattr(ahead, "known_splits", lambda *_: Splits({"val": "val"}))
    monkeypatch.setattr(ahead, "LEAST_LEFT", 5)
    return SimpleNamespace(run=run, begun=begun, pairs={item.pair.pair_id: item for item in pairs})


def test_a_wave_has_all_that_became_ready_and_is_not_begun_for_little(waves: Any) -> None:
    with predicting_ahead(waves.run) as follower:
        assert [item.pair.pair_id for item in follower.order(list(waves.pairs.values()))] == ["val", "small", "long"]
        follower.goes_on(100)
        assert waves.begun == []  # nothing is in the store
        follower.ended(waves.pairs["small"], True)
        follower.goes_on(100)
        wait_for(lambda: len(waves.begun) == 1)
        follower.goes_on(90)  # nothing new
        follower.ended(waves.pairs["val"], True)
        follower.goes_on(80)
        wait_for(lambda: len(waves.begun) == 2)
        follower.ended(waves.pairs["long"], True)
        follower.goes_on(4)
    assert waves.begun == [(["small"], False), (["small", "val"], True)]


def test_a_pair_to_fit_on_that_fails_is_not_waited_for(waves: Any) -> None:
    with predicting_ahead(waves.run) as follower:
        follower.order(list(waves.pairs.values()))
        follower.ended(waves.pairs["val"], False)
        follower.ended(waves.pairs["small"], True)
        follower.goes_on(100)
    assert waves.begun == [(["small"], True)]


def test_nothing_is_fitted_ahead_where_only_all_labels_say_on_what(waves: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few labelled scenes are cut into strips by what is labelled of them."""
    monkeypatch.setattr(ahead, "known_splits", lambda *_: Splits())
    with predicting_ahead(waves.run) as follower:
        follower.order(list(waves.pairs.values()))
        follower.ended(waves.pairs["val"], True)
        follower.goes_on(100)
    assert waves.begun == [(["val"], False)]


def test_what_a_wave_fails_of_ends_the_run_after_the_ingest(waves: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ShortageError("no GPUs came")

    monkeypatch.setattr(_Ahead, "_predict", fail)
    going = _Ahead(waves.run)
    going.order(list(waves.pairs.values()))
    going.ended(waves.pairs["small"], True)
    going.goes_on(100)
    going.goes_on(99)  # no other is begun, and the ingest goes on
    with pytest.raises(ShortageError, match="no GPUs came"):
        going.finish()


def test_models_that_are_to_be_trained_or_calibrated_are_not_there_yet(tmp_path: Path) -> None:
    for number, section in enumerate(({}, {"models": ["third"], "precision": "int8", "backend": "openvino"})):
        folder = tmp_path / str(number)
        untrained_model(folder, "third")
        project = make_project(folder, ("wide",), predict=section)  # with a label: without, nothing is trained
        with predicting_ahead(open_run(project.config)) as follower:
            assert follower == ALONE


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
