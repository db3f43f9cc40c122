"""One picture per pair: both dates, label, probability and change side by side."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray

from cdpipe.arrays import rendering
from cdpipe.arrays.rendering import Image, Rgb
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.stages.picture_layout import FAINT, INK, LEGEND_WIDTH, MARGIN, SMALL, TITLE, Sheet, arrange_panels
from cdpipe.workspace.local import write_atomically

STEP = 2048  # side of the windows in which a scene is read, in pixels

# Lengths in pixels of the picture.
ROW, SWATCH, BAR = 27, (15, 24), (14, LEGEND_WIDTH - 20)
SECTION = 70  # height of the legend's colour bar and of its scale

Panel = tuple[str, Image, NDArray[np.bool_]]  # caption, colours, where there is no data


@dataclass(frozen=True, slots=True)
class PairLayers:
    """What a picture shows of a pair; all arrays have one height and width.

    Attributes:
        pair_id: The pair.
        before: ``(3 or 1, height, width)`` red, green, blue, or grey, in any number type.
        after: The same of the second date.
        valid: ``(height, width)`` uint8, bit 0: observed before, bit 1: observed after.
        probability: ``(height, width)`` of the ensemble, NaN where not observed.
        change: ``(height, width)`` 0, 1, 255 not observed.
        label: ``(height, width)`` 0, 1, 255 ignore; None where there is none.
        dates: Of both images, as they are to be read.
        threshold: From which probability on a pixel is changed.
        iou: Of the whole pair, 0 to 1.
        f1: Of the whole pair, 0 to 1.
        grid: Of the whole scene, for a scale. North is taken to be up.
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
        layers = (self.before, self.after, self.valid, self.probability, self.change, self.label)
        shapes = {layer.shape[-2:] for layer in layers if layer is not None}
        if len(shapes) != 1:
            raise ValueError(f"{self.pair_id}: expected layers of one height and width, got {sorted(shapes)}")


def decimate(read: Callable[[Window], NDArray[Any]], shape: tuple[int, int], max_side: int = 1024) -> NDArray[Any]:
    """Keep every k-th pixel of a scene of any size, so that neither side is longer than ``max_side``.

    Reads one window of 2048 pixels after the other; equals ``scene[..., ::k, ::k]`` of the whole scene.

    Args:
        read: Returns the ``(..., height, width)`` pixels of a window.
        shape: Rows and columns of the scene.
        max_side: Longest side of the result.
    """
    every = math.ceil(max(shape) / max_side)
    kept: NDArray[Any] = np.empty(0)
    for window in tiles_in(Window(0, 0, *shape), STEP):
        skip_rows, skip_cols = -window.row % every, -window.col % every
        part = read(window)[..., skip_rows::every, skip_cols::every]
        if kept.size == 0:
            kept = np.empty((*part.shape[:-2], *(math.ceil(side / every) for side in shape)), part.dtype)
        row, col = (window.row + skip_rows) // every, (window.col + skip_cols) // every
        kept[..., row : row + part.shape[-2], col : col + part.shape[-1]] = part
    return kept


def draw_pair(path: Path, layers: PairLayers) -> None:
    """Draw a pair as a PNG about 1600 pixels wide; the same layers give the same bytes.

    Args:
        path: The file to write, at once or not at all.
        layers: What to show, decimated already (:func:`decimate`).
    """
    panels, classes = _make_panels(layers), _legend_classes(layers)
    metres = _metres_per_pixel(layers.grid)
    legend_height = ROW * len(classes) + SECTION * (2 if metres else 1)
    layout = arrange_panels(layers.change.shape, len(panels), legend_height)
    sheet = Sheet(layout.size)
    _draw_header(sheet, layers)
    for (top, left), (caption, colors, missing) in zip(layout.panels, panels, strict=True):
        sheet.write((top - 10, left), caption)
        shown = rendering.resize_nearest(colors, layout.image)
        sheet.paint((top, left), rendering.hatch(shown, rendering.resize_nearest(missing, layout.image)))
    top, left = layout.legend
    for name, color in classes:
        swatch = np.full((*SWATCH, 3), color or 0, np.uint8)
        sheet.paint((top, left), rendering.hatch(swatch, np.full(SWATCH, color is None)))
        sheet.write((top + SWATCH[0] - 2, left + SWATCH[1] + 10), name)
        top += ROW
    _draw_color_bar(sheet, (top, left), layers.threshold)
    if metres and layers.grid:
        _draw_scale(sheet, (top + SECTION, left), metres * layers.grid.width / layout.image[1])
    write_atomically(path, sheet.to_png())


def _make_panels(layers: PairLayers) -> list[Panel]:
    """The images of a picture in the order in which they are read."""
    dates = [f" · {date}" for date in layers.dates or ()] or ["", ""]
    seen = [layers.valid & bit > 0 for bit in (1, 2)]
    before, after = (
        rendering.stretch_bands(bands, observed)
        for bands, observed in zip((layers.before, layers.after), seen, strict=True)
    )
    backdrop = rendering.pale_map(after)
    panels: list[Panel] = [(f"Before{dates[0]}", before, ~seen[0]), (f"After{dates[1]}", after, ~seen[1])]
    if layers.label is None:
        classes, colors = layers.change, {1: rendering.CHANGED}
    else:
        labelled = rendering.paint_classes(backdrop, layers.label, {1: rendering.LABELLED})
        panels.append(("Label", labelled, layers.label == 255))
        classes, colors = rendering.compare_with_label(layers.change, layers.label), dict(rendering.OUTCOMES)
    probability = rendering.probability_colors(layers.probability)
    changed = rendering.paint_classes(backdrop, classes, colors)
    return [
        *panels,
        ("Probability of change", probability, np.isnan(layers.probability)),
        ("Detected change", changed, layers.change == 255),
    ]


def _legend_classes(layers: PairLayers) -> list[tuple[str, Rgb | None]]:
    """Names and colours of the classes; None is hatched."""
    if layers.label is None:
        return [("Detected change", rendering.CHANGED), ("No data", None)]
    unlabelled = bool(((layers.label == 255) & (layers.change == 1)).any())
    return [
        ("Labelled change", rendering.LABELLED),
        ("Hit", rendering.HIT),
        ("Missed", rendering.MISS),
        ("False alarm", rendering.FALSE_ALARM),
        *([("Change without label", rendering.UNLABELLED)] if unlabelled else []),
        ("No data", None),
    ]


def _draw_header(sheet: Sheet, layers: PairLayers) -> None:
    """The pair's name on the left, its figures on the right."""
    figures = [("IoU", layers.iou), ("F1", layers.f1)]
    text = "   ".join(f"{name} {value:.3f}" for name, value in figures if value is not None and math.isfinite(value))
    width = sheet.pixels.shape[1] - 2 * MARGIN
    room = width - 0.65 * TITLE * len(text)
    sheet.write((42, MARGIN), layers.pair_id, min(TITLE, room / (0.65 * len(layers.pair_id))))
    sheet.write((42, MARGIN + width), text, TITLE, "right")


def _draw_color_bar(sheet: Sheet, corner: tuple[int, int], threshold: float | None) -> None:
    """Colours of probabilities from 0 to 1, with a mark at the threshold."""
    top, left = corner[0] + 30, corner[1]
    ramp = np.broadcast_to(np.linspace(0, 1, BAR[1], dtype=np.float32), BAR)
    sheet.write((top - 8, left), "Probability")
    sheet.paint((top, left), rendering.probability_colors(ramp))
    below = top + BAR[0] + 16
    for end, align in ((0, "left"), (1, "right")):
        if threshold is None or abs(threshold - end) > 0.15:  # or their figures would run into each other
            sheet.write((below, left + end * BAR[1]), str(end), SMALL, align, FAINT)
    if threshold is not None:
        at = left + round(threshold * (BAR[1] - 1))
        sheet.paint((top - 3, at - 1), np.full((BAR[0] + 6, 2, 3), INK, np.uint8))
        sheet.write((below, at), f"{threshold:.2f}", SMALL, "center")


def _metres_per_pixel(grid: Grid | None) -> float | None:
    """Ground length of a pixel's side along the rows, at the scene's centre; None if not projected.

    On the ellipsoid and not in units of the CRS: those of the web's Mercator are twice too long in Oslo.
    """
    crs = None if grid is None or grid.crs is None else pyproj.CRS.from_wkt(grid.crs)
    if grid is None or crs is None or not crs.is_projected:
        return None
    row, col = grid.height / 2, grid.width / 2
    ends = [grid.xy(row, col - 0.5), grid.xy(row, col + 0.5)]
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = to_degrees.transform([x for x, _ in ends], [y for _, y in ends])
    geod = crs.get_geod()
    length = geod.line_length(lon, lat) if geod else math.nan
    return length if math.isfinite(length) and length > 0 else None


def _draw_scale(sheet: Sheet, corner: tuple[int, int], metres: float) -> None:
    """A bar of a round length, at most as long as the colour bar; ``metres`` per pixel of the picture."""
    longest = metres * BAR[1]
    power = 10 ** math.floor(math.log10(longest))
    length = max(step * power for step in (1, 2, 5) if step * power <= longest)
    pixels = max(1, round(length / metres))
    top, left = corner[0] + 30, corner[1]
    name = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    sheet.write((top - 8, left), name)
    for offset, height, width in ((0, 3, pixels), (0, 9, 2), (pixels - 2, 9, 2)):
        sheet.paint((top + 9 - height, left + offset), np.full((height, width, 3), INK, np.uint8))
