"""The gate that every raster of the user passes: what is opened, what it says of itself, its pixels.

Only files in the folders that the configuration allows are read, and no more of them than can be handled.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.damage import verify_block_table, verify_deflate, verify_envi, verify_png
from cdpipe.formats.gdal import DISK_FORMATS, error_text, gdal_name, gdal_options, open_gdal, read_pixels
from cdpipe.formats.masks import FileMask, describe_mask
from cdpipe.formats.missing_files import why_missing
from cdpipe.formats.netcdf import open_netcdf
from cdpipe.formats.parts import MAX_SOURCES, NO_RASTERS, SINGLE, likely_format, require_plain_sidecars, vrt_parts
from cdpipe.formats.vrt import is_vrt
from cdpipe.formats.worldfile import georeference_files, placing_pam, read_prj, read_world_files
from cdpipe.geo.crs import canonical_wkt, crs_name, is_plane, on_earth, place_name, share_coordinates
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
        raise InputError(f"{path}: expected {what}; there is no such file{why_missing(path)}")


def _unusable(path: Location, error: Exception) -> InputError:
    return InputError(f"{str(path)!a}: expected the name of a file in UTF-8: {error}")


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What a raster says of itself.

    Attributes:
        path: The file.
        driver: GDAL's name of its format.
        grid: Its pixels; without ``crs`` and not ``placed`` if it has no georeference that can be used.
        count: Number of bands.
        dtypes: Type of each band's values.
        nodata: The first band's tag.
        block: Rows and columns of the blocks it is stored in.
        mask: What it has, beside nodata, to say which pixels were not observed.
        has_palette: Whether its values are indices into a table of colours.
        descriptions: What the file calls its bands, in one line each; "" where it does not.
        colours: What it says that each band is to be shown as: red, green, blue, alpha, gray, undefined, ...
        unused: What of a georeference it has that says no place, in words; None where there is nothing.
        placing: A file beside it that has its georeference, or the rest of it, and is read only by leave.
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
    unused: str | None = None
    placing: Location | None = None

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
    parts = _require_parts(path, settings)
    # a damaged JPEG is otherwise filled up with grey, and a warning that nobody sees
    with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="TRUE", **gdal_options(path, settings)) as gdal:
        unknown = sorted({*settings.drivers} - gdal.drivers().keys())
        if unknown:
            raise InputError(f"input.drivers: GDAL has no driver {', '.join(unknown)} here")
        with raster_errors(path):
            dataset = _open_first(path, settings)
        with dataset:
            with raster_errors(path):
                _require_listed(path, dataset, settings)
                _check_limits(path, dataset, sum(file.stat().size for file in (path, *parts)))
                verify_png(dataset, path)
                verify_envi(dataset, path)
                verify_block_table(dataset, path)
            yield dataset


def parts_of(path: Location, settings: Input) -> list[Location]:
    """What a raster is read from, beside the file itself: sidecars, world files, the sources of a VRT, ...

    Raises:
        InputError: If one may not be read, or leads GDAL to what it should not open.
    """
    found = georeference_files(path)
    for file in found:
        require_file(file, settings, f"a file that {path.name} is read with")
    found += _require_parts(path, settings)
    if settings.sidecars or {*settings.drivers} - {*SINGLE, "VRT"}:
        with open_raster(path, settings) as dataset:
            found += _require_listed(path, dataset, settings)
    return [file for file in dict.fromkeys(found) if file != path]


def _require_parts(path: Location, settings: Input) -> list[Location]:
    """The files that GDAL will open with a raster, as far as that can be told before, none of which leads elsewhere."""

    def require(part: Location) -> None:
        require_file(part, settings, f"a file that {path.name} is read from")

    found = require_plain_sidecars(path, require) if settings.sidecars else []
    if "VRT" not in settings.drivers or not is_vrt(path):
        return found
    sources = vrt_parts(path, settings, require)
    for source in sources:
        if source.suffix.lower() not in NO_RASTERS:
            _judge_source(source, source.stat().tag, settings)
    return [*found, *sources]


@lru_cache(maxsize=2 * MAX_SOURCES)
def _judge_source(source: Location, tag: int | str, settings: Input) -> None:  # noqa: ARG001 (another content, judged anew)
    if not is_vrt(source):  # whose own sources are judged
        with open_raster(source, settings):
            pass


def _require_listed(path: Location, dataset: Any, settings: Input) -> list[Location]:
    """The files that GDAL says it reads a raster from, of formats that come in several."""
    if dataset.driver in {*SINGLE, "VRT"} and not settings.sidecars:
        return []
    store = str(gdal_name(path)).removesuffix(path.key) if path.far else ""
    found = [Location(path.storage, name.removeprefix(store)) for name in dataset.files]
    for file in found:
        require_file(file, settings, f"a file that {path.name} is read from")
    return found


def describe_raster(path: Location, settings: Input) -> RasterInfo:
    """Open a raster to read what it says of itself; a missing georeference is no error here.

    Raises:
        InputError: As :func:`open_raster` and :func:`describe_dataset`.
    """
    with open_raster(path, settings) as dataset:
        return describe_dataset(path, dataset, settings)


def describe_dataset(path: Location, dataset: Any, settings: Input) -> RasterInfo:
    """Read what an open raster says of itself, and where it does not say its place what a world file beside it does.

    Raises:
        InputError: If it is georeferenced by points or a camera model only, in a CRS of no map, or a world file or
            ``.prj`` that it needs cannot be used.
    """
    with raster_errors(path):
        grid, unused = _read_grid(path, dataset, settings)
        return RasterInfo(
            path=path,
            driver=dataset.driver,
            grid=grid,
            count=dataset.count,
            dtypes=tuple(dataset.dtypes),
            nodata=dataset.nodatavals[0],
            block=dataset.block_shapes[0],
            mask=describe_mask(dataset),
            has_palette=ColorInterp.palette in dataset.colorinterp,
            descriptions=tuple(_in_a_line(text) for text in dataset.descriptions),
            colours=tuple(colour.name for colour in dataset.colorinterp),
            unused=unused,
            placing=placing_pam(path) if grid.crs is None and not settings.sidecars else None,
        )


def _in_a_line(text: str | None) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in (text or "")[:MAX_NAME])
    return " ".join(printable.split())


def require_imagery(info: RasterInfo, settings: Input) -> RasterInfo:
    """A date's raster must hold intensities and say where it lies, unless the configuration does without a place.

    A transform without a CRS is a place: in a plane that both dates have in common.

    Raises:
        InputError: If there is no usable georeference, or the values are indices into a table of colours.
    """
    _refuse_placing(info)
    if info.has_palette:
        raise InputError(
            f"{info.path}: values are indices into a table of colours; "
            "expected intensities: convert it with gdal_translate -expand rgb"
        )
    if not info.grid.placed and not settings.pixel_coordinates:
        unused = f" ({info.unused})" if info.unused else ""
        raise InputError(
            f"{info.path}: expected a map projection and a transform, got no georeference that can be used{unused}; "
            "add it, or set input.pixel_coordinates: true if both dates show the same pixels"
        )
    return info


def _refuse_placing(info: RasterInfo) -> None:
    if info.placing is not None:
        raise InputError(
            f"{info.path}: its georeference lies beside it in {info.placing.name}, which is not read; "
            "set input.sidecars: true, or write it into the file (gdal_translate)"
        )


def require_common_place(before: RasterInfo, after: RasterInfo) -> None:
    """Both dates must have coordinates in common, or neither any and both the same size.

    Raises:
        InputError: If it is not so; both places are named, and the way out.
    """
    if share_coordinates(before.grid, after.grid):
        return
    raise InputError(
        f"{after.path}: {place_name(after.grid)}; expected it to lie with the first date, which is "
        f"{place_name(before.grid)}{_way_out(before, after)}"
    )


def _way_out(before: RasterInfo, after: RasterInfo) -> str:
    for info, other in ((before, after), (after, before)):
        if not info.grid.placed and other.grid.placed:
            unused = f" ({info.unused})" if info.unused else ""
            return (
                f": {info.path.name} has no georeference that can be used{unused}; give it the one it should have (a "
                "world file beside it, or gdal_edit.py -a_srs ... -a_ullr ...), or, where both show the same pixels, "
                f"take that of {other.path.name} away (gdal_edit.py -unsetgt -a_srs None) and set "
                "input.pixel_coordinates: true"
            )
        if info.grid.crs is None and other.grid.crs is not None:
            code = crs_name(other.grid.crs)
            return (
                f": {info.path.name} has a transform without a CRS; give it the one it is in, such as "
                f"gdal_edit.py -a_srs {code if code.startswith('EPSG:') else 'EPSG:...'} {info.path.name}, "
                "or a .prj beside it"
            )
    if before.grid.placed:
        return ": there is no way from a plane of its own to another CRS; give both the same"
    return ": without a georeference both need the same size"


def grid_of(info: RasterInfo, default: Grid, what: str) -> Grid:
    """The raster's own grid; without georeference it lies on ``default`` if it has that size.

    A transform without a CRS counts where ``default`` has none either, or is the same.

    Args:
        info: A label or valid raster.
        default: The grid that it should lie on.
        what: What has that grid, for the message.

    Raises:
        InputError: If it can't be told where the raster lies.
    """
    _refuse_placing(info)
    own = info.grid
    if not own.placed:
        if own.shape != default.shape:
            got, expected = (f"{grid.width} x {grid.height} px" for grid in (own, default))
            raise InputError(f"{info.path}: {got} without georeference; expected {expected}, the size of {what}")
        return default
    if not default.placed:
        raise InputError(f"{info.path}: has a georeference, but {what} has none; expected both or neither")
    if share_coordinates(own, default):
        return own
    if None in (own.crs, default.crs) and replace(own, crs=default.crs).same_pixels(default):
        return default
    one, other = ("it", what) if own.crs is None else (what, "it")
    raise InputError(
        f"{info.path}: {place_name(own)}; expected it to lie with {what}, which is {place_name(default)}"
        + (f": {one} has a transform without a CRS and {other} has one" if None in (own.crs, default.crs) else "")
    )


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


def _open_first(path: Location, settings: Input) -> Any:
    errors = []
    for driver in settings.drivers:
        if path.far and driver in DISK_FORMATS:
            continue
        try:
            if driver == "netCDF":
                return open_netcdf(path, settings.variables)
            return open_gdal(path, driver)
        except RasterioError as error:
            errors.append(error)
    telling = [error for error in errors if "not recognized" not in str(error)]
    if telling:
        raise telling[0]
    left_out = [driver for driver in settings.drivers if path.far and driver in DISK_FORMATS]
    hint = f"; {' and '.join(left_out)} are not read in object storage: make a GeoTIFF of it" if left_out else ""
    drivers = " or ".join(settings.drivers)
    got, found = "something else", likely_format(path)
    if found is not None and found not in settings.drivers:
        got = found
        allowed = ", ".join([*settings.drivers, found])
        hint = f"; set input.drivers: [{allowed}], or make a GeoTIFF of it (gdal_translate)"
    raise InputError(f"{path}: expected a raster in {drivers} (input.drivers), got {got}{hint}")


def _check_limits(path: Location, dataset: Any, stored: int) -> None:
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
    declared = height * width * count * value_bytes
    if declared > max(HARMLESS_BYTES, stored * MAX_RATIO):
        raise InputError(
            f"{path}: declares {declared / 2**30:.0f} GiB of pixels in a file of {stored / 2**20:.1f} MiB; "
            "expected a file that holds its pixels"
        )


def _read_grid(path: Location, dataset: Any, settings: Input) -> tuple[Grid, str | None]:
    """A raster's grid, and what it has of a georeference that says no place."""
    affine = dataset.transform
    transform = (affine.a, affine.b, affine.c, affine.d, affine.e, affine.f)
    usable = is_possible(transform) and not affine.is_identity
    if not usable and (dataset.gcps[0] or dataset.rpcs):
        model = "ground control points" if dataset.gcps[0] else "a camera model (RPC)"
        raise InputError(f"{path}: georeferenced by {model} only; expected a map grid: orthorectify it first")
    crs = canonical_wkt(dataset.crs) if dataset.crs else None
    if crs is None or not usable:
        files = georeference_files(path)
        for file in files:
            require_file(file, settings, "a file that says where a raster lies")
        if not usable and affine.is_identity:
            placed = read_world_files(files)
            usable, transform = placed is not None, placed or transform
        if usable and crs is None:
            crs = read_prj(files)
    if usable:
        if crs is not None and not (on_earth(crs) or is_plane(crs)):
            raise InputError(f"{path}: its CRS is {crs_name(crs)}, which is of no map; expected a projected one")
        return Grid(dataset.height, dataset.width, transform, crs), None
    unused = None if affine.is_identity else f"the transform {transform} is no map's"
    if crs is not None and unused is None:
        unused = f"{crs_name(crs)}, but no transform"
    return Grid(dataset.height, dataset.width, PIXEL_TRANSFORM, None), unused
