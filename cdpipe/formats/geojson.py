"""Reads GeoJSON (RFC 7946, its forerunner of 2008, and sequences after RFC 8142).

By itself, feature by feature: GDAL would follow what such a file says to other files and hosts, and it takes a
coordinate reference system that it does not know for WGS 84.
"""

import codecs
import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import shapely
from shapely.errors import ShapelyError

from cdpipe.errors import InputError
from cdpipe.formats.features import Features, crs_of_code, unreadable
from cdpipe.geo.crs import WGS84_WKT, crs_name
from cdpipe.workspace.location import Location

CHUNK = 4 * 2**20  # bytes read at a time
MOST = 32 * 2**20  # characters of one feature, which takes about eight times as much memory
MOST_MEMBERS = 10_000  # of the whole file's object
MOST_FEATURES = 5_000_000
DEEPEST = 8  # collections within collections
OTHERS = {"Point", "MultiPoint", "LineString", "MultiLineString"}

_DECODER = json.JSONDecoder(strict=False)  # control characters in text are nobody's harm
_BLANK = re.compile(r"[ \t\r\n\x1e]*")  # with the record separators of RFC 8142
_NEAR_END = 64  # a mistake so near to the end of what is read may be that the rest is missing
_MISSING = object()


def read_geojson(path: Location, local: Path, wanted: Callable[[str], bool]) -> Features:
    """Read a GeoJSON file: a collection, a feature, a geometry, or a sequence of them.

    Coordinates are in WGS 84 unless the collection, or every feature alike, names another coordinate reference
    system by its code; ``null`` names none. Longitudes and eastings come first, whatever the code.

    Args:
        path: What the file is called.
        local: The file, or its copy on this machine.
        wanted: Which attributes are of interest.

    Raises:
        InputError: If it is damaged, no GeoJSON, or refers to a coordinate reference system in another way.
    """
    found = Features()
    said: dict[str | None, int] = {}  # by features, and how many say so
    with local.open("rb") as file, _no_cycles():
        stream = _Stream(path, file)
        whole = _read_root(path, stream, lambda feature: _add(path, feature, found, wanted, said))
        while stream.peek():  # a sequence
            value = stream.value()
            if not isinstance(value, dict):
                raise unreadable(path, "expected an object after the first one")
            _take(path, value, lambda feature: _add(path, feature, found, wanted, said))
    found.crs = _only_crs(path, whole, said)
    return found


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Leave out the search for cycles, of which JSON has none: it takes four times as long as all else."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class _Stream:
    """The text of a file, a piece at a time."""

    def __init__(self, path: Location, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False

    def fill(self) -> None:
        piece = self.file.read(max(CHUNK, len(self.text) - self.at))
        self.ended = not piece
        try:
            self.text = self.text[self.at :] + self.decoder.decode(piece, final=self.ended)
        except UnicodeDecodeError:
            raise unreadable(self.path, "expected text in UTF-8") from None
        self.at = 0

    def peek(self) -> str:
        """The next character that is not blank, where the stream then stands; empty at the end."""
        while True:
            blank = _BLANK.match(self.text, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.fill()

    def take(self, characters: str) -> str:
        """The next character, which must be one of these."""
        found = self.peek()
        if not found or found not in characters:
            raise unreadable(self.path, f"expected {' or '.join(characters)}, got {found or 'the end of the file'}")
        self.at += 1
        return found

    def value(self) -> Any:
        """The next value, whatever it is."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            except RecursionError:
                raise unreadable(self.path, "nested too deeply") from None
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self.text) - _NEAR_END or error.msg.startswith("Unterminated")
                if self.ended or not cut:
                    raise unreadable(self.path, f"damaged JSON: {error.msg}") from None
            except ValueError:
                raise unreadable(self.path, "a number has too many digits") from None
            if len(self.text) - self.at > MOST:
                raise unreadable(self.path, f"a feature is larger than {MOST >> 20} MiB; save it as a GeoPackage")
            self.fill()


def _read_root(path: Location, stream: _Stream, add: Callable[[Mapping[str, Any]], None]) -> Any:
    """Read the first object of a file, features of a collection as they come; returns its member ``crs``."""
    members: dict[str, Any] = {}
    crs: Any = _MISSING
    for key in _members(path, stream):
        if key == "features" and stream.peek() == "[":
            for feature in _elements(stream):
                add(_feature(path, feature))
            members[key] = ()
        elif key.lower() == "crs":
            if crs is not _MISSING:
                raise unreadable(path, "it has two members crs")
            crs = stream.value()
        else:
            members[key] = stream.value()
    kind = members.get("type")
    if kind == "FeatureCollection" or "features" in members:
        if kind != "FeatureCollection":
            raise _not_geojson(path, members)
        return crs
    if crs is not _MISSING:
        members["crs"] = crs  # of this object alone, where others follow
    _take(path, members, add)
    return _MISSING


def _members(path: Location, stream: _Stream) -> Iterator[str]:
    """Names of an object's members; whoever asks for the next has read the value of the last."""
    stream.take("{")
    if stream.peek() == "}":
        stream.take("}")
        return
    for _ in range(MOST_MEMBERS):
        key = stream.value()
        if not isinstance(key, str):
            raise unreadable(path, "damaged JSON: expected a member's name")
        stream.take(":")
        yield key
        if stream.take(",}") == "}":
            return
    raise unreadable(path, f"it has more than {MOST_MEMBERS} members")


def _elements(stream: _Stream) -> Iterator[Any]:
    stream.take("[")
    if stream.peek() == "]":
        stream.take("]")
        return
    while True:
        yield stream.value()
        if stream.take(",]") == "]":
            return


def _feature(path: Location, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.get("type", "Feature") != "Feature":
        raise unreadable(path, "expected features in a FeatureCollection")
    if "attributes" in value and "properties" not in value:
        raise _not_geojson(path, {"attributes": ()})
    return value


def _take(path: Location, value: Mapping[str, Any], add: Callable[[Mapping[str, Any]], None]) -> None:
    """Add what an object of a sequence holds, or a file that is a single object."""
    kind = value.get("type")
    if kind == "Feature":
        add(value)
    elif kind == "FeatureCollection" and isinstance(value.get("features"), list) and value.get("crs") is None:
        for feature in value["features"]:
            add(_feature(path, feature))
    elif kind in {*OTHERS, "Polygon", "MultiPolygon", "GeometryCollection"}:
        add({"geometry": value})
    else:
        raise _not_geojson(path, value)


def _not_geojson(path: Location, members: Mapping[str, Any]) -> InputError:
    kind = members.get("type")
    what = {"Topology": "TopoJSON"}.get(str(kind), f"an object of type {str(kind)[:40]!r}" if kind else "other JSON")
    if {"attributes", "geometryType", "spatialReference", "fieldAliases"} & members.keys():
        what = "Esri JSON"
    return unreadable(path, f"expected GeoJSON, got {what}; save it as GeoJSON or GeoPackage")


def _add(
    path: Location,
    feature: Mapping[str, Any],
    found: Features,
    wanted: Callable[[str], bool],
    said: dict[str | None, int],
) -> None:
    number = sum(said.values()) + 1
    if number > MOST_FEATURES:
        raise unreadable(path, f"it has more than {MOST_FEATURES} features; save them as a GeoPackage")
    geometry, properties = feature.get("geometry"), feature.get("properties")
    if geometry is None and feature.get("place") is not None:
        raise unreadable(path, "its outlines are members 'place' of JSON-FG; save it as GeoJSON or GeoPackage")
    try:
        shape = None if geometry is None else _shape(geometry)
    except (ShapelyError, ArithmeticError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(path, f"geometry of feature {number}: {' '.join(str(error).split())}") from None
    name = None
    for holder in (feature, geometry if isinstance(geometry, dict) else {}):
        for key in holder:
            if key.lower() == "crs" and holder[key] is not None:
                name = _named_crs(path, holder[key])
    said[name] = said.get(name, 0) + 1
    found.add(shape, properties if isinstance(properties, dict) else {}, wanted)


def _shape(geometry: Mapping[str, Any], depth: int = 0) -> Any:
    kind = geometry["type"]
    if kind == "Polygon":
        return _polygon(geometry["coordinates"])
    if kind == "MultiPolygon":
        return shapely.MultiPolygon([_polygon(rings) for rings in geometry["coordinates"]])
    if kind == "GeometryCollection" and depth < DEEPEST:
        return shapely.GeometryCollection([_shape(part, depth + 1) for part in geometry["geometries"]])
    if kind in OTHERS:
        return shapely.geometry.shape(geometry)
    raise ValueError(f"expected a polygon, got {str(kind)[:40]!r}")


def _polygon(rings: Any) -> Any:
    lines = [np.asarray(ring, np.float64)[:, :2] for ring in rings if ring]
    if not all(np.isfinite(line).all() for line in lines):
        raise ValueError("expected finite numbers")
    return shapely.Polygon(lines[0], lines[1:]) if lines else shapely.Polygon()


def _only_crs(path: Location, whole: Any, said: Mapping[str | None, int]) -> str:
    """The coordinate reference system of all that a file holds."""
    crs = None if whole is _MISSING or whole is None else _named_crs(path, whole)
    own = [name for name in said if name is not None]
    if not own:
        return crs or WGS84_WKT
    if len(said) > 1 or crs not in (None, own[0]):
        names = " and ".join(dict.fromkeys("none" if name is None else crs_name(name) for name in [*said, crs]))
        raise InputError(
            f"{path}: expected one coordinate reference system for the file, got {names}, said by its features; "
            "state one as a member of the collection, or save the file in EPSG:4326"
        )
    return own[0]


def _named_crs(path: Location, crs: Any) -> str:
    """WKT of a member ``crs``: by name, or in the older forms with a code."""
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name: Any = crs if isinstance(crs, str) else None
    if isinstance(crs, dict) and isinstance(properties, dict):
        kind = str(crs.get("type")).lower()
        if kind == "name":
            name = properties.get("name")
        elif kind == "epsg":
            name = f"EPSG:{str(properties.get('code')).upper().removeprefix('EPSG:')}"
        elif kind == "ogc":
            name = properties.get("urn")
    wkt = crs_of_code(name) if isinstance(name, str) else None
    if wkt is None:
        raise InputError(
            f"{path}: expected a coordinate reference system by its code, such as "
            f'"crs": {{"type": "name", "properties": {{"name": "urn:ogc:def:crs:EPSG::32633"}}}}, '
            f"got {repr(name[:80]) if isinstance(name, str) else 'another form'}"
        )
    return wkt
