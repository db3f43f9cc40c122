"""Which pixels of a raster were not observed: its nodata, alpha bands and masks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.formats.gate import raster_errors, read_values
from cdpipe.formats.gdal import read_pixels
from cdpipe.formats.masks import FileMask
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import Location


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

    def read(window: Window) -> NDArray[np.bool_]:
        observed = np.ones(window.shape, np.bool_)
        if mask.alpha:
            observed &= opaque(read_values(dataset, path, mask.alpha, window))
        if bands:
            with raster_errors(path):
                observed &= opaque(read_pixels(dataset, path, bands, window, masks=True))
        return observed

    yield read


def opaque(alpha: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all of some alpha bands, (band, height, width), are above 0: (height, width)."""
    return np.asarray((alpha > 0).all(0))


def has_data(values: NDArray[Any], nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Where no band has its nodata value, and all are finite.

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
            present &= band != (band.dtype.type(missing) if floating else int(missing))
    return present
