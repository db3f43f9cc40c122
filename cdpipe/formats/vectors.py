"""Vector layers that people open: GeoPackage, GeoParquet or GeoJSON, read back before they get their name.

The same features give the same bytes: GeoPackage's time of change is set to the epoch, and GDAL is given the features
one batch after the other.
"""

import contextlib
import hashlib
import json
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from cdpipe.errors import IntegrityError
from cdpipe.formats.ogr import ogr, ogr_errors
from cdpipe.geo.crs import WGS84, on_earth
from cdpipe.geo.shapes import cut_at_antimeridian, round_degrees, transform_polygons
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.location import Location, here

SUFFIXES = {"gpkg": ".gpkg", "geoparquet": ".parquet", "geojson": ".geojson"}
LAYER = "change"
WRITTEN = 2  # as files of the same features come to have other bytes
# The newest that QGIS 3.22 and GDAL 3.2 take without a warning; GDAL writes 1.4 by itself.
GEOPACKAGE = {"VERSION": "1.2"}
GEOMETRY = "geometry"

_EPOCH = "1970-01-01T00:00:00.000Z"
_READ_BATCH = 5000  # features
_DATING = threading.Lock()


def write_features(
    path: Location, batches: Iterable[pa.RecordBatch], schema: pa.Schema, crs: str | None, tags: Mapping[str, str]
) -> str:
    """Write polygons with their attributes; the suffix says in which format.

    The file appears under its name at once and complete, or not at all.

    Args:
        path: The file to publish; replaced if it exists.
        batches: Features; the column ``geometry`` holds polygons as little-endian WKB.
        schema: Of the batches.
        crs: WKT; None for pixel coordinates. GeoJSON is brought to WGS 84 if they are on the Earth.
        tags: Metadata of the layer; GeoJSON has no place for them.

    Returns:
        The sha256 of the published file, in hex.

    Raises:
        IntegrityError: If it cannot be written, or does not read back as what was to be written.
    """
    folder = path.temporary()
    shutil.rmtree(folder, ignore_errors=True)
    temporary = folder / path.name
    written = _Digest()
    try:
        with _errors(path):
            folder.mkdir(parents=True)
            if path.suffix == ".geojson" and crs is not None and on_earth(crs):
                batches, crs = map(partial(_to_wgs84, crs=crs), batches), WGS84
            elif path.suffix == ".geojson":
                crs = None
            if path.suffix == ".geojson":  # which has no dates
                schema = pa.schema([(each.name, _plain(each.type)) for each in schema])
                batches = (batch.cast(schema) for batch in batches)
            if path.suffix == ".parquet":
                _write_parquet(temporary, written.watch(batches), schema, crs, tags)
            else:
                _write_gdal(temporary, written.watch(batches), schema, crs, tags)
            crash_point("vector-unchecked")
            read = _Digest()
            for _ in read.watch(read_features(here(temporary))):
                pass
        if read != written:
            raise IntegrityError(
                f"{path}: {read.count} features read back of {written.count}, or other than they were written. "
                f"Nothing was published. {path.describe_free()}"
            )
        return path.publish(temporary, "vector-unnamed")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_features(path: Location) -> Iterator[pa.RecordBatch]:
    """Features of a layer that :func:`write_features` wrote, batch by batch, in the order and columns written."""
    with path.file_on_disk() as file:
        yield from _read_features(file)


def _read_features(path: Path) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_READ_BATCH)
        return
    options = {"DATE_AS_STRING": "YES"} if path.suffix == ".geojson" else {}
    with ogr().open_arrow(path, batch_size=_READ_BATCH, use_pyarrow=True, **options) as (meta, reader):
        name = meta["geometry_name"] or "wkb_geometry"
        for batch in reader:
            columns = {GEOMETRY: batch.column(name), **{field: batch.column(field) for field in meta["fields"]}}
            yield pa.RecordBatch.from_pydict(columns)


def _plain(kind: pa.DataType) -> pa.DataType:
    """What a column has in JSON."""
    return pa.string() if pa.types.is_date(kind) else kind


class _Digest:
    """Counts and hashes features on their way."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Digest) and (self.count, self._hash.digest()) == (other.count, other._hash.digest())

    __hash__ = None  # type: ignore[assignment]  # it changes

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.count += len(batch)
            for feature in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                self._hash.update(repr(feature).encode())
            yield batch


def _write_gdal(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, crs: str | None, tags: Mapping[str, str]
) -> None:
    package = path.suffix == ".gpkg"
    options: dict[str, Any] = {"layer_metadata": dict(tags) or None, "dataset_options": GEOPACKAGE} if package else {}
    if not package and crs is not None:  # the standard has no place for coordinates of other kinds
        options = {"RFC7946": "YES"}
    with _gdal_date(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        ogr().write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches),
            path,
            layer=LAYER,
            driver="GPKG" if package else "GeoJSON",
            geometry_name=GEOMETRY,
            geometry_type="Polygon" if package else "Unknown",  # what is cut in two has several
            crs=crs,
            **options,
        )


@contextlib.contextmanager
def _gdal_date() -> Iterator[None]:
    """Let GDAL take the epoch for today; it knows one date at a time, so threads take turns."""
    with _DATING:
        before = ogr().get_gdal_config_option("OGR_CURRENT_DATE")
        ogr().set_gdal_config_options({"OGR_CURRENT_DATE": _EPOCH})
        try:
            yield
        finally:
            ogr().set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _write_parquet(
    path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, crs: str | None, tags: Mapping[str, str]
) -> None:
    """GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0), one row group a batch."""
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None if crs is None else CRS.from_user_input(crs).to_json_dict(),
        "orientation": "counterclockwise",
    }
    geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    with pq.ParquetWriter(path, schema.with_metadata({**tags, "geo": json.dumps(geo)}), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _to_wgs84(batch: pa.RecordBatch, crs: str) -> pa.RecordBatch:
    moved = transform_polygons(decode(batch), crs, WGS84)
    whole = np.array([cut_at_antimeridian(polygon) for polygon in moved], object)  # RFC 7946, 3.1.9
    return batch.set_column(batch.schema.get_field_index(GEOMETRY), GEOMETRY, encode(round_degrees(whole)))


def decode(batch: pa.RecordBatch) -> NDArray[Any]:
    """Polygons of a batch: (features,) of Shapely."""
    return np.asarray(shapely.from_wkb(batch.column(GEOMETRY).to_numpy(zero_copy_only=False)))


def encode(polygons: NDArray[Any]) -> pa.Array:
    """A column of (features,) Shapely polygons, as little-endian WKB."""
    return pa.array(shapely.to_wkb(polygons, byte_order=1), pa.binary())


@contextlib.contextmanager
def _errors(path: Location) -> Iterator[None]:
    """Errors of GDAL and Arrow become ours and name the path."""
    try:
        yield
    except (*ogr_errors(), pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise IntegrityError(
            f"{path} could not be written: {reason}. Nothing was published. {path.describe_free()}"
        ) from error
