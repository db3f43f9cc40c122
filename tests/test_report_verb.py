"""``cdpipe report``, and the report at the end of the pipeline."""

import re

import pytest
from project import Project, call, contents, succeed

from cdpipe.api import pipeline
from cdpipe.runs.run import Run

WRITTEN = (
    "runs/run/report/*.html",
    "runs/run/report/report.*",
    "runs/run/report/pairs/*",
    "runs/run/report/images/**/*",
)


def test_the_pipeline_ends_with_a_report_of_every_pair(finished: Project) -> None:
    folder = finished.outputs / "report"
    pages = {path.stem for path in (folder / "pairs").iterdir()}
    assert pages == {pair.pair_id for pair in finished.manifest.pairs}
    text = (folder / "index.html").read_text()
    for expected in (
        "5 pairs of scenes were compared; all are finished.",
        "unetplusplus: validation",
        "torch ",
        "patch: 64",
        ", run of 20",
    ):
        assert expected in text
    assert re.search(r"epoch [123] is used, model unetplusplus, \d steps, 1 worker", text)
    # pairs' pages must not depend on the day that an interrupted run went on
    assert not [path for path in (folder / "pairs").iterdir() if ", run of 20" in path.read_text()]


def test_a_report_is_the_same_and_draws_nothing_again(branch: Project) -> None:
    before = contents(branch.workspace, *WRITTEN)
    pictures = {path: path.stat().st_mtime_ns for path in branch.outputs.glob("report/images/*/*")}
    result = succeed(branch.arguments("report"))
    assert "index.html" in result.out
    assert contents(branch.workspace, *WRITTEN) == before
    assert {path: path.stat().st_mtime_ns for path in branch.outputs.glob("report/images/*/*")} == pictures


def test_failed_pairs_stand_in_the_report_and_damaged_ones_too(branch: Project) -> None:
    change = next(pair.change for pair in branch.manifest.pairs if pair.pair_id == "val")
    (shard,) = branch.workspace.glob(f"store.zarr/changes/val/{change}/change/c/0/0")
    shard.write_bytes(b"")
    for picture in branch.outputs.glob("report/images/val/*"):
        picture.unlink()
    (branch.outputs / "failed.json").write_text('{"test": "not there on Tuesday"}')
    result = call(branch.arguments("report"))
    assert result.code == 5
    text = (branch.outputs / "report" / "index.html").read_text()
    assert re.search(r'scope="row">val</th><td class="alert">failed', text)
    assert not (branch.outputs / "report" / "pairs" / "val.html").exists()
    assert (branch.outputs / "failed.json").read_text() == '{"test": "not there on Tuesday"}'


def test_without_a_run_there_is_no_report(branch: Project) -> None:
    (branch.outputs / "manifest.json").unlink()
    result = call(branch.arguments("report"))
    assert (result.code, "run cdpipe predict first" in result.err) == (3, True)


def test_a_report_that_fails_costs_no_result(branch: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_run: Run) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(pipeline, "write_report", fail)
    result = succeed(branch.arguments("pipeline"))
    assert "report: not written: no ink; everything else is complete" in " ".join(result.out.split())
    assert "no ink" in (branch.outputs / "errors.log").read_text()
