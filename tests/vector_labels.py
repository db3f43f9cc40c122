"""Labels of polygons for tests, in any format."""

import json
import sqlite3
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio.raw
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform
from rasters import UTM33, make_config, utm_grid

from cdpipe.config.schema import Config
from cdpipe.geo.grid import Grid, Window
from cdpipe.pairs.labels import read_label
from cdpipe.workspace.location import here

GRID = utm_grid(60, 80)
DRIVERS = {
    "gpkg": "GPKG",
    "shp": "ESRI Shapefile",
    "fgb": "FlatGeobuf",
    "gml": "GML",
    "geojson": "GeoJSON",
    "geojsonl": "GeoJSONSeq",
    "tab": "MapInfo File",
    "gdb": "OpenFileGDB",
}
DEGREES = {"kml", "geojsonl"}
Shapes = Sequence[Any]


def box(row: float, col: float, stop_row: float, stop_col: float, grid: Grid = GRID) -> Any:
    """A box given in pixels of a grid, in its coordinates."""
    corners = [(row, col), (row, stop_col), (stop_row, stop_col), (stop_row, col)]
    return shapely.Polygon([grid.xy(*corner) for corner in corners])


def to_degrees(shape: Any, crs: str = UTM33) -> Any:
    """A shape in WGS 84, longitudes first."""

    def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(transform(CRS.from_wkt(crs), CRS.from_epsg(4326), xy[:, 0], xy[:, 1]), -1)

    return shapely.transform(shape, move)


def write_layer(path: Path, shapes: Shapes, status: Sequence[str] | None = None, **options: Any) -> Path:
    """Write polygons of UTM zone 33 N with the attributes ``status`` and ``number``, as the name's suffix says."""
    suffix = path.suffix[1:].lower()
    names = list(status or ["changed"] * len(shapes))
    if suffix in ("parquet", "kml"):
        {"parquet": write_parquet, "kml": write_kml}[suffix](path, shapes, names)
        return path
    moved = [to_degrees(shape) for shape in shapes] if suffix in DEGREES else shapes
    pyogrio.raw.write(
        path,
        np.array([*map(shapely.to_wkb, moved), None], object)[:-1],
        field_data=[np.array(names, object), np.arange(len(names))],
        fields=["status", "number"],
        **{
            "geometry_type": "MultiPolygon" if suffix == "gdb" else "Polygon",
            "crs": "EPSG:4326" if suffix in DEGREES else "EPSG:32633",
            "driver": DRIVERS[suffix],
            **options,
        },
    )
    return path


def write_kml(path: Path, shapes: Shapes, status: Sequence[str]) -> None:
    """KML as Google Earth saves it."""
    marks = []
    for number, (shape, name) in enumerate(zip(shapes, status, strict=True)):
        rings = [to_degrees(shape).exterior, *to_degrees(shape).interiors]
        lines = [" ".join(f"{x!r},{y!r},0" for x, y in np.array(ring.coords).tolist()) for ring in rings]
        inner = "".join(f"<innerBoundaryIs>{_ring(line)}</innerBoundaryIs>" for line in lines[1:])
        data = f'<Data name="status"><value>{name}</value></Data><Data name="number"><value>{number}</value></Data>'
        marks.append(
            f"<Placemark><name>p{number}</name><ExtendedData>{data}</ExtendedData><MultiGeometry>"
            f"<Polygon><outerBoundaryIs>{_ring(lines[0])}</outerBoundaryIs>{inner}</Polygon></MultiGeometry></Placemark>"
        )
    body = f"<Document><name>d</name><Folder><name>drawn</name>{''.join(marks)}</Folder></Document>"
    path.write_text(f'<?xml version="1.0"?>\n<kml xmlns="http://www.opengis.net/kml/2.2">{body}</kml>')


def _ring(line: str) -> str:
    return f"<LinearRing><coordinates>\n{line}\n</coordinates></LinearRing>"


def write_parquet(path: Path, shapes: Shapes, status: Sequence[str], **about: Any) -> None:
    """GeoParquet with what else its metadata is to say of the column."""
    column = {"encoding": "WKB", "geometry_types": [], "crs": json.loads(pyproj.CRS("EPSG:32633").to_json()), **about}
    if column["encoding"] == "WKB":
        geometry = pa.array(list(map(shapely.to_wkb, shapes)), pa.binary())
    else:
        _, points, (rings, parts) = shapely.to_ragged_array(shapes)
        xy = pa.StructArray.from_arrays([pa.array(points[:, 0]), pa.array(points[:, 1])], ["x", "y"])
        geometry = pa.ListArray.from_arrays(
            pa.array(parts, pa.int32()), pa.ListArray.from_arrays(pa.array(rings, pa.int32()), xy)
        )
    table = pa.table({"number": range(len(shapes)), "status": list(status), "geometry": geometry})
    about = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(about)}), path)


def zipped(path: Path, *files: Path, folder: str = "") -> Path:
    """A zip of files, or of all that lies in folders."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            for part in sorted(file.iterdir()) if file.is_dir() else [file]:
                archive.write(part, folder + str(part.relative_to(file.parent)))
    return path


def write_geojson(path: Path, shapes: Shapes, **members: Any) -> Path:
    """A collection with other members besides."""
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)} for shape in shapes]
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}))
    return path


def write_curve(path: Path) -> Path:
    """A GeoPackage with a circle of 20 pixels' radius around the grid's middle, as one curved outline."""
    write_layer(path, [box(10, 20, 50, 60)])
    x, y = GRID.xy(30.0, 40.0)
    points = [(x - 200, y), (x, y + 200), (x + 200, y), (x, y - 200), (x - 200, y)]
    curve = (
        struct.pack("<BII", 1, 10, 1) + struct.pack("<BII", 1, 8, 5) + b"".join(struct.pack("<2d", *p) for p in points)
    )
    base = sqlite3.connect(path)
    for name, value in {"Empty": 0, "MinX": x - 200, "MaxX": x + 200, "MinY": y - 200, "MaxY": y + 200}.items():
        base.create_function(f"ST_{'IsEmpty' if name == 'Empty' else name}", 1, lambda _, value=value: value)
    base.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = 'CURVEPOLYGON'")
    ((table, column),) = base.execute("SELECT table_name, column_name FROM gpkg_geometry_columns")
    base.execute(f'UPDATE "{table}" SET "{column}" = ?', (b"GP\0\1" + struct.pack("<i", 32633) + curve,))  # noqa: S608
    base.commit()
    base.close()
    return path


def burnt(path: Path, config: Config | None = None, grid: Grid = GRID, **label: Any) -> NDArray[np.uint8]:
    """The label on all of a grid, as a section ``label`` reads it."""
    return read_label(here(path), grid, Window(0, 0, *grid.shape), config or make_config(path.parent, label=label))
