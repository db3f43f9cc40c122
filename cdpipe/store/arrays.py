"""The Zarr v3 store: whole blocks written, any window read.

A block is exactly one stored object (one shard) of each array, so that no two tasks ever write to the
same object. Checksums (crc32c) are stored with every chunk.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import CELL, count_tiles
from cdpipe.store.shards import (
    Description,
    block_index,
    encode_object,
    parse_description,
    read_object,
    read_remote_object,
)
from cdpipe.timing import counted
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.location import Location
from cdpipe.workspace.remembered import Remembered

_DESCRIPTIONS: Remembered[Location, bytes] = Remembered(60.0)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array of a group.

    Attributes:
        folder: Where it lies.
        like: Its description.
    """

    folder: Location
    like: Description

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands (if any), rows and columns."""
        return self.like.shape


def open_array(group: Location, name: str) -> StoredArray:
    """Open one array of a group; its description is read each time, so that none is used that is gone or was replaced.

    In object storage, where each time costs, what was read in the last minute holds.

    Raises:
        IntegrityError: If its description is missing, damaged, or declares what cdpipe never writes.
    """
    folder = group / name
    try:
        if folder.far:
            return StoredArray(folder, parse_description(_DESCRIPTIONS.get(folder, (folder / "zarr.json").read_bytes)))
        with open(f"{folder}/zarr.json", "rb", buffering=0) as stream:  # noqa: PTH123 (quick: this runs for every window)
            return StoredArray(folder, parse_description(stream.read()))
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 (JSON that is not our own raises all sorts of things)
        odd = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise IntegrityError(
        f"{folder}: not an array that cdpipe wrote: {odd}; "
        "run cdpipe verify, and then the same command again to repair it"
    )


def read_window(array: StoredArray, window: Window) -> NDArray[Any]:
    """Pixels of a window, all bands.

    Returns:
        Array of shape (band, height, width), or (height, width) for an array without bands.

    Raises:
        IntegrityError: If a stored object is missing or is not what was written.
    """
    like = array.like
    if window.stop_row > like.side[0] or window.stop_col > like.side[1]:
        raise _damaged(array, window, f"the array's shape is {array.shape}")
    # a shape that was tampered with is found out by its first missing object, before memory is given to it
    gone = next((file for _, file in _objects(array, window) if not _is_there(array, file)), None)
    if gone is not None:
        raise _damaged(array, window, f"no {gone}")
    values = np.empty((*like.lead, *window.shape), like.dtype)
    for block, file in _objects(array, window):
        common = block.intersect(window)
        if common is None:
            continue
        part = Window(common.row - block.row, common.col - block.col, *common.shape)
        try:
            read = read_remote_object if file.far else read_object
            read(file, like, part, values[..., *common.slices_in(window)])
        except ConnectionError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise _damaged(array, window, f"{file}: {error}") from None
    return values


def _damaged(array: StoredArray, window: Window, what: str) -> IntegrityError:
    return IntegrityError(
        f"{array.folder}: damaged within {window}: {what}; "
        "run cdpipe verify, and then the same command again to repair it"
    )


def read_all(array: StoredArray) -> NDArray[Any]:
    """All of an array; see :func:`read_window`."""
    return read_window(array, Window(0, 0, *array.like.side))


def _objects(array: StoredArray, window: Window) -> Iterator[tuple[Window, Location]]:
    """Pixels and file of each block of a window: there is no end of them if the shape was tampered with."""
    height, width = array.like.block
    for row in range(window.row // height, (window.stop_row - 1) // height + 1):
        for col in range(window.col // width, (window.stop_col - 1) // width + 1):
            yield Window(row * height, col * width, height, width), _object(array, row, col)


def _object(array: StoredArray, row: int, col: int) -> Location:
    """File of a block, whose bands all lie together."""
    folder = array.folder
    return Location(folder.storage, f"{folder.key}/c/{'0/' if array.like.lead else ''}{row}/{col}")


def _is_there(array: StoredArray, file: Location) -> bool:
    try:
        if file.far:
            return block_index(file, array.like)[1] > 0
        return os.stat(str(file)).st_size > 0  # noqa: PTH116 (as above)
    except ConnectionError:
        raise
    except OSError:
        return False
    except ValueError:  # a damaged index, as reading tells
        return True


def write_block(group: Location, name: str, window: Window, values: NDArray[Any]) -> tuple[Location, str]:
    """Write one whole block and make it durable.

    Args:
        group: Folder of the group.
        name: The array.
        window: The block's pixels (for ``cells``: in cells).
        values: (band, height, width) or (height, width) in the array's dtype.

    Returns:
        The stored file, and the SHA-256 of what it was given: what is damaged on its way to the disk differs from it.

    Raises:
        ValueError: If the window is not exactly one block or the values are not of the array's dtype.
    """
    array = open_array(group, name)
    like = array.like
    row, col = window.row // like.block[0], window.col // like.block[1]
    block = Window(row * like.block[0], col * like.block[1], *like.block)
    whole = block.intersect(Window(0, 0, *like.side))
    shape = (*like.lead, *window.shape)
    if window != whole or values.dtype != like.dtype or values.shape != shape:
        raise ValueError(
            f"{group}/{name}: expected the whole block {whole} as {shape} {like.dtype}, got {window} as "
            f"{values.shape} {values.dtype}; a stored object has one writer, which writes all of it"
        )
    file = _object(array, row, col)
    encoded = encode_object(like, values)
    file.write(*encoded)
    digest = hashlib.sha256()
    for piece in encoded:
        digest.update(piece)
    counted("bytes_written", sum(map(len, encoded)))
    crash_point("block-unrecorded")
    return file, digest.hexdigest()


def cell_window(window: Window) -> Window:
    """The cells of a block."""
    row, col = window.row // CELL, window.col // CELL
    return Window(row, col, count_tiles(window.stop_row, CELL) - row, count_tiles(window.stop_col, CELL) - col)
