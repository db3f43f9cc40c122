"""GeoTIFFs that people open: cloud optimised, and read back before they get their name.

GDAL's word is not taken for success: on a full disk an uncompressed file is written without an error and
reads as zeros. So every pixel of the finished file is compared with what was to be written. One thread and
a fixed order of blocks make the bytes depend on the pixels alone.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL's copy raises; not a RasterioError, and public nowhere
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cdpipe.errors import IntegrityError
from cdpipe.formats import palette
from cdpipe.formats.gdal import gdal_window, georeference
from cdpipe.formats.palette import Rgba
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED, UNCHANGED
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.location import Location

Blocks = Callable[[Window], NDArray[Any]]

# Pairs that lie nowhere are no mistake. For the whole process: what ends with a block, other threads would end.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

STEP = 2048  # side of the windows in which pixels are asked for, in pixels: a stored block's by default

# A TIFF's palette has no alpha: GDAL makes the nodata entry transparent and every other one opaque.
CHANGE_COLORS: Mapping[int, Rgba] = MappingProxyType(
    {
        UNCHANGED: palette.opaque(palette.UNCHANGED),
        CHANGED: palette.opaque(palette.CHANGED),
        NOT_OBSERVED: palette.TRANSPARENT,
    }
)

_GDAL = {
    "GDAL_CACHEMAX": 64 << 20,  # bytes
    "GDAL_NUM_THREADS": "1",  # with more, a full disk goes unreported
    "GDAL_PAM_ENABLED": "NO",  # or what the GeoTIFF cannot hold would land in a second file
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}
_COG = {"COMPRESS": "DEFLATE", "BLOCKSIZE": TILE, "BIGTIFF": "IF_SAFER", "NUM_THREADS": "1"}
# Classes: nearest keeps the share of changed pixels, where mode would make small objects vanish.
# Probabilities hardly compress (their low bits are noise), so more than level 1 only costs time.
_BY_DTYPE: Mapping[str, Mapping[str, Any]] = {
    "uint8": {"LEVEL": 6, "PREDICTOR": "NO", "OVERVIEW_RESAMPLING": "NEAREST"},
    "float32": {"LEVEL": 1, "PREDICTOR": "YES", "OVERVIEW_RESAMPLING": "AVERAGE"},
}


@dataclass(frozen=True, slots=True)
class Band:
    """What the one band of a GeoTIFF holds.

    Attributes:
        dtype: Pixel type.
        nodata: Value of pixels not observed (255 for classes, NaN for probabilities).
        description: Name of the band, shown by GIS programs.
        colormap: Red, green, blue, alpha (0 to 255) per value, for uint8.
        tags: Metadata of the file, such as model and threshold.
    """

    dtype: Literal["uint8", "float32"]
    nodata: float
    description: str
    colormap: Mapping[int, Rgba] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what a GeoTIFF cannot hold."""
        if self.dtype == "uint8" and self.nodata not in range(256):
            raise ValueError(f"nodata of uint8 pixels must be 0 to 255, got {self.nodata}")
        if self.dtype != "uint8" and self.colormap is not None:
            raise ValueError(f"only uint8 pixels can have a colour table, got {self.dtype}")


def write_cog(path: Location, blocks: Blocks, grid: Grid, band: Band) -> str:
    """Write one band as a cloud-optimised GeoTIFF (512-pixel tiles, DEFLATE, overviews).

    The file appears under its name at once and complete, or not at all; what is temporary stays in
    ``<path>.<pid>.partial/`` and leaves with it. The same pixels give the same bytes. Memory does not grow
    with the scene; the disk needs room for its uncompressed pixels beside the result.

    Args:
        path: The file to publish; replaced if it exists.
        blocks: Returns the ``(height, width)`` pixels of any window in the band's dtype. Called twice for
            every pixel: to write, and to compare.
        grid: Where the pixels are. Without a CRS its transform alone is written, if it has one.
        band: What the pixels are.

    Returns:
        The sha256 of the published file, in hex.

    Raises:
        IntegrityError: If the file could not be written or does not read back as what ``blocks`` returns.
    """
    folder = path.temporary()
    shutil.rmtree(folder, ignore_errors=True)
    plain, cog = folder / "plain.tif", folder / "cog.tif"
    try:
        with _gdal(path):
            folder.mkdir(parents=True)
            _write_plain(plain, blocks, grid, band)
            overviews = "AUTO" if _has_overviews(grid) else "NONE"
            options = {**_COG, **_BY_DTYPE[band.dtype], "OVERVIEWS": overviews}
            rasterio.shutil.copy(str(plain), str(cog), driver="COG", **options)
            plain.unlink()
            crash_point("raster-unchecked")
            _compare(cog, path, blocks, grid)
            return path.publish(cog, "raster-unnamed")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _gdal(path: Location) -> Iterator[None]:
    """GDAL with bounded memory and one thread; its errors become ours and name the path."""
    try:
        with rasterio.Env(**_GDAL):
            yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise IntegrityError(
            f"{path} could not be written: {error.__cause__ or error}. Nothing was published. {path.describe_free()}"
        ) from error


def _pixels(blocks: Blocks, window: Window, dtype: str) -> NDArray[Any]:
    """The pixels of a window, refused if they are not what was promised."""
    pixels = blocks(window)
    if pixels.shape != window.shape or pixels.dtype != dtype:
        raise ValueError(f"expected {window.shape} {dtype} pixels for {window}, got {pixels.shape} {pixels.dtype}")
    return pixels


def _write_plain(path: Path, blocks: Blocks, grid: Grid, band: Band) -> None:
    """Write the uncompressed tiled GeoTIFF that the COG driver copies: it cannot be written to directly."""
    profile = {"height": grid.height, "width": grid.width, "dtype": band.dtype, "nodata": band.nodata}
    tiling = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "BIGTIFF": "IF_SAFER"}
    with rasterio.open(path, "w", driver="GTiff", count=1, **profile, **tiling, **georeference(grid)) as dataset:
        dataset.set_band_description(1, band.description)
        dataset.update_tags(**band.tags)
        if band.colormap is not None:
            dataset.write_colormap(1, dict(band.colormap))
        for window in tiles_in(Window(0, 0, *grid.shape), STEP):
            dataset.write(_pixels(blocks, window, band.dtype), 1, window=gdal_window(window))


def _compare(path: Path, target: Location, blocks: Blocks, grid: Grid) -> None:
    """Refuse a file whose pixels or place differ from what was to be written."""
    with rasterio.open(path, driver="GTiff") as dataset:
        place = Grid(dataset.height, dataset.width, dataset.transform[:6], grid.crs)
        if (dataset.crs is None) != (grid.crs is None) or not place.same_pixels(grid):
            raise IntegrityError(
                f"{target}: a GeoTIFF cannot hold this pair's place: expected {grid}, read back transform "
                f"{place.transform} and CRS {dataset.crs}. Name a grid with another CRS in the catalog"
            )
        for window in tiles_in(Window(0, 0, *grid.shape), STEP):
            actual = dataset.read(1, window=gdal_window(window))
            wrong = ~_same_bits(actual, _pixels(blocks, window, dataset.dtypes[0]))
            if wrong.any():
                raise IntegrityError(
                    f"{target}: {wrong.sum()} pixels of {window} read back other than they were written. "
                    f"Nothing was published. {target.describe_free()}"
                )
        levels = len(dataset.overviews(1))
    if (levels > 0) != _has_overviews(grid):
        raise IntegrityError(f"{target}: {levels} overviews were written for {grid.shape} pixels")
    for level in range(levels):
        _decode(path, level)


def _has_overviews(grid: Grid) -> bool:
    """Whether a scene has smaller versions: GDAL takes their scale from the widths, and a column has one."""
    return max(grid.shape) > TILE and grid.width > 1


def _decode(path: Path, level: int) -> None:
    """Read a whole overview: DEFLATE raises on what is damaged or missing."""
    with rasterio.open(path, driver="GTiff", overview_level=level) as overview:
        for window in tiles_in(Window(0, 0, *overview.shape), STEP):
            overview.read(1, window=gdal_window(window))


def _same_bits(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    """Where two arrays of one dtype hold the same bits; NaN equals NaN, but 0.0 is not -0.0."""
    integers = np.dtype(f"u{actual.itemsize}")
    same: NDArray[np.bool_] = actual.view(integers) == np.ascontiguousarray(expected).view(integers)
    return same | (np.isnan(actual) & np.isnan(expected)) if actual.dtype.kind == "f" else same
