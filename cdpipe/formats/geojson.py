"""Keeps GDAL from following what a GeoJSON file says of its coordinate reference system to another place."""

import io
import mmap
import re
from pathlib import Path

from rasterio.crs import CRS
from rasterio.errors import CRSError

from cdpipe.errors import InputError

# A member "crs" as GDAL may understand it, at any depth: in any case, with escaped letters, in single quotes.
_MEMBER = re.compile(rb"""["'](?:[cC]|\\u00[46]3)(?:[rR]|\\u00[57]2)(?:[sS]|\\u00[57]3)(?:["']|\\u0000|\0)""")
_HARMLESS = re.compile(rb'"crs"\s*:\s*[^\s{/]')  # no object, so nothing that GDAL follows
_NAMED = re.compile(
    rb'"crs"\s*:\s*\{\s*"type"\s*:\s*"name"\s*,\s*"properties"\s*:\s*\{\s*"name"\s*:\s*"([\w:./+-]*)"\s*\}\s*\}'
)
_KNOWN = re.compile(r"[A-Za-z]+:\w+|urn:ogc:def:crs:[\w:.]+")


def require_plain_crs(path: Path, local: Path | None = None) -> None:
    """A GeoJSON file may name its coordinate reference system by a code and in no other way.

    GDAL would fetch a linked one from the network, and take one that it does not know for WGS 84.

    Args:
        path: What the file is called.
        local: Its copy on this machine, if it lies elsewhere.

    Raises:
        InputError: If it is not so.
    """
    with (local or path).open("rb") as file:
        if not file.seek(0, io.SEEK_END):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for member in _MEMBER.finditer(data):
                if not _HARMLESS.match(data, member.start()):
                    _require_known(path, _NAMED.match(data, member.start()))


def _require_known(path: Path, named: re.Match[bytes] | None) -> None:
    name = named[1].decode("ascii", "replace") if named else ""
    try:
        if _KNOWN.fullmatch(name):
            CRS.from_user_input(name)
            return
    except CRSError:
        pass
    raise InputError(
        f"{path}: expected a coordinate reference system by its code, such as "
        f'"crs": {{"type": "name", "properties": {{"name": "urn:ogc:def:crs:EPSG::32633"}}}}, '
        f"got {repr(name) if name else 'another form'}"
    )
