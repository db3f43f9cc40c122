"""A pair's change as run-length text, and a submitted mask as a GeoTIFF."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdpipe.formats.cog import CHANGE_COLORS, RasterLayer, write_cog
from cdpipe.formats.submission import Runs, decode_window, encode_strips
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import CHUNK
from cdpipe.metrics.counts import NOT_OBSERVED
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace


def encode_change(workspace: Workspace, pair: StoredPair, change_key: str) -> tuple[Runs, int]:
    """Runs of a stored change, and how many pixels were not observed: a mask calls these unchanged."""
    change = open_layer(workspace.group("changes", pair.pair_id, change_key), "change")
    height, width = pair.grid.shape
    not_observed = 0

    def strips() -> Iterator[NDArray[np.bool_]]:
        nonlocal not_observed
        # a chunk wide: every stored chunk is decoded once, and a strip of 100,000 rows takes 26 MB
        for col in range(0, width, CHUNK):
            strip = read_window(change, Window(0, col, height, min(CHUNK, width - col)))
            not_observed += int(np.count_nonzero(strip == NOT_OBSERVED))
            yield strip == 1

    return encode_strips(strips()), not_observed


def decode_change(runs: Runs, grid: Grid, window: Window) -> NDArray[np.uint8]:
    """The (height, width) pixels of a window of a submitted mask, 0 or 1."""
    return np.ascontiguousarray(decode_window(runs, grid.height, window), np.uint8)


def write_mask(path: Path, runs: Runs, grid: Grid, tags: Mapping[str, str]) -> None:
    """Write a submitted mask as a GeoTIFF on its pair's grid.

    Raises:
        IntegrityError: If it does not read back as it was written.
    """
    layer = RasterLayer("uint8", NOT_OBSERVED, "change: 0 no, 1 yes", CHANGE_COLORS, tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cog(path, lambda window: decode_change(runs, grid, window), grid, layer)
