"""Patches that networks are run on against the fewest that cover a scene: what blocks that ask no neighbour cost.

Useful are the patches of a scene's patch grid, each once. A block computes every patch that shares a pixel with it,
each once; those across a border are computed on both its sides. Nothing is timed: this counts what prediction lists.
"""

import argparse
from collections.abc import Iterator

from timing import Row, show

from cdpipe.geo.tilings import PatchGrid, block_keys, block_window, patch_stride

SCENES = {"Sentinel-2 tile": 10_980, "20k": 20_480, "100k": 102_400}
TARGET = {(256, 2048, "Sentinel-2 tile"): "<= 1.25", (512, 2048, "Sentinel-2 tile"): "stated"}


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--overlap", type=float, default=0.25, help="share of a patch")
    options = parser.parse_args()
    show(f"Patches computed, overlap {options.overlap:g}", list(rows(options.overlap)))


def rows(overlap: float) -> Iterator[Row]:
    """A line for every patch, block and scene."""
    for patch in (256, 512):
        for block in (2048, 4096):
            for name, side in SCENES.items():
                patch_grid = PatchGrid((side, side), patch, patch_stride(patch, overlap))
                keys = block_keys("p", patch_grid.shape, block)
                computed = sum(len(patch_grid.touching(block_window(key, patch_grid.shape, block))) for key in keys)
                useful = len(patch_grid.origins(0)) * len(patch_grid.origins(1))
                what = f"patches of {patch}, blocks of {block}, {name} ({side})"
                target = TARGET.get((patch, block, name), "")
                yield Row(what, str(computed), f"{useful} useful", computed / useful, target)


if __name__ == "__main__":
    main()
