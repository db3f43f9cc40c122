"""How much room a disk has, and whether something failed for want of it."""

import errno
import os
import shutil
from pathlib import Path

from cdpipe.formats.workspace import temporary_folder

MAKE_ROOM = "make room"


def free_space(path: Path) -> str:
    """A sentence about the disk: GDAL's own messages rarely say that it is full."""
    path = temporary_folder(path)
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free_mb = shutil.disk_usage(existing).free / 1e6
    return f"{free_mb:,.0f} MB are free in {existing}: {MAKE_ROOM} if that is too little, and run again."


def found_no_room(reason: str) -> bool:
    """Whether a failure is that of a full disk, as the system and :func:`free_space` name it."""
    return any(words in reason for words in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), MAKE_ROOM))
