"""A project for QGIS of what was found in a pair: its objects, change and probability, by paths from where it lies."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cdpipe.formats.vectors import SUFFIXES
from cdpipe.geo.crs import WGS84_WKT

FORMATS = (SUFFIXES["gpkg"], SUFFIXES["geojson"], ".tif")  # that every QGIS opens
NAMES = {"objects": "Changes", "change": "Changed pixels", "probability": "Probability of change"}


def describe_project(
    name: str, facts: Mapping[str, Any], files: Sequence[tuple[str, str]], styles: Mapping[str, str]
) -> dict[str, Any] | None:
    """What the template of a project names, ``project.qgs.j2``; None where nothing has a place in a CRS.

    Args:
        name: What its owner calls the pair.
        facts: See :func:`cdpipe.report.pair.make_pair`.
        files: Name and path from the run's folder of what was published of it.
        styles: QML of ``change``, ``probability`` and ``objects``.
    """
    wkt = facts["place"].get("wkt")
    listed = [(file, path) for file, path in files if file.endswith(FORMATS)]
    if wkt is None or not listed:
        return None
    layers = [_layer(file, f"../../{path}", wkt, styles) for file, path in listed]
    layers.sort(key=lambda layer: (list(NAMES.values()).index(layer["name"].partition(",")[0]), layer["name"]))
    return {
        "name": name,
        "wkt": wkt,
        "extent": _extent(facts),
        "layers": layers,
    }


def _layer(file: str, source: str, wkt: str, styles: Mapping[str, str]) -> dict[str, Any]:
    raster = file.endswith(".tif")
    kind = ("probability" if "_probability" in file else "change") if raster else "objects"
    model = file.removesuffix(".tif").rpartition("_probability")[2].lstrip("_") if kind == "probability" else ""
    return {
        "id": re.sub(r"\W", "_", file),
        "name": NAMES[kind] + (f", {model}" if model else ""),
        "type": "raster" if raster else "vector",
        "provider": "gdal" if raster else "ogr",
        "source": source,
        "wkt": WGS84_WKT if file.endswith(SUFFIXES["geojson"]) else wkt,
        "style": _inner(styles[kind]),
        "shown": kind != "probability",
    }


def _inner(style: str) -> str:
    """What stands within a style: a project's layer has the same."""
    return style[style.index(">", style.index("<qgis")) + 1 : style.rindex("</qgis>")].strip("\n")


def _extent(facts: Mapping[str, Any]) -> list[float]:
    """West, south, east and north in the CRS."""
    (height, width), (a, b, c, d, e, f) = facts["size"], facts["place"]["transform"]
    x = [a * col + b * row + c for row in (0, height) for col in (0, width)]
    y = [d * col + e * row + f for row in (0, height) for col in (0, width)]
    room = 0.05 * math.hypot(max(x) - min(x), max(y) - min(y))
    return [min(x) - room, min(y) - room, max(x) + room, max(y) + room]
