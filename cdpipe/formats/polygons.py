"""Reads polygons from a vector file, brought to a grid's coordinates.

GDAL is kept from what a file of JSON or XML could lead it to: other files, and coordinate systems on the network.
"""

import io
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import require_file
from cdpipe.formats.gdal import local_copy
from cdpipe.geo.crs import canonical_wkt, transform_by_gdal
from cdpipe.geo.grid import Grid
from cdpipe.geo.shapes import transform_shapes
from cdpipe.workspace.location import Location

# How a file of each kind begins, and what makes GDAL read it as that kind and no other: some kinds of JSON
# and XML lead GDAL on to other files.
BEGINNINGS = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb\x03fgb"}
PREFIXES = {".gpkg": "GPKG:", ".geojson": "GeoJSON:", ".json": "GeoJSON:"}
VECTOR_SUFFIXES = tuple(sorted({*BEGINNINGS, *PREFIXES}))

NODES = 33  # points along a side of a grid by which its place in the file's coordinates is told

# A member "crs" as GDAL may understand it, at any depth: in any case, with escaped letters, in single quotes.
_MEMBER = re.compile(rb"""["'](?:[cC]|\\u00[46]3)(?:[rR]|\\u00[57]2)(?:[sS]|\\u00[57]3)(?:["']|\\u0000|\0)""")
_HARMLESS = re.compile(rb'"crs"\s*:\s*[^\s{/]')  # no object, so nothing that GDAL follows
_NAMED = re.compile(
    rb'"crs"\s*:\s*\{\s*"type"\s*:\s*"name"\s*,\s*"properties"\s*:\s*\{\s*"name"\s*:\s*"([\w:./+-]*)"\s*\}\s*\}'
)
_KNOWN = re.compile(r"[A-Za-z]+:\w+|urn:ogc:def:crs:[\w:.]+")


def require_plain_crs(path: Location, local: Path) -> None:
    """A GeoJSON file may name its coordinate reference system by a code and in no other way.

    GDAL would fetch a linked one from the network, and take one that it does not know for WGS 84.

    Args:
        path: What the file is called.
        local: The file, or its copy on this machine.

    Raises:
        InputError: If it is not so.
    """
    with local.open("rb") as file:
        if not file.seek(0, io.SEEK_END):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for member in _MEMBER.finditer(data):
                if not _HARMLESS.match(data, member.start()):
                    _require_known(path, _NAMED.match(data, member.start()))


def _require_known(path: Location, named: re.Match[bytes] | None) -> None:
    name = named[1].decode("ascii", "replace") if named else ""
    try:
        if _KNOWN.fullmatch(name):
            CRS.from_user_input(name)
            return
    except CRSError:
        pass
    raise InputError(
        f"{path}: expected a coordinate reference system by its code, such as "
        f'"crs": {{"type": "name", "properties": {{"name": "urn:ogc:def:crs:EPSG::32633"}}}}, '
        f"got {repr(name) if name else 'another form'}"
    )


def companions(path: Location) -> list[Location]:
    """The files beside a shapefile that decide where its outlines lie; none for other formats."""
    return [path.with_suffix(suffix) for suffix in (".shx", ".prj")] if path.suffix.lower() == ".shp" else []


def is_vector(path: Location | Path) -> bool:
    """Whether a file's name says that it holds polygons rather than pixels."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def read_polygons(path: Location, grid: Grid, settings: Input) -> NDArray[Any]:
    """Read the polygons that may lie on a grid.

    Args:
        path: A GeoPackage, GeoJSON, Shapefile or FlatGeobuf with a single layer.
        grid: Where to look; the grid of a window, to read no more than needed.
        settings: Where files may lie.

    Returns:
        (polygons,) of Shapely polygons and multipolygons, in the coordinates of ``grid``.

    Raises:
        InputError: If the file is missing or damaged, has several layers, no CRS or not only polygons.
    """
    source = _gate(path, settings)
    try:
        layer, crs = _only_layer(path, source)
        if grid.crs is None:
            raise InputError(f"{path}: has a georeference but the pair's grid has none; expected a raster label")
        box = _bounding_box(grid, crs)
        _, _, encoded, _ = pyogrio.raw.read(source, layer=layer, columns=[], bbox=box, force_2d=True)
    except (DataSourceError, DataLayerError, CRSError) as error:
        raise InputError(f"{path}: not readable as polygons: {' '.join(str(error).split())}") from None
    shapes = shapely.from_wkb(encoded)
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    kinds = {str(shape.geom_type) for shape in shapes} - {"Polygon", "MultiPolygon"}
    if kinds:
        raise InputError(f"{path}: expected polygons, got {', '.join(sorted(kinds))}; buffer or remove them")
    return _to_crs(path, shapes, crs, grid.crs)


def burn_polygons(polygons: NDArray[Any], grid: Grid) -> NDArray[np.uint8]:
    """1 where a pixel's centre lies in a polygon, else 0.

    Args:
        polygons: (polygons,) of Shapely, in the grid's coordinates.
        grid: The pixels.

    Returns:
        (height, width).
    """
    x, y = grid.xy(*grid.outline(2))
    x_min, y_min, x_max, y_max = shapely.bounds(polygons).T
    near = polygons[(x_min <= x.max()) & (x_max >= x.min()) & (y_min <= y.max()) & (y_max >= y.min())]
    if not len(near):
        return np.zeros(grid.shape, np.uint8)
    burnt = rasterize(near, grid.shape, transform=Affine(*grid.transform), default_value=1, dtype=np.uint8)
    return np.asarray(burnt)


def _gate(path: Location, settings: Input) -> str:
    """The name under which GDAL opens the file as what its suffix says."""
    require_file(path, settings, "a file of polygons")
    for companion in companions(path):
        if companion.is_file():
            require_file(companion, settings, "a part of a shapefile")
    local = local_copy(path, companions(path))
    suffix = path.suffix.lower()
    beginning = BEGINNINGS.get(suffix)
    if beginning is not None:
        with local.open("rb") as file:
            if file.read(len(beginning)) != beginning:
                raise InputError(f"{path}: expected a {suffix} file, it does not begin like one")
    else:
        require_plain_crs(path, local)
    return f"{PREFIXES.get(suffix, '')}{local}"


def _only_layer(path: Location, source: str) -> tuple[str, str]:
    """Name and CRS of the file's layer."""
    names = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
    if len(names) != 1:
        raise InputError(f"{path}: expected one layer of polygons, got {', '.join(names) or 'none'}")
    crs = pyogrio.read_info(source, layer=names[0])["crs"]
    if crs is None:
        raise InputError(f"{path}: expected a coordinate reference system, got none; add it (a .prj file?)")
    return names[0], canonical_wkt(CRS.from_user_input(crs))


def _bounding_box(grid: Grid, crs: str) -> tuple[float, float, float, float] | None:
    """What surrounds the grid in another CRS, with some room; None where that cannot be told."""
    x, y = (values.ravel() for values in grid.xy(*grid.nodes(NODES)))
    if grid.crs is not None and grid.crs != crs:
        x, y = transform_by_gdal(grid.crs, crs, x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    room_x, room_y = 0.01 * np.ptp(x), 0.01 * np.ptp(y)
    return (
        float(x.min() - room_x),
        float(y.min() - room_y),
        float(x.max() + room_x),
        float(y.max() + room_y),
    )


def _to_crs(path: Location, shapes: NDArray[Any], of: str, to: str) -> NDArray[Any]:
    if of == to or not len(shapes):
        return shapes
    moved = np.asarray(transform_shapes(shapes, of, to))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(f"{path}: a polygon reaches beyond where the pair's coordinate system is defined")
    return moved
