"""Few and small scenes are done by threads of one process, without Ray; `test_resume` has Ray write the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import PRODUCTS, Project, contents

from cdpipe.api.predict import predict_pair
from cdpipe.cluster import spread, start
from cdpipe.cluster.tasks import Background, run_bounded
from cdpipe.config.resources import Resources
from cdpipe.errors import EXIT_DONE, EXIT_INTERRUPTED
from cdpipe.inference.patches import Execution
from cdpipe.models.folder import read_card
from cdpipe.prediction import networks
from cdpipe.runs.run import Failure, Remark, Step
from cdpipe.workspace.crash import ARMED
from cdpipe.workspace.location import here

REPOSITORY = Path(__file__).resolve().parents[1]
MADE = ("store.zarr/**/*", "records/*/**/*.json", "models/**/*", *PRODUCTS, "runs/run/manifest.json")
POINTS = ("block-unrecorded", "probability-unrecorded", "raster-unchecked", "vectors-unrecorded", "manifest-unwritten")
CODE = """
import sys
from cdpipe.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
# Each run is a process of its own, forked from one that has imported what takes seconds, and has run nothing.
AGAIN = """
import os
import sys
from pathlib import Path
import cdpipe.api.pipeline, cdpipe.prediction.networks, openvino, pandas, pyogrio, zarr
from cdpipe.cli.main import main

for point in (*sys.argv[1].split(","), ""):
    if point:
        (Path(os.environ["CDPIPE_CRASH"]) / point).touch()
    child = os.fork()
    if not child:
        code = main(sys.argv[2:])
        sys.stdout.flush()
        os._exit(code + 100 * ("ray" in sys.modules))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print("ended", code % 100 if code > 0 else code, code >= 100, flush=True)
sys.exit(code)
"""


def test_killed_again_and_again_it_ends_with_the_bytes_of_an_undisturbed_run(finished: Project, tmp_path: Path) -> None:
    project, charges = Project(finished.config, tmp_path / "work"), tmp_path / "charges"
    shutil.copytree(finished.workspace / "models", project.workspace / "models")
    charges.mkdir()
    more = ("--set", "resources.ray=auto", "--set", "resources.workers=2")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, ",".join(POINTS), *project.arguments("pipeline", *more)],
        cwd=REPOSITORY, env={**environment, ARMED: str(charges)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_DONE, done.stderr[-2000:]
    ends = [line.removeprefix("ended ") for line in done.stdout.splitlines() if line.startswith("ended ")]
    assert ends == [f"{-signal.SIGKILL} False"] * len(POINTS) + [f"{EXIT_DONE} False"]  # Ray was not even imported
    assert not list(charges.iterdir())
    assert contents(project.workspace, *MADE) == contents(finished.workspace, *MADE)
    assert not list(project.workspace.rglob("*.partial"))


def test_it_ends_on_sigterm_as_on_ctrl_c(finished: Project, tmp_path: Path) -> None:
    project = Project(finished.config, tmp_path / "work")
    shutil.copytree(finished.workspace / "models", project.workspace / "models")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *project.arguments("pipeline", "--set", "resources.ray=auto")],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not list(project.workspace.glob("records/pairs/*/*/?_?.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert "interrupted; the same command continues" in told
    assert "Traceback" not in told


@pytest.mark.usefixtures("in_threads")
def test_patches_are_told_while_a_block_is_at_work_and_then_what_would_be_faster(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdpipe.api.predict.LONG_SECONDS", 0.0)
    monkeypatch.setattr("cdpipe.api.predict.processor_flags", lambda: {"avx512_bf16"})
    scenes, model = finished.config.parent / "test", next(finished.workspace.glob("models/unetplusplus/*"))
    events: list[Step | Remark | Failure] = []
    dates = scenes / "before.tif", scenes / "after.tif"
    predict_pair(dates, [model], tmp_path, overrides=["predict.tta=none"], progress=events.append)
    told = [event for event in events if isinstance(event, Step) and event.title == "predict: patches"]
    assert [event.done for event in told] == [*range(len(told) - 1), len(told) - 2]
    assert told[-1].done == told[-1].total == 4  # 101 x 83 pixels in patches of 64, each 48 from the next
    assert told[-1].over
    remarks = [event.text for event in events if isinstance(event, Remark)]
    assert sum("half the time on this processor with predict.precision: bfloat16" in text for text in remarks) == 1


def test_torch_has_its_threads_back(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: PLC0415

    card = read_card(here(next(finished.workspace.glob("models/unetplusplus/*"))))
    monkeypatch.setattr(networks, "load_forward", lambda _member: lambda patches: patches[:, 0])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        loaded = networks.LoadedNetworks()
        loaded(SimpleNamespace(card=card, execution=Execution("none", "float32", "cpu", 1)))  # type: ignore[arg-type]  # as much of a member as is asked
        assert torch.get_num_threads() == 1
        loaded.release()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_tasks_in_threads() -> None:
    def divide(number: int) -> float:
        return 12 / number

    assert not spread.threads_here()
    with spread.done_by(3):
        assert spread.threads_here() == 3
        found = {
            item: (result, error) for item, result, error in run_bounded(spread.starter(divide), range(4), lambda: 2)
        }
        background = Background(divide)
        for number in range(3):
            background.start(number, number)
        ended = {number: (result, failure) for number, result, failure in background.collect(wait=True)}
    assert not spread.threads_here()
    assert [found[item][0] for item in range(4)] == [None, 12, 6, 4]
    assert isinstance(found[0][1], ZeroDivisionError)
    assert "test_in_process" in spread.trace_of(found[0][1])
    assert ended == {0: (None, "division by zero"), 1: (12, None), 2: (6, None)}


@pytest.mark.parametrize(
    ("resources", "address", "here"),
    [
        ({"gpus": 0}, None, True),
        ({"gpus": 0}, "local", True),
        ({"gpus": 0, "ray": "always"}, None, False),
        ({"gpus": 0}, "auto", False),
        ({"gpus": 1}, None, False),
    ],
)
def test_who_does_it(
    resources: dict[str, object], address: str | None, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "ray_runs", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert spread.may_stay_here(Resources.model_validate(resources)) == here


def test_many_or_large_scenes_are_rays(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from cdpipe.config.load import load_config  # noqa: PLC0415
    from cdpipe.runs.run import Run  # noqa: PLC0415

    monkeypatch.setattr(spread, "may_stay_here", lambda _resources: True)
    run = Run(load_config(finished.config, []))
    assert start.stays_here(run)
    monkeypatch.setattr(start, "MOST_PAIRS", 4)
    assert not start.stays_here(run)
    monkeypatch.undo()
    monkeypatch.setattr(spread, "may_stay_here", lambda _resources: True)
    monkeypatch.setattr(start, "MOST_PIXELS", 60 * 1101)
    assert not start.stays_here(run)
