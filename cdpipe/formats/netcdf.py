"""Opens netCDF files by the name of a variable, and notices classic ones that were cut off, which libnetcdf does not.

Source: the netCDF classic format specification, docs.unidata.ucar.edu/nug/current/file_format_specifications.html.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from cdpipe.errors import InputError
from cdpipe.workspace.location import Location

MOST_HEADER = 16 * 2**20  # bytes
SHOWN = 12  # variables that a message names
DIMENSIONS, VARIABLES, ATTRIBUTES = 10, 11, 12  # tags of the header's lists
ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # by type
STREAMED = 2**32 - 1  # number of records of a file that does not say


def open_netcdf(path: Location, wanted: Sequence[str]) -> Any:
    """Open the one raster that a netCDF file holds, or the first variable of those that are wanted.

    Args:
        path: The file, on this machine.
        wanted: Names of variables, the preferred ones first.

    Raises:
        InputError: If there are several variables and none of them is wanted, or the file was cut off.
        RasterioError: If GDAL cannot open it.
    """
    file = path.local().absolute()
    _verify_size(path, file)
    dataset = rasterio.open(file, driver="netCDF", sharing=False)
    if dataset.count:
        return dataset
    with dataset:
        tags = dataset.tags(ns="SUBDATASETS")
    names = [value.rpartition('":')[2] for key, value in tags.items() if key.endswith("_NAME")]
    chosen = next((name for name in wanted if name in names), None)
    if chosen is None:
        if not names:
            raise InputError(f"{path}: expected a variable with rows and columns in a netCDF file, got none")
        listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        missing = f"none of {', '.join(wanted)}" if wanted else "no word which to read"
        raise InputError(
            f"{path}: holds the variables {listed}, got {missing}; name one: input.variables: [{names[0]}]"
        )
    if '"' in str(file):
        raise InputError(f"{path}: a variable cannot be read of a netCDF file with a quotation mark in its name")
    return rasterio.open(f'NETCDF:"{file}":{chosen}', driver="netCDF", sharing=False)


@dataclass(frozen=True, slots=True)
class _Variable:
    """Where a variable's values lie: of a fixed one all, of one with records those of the first record."""

    begin: int
    size: int
    has_records: bool


def _verify_size(path: Location, file: Path) -> None:
    """Refuse a file of the classic format that ends before its last value; files of others pass."""
    with file.open("rb") as stream:
        header = stream.read(MOST_HEADER)
    if header[:3] != b"CDF":
        return  # HDF5 knows where it ends
    try:
        records, variables = _read_header(header)
    except (struct.error, ValueError, KeyError, IndexError):
        raise InputError(f"{path}: not readable as a raster: the header of the netCDF file is damaged") from None
    recorded = [variable.size for variable in variables if variable.has_records]
    step = recorded[0] if len(recorded) == 1 else sum(size + -size % 4 for size in recorded)
    end = 0
    for variable in variables:
        earlier = (records - 1) * step if variable.has_records else 0
        if variable.size and (records or not variable.has_records):
            end = max(end, variable.begin + earlier + variable.size)
    size = file.stat().st_size
    if size < end:
        raise InputError(f"{path}: not readable as a raster: cut off after {size:,} bytes of {end:,}")


def _read_header(data: bytes) -> tuple[int, list[_Variable]]:
    """Number of records, and all variables."""
    version = data[3]
    if version not in {1, 2, 5}:
        raise ValueError(f"version {version}")
    count, offset = (">Q" if version == 5 else ">I"), (">I" if version == 1 else ">Q")
    at = 4

    def number(form: str) -> int:
        nonlocal at
        [value] = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def skip(size: int) -> None:
        nonlocal at
        at += size + -size % 4

    def entries(tag: int) -> Iterator[None]:
        """Steps into each entry of a list, behind its name."""
        found, length = number(">I"), number(count)
        if found != tag and (found or length):
            raise ValueError(f"tag {found}")
        for _ in range(length):
            skip(number(count))
            yield

    def skip_attributes() -> None:
        for _ in entries(ATTRIBUTES):
            kind = number(">I")
            skip(ITEM_BYTES[kind] * number(count))

    records = number(count)
    lengths = [number(count) for _ in entries(DIMENSIONS)]
    skip_attributes()
    variables = []
    for _ in entries(VARIABLES):
        sides = [lengths[number(count)] for _ in range(number(count))]
        skip_attributes()
        item = ITEM_BYTES[number(">I")]
        number(count)  # the size, which is not told of large ones
        has_records = bool(sides) and sides[0] == 0
        variables.append(_Variable(number(offset), item * math.prod(sides[has_records:]), has_records))
    return (0 if version != 5 and records == STREAMED else records), variables
