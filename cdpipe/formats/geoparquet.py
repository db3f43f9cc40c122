"""Reads GeoParquet (1.0 and 1.1): WKB, and outlines as nested lists of points."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.errors import ShapelyError

from cdpipe.errors import InputError
from cdpipe.formats.features import Features, unreadable
from cdpipe.geo.crs import WGS84_WKT, canonical_wkt
from cdpipe.workspace.location import Location

ROWS = 10_000  # read at a time
MOST = 2 * 2**30  # bytes of what is read, unpacked
NATIVE = {"polygon": shapely.GeometryType.POLYGON, "multipolygon": shapely.GeometryType.MULTIPOLYGON}


def read_geoparquet(path: Location, local: Path, wanted: Callable[[str], bool]) -> Features:
    """Read the outlines of the primary column of a GeoParquet file.

    Without a ``crs`` they are in OGC:CRS84, as the format says; a ``crs`` of null is none.

    Args:
        path: What the file is called.
        local: The file, or its copy on this machine.
        wanted: Which attributes are of interest.

    Raises:
        InputError: If it is damaged, too large, or no GeoParquet.
    """
    try:
        with pq.ParquetFile(local, memory_map=True) as file:
            column, about = _geometry(path, file)
            found = Features(_crs(path, about))
            schema = file.schema_arrow
            found.names = [
                name for name in schema.names if name != column and not pa.types.is_nested(schema.field(name).type)
            ]
            found.columns = {name: [] for name in found.names if wanted(name)}
            _check_size(path, file, [column, *found.columns])
            for batch in file.iter_batches(ROWS, columns=[column, *found.columns]):
                values = {name: batch.column(name).to_pylist() for name in found.columns}
                for number, shape in enumerate(_shapes(batch.column(column), about)):
                    found.add(shape, {name: row[number] for name, row in values.items()}, wanted)
    except (pa.ArrowException, ShapelyError, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise unreadable(path, " ".join(str(error).split())[:200]) from None
    return found


def _geometry(path: Location, file: pq.ParquetFile) -> tuple[str, dict[str, Any]]:
    """Name of the column with outlines, and what the file says of it."""
    text = (file.schema_arrow.metadata or {}).get(b"geo")
    if text is None:
        raise unreadable(path, "expected GeoParquet, got Parquet without its metadata 'geo'")
    try:
        about = json.loads(text)
        column = about["primary_column"]
        return str(column), dict(about["columns"][column])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise unreadable(path, "its metadata 'geo' is damaged") from None


def _crs(path: Location, about: dict[str, Any]) -> str | None:
    crs = about.get("crs", WGS84_WKT)
    if crs is None:
        return None
    if isinstance(crs, dict) and crs.get("id") == {"authority": "OGC", "code": "CRS84"}:
        return WGS84_WKT
    other = InputError(f"{path}: expected a coordinate reference system as PROJJSON, got another form")
    try:
        if not isinstance(crs, str):
            return canonical_wkt(CRS.from_wkt(pyproj.CRS.from_json_dict(crs).to_wkt()))
        if re.fullmatch("EPSG:[0-9]{4,6}", crs):  # not of the format, but of some programs
            return canonical_wkt(CRS.from_epsg(int(crs[5:])))
        if "[" in crs:  # WKT, of early versions; of anything else GDAL would complain on the screen
            return canonical_wkt(CRS.from_wkt(crs))
    except (pyproj.exceptions.CRSError, CRSError):
        raise other from None
    raise other


def _check_size(path: Location, file: pq.ParquetFile, columns: list[str]) -> None:
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    parts = [group.column(number) for group in groups for number in range(group.num_columns)]
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
    if size > MOST:
        raise unreadable(path, f"it holds {size / 2**30:.1f} GiB; save less of it, or save it as a GeoPackage")


def _shapes(column: pa.Array, about: dict[str, Any]) -> Iterator[Any]:
    encoding = str(about.get("encoding", "")).lower()
    if encoding == "wkb":
        yield from shapely.from_wkb(np.array(column.to_pylist(), object))
        return
    if encoding not in NATIVE:
        raise ValueError(f"expected polygons as WKB, polygon or multipolygon, got the encoding {encoding[:40]!r}")
    present = column.is_valid().to_pylist()
    levels, array = [], column.drop_null()
    for _ in range(2 if encoding == "polygon" else 3):
        levels.append(np.asarray(array.offsets) - array.offsets[0].as_py())
        array = array.flatten()
    points = np.stack([np.asarray(array.field(axis), np.float64) for axis in ("x", "y")], 1)
    shapes = iter(shapely.from_ragged_array(NATIVE[encoding], points, tuple(reversed(levels))))
    for there in present:
        yield next(shapes) if there else None
