"""The files that a raster is read from, beside the one that is named: they are hashed with it, and pass the gate."""

from collections.abc import Callable, Iterator
from functools import lru_cache

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.vrt import is_vrt, vrt_sources
from cdpipe.workspace.location import Location, present

# What GDAL reads beside a raster: appended to its name, or instead of its suffix.
APPENDED = (".aux.xml", ".msk", ".ovr", ".hdr", ".msk.aux.xml", ".ovr.aux.xml")
REPLACED = (".aux", ".rrd", ".hdr", ".tab", ".imd", ".rpb", ".pvl", ".att", ".eph", ".geo", ".til", ".j2w")
ENDINGS = ("_rpc.txt", "_metadata.txt", "_mtl.txt")  # of the metadata that comes with a scene
RASTERS = (".msk", ".ovr")  # which GDAL opens as rasters of any format
NO_RASTERS = (".xml", ".txt", ".msk", ".ovr", *REPLACED)
# Formats of a single file, as far as no sidecars are read.
SINGLE = {"GTiff", "COG", "PNG", "JPEG", "JP2OpenJPEG", "JPEGXL", "WEBP", "GIF", "BMP", "netCDF", "HDF5", "GPKG"}
MAX_XML_BYTES = 64 * 2**20
MAX_DEPTH, MAX_SOURCES = 4, 2000  # VRTs within each other, and files that one leads to
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAGIC = {
    "GTiff": TIFFS,
    "COG": TIFFS,
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
}
BEGINNING = 16  # bytes that tell a format

Require = Callable[[Location], None]


def sidecars_of(path: Location) -> list[Location]:
    """What lies beside a raster and is read with it, if sidecars count."""
    names = [*(path.name + end for end in APPENDED), *(path.stem + end for end in (*REPLACED, *ENDINGS))]
    names += [path.name + ".MSK", path.name + ".OVR", *(path.stem + end.upper() for end in (*REPLACED, *ENDINGS))]
    files = dict.fromkeys(path.with_name(name) for name in names)
    files.pop(path, None)
    return present([*files])


def require_plain_sidecars(path: Location, require: Require) -> list[Location]:
    """What lies beside a raster and is read with it, each of which may be read and leads GDAL to no other file.

    Raises:
        InputError: If one may not, or does.
    """
    found = sidecars_of(path)
    for file in found:
        require(file)
        if file.suffix.lower() in RASTERS and not _begins(file, TIFFS):
            raise InputError(f"{file}: expected a TIFF beside {path.name}, got another format")
        if file.suffix.lower() == ".xml":
            _require_own(file)
    return found


def _require_own(file: Location) -> None:
    """Metadata beside a raster may name a file with overviews, wherever that lies."""
    size = file.stat().size
    if size > MAX_XML_BYTES:
        raise InputError(f"{file}: expected at most {MAX_XML_BYTES // 2**20} MiB, got {size / 2**20:.0f}")
    data = file.read_bytes().lower()
    if any(word in data for word in (b"overview_file", b"proxyoverviewrequest", b"<!", b"/vsi", b"&#")):
        raise InputError(f"{file}: expected metadata alone, got what may lead to other files; remove it")


def vrt_parts(path: Location, settings: Input, require: Require) -> list[Location]:
    """All files that a VRT leads to, those of VRTs among them, too; none of them has been opened by GDAL.

    Args:
        path: The VRT.
        settings: Which formats they may have.
        require: Refuses a file that may not be read.

    Raises:
        InputError: If one may not be read, has another format, or they lead in a circle or to too many.
    """
    found: dict[Location, None] = {}
    for file in _walk(path, settings, require, ()):
        found[file] = None
        if len(found) > MAX_SOURCES:
            raise InputError(f"{path}: leads to more than {MAX_SOURCES} files; make a GeoTIFF of it")
    return [*found]


def _walk(path: Location, settings: Input, require: Require, above: tuple[Location, ...]) -> Iterator[Location]:
    above = (*above, path.resolve())
    if len(above) > MAX_DEPTH:
        raise InputError(f"{path}: lies {MAX_DEPTH} VRTs deep in {above[0]}; expected fewer")
    for source in _sources(path, path.stat().tag):
        require(source)
        yield source
        if source.resolve() in above:
            raise InputError(f"{path}: names {source.name}, which leads back to it")
        if is_vrt(source):
            yield from _walk(source, settings, require, above)
        elif not _begins(source, tuple(magic for driver in settings.drivers for magic in MAGIC.get(driver, ()))):
            names = ", ".join(driver for driver in settings.drivers if driver in MAGIC) or "none"
            raise InputError(f"{source}: a source of {path.name}; expected one of {names} (input.drivers) or a VRT")
        if settings.sidecars:
            yield from require_plain_sidecars(source, require)


@lru_cache(maxsize=256)
def _sources(path: Location, tag: int | str) -> tuple[Location, ...]:  # noqa: ARG001 (another content, another answer)
    return tuple(vrt_sources(path))


def likely_format(path: Location) -> str | None:
    """The format that a file seems to have, by GDAL's name; None where its beginning tells none that is known here."""
    if is_vrt(path):
        return "VRT"
    start = _beginning(path)
    return next((name for name in MAGIC if start.startswith(MAGIC[name])), None)


def _begins(file: Location, beginnings: tuple[bytes, ...]) -> bool:
    return _beginning(file).startswith(beginnings)


def _beginning(file: Location) -> bytes:
    return file.read_ranges([(0, min(BEGINNING, file.stat().size))])[0]
