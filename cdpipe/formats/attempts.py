"""How often a block was begun and not ended: one that kills its worker again and again must not go on for ever.

Ray restarts a worker that died, and Ray Data without end. So every attempt leaves a byte in a small file before it
starts and removes the file when it ends, whatever its result; only a worker that was killed leaves it behind.
"""

import os
from pathlib import Path

from cdpipe.errors import CdpipeError
from cdpipe.formats.anywhere import remove_tree
from cdpipe.formats.object_path import ObjectPath
from cdpipe.formats.workspace import Workspace
from cdpipe.geo.grid import BlockKey

MOST_ATTEMPTS = 4


def begin_attempt(workspace: Workspace, key: BlockKey) -> Path:
    """Count an attempt at a block.

    Returns:
        The file to remove when the attempt has ended.

    Raises:
        CdpipeError: If the block ended its worker too often already.
    """
    path = _folder(workspace) / key.pair_id / f"{key.block_row}_{key.block_col}"
    if isinstance(path, ObjectPath):
        before = path.stat().st_size if path.is_file() else 0
        _refuse(before)
        path.write_bytes(b"." * (before + 1))
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        _refuse(os.fstat(descriptor).st_size)
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)
    return path


def _refuse(before: int) -> None:
    if before >= MOST_ATTEMPTS:
        raise CdpipeError(
            f"ended its worker {before} times (killed, out of memory, or a crash in a library) and was given up; "
            "give workers more memory, or look at the scene there"
        )


def forget_attempts(workspace: Workspace) -> None:
    """Start counting anew; only for the holder of the workspace's lock."""
    remove_tree(_folder(workspace))


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "records" / "attempts"
