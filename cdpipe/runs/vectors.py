"""A finished pair's change objects as a vector layer, recorded as its rasters are."""

import shutil
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from cdpipe.errors import ConfigError
from cdpipe.formats.vectors import (
    GEOMETRY,
    SUFFIXES,
    decode,
    encode,
    read_features,
    write_features,
)
from cdpipe.geo.crs import WGS84, known_crs
from cdpipe.geo.shapes import grid_box, transform_polygons
from cdpipe.keys import content_key
from cdpipe.objects.features import SCHEMA, ChangeScene, change_features
from cdpipe.pairs.catalog import parse_time
from cdpipe.runs.styles import objects_style
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import temporary_folder, write_atomically
from cdpipe.workspace.records import GROUP_RECORD, hash_stored, read_record, withdraw_records, write_record


@dataclass(frozen=True, slots=True)
class VectorJob:
    """The vector layer of one pair.

    Attributes:
        run: The run's name.
        scene: The pair's change.
        tags: Metadata of the layer.
    """

    run: str
    scene: ChangeScene
    tags: dict[str, str]

    @property
    def key(self) -> str:
        """Content key of the layer."""
        scene = self.scene
        return content_key(
            "vector",
            {
                "run": self.run,
                "change": scene.change_key,
                "members": [list(each) for each in scene.members],
                "options": scene.options.model_dump(mode="json", exclude={"crs"}),
                "dates": list(scene.dates),
                "tags": self.tags,
            },
        )

    @property
    def record(self) -> Path:
        """File of the record that says the layer is written."""
        return self.scene.workspace.records("vectors", self.scene.pair.pair_id, self.key) / GROUP_RECORD

    @property
    def path(self) -> Path:
        """The layer's file."""
        scene = self.scene
        name = f"{scene.pair.pair_id}_change{SUFFIXES[scene.options.format]}"
        return scene.workspace.run(self.run) / "vectors" / name


def remove_other_formats(path: Path) -> list[Path]:
    """Remove a layer's files in other formats; all names that it may have."""
    names = [path.with_suffix(suffix) for suffix in SUFFIXES.values()]
    for other in names:
        if other != path:
            other.unlink(missing_ok=True)
    return names


def vectors_are_written(job: VectorJob) -> bool:
    """Whether a pair's layer is there; ``verify`` also looks inside."""
    record = read_record(job.record)
    return record is not None and all((job.scene.workspace.root / name).is_file() for name in record.objects)


def write_vectors(job: VectorJob) -> None:
    """Write, read back and publish a pair's layer, then record it; records of what it replaces are withdrawn.

    Raises:
        IntegrityError: If it does not read back as what was to be written.
        InputError: If the pair's place or the options do not allow it, see :func:`change_features`.
    """
    scene, path = job.scene, job.path
    withdraw_records(job.record, scene.workspace.root, remove_other_formats(path))
    spill = temporary_folder(path, "objects.partial")
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir(parents=True)
    try:
        digest = write_features(path, change_features(scene, spill), SCHEMA, scene.pair.grid.crs, job.tags)
    finally:
        shutil.rmtree(spill, ignore_errors=True)
    style = write_style(path)
    crash_point("vectors-unrecorded")
    write_record(job.record, scene.workspace.root, {path: digest} | hash_stored([style]))


def write_style(path: Path) -> Path:
    """Write the QGIS style beside a layer; its file."""
    style = path.with_suffix(".qml")
    write_atomically(style, objects_style())
    return style


# Of objects that were found more than once, the one to keep: greedy non-maximum suppression.

Kept = TypeVar("Kept", bound=Hashable)


def keep_best(same: Sequence[tuple[Kept, Kept]], rank: Mapping[Kept, object]) -> dict[Kept, Kept]:
    """Which objects to leave out, each with the one that is kept for it.

    The best object is kept and those that are the same as it are left out, then the next best of the rest, and so on:
    of a chain of three whose ends are not the same, the middle one may be left out and both ends kept.

    Args:
        same: Objects of which one is to be kept.
        rank: Of every object in ``same``: something that sorts, the best first, no two alike.
    """
    neighbours: dict[Kept, set[Kept]] = {}
    for one, other in same:
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    kept_for: dict[Kept, Kept] = {}
    for node in sorted(neighbours, key=rank.__getitem__):  # type: ignore[arg-type]  # they sort, says the docstring
        if node not in kept_for:
            for neighbour in neighbours[node]:
                kept_for.setdefault(neighbour, node)
            for neighbour in list(neighbours[node]):
                neighbours[neighbour].discard(node)
    return kept_for


# Change objects of a whole run in one layer and one coordinate reference system, each of them once.

RUN_SCHEMA = SCHEMA.append(pa.field("pairs", pa.string()))
SAME = 0.5  # of the union; more than that is one object

Node = tuple[int, int]  # a pair's position and a feature's in its layer


@dataclass(frozen=True, slots=True)
class RunLayer:
    """The layer of a run.

    Attributes:
        workspace: Where all lies.
        run: The run's name.
        jobs: Layers of the pairs that have a georeference.
        crs: WKT of the layer's CRS.
        suffix: Of the file's name, which tells the format.
    """

    workspace: Workspace
    run: str
    jobs: tuple[VectorJob, ...]
    crs: str
    suffix: str

    @property
    def key(self) -> str:
        """Content key of the layer."""
        return content_key("layer", {"run": self.run, "crs": self.crs, "vectors": [job.key for job in self.jobs]})

    @property
    def record(self) -> Path:
        """File of the record that says the layer is written."""
        return self.workspace.records("layers", self.run, self.key) / GROUP_RECORD

    @property
    def path(self) -> Path:
        """The layer's file."""
        return self.workspace.run(self.run) / "vectors" / f"change{self.suffix}"


def plan_run_layer(jobs: list[VectorJob]) -> RunLayer | None:
    """The layer of a run's pairs; None where none has a georeference.

    Raises:
        ConfigError: If there is no such CRS as the options name.
    """
    placed = tuple(job for job in jobs if job.scene.pair.grid.crs is not None)
    if not placed:
        return None
    scene = placed[0].scene
    found = {str(job.scene.pair.grid.crs) for job in placed}
    crs = scene.options.crs
    if crs == "auto":
        crs = found.pop() if len(found) == 1 else WGS84
    wkt = known_crs(crs)
    if wkt is None:
        raise ConfigError(f"vectors.crs: expected auto or a known CRS such as EPSG:32633, got {crs}")
    return RunLayer(scene.workspace, placed[0].run, placed, wkt, SUFFIXES[scene.options.format])


def layer_is_written(layer: RunLayer) -> bool:
    """Whether the layer is there; ``verify`` also looks inside."""
    record = read_record(layer.record)
    return record is not None and all((layer.workspace.root / name).is_file() for name in record.objects)


def write_run_layer(layer: RunLayer) -> None:
    """Write, read back and publish a run's layer from its pairs' layers, then record it.

    Raises:
        IntegrityError: If it does not read back as what was to be written.
        InputError: If an object has no place in the layer's CRS.
    """
    root = layer.workspace.root
    withdraw_records(layer.record, root, remove_other_formats(layer.path))
    kept_for = find_duplicates(layer)
    digest = write_features(layer.path, _merged(layer, kept_for), RUN_SCHEMA, layer.crs, layer.jobs[0].tags)
    style = write_style(layer.path)
    crash_point("vectors-unrecorded")
    write_record(layer.record, root, {layer.path: digest} | hash_stored([style]))


def find_duplicates(layer: RunLayer) -> dict[Node, Node]:
    """Which objects are left out, each with the one that is kept for it."""
    boxes = np.array([shapely.box(*grid_box(job.scene.pair.grid, layer.crs)) for job in layer.jobs])
    times = [_time_span(job.scene.dates) for job in layer.jobs]
    tree = shapely.STRtree(boxes)
    same: list[tuple[Node, Node]] = []
    rank: dict[Node, tuple[float, Node]] = {}
    for number, box in enumerate(boxes):
        others = [
            int(other)
            for other in np.sort(tree.query(box, "intersects"))
            if other < number and _overlap(times[number], times[int(other)])
        ]
        if others:
            _compare(layer, boxes, number, others, same, rank)
    return keep_best(same, rank)


def _compare(
    layer: RunLayer,
    boxes: NDArray[Any],
    number: int,
    others: list[int],
    same: list[tuple[Node, Node]],
    rank: dict[Node, tuple[float, Node]],
) -> None:
    """Note the objects of a pair that others have too."""
    shared = shapely.union_all(shapely.intersection(boxes[others], boxes[number]))
    parts = list(_objects(layer, number, shared))
    if not parts:
        return
    own_index, own_mean, own = (np.concatenate(each) for each in zip(*parts, strict=True))
    tree = shapely.STRtree(own)
    for other in others:
        for index, mean, polygons in _objects(layer, other, boxes[number]):
            theirs, ours = tree.query(polygons, "intersects")
            both = shapely.area(shapely.intersection(polygons[theirs], own[ours]))
            either = shapely.area(polygons[theirs]) + shapely.area(own[ours]) - both
            for at in np.flatnonzero(both > SAME * either):
                mine, their = (number, int(own_index[ours[at]])), (other, int(index[theirs[at]]))
                same.append((mine, their))
                rank[mine] = -float(own_mean[ours[at]]), mine
                rank[their] = -float(mean[theirs[at]]), their


def _objects(
    layer: RunLayer, number: int, within: Any
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[Any]]]:
    """Position, mean probability and polygon of a pair's objects that touch a region of the layer."""
    shapely.prepare(within)
    start = 0
    for batch in _placed(layer, number):
        polygons = decode(batch)
        touching = np.flatnonzero(shapely.intersects(within, shapely.envelope(polygons)))
        mean = batch.column("probability_mean").to_numpy()
        # coordinates that were rounded or moved may let an outline cross itself, which GEOS would not intersect
        yield start + touching, mean[touching], shapely.make_valid(polygons[touching])
        start += len(batch)


def _placed(layer: RunLayer, number: int) -> Iterator[pa.RecordBatch]:
    """Features of a pair in the layer's CRS."""
    path = layer.jobs[number].path
    crs = WGS84 if path.suffix == SUFFIXES["geojson"] else str(layer.jobs[number].scene.pair.grid.crs)
    for batch in read_features(path):
        if known_crs(crs) == layer.crs:
            yield batch
        else:
            moved = encode(transform_polygons(decode(batch), crs, layer.crs))
            yield batch.set_column(batch.schema.get_field_index(GEOMETRY), GEOMETRY, moved)


def _merged(layer: RunLayer, kept_for: dict[Node, Node]) -> Iterator[pa.RecordBatch]:
    seen_by: dict[Node, set[str]] = {}
    for left_out, kept in kept_for.items():
        seen_by.setdefault(kept, set()).add(layer.jobs[left_out[0]].scene.pair.pair_id)
    for number, job in enumerate(layer.jobs):
        pair_id, start = job.scene.pair.pair_id, 0
        for batch in _placed(layer, number):
            nodes = [(number, start + at) for at in range(len(batch))]
            start += len(batch)
            stay = [at for at, node in enumerate(nodes) if node not in kept_for]
            pairs = [",".join(sorted({pair_id, *seen_by.get(nodes[at], ())})) for at in stay]
            columns = [*batch.take(pa.array(stay, pa.int64())).columns, pa.array(pairs, pa.string())]
            if stay:
                yield pa.RecordBatch.from_arrays(columns, schema=RUN_SCHEMA)


def _time_span(dates: tuple[str | None, str | None]) -> tuple[datetime, datetime] | None:
    first, last = dates
    if first is None or last is None:
        return None
    low, high = sorted((parse_time(first), parse_time(last)))
    return low, high


def _overlap(one: tuple[datetime, datetime] | None, other: tuple[datetime, datetime] | None) -> bool:
    """Whether two spans have time in common, as far as they are known."""
    return one is None or other is None or (one[0] < other[1] and other[0] < one[1])
