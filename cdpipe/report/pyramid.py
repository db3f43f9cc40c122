"""A scene as small pictures that a page loads when somebody looks there: halved level by level, from every pixel on.

A page's own pictures show the whole scene in at most 1,280 cells a side. What is finer lies in tiles of 512 x 512
cells, whose sides are 1, 2, 4, ... pixels: all of a level of at most 4,096 cells a side, and of finer ones what lies
around change and labelled change. So a page shows every change in full resolution, however large the scene is.
"""

import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.geo.grid import Window
from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED
from cdpipe.report import drawing
from cdpipe.report.drawing import Image, Limits
from cdpipe.report.scene import Read
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, DATES
from cdpipe.workspace.location import Location

TILE = 512  # side in cells
WHOLE = 4096  # cells a side up to which a level has all of its tiles
MARGIN = 128  # pixels around change that are shown in full
QUALITY = 75
FOLDER = "tiles"
BITS: Mapping[str, np.uint8] = dict(zip(DATES, (BEFORE_BIT, AFTER_BIT), strict=True))

Photo = tuple[Image, NDArray[np.bool_]]  # colours, and where there is no data
Wanted = Callable[[Window], bool]


@dataclass(slots=True)
class Pyramid:
    """Tiles of a scene on their way to their files.

    Attributes:
        folder: Where they go, as ``<layer>/<cell>/<row>-<col>.jpg`` or ``.webp``.
        shape: Rows and columns of the scene.
        scene: How ``before``, ``after``, ``valid``, ``change``, ``probability`` and, where there is one, ``label`` are
            read.
        limits: How bright each date is shown.
        wanted: Whether there is change, labelled or detected, in a window.
        files: Bytes of every file, by its name.
    """

    folder: Location
    shape: tuple[int, int]
    scene: Mapping[str, Read]
    limits: tuple[Limits, Limits]
    wanted: Wanted
    files: dict[str, int] = field(default_factory=dict)


def list_levels(cell: int) -> list[int]:
    """Sides of cells in pixels, 1, 2, 4, ..., that are finer than a page's own pictures, whose cells have this side."""
    levels = [1]
    while 2 * levels[-1] * 1.4 < cell:  # hardly finer ones would show nothing new
        levels.append(2 * levels[-1])
    return levels if cell > 1 else []


def near_change(cells: NDArray[np.bool_], cell: int) -> Wanted:
    """Whether a window, or what lies within :data:`MARGIN` of it, has a cell of change.

    Args:
        cells: (rows, cols) whether there is any change in a cell.
        cell: Its side in pixels.
    """

    def wanted(window: Window) -> bool:
        top, left = ((start - MARGIN) // cell for start in (window.row, window.col))
        bottom, right = (window.row + window.height + MARGIN) // cell, (window.col + window.width + MARGIN) // cell
        return bool(cells[max(0, top) : bottom + 1, max(0, left) : right + 1].any())

    return wanted


def write_pyramid(pyramid: Pyramid, cell: int, threads: int) -> list[dict[str, Any]]:
    """Write a scene's tiles, each pixel read once; memory does not grow with the scene.

    Args:
        pyramid: The scene and where to.
        cell: Side of the cells of the page's own pictures, in pixels.
        threads: How many share the work.

    Returns:
        Of each level, finest first, ``cell``, ``cols``, and ``has``: for each layer one hexadecimal digit for four
        tiles, row by row, saying which there are.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    levels = list_levels(cell)
    if levels:
        rows, cols = (range(0, length, TILE * levels[-1]) for length in pyramid.shape)

        def write(origin: tuple[int, int]) -> dict[str, int]:
            branch = replace(pyramid, files={})
            _write_branch(branch, levels[-1], *origin)
            return branch.files

        with ThreadPoolExecutor(threads, "cdpipe-tiles") as pool:
            for files in pool.map(write, itertools.product(rows, cols)):
                pyramid.files.update(files)
    return [_describe_level(pyramid, level) for level in levels]


def _describe_level(pyramid: Pyramid, cell: int) -> dict[str, Any]:
    rows, cols = (-(-length // (TILE * cell)) for length in pyramid.shape)
    has: dict[str, str] = {}
    for layer in (*DATES, *_layers(pyramid.scene)):
        names = [_name(layer, cell, row, col) in pyramid.files for row in range(rows) for col in range(cols)]
        if any(names):
            has[layer] = np.packbits(names).tobytes().hex()
    return {"cell": cell, "cols": cols, "has": has}


def _name(layer: str, cell: int, row: int, col: int) -> str:
    return f"{FOLDER}/{layer}/{cell}/{row}-{col}{drawing.suffix_of(layer)}"


def _write_branch(pyramid: Pyramid, cell: int, row: int, col: int) -> dict[str, Photo] | None:
    """Write a tile of both dates and all finer ones beneath it; the tile's pictures, None where it is not in the scene.

    Args:
        pyramid: The scene.
        cell: Side of the tile's cells in pixels.
        row: The tile's first row in pixels.
        col: The tile's first column in pixels.
    """
    height, width = (min(TILE * cell, length - start) for length, start in zip(pyramid.shape, (row, col), strict=True))
    if height < 1 or width < 1:
        return None
    window = Window(row, col, height, width)
    wanted = max(pyramid.shape) / cell <= WHOLE or pyramid.wanted(window)
    if cell == 1:
        tiles = _read_photos(pyramid, window)
        if wanted:
            _write_layers(pyramid, window)
    else:
        half = TILE * cell // 2
        corners = [
            [_write_branch(pyramid, cell // 2, row + down, col + right) for right in (0, half)] for down in (0, half)
        ]
        tiles = {date: _join(corners, date) for date in DATES}
    if wanted:
        place = row // (TILE * cell), col // (TILE * cell)
        for date, (image, missing) in tiles.items():
            _write(
                pyramid,
                _name(date, cell, *place),
                partial(drawing.write_photo, quality=QUALITY),
                drawing.hatch(image, missing),
            )
    return tiles


def _write(pyramid: Pyramid, name: str, write: Callable[[Location, NDArray[np.uint8]], int], image: Image) -> None:
    pyramid.files[name] = write(pyramid.folder / name, image)


def _read_photos(pyramid: Pyramid, window: Window) -> dict[str, Photo]:
    valid = pyramid.scene["valid"](window)
    photos = {}
    for date, limits in zip(DATES, pyramid.limits, strict=True):
        missing = valid & BITS[date] == 0
        image = drawing.stretch_between(pyramid.scene[date](window), limits)
        photos[date] = drawing.paint_classes(image, missing.astype(np.uint8), {1: palette.NO_DATA}), missing
    return photos


def _join(corners: list[list[dict[str, Photo] | None]], date: str) -> Photo:
    """Four tiles as one of half the resolution; there is data in it where half of it is data."""
    there = [[tile[date] for tile in line if tile is not None] for line in corners]
    image = np.vstack([np.hstack([photo[0] for photo in line]) for line in there if line])
    missing = np.vstack([np.hstack([photo[1] for photo in line]) for line in there if line])
    return _halve(image), _halve(missing.astype(np.uint8) * 255) >= 128


def _halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    frame = ((0, height % 2), (0, width % 2), *[(0, 0)] * (pixels.ndim - 2))
    even = np.pad(pixels, frame, "edge")
    return np.asarray(cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA))


def _layers(scene: Mapping[str, Read]) -> tuple[str, ...]:
    return ("change", "probability", *(("label", "outcomes") if "label" in scene else ()))


def _write_layers(pyramid: Pyramid, window: Window) -> None:
    """What lies over the dates, pixel by pixel; classes only where there are any."""
    change, probability = pyramid.scene["change"](window), pyramid.scene["probability"](window)
    place = window.row // TILE, window.col // TILE
    colors = drawing.hatch(drawing.probability_colors(probability), change == NOT_OBSERVED)
    _write(pyramid, _name("probability", 1, *place), partial(drawing.write_photo, quality=QUALITY), colors)
    classes = {"change": ((change == CHANGED).astype(np.uint8), {CHANGED: palette.CHANGED})}
    if "label" in pyramid.scene:
        label = pyramid.scene["label"](window)
        classes["label"] = (label == CHANGED).astype(np.uint8), {CHANGED: palette.LABELLED}
        classes["outcomes"] = drawing.compare_with_label(change, label), dict(drawing.OUTCOME_COLORS)
    for layer, (numbers, shown) in classes.items():
        shares = {number: (numbers == number).astype(np.float32) for number in shown}
        if any(share.any() for share in shares.values()):
            _write(pyramid, _name(layer, 1, *place), drawing.write_overlay, drawing.lay_over(shares, shown))
