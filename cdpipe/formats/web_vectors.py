"""A vector layer for the web: FlatGeobuf, of which browsers fetch what they show, and PMTiles, which maps draw at once.

Formats: https://flatgeobuf.org, https://docs.protomaps.com/pmtiles (version 3, of Mapbox Vector Tiles in Web Mercator).
The same features give the same bytes.
"""

import math
import shutil
import warnings

import pyarrow as pa

from cdpipe.errors import IntegrityError
from cdpipe.formats.ogr import ogr, ogr_errors
from cdpipe.formats.vectors import GEOMETRY, LAYER, read_features
from cdpipe.workspace.location import Location

WEB_SUFFIXES = {"flatgeobuf": ".fgb", "pmtiles": ".pmtiles"}
UNIT_M = 40_075_017 / 4096  # of a tile's coordinates at zoom 0, in metres at the equator
UNITS = 4  # of these to a pixel, at the largest zoom
MOST_ZOOM = 18


def largest_zoom(pixel_m: float) -> int:
    """The zoom from which on tiles tell apart a quarter of a pixel of so many metres; maps enlarge those for others."""
    return min(MOST_ZOOM, max(0, math.ceil(math.log2(UNIT_M * UNITS / pixel_m))))


def write_web_layer(path: Location, layer: Location, schema: pa.Schema, crs: str, pixel_m: float) -> str | None:
    """Write a layer that :func:`cdpipe.formats.vectors.write_features` wrote in one of these formats, by its suffix.

    Args:
        path: The file to publish; replaced if it exists.
        layer: The layer.
        schema: Of its features.
        crs: Its WKT.
        pixel_m: Side of the smallest pixel that it was made of, in metres.

    Returns:
        The sha256 of the published file, in hex; None of tiles without a feature, of which there is no file.

    Raises:
        IntegrityError: If it cannot be written, or lacks a feature.
    """
    folder = path.temporary()
    shutil.rmtree(folder, ignore_errors=True)
    tiles = path.suffix == WEB_SUFFIXES["pmtiles"]
    options = {"MINZOOM": 0, "MAXZOOM": largest_zoom(pixel_m), "NAME": LAYER} if tiles else {}
    try:
        table = pa.Table.from_batches([batch.cast(schema) for batch in read_features(layer)], schema)
        if tiles and not len(table):
            path.unlink(missing_ok=True)
            return None
        folder.mkdir(parents=True)
        with warnings.catch_warnings(action="ignore"):  # of columns whose type tiles do not have
            ogr().write_arrow(
                table,
                folder / path.name,
                layer=LAYER,
                driver="PMTiles" if tiles else "FlatGeobuf",
                geometry_name=GEOMETRY,
                geometry_type="Unknown",
                crs=crs,
                dataset_options=options,
            )
        _, written = ogr().raw.read_arrow(folder / path.name, columns=["id"], read_geometry=False)
        lost = set(table.column("id").to_pylist()) - set(written.column("id").to_pylist())
        if lost:
            raise IntegrityError(f"{path}: {len(lost)} of {len(table)} features are missing. Nothing was published.")
        return path.publish(folder / path.name, "vector-unnamed")
    except (*ogr_errors(), pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise IntegrityError(f"{path} could not be written: {reason}. Nothing was published.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
