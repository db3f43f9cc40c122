"""Hashes of source files, computed once and remembered by size and modification time, or by ETag."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdpipe.workspace.bucket import ObjectPath
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import read_json, write_json
from cdpipe.workspace.storage import map_files

Stamp = list[int | str]


def known_hashes(workspace: Workspace, paths: list[Path]) -> dict[Path, str]:
    """SHA-256 of those files that have been hashed and have not changed since."""
    remembered: Mapping[str, Any] = read_json(workspace.sources) or {}
    entries = [(path, entry) for path in paths if (entry := remembered.get(str(path)))]
    same = map_files(lambda path: path.is_file() and _stamp(path), [path for path, _ in entries])
    return {
        path: entry["sha256"] for (path, entry), stamp in zip(entries, same, strict=True) if stamp == entry["stamp"]
    }


def remember_hashes(workspace: Workspace, hashes: Mapping[Path, tuple[str, Stamp]]) -> None:
    """Add to the remembered hashes, each with the stamp that :func:`stamp_before_hashing` gave."""
    remembered = dict(read_json(workspace.sources) or {})
    remembered |= {str(path): {"sha256": sha, "stamp": stamp} for path, (sha, stamp) in hashes.items()}
    write_json(workspace.sources, remembered)


def stamp_before_hashing(path: Path) -> Stamp:
    """Size and modification time, in object storage the ETag; taken before hashing, so that a later change shows."""
    return _stamp(path)


def _stamp(path: Path) -> Stamp:
    if isinstance(path, ObjectPath):
        found = path.head()
        return [found.size, found.e_tag]
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
