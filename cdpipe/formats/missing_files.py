"""Why a file that somebody names is not there."""

import re
import unicodedata
from collections.abc import Iterator

from cdpipe.config.place import VARIABLE
from cdpipe.workspace.location import Location

NETCDF_NAME = re.compile(r"(^|/)netcdf:", re.IGNORECASE)  # as GDAL and QGIS name a variable of a file
QUOTES = "\"'\u2018\u2019\u201c\u201d"
HIDDEN = re.compile("[\u200b-\u200f\u2060\ufeff]")


def why_missing(path: Location) -> str:
    """What is likely, to be added to "there is no such file"; nothing where nothing is.

    It names no other file, so that the same cause reads the same for all of a catalog's files.
    """
    return next(_causes(path), "")


def _causes(path: Location) -> Iterator[str]:
    text = str(path)
    if NETCDF_NAME.search(text):
        yield ": name the file alone, and the variable in input.variables"
    if not path.far and path.is_dir():
        yield "; it is a folder"
    if VARIABLE.search(text):
        yield "; variables of the environment are not put in"
    if HIDDEN.search(path.name):
        yield "; its name has a letter that cannot be seen, as copied text may have"
    if path.name[:1] in QUOTES or path.name[-1:] in QUOTES:
        yield "; its name has quotes around it"
    if "\\" in text:
        yield "; folders are separated by /"
    if not path.far and any((path.parent / name).is_file() for name in _variants(path.name)):
        yield "; one is there whose name differs in capitals or in how accents are encoded"


def _variants(name: str) -> set[str]:
    """The same name as other systems would take it; a few, since many files may be missing from a large folder."""
    stem, dot, suffix = name.rpartition(".")
    cases = {name.lower(), name.upper(), f"{stem}{dot}{suffix.lower()}", f"{stem}{dot}{suffix.upper()}"}
    encoded = {unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)}
    return (cases | encoded) - {name}
