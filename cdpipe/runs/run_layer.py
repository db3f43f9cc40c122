"""Change objects of a whole run in one vector layer and one coordinate reference system, each of them once."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from cdpipe.errors import ConfigError, RefusedError
from cdpipe.formats.dates import parse_time
from cdpipe.formats.vectors import GEOMETRY, SUFFIXES, decode, encode, read_features
from cdpipe.formats.web_vectors import WEB_SUFFIXES, write_web_layer
from cdpipe.geo.crs import WGS84, known_crs, on_earth
from cdpipe.geo.ground import pixel_metres
from cdpipe.geo.shapes import counted_from_west, grid_box, transform_polygons
from cdpipe.keys import content_key
from cdpipe.objects.features import SCHEMA
from cdpipe.runs.products import Product, refusal
from cdpipe.runs.styles import style_path
from cdpipe.runs.vectors import PairLayer, names_in_all_formats, pair_layer_product, write_layer
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

RUN_SCHEMA = SCHEMA.append(pa.field("pairs", pa.string()))
SAME = 0.5  # of the union; more than that is one object

Node = tuple[int, int]  # a pair's position and a feature's in its layer
Kept = TypeVar("Kept", bound=Hashable)


@dataclass(frozen=True, slots=True)
class RunLayer:
    """The vector layer of a run.

    Attributes:
        workspace: Where all lies.
        run: The run's name.
        pairs: Layers of the pairs that have a georeference.
        crs: WKT of the layer's CRS.
        suffix: Of the file's name, which tells the format.
        also: Formats for web maps that it is written in besides.
    """

    workspace: Workspace
    run: str
    pairs: tuple[PairLayer, ...]
    crs: str
    suffix: str
    also: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Content key of the layer."""
        also = {"also": sorted(self.also)} if self.also else {}
        pairs = [pair.key for pair in self.pairs]
        return content_key("layer", {"run": self.run, "crs": self.crs, "vectors": pairs, **also})

    @property
    def path(self) -> Location:
        """The layer's file."""
        return self.workspace.run(self.run) / "vectors" / f"change{self.suffix}"


def plan_run_layer(pairs: Sequence[PairLayer]) -> RunLayer | None:
    """The layer of a run's pairs; None where none has a georeference.

    Raises:
        ConfigError: If there is no such CRS as the options name.
    """
    placed = tuple(pair for pair in pairs if on_earth(pair.scene.pair.grid.crs))
    if not placed:
        return None
    scene = placed[0].scene
    crs = scene.options.crs
    if crs == "auto":
        of_pairs = {str(pair.scene.pair.grid.crs) for pair in placed}
        crs = of_pairs.pop() if len(of_pairs) == 1 else WGS84
    wkt = known_crs(crs)
    if wkt is None:
        raise ConfigError(f"vectors.crs: expected auto or a known CRS such as EPSG:32633, got {crs}")
    own = SUFFIXES[scene.options.format]
    return RunLayer(scene.workspace, placed[0].run, placed, wkt, own, tuple(dict.fromkeys(scene.options.also)))


def run_layer_product(layer: RunLayer) -> Product:
    """A run's vector layer as a product, with a QGIS style beside it; its pairs' layers must be written before."""
    web = (layer.path.with_suffix(suffix) for suffix in WEB_SUFFIXES.values())
    replaces = (*names_in_all_formats(layer.path), *web, style_path(layer.path))
    return Product(layer.workspace, "layers", layer.run, layer.key, replaces, layer, write_run_layer)


def write_run_layer(layer: RunLayer) -> dict[Location, str]:
    """Write a run's layer from its pairs' layers.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If it does not read back as what was to be written.
        InputError: If an object has no place in the layer's CRS.
        RefusedError: If the objects of all pairs were.
    """
    pairs = tuple(pair for pair in layer.pairs if refusal(pair_layer_product(pair)) is None)
    if not pairs:
        raise RefusedError("the objects of all its pairs were refused")
    layer = replace(layer, pairs=pairs)
    features = _merged(layer, find_duplicates(layer))
    written = write_layer(layer.path, features, RUN_SCHEMA, layer.crs, layer.pairs[0].tags)
    crs = WGS84 if layer.suffix == SUFFIXES["geojson"] else layer.crs
    pixel = min(min(pixel_metres(pair.scene.pair.grid) or (1.0,)) for pair in pairs)
    for name, suffix in WEB_SUFFIXES.items():
        path = layer.path.with_suffix(suffix)
        if name not in layer.also:
            path.unlink(missing_ok=True)
        elif digest := write_web_layer(path, layer.path, RUN_SCHEMA, crs, pixel):
            written[path] = digest
    return written


def find_duplicates(layer: RunLayer) -> dict[Node, Node]:
    """Which objects are left out, each with the one that is kept for it."""
    boxes = np.array([shapely.box(*grid_box(pair.scene.pair.grid, layer.crs)) for pair in layer.pairs])
    times = [_time_span(pair.scene.dates) for pair in layer.pairs]
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
            for mine, their in _matches(layer, boxes, number, others):
                same.append((mine[0], their[0]))
                rank |= {node: (-mean, node) for node, mean in (mine, their)}
    return keep_best(same, rank)


def keep_best(same: Sequence[tuple[Kept, Kept]], rank: Mapping[Kept, object]) -> dict[Kept, Kept]:
    """Which objects to leave out, each with the one that is kept for it: greedy non-maximum suppression.

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


def _matches(
    layer: RunLayer, boxes: NDArray[Any], number: int, others: list[int]
) -> Iterator[tuple[tuple[Node, float], tuple[Node, float]]]:
    """The objects of a pair that others have too, each with the other's; with the mean probability of both."""
    shared = shapely.union_all(shapely.intersection(boxes[others], boxes[number]))
    parts = list(_objects(layer, number, shared))
    if not parts:
        return
    own_index, own_mean, own = (np.concatenate(column) for column in zip(*parts, strict=True))
    tree = shapely.STRtree(own)
    for other in others:
        for index, mean, polygons in _objects(layer, other, boxes[number]):
            theirs, ours = tree.query(polygons, "intersects")
            both = shapely.area(shapely.intersection(polygons[theirs], own[ours]))
            either = shapely.area(polygons[theirs]) + shapely.area(own[ours]) - both
            for at in np.flatnonzero(both > SAME * either):
                mine, their = ours[at], theirs[at]
                yield (
                    ((number, int(own_index[mine])), float(own_mean[mine])),
                    ((other, int(index[their])), float(mean[their])),
                )


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
    path = layer.pairs[number].path
    crs = WGS84 if path.suffix == SUFFIXES["geojson"] else str(layer.pairs[number].scene.pair.grid.crs)
    for batch in read_features(path):
        if known_crs(crs) != layer.crs:
            polygons = transform_polygons(decode(batch), crs, layer.crs)
        elif known_crs(WGS84) == layer.crs:
            polygons = counted_from_west(decode(batch))
        else:
            yield batch
            continue
        yield batch.set_column(batch.schema.get_field_index(GEOMETRY), GEOMETRY, encode(polygons))


def _merged(layer: RunLayer, kept_for: dict[Node, Node]) -> Iterator[pa.RecordBatch]:
    """Features of all pairs without those that are left out, each with the pairs that see it."""
    seen_by: dict[Node, set[str]] = {}
    for left_out, kept in kept_for.items():
        seen_by.setdefault(kept, set()).add(layer.pairs[left_out[0]].scene.pair.pair_id)
    for number, pair in enumerate(layer.pairs):
        pair_id, start = pair.scene.pair.pair_id, 0
        for batch in _placed(layer, number):
            nodes = [(number, start + at) for at in range(len(batch))]
            start += len(batch)
            stay = [at for at, node in enumerate(nodes) if node not in kept_for]
            pairs = [",".join(sorted({pair_id, *seen_by.get(nodes[at], ())})) for at in stay]
            columns = [*batch.take(pa.array(stay, pa.int64())).cast(SCHEMA).columns, pa.array(pairs, pa.string())]
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
