"""A finished run is found to be finished without Ray, and never when something of it is missing."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from project import Project, by_threads, call, make_project, snapshot, succeed, untrained_model

from cdpipe.errors import EXIT_BUG
from cdpipe.workspace.records import GROUP_RECORD

REPOSITORY = Path(__file__).resolve().parents[1]
PLANNING = ("ingest", "train", "predict", "status", "audit", "evaluate", "report", "pipeline")
SLOW = ("torch", "ray", "matplotlib", "pandas", "scipy", "zarr")  # to import


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One pair that all is known of."""
    folder = tmp_path_factory.mktemp("predicted")
    untrained_model(folder, "third")
    project = make_project(folder, ("small",), predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    with by_threads():
        for verb in ("pipeline", "audit", "report"):
            succeed(project.arguments(verb))
    return project


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr("cdpipe.cluster.session.ray_session", refuse)


@pytest.mark.parametrize("verb", ["ingest", "predict", "evaluate", "audit", "report", "pipeline"])
@pytest.mark.usefixtures("without_ray")
def test_a_finished_run_starts_no_ray_and_changes_nothing(predicted: Project, verb: str) -> None:
    before = snapshot(predicted.workspace)
    said = succeed(predicted.arguments(verb)).out
    assert f"{'report' if verb == 'pipeline' else verb}: " in said
    assert ("stage 3 of 5: evaluate" in said) == (verb == "pipeline")  # there is nothing to train
    after = snapshot(predicted.workspace)
    assert {name for name in after if before.get(name) != after[name]} <= {"runs/run/log.json", "runs/run/failed.json"}


def a_record(project: Project) -> Path:
    return next((project.workspace / "records" / "changes").glob("*/*/0_0.json"))


MISSING: dict[str, Callable[[Project], Path]] = {
    "manifest": lambda project: project.outputs / "manifest.json",
    "raster": lambda project: project.outputs / "rasters" / "small_change.tif",
    "objects": lambda project: project.outputs / "vectors" / "small_change.gpkg",
    "layer": lambda project: project.outputs / "vectors" / "change.gpkg",
    "catalog": lambda project: project.outputs / "stac" / "collection.json",
    "record": a_record,
    "group's record": lambda project: a_record(project).with_name(GROUP_RECORD),
    "metadata": lambda project: next((project.workspace / "store.zarr" / "changes").glob("*/*/zarr.json")),
}


@pytest.mark.parametrize("what", MISSING)
@pytest.mark.usefixtures("without_ray")
def test_what_is_missing_is_work(predicted: Project, what: str) -> None:
    path = MISSING[what](predicted)
    kept = path.read_bytes()
    path.unlink()
    try:
        ended = call(predicted.arguments("predict"))
    finally:
        path.write_bytes(kept)
    assert ended.code == EXIT_BUG
    assert "Ray was asked for" in ended.err


REPORTED = {  # by the verb that makes it
    "evaluate": ("report/scores/small.json", "report/pictures/small.png"),
    "audit": ("report/audits/small.json",),
    "report": ("report/images/small/facts.json", "report/images/small/thumb.jpg"),
}


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in REPORTED.items() for name in names])
@pytest.mark.usefixtures("without_ray")
def test_what_is_damaged_of_a_report_is_work(predicted: Project, verb: str, name: str) -> None:
    path = predicted.outputs / name
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + b"?")
    try:
        ended = call(predicted.arguments(verb))
    finally:
        path.write_bytes(kept)
    assert ended.code == EXIT_BUG
    assert "Ray was asked for" in ended.err


@pytest.mark.parametrize(("verb", "option"), [("evaluate", "evaluate.tolerance=3"), ("audit", "audit.patches=17")])
@pytest.mark.usefixtures("without_ray")
def test_another_question_is_work(predicted: Project, verb: str, option: str) -> None:
    assert "Ray was asked for" in call(predicted.arguments(verb, "--set", option)).err


@pytest.mark.parametrize(
    "option", ["predict.threshold=0.4", "predict.overlap=0.5", "predict.model_rasters=true", "vectors.crs=EPSG:3857"]
)
@pytest.mark.usefixtures("without_ray")
def test_another_configuration_is_work(predicted: Project, option: str) -> None:
    ended = call(predicted.arguments("predict", "--set", option))
    assert ended.code == EXIT_BUG
    assert "Ray was asked for" in ended.err


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
@pytest.mark.usefixtures("without_ray")
def test_another_backend_is_work_and_no_mistake(predicted: Project) -> None:
    """It is one where there are GPUs, which a look at the run must not ask about."""
    ended = call(predicted.arguments("predict", "--set", "predict.backend=openvino"))
    assert "Ray was asked for" in ended.err


def test_planning_imports_nothing_that_takes_seconds() -> None:
    imports = ", ".join(f"cdpipe.{layer}.{name}" for name in PLANNING for layer in ("api", "cli"))
    code = f"import sys, {imports}; print(sorted({set(SLOW)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
