"""Where things lie in a workspace, and who holds it."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from cdpipe.errors import ConfigError
from cdpipe.workspace.location import Location

NodeKind = Literal["pairs", "labels", "probabilities", "changes"]  # of groups in the store
Kind = Literal[
    NodeKind,
    "rasters",
    "vectors",
    "layers",
    "mosaics",
    "ensembles",
    "catalogs",
    "evaluations",
    "tables",
    "audits",
    "pictures",
    "pages",
]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The one folder that holds all of a project's data."""

    root: Location

    def group(self, kind: Kind, pair_id: str, key: str) -> Location:
        """Folder of a Zarr group."""
        return self.root.joinpath("store.zarr", kind, pair_id, key)  # at once: this runs for every window

    def records(self, kind: Kind, pair_id: str, key: str) -> Location:
        """Folder of the records of a group's blocks."""
        return self.root / "records" / kind / pair_id / key

    @property
    def sources(self) -> Location:
        """File that remembers the hashes of source files."""
        return self.root / "records" / "sources.json"

    @property
    def corrections(self) -> Location:
        """File that remembers how far second dates are moved."""
        return self.root / "records" / "coregistrations.json"

    @property
    def shifts(self) -> Location:
        """File that remembers how far the check found second dates to lie off."""
        return self.root / "records" / "shifts.json"

    @property
    def devices(self) -> Location:
        """File that remembers which batch suits which kind of GPU."""
        return self.root / "records" / "devices.json"

    def model(self, name: str, key: str) -> Location:
        """Folder of a trained model."""
        return self.root / "models" / name / key

    def run(self, name: str) -> Location:
        """Folder of a run's outputs."""
        return self.root / "runs" / name


def locked(workspace: Workspace, *, wait: bool = False) -> AbstractContextManager[None]:
    """Hold the workspace for writing.

    Args:
        workspace: The workspace.
        wait: Wait for whoever holds it instead of giving up.

    Raises:
        ConfigError: If the folder cannot be written.
        LockedError: If another process holds it.
    """
    refuse_job_copy(workspace.root)
    return workspace.root.storage.hold(workspace.root.key, wait=wait)


def refuse_job_copy(folder: Location) -> None:
    """Refuse a path inside the copy of the working directory that Ray makes for a submitted job.

    Raises:
        ConfigError: Since what is written there is lost when the cluster goes.
    """
    if re.search(r"/runtime_resources/working_dir_files/", str(folder)):
        raise ConfigError(
            f"{folder}: lies in the copy that Ray made of the submitted folder, where outputs would be lost; "
            "give an absolute path, for example --set workspace=/data/work"
        )
