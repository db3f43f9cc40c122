"""Reads polygons from KML (OGC 12-007r2) and GML (2, 3.1, 3.2) feature by feature.

By itself: nothing that such a file refers to is opened, entities are refused, and no file is written beside it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from cdpipe.errors import InputError
from cdpipe.formats.features import Features, crs_of_code, northing_first, unreadable
from cdpipe.geo.crs import WGS84_WKT
from cdpipe.workspace.location import Location

CHUNK = 2**20  # bytes read at a time
DEEPEST = 100  # elements within elements
MOST = 64 * 2**20  # characters of one feature
MOST_OUTSIDE = 5_000_000  # elements around features: folders, members, bounds
ELEMENT = 64  # characters that an element counts for, whose memory is a few times that

POLYGONS = {"Polygon", "PolygonPatch", "Rectangle", "Triangle"}
LINES = {"LineString", "Curve", "CompositeCurve", "MultiCurve", "MultiLineString", "Track", "MultiTrack", "LinearRing"}
POINTS = {"Point", "MultiPoint"}
CURVED = re.compile(r"Arc|Circle|Bezier|Spline|Geodesic|Clothoid|OffsetCurve|OrientableCurve|Cone|Cylinder|Sphere")
OUTER, INNER = {"outerBoundaryIs", "exterior"}, {"innerBoundaryIs", "interior"}
FOLDERS = {"Folder", "Document"}
_NAMESPACE = re.compile(r"http://(www\.opengis\.net/(gml|kml)|earth\.google\.com/kml|schemas\.opengis\.net/kml)")


@dataclass(slots=True)
class _Parse:
    """Where the parser is in a file."""

    path: Location
    take: Callable[[Element, list[str]], None]
    kml: bool
    stack: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    builder: TreeBuilder | None = None
    begins: int = 0
    size: int = 0
    features: int = 0
    outside: int = 0
    default_crs: str | None = None


def read_kml(path: Location, local: Path, wanted: Callable[[str], bool]) -> Features:
    """Read the polygons of the placemarks of a KML file, in WGS 84.

    Attributes are ``name``, ``description``, ``folder`` (the innermost one's name) and the extended data.

    Raises:
        InputError: If it is damaged, or leads to another file.
    """
    found = Features(WGS84_WKT)

    def take(element: Element, folders: list[str]) -> None:
        attributes: dict[str, str | None] = {"folder": folders[-1] if folders else None}
        for child in element:
            if child.tag in ("name", "description", "styleUrl"):
                attributes[child.tag] = child.text
        for data in element.iter("Data"):
            attributes[data.get("name", "")] = data.findtext("value")
        for data in element.iter("SimpleData"):
            attributes[data.get("name", "")] = data.text
        found.add(_outline(path, element, number=len(found.wkb) + 1, swap=lambda _: False), attributes, wanted)

    _parse(_Parse(path, take, kml=True), local)
    return found


def read_gml(path: Location, local: Path, wanted: Callable[[str], bool]) -> Features:
    """Read the polygons of the feature members of a GML file.

    Coordinates are in the order that the name of their coordinate reference system asks for: eastings first in
    ``EPSG:4326`` and ``...epsg.xml#4326``, as its authority has it in ``urn:...`` and ``http://www.opengis.net/def/...``.

    Raises:
        InputError: If it is damaged, has curves, refers to outlines elsewhere, or has more than one CRS.
    """
    found = Features()
    names: set[str] = set()

    def take(element: Element, _: list[str]) -> None:
        def swap(name: str | None) -> bool:
            name = name or state.default_crs
            if name is None:
                return False
            if crs_of_code(name) is None:
                raise InputError(f"{path}: expected a coordinate reference system by its code, got {name[:80]!r}")
            names.add(name)
            return northing_first(name)

        outline = _outline(path, element, number=state.features, swap=swap)
        attributes = {child.tag: child.text for child in element if not len(child) and (child.text or "").strip()}
        found.add(outline, attributes, wanted)

    state = _Parse(path, take, kml=False)
    _parse(state, local)
    codes = {crs_of_code(name) for name in names}
    if len(codes) > 1:
        raise InputError(f"{path}: expected one coordinate reference system, got {', '.join(sorted(names))}")
    found.crs = codes.pop() if codes else None
    return found


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _parse(state: _Parse, local: Path) -> None:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: _start(state, _local(name), attributes)
    parser.EndElementHandler = lambda name: _end(state, _local(name))
    parser.CharacterDataHandler = lambda text: _text(state, text)
    parser.StartDoctypeDeclHandler = lambda *_: _refuse_doctype(state)
    try:
        with local.open("rb") as file:
            while piece := file.read(CHUNK):
                parser.Parse(piece, False)
                if file.tell() - parser.CurrentByteIndex > MOST:  # in one token, which is read anew with every piece
                    raise _too_large(state)
            parser.Parse(b"", True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise unreadable(state.path, f"damaged XML: {error}") from None


def _refuse_doctype(state: _Parse) -> None:
    raise unreadable(
        state.path, "it declares a document type, whose entities are not followed; remove the line <!DOCTYPE"
    )


def _start(state: _Parse, name: str, attributes: dict[str, str]) -> None:
    if not state.stack:
        _check_root(state, name, attributes)
    if len(state.stack) > DEEPEST:
        raise unreadable(state.path, "nested too deeply")
    state.stack.append(name)
    if state.builder is None and _begins_feature(state):
        state.builder, state.begins, state.size = TreeBuilder(), len(state.stack), 0
        state.features += 1
    if state.builder is not None:
        _grow(state, ELEMENT)
        state.builder.start(name, {_local(key): value for key, value in attributes.items()})
        return
    state.outside += 1
    if state.outside > MOST_OUTSIDE:
        raise unreadable(state.path, f"it has more than {MOST_OUTSIDE} elements around features")
    if state.kml and name == "NetworkLink":
        raise unreadable(
            state.path, "it leads to another file (NetworkLink), which is not followed; save what it shows"
        )
    if state.kml and name in FOLDERS:
        state.folders.append("")
    state.default_crs = attributes.get("srsName", state.default_crs)


def _check_root(state: _Parse, name: str, attributes: dict[str, str]) -> None:
    spaces = [value for key, value in attributes.items() if key == "xmlns" or key.startswith("xmlns:")]
    if state.kml and name != "kml":
        raise unreadable(state.path, f"expected KML, got <{name[:40]}>")
    if not state.kml and not any(_NAMESPACE.match(space) for space in spaces):
        raise unreadable(state.path, f"expected GML, got <{name[:40]}>")


def _begins_feature(state: _Parse) -> bool:
    if state.kml:
        return state.stack[-1] == "Placemark"
    return len(state.stack) == 3 and state.stack[1].lower().endswith(("member", "members"))


def _grow(state: _Parse, size: int) -> None:
    state.size += size
    if state.size > MOST:
        raise _too_large(state)


def _too_large(state: _Parse) -> InputError:
    return unreadable(state.path, f"a feature is larger than {MOST >> 20} MiB; save it as a GeoPackage")


def _text(state: _Parse, text: str) -> None:
    if state.builder is not None:
        _grow(state, len(text))
        state.builder.data(text)
    elif state.kml and state.folders and state.stack[-1] == "name" and state.stack[-2] in FOLDERS:
        state.folders[-1] += text[:1000]


def _end(state: _Parse, name: str) -> None:
    if state.builder is not None:
        state.builder.end(name)
        if len(state.stack) == state.begins:
            element, state.builder = state.builder.close(), None
            state.take(element, state.folders)
    elif state.kml and name in FOLDERS:
        state.folders.pop()
    state.stack.pop()


def _outline(path: Location, feature: Element, number: int, swap: Callable[[str | None], bool]) -> Any:
    """The geometry of a feature: polygons together, or whatever else is drawn."""
    try:
        shapes = list(_shapes(feature, None, None, swap))
    except (ShapelyError, ArithmeticError, ValueError, TypeError, IndexError) as error:
        raise unreadable(path, f"geometry of feature {number}: {' '.join(str(error).split())}") from None
    if all(shape.geom_type == "Polygon" for shape in shapes):
        return shapes[0] if len(shapes) == 1 else shapely.MultiPolygon(shapes)
    return shapely.GeometryCollection(shapes)


def _shapes(
    element: Element, crs: str | None, dimension: str | None, swap: Callable[[str | None], bool]
) -> Iterator[Any]:
    """What lies beneath an element; names of coordinate systems and numbers of dimensions hold for all beneath."""
    crs, dimension = element.get("srsName", crs), element.get("srsDimension", dimension)
    tag = element.tag
    if tag in ("boundedBy", "LatLonBox", "Region", "LookAt", "Camera", "ExtendedData"):
        return
    if tag in POLYGONS:
        yield _polygon(element, crs, dimension, swap)
    elif tag in LINES | POINTS:
        points = _points(element, dimension)
        points = points[:, ::-1] if swap(_crs_beneath(element, crs)) else points
        if len(points):
            yield shapely.LineString(points) if tag in LINES and len(points) > 1 else shapely.Point(points[0])
    elif tag in ("Model", "Tin", "TriangulatedSurface", "PolyhedralSurface") and not len(element):
        raise ValueError(f"expected polygons, got {tag}")
    else:
        if "href" in element.attrib and tag.endswith(("Member", "baseSurface", "geometryProperty")):
            raise ValueError(f"it refers to an outline elsewhere (xlink:href of {tag}), which is not followed")
        for child in element:
            yield from _shapes(child, crs, dimension, swap)


def _crs_beneath(element: Element, crs: str | None) -> str | None:
    own = {child.get("srsName") for child in element.iter() if child.get("srsName")}
    if len(own) > 1:
        raise ValueError(f"two coordinate reference systems, {' and '.join(sorted(map(str, own)))}")
    return own.pop() if own else crs


def _polygon(element: Element, crs: str | None, dimension: str | None, swap: Callable[[str | None], bool]) -> Any:
    curved = next((child.tag for child in element.iter() if CURVED.search(child.tag)), None)
    if curved:
        raise ValueError(f"its outline is curved ({curved}); save it with straight edges, as a GeoPackage")
    if any("href" in child.attrib for child in element.iter()):
        raise ValueError("it refers to an outline elsewhere (xlink:href), which is not followed")
    outer = [_points(child, dimension) for child in element if child.tag in OUTER]
    inner = [_points(child, dimension) for child in element if child.tag in INNER]
    if len(outer) != 1:
        raise ValueError(f"expected one outer ring, got {len(outer)}")
    if swap(_crs_beneath(element, crs)):
        outer, inner = [ring[:, ::-1] for ring in outer], [ring[:, ::-1] for ring in inner]
    return shapely.Polygon(outer[0], inner) if len(outer[0]) else shapely.Polygon()


def _points(element: Element, dimension: str | None) -> NDArray[np.float64]:
    """Coordinates beneath an element, in the order of the file: (points, 2)."""
    found = []
    for child in element.iter():
        text = child.text or ""
        if child.tag == "coordinates":
            found.append(_tuples(child, text))
        elif child.tag in ("pos", "posList"):
            size = child.get("srsDimension", child.get("dimension", element.get("srsDimension", dimension)))
            numbers = np.array(text.split(), np.float64)
            found.append(_by_dimension(numbers, int(size) if size else None, child.tag == "pos")[:, :2])
        elif child.tag == "coord" and child.find("X") is not None:  # GML 2; of KML's tracks, text
            found.append(np.array([[child.findtext("X"), child.findtext("Y")]], np.float64))
    points = np.concatenate(found) if found else np.zeros((0, 2))
    if not np.isfinite(points).all():
        raise ValueError("expected finite numbers")
    return points


def _by_dimension(numbers: NDArray[np.float64], size: int | None, single: bool) -> NDArray[np.float64]:
    if size is None:
        size = len(numbers) if single else 2
        closed = len(numbers) % 2 == 0 and (numbers[:2] == numbers[-2:]).all()
        if not single and not closed and len(numbers) % 3 == 0 and (numbers[:2] == numbers[-3:-1]).all():
            size = 3  # said by nobody, as by many a writer
    if size not in (2, 3, 4) or len(numbers) % size:
        raise ValueError(f"expected points of {size} numbers, got {len(numbers)} numbers")
    return numbers.reshape(-1, size)


def _tuples(element: Element, text: str) -> NDArray[np.float64]:
    """``x,y[,z] x,y[,z]``, or with other separators as GML 2 allows."""
    within, between, point = element.get("cs", ","), element.get("ts", " "), element.get("decimal", ".")
    if between.strip():
        text = text.replace(between, " ")
    if within.strip():
        text = re.sub(rf"\s*{re.escape(within)}\s*", "\0", text)
    text = text.replace(point, ".")
    rows = [part.split("\0")[:2] for part in text.split()]
    return np.array(rows, np.float64).reshape(-1, 2)
