"""Which pixels of a raster were not observed: its nodata, alpha bands and masks."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.formats.damage import mask_directory, verify_block_table, verify_mask
from cdpipe.formats.gate import MAX_BLOCK_BYTES, raster_errors, read_values
from cdpipe.formats.gdal import gdal_name, open_directory, open_gdal, read_pixels
from cdpipe.formats.masks import FileMask
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import Location

ROUNDING = 2 * float(np.finfo(np.float32).eps)  # |a - b| < this * |a + b|
ROUNDED = 1e-30  # floats nearer to 0 have fewer digits; only the value itself is meant


@contextmanager
def open_mask(dataset: Any, path: Location, mask: FileMask) -> Iterator[Callable[[Window], NDArray[np.bool_]]]:
    """Open what says which pixels of a raster were not observed.

    Args:
        dataset: The open raster.
        path: Its file.
        mask: What counts of what it has.

    Yields:
        A function that reads a window: (height, width), True where observed. It raises an :class:`InputError` where
        the mask is damaged.
    """
    bands = [1] if mask.shared or mask.combined else [*mask.single]
    with ExitStack() as stack:
        stored = _open_stored(dataset, path, stack) if mask.shared or mask.single else None

        def read(window: Window) -> NDArray[np.bool_]:
            observed = np.ones(window.shape, np.bool_)
            if mask.alpha:
                observed &= opaque(read_values(dataset, path, mask.alpha, window))
            if bands:
                with raster_errors(path):
                    observed &= opaque(read_pixels(dataset, path, bands, window, masks=True))
                    if stored is not None:
                        verify_mask(*stored, window)
            return observed

        yield read


def _open_stored(dataset: Any, path: Location, stack: ExitStack) -> tuple[Any, Location] | None:
    """A TIFF's mask as a raster of its own, and the file that it lies in; None where it has none.

    None in object storage, too: opening a directory there holds all threads of Python while requests are made.
    """
    if path.far:
        return None
    with raster_errors(path):
        directory, beside = mask_directory(dataset, path), path.with_name(f"{path.name}.msk")
        if directory is not None:
            file, mask = path, stack.enter_context(open_directory(path, directory))
        elif str(gdal_name(beside)) in dataset.files:
            file, mask = beside, stack.enter_context(open_gdal(beside, "GTiff"))
        else:
            return None
        size = math.prod(mask.block_shapes[0])
        if mask.shape != dataset.shape or mask.count not in (1, dataset.count) or size > MAX_BLOCK_BYTES:
            raise InputError(
                f"{file}: the mask has {mask.count} band(s) of {mask.width} x {mask.height} px in blocks of "
                f"{size / 2**20:.0f} MiB; expected {dataset.width} x {dataset.height} px and blocks of at "
                f"most {MAX_BLOCK_BYTES // 2**20} MiB"
            )
        verify_block_table(mask, file)
    return mask, file


def opaque(alpha: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all of some alpha bands, (band, height, width), are above 0: (height, width)."""
    return np.asarray((alpha > 0).all(0))


def has_data(values: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Where no band has its nodata value, and all are finite.

    Floats that differ from it as little as GDAL takes for rounding (``ARE_REAL_EQUAL``: by some 5e-7 of it) have it:
    tags are written as text, often with fewer digits, and by programs that compute with others.

    Args:
        values: (band, height, width).
        nodata: The value of each band that means no data, or None.
    """
    present = np.ones(values.shape[1:], np.bool_)
    floating = values.dtype.kind == "f"
    for band, missing in zip(values, nodata, strict=True):
        if floating:
            present &= np.isfinite(band)
        if missing is None or not (floating or float(missing).is_integer()):
            continue
        with np.errstate(over="ignore"):  # a tag of -1.8e308 on 32-bit values
            if floating and ROUNDED < abs(missing) < np.inf:
                wide = (1 + ROUNDING) / (1 - ROUNDING)
                low, high = sorted((missing / wide, missing * wide))
                present &= (band <= low) | (band >= high)
            else:
                present &= band != _in_type(missing, band.dtype)
    return present


def _in_type(value: float, dtype: np.dtype[Any]) -> Any:
    """A nodata value as pixels have it; the highest of 64 bits, which a float rounds up, is meant as such."""
    if dtype.kind == "f":
        return dtype.type(value)
    highest = int(np.iinfo(dtype).max)
    return highest if value == float(highest) else int(value)


def can_hold(dtype: str, value: float) -> bool:
    """Whether pixels of a type can have a value; NaN counts as one that floats have."""
    if np.dtype(dtype).kind == "f":
        return not abs(value) > float(np.finfo(dtype).max) or np.isinf(value)
    return float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
