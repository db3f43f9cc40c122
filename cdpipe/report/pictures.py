"""One picture per pair: both dates, label, probability and change side by side."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.formats import palette
from cdpipe.formats.palette import Rgb
from cdpipe.geo.grid import Grid
from cdpipe.geo.ground import has_areas, pixel_steps
from cdpipe.metrics.classes import CHANGED, IGNORE, NOT_OBSERVED
from cdpipe.metrics.counts import Counts
from cdpipe.report import drawing
from cdpipe.report.drawing import Image
from cdpipe.report.place import ground_aspect
from cdpipe.report.scene import decimate, open_scene
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

# All lengths are in pixels of the picture.
MAX_WIDTH, MAX_HEIGHT = 1600, 1200
MARGIN, GAP, HEADER, CAPTION = 24, 20, 56, 30
LEGEND_WIDTH = 230
MIN_CELL_WIDTH = 200  # or captions of narrow panels would run into each other

ROW, SWATCH, BAR = 27, (15, 24), (14, LEGEND_WIDTH - 20)  # of the legend
SECTION = 70  # height of the legend's colour bar and of its scale

TEXT, TITLE, SMALL = 15, 24, 13
DPI = 100
INK, FAINT = (31, 35, 40), (107, 114, 128)

Panel = tuple[str, Image, NDArray[np.bool_]]  # caption, colours, where there is no data


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions ``(top, left)`` and sizes ``(height, width)`` in pixels of the picture.

    Attributes:
        size: Of the picture.
        image: Size of every panel's image.
        panels: Upper left corner of every image; its caption is right above.
        legend: Upper left corner of the legend.
    """

    size: tuple[int, int]
    image: tuple[int, int]
    panels: tuple[tuple[int, int], ...]
    legend: tuple[int, int]


def arrange_panels(shape: tuple[int, int], panels: int, legend_height: int) -> Layout:
    """Choose the rows and columns that show a scene largest within 1600 x 1200 pixels.

    The legend takes the place left over in the last row, or a column of its own. Only a scene much longer
    than wide (or wider than long) can make the picture exceed 1600 or 1200 pixels, by its captions.

    Args:
        shape: Height and width of the rasters.
        panels: How many panels there are.
        legend_height: Height that the legend needs.
    """

    def worth(layout: Layout) -> float:
        """Large images, and little of the sheet left white."""
        return math.prod(layout.image) ** 2 / math.prod(layout.size)

    return max(_candidates(shape, panels, legend_height), key=worth)


def _candidates(shape: tuple[int, int], panels: int, legend_height: int) -> Iterator[Layout]:
    """Every table of panels in which the legend has room, most columns first."""
    for cols in range(panels, 0, -1):
        rows = math.ceil(panels / cols)
        beside = _fit_image(shape, rows, cols, LEGEND_WIDTH + GAP)
        yield _place_panels(beside, panels, cols, (legend_height, True))
        inside = _fit_image(shape, rows, cols, 0)
        if rows * cols > panels and inside[0] >= legend_height and inside[1] >= LEGEND_WIDTH:
            yield _place_panels(inside, panels, cols, (legend_height, False))


def _fit_image(shape: tuple[int, int], rows: int, cols: int, beside: int) -> tuple[int, int]:
    """Largest size of an image if so many rows and columns, and what stands beside them, must fit."""
    width = (MAX_WIDTH - 2 * MARGIN - beside - GAP * (cols - 1)) / cols
    height = (MAX_HEIGHT - HEADER - MARGIN - GAP * (rows - 1)) / rows - CAPTION
    scale = min(height / shape[0], width / shape[1])
    return max(1, math.floor(shape[0] * scale)), max(1, math.floor(shape[1] * scale))


def _place_panels(image: tuple[int, int], panels: int, cols: int, legend: tuple[int, bool]) -> Layout:
    """Put panels into a table row by row; ``legend``: its height, and whether it stands beside the table."""
    down, right = image[0] + CAPTION + GAP, max(image[1], MIN_CELL_WIDTH) + GAP
    top = HEADER + CAPTION
    corners = tuple((top + down * (n // cols), MARGIN + right * (n % cols)) for n in range(panels))
    legend_height, beside = legend
    corner = (top, MARGIN + right * cols) if beside else (corners[-1][0], corners[-1][1] + right)
    table_right = MARGIN + right * cols - GAP
    width = (corner[1] + LEGEND_WIDTH if beside else table_right) + MARGIN
    height = max(corners[-1][0] + image[0], corner[0] + legend_height) + MARGIN
    return Layout((height, width), image, corners, corner)


class Sheet:
    """A white sheet in pixels: images are painted pixel by pixel, text is set on top."""

    def __init__(self, size: tuple[int, int]) -> None:
        from matplotlib.figure import Figure

        self.pixels = np.full((*size, 3), 255, np.uint8)
        height, width = size
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))

    def paint(self, corner: tuple[int, int], image: Image) -> None:
        """Paint an image ``(height, width, 3)`` with its upper left pixel at a place ``(top, left)``."""
        self.pixels[tuple(slice(at, at + n) for at, n in zip(corner, image.shape[:2], strict=True))] = image

    def write(
        self,
        baseline: tuple[float, float],
        text: str,
        size: float = TEXT,
        align: str = "left",
        color: Rgb = INK,
    ) -> None:
        """Set a line of text that starts (or ends, ``align="right"``) at a place; ``size`` in pixels."""
        self.axes.text(
            baseline[1], baseline[0], text, fontsize=size * 72 / DPI, fontfamily="DejaVu Sans", ha=align,
            va="baseline", color=[channel / 255 for channel in color], parse_math=False,
        )  # fmt: skip

    def to_png(self) -> bytes:
        """The sheet as a PNG file without anything that changes from day to day."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        height, width = self.pixels.shape[:2]
        self.axes.imshow(self.pixels, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
        self.axes.set_axis_off()
        stream = io.BytesIO()
        # Not savefig, which would obey the user's style.
        FigureCanvasAgg(self.figure).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
        return stream.getvalue()


@dataclass(frozen=True, slots=True)
class PairRasters:
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
        """Refuse rasters that are not of one place."""
        rasters = (self.before, self.after, self.valid, self.probability, self.change, self.label)
        shapes = {raster.shape[-2:] for raster in rasters if raster is not None}
        if len(shapes) != 1:
            raise ValueError(f"{self.pair_id}: expected layers of one height and width, got {sorted(shapes)}")


def draw_pair(path: Location, rasters: PairRasters) -> None:
    """Draw a pair into a file, which is written at once or not at all; see :func:`pair_png`."""
    path.write(pair_png(rasters))


def pair_png(rasters: PairRasters) -> bytes:
    """Draw a pair as a PNG about 1600 pixels wide; the same rasters give the same bytes.

    Args:
        rasters: What to show, decimated already (:func:`decimate`).
    """
    panels, classes = _make_panels(rasters), _legend_classes(rasters)
    metres = _metres_per_pixel(rasters.grid)
    legend_height = ROW * len(classes) + SECTION * (2 if metres else 1)
    height, width = rasters.change.shape
    aspect = ground_aspect(rasters.grid)
    layout = arrange_panels((max(1, round(height * aspect)), width), len(panels), legend_height)
    sheet = Sheet(layout.size)
    _draw_header(sheet, rasters)
    for (top, left), (caption, colors, missing) in zip(layout.panels, panels, strict=True):
        sheet.write((top - 10, left), caption)
        shown = drawing.resize_nearest(colors, layout.image)
        sheet.paint((top, left), drawing.hatch(shown, drawing.resize_nearest(missing, layout.image)))
    top, left = layout.legend
    for name, color in classes:
        swatch = np.full((*SWATCH, 3), color or 0, np.uint8)
        sheet.paint((top, left), drawing.hatch(swatch, np.full(SWATCH, color is None)))
        sheet.write((top + SWATCH[0] - 2, left + SWATCH[1] + 10), name)
        top += ROW
    _draw_color_bar(sheet, (top, left), rasters.threshold)
    if metres and rasters.grid:
        _draw_scale(sheet, (top + SECTION, left), metres * rasters.grid.width / layout.image[1])
    return sheet.to_png()


def _make_panels(rasters: PairRasters) -> list[Panel]:
    """The images of a picture in the order in which they are read."""
    dates = [f" · {date}" for date in rasters.dates or ()] or ["", ""]
    seen = [rasters.valid & bit > 0 for bit in (BEFORE_BIT, AFTER_BIT)]
    before, after = (
        drawing.stretch_bands(bands, observed)
        for bands, observed in zip((rasters.before, rasters.after), seen, strict=True)
    )
    backdrop = drawing.pale_map(after)
    panels: list[Panel] = [(f"Before{dates[0]}", before, ~seen[0]), (f"After{dates[1]}", after, ~seen[1])]
    if rasters.label is None:
        classes, colors = rasters.change, {CHANGED: palette.CHANGED}
    else:
        labelled = drawing.paint_classes(backdrop, rasters.label, {CHANGED: palette.LABELLED})
        panels.append(("Label", labelled, rasters.label == IGNORE))
        classes, colors = drawing.compare_with_label(rasters.change, rasters.label), dict(drawing.OUTCOME_COLORS)
    probability = drawing.probability_colors(rasters.probability)
    changed = drawing.paint_classes(backdrop, classes, colors)
    return [
        *panels,
        ("Probability of change", probability, np.isnan(rasters.probability)),
        ("Detected change", changed, rasters.change == NOT_OBSERVED),
    ]


def _legend_classes(rasters: PairRasters) -> list[tuple[str, Rgb | None]]:
    """Names and colours of the classes; None is hatched."""
    if rasters.label is None:
        return [("Detected change", palette.CHANGED), ("No data", None)]
    unlabelled = bool(((rasters.label == IGNORE) & (rasters.change == CHANGED)).any())
    return [
        ("Labelled change", palette.LABELLED),
        ("Hit", palette.HIT),
        ("Missed", palette.MISS),
        ("False alarm", palette.FALSE_ALARM),
        *([("Change without label", palette.UNLABELLED)] if unlabelled else []),
        ("No data", None),
    ]


def _draw_header(sheet: Sheet, rasters: PairRasters) -> None:
    """The pair's name on the left, its figures on the right."""
    figures = [("IoU", rasters.iou), ("F1", rasters.f1)]
    text = "   ".join(f"{name} {value:.3f}" for name, value in figures if value is not None and math.isfinite(value))
    width = sheet.pixels.shape[1] - 2 * MARGIN
    room = width - 0.65 * TITLE * len(text)
    sheet.write((42, MARGIN), rasters.pair_id, min(TITLE, room / (0.65 * len(rasters.pair_id))))
    sheet.write((42, MARGIN + width), text, TITLE, "right")


def _draw_color_bar(sheet: Sheet, corner: tuple[int, int], threshold: float | None) -> None:
    """Colours of probabilities from 0 to 1, with a mark at the threshold."""
    top, left = corner[0] + 30, corner[1]
    ramp = np.broadcast_to(np.linspace(0, 1, BAR[1], dtype=np.float32), BAR)
    sheet.write((top - 8, left), "Probability")
    sheet.paint((top, left), drawing.probability_colors(ramp))
    below = top + BAR[0] + 16
    for end, align in ((0, "left"), (1, "right")):
        if threshold is None or abs(threshold - end) > 0.15:  # or their figures would run into each other
            sheet.write((below, left + end * BAR[1]), str(end), SMALL, align, FAINT)
    if threshold is not None:
        at = left + round(threshold * (BAR[1] - 1))
        sheet.paint((top - 3, at - 1), np.full((BAR[0] + 6, 2, 3), INK, np.uint8))
        sheet.write((below, at), f"{threshold:.2f}", SMALL, "center")


def _metres_per_pixel(grid: Grid | None) -> float | None:
    """Ground length of a pixel's side along the rows, at the scene's centre; None without metres.

    On the ellipsoid and not in units of the CRS: those of the web's Mercator are twice too long in Oslo.
    """
    if grid is None or not has_areas(grid):
        return None
    try:
        _, along = pixel_steps(grid, grid.height / 2, (grid.width - 1) / 2)
    except InputError:
        return None
    return float(np.hypot(*along))


def _draw_scale(sheet: Sheet, corner: tuple[int, int], metres: float) -> None:
    """A bar of a round length, at most as long as the colour bar; ``metres`` per pixel of the picture."""
    length, name = drawing.round_length(metres * BAR[1])
    pixels = max(1, round(length / metres))
    top, left = corner[0] + 30, corner[1]
    sheet.write((top - 8, left), name)
    for offset, height, width in ((0, 3, pixels), (0, 9, 2), (pixels - 2, 9, 2)):
        sheet.paint((top + 9 - height, left + offset), np.full((height, width, 3), INK, np.uint8))


@dataclass(frozen=True, slots=True)
class PictureJob:
    """The picture of one pair.

    Attributes:
        workspace: The store.
        path: File to write.
        pair: The pair.
        label_key: Key of its label, None without one.
        change_key: Key of its change.
        dates: Of both images.
        threshold: Of the change.
        counts: Of the ensemble, None without a label.
    """

    workspace: Workspace
    path: Location
    pair: StoredPair
    label_key: str | None
    change_key: str
    dates: tuple[str, str] | None
    threshold: float
    counts: Counts | None


def draw_picture(job: PictureJob) -> None:
    """Draw a pair's picture into its file, from every k-th pixel of what is stored."""
    pair = job.pair
    scene = open_scene(job.workspace, pair, job.change_key, job.label_key)
    shown = {name: decimate(read, pair.grid.shape) for name, read in scene.items()}
    rasters = PairRasters(
        pair_id=pair.pair_id,
        **shown,
        dates=job.dates,
        threshold=job.threshold,
        iou=job.counts.iou if job.counts else None,
        f1=job.counts.f1 if job.counts else None,
        grid=pair.grid,
    )
    job.path.write(pair_png(rasters))
