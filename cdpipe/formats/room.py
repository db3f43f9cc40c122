"""How much room a disk has, and whether something failed for want of it."""

import errno
import os
import shutil
from pathlib import Path

from cdpipe.formats.workspace import temporary_folder

LITTLE = 16 * 2**20  # bytes: a disk that has less and refuses a raster is full


def free_space(path: Path) -> str:
    """A sentence about the disk that refused a file: GDAL's own messages rarely say that it is full."""
    path = temporary_folder(path)
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < LITTLE:
        return f"{os.strerror(errno.ENOSPC)} that holds {existing}: make room, and run again."
    return f"{free / 1e6:,.0f} MB are free in {existing}: make room if that is too little, and run again."


def found_no_room(reason: str) -> bool:
    """Whether a failure is that of a full disk, in the words of the system, which :func:`free_space` uses too."""
    return os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason
