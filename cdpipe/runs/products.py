"""A finished pair's products: probability and change as GeoTIFFs, each model's on request, and its change objects."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cdpipe.formats.cog import CHANGE_COLORS, RasterLayer, write_cog
from cdpipe.geo.grid import Window
from cdpipe.keys import content_key
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.runs.styles import change_style, probability_style
from cdpipe.runs.vectors import VectorJob, vectors_are_written, write_vectors
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import write_atomically
from cdpipe.workspace.records import GROUP_RECORD, hash_stored, read_record, withdraw_records, write_record


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


@dataclass(frozen=True, slots=True)
class PairProducts:
    """What a run publishes of a pair: rasters, and unless they are not wanted, change objects."""

    rasters: RasterJob
    vectors: VectorJob | None


def products_are_written(products: PairProducts) -> bool:
    """Whether a pair's products are there; ``verify`` also looks inside."""
    vectors = products.vectors
    return rasters_are_written(products.rasters) and (vectors is None or vectors_are_written(vectors))


def write_products(products: PairProducts) -> None:
    """Make those of a pair's products that are missing; see :func:`write_rasters` and ``write_vectors``."""
    if not rasters_are_written(products.rasters):
        write_rasters(products.rasters)
    if products.vectors is not None and not vectors_are_written(products.vectors):
        write_vectors(products.vectors)


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
    mask = RasterLayer("uint8", NOT_OBSERVED, "change: 0 no, 1 yes, 255 not observed", CHANGE_COLORS, job.tags)
    wanted = [
        (folder / f"{job.pair.pair_id}_change.tif", change, "change", mask),
        (folder / f"{job.pair.pair_id}_probability.tif", change, "probability", probability),
    ]
    for name, key in job.members:
        group = job.workspace.group("probabilities", job.pair.pair_id, key)
        wanted.append((folder / f"{job.pair.pair_id}_probability_{name}.tif", group, "probability", probability))
    styles = [path.with_suffix(".qml") for path, *_ in wanted]
    paths = [*(path for path, *_ in wanted), *styles]
    withdraw_records(job.record, job.workspace.root, paths)
    hashes = {}
    for path, group, array, layer in wanted:
        hashes[path] = write_cog(path, _reader(group, array), job.pair.grid, layer)
        style = change_style(CHANGE_COLORS) if layer is mask else probability_style()
        write_atomically(path.with_suffix(".qml"), style)
    crash_point("rasters-unrecorded")
    write_record(job.record, job.workspace.root, hashes | hash_stored(styles))
    return paths


def _reader(group: Path, name: str) -> Callable[[Window], NDArray[Any]]:
    array = open_layer(group, name)
    return lambda window: read_window(array, window)
