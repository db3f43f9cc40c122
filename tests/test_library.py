"""What ``import cdpipe`` offers: functions that return what they found, tell how far they are, and print nothing."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from project import Project, make_project, untrained_model

import cdpipe
from cdpipe.errors import InputError, LockedError
from cdpipe.workspace.layout import locked

Events = list[cdpipe.Step | cdpipe.Remark | cdpipe.Failure]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("library")
    untrained_model(folder, "third")
    return make_project(folder, ("val",), predict={"models": ["third"], "tta": "none", "threshold": 0.5})


def test_everything_that_is_offered_is_there_and_documented() -> None:
    assert set(cdpipe.__all__) <= set(dir(cdpipe))
    for name in set(cdpipe.__all__) - {"__version__"}:
        offered = getattr(cdpipe, name)
        assert inspect.getdoc(offered), name
        if inspect.isfunction(offered):
            assert inspect.signature(offered).return_annotation is not inspect.Signature.empty, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cdpipe.nothing  # noqa: B018


def test_to_import_it_takes_no_heavy_library() -> None:
    code = "import sys, cdpipe; print(sorted({'torch', 'ray', 'rasterio', 'numpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("in_threads")
def test_a_run_from_scenes_to_figures(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    events: Events = []
    run = cdpipe.open_run(project.config, progress=events.append)
    checked = cdpipe.check(run)
    assert ([pair.pair_id for pair in checked.pairs], checked.problems) == (["val"], [])
    planned = cdpipe.plan_ingest(run)
    assert (planned.pairs, planned.seconds) == (1, None)
    assert planned.bytes_in > 0
    ingested = cdpipe.ingest(run)
    assert (ingested.pairs, ingested.blocks, ingested.failures) == (1, planned.blocks, {})
    assert cdpipe.ingest(run).blocks == 0
    missing = cdpipe.plan_prediction(run)
    assert (missing.pairs, missing.models, missing.blocks > 0) == (1, ("third",), True)
    manifest = cdpipe.predict(run)
    assert [pair.pair_id for pair in manifest.pairs] == ["val"]
    assert all((run.config.workspace / name).is_file() for name in manifest.pairs[0].rasters)
    assert cdpipe.plan_prediction(run).blocks == 0
    assert cdpipe.predict(run) == manifest
    evaluated = cdpipe.evaluate(run)
    assert evaluated.evaluation is not None
    assert {row["layer"] for row in evaluated.evaluation.rows} >= {"ensemble", "third"}
    state = {stage.stage: stage for stage in cdpipe.status(run).stages}
    assert (state["publish: pairs"].done, state["publish: pairs"].left) == (1, 0)
    assert cdpipe.write_report(run).is_file()
    records, _ = cdpipe.verify(run)
    assert records > 0
    assert capsys.readouterr() == ("", "")
    steps = [event for event in events if isinstance(event, cdpipe.Step)]
    assert {step.title for step in steps} >= {"check: pairs", "ingest: blocks", "predict: blocks", "evaluate: pairs"}
    assert all(0 <= step.done <= step.total for step in steps)
    ended = [step.title for step in steps if step.over]
    assert ended.count("ingest: blocks") == 1
    assert all(step.done == step.total for step in steps if step.over)


@pytest.mark.usefixtures("in_threads")
def test_a_pair_that_fails_is_told_kept_and_left_out(tmp_path: Path) -> None:
    untrained_model(tmp_path, "third")
    project = make_project(tmp_path, ("small", "val"), predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    events: Events = []
    run = cdpipe.open_run(project.config, progress=events.append)
    (tmp_path / "small" / "before.tif").write_bytes(b"no raster")
    with pytest.raises(InputError, match="small"):
        cdpipe.ingest(run)
    ingested = cdpipe.ingest(run, keep_going=True)
    assert (ingested.pairs, list(ingested.failures)) == (1, ["small"])
    assert [event.pair_id for event in events if isinstance(event, cdpipe.Failure)] == ["small"]
    assert cdpipe.open_run(project.config).last_failures() == run.failures


def test_two_do_not_write_at_once(project: Project) -> None:
    run = cdpipe.open_run(project.config)
    with locked(run.workspace), pytest.raises(LockedError):
        cdpipe.ingest(run)
    with locked(run.workspace):
        cdpipe.status(run)


def test_overrides_are_those_of_the_command_line(project: Project) -> None:
    run = cdpipe.open_run(project.config, overrides=["predict.threshold=0.25"])
    assert run.config.predict.threshold == 0.25
