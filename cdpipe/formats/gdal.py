"""What GDAL calls a file, and what it must know to read one in object storage."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.session import DummySession

from cdpipe.config.schema import Input
from cdpipe.geo.grid import Grid, Window
from cdpipe.workspace.clients import endpoint, plain_endpoint, redacted
from cdpipe.workspace.location import Location

NO_SIDECARS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
SPLIT_FORMATS = {"ENVI"}  # whose header is a file of its own
DISK_FORMATS = {"ENVI", "netCDF"}  # that are not read in object storage, where GDAL looks for ENVI headers for minutes
SYSTEMS = {"s3": "/vsis3", "gs": "/vsigs", "az": "/vsiaz"}
# A worker lives for long, and must see that an object was replaced: nothing is kept of one once it is closed.
_READING: dict[str, Any] = {
    "CPL_VSIL_CURL_NON_CACHED": ":".join(f"{system}/" for system in SYSTEMS.values()),
    "GDAL_HTTP_MAX_RETRY": "8",
    "GDAL_HTTP_RETRY_DELAY": "0.2",  # seconds before the second try; about twice as long before each further one
    "GDAL_HTTP_RETRY_CODES": "ALL",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_INGESTED_BYTES_AT_OPEN": "65536",  # the header of most scenes
}
TRIES, PAUSE = 5, 0.1  # seconds, a little more each time

Result = TypeVar("Result")


def gdal_name(path: Location) -> str | Path:
    """The name under which GDAL opens a file: of this machine as it is, in object storage by a reader of GDAL."""
    scheme, _, rest = str(path).rpartition("://")
    return f"{SYSTEMS[scheme]}/{rest}" if path.far else path.local()


def gdal_options(path: Location, settings: Input) -> dict[str, Any]:
    """What ``rasterio.Env`` is given to read a file: whether what lies beside it counts, and how to get at a store."""
    beside = {} if settings.sidecars else NO_SIDECARS
    if not path.far:
        return dict(beside)
    # rasterio's own session would look for credentials anew
    options: dict[str, Any] = {**beside, **_READING, "session": DummySession()}
    if endpoint():
        host = endpoint().partition("://")[2].rstrip("/")
        options |= {"AWS_S3_ENDPOINT": host, "AWS_VIRTUAL_HOSTING": "FALSE"}
        options["AWS_HTTPS"] = "NO" if plain_endpoint() else "YES"
    account = os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    return options | ({"AZURE_STORAGE_ACCOUNT": account} if account else {})


def open_gdal(path: Location, driver: str) -> Any:
    """Open a raster by one of GDAL's drivers, in this thread only."""
    # a header that lies beside the pixels must be seen; it is asked for by its name
    beside = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"} if driver in SPLIT_FORMATS else {}
    with rasterio.Env(**beside) if beside else nullcontext():
        return _tried_again(path, lambda: rasterio.open(gdal_name(path), driver=driver, sharing=False))


def open_directory(path: Location, directory: int) -> Any:
    """Open a directory of a TIFF, such as its mask, as a raster of its own, in this thread only.

    Args:
        path: The TIFF.
        directory: The directory's first byte.
    """
    name = f"GTIFF_DIR:off:{directory}:{gdal_name(path)}"
    return _tried_again(path, lambda: rasterio.open(name, driver="GTiff", sharing=False))


def gdal_window(window: Window) -> rasterio.windows.Window:
    """A window in rasterio's terms."""
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)


def georeference(grid: Grid) -> dict[str, Any]:
    """What ``rasterio.open`` is given to write where a grid lies; nothing where it lies nowhere."""
    transform = {"transform": Affine(*grid.transform)} if grid.placed else {}
    return transform if grid.crs is None else {"crs": grid.crs, **transform}


def read_pixels(
    dataset: Any, path: Location, bands: Sequence[int], window: Window, *, masks: bool = False
) -> NDArray[Any]:
    """Read a window, (band, height, width); where that breaks off in object storage, anew from the start.

    Args:
        dataset: The open raster.
        path: Its file.
        bands: Numbers of bands.
        window: The pixels.
        masks: Whether to read the bands' masks instead, as GDAL has them: 0 where there is no data.
    """
    bands, part = list(bands), gdal_window(window)
    if masks and path.far:
        return _tried_again(path, lambda: _read_far_masks(dataset, path, bands, part))

    def read(opened: Any) -> NDArray[Any]:
        return np.asarray((opened.read_masks if masks else opened.read)(bands, window=part))

    try:
        return read(dataset)
    except RasterioError:
        if not path.far:
            raise

    def read_anew() -> NDArray[Any]:
        with open_gdal(path, dataset.driver) as fresh:
            return read(fresh)

    return _tried_again(path, read_anew)


def _read_far_masks(dataset: Any, path: Location, bands: list[int], part: rasterio.windows.Window) -> NDArray[Any]:
    """Masks as the bands of a VRT: rasterio holds all threads of Python while it reads masks, and so over requests."""
    height, width = dataset.block_shapes[0]
    size = f'RasterXSize="{dataset.width}" RasterYSize="{dataset.height}"'
    layout = f'<SourceProperties {size} DataType="Byte" BlockXSize="{width}" BlockYSize="{height}"/>'
    source = f'<SourceFilename relativeToVRT="0">{escape(str(gdal_name(path)))}</SourceFilename>'
    layers = "".join(
        f'<VRTRasterBand dataType="Byte" band="{number}"><SimpleSource>{source}<SourceBand>mask,{band}</SourceBand>'
        f"{layout}</SimpleSource></VRTRasterBand>"
        for number, band in enumerate(bands, 1)
    )
    text = f"<VRTDataset {size.replace('Raster', 'raster')}>{layers}</VRTDataset>"
    with rasterio.open(text, driver="VRT", sharing=False) as opened:
        return np.asarray(opened.read(window=part))


def _tried_again(path: Location, act: Callable[[], Result]) -> Result:
    """Act; in object storage a few times, since GDAL takes an answer that breaks off for the end of the file."""
    for number in range(TRIES if path.far else 1):
        try:
            return act()
        except RasterioError as error:
            failure = error
            time.sleep(PAUSE * number)
    raise failure


def error_text(path: Location, error: BaseException) -> str:
    """What an error of GDAL says, in one line; without credentials, where it may hold a store's answer."""
    return redacted(str(error)) if path.far else " ".join(str(error).split())
