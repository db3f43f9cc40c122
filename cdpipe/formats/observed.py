"""Reads which pixels of a raster were not observed, beside nodata: its alpha bands and masks."""

from collections.abc import Callable, Iterator
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
