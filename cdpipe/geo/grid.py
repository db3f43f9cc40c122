"""Where pixels are: a scene's grid, windows of pixels on it, and the keys of its blocks."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Transform = tuple[float, float, float, float, float, float]
Floats = NDArray[np.float64]
Coordinate = TypeVar("Coordinate", float, Floats)

ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PIXEL_TRANSFORM: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ABSURD = 1e12  # no place is as many units away, no pixel as large, or as small as one by it


def is_possible(place: Transform) -> bool:
    """Whether a transform can be one of a map: finite, invertible, none of its numbers absurd."""
    a, b, _, d, e, _ = place
    if not all(map(math.isfinite, place)) or max(map(abs, place)) > ABSURD:
        return False
    sides = math.hypot(a, d), math.hypot(b, e)
    return min(sides) > 1 / ABSURD and abs(a * e - b * d) > 1e-9 * sides[0] * sides[1]


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixel grid of a scene.

    Attributes:
        height: Rows.
        width: Columns.
        transform: Affine coefficients ``(a, b, c, d, e, f)``: ``x = a*col + b*row + c``,
            ``y = d*col + e*row + f`` for pixel corners, in units of the CRS.
        crs: WKT of the coordinate reference system. None without: then a transform other than a pixel's own is that
            of a plane that nobody has named, which both dates of a pair have in common.
    """

    height: int
    width: int
    transform: Transform = PIXEL_TRANSFORM
    crs: str | None = None

    def __post_init__(self) -> None:
        """Refuse empty and singular grids."""
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a grid needs at least one pixel, got {self.height} rows x {self.width} columns")
        a, b, _, d, e, _ = self.transform
        if a * e == b * d:
            raise ValueError(f"a grid needs an invertible transform, got {self.transform}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def placed(self) -> bool:
        """Whether it lies somewhere: in a CRS, or in a plane without a name; else pixels are all that it has."""
        return self.crs is not None or self.transform != PIXEL_TRANSFORM

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Length of a pixel's side along columns and along rows, in units of the CRS."""
        a, b, _, d, e, _ = self.transform
        return (a * a + d * d) ** 0.5, (b * b + e * e) ** 0.5

    def xy(self, row: Coordinate, col: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Coordinates of pixel positions, one or an array of them.

        Args:
            row: In pixels; ``0, 0`` is the upper left corner of the first pixel.
            col: Likewise, of the same shape.

        Returns:
            x and y in units of the CRS, each of that shape.
        """
        a, b, c, d, e, f = self.transform
        return a * col + b * row + c, d * col + e * row + f

    def row_col(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Pixel positions of coordinates, one or an array of them: the inverse of :meth:`xy`."""
        a, b, c, d, e, f = self.transform
        determinant = a * e - b * d
        dx, dy = x - c, y - f
        return (a * dy - d * dx) / determinant, (e * dx - b * dy) / determinant

    def outline(self, points: int) -> tuple[Floats, Floats]:
        """Points around the grid, from its first corner down, right, up and back; corners once.

        Args:
            points: How many lie on each side, both of its corners among them.

        Returns:
            Rows and columns in pixels, each (4 * (points - 1),) float64.
        """
        along = np.linspace(0, 1, points)[:-1]
        first, last = np.zeros_like(along), np.ones_like(along)
        rows = np.concatenate([along, last, 1 - along, first]) * self.height
        return rows, np.concatenate([first, along, last, 1 - along]) * self.width

    def nodes(self, points: int) -> tuple[Floats, Floats]:
        """Points all over the grid, its edges included: rows and columns in pixels, each (points, points) float64."""
        rows, cols = np.meshgrid(*(np.linspace(0, length, points) for length in self.shape), indexing="ij")
        return rows, cols

    def middles(self, parts: int) -> tuple[Floats, Floats]:
        """Middles of equal parts of the grid: rows and columns in pixels, each (parts, parts) float64."""
        rows, cols = np.meshgrid(*((np.arange(parts) + 0.5) / parts * length for length in self.shape), indexing="ij")
        return rows, cols

    def crop(self, window: "Window") -> "Grid":
        """The grid of a window: same CRS and pixel size, its own origin and size."""
        a, b, _, d, e, _ = self.transform
        x, y = self.xy(window.row, window.col)
        return Grid(window.height, window.width, (a, b, x, d, e, y), self.crs)

    def moved(self, rows: float, cols: float) -> "Grid":
        """The grid with its origin so many of its rows further down and columns further right."""
        a, b, _, d, e, _ = self.transform
        x, y = self.xy(rows, cols)
        return Grid(self.height, self.width, (a, b, x, d, e, y), self.crs)

    def same_pixels(self, other: "Grid", tolerance_px: float = 0.01) -> bool:
        """Whether both grids have the same pixels: equal size and CRS, corners within a tolerance."""
        if self.shape != other.shape or self.crs != other.crs:
            return False
        corners = [(0, 0), (0, self.width), (self.height, 0), (self.height, self.width)]
        return all(
            abs(row - r) <= tolerance_px and abs(col - c) <= tolerance_px
            for r, c in corners
            for row, col in [self.row_col(*other.xy(r, c))]
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back unchanged."""
        return {
            "height": self.height,
            "width": self.width,
            "transform": list(self.transform),
            "crs": self.crs,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Grid":
        """Read what :meth:`to_json` wrote."""
        a, b, c, d, e, f = (float(number) for number in value["transform"])
        return Grid(int(value["height"]), int(value["width"]), (a, b, c, d, e, f), value["crs"])


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels: ``row, col`` of its upper left pixel, ``height, width`` in pixels."""

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse empty windows and windows that start outside a scene."""
        if self.row < 0 or self.col < 0 or self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs row, col >= 0 and height, width >= 1, got {self}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def stop_row(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into the scene's arrays."""
        return slice(self.row, self.stop_row), slice(self.col, self.stop_col)

    def intersect(self, other: "Window") -> "Window | None":
        """The pixels that both windows hold, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.stop_row, other.stop_row) - row
        width = min(self.stop_col, other.stop_col) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def slices_in(self, outer: "Window") -> tuple[slice, slice]:
        """Slices of this window in an array that holds ``outer``.

        Raises:
            ValueError: If this window is not inside ``outer``.
        """
        if self.intersect(outer) != self:
            raise ValueError(f"{self} is not inside {outer}")
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, slots=True, order=True)
class BlockKey:
    """Names a block: its pair and its position in blocks."""

    pair_id: str
    block_row: int
    block_col: int

    def __post_init__(self) -> None:
        """Refuse ids that could not be a folder's name and negative positions."""
        if not ID_PATTERN.fullmatch(self.pair_id):
            raise ValueError(f"a pair id must match {ID_PATTERN.pattern}, got {self.pair_id!r}")
        if self.block_row < 0 or self.block_col < 0:
            raise ValueError(f"a block's position is >= 0, got {self}")
