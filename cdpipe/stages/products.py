"""A finished pair's rasters: the ensemble's probability and change as GeoTIFFs, each model's on request."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cdpipe.formats.geotiff import CHANGE_COLORS, RasterLayer, write_cog
from cdpipe.formats.records import GROUP_RECORD, read_record, write_record
from cdpipe.formats.store import open_layer, read_window
from cdpipe.formats.stored_pair import StoredPair
from cdpipe.formats.workspace import Workspace
from cdpipe.values.crash import crash_point
from cdpipe.values.grid import Window
from cdpipe.values.keys import content_key


@dataclass(frozen=True, slots=True)
class RasterJob:
    """The rasters of one pair.

    Attributes:
        workspace: The store.
        run: The run's name.
        pair: The pair.
        change_key: Key of its change.
        members: Name and probability key of each model whose own raster is wanted.
        tags: Metadata for every raster.
    """

    workspace: Workspace
    run: str
    pair: StoredPair
    change_key: str
    members: tuple[tuple[str, str], ...]
    tags: dict[str, str]

    @property
    def key(self) -> str:
        """Content key of the set of rasters."""
        return content_key(
            "raster",
            {
                "run": self.run,
                "change": self.change_key,
                "members": [list(each) for each in self.members],
                "tags": self.tags,
            },
        )

    @property
    def record(self) -> Path:
        """File of the record that says the rasters are written."""
        return self.workspace.records("rasters", self.pair.pair_id, self.key) / GROUP_RECORD


def rasters_are_written(job: RasterJob) -> bool:
    """Whether a pair's rasters are there; ``verify`` also looks inside."""
    record = read_record(job.record)
    return record is not None and all((job.workspace.root / name).is_file() for name in record.objects)


def write_rasters(job: RasterJob) -> list[Path]:
    """Write, read back and publish a pair's rasters, then record them; records of what they replace are withdrawn.

    Raises:
        IntegrityError: If a raster does not read back as what is stored.
    """
    folder = job.workspace.run(job.run) / "rasters"
    change = job.workspace.group("changes", job.pair.pair_id, job.change_key)
    probability = RasterLayer("float32", float("nan"), "probability of change", tags=job.tags)
    mask = RasterLayer("uint8", 255, "change: 0 no, 1 yes, 255 not observed", CHANGE_COLORS, job.tags)
    wanted = [
        (folder / f"{job.pair.pair_id}_change.tif", change, "change", mask),
        (folder / f"{job.pair.pair_id}_probability.tif", change, "probability", probability),
    ]
    for name, key in job.members:
        group = job.workspace.group("probabilities", job.pair.pair_id, key)
        wanted.append((folder / f"{job.pair.pair_id}_probability_{name}.tif", group, "probability", probability))
    paths = [path for path, *_ in wanted]
    _withdraw_records(job, paths)
    for path, group, array, layer in wanted:
        write_cog(path, _reader(group, array), job.pair.grid, layer)
    crash_point("rasters-unrecorded")
    write_record(job.record, job.workspace.root, paths)
    return paths


def _withdraw_records(job: RasterJob, paths: list[Path]) -> None:
    """Remove the records of other results of this run that lie under the same names."""
    names = {str(path.relative_to(job.workspace.root)) for path in paths}
    for path in job.record.parent.parent.glob(f"*/{GROUP_RECORD}"):
        record = read_record(path)
        if record is None or names & record.objects.keys():
            path.unlink()


def _reader(group: Path, name: str) -> Callable[[Window], NDArray[Any]]:
    array = open_layer(group, name)
    return lambda window: read_window(array, window)
