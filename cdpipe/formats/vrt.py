"""Reads what a VRT, GDAL's virtual raster, is made of: before GDAL opens it, and nothing that could lead it elsewhere.

Format: https://gdal.org/en/stable/drivers/raster/vrt.html. GDAL reads VRTs by a lenient parser of its own, which takes
elements in any case, and attributes for elements. So what is allowed is listed here, and everything else refused: bands
computed by functions, raw files, warped and pansharpened rasters, options, overviews, and what is not plain XML.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from cdpipe.errors import InputError
from cdpipe.workspace.location import Location

MAX_BYTES = 16 * 2**20  # tens of thousands of sources
BEGINNING = 2**16  # bytes by which GDAL tells a VRT, at most; the first zero ends them
_MARK = b"<VRTDataset"
_PLAIN_CRS = re.compile(r"\s*(?:(?:EPSG|ESRI|OGC|IAU\w*):\w+|[A-Za-z_]+\s*\[.*)\s*", re.DOTALL)
_BAND = re.compile(r"\s*(?:mask,)?\d+\s*")
_DOMAINS = ("", "IMAGE_STRUCTURE", "IMAGERY", "RPC")  # of metadata; others may name files

_SOURCES = ("SimpleSource", "ComplexSource", "AveragedSource", "NoDataFromMaskSource")
# What each element may hold; an element that is not a key holds text alone.
_CHILDREN: dict[str, tuple[str, ...]] = {
    "VRTDataset": (
        "SRS",
        "GeoTransform",
        "GCPList",
        "Metadata",
        "VRTRasterBand",
        "MaskBand",
        "BlockXSize",
        "BlockYSize",
    ),
    "MaskBand": ("VRTRasterBand",),
    "GCPList": ("GCP",),
    "GCP": (),
    "Metadata": ("MDI",),
    "VRTRasterBand": (
        *_SOURCES,
        *("Description", "UnitType", "Offset", "Scale", "CategoryNames", "ColorInterp", "ColorTable", "NoDataValue"),
        *("HideNoDataValue", "Metadata", "Histograms"),
    ),
    "CategoryNames": ("Category",),
    "ColorTable": ("Entry",),
    "Entry": (),
    "Histograms": ("HistItem",),
    "HistItem": ("HistMin", "HistMax", "BucketCount", "IncludeOutOfRange", "Approximate", "HistCounts"),
    **dict.fromkeys(
        _SOURCES,
        (
            *("SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA", "UseMaskBand"),
            *("ScaleOffset", "ScaleRatio", "LUT", "ColorTableComponent", "MaskValueThreshold", "RemappedValue"),
        ),
    ),
    "SourceProperties": (),
    "SrcRect": (),
    "DstRect": (),
}
_RECT = ("xOff", "yOff", "xSize", "ySize")
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "VRTDataset": ("rasterXSize", "rasterYSize"),
    "SRS": ("dataAxisToSRSAxisMapping", "coordinateEpoch", "mapping"),
    "GCPList": ("Projection", "dataAxisToSRSAxisMapping"),
    "GCP": ("Id", "Info", "Pixel", "Line", "X", "Y", "Z"),
    "Metadata": ("domain",),
    "MDI": ("key",),
    "VRTRasterBand": ("dataType", "band", "blockXSize", "blockYSize"),
    "Entry": ("c1", "c2", "c3", "c4"),
    **dict.fromkeys(_SOURCES, ("resampling",)),
    "SourceFilename": ("relativeToVRT", "shared"),
    "SourceProperties": ("RasterXSize", "RasterYSize", "DataType", "BlockXSize", "BlockYSize"),
    "SrcRect": _RECT,
    "DstRect": _RECT,
}


def is_vrt(path: Location) -> bool:
    """Whether GDAL may take a file for a VRT, whatever comes before the mark."""
    size = path.stat().size
    return _MARK in path.read_ranges([(0, min(size, BEGINNING))])[0].partition(b"\0")[0]


def vrt_sources(path: Location) -> list[Location]:
    """The files that a VRT names as sources of its pixels, each once.

    Raises:
        InputError: If it is no VRT of plain sources, or names anything but files.
    """
    return list(
        dict.fromkeys(_source(path, element) for element in _checked(path, _parse(path)) if _is_source(element))
    )


def _is_source(element: ET.Element) -> bool:
    return element.tag == "SourceFilename"


def _refusal(path: Location, got: str) -> InputError:
    return InputError(
        f"{path}: expected a VRT of plain sources, got {got}; "
        f"make a GeoTIFF of it: gdal_translate {path.name} scene.tif"
    )


def _parse(path: Location) -> ET.Element:
    size = path.stat().size
    if size > MAX_BYTES:
        raise InputError(f"{path}: expected a VRT of at most {MAX_BYTES // 2**20} MiB, got {size / 2**20:.0f} MiB")
    data = path.read_bytes()
    # no types of documents, entities, comments and sections, that parsers may take differently
    if b"<!" in data or b"&#" in data or b"\0" in data or data.count(b"<?") > data.lstrip().startswith(b"<?xml "):
        raise _refusal(path, "other things than elements and text")
    try:
        return ET.fromstring(data.decode())  # noqa: S314 (nothing that could hold an entity is left)
    except (UnicodeDecodeError, ET.ParseError, ValueError) as error:
        raise _refusal(path, f"no XML in UTF-8: {error}") from None


def _checked(path: Location, root: ET.Element) -> Iterator[ET.Element]:
    """All elements, each with nothing but what is allowed."""
    if root.tag != "VRTDataset":
        raise _refusal(path, f"<{root.tag[:80]}>")
    left = [root]
    while left:
        element = left.pop()
        children = _CHILDREN.get(element.tag)
        unknown = [child.tag for child in element if child.tag not in (children or ())]
        unknown += [name for name in element.attrib if name not in _ATTRIBUTES.get(element.tag, ())]
        if element.attrib.get("subClass") == "VRTSourcedRasterBand":
            unknown.remove("subClass")
        if unknown:
            raise _refusal(path, f"{unknown[0][:80]!a} in <{element.tag}>")
        if children is not None and (element.text or "").strip():
            raise _refusal(path, f"text in <{element.tag}>")
        if any((child.tail or "").strip() for child in element):
            raise _refusal(path, f"text in <{element.tag}>")
        _check_text(path, element)
        yield element
        left.extend(reversed(element))


def _check_text(path: Location, element: ET.Element) -> None:
    text = element.attrib.get("Projection", "") if element.tag == "GCPList" else element.text or ""
    if element.tag in ("SRS", "GCPList") and text.strip() and not _PLAIN_CRS.fullmatch(text):
        raise _refusal(path, f"a CRS that is neither WKT nor a code: {text.strip()[:80]!a}")
    if element.tag == "SourceBand" and not _BAND.fullmatch(text):
        raise _refusal(path, f"{text[:80]!a} as the number of a band")
    if element.tag == "Metadata" and element.attrib.get("domain", "") not in _DOMAINS:
        raise _refusal(path, f"metadata in domain {element.attrib['domain'][:80]!a}")
    if element.tag in _SOURCES and sum(map(_is_source, element)) != 1:
        raise _refusal(path, f"<{element.tag}> without one <SourceFilename>")


def _source(path: Location, element: ET.Element) -> Location:
    name, relative = element.text or "", element.attrib.get("relativeToVRT", "0")
    shown = ascii(name[:200])
    if name != name.strip() or not name or not name.isprintable() or relative not in ("0", "1"):
        raise _refusal(path, f"{shown} as the name of a source")
    if name.startswith("/vsi") or (not name.startswith("/") and re.search(r"[:<{\\]", name)):
        raise InputError(f"{path}: names {shown} as a source; expected files, by their paths")
    absolute = name.startswith("/")
    if (path.far and absolute) or (relative == "0" and not absolute) or (path.far and ".." in name.split("/")):
        raise InputError(f"{path}: names {shown} as a source; expected a path relative to the VRT (relativeToVRT)")
    # GDAL looks beside the file that a link leads to
    return Location(path.storage, name) if absolute else path.resolve().parent / name
