"""World files, and the files beside a raster that name its CRS: where they are a raster's only georeference.

Six lines of text, the coefficients of an affine transform for the middles of pixels. Format:
https://desktop.arcgis.com/en/arcmap/latest/manage-data/raster-and-images/world-files-for-raster-datasets.htm
"""

import re

import pyproj
from rasterio.crs import CRS

from cdpipe.errors import InputError
from cdpipe.geo.crs import canonical_wkt
from cdpipe.geo.grid import Transform, is_possible
from cdpipe.workspace.location import Location, present

WORLD_FILE_BYTES = 4096  # six numbers; the longest that are found have 200
PRJ_BYTES = 2**16  # the longest in EPSG's list have 6000
PAM_BYTES = 2**20  # that are looked at: a georeference comes before histograms and attribute tables
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_PAM_PLACE = re.compile(rb"<\s*(GeoTransform|SRS|GCPList)\b")
_PAM_NODATA = re.compile(rb"<\s*NoDataValue\b")


def georeference_files(path: Location) -> list[Location]:
    """The files beside a raster that may say where it lies, as far as they are there: part of what it is made of.

    They are used where the raster itself does not say it: a world file (``.tfw``, ``.tifw``, ``.wld``, ... by the
    raster's suffix), and a ``.prj`` with the CRS as WKT, unless that belongs to a shapefile of the same name.
    """
    names = [*_world_suffixes(path.suffix), ".prj"]
    files = [path.with_suffix(spelt) for name in names for spelt in (name, name.upper())]
    shapefiles = [path.with_suffix(".shp"), path.with_suffix(".SHP")]
    there = present([*files, *shapefiles])
    of_shapefile = any(file in there for file in shapefiles)
    return [file for file in files if file in there and not (of_shapefile and is_prj(file))]


def is_prj(file: Location) -> bool:
    """Whether one of :func:`georeference_files` names a CRS, and is no world file."""
    return file.suffix.lower() == ".prj"


def _world_suffixes(suffix: str) -> list[str]:
    """Suffixes of world files: .tfw and .tiffw for .tiff, and .wld for all."""
    letters = suffix.lower().removeprefix(".")
    return ([f".{letters[0]}{letters[-1]}w", f".{letters}w"] if letters else []) + [".wld"]


def read_world_files(files: list[Location]) -> Transform | None:
    """The transform that the world files of a raster give, for pixel corners; None without any.

    Raises:
        InputError: If one is not six numbers that can be a map's, or two of them differ.
    """
    read = [(file, _read_world_file(file)) for file in files if not is_prj(file)]
    for file, transform in read[1:]:
        if transform != read[0][1]:
            raise InputError(f"{file}: says another place than {read[0][0].name}; expected one world file")
    return read[0][1] if read else None


def _read_world_file(file: Location) -> Transform:
    text = _read_text(file, WORLD_FILE_BYTES, "a world file of six lines")
    lines = text.split()
    if any("," in line for line in lines):
        raise InputError(f"{file}: expected numbers with a decimal point in a world file, got a comma: replace it")
    if len(lines) != 6 or not all(map(_NUMBER.fullmatch, lines)):
        raise InputError(f"{file}: expected a world file, six lines with a number each; got {_shown(lines)}")
    a, d, b, e, x, y = map(float, lines)
    # x, y is the middle of the first pixel
    transform = (a, b, x - a / 2 - b / 2, d, e, y - d / 2 - e / 2)
    if not is_possible(transform):
        raise InputError(f"{file}: expected the transform of a map in a world file, got {_shown(lines)}")
    return transform


def _shown(lines: list[str]) -> str:
    return ascii(" ".join(lines[:6])[:80]) if lines else "none"


def read_prj(files: list[Location]) -> str | None:
    """The CRS that a ``.prj`` among the files gives, as canonical WKT; None without one.

    Raises:
        InputError: If it is no WKT of a CRS.
    """
    file = next(filter(is_prj, files), None)
    if file is None:
        return None
    text = _read_text(file, PRJ_BYTES, "a CRS as WKT").strip()
    try:
        pyproj.CRS.from_wkt(text)  # rasterio prints what it does not know
        crs = CRS.from_wkt(text, morph_from_esri_dialect=True)
        code = crs.to_epsg(confidence_threshold=90)  # as GDAL looks up a shapefile's: ESRI's names are others
        return canonical_wkt(CRS.from_epsg(code) if code else crs)
    except Exception:  # noqa: BLE001 (each library has errors of its own, and all mean this)
        raise InputError(f"{file}: expected a coordinate reference system as WKT, got {_shown([text])}") from None


def placing_pam(path: Location) -> Location | None:
    """The .aux.xml file beside a raster if it has a georeference; GDAL reads it, if ``input.sidecars`` says so."""
    return _pam_with(path, _PAM_PLACE)


def nodata_pam(path: Location) -> Location | None:
    """The .aux.xml file beside a raster if it has a nodata value, likewise."""
    return _pam_with(path, _PAM_NODATA)


def _pam_with(path: Location, wanted: re.Pattern[bytes]) -> Location | None:
    file = path.with_name(f"{path.name}.aux.xml")
    try:
        size = file.stat().size
        return file if wanted.search(file.read_ranges([(0, min(size, PAM_BYTES))])[0]) else None
    except OSError:
        return None


def _read_text(file: Location, limit: int, what: str) -> str:
    size = file.stat().size
    if size > limit:
        raise InputError(f"{file}: expected {what}, got {size} bytes; expected at most {limit}")
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file}: expected {what}, got bytes that are no text") from None
