"""The command line: what it accepts, and which exit code says what happened."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import rasterio
from project import call, make_project, succeed, untrained_model

from cdpipe.cli.parser import VERBS
from cdpipe.config.load import load_config
from cdpipe.errors import EXIT_BUG, EXIT_CONFIG, EXIT_INPUT, EXIT_INTERRUPTED, CdpipeError, InputError, IntegrityError
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.table import COLUMNS
from cdpipe.version import __version__
from cdpipe.workspace.location import here

REPOSITORY = Path(__file__).resolve().parents[1]
JOBS = sorted(path.stem for path in (REPOSITORY / "jobs").glob("*.py"))


def test_every_job_has_a_verb() -> None:
    assert JOBS == ["audit", "evaluate", "ingest", "pipeline", "predict", "report", "train"]
    assert set(JOBS) <= {verb.name for verb in VERBS}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_its_verb(job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [f"jobs/{job}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "jobs" / f"{job}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"usage: cdpipe {job} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["unknown"], ["train"], ["predict", "c.yaml", "--unknown"], ["status", "c", "--dry-run"]]
)
def test_what_is_no_command_is_a_mistake_in_configuration(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(arguments)
    assert ended.value.code == EXIT_CONFIG


def test_no_verb_gives_the_help_and_is_a_mistake() -> None:
    for command in ("cdpipe", "cdpipe.cli.main"):
        done = subprocess.run([sys.executable, "-m", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (EXIT_CONFIG, "")
        assert all(f"\n    {verb.name}" in done.stderr for verb in VERBS)


def test_help_and_version_need_no_heavy_library() -> None:
    code = (
        "import sys\nfrom cdpipe.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'ray', 'rasterio', 'numpy'} & set(sys.modules)"
    )
    for option, shown in (("--help", "exit codes:"), ("--version", f"cdpipe {__version__}")):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True)
        assert shown in done.stdout


def raises(error: BaseException) -> Callable[..., NoReturn]:
    def verb(*_: object, **__: object) -> NoReturn:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("pair x: no"), EXIT_INPUT, "cdpipe: pair x: no\n"),
        (IntegrityError("damaged"), 4, "cdpipe: damaged\n"),
        (CdpipeError("model m: training failed"), EXIT_BUG, "cdpipe: model m: training failed\n"),
        (OSError(28, "No space left on device", "/data/x"), EXIT_INPUT, "No space left on device: '/data/x'"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "cdpipe: interrupted; the same command continues\n"),
        (ZeroDivisionError("x"), EXIT_BUG, "this is a bug; please report the lines above"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, ("small",))
    monkeypatch.setattr("cdpipe.api.ingest.ingest", raises(error))
    result = call(project.arguments("ingest"))
    assert result.code == code
    assert says in result.err
    assert ("Traceback" in result.err) == isinstance(error, ZeroDivisionError)


def test_init_writes_what_the_other_verbs_read(tmp_path: Path) -> None:
    written = succeed(["init", str(tmp_path / "new project")]).out
    folder = tmp_path / "new project"
    assert written.splitlines() == [f"wrote {folder / name}" for name in ("cdpipe.yaml", "pairs.csv")]
    config = load_config(folder / "cdpipe.yaml")
    assert (config.name, config.workspace) == ("new-project", here(folder / "work"))
    assert set((folder / "pairs.csv").read_text().strip().split(",")) <= set(COLUMNS)
    with pytest.raises(InputError, match="expected at least one pair"):
        read_catalog(config)


def test_init_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("mine")
    result = call(["init", str(tmp_path)])
    assert result.code == EXIT_CONFIG
    assert "never overwrites" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]
    assert (tmp_path / "pairs.csv").read_text() == "mine"


def test_a_key_given_on_the_command_line_wins(tmp_path: Path) -> None:
    project = make_project(tmp_path, ("val",))
    assert "1 block(s) of 512 pixels" in succeed(project.arguments("ingest", "--dry-run")).out
    assert "1 block(s) of 1024" in succeed(project.arguments("ingest", "--dry-run", "--set", "align.block=1024")).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "missing --before, --after, --out"),
        (["--before", "b.tif", "--model", "m", "--out", "o"], "missing --after"),
        (["--before", "b", "--after", "a", "--model", "m", "--out", "o", "--bands", "red,green"], "--bands red,green"),
        (["--before", "b", "--after", "a", "--model", "m", "--out", "o", "--dry-run"], "--dry-run"),
        (["c.yaml", "--before", "b", "--after", "a"], "got parts of both"),
        (["c.yaml", "--after-valid", "v"], "got parts of both"),
        (["--before", "b", "--after", "a", "--model", "m", "--out", "o", "--quality", "scl"], "give one of these, too"),
    ],
)
def test_predict_needs_a_configuration_or_all_of_a_pair(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(["predict", *arguments])
    assert result.code == EXIT_CONFIG
    assert says in result.err
    assert not list(tmp_path.iterdir())


def test_predict_reads_the_quality_rasters_that_it_is_given(tmp_path: Path) -> None:
    """Each with its date, by what ``--quality`` says; a probability without a threshold is refused in words."""
    make_project(tmp_path, ("small",))
    scene, model = tmp_path / "small", untrained_model(tmp_path, "model")
    with rasterio.open(scene / "after.tif") as raster:
        profile = {**raster.profile, "count": 1, "dtype": "float32", "nodata": None}
        values = np.full((1, *raster.shape), 0.25, np.float32)
    with rasterio.open(tmp_path / "cloud.tif", "w", **profile) as raster:
        raster.write(values)
    files = ["--before", str(scene / "before.tif"), "--after", str(scene / "after.tif"), "--model", str(model)]
    given = ["predict", *files, "--out", str(tmp_path / "out"), "--after-valid", str(tmp_path / "cloud.tif")]
    for more in ((), ("--quality", "scl")):
        result = call([*given, *more])
        assert result.code == EXIT_INPUT
        assert f"{tmp_path / 'cloud.tif'}: has values such as 0.25; expected whole numbers" in result.err
    result = call([*given, "--quality", "{above: 40}", "--before-valid", str(tmp_path / "nowhere.tif")])
    assert result.code == EXIT_INPUT
    assert "nowhere.tif: expected a raster file" in result.err
    assert "on another scale than 40 (sensors.given.quality); is 0.4 meant?" in result.out


def test_predict_names_the_file_that_is_missing(tmp_path: Path) -> None:
    """Of a pair given on the command line, which has no catalog that the user wrote."""
    make_project(tmp_path, ("small",))
    model = untrained_model(tmp_path, "model")
    pair = ["--before", str(tmp_path / "small" / "before.tif"), "--after", str(tmp_path / "nowhere.tif")]
    result = call(["predict", *pair, "--model", str(model), "--out", str(tmp_path / "out")])
    assert result.code == EXIT_INPUT
    assert f"{tmp_path / 'nowhere.tif'}: expected a raster file; there is no such file" in result.err
    assert not list((tmp_path / "out").glob("*.tif"))
