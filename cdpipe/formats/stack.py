"""Stacks the bands of one date, published as a file each, into one GeoTIFF."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from cdpipe.config.schema import Input
from cdpipe.errors import InputError, IntegrityError
from cdpipe.formats.gate import RasterInfo, describe_dataset, open_raster, raster_errors, read_values
from cdpipe.formats.gdal import gdal_window, georeference
from cdpipe.formats.masks import describe_mask
from cdpipe.formats.observed import open_mask
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.workspace.disk import sync_folder
from cdpipe.workspace.location import Location, here

ReadMask = Callable[[Window], NDArray[np.bool_]]
Opened = tuple[list[tuple[Location, Any]], list[ReadMask]]  # sources, and the masks of those that have one

STEP = 4 * TILE  # side of the windows that are copied, in pixels


def stack_bands(bands: Mapping[str, Path], target: Path, settings: Input) -> RasterInfo:
    """Write the first band of each file as a band of one tiled GeoTIFF, window by window.

    Where files have alpha bands or masks of their own, it gets a mask: a pixel counts that is observed in all of them.
    The file is read back and compared before it gets its name; one that has the name is replaced.

    Args:
        bands: Files of one size, place and type by the name that their band gets, in the order of bands.
        target: The file to write.
        settings: Which drivers may open the files.

    Returns:
        What the first file says of itself.

    Raises:
        InputError: If a file cannot be read, or the files do not lie on each other.
        IntegrityError: If the result does not read back as it was written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with ExitStack() as stack:
            sources = [(path, stack.enter_context(open_raster(path, settings))) for path in map(here, bands.values())]
            info, masks = _common(sources, settings), _open_masks(sources, stack)
            with raster_errors(here(target)), rasterio.Env(GDAL_NUM_THREADS="1", GDAL_TIFF_INTERNAL_MASK="YES"):
                _write(partial, (sources, masks), info, list(bands))
                _compare(partial, target, (sources, masks), info)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)
    return info


def _common(sources: list[tuple[Location, Any]], settings: Input) -> RasterInfo:
    """What the first file says of itself, if the others say the same."""
    infos = [describe_dataset(path, dataset, settings) for path, dataset in sources]
    first = infos[0]
    for info in infos[1:]:
        if (info.grid, info.dtype, info.nodata) != (first.grid, first.dtype, first.nodata):
            raise InputError(
                f"{info.path}: {_place(info)}; expected it to lie on {first.path.name}, which is {_place(first)}"
            )
    return first


def _place(info: RasterInfo) -> str:
    grid = info.grid
    return f"{grid.width} x {grid.height} px {info.dtype}, nodata {info.nodata}, transform {grid.transform}"


def _read(sources: list[tuple[Location, Any]], window: Window) -> Any:
    return np.concatenate([read_values(dataset, path, [1], window) for path, dataset in sources])


def _open_masks(sources: list[tuple[Location, Any]], stack: ExitStack) -> list[ReadMask]:
    found = [(path, dataset, describe_mask(dataset).without([1])) for path, dataset in sources]
    return [stack.enter_context(open_mask(dataset, path, mask)) for path, dataset, mask in found if mask]


def _observed(masks: list[ReadMask], window: Window) -> NDArray[np.bool_]:
    return np.asarray(np.all([read(window) for read in masks], axis=0))


def _write(path: Path, opened: Opened, info: RasterInfo, names: list[str]) -> None:
    grid = info.grid
    shape = {"count": len(names), "height": grid.height, "width": grid.width, "dtype": info.dtype}
    layout = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    profile = {**shape, **georeference(grid), **layout, "nodata": info.nodata}
    with rasterio.open(path, "w", driver="GTiff", **profile) as dataset:
        dataset.descriptions = names
        for window in tiles_in(Window(0, 0, *grid.shape), STEP):
            dataset.write(_read(opened[0], window), window=gdal_window(window))
            if opened[1]:
                dataset.write_mask(_observed(opened[1], window), window=gdal_window(window))


def _compare(path: Path, target: Path, opened: Opened, info: RasterInfo) -> None:
    with rasterio.open(path, driver="GTiff") as dataset:
        for window in tiles_in(Window(0, 0, *info.grid.shape), STEP):
            part = gdal_window(window)
            same = dataset.read(window=part).tobytes() == _read(opened[0], window).tobytes()
            if opened[1]:
                same &= np.array_equal(dataset.read_masks(1, window=part) > 0, _observed(opened[1], window))
            if not same:
                raise IntegrityError(f"{target}: {window} read back other than it was written; is the disk full?")
