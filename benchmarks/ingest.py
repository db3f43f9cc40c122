"""Ingesting a pair of deflate GeoTIFFs (tiles of 512 pixels, 4 bands of uint16, twice) against other ways through them.

Against reading the same windows with rasterio and nothing else, and against rioxarray with dask writing the same codecs
to Zarr, in turn, each in a process of its own with one thread (CPU seconds). Cdpipe's part is its block function on
every block: read, check the deflate streams, store with checksums, exact statistics, record. Hashing the sources comes
on top, once in a source's life, and is stated. With Ray: two workers over one, by the clock, once the workers are up.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio
import rasterio.windows
import rioxarray
from stored_scenes import BLOCK, corner, make_job, write_scene
from timing import Row, Timing, median_cpu, median_wall, show
from zarr.codecs import BloscCodec, Crc32cCodec

from cdpipe.cluster.memory import keep_freed_memory
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import block_keys, tiles_in
from cdpipe.pairs.ingest import finish_pair, ingest_block
from cdpipe.workspace.location import here


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side of the scenes in pixels; 10240 is the issue's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        start = Timing(time.perf_counter(), time.process_time())
        CASES[options.case](options.folder, options.size)
        print(time.perf_counter() - start.wall, time.process_time() - start.cpu)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for seed, name in enumerate(("before", "after")):
            write_scene(root / f"{name}.tif", options.size, seed)
        rows = _one_each(root, options.size, options.rounds)
        if options.ray:
            rows += _with_ray(root, options.size)
    show(f"ingest of deflate GeoTIFFs, {options.size}² × 4 × 2 uint16", rows)


def read(root: Path, size: int) -> None:
    """Read all windows with rasterio."""
    for path in _paths(root):
        with rasterio.open(path) as dataset:
            for window in tiles_in(Window(0, 0, size, size), BLOCK):
                dataset.read(window=rasterio.windows.Window(*corner(window)))


def by_cdpipe(root: Path, size: int) -> None:
    """Do what a worker of cdpipe does."""
    keep_freed_memory()
    job = make_job(root, root / "work")
    for key in block_keys("p", (size, size), BLOCK):
        ingest_block(job, key, imagery=True, label=False)
    finish_pair(job)


def by_rioxarray(root: Path, _: int) -> None:
    """Write the same chunks with dask."""
    encoding = {
        "chunks": (4, 256, 256),
        "shards": (4, BLOCK, BLOCK),
        "compressors": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
    }
    with dask.config.set(scheduler="synchronous"):
        for path in _paths(root):
            array: Any = rioxarray.open_rasterio(path, chunks={"band": 4, "y": BLOCK, "x": BLOCK}, lock=False)
            data = array.rename(path.stem).to_dataset()
            data.to_zarr(root / "x.zarr", group=path.stem, zarr_format=3, encoding={path.stem: encoding})


def hashing(root: Path, _: int) -> None:
    """Hash the sources."""
    for path in _paths(root):
        here(path).sha256()


def _paths(root: Path) -> list[Path]:
    return [root / "before.tif", root / "after.tif"]


CASES: dict[str, Callable[[Path, int], None]] = {
    "read": read,
    "cdpipe": by_cdpipe,
    "rioxarray": by_rioxarray,
    "hashing": hashing,
}


def _one_each(root: Path, size: int, rounds: int) -> list[Row]:
    found: dict[str, list[Timing]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, timings in found.items():
            for written in ("work", "x.zarr"):
                shutil.rmtree(root / written, ignore_errors=True)
            command = [sys.executable, __file__, "--size", str(size), "--case", name, "--folder", str(root)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 (this script)
            timings.append(Timing(*map(float, done.stdout.split()[-2:])))
    rate = {name: size * size * 16 / 1e6 / median_cpu(each) for name, each in found.items()}
    wall = {name: size * size * 16 / 1e6 / median_wall(each) for name, each in found.items()}
    measured = f"{rate['cdpipe']:.0f} MB/s/core ({wall['cdpipe']:.0f} wall)"
    share = median_cpu(found["hashing"]) / (median_cpu(found["hashing"]) + median_cpu(found["cdpipe"]))
    return [
        Row("cdpipe", measured, f"read only {rate['read']:.0f}", rate["cdpipe"] / rate["read"], ">= 0.5"),
        Row(
            "cdpipe",
            measured,
            f"rioxarray + dask {rate['rioxarray']:.0f}",
            rate["cdpipe"] / rate["rioxarray"],
            ">= 1.2",
        ),
        Row("hashing the sources", f"{100 * share:.0f} % of the CPU time with it", "", None, "stated"),
    ]


def _with_ray(root: Path, size: int) -> list[Row]:
    import ray  # noqa: PLC0415 (seconds, and not needed without)

    from cdpipe.cluster.ingest import ingest_pairs  # noqa: PLC0415
    from cdpipe.pairs.ingest import plan_blocks  # noqa: PLC0415

    rates = {}
    for workers in (1, 2):
        ray.init(num_cpus=workers, include_dashboard=False, logging_level=40, log_to_driver=False)
        try:
            seconds = []
            for _ in range(4):
                shutil.rmtree(root / "work", ignore_errors=True)
                jobs = [make_job(root, root / "work")]
                start = time.perf_counter()
                _consume(ingest_pairs(jobs, plan_blocks(jobs), lambda *_: None))
                seconds.append(time.perf_counter() - start)
            rates[workers] = size * size * 16 / 1e6 / float(np.median(seconds[1:]))
        finally:
            ray.shutdown()
    return [
        Row(
            "with Ray, 2 workers",
            f"{rates[2]:.0f} MB/s",
            f"1 worker {rates[1]:.0f} MB/s",
            rates[2] / rates[1],
            ">= 1.8",
        )
    ]


def _consume(outcomes: Iterable[Any]) -> None:
    for outcome in outcomes:
        if outcome.failure:
            raise SystemExit(outcome.failure)


if __name__ == "__main__":
    main()
