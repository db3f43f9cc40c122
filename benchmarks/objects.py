"""Change objects of a scene of 20,000² pixels with 100,000 objects: time and peak memory of a process that makes them.

Objects are blobs with rough outlines, every third with a hole, many across blocks; about a third of the scene's cells'
pixels are changed. The process does what a worker of predict does for a finished pair: read change, probability and one
model's probability from the store, find objects, write a GeoPackage, read it back, publish and record it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from stored_scenes import BLOCK, grid_of
from timing import Row, own_peak, peak_memory, show

from cdpipe.config.schema import Vectors
from cdpipe.formats.vectors import read_features
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.objects.features import ChangeScene
from cdpipe.runs.products import write_product
from cdpipe.runs.vectors import PairLayer, pair_layer_product
from cdpipe.store.arrays import write_block
from cdpipe.store.groups import CHANGE_ARRAYS, PROBABILITY_ARRAYS, create_group
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

CELL = 63  # pixels from object to object: 100,489 of them in 20,000²


def main() -> None:
    """Measure and print, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--format", default="gpkg")
    parser.add_argument("--opening", type=float, default=0, help="metres, of which a pixel has one")
    parser.add_argument("--simplify", type=float, default=0, help="likewise")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    vectors = Vectors(format=options.format, opening_m=options.opening, simplify_m=options.simplify)
    if options.folder:
        write_product(pair_layer_product(_layer(options.folder, options.size, vectors)))
        print(own_peak())
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _store(root, options.size)
        given = ["--size", options.size, "--format", options.format, "--folder", folder]
        given += ["--opening", options.opening, "--simplify", options.simplify]
        begun = time.perf_counter()
        peak = peak_memory(Path(__file__), *map(str, given))
        seconds = time.perf_counter() - begun
        path = _layer(root, options.size, vectors).path
        count = sum(map(len, read_features(path)))
        rows = [
            Row("objects", f"{count:,}", "", None, "100,000"),
            Row("time", f"{seconds:.0f} s ({options.size**2 / 1e6 / seconds:.1f} Mpx/s)", "", None, "minutes"),
            Row("peak memory", f"{peak / 2**20:.0f} MiB", "", None, "<= 2048 MiB"),
            Row("file", f"{path.stat().size / 2**20:.0f} MiB"),
        ]
    show(f"change objects of {options.size}²", rows)


def _pair(size: int) -> StoredPair:
    return StoredPair("p", "0" * 12, grid_of(size), BLOCK, ("red",), ((1.0, 0.0), (1.0, 0.0)), {})


def _layer(root: Path, size: int, options: Vectors) -> PairLayer:
    scene = ChangeScene(
        Workspace(here(root)), _pair(size), "change", (("model", 0.5),), options, ("2018-05-01", "2024-05-01")
    )
    return PairLayer("run", scene, {"threshold": "0.5"})


def _store(root: Path, size: int) -> None:
    workspace, pair = Workspace(here(root)), _pair(size)
    changes, model = workspace.group("changes", "p", "change"), workspace.group("probabilities", "p", "model")
    create_group(changes, CHANGE_ARRAYS, pair.grid, BLOCK, {})
    create_group(model, PROBABILITY_ARRAYS, pair.grid, BLOCK, {})
    for window in tiles_in(Window(0, 0, size, size), BLOCK):
        probability = _blobs(window)
        write_block(changes, "probability", window, probability)
        write_block(changes, "change", window, (probability >= 0.5).astype(np.uint8))
        write_block(model, "probability", window, probability)


def _blobs(window: Window) -> NDArray[np.float32]:
    """Probability of one blob a cell: its radius changes with the direction, its edge with the pixel."""
    y, x = np.mgrid[window.row : window.stop_row, window.col : window.stop_col].astype(np.float32)
    row, col = y // CELL, x // CELL
    kind = (row * 7919 + col * 104729) % 997
    dy, dx = y - (row + 0.5) * CELL, x - (col + 0.5) * CELL
    radius, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    edge = 10 + kind / 83 + 4 * np.sin(angle * (2 + kind % 4) + kind) + np.sin(angle * 13 + kind)
    inside = (radius < edge) & ~((kind % 3 == 0) & (radius < 3))
    noise = (y * 12.9898 + x * 78.233) % 1 * 0.4
    return np.asarray(np.where(inside, 0.55 + noise, noise), np.float32)


if __name__ == "__main__":
    main()
