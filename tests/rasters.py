"""Small rasters, sources and configurations for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS

from cdpipe.config.load import parse_config
from cdpipe.config.schema import Config
from cdpipe.geo.grid import Grid, Transform
from cdpipe.pairs.catalog import Source
from cdpipe.workspace.location import here

UTM33 = CRS.from_epsg(32633).to_wkt()
GEOGRAPHIC = CRS.from_epsg(4326).to_wkt()
NORTH_UP: Transform = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)


def utm_grid(height: int, width: int, transform: Transform = NORTH_UP) -> Grid:
    """A grid in UTM zone 33 N."""
    return Grid(height, width, transform, UTM33)


def write_raster(path: Path, values: ArrayLike, grid: Grid | None = None, **profile: Any) -> Path:
    """Write (band, row, column) or (row, column) values as a GeoTIFF, without georeference if grid is None."""
    pixels: NDArray[Any] = np.atleast_3d(np.asarray(values).T).T
    count, height, width = pixels.shape
    place = {} if grid is None else {"transform": Affine(*grid.transform), "crs": grid.crs}
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **({"driver": "GTiff"} | shape | place | profile)) as dataset:
        dataset.write(pixels)
    return path


def write_mask(path: Path, mask: NDArray[np.bool_], *, inside: bool = True) -> Path:
    """Give a GeoTIFF a mask, True where observed: inside, or in a file beside it, whose name ends in .msk."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    return path if inside else path.with_name(f"{path.name}.msk")


def make_config(folder: Path, **sections: Any) -> Config:
    """A configuration with a sensor ``s`` of three bands, and what else is given."""
    values = {"name": "t", "catalog": "pairs.csv", "workspace": "work", "sensors": {"s": RGB_SENSOR}}
    return parse_config(values | sections, folder)


RGB_SENSOR = {"bands": {"red": 1, "green": 2, "blue": 3}}


def source_of(path: Path, config: Config, bands: tuple[int, ...]) -> Source:
    """A date whose needed bands are the given ones."""
    name, sensor = next(iter(config.sensors.items()))
    return Source(here(path), name, sensor, bands)
