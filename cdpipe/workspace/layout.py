"""Where things lie in a workspace, and how its small files are written so that a kill never tears one."""

import contextlib
import fcntl
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cdpipe.errors import ConfigError, LockedError
from cdpipe.workspace.bucket import ObjectPath, forget_everything
from cdpipe.workspace.lock import leased

LOCK = ".lock"

Kind = Literal["pairs", "labels", "probabilities", "changes", "rasters", "vectors", "layers", "catalogs"]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The one folder that holds all of a project's data."""

    root: Path

    def group(self, kind: Kind, pair_id: str, key: str) -> Path:
        """Folder of a Zarr group."""
        return self.root.joinpath("store.zarr", kind, pair_id, key)  # at once: this runs for every window

    def records(self, kind: Kind, pair_id: str, key: str) -> Path:
        """Folder of the records of a group's blocks."""
        return self.root / "records" / kind / pair_id / key

    @property
    def sources(self) -> Path:
        """File that remembers the hashes of source files."""
        return self.root / "records" / "sources.json"

    @property
    def corrections(self) -> Path:
        """File that remembers how far second dates are moved."""
        return self.root / "records" / "coregistrations.json"

    @property
    def devices(self) -> Path:
        """File that remembers which batch suits which kind of GPU."""
        return self.root / "records" / "devices.json"

    def model(self, name: str, key: str) -> Path:
        """Folder of a trained model."""
        return self.root / "models" / name / key

    def run(self, name: str) -> Path:
        """Folder of a run's outputs."""
        return self.root / "runs" / name


@contextlib.contextmanager
def locked(workspace: Workspace, *, wait: bool = False) -> Iterator[None]:
    """Hold the workspace for writing; the system lets go of the lock when the process ends, however it ends.

    In object storage it must be renewed: :mod:`cdpipe.workspace.lock`.

    Args:
        workspace: The workspace.
        wait: Wait for whoever holds it instead of giving up.

    Raises:
        ConfigError: If the folder cannot be written.
        LockedError: If another process holds it.
    """
    refuse_job_copy(workspace.root)
    if isinstance(workspace.root, ObjectPath):
        forget_everything()  # that an earlier run was told
        with leased(workspace.root / LOCK, wait=wait):
            yield
        return
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        stream = (workspace.root / LOCK).open("a")
    except OSError as error:
        raise ConfigError(f"workspace {workspace.root}: expected a folder that can be written: {error}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"workspace {workspace.root}: another run is writing to it; --wait waits for it"
            ) from None
        yield


def refuse_job_copy(path: Path) -> None:
    """Refuse a path inside the copy of the working directory that Ray makes for a submitted job.

    Raises:
        ConfigError: Since what is written there is lost when the cluster goes.
    """
    if re.search(r"/runtime_resources/working_dir_files/", str(path)):
        raise ConfigError(
            f"{path}: lies in the copy that Ray made of the submitted folder, where outputs would be lost; "
            "give an absolute path, for example --set workspace=/data/work"
        )
