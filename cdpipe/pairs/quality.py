"""Quality rasters: cloud masks, scene classifications and quality bits that say which pixels to use."""

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Input, Sensor
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_dataset, grid_of, open_raster, read_values
from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.grid import Grid, Window
from cdpipe.workspace.location import Location


def read_usable(
    path: Location, sensor: Sensor, own_grid: Grid, where: tuple[Grid, Window], settings: Input
) -> NDArray[np.bool_]:
    """Where a quality raster says that a pixel may be used; nowhere outside of it.

    Args:
        path: The quality raster, by its own georeference or else of its date's size.
        sensor: The date's sensor, which says what the values mean.
        own_grid: The grid on which a raster without georeference lies.
        where: The pair's grid, and pixels of it.
        settings: Which files may be opened.

    Returns:
        (height, width), True where usable; the same for a pixel whatever the window.

    Raises:
        InputError: If the file is missing, damaged or does not fit.
    """
    with open_raster(path, settings) as dataset:
        info = describe_dataset(path, dataset)
        if info.count != 1:
            raise InputError(f"{path}: expected one band in a valid raster, got {info.count}")

        def read(part: Window) -> Pixels:
            values = read_values(dataset, path, [1], part)
            return (~np.isin(values, sensor.unusable)).astype(np.uint8), np.isfinite(values[0])

        raster = WarpSource(str(path), grid_of(info, own_grid, "its date's raster"), 1, np.uint8, read)
        usable, _ = read_warped(raster, *where, "nearest")  # 0 where it has no data
    return np.asarray(usable[0] == 1)
