"""Engines, networks as a runtime wants them, kept by content: built once a machine, and deleted at will."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cdpipe.workspace.local import read_sealed, sweep, write_atomically, write_sealed

SEAL = "engine.json"


def cache_folder() -> Path:
    """``CDPIPE_CACHE``, or else ``cdpipe`` in the user's cache folder; not in the workspace, which nodes may share."""
    own = os.environ.get("CDPIPE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "cdpipe"


def cached_engine(key: str, build: Callable[[], Mapping[str, bytes]]) -> dict[str, bytes]:
    """The files of an engine: as they were kept, or built now and kept.

    Of several processes that want the same at once, one builds and the others wait. What is damaged is built again;
    where nothing can be written, the engine is built and not kept.

    Args:
        key: Of everything that bears on the files.
        build: Makes their contents, by name.

    Returns:
        Their contents by name, just as they were built.
    """
    folder = cache_folder() / key
    found = _read(folder)
    if found is None:
        with _building(folder):
            found = _read(folder)  # another process may have built it while this one waited
            if found is None:
                found = dict(build())
                _keep(folder, found)
    return found


def _read(folder: Path) -> dict[str, bytes] | None:
    """What is kept, if it is whole: the bytes that are used are those that were hashed."""
    try:
        seal = read_sealed(folder / SEAL)
        if seal is None or seal["key"] != folder.name:
            return None
        files = {name: (folder / name).read_bytes() for name in seal["sha256"]}
    except OSError:
        return None
    return files if _hashes(files) == seal["sha256"] else None


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        sweep(folder)  # of a builder that was killed
        for name, data in files.items():
            write_atomically(folder / name, data)
        write_sealed(folder / SEAL, {"key": folder.name, "sha256": _hashes(files)})
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Hold an engine's lock, which the system lets go of when the process ends; where none can be had, do without."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stream = held.enter_context(folder.with_name(f"{folder.name}.lock").open("a"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
