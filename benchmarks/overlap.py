"""Patches that networks are run on against the fewest that cover a scene: what blocks cost that share no patch.

Useful are the patches of a scene's patch grid, each once. Who predicts a run of blocks computes every patch that shares
a pixel with any of them, each once: on one machine, in threads, that is the scene; on Ray each actor has its runs, and
patches across their borders are computed on both sides. Nothing is timed: this counts what prediction lists.
"""

import argparse
from collections.abc import Iterator

from timing import Row, show

from cdpipe.geo.tilings import PatchGrid, block_keys, block_window, patch_stride
from cdpipe.runs.blocks import in_runs
from cdpipe.runs.plan import BlockWork

SCENES = {"Sentinel-2 tile": 10_980, "20k": 20_480, "100k": 102_400}
TARGET = {"by threads": "<= 1.05", "by 3 actors": "<= 1.10"}
BLOCK = 2048


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overlap", type=float, default=0.25, help="share of a patch")
    options = parser.parse_args()
    show(f"Patches computed, overlap {options.overlap:g}, blocks of {BLOCK}", list(rows(options.overlap)))


def rows(overlap: float) -> Iterator[Row]:
    """A line for every patch, scene and way."""
    for patch in (256, 512):
        for name, side in SCENES.items():
            grid = PatchGrid((side, side), patch, patch_stride(patch, overlap))
            useful = len(grid.origins(0)) * len(grid.origins(1))
            work = [BlockWork(0, key, (0,), ensemble=True) for key in block_keys("p", grid.shape, BLOCK)]
            alone = [(at, at + 1) for at in range(len(work))]
            ways = {"by threads": [(0, len(work))], "by 3 actors": in_runs(work, 3)[1], "block by block": alone}
            ordered, _ = in_runs(work, 1)
            for way, runs in ways.items():
                computed = sum(count_patches(grid, ordered[first:stop]) for first, stop in runs)
                what = f"patches of {patch}, {name} ({side}), {way}"
                yield Row(what, str(computed), f"{useful} useful", computed / useful, TARGET.get(way, ""))


def count_patches(grid: PatchGrid, run: list[BlockWork]) -> int:
    """Patches that a run of blocks needs, each once."""
    windows = (block_window(item.key, grid.shape, BLOCK) for item in run)
    return len({origin for window in windows for origin in grid.touching(window)})


if __name__ == "__main__":
    main()
