"""Brings rasters onto a pair's grid, in fixed tiles: no pixel depends on the window that was asked for."""

import math
from collections.abc import Callable
from itertools import batched
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from cdpipe.values.errors import InputError
from cdpipe.values.grid import Grid, Window
from cdpipe.values.windows import tiles_in

# Side of the tiles in pixels. GDAL follows a curved transform to 0.125 px within a tile only; the curve of a
# map projection shrinks with the square of the side, so that here it is followed to 0.01 px, at no extra cost.
WARP_TILE = 128
NODES = 9  # points along a tile's side at which its place in the source is computed
MAX_SOURCE_PIXELS = 2**24  # of a tile's window in the source: 32 source pixels a pixel, each way

Reader = Callable[[Window], tuple[NDArray[Any], NDArray[np.bool_]]]
