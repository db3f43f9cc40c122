"""A training step in bfloat16 against one in float32, of the headline networks and small ones.

Each is measured as `cdpipe train --dry-run` measures it: on samples of made-up scenes, augmented, with loss, gradients
and optimizer, one worker with all processors. Rounds take turns. On a CPU only one with AVX512-BF16 or AMX gains.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --models siamese_resnet18 --rounds 3
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from timing import Row, show

import cdpipe
from cdpipe.api.train import plan_training
from cdpipe.demo.scenes import make_sample_scenes
from cdpipe.processors import usable_cpus
from cdpipe.training.job import TrainJob
from cdpipe.training.speed import measure_speed

TARGET = ">= 1.8"
DIFFERENCE = {"input": "difference"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unetplusplus_resnext50": ("unetplusplus", {"encoder": "resnext50_32x4d", "encoder_weights": None, **DIFFERENCE}),
    "siamese_seresnext50": ("siamese_seresnext50", {"encoder_weights": None}),
    "unetplusplus_resnet18": ("unetplusplus", {"encoder": "resnet18", "encoder_weights": None, **DIFFERENCE}),
    "siamese_unet_resnet18": ("siamese_unet", {"encoder": "resnet18", "encoder_weights": None}),
    "siamese_unet_plain16": ("siamese_unet", {"encoder": "plain16"}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = make_sample_scenes(Path(folder), pairs=6, size=max(512, 2 * options.patch))
        rows = [row for name in options.models for row in measure(name, table, options)]
    show(f"a training step of {options.batch} patches of {options.patch}², median of {options.rounds}", rows)


def measure(name: str, table: Path, options: argparse.Namespace) -> Iterator[Row]:
    """A row for one network."""
    job, threads = plan(name, table, options), usable_cpus()
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(options.rounds):
        for precision, own in seconds.items():
            chosen = job.options.model_copy(update={"precision": precision})
            own.append(measure_speed(replace(job, options=chosen), 1, threads, "cpu").step)
    slow, fast = (statistics.median(own) for own in seconds.values())
    yield Row(f"{name}, bfloat16", f"{fast:.2f} s", f"{slow:.2f} s", slow / fast, TARGET)


def plan(name: str, table: Path, options: argparse.Namespace) -> TrainJob:
    """The training of a network on the scenes, which it ingests."""
    architecture, arguments = CASES[name]
    path = table.parent / f"{name}.yaml"
    values = {
        "name": name,
        "catalog": table.name,
        "workspace": "work",
        "sensors": {"demo": {"bands": {"red": 1, "green": 2, "blue": 3}}},
        "train": {
            "models": {architecture: arguments},
            "patch": options.patch,
            "global_batch": options.batch,
            "samples_per_epoch": 8 * options.batch,
            "epochs": 1,
        },
    }
    path.write_text(yaml.safe_dump(values))
    run = cdpipe.open_run(path)
    cdpipe.ingest(run)
    return plan_training(run)[1][0]


if __name__ == "__main__":
    main()
