"""The Zarr v3 store: whole blocks written, any window read.

A block is exactly one stored object (one shard) of each array, so that no two tasks ever write to the
same object. Checksums (crc32c) are stored with every chunk.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype

from cdpipe.formats.array_check import find_oddity
from cdpipe.formats.workspace import write_atomically
from cdpipe.values.crash import crash_point
from cdpipe.values.errors import IntegrityError
from cdpipe.values.grid import Window
from cdpipe.values.windows import CELL, count_tiles

AnyArray = zarr.Array[Any]


def open_layer(group: Path, name: str) -> AnyArray:
    """Open one array of a group for reading, or for writing whole blocks.

    Raises:
        IntegrityError: If its description is missing, damaged, or declares what cdpipe never writes.
    """
    try:
        array = zarr.open_array(zarr.storage.LocalStore(group / name), mode="r+")
        odd = find_oddity(array)
    except Exception as error:  # noqa: BLE001 (Zarr raises all sorts of things at metadata that are not its own)
        odd = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if odd:
        raise IntegrityError(
            f"{group / name}: not an array that cdpipe wrote: {odd}; "
            "run cdpipe verify, and then the same command again to repair it"
        )
    # a block of nothing but the fill value is stored too: an object that is missing means a block that is missing
    return array.with_config({"write_empty_chunks": True})


def read_window(array: AnyArray, window: Window) -> NDArray[Any]:
    """Pixels of a window, all bands.

    Returns:
        Array of shape (band, height, width), or (height, width) for an array without bands.

    Raises:
        IntegrityError: If a stored object is missing or is not what was written.
    """
    # Zarr would read what is not there as the fill value, without a word
    if window.stop_row > array.shape[-2] or window.stop_col > array.shape[-1]:
        raise _damaged(array, window, f"the array's shape is {array.shape}")
    gone = next((file for file in _objects(array, window) if not file.is_file() or not file.stat().st_size), None)
    if gone is not None:
        raise _damaged(array, window, f"no {gone}")
    try:
        return np.asarray(array[(..., *window.slices)])
    except ValueError as error:
        raise _damaged(array, window, str(error)) from None


def _damaged(array: AnyArray, window: Window, what: str) -> IntegrityError:
    return IntegrityError(
        f"{array.store_path}: damaged within {window}: {what}; "
        "run cdpipe verify, and then the same command again to repair it"
    )


def read_all(array: AnyArray) -> NDArray[Any]:
    """All of an array; see :func:`read_window`."""
    return read_window(array, Window(0, 0, *array.shape[-2:]))


def _objects(array: AnyArray, window: Window) -> Iterator[Path]:
    """Files that hold a window's pixels, one by one: there is no end of them if the shape was tampered with."""
    side_y, side_x = (array.shards or array.chunks)[-2:]
    rows = range(window.row // side_y, (window.stop_row - 1) // side_y + 1)
    cols = range(window.col // side_x, (window.stop_col - 1) // side_x + 1)
    return (_object(array, (row, col)) for row in rows for col in cols)


def _object(array: AnyArray, index: tuple[int, int]) -> Path:
    """File of a block, whose bands all lie together."""
    store = cast("zarr.storage.LocalStore", array.store_path.store)
    return store.root / "c" / "/".join(map(str, (*(0,) * (array.ndim - 2), *index)))


def write_block(group: Path, name: str, window: Window, values: NDArray[Any]) -> Path:
    """Write one whole block and make it durable.

    Args:
        group: Folder of the group.
        name: The array.
        window: The block's pixels (for ``cells``: in cells).
        values: (band, height, width) or (height, width) in the array's dtype.

    Returns:
        The stored file.

    Raises:
        ValueError: If the window is not exactly one block or the values are not of the array's dtype.
    """
    array = open_layer(group, name)
    side_y, side_x = (array.shards or array.chunks)[-2:]
    height, width = array.shape[-2:]
    index = (window.row // side_y, window.col // side_x)
    whole = Window(index[0] * side_y, index[1] * side_x, side_y, side_x).intersect(Window(0, 0, height, width))
    shape = (*array.shape[:-2], *window.shape)
    if window != whole or values.dtype != array.dtype or values.shape != shape:
        raise ValueError(
            f"{group}/{name}: expected the whole block {whole} as {shape} {array.dtype}, got {window} as "
            f"{values.shape} {values.dtype}; a stored object has one writer, which writes all of it"
        )
    file = _object(array, index)
    write_atomically(file, _encode(group / name, window, values))
    crash_point("block-unrecorded")
    return file


def _encode(folder: Path, window: Window, values: NDArray[Any]) -> bytes:
    """The stored object of a block.

    It is made in memory: Zarr would read an edge block that is already there, such as a damaged leftover, and
    readers could see a half-written one.
    """
    description = default_buffer_prototype().buffer.from_bytes((folder / "zarr.json").read_bytes())
    memory: dict[str, Buffer] = {"zarr.json": description}
    copy = zarr.open_array(zarr.storage.MemoryStore(memory), mode="r+").with_config({"write_empty_chunks": True})
    copy[(..., *window.slices)] = values
    del memory["zarr.json"]
    [data] = memory.values()
    return data.to_bytes()


def cell_window(window: Window) -> Window:
    """The cells of a block."""
    row, col = window.row // CELL, window.col // CELL
    return Window(row, col, count_tiles(window.stop_row, CELL) - row, count_tiles(window.stop_col, CELL) - col)
