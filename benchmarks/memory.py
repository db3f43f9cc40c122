"""Peak memory of a worker (VmHWM of a process of its own) over all blocks of scenes of 5k, 10k and 20k pixels a side.

Ingest: the block function on a pair of deflate GeoTIFFs, 4 bands of uint16 each; all blocks up to 10k, and the four
corners of the scene at 20k (--all: all of them there too). Predict: the block function with a real network in float32
on one block, and on every other block of the scene with all of them read and stored but nothing observed; and the data
plane alone, with a model that returns its input, on every block.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stored import BLOCK, store_scene
from timing import Row, own_peak, peak_memory, show

from cdpipe.values.windows import block_keys

NETWORK = "siamese_seresnext50"


def main() -> None:
    """Measure and print, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10000, 20000])
    parser.add_argument("--all", action="store_true", help="ingest every block of the largest scene")
    parser.add_argument("--part", choices=("ingest", "predict", "plane"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        {"ingest": _ingest, "predict": _predict, "plane": _plane}[options.part](options)
        print(own_peak())
        return
    rows = []
    for part, target in (("ingest", "<= 600 MiB, flat"), ("plane", "flat"), ("predict", "<= 2048 MiB, flat")):
        peaks = {}
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["--part", part, "--folder", folder, "--sizes", str(size)]
                if part == "ingest":
                    _write_scenes(Path(folder), size)
                else:
                    _store(Path(folder), size, part)
                peaks[size] = peak_memory(Path(__file__), *arguments, *(["--all"] if options.all else []))
        text = ", ".join(f"{size}: {peak / 2**20:.0f} MiB" for size, peak in peaks.items())
        what = {"ingest": "ingest", "plane": "predict, identity", "predict": f"predict, {NETWORK}"}[part]
        rows.append(Row(what, text, "smallest scene", peaks[options.sizes[-1]] / peaks[options.sizes[0]], target))
    show("peak memory of a worker", rows)


def _write_scenes(root: Path, size: int) -> None:
    from ingest import write_scene  # noqa: PLC0415 (dask and rioxarray, which would count in the process measured)

    for seed, name in enumerate(("before", "after")):
        write_scene(root / f"{name}.tif", size, seed)


def _ingest(options: argparse.Namespace) -> None:
    from cdpipe.stages.ingest import ingest_block  # noqa: PLC0415 (each part imports its own)
    from jobs_for_memory import make_job  # noqa: PLC0415

    [size] = options.sizes
    job = make_job(options.folder, options.folder / "work")
    keys = block_keys("p", (size, size), BLOCK)
    side = -(-size // BLOCK)
    if size > 10000 and not options.all:
        keys = [keys[number] for number in (0, side - 1, len(keys) - side, len(keys) - 1)]
    for key in keys:
        ingest_block(job, key, imagery=True, label=False)
