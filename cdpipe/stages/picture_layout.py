"""Where the panels, captions and legend of a pair's picture go, and the sheet that takes them."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cdpipe.arrays.rendering import Image, Rgb

# All lengths are in pixels of the picture.
MAX_WIDTH, MAX_HEIGHT = 1600, 1200
MARGIN, GAP, HEADER, CAPTION = 24, 20, 56, 30
LEGEND_WIDTH = 230
MIN_CELL_WIDTH = 200  # or captions of narrow panels would run into each other

TEXT, TITLE, SMALL = 15, 24, 13
DPI = 100
INK, FAINT = (31, 35, 40), (107, 114, 128)


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
        shape: Height and width of the layers.
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
        self.pixels = np.full((*size, 3), 255, np.uint8)
        height, width = size
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))

    def paint(self, corner: tuple[int, int], image: Image) -> None:
        """Paint an image with its upper left pixel at a place."""
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
        height, width = self.pixels.shape[:2]
        self.axes.imshow(self.pixels, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
        self.axes.set_axis_off()
        stream = io.BytesIO()
        # Not savefig, which would obey the user's style.
        FigureCanvasAgg(self.figure).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
        return stream.getvalue()
