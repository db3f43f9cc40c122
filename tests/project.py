"""A tiny project: scenes, a catalog and a configuration that go through the whole pipeline in seconds."""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zarr
from numpy.typing import NDArray
from rasters import utm_grid, write_raster

from cdpipe.api.train import Trained, _train_in, look_first
from cdpipe.cli.main import main
from cdpipe.evaluation.tables import TABLES
from cdpipe.geo.grid import Grid
from cdpipe.models.folder import ModelCard, save_model
from cdpipe.models.networks import build_model
from cdpipe.processors import usable_cpus
from cdpipe.runs.manifest import Manifest, read_manifest
from cdpipe.runs.run import Run
from cdpipe.training.job import TrainJob, Worker
from cdpipe.training.logs import add_epoch, curves_folder, progress_writer
from cdpipe.training.loop import train_model, write_checkpoint
from cdpipe.workspace.location import Location, here

UNETPLUSPLUS = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [16, 16, 16]}
SENSOR = {"bands": {"red": 1, "green": 2, "blue": 3}}

# Odd sizes, several blocks, less than a patch, a single row; all quick, since they are narrow.
SCENES: Mapping[str, tuple[tuple[int, int], str]] = {
    "wide": ((60, 1101), "train"),
    "val": ((90, 131), "val"),
    "test": ((101, 83), "test"),
    "small": ((40, 53), ""),
    "row": ((1, 77), ""),
}
SIAMESE = {"arguments": {"decoder_channels": [8, 8, 8, 8]}}
CONFIG: Mapping[str, Any] = {
    "name": "run",
    "catalog": "pairs.csv",
    "workspace": "work",
    "sensors": {"s": SENSOR},
    "align": {"block": 512},
    "splits": {"allow_leak": True},  # all scenes lie at one corner
    "train": {
        "models": {
            "unetplusplus": {
                "encoder": "resnet18",
                "arguments": {name: UNETPLUSPLUS[name] for name in ("encoder_depth", "decoder_channels")},
            },
        },
        "patch": 64,
        "global_batch": 4,
        "epochs": 3,
        "samples_per_epoch": 8,
    },
    "predict": {"tta": "none", "threshold": 0.5},
    "resources": {"workers": 1, "gpus": 0, "ray": "always"},
}

# What a run publishes, but for its manifest.
PRODUCTS = ("runs/run/rasters/*", "runs/run/vectors/*", "runs/run/stac/**/*", "runs/run/ensemble/**/*")
# What is found out about it and has records, too; the report's first page tells how long things took.
REPORTED = tuple(f"runs/run/report/{folder}/**/*" for folder in ("scores", "pictures", "audits", "images", "pairs"))
REPORTED += tuple(f"runs/run/report/{name}" for name in TABLES)


@dataclass(frozen=True, slots=True)
class Project:
    """A configuration file with its scenes and its workspace.

    Attributes:
        config: The file.
        workspace: The folder that its runs write to.
    """

    config: Path
    workspace: Path

    @property
    def outputs(self) -> Path:
        """Folder of the run's outputs."""
        return self.workspace / "runs" / "run"

    @property
    def manifest(self) -> Manifest:
        """The run's manifest, which must be there."""
        found = read_manifest(here(self.outputs))
        assert found is not None, f"no manifest in {self.outputs}"
        return found

    def arguments(self, verb: str, *more: str) -> list[str]:
        """A command line."""
        return [verb, str(self.config), "--set", f"workspace={self.workspace}", *more]


@dataclass(frozen=True, slots=True)
class Call:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def call(arguments: Sequence[str]) -> Call:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return Call(code, out.getvalue(), err.getvalue())


def succeed(arguments: Sequence[str]) -> Call:
    """Run a command that is expected to do all it should."""
    result = call(arguments)
    assert result.code == 0, result
    return result


@contextmanager
def by_threads() -> Iterator[None]:
    """For what is not about Ray: this process does what its workers would, and stores the same bytes, at once."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cdpipe.cluster.start.stays_here", lambda _run: True)
        patched.setattr("cdpipe.api.train._train", _train_here)
        yield


def _train_here(run: Run, _jobs: Sequence[TrainJob], waiting: Sequence[TrainJob]) -> list[Trained]:
    from cdpipe.cluster.train import Shares  # noqa: PLC0415 (imports Ray)

    look_first(run, waiting)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cdpipe.cluster.train.train_on_workers", _one_after_the_other)
        return _train_in(run, waiting, Shares(1, 1, usable_cpus(), use_gpu=False))


def _one_after_the_other(jobs: Sequence[TrainJob], shares: Any) -> Iterator[tuple[TrainJob, Location | None]]:
    """As Ray's only worker trains models, which has its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(shares.cpus)
    for job in jobs:
        yield job, None
        last = job.workspace.model(job.name, job.key) / "checkpoints" / "last"
        last.local().mkdir(parents=True)
        save, progress = partial(_save_epoch, job, last), progress_writer(job)
        train_model(job, Worker(0, 1, 1, "cpu", 2, lambda network: network, None, save, progress, lambda: False))
        yield job, last
    torch.set_num_threads(before)


def _save_epoch(job: TrainJob, to: Location, metrics: dict[str, Any], files: dict[str, Any]) -> None:
    add_epoch(curves_folder(job), metrics)
    write_checkpoint(to.local(), files)


def make_project(folder: Path, scenes: Sequence[str] = tuple(SCENES), **sections: Any) -> Project:
    """Write scenes, their catalog and a configuration; torch runs its networks, which need no engine then."""
    rows = [write_pair(folder, pair_id, SCENES[pair_id][0], split=SCENES[pair_id][1]) for pair_id in scenes]
    write_catalog(folder / "pairs.csv", rows)
    config, predict = folder / "config.yaml", {"backend": "torch", **sections.pop("predict", CONFIG["predict"])}
    config.write_text(yaml.safe_dump({**CONFIG, **sections, "predict": predict}, sort_keys=False))
    return Project(config, folder / "work")


def write_catalog(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a catalog."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_pair(folder: Path, pair_id: str, shape: tuple[int, int], *, split: str = "") -> dict[str, str]:
    """Write both dates of a pair and, if it has a split, its label; its row of the catalog.

    A stripe of every pair is not observed, and the second date lies on a grid of its own.
    """
    random = np.random.default_rng(sum(map(ord, pair_id)))
    grid, after_grid = utm_grid(*shape), shifted(utm_grid(*shape))
    before, after, label = draw_change(random, shape)
    after[:, :, :5] = 0
    (folder / pair_id).mkdir(parents=True)
    row = {"pair_id": pair_id, "split": split, "before": f"{pair_id}/before.tif", "after": f"{pair_id}/after.tif"}
    write_raster(folder / row["before"], before, grid, nodata=0)
    write_raster(folder / row["after"], after, after_grid, nodata=0)
    if split:
        row["label"] = f"{pair_id}/label.tif"
        write_raster(folder / row["label"], label, grid)
    return row


def shifted(grid: Grid) -> Grid:
    """The grid moved by a part of a pixel."""
    a, b, c, d, e, f = grid.transform
    return Grid(*grid.shape, (a, b, c + 0.3 * a, d, e, f + 0.2 * e), grid.crs)


def draw_change(
    random: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]:
    """Two images of (3, height, width) and where one has bright roofs that the other has not."""
    ground = random.normal(1000, 100, (3, *shape))
    label = np.zeros(shape, np.uint8)
    for _ in range(max(1, shape[0] * shape[1] // 1500)):
        row, col = (int(random.integers(0, length)) for length in shape)
        label[row : row + 15, col : col + 12] = 1
    after = ground * 1.05 + 600.0 * label + random.normal(0, 20, ground.shape)
    return ground.clip(1).astype(np.uint16), after.clip(1).astype(np.uint16), label


def untrained_model(folder: Path, name: str, seed: int = 0) -> Path:
    """A model folder with random weights, for tests of everything but training."""
    torch.manual_seed(seed)
    network = build_model("unetplusplus", **UNETPLUSPLUS)
    card = ModelCard(name, "unetplusplus", UNETPLUSPLUS, ("red", "green", "blue"), "common", False, 64, "")
    save_model(here(folder / name), card, network.state_dict())
    return folder / name


def snapshot(folder: Path, *patterns: str) -> dict[str, tuple[str, int]]:
    """SHA-256 and modification time of every file beneath a folder, or of those that match."""
    files = [file for pattern in patterns or ("**/*",) for file in folder.glob(pattern) if file.is_file()]
    return {
        str(file.relative_to(folder)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in files
    }


def contents(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of every file beneath a folder, or of those that match."""
    return {name: sha for name, (sha, _) in snapshot(folder, *patterns).items()}


def array(project: Project, kind: str, pair_id: str, key: str, name: str) -> NDArray[Any]:
    """A stored array, read by Zarr alone."""
    return np.asarray(zarr.open_array(project.workspace / "store.zarr" / kind / pair_id / key / name, mode="r")[...])
