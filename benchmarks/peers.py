"""One pair through one network, from Enter to the written GeoTIFF: `cdpipe predict` against a plain loop.

The loop is what people write: both rasters read whole with rasterio, bands standardised over the scene, patches in
batches through torch, overlapping probabilities averaged, one float32 and one uint8 GeoTIFF. Both have the same U-Net
on `resnet18` of both dates' bands, with the same weights, in float32, patches of 256 every 192 pixels and no
augmentation.
Every call is a process of its own; calls take turns. Beside the clock: the largest proportional set size (PSS) of a
command with all its processes, and how far the probabilities differ away from the scene's edge, where cdpipe weighs
patches by their distance from their own edge and the loop does not: so the loop is also run with cdpipe's weights once.

With ``--identity`` the network of both returns its first channel: what is measured is all that is not the network.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import rasterio
from made_project import make_project
from numpy.typing import NDArray
from timing import Row, show

PATCH, STRIDE, BATCH = 256, 192, 4
TARGETS = {1024: 1.0, 2048: 0.9, 4096: 0.75, 8192: 0.65}
NETWORK = "unet"
ARGUMENTS = {"encoder": "resnet18", "input": "stacked", "bands": ["red", "green", "blue"]}
LOOP, CDPIPE = "loop", "--cdpipe"
IDENTITY = "PEERS_IDENTITY"  # in the environment: the networks of all commands give back what they are given


def main() -> None:
    """Measure and print, or be the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=["auto"], help="also torch, openvino")
    parser.add_argument("--identity", action="store_true")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        plain_loop(options.loop, weighted=bool(os.environ.get("WEIGHTED")))
        return
    if options.identity:
        os.environ[IDENTITY] = "1"
    rows = [row for side in options.sides for row in measure(side, options.rounds, options.backends)]
    show(f"predict --before --after --model against a plain loop, median of {options.rounds}", rows)


def measure(side: int, rounds: int, backends: list[str]) -> Iterator[Row]:
    """Rows of one size of scene."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_project(folder, side, {NETWORK: ARGUMENTS}, PATCH)
        commands = {LOOP: [sys.executable, __file__, "--loop", str(folder)]}
        for backend in backends:
            commands[backend] = predict_command(folder, backend)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        peaks: dict[str, list[int]] = {name: [] for name in commands}
        for number in range(rounds + 1):  # the first fills caches, and does not count
            for name, command in commands.items():
                begun = time.perf_counter()
                with watched_memory() as sizes:
                    execute([*command, *([] if name == LOOP else ["--out", str(folder / f"{name}{number}")])])
                if number:
                    seconds[name].append(time.perf_counter() - begun)
                    peaks[name].append(max(sizes))
        execute(commands[LOOP], WEIGHTED="1")
        baseline = statistics.median(seconds[LOOP])
        for name, own in seconds.items():
            middle, peak = statistics.median(own), max(peaks[name]) / 2**20
            what = f"{side}², {'plain loop' if name == LOOP else f'cdpipe, {name}'}"
            far = "" if name == LOOP else f", differs by {difference(folder, folder / f'{name}{rounds}'):.0e}"
            ratio, target = (None, "") if name == LOOP else (middle / baseline, f"<= {TARGETS.get(side, 1.0)}")
            yield Row(what, f"{middle:.1f} s, PSS {peak:.0f} MiB{far}", f"{baseline:.1f} s", ratio, target)


def predict_command(folder: Path, backend: str) -> list[str]:
    """The command that a user would give, but for the overlap, which is the loop's, and no augmentation."""
    images = ["--before", str(folder / "before.tif"), "--after", str(folder / "after.tif")]
    keys = {"predict.backend": backend, "predict.tta": "none", "predict.overlap": 1 - STRIDE / PATCH}
    settings = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    program = [__file__, CDPIPE] if os.environ.get(IDENTITY) else ["-m", "cdpipe"]
    return [sys.executable, *program, "predict", *images, "--model", str(folder / NETWORK), *settings]


def execute(command: list[str], **variables: str) -> None:
    """Run a command to its end, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """Note the proportional set size of all processes that this one starts, in bytes, four times a second."""
    stop, sizes = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.25):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # gone meanwhile
            sizes.append(total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join()


def difference(folder: Path, out: Path) -> float:
    """The largest difference of cdpipe's probability from that of the loop with cdpipe's weights."""
    with rasterio.open(folder / "weighted.tif") as one, rasterio.open(next(out.glob("**/*probability.tif"))) as other:
        inner = slice(PATCH, -PATCH)
        return float(np.nanmax(np.abs(one.read(1) - other.read(1))[inner, inner]))


def plain_loop(folder: Path, *, weighted: bool) -> None:
    """The whole of it, as a script of its own would be."""
    import torch  # noqa: PLC0415 (counts as part of the command)

    from cdpipe.models.folder import load_network, read_card  # noqa: PLC0415
    from cdpipe.workspace.location import here  # noqa: PLC0415

    network = load_network(here(folder / NETWORK), read_card(here(folder / NETWORK)))
    if os.environ.get(IDENTITY):
        network = torch.nn.Identity()
    dates = []
    for name in ("before", "after"):
        with rasterio.open(folder / f"{name}.tif") as raster:
            bands, profile = raster.read().astype(np.float32), raster.profile
        dates.append((bands - bands.mean((1, 2), keepdims=True)) / bands.std((1, 2), keepdims=True))
    scene = np.concatenate(dates)
    height, width = scene.shape[1:]
    total, weights = np.zeros((2, height, width), np.float32)
    window = np.ones((PATCH, PATCH), np.float32)
    if weighted:
        from cdpipe.inference.patches import blend_weights  # noqa: PLC0415

        window = blend_weights(PATCH, STRIDE)
    starts = [(row, col) for row in origins(height) for col in origins(width)]
    with torch.inference_mode():
        for first in range(0, len(starts), BATCH):
            group = starts[first : first + BATCH]
            patches = np.stack([scene[:, row : row + PATCH, col : col + PATCH] for row, col in group])
            said = torch.sigmoid(network(torch.from_numpy(patches))[:, 0]).numpy()
            for (row, col), own in zip(group, said, strict=True):
                total[row : row + PATCH, col : col + PATCH] += own * window
                weights[row : row + PATCH, col : col + PATCH] += window
    probability = total / weights
    options = {"height": height, "width": width, "count": 1, "crs": profile["crs"], "transform": profile["transform"]}
    layout = {"driver": "GTiff", "tiled": True, "compress": "deflate"}
    target = "weighted.tif" if weighted else "probability_loop.tif"
    with rasterio.open(folder / target, "w", dtype="float32", **layout, **options) as raster:
        raster.write(probability, 1)
    with rasterio.open(folder / "change_loop.tif", "w", dtype="uint8", **layout, **options) as raster:
        raster.write((probability >= 0.5).astype(np.uint8), 1)


def origins(length: int) -> list[int]:
    """First pixels of patches along a side; the last patch ends where the scene does."""
    return [*range(0, length - PATCH, STRIDE), length - PATCH]


def without_networks(arguments: list[str]) -> int:
    """The command line of cdpipe, with networks that give back their first channel."""
    from cdpipe.cli.main import main as cdpipe  # noqa: PLC0415
    from cdpipe.prediction import networks  # noqa: PLC0415

    def identity(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(1 / (1 + np.exp(-patches[:, 0])), np.float32)

    setattr(networks, "load_forward", lambda member: identity)  # noqa: ARG005, B010 (mypy sees imports as private)
    return cdpipe(arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == [CDPIPE]:
        sys.exit(without_networks(sys.argv[2:]))
    main()
