"""Reviewed changes as labels: accepted ones changed, rejected ones did not, and nothing is said of the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Label
from cdpipe.errors import ConfigError
from cdpipe.formats.cog import RasterLayer, write_cog
from cdpipe.formats.polygons import burn_polygons
from cdpipe.formats.review import Verdict
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.pairs.labels import CHANGED, IGNORE, UNCHANGED
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace

PAINTED = (("rejected", UNCHANGED), ("accepted", CHANGED))  # the later on top, where objects overlap


@dataclass(frozen=True, slots=True)
class ReviewJob:
    """The label of one reviewed pair.

    Attributes:
        workspace: The store.
        path: GeoTIFF to write.
        pair: The pair.
        label_key: Key of the label that it has already, None without one.
        verdicts: Of its changes.
        values: What the raster has for 0 (unchanged), 1 (changed) and 255 (ignore).
    """

    workspace: Workspace
    path: Path
    pair: StoredPair
    label_key: str | None
    verdicts: Sequence[Verdict]
    values: Mapping[int, int]


def raster_values(meaning: Label) -> dict[int, int]:
    """Values that the configuration understands as unchanged, changed and (as nodata) ignore.

    Raises:
        ConfigError: If bytes have no room for them.
    """
    if not meaning.changed or not meaning.unchanged:
        raise ConfigError("label: expected a value for changed and one for unchanged, which a review's labels need")
    values = {UNCHANGED: meaning.unchanged[0], CHANGED: meaning.changed[0]}
    taken = {*meaning.changed, *meaning.unchanged, *meaning.ignore}
    free = next((value for value in range(255, -1, -1) if value not in taken), None)
    if free is None or not all(0 <= value <= 255 for value in values.values()):
        raise ConfigError(f"label: a review's labels are bytes, which have no room for {sorted(taken)} and nodata")
    return {**values, IGNORE: free}


def write_review_label(job: ReviewJob) -> dict[str, int]:
    """Write a reviewed pair's label on the pair's grid, tile by tile.

    Where the pair has a label already, verdicts are painted over it. Everywhere else the raster has nodata, which
    ingest takes for "ignore": what nobody looked at must not become unchanged.

    Returns:
        How many objects were accepted and rejected.

    Raises:
        InputError: If an outline does not lie in the pair's coordinates.
        IntegrityError: If the raster cannot be written.
    """
    shapes = {
        verdict: np.array([each.outline(job.pair.grid) for each in job.verdicts if each.verdict == verdict], object)
        for verdict, _ in PAINTED
    }
    table = np.full(256, job.values[IGNORE], np.uint8)
    table[[UNCHANGED, CHANGED]] = job.values[UNCHANGED], job.values[CHANGED]

    def read(window: Window) -> NDArray[np.uint8]:
        label = np.full(window.shape, IGNORE, np.uint8)
        if job.label_key is not None:
            group = job.workspace.group("labels", job.pair.pair_id, job.label_key)
            label = read_window(open_layer(group, "label"), window)
        for tile in tiles_in(window, TILE):  # whole tiles: rounding must not depend on the window
            for verdict, value in PAINTED:
                if len(shapes[verdict]):
                    label[tile.slices_in(window)][burn_polygons(shapes[verdict], job.pair.grid.crop(tile)) == 1] = value
        return table[label]

    meaning = ", ".join(f"{job.values[value]} {name}" for value, name in ((CHANGED, "changed"), (UNCHANGED, "not")))
    layer = RasterLayer("uint8", job.values[IGNORE], f"reviewed label: {meaning}")
    write_cog(job.path, read, job.pair.grid, layer)
    return {verdict: len(each) for verdict, each in shapes.items()}
