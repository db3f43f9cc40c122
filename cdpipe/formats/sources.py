"""Hashes of source files, computed once and remembered by size and modification time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdpipe.formats.workspace import Workspace, read_json, write_json


def known_hashes(workspace: Workspace, paths: list[Path]) -> dict[Path, str]:
    """SHA-256 of those files that have been hashed and have not changed since."""
    remembered: Mapping[str, Any] = read_json(workspace.sources) or {}
    known = {}
    for path in paths:
        entry = remembered.get(str(path))
        if entry and path.is_file() and entry["stamp"] == _stamp(path):
            known[path] = entry["sha256"]
    return known


def remember_hashes(workspace: Workspace, hashes: Mapping[Path, tuple[str, list[int]]]) -> None:
    """Add to the remembered hashes, each with the stamp that :func:`stamp_before_hashing` gave."""
    remembered = dict(read_json(workspace.sources) or {})
    remembered |= {str(path): {"sha256": sha, "stamp": stamp} for path, (sha, stamp) in hashes.items()}
    write_json(workspace.sources, remembered)


def stamp_before_hashing(path: Path) -> list[int]:
    """Size and modification time; taken before hashing, so that a later change shows."""
    return _stamp(path)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
