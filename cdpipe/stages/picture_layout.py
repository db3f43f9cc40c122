"""Where the panels, captions and legend of a pair's picture go."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

# All lengths are in pixels of the picture.
MAX_WIDTH, MAX_HEIGHT = 1600, 1200
MARGIN, GAP, HEADER, CAPTION = 24, 20, 56, 30
LEGEND_WIDTH = 230
MIN_CELL_WIDTH = 200  # or captions of narrow panels would run into each other


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
    return max(_candidates(shape, panels, legend_height), key=lambda layout: math.prod(layout.image))


def _candidates(shape: tuple[int, int], panels: int, legend_height: int) -> Iterator[Layout]:
    """The layout of every number of columns, best first where they are equal."""
    for cols in range(panels, 0, -1):
        rows = math.ceil(panels / cols)
        if rows * cols > panels:
            cell = _fit_image(shape, rows, cols, 0)
            if cell[0] + CAPTION >= legend_height and cell[1] >= LEGEND_WIDTH:
                yield _place(cell, panels, rows, cols, legend_height)
        yield _place(_fit_image(shape, rows, cols, LEGEND_WIDTH + GAP), panels, rows, cols, legend_height)


def _fit_image(shape: tuple[int, int], rows: int, cols: int, side: int) -> tuple[int, int]:
    """Largest size of an image when so many rows and columns, and what stands beside, must fit."""
    width = (MAX_WIDTH - 2 * MARGIN - side - GAP * (cols - 1)) / cols
    height = (MAX_HEIGHT - HEADER - MARGIN - GAP * (rows - 1)) / rows - CAPTION
    scale = min(height / shape[0], width / shape[1])
    return max(1, math.floor(shape[0] * scale)), max(1, math.floor(shape[1] * scale))


def _place(image: tuple[int, int], panels: int, rows: int, cols: int, legend_height: int) -> Layout:
    """Put panels into a table, row by row, and the legend into the first cell left over or beside it."""
    down, right = image[0] + CAPTION + GAP, max(image[1], MIN_CELL_WIDTH) + GAP
    cells = [(HEADER + CAPTION + down * row, MARGIN + right * col) for row in range(rows) for col in range(cols)]
    beside = (HEADER + CAPTION, MARGIN + right * cols)
    fits = len(cells) > panels and image[0] + CAPTION >= legend_height and image[1] >= LEGEND_WIDTH
    legend = cells[panels] if fits else beside
    width = MARGIN + (right * cols - GAP if fits else right * cols + LEGEND_WIDTH) + MARGIN
    bottom = max(HEADER + down * rows - GAP, legend[0] + legend_height - (CAPTION if fits else 0))
    return Layout((bottom + MARGIN, width), image, tuple(cells[:panels]), legend)
