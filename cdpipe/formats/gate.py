"""The gate that every raster of the user passes: what is opened, what it says of itself, its pixels.

Only files in the folders that the configuration allows are read, and no more of them than can be handled.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.damage import verify_block_table, verify_deflate, verify_png
from cdpipe.formats.gdal import error_text, gdal_options, open_gdal, read_pixels
from cdpipe.formats.masks import FileMask, describe_mask
from cdpipe.geo.crs import canonical_wkt
from cdpipe.geo.grid import PIXEL_TRANSFORM, Grid, Window, is_possible
from cdpipe.workspace.location import Location

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
NARROW = {"int64": "int32", "uint64": "uint32"}  # the types in which 64-bit integers are stored
MAX_SIDE = 1_000_000  # pixels; no scene is that large, but a file of a few bytes can claim it
MAX_BANDS = 1024  # several times the bands of a hyperspectral sensor
MAX_NAME = 100  # letters of a band's description
MAX_BLOCK_BYTES = 512 * 2**20  # one pixel costs a whole block; tiled files have blocks of a few MiB
# Deflate packs 1032 : 1 at best. A file that declares more is empty or a trap, harmless while small.
MAX_RATIO, HARMLESS_BYTES = 1032, 64 * 2**30

# What a missing georeference means is decided here, by the configuration, and told as an error.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


def require_file(path: Location, settings: Input, what: str) -> None:
    """A file that is there, and lies in one of ``settings.roots`` where there are any, links followed.

    Raises:
        InputError: If it is not so.
    """
    try:
        there, real = path.is_file(), path.resolve()
        str(path).encode()
    except OSError as error:
        if path.far:
            raise InputError(str(error)) from None
        raise _unusable(path, error) from None
    except (UnicodeError, ValueError, RuntimeError) as error:  # not UTF-8, NUL, links in a circle
        raise _unusable(path, error) from None
    if settings.roots and not any(real.is_relative_to(root) for root in settings.roots):
        roots = ", ".join(map(str, settings.roots))
        raise InputError(f"{path}: lies at {real}, outside of {roots} (input.roots)")
    if not there:
        raise InputError(f"{path}: expected {what}; there is no such file")


def _unusable(path: Location, error: Exception) -> InputError:
    return InputError(f"{str(path)!a}: expected the name of a file in UTF-8: {error}")


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What a raster says of itself.

    Attributes:
        path: The file.
        driver: GDAL's name of its format.
        grid: Its pixels; ``crs`` is None if it has no usable georeference.
        count: Number of bands.
        dtypes: Type of each band's values.
        nodata: The first band's tag.
        block: Rows and columns of the blocks it is stored in.
        mask: What it has, beside nodata, to say which pixels were not observed.
        has_palette: Whether its values are indices into a table of colours.
        descriptions: What the file calls its bands, in one line each; "" where it does not.
        colours: What it says that each band is to be shown as: red, green, blue, alpha, gray, undefined, ...
    """

    path: Location
    driver: str
    grid: Grid
    count: int
    dtypes: tuple[str, ...]
    nodata: float | None
    block: tuple[int, int]
    mask: FileMask
    has_palette: bool
    descriptions: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """Type of the first band's values."""
        return self.dtypes[0]

    def stored_dtype(self, bands: Sequence[int]) -> str:
        """The type in which values of some bands are stored: their own, or 32 bits where they have 64.

        Raises:
            InputError: If they do not have one type, or one that cdpipe cannot read.
        """
        dtype = _common_dtype(self.path, self.dtypes, bands)
        return NARROW.get(dtype, dtype)


@contextmanager
def raster_errors(path: Location) -> Iterator[None]:
    """Turn what rasterio and GDAL raise into an :class:`InputError` of one line."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError, UnicodeDecodeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # "See previous exception for details" helps nobody
            cause = cause.__cause__
        text = error_text(path, cause).removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
        raise InputError(f"{path}: not readable as a raster: {text}") from None


@contextmanager
def open_raster(path: Location, settings: Input) -> Iterator[Any]:
    """Open a raster for reading, in this thread only.

    Other formats than ``settings.drivers`` are refused, so that no XML file leads GDAL to other files
    or to the network; sidecar files are not read unless ``settings.sidecars`` says so.

    Yields:
        A ``rasterio.DatasetReader``. Nothing has been allocated for its pixels, and its size, bands,
        blocks and type are ones that cdpipe can handle.

    Raises:
        InputError: If there is no such file, or it is not a raster that cdpipe can handle.
    """
    require_file(path, settings, "a raster file")
    # a damaged JPEG is otherwise filled up with grey, and a warning that nobody sees
    with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="TRUE", **gdal_options(path, settings)) as gdal:
        unknown = sorted({*settings.drivers} - gdal.drivers().keys())
        if unknown:
            raise InputError(f"input.drivers: GDAL has no driver {', '.join(unknown)} here")
        with raster_errors(path):
            dataset = _open_first(path, settings.drivers)
        with dataset:
            with raster_errors(path):
                _check_limits(path, dataset)
                verify_png(dataset, path)
                verify_block_table(dataset, path)
            yield dataset


def describe_raster(path: Location, settings: Input) -> RasterInfo:
    """Open a raster to read what it says of itself; a missing georeference is no error here.

    Raises:
        InputError: As :func:`open_raster` and :func:`describe_dataset`.
    """
    with open_raster(path, settings) as dataset:
        return describe_dataset(path, dataset)


def describe_dataset(path: Location, dataset: Any) -> RasterInfo:
    """Read what an open raster says of itself.

    Raises:
        InputError: If it is georeferenced by points or a camera model only.
    """
    with raster_errors(path):
        return RasterInfo(
            path=path,
            driver=dataset.driver,
            grid=_read_grid(path, dataset),
            count=dataset.count,
            dtypes=tuple(dataset.dtypes),
            nodata=dataset.nodatavals[0],
            block=dataset.block_shapes[0],
            mask=describe_mask(dataset),
            has_palette=ColorInterp.palette in dataset.colorinterp,
            descriptions=tuple(_in_a_line(text) for text in dataset.descriptions),
            colours=tuple(colour.name for colour in dataset.colorinterp),
        )


def _in_a_line(text: str | None) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in (text or "")[:MAX_NAME])
    return " ".join(printable.split())


def require_imagery(info: RasterInfo, settings: Input) -> RasterInfo:
    """A date's raster must hold intensities and say where it lies, unless the configuration does without a place.

    Raises:
        InputError: If there is no usable georeference, or the values are indices into a table of colours.
    """
    if info.has_palette:
        raise InputError(
            f"{info.path}: values are indices into a table of colours; "
            "expected intensities: convert it with gdal_translate -expand rgb"
        )
    if info.grid.crs is None and not settings.pixel_coordinates:
        raise InputError(
            f"{info.path}: expected a map projection and a transform, got no georeference that can be used; "
            "add it, or set input.pixel_coordinates: true if both dates show the same pixels"
        )
    return info


def grid_of(info: RasterInfo, default: Grid, what: str) -> Grid:
    """The raster's own grid; without georeference it lies on ``default`` if it has that size.

    Args:
        info: A label or valid raster.
        default: The grid that it should lie on.
        what: What has that grid, for the message.

    Raises:
        InputError: If it can't be told where the raster lies.
    """
    if info.grid.crs is None:
        if info.grid.shape != default.shape:
            got, expected = (f"{grid.width} x {grid.height} px" for grid in (info.grid, default))
            raise InputError(f"{info.path}: {got} without georeference; expected {expected}, the size of {what}")
        return default
    if default.crs is None:
        raise InputError(f"{info.path}: has a georeference, but {what} has none; expected both or neither")
    return info.grid


def read_values(dataset: Any, path: Location, bands: Sequence[int], window: Window) -> NDArray[Any]:
    """Read a window as it is stored.

    Returns:
        (band, height, width) in the raster's own type.

    Raises:
        InputError: If the file is damaged there, or the bands have different types.
    """
    _common_dtype(path, dataset.dtypes, bands)
    with raster_errors(path):
        values = read_pixels(dataset, path, bands, window)
        verify_deflate(dataset, path, bands, window, values)
        return values


def narrowed(values: NDArray[Any], present: NDArray[np.bool_], path: Location, window: Window) -> NDArray[Any]:
    """Integers of 64 bits as 32, in which they are stored; all else as it is.

    Args:
        values: (band, height, width), as :func:`read_values` gives them.
        present: (height, width), where they count; elsewhere they become 0.
        path: The file.
        window: The pixels that were read.

    Raises:
        InputError: If a value that counts does not fit.
    """
    target = NARROW.get(values.dtype.name)
    if target is None:
        return values
    limits = np.iinfo(target)
    outside = ((values < limits.min) | (values > limits.max)) & present
    if outside.any():
        band, row, col = np.argwhere(outside)[0]
        raise InputError(
            f"{path}: value {values[band, row, col]} in row {window.row + row}, column {window.col + col} does not fit "
            "32 bits, in which cdpipe stores integers; if it means no data, name it as the sensor's nodata"
        )
    return np.where(present, values, 0).astype(target)


def _common_dtype(path: Location, dtypes: Sequence[str], bands: Sequence[int]) -> str:
    """The type of some bands' values, where it is one, and one that can be read."""
    found = sorted({dtypes[band - 1] for band in bands})
    unknown = [dtype for dtype in found if dtype not in DTYPES]
    if unknown:
        todo = "convert to amplitude" if unknown[0].startswith("c") else "convert it"
        raise InputError(
            f"{path}: values are {', '.join(found)}; expected integers, or floats of 32 or 64 bits, {todo} first"
        )
    if len(found) > 1:
        listed = ", ".join(f"{band} {dtypes[band - 1]}" for band in bands)
        raise InputError(f"{path}: bands of different types ({listed}); expected one type for those that are needed")
    return found[0]


def _open_first(path: Location, drivers: Sequence[str]) -> Any:
    errors = []
    for driver in drivers:
        try:
            return open_gdal(path, driver)
        except RasterioError as error:
            errors.append(error)
    telling = [error for error in errors if "not recognized" not in str(error)]
    if telling:
        raise telling[0]
    raise InputError(f"{path}: expected a raster in {' or '.join(drivers)} (input.drivers), got something else")


def _check_limits(path: Location, dataset: Any) -> None:
    height, width, count = dataset.height, dataset.width, dataset.count
    if not (0 < max(height, width) <= MAX_SIDE and 0 < count <= MAX_BANDS):
        raise InputError(
            f"{path}: declares {width} x {height} px in {count} band(s); "
            f"expected at most {MAX_SIDE} px a side and {MAX_BANDS} bands"
        )
    if not set(dataset.dtypes) & set(DTYPES):
        _common_dtype(path, dataset.dtypes, dataset.indexes)
    value_bytes = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes if dtype in DTYPES)
    together = count if dataset.interleaving is Interleaving.pixel else 1
    block_bytes = max(math.prod(shape) for shape in dataset.block_shapes) * value_bytes * together
    if block_bytes > MAX_BLOCK_BYTES:
        raise InputError(
            f"{path}: stored in blocks of {block_bytes / 2**20:.0f} MiB, the least that can be read; "
            f"expected at most {MAX_BLOCK_BYTES // 2**20} MiB; rewrite it with gdal_translate -co TILED=YES"
        )
    declared, stored = height * width * count * value_bytes, path.stat().size
    if declared > max(HARMLESS_BYTES, stored * MAX_RATIO):
        raise InputError(
            f"{path}: declares {declared / 2**30:.0f} GiB of pixels in a file of {stored / 2**20:.1f} MiB; "
            "expected a file that holds its pixels"
        )


def _read_grid(path: Location, dataset: Any) -> Grid:
    affine = dataset.transform
    transform = (affine.a, affine.b, affine.c, affine.d, affine.e, affine.f)
    usable = is_possible(transform) and not affine.is_identity
    if not usable and (dataset.gcps[0] or dataset.rpcs):
        model = "ground control points" if dataset.gcps[0] else "a camera model (RPC)"
        raise InputError(f"{path}: georeferenced by {model} only; expected a map grid: orthorectify it first")
    crs = dataset.crs
    if usable and crs and (crs.is_projected or crs.is_geographic):
        return Grid(dataset.height, dataset.width, transform, canonical_wkt(crs))
    return Grid(dataset.height, dataset.width, PIXEL_TRANSFORM, None)
