"""One picture per pair: both dates, label, probability and change side by side."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cdpipe.arrays import rendering
from cdpipe.arrays.rendering import Image, Rgb
from cdpipe.formats.workspace import write_atomically
from cdpipe.values.grid import Grid, Window
from cdpipe.values.windows import tiles_in

STEP = 2048  # side of the windows in which a scene is read, in pixels

# All lengths of a picture are in its own pixels.
MAX_WIDTH, MAX_HEIGHT = 1600, 1200
MARGIN, GAP, HEADER, CAPTION = 24, 20, 52, 30
LEGEND_WIDTH, LEGEND_ROW, MIN_CELL_WIDTH = 210, 26, 190
DPI = 100
INK, FAINT_INK = "#1f2328", "#6b7280"
Panel = tuple[str, Image, NDArray[np.bool_]]  # caption, colours, where there is no data


@dataclass(frozen=True, slots=True)
class PairLayers:
    """What a picture shows of a pair; all arrays have the same height and width.

    Attributes:
        pair_id: The pair.
        before: ``(3 or 1, height, width)`` red, green, blue, or grey, in any number type.
        after: The same of the second date.
        valid: ``(height, width)`` uint8, bit 0: observed before, bit 1: observed after.
        probability: ``(height, width)`` of the ensemble, NaN not observed.
        change: ``(height, width)`` 0, 1, 255 not observed.
        label: ``(height, width)`` 0, 1, 255 ignore; None where there is none.
        dates: Of both images, as they are to be read.
        threshold: From which probability on a pixel is changed.
        iou: Of the whole pair, 0 to 1.
        f1: Of the whole pair, 0 to 1.
        grid: The whole scene's, for a scale bar. North is taken to be up.
    """

    pair_id: str
    before: NDArray[Any]
    after: NDArray[Any]
    valid: NDArray[np.uint8]
    probability: NDArray[np.float32]
    change: NDArray[np.uint8]
    label: NDArray[np.uint8] | None = None
    dates: tuple[str, str] | None = None
    threshold: float | None = None
    iou: float | None = None
    f1: float | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        """Refuse layers that are not of one place."""
        layers = [self.before, self.after, self.valid, self.probability, self.change, self.label]
        shapes = {layer.shape[-2:] for layer in layers if layer is not None}
        if len(shapes) != 1:
            raise ValueError(f"{self.pair_id}: expected layers of one height and width, got {sorted(shapes)}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a picture: positions are ``(top, left)``, sizes ``(height, width)``, in pixels."""

    size: tuple[int, int]
    image: tuple[int, int]
    panels: tuple[tuple[int, int], ...]
    legend: tuple[int, int]


def decimate(
    read: Callable[[Window], NDArray[Any]], shape: tuple[int, int], max_side: int = 1024
) -> NDArray[Any]:
    """Keep every k-th pixel of a scene of any size, so that neither side is longer than ``max_side``.

    Reads 2048-pixel windows one after the other. Equals ``scene[..., ::k, ::k]`` of the whole scene.

    Args:
        read: Returns the ``(..., height, width)`` pixels of a window.
        shape: Rows and columns of the scene.
        max_side: Longest side of the result.
    """
    every = math.ceil(max(shape) / max_side)
    size = [math.ceil(length / every) for length in shape]
    kept: NDArray[Any] | None = None
    for window in tiles_in(Window(0, 0, *shape), STEP):
        first_row, first_col = -window.row % every, -window.col % every
        part = read(window)[..., first_row::every, first_col::every]
        if kept is None:
            kept = np.empty((*part.shape[:-2], *size), part.dtype)
        row, col = (window.row + first_row) // every, (window.col + first_col) // every
        kept[..., row : row + part.shape[-2], col : col + part.shape[-1]] = part
    assert kept is not None, "a scene has at least one window"
    return kept


def draw_pair(path: Path, layers: PairLayers) -> None:
    """Draw a pair as a PNG up to 1600 pixels wide; the same layers give the same bytes.

    Args:
        path: The file to write, at once or not at all.
        layers: What to show, already decimated (:func:`decimate`).
    """
    panels, entries = _panels(layers), _legend_entries(layers)
    metres = _metres_per_pixel(layers.grid)
    legend_height = LEGEND_ROW * len(entries) + 84 + (60 if metres else 0)
    layout = arrange(layers.change.shape, len(panels), legend_height)
    canvas = np.full((*layout.size, 3), 255, np.uint8)
    figure = Figure(figsize=(layout.size[1] / DPI, layout.size[0] / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    _draw_header(axes, layers, layout)
    for (top, left), (caption, colors, missing) in zip(layout.panels, panels, strict=True):
        image = rendering.resize_nearest(colors, layout.image)
        image = rendering.hatch(image, rendering.resize_nearest(missing, layout.image))
        canvas[top : top + layout.image[0], left : left + layout.image[1]] = image
        _write(axes, (top - 11, left), caption, 15)
    bottom = _draw_classes(axes, canvas, layout.legend, entries)
    bottom = _draw_color_bar(axes, canvas, (bottom, layout.legend[1]), layers.threshold)
    if metres and layers.grid:
        shown = metres * layers.grid.width / layout.image[1]
        _draw_scale(axes, canvas, (bottom, layout.legend[1]), shown)
    axes.imshow(canvas, extent=(0, layout.size[1], layout.size[0], 0), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    write_atomically(path, stream.getvalue())


def arrange(shape: tuple[int, int], panels: int, legend_height: int) -> Layout:
    """Choose the rows and columns of panels that show a scene largest within 1600 x 1200 pixels.

    The legend takes the place left over in the last row, or a column of its own where none is left.

    Args:
        shape: Height and width of the layers.
        panels: How many panels there are.
        legend_height: Pixels that the legend needs.
    """
    best: tuple[float, Layout] | None = None
    for cols in range(1, panels + 1):
        for own_column in (False, True):
            scale, layout = _try_columns(shape, panels, legend_height, cols, own_column)
            if scale and (best is None or scale > best[0]):
                best = scale, layout
    assert best is not None, "a legend in a column of its own always fits"
    return best[1]


def _try_columns(
    shape: tuple[int, int], panels: int, legend_height: int, cols: int, own_column: bool
) -> tuple[float, Layout]:
    """The scale of a scene and the layout for so many columns; scale 0 if the legend does not fit."""
    rows = math.ceil(panels / cols)
    side = LEGEND_WIDTH + GAP if own_column else 0
    width = (MAX_WIDTH - 2 * MARGIN - side - GAP * (cols - 1)) / cols
    height = (MAX_HEIGHT - HEADER - MARGIN - GAP * (rows - 1)) / rows - CAPTION
    scale = min(height / shape[0], width / shape[1])
    image = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    down, right = image[0] + CAPTION + GAP, max(image[1], MIN_CELL_WIDTH) + GAP
    origins = [(HEADER + down * row, MARGIN + right * col) for row in range(rows) for col in range(cols)]
    tops = tuple((top + CAPTION, left) for top, left in origins[:panels])
    legend = (HEADER + CAPTION, MARGIN + right * cols) if own_column else origins[panels:][:1]
    return scale, Layout((0, 0), image, tops, (0, 0))
