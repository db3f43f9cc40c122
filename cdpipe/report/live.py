"""Tiles of a stored pair that are drawn when somebody looks there: for scenes that are too large for a page.

They are the report's, in its colours, of every level and place, and see-through where there is no data. Each is made of
the store alone, which has both dates on one grid wherever the workspace lies.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.geo.crs import known_crs, on_earth, project_positions
from cdpipe.geo.grid import Grid, Window
from cdpipe.metrics.classes import CHANGED
from cdpipe.report import drawing
from cdpipe.report.drawing import Limits
from cdpipe.report.pair import describe_view
from cdpipe.report.pyramid import BITS, TILE
from cdpipe.report.scene import Cells, Read, cell_counts, mean_of, open_scene, shown_bands, shrink, sum_cells
from cdpipe.store.histograms import SHARES
from cdpipe.store.pair import DATES, StoredPair
from cdpipe.workspace.layout import Workspace

LAYERS = (*DATES, "change", "probability", "label", "outcomes")
DARK, BRIGHT = SHARES.index(0.01), SHARES.index(0.99)  # quantiles that are shown darkest and brightest
MAP_TILE = 256  # pixels of a tile of the web's maps
MAP_HALF = math.pi * 6_378_137  # metres from the middle of the web's Mercator to its edge
DEEPEST = 24  # level of the web's maps
NO_PICTURE = 2**40  # pixels of a cell of the picture of the whole scene, where there is none: any tile is finer

Overlay = NDArray[np.uint8]  # (height, width, 4) red, green, blue, opacity


@dataclass(frozen=True, slots=True)
class LivePair:
    """A finished pair to look at.

    Attributes:
        workspace: Where it lies.
        pair: The pair.
        change_key: Key of its change.
        label_key: Key of its label, None without one.
    """

    workspace: Workspace
    pair: StoredPair
    change_key: str
    label_key: str | None

    @property
    def layers(self) -> tuple[str, ...]:
        """What can be drawn of it."""
        return LAYERS if self.label_key else LAYERS[:4]


def list_live_levels(shape: tuple[int, int]) -> list[int]:
    """Sides of cells in pixels, 1, 2, 4, ..., up to that of which one tile has the whole scene."""
    levels = [1]
    while max(shape) > TILE * levels[-1]:
        levels.append(2 * levels[-1])
    return levels


def describe_live_view(live: LivePair, changes: list[dict[str, Any]]) -> dict[str, Any]:
    """What a page's script has to know of a pair to show it, as :func:`cdpipe.report.pair.describe_view` has it.

    Args:
        live: The pair.
        changes: See :func:`cdpipe.report.changes.outline_changes`.
    """
    grid = live.pair.grid
    levels = [_describe_level(live, cell) for cell in list_live_levels(grid.shape)]
    stripes = [f"rgb({red} {green} {blue})" for red, green, blue in (palette.NO_DATA, palette.NO_DATA_STRIPE)]
    return {**describe_view(grid, NO_PICTURE, levels, changes), "stripes": stripes, "photos": "webp"}


def _describe_level(live: LivePair, cell: int) -> dict[str, Any]:
    """A level as :func:`cdpipe.report.pyramid.write_pyramid` describes one, all of whose tiles there are."""
    rows, cols = cell_counts(live.pair.grid.shape, cell * TILE)
    return {"cell": cell, "cols": cols, "has": dict.fromkeys(live.layers, "f" * -(-rows * cols // 4))}


def draw_tile(live: LivePair, layer: str, cell: int, row: int, col: int) -> Overlay | None:
    """A tile of a pair's own grid; None where there is no such tile.

    Args:
        live: The pair.
        layer: One of its layers.
        cell: Pixels that a side of a cell has, one of :func:`list_live_levels`.
        row: Of the tile.
        col: Of the tile.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    side, (height, width) = TILE * cell, live.pair.grid.shape
    if (
        layer not in live.layers
        or cell not in list_live_levels((height, width))
        or row * side >= height
        or col * side >= width
    ):
        return None
    top, left = row * side, col * side
    return _draw_cells(live, layer, Window(top, left, min(side, height - top), min(side, width - left)), cell)


def draw_map_tile(live: LivePair, layer: str, zoom: int, col: int, row: int) -> Overlay | None:
    """A tile of the web's maps: 256 x 256 pixels of Mercator, each the nearest cell; None where the pair lies nowhere.

    Source: https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames, rows counted from the north.

    Args:
        live: The pair.
        layer: One of its layers.
        zoom: 0 is the whole Earth, each further one halves the sides of tiles.
        col: Of the tile, from 180 degrees west.
        row: Of the tile, from the north.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    grid = live.pair.grid
    if layer not in live.layers or not on_earth(grid.crs) or not (0 <= zoom <= DEEPEST and max(col, row) < 2**zoom):
        return None
    step = 2 * MAP_HALF / 2**zoom / MAP_TILE
    corner = col * MAP_TILE * step - MAP_HALF, MAP_HALF - row * MAP_TILE * step
    tile = Grid(MAP_TILE, MAP_TILE, (step, 0.0, corner[0], 0.0, -step, corner[1]), known_crs("EPSG:3857"))
    rows, cols = project_positions(tile, grid, *tile.middles(MAP_TILE))
    with np.errstate(invalid="ignore"):
        inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
    picture = np.zeros((MAP_TILE, MAP_TILE, 4), np.uint8)
    if not inside.any():
        return picture
    cell = _cell_for(rows, cols, inside)
    down, right = (np.floor(values[inside]).astype(np.int64) // cell for values in (rows, cols))
    first = down.min() * cell, right.min() * cell
    last = min((down.max() + 1) * cell, grid.height), min((right.max() + 1) * cell, grid.width)
    window = Window(*map(int, (*first, last[0] - first[0], last[1] - first[1])))
    picture[inside] = _draw_cells(live, layer, window, cell)[down - down.min(), right - right.min()]
    return picture


def _cell_for(rows: NDArray[np.float64], cols: NDArray[np.float64], inside: NDArray[np.bool_]) -> int:
    """The largest side of cells, a power of two, that is no more than pixels of a tile are apart."""
    with np.errstate(invalid="ignore"):
        apart = np.hypot(np.gradient(rows, axis=1), np.gradient(cols, axis=1))[inside]
    apart = apart[np.isfinite(apart)]
    return 1 << max(0, int(math.log2(np.median(apart)))) if apart.size and np.median(apart) >= 1 else 1


def _draw_cells(live: LivePair, layer: str, window: Window, cell: int) -> Overlay:
    """A layer over a window, (rows, cols, 4): cells are means of what was observed in them."""
    scene = open_scene(live.workspace, live.pair, live.change_key, live.label_key)

    def read(part: Window) -> Mapping[str, NDArray[Any]]:
        return _summands(scene, layer, Window(window.row + part.row, window.col + part.col, *part.shape))

    means = shrink(read, window.shape, cell, _mean_cells)
    if layer in DATES:
        seen = means["seen"]
        return _with_opacity(drawing.stretch_between(mean_of(means["value"], seen), _limits(live, layer)), seen)
    if layer == "probability":
        seen = means["seen"]
        return _with_opacity(drawing.probability_colors(mean_of(means["value"], seen)), seen)
    colors = {"change": {CHANGED: palette.CHANGED}, "label": {CHANGED: palette.LABELLED}}.get(
        layer, dict(drawing.OUTCOME_COLORS)
    )
    return drawing.lay_over({number: means[str(number)] for number in colors}, colors)


def _with_opacity(image: drawing.Image, seen: Cells) -> Overlay:
    return np.dstack([image, np.rint(seen * 255).astype(np.uint8)])


def _limits(live: LivePair, date: str) -> Limits:
    """How bright a date is shown: by quantiles that the pair's record keeps, so no pixel has to be read for them."""
    levels = live.pair.levels["per_date"][DATES.index(date)]
    return tuple((levels[band][DARK], levels[band][BRIGHT]) for band in shown_bands(live.pair.roles))


def _summands(scene: Mapping[str, Read], layer: str, window: Window) -> dict[str, NDArray[Any]]:
    """What a layer is made of, pixel by pixel: values where they count and 0 elsewhere, or where something is so."""
    if layer in DATES:
        seen = scene["valid"](window) & BITS[layer] > 0
        return {"value": np.nan_to_num(scene[layer](window), copy=False) * seen, "seen": seen}
    if layer == "probability":
        values = scene["probability"](window)
        return {"value": np.nan_to_num(values), "seen": ~np.isnan(values)}
    if layer == "outcomes":
        classes = drawing.compare_with_label(scene["change"](window), scene["label"](window))
        return {str(number): classes == number for number in drawing.OUTCOME_COLORS}
    return {str(CHANGED): scene[layer](window) == CHANGED}


def _mean_cells(pixels: NDArray[Any], cell: int) -> NDArray[np.float32]:
    """Means of (..., height, width) pixels over cells, at the edge over the pixels that there are."""
    counts = sum_cells(np.ones(pixels.shape[-2:], np.float32), cell)
    return np.asarray(sum_cells(pixels, cell) / counts, np.float32)
