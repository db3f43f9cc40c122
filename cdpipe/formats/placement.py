"""Whether a layer of polygons lies on its scene: no change is drawn there, or the layer lies elsewhere.

A label beside its scene would train as "nothing changed".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray

from cdpipe.config.label import Label
from cdpipe.errors import InputError
from cdpipe.formats.polygons import KEPT, Boxes, Layer
from cdpipe.geo.crs import WGS84, crs_name, known_crs, on_earth
from cdpipe.geo.grid import Grid
from cdpipe.geo.placing import Box, grid_extent, grid_nodes
from cdpipe.geo.turns import full_turn

FEW = 0.01  # share of a layer's polygons below which those on the scene are strays
MUCH = 0.5  # of a scene within the layer's extent: a layer of a whole city may end in the midst of a scene
WHOLE = 0.99  # of a scene that counts as all of it
ASTRAY = 0.25  # share of the polygons beside the scene that is worth a word
PIXELS = "its numbers seem to be pixels of the scene; expected coordinates of a map"
HUGE = 10  # times as long as the scene: what no polygon of a label is that is right
FITS = 0.5  # share of the polygons that must lie on the scene for a cause to be suspected


@dataclass(frozen=True, slots=True)
class Placement:
    """How a layer lies to a scene.

    Attributes:
        on_scene: Share of the layer's polygons that meet the scene.
        covered: Share of the scene within the layer's extent.
        possible: Whether the layer's numbers can be coordinates of its CRS.
    """

    on_scene: float
    covered: float
    possible: bool


@lru_cache(maxsize=KEPT)  # the same for all blocks of a scene, and 20 ms for a large layer
def place_layer(layer: Layer, grid: Grid) -> Placement:
    """How a layer lies to a scene; every polygon is taken for the box around it."""
    boxes, scene = layer.boxes, grid_extent(grid, layer.crs)
    possible = _possible(boxes, layer)
    if scene is None:
        return Placement(0.0, 0.0, possible)
    moved = _near(boxes, layer, scene)
    on_scene = float(_meets(moved, _outline(grid, layer.crs, scene)).mean()) if len(moved) else 0.0
    if not len(moved) or not possible:
        return Placement(on_scene, 0.0, possible)
    extent = np.array([*moved[:, :2].min(0), *moved[:, 2:].max(0)])
    if layer.sampled < layer.count and layer.bounds is not None:
        extent = np.concatenate([np.minimum(extent[:2], layer.bounds[:2]), np.maximum(extent[2:], layer.bounds[2:])])
    x, y = grid_nodes(grid, layer.crs)
    inside = (x >= extent[0]) & (x <= extent[2]) & (y >= extent[1]) & (y <= extent[3])
    return Placement(on_scene, float(inside.mean()), possible)


def require_placed(layer: Layer, grid: Grid, covers: bool) -> None:
    """A layer's polygons lie on the scene, or around it: so that where none lies nothing changed.

    Args:
        layer: The layer.
        grid: The scene's.
        covers: Whether the user says that the layer covers the scene.

    Raises:
        InputError: If next to none lies on the scene and the layer's extent ends before it; with the likely cause.
    """
    _require_common_crs(layer, grid)
    if not len(layer.boxes):
        return
    found = place_layer(layer, grid)
    lost = found.on_scene < FEW and found.covered < (MUCH if found.on_scene else WHOLE)
    there = grid_extent(grid, layer.crs)
    if there is not None and _are_pixels(layer.boxes, grid) and _all_huge(layer.boxes, there):
        raise InputError(
            f"{layer.path}: its place is {_words(_around(layer.boxes))} in {crs_name(layer.crs)}; {PIXELS}"
        )
    if not lost or (covers and found.possible):
        return
    cause = next(_causes(layer, grid), None)
    few = "none of its" if not found.on_scene else f"only {found.on_scene:.1%} of its"
    own = f", {_words(grid_extent(grid, grid.crs))} in {crs_name(grid.crs)}" if grid.crs != layer.crs else ""
    scene = f"the scene's is {_words(there)}{own}" if there else f"the scene has no place there{own}"
    advice = "" if covers else "; if the layer covers the scene and nothing changed there, set label.covers: true"
    raise InputError(
        f"{layer.path}: {few} {layer.count} polygons lie on the scene: their place is {_words(_around(layer.boxes))} "
        f"in {crs_name(layer.crs)}, {scene}; {cause or _no_cause(found, layer)}{advice}"
    )


def _all_huge(boxes: Boxes, scene: Box) -> bool:
    sides = np.array([scene[2] - scene[0], scene[3] - scene[1]])
    return bool((boxes[:, 2:] - boxes[:, :2] > HUGE * sides).all())


def _require_common_crs(layer: Layer, grid: Grid) -> None:
    if not grid.placed:
        raise InputError(f"{layer.path}: has a georeference but the pair's grid has none; expected a raster label")
    if layer.crs is None and grid.crs is not None:
        where = "as a .prj file" if layer.path.suffix.lower() in (".shp", ".zip", ".shz") else "to the file"
        raise InputError(f"{layer.path}: expected a coordinate reference system, got none; add it {where}")
    if layer.crs != grid.crs and not (on_earth(layer.crs) and on_earth(grid.crs)):
        own = "coordinates without a CRS" if grid.crs is None else crs_name(grid.crs)
        raise InputError(
            f"{layer.path}: is in {crs_name(layer.crs)}, but the pair in {own}, of which nobody knows where it lies; "
            "expected polygons in the pair's own coordinates"
            + (", such as a shapefile without .prj" if grid.crs is None else "")
        )


def doubts_of_layer(layer: Layer, grid: Grid, label: Label) -> list[str]:
    """What may be wrong with a layer that is used, as the section ``label`` of the configuration has it."""
    if not layer.count:
        return [] if label.covers else [f"{layer.path}: has no polygon; all of the scene counts as unchanged"]
    doubts = []
    if label.where is not None and not layer.kept[0]:
        doubts.append(f"{layer.path}: label.where keeps none of its {layer.count} polygons; is it right? {label.where}")
    found = place_layer(layer, grid)
    if not label.covers and found.covered < WHOLE and found.on_scene < 1 - ASTRAY:
        doubts.append(
            f"{layer.path}: {1 - found.on_scene:.0%} of its polygons lie beside the scene, and {1 - found.covered:.0%} "
            "of the scene beyond all of them, which counts as unchanged; label.covers: true says that this is right"
        )
    return doubts


def _possible(boxes: Boxes, layer: Layer) -> bool:
    """Whether numbers can be longitudes and latitudes, where they should be: all but a few strays."""
    turn = full_turn(layer.crs)
    if turn is None or not len(boxes):
        return True
    limit = np.array([1.5 * turn, 0.2501 * turn, 1.5 * turn, 0.2501 * turn])
    return bool((np.abs(boxes) <= limit).all(axis=1).mean() > FEW)


def _near(boxes: Boxes, layer: Layer, scene: Box) -> Boxes:
    """Boxes with longitudes counted as the scene's are."""
    turn = full_turn(layer.crs)
    if turn is None or not len(boxes):
        return boxes
    boxes = boxes.copy()
    leaps = (boxes[:, 2] - boxes[:, 0] > turn / 2) & (boxes[:, 2] - boxes[:, 0] < turn * (1 - 1e-12))
    boxes[leaps, 0], boxes[leaps, 2] = boxes[leaps, 2], boxes[leaps, 0] + turn
    further = turn * np.round(((scene[0] + scene[2]) / 2 - (boxes[:, 0] + boxes[:, 2]) / 2) / turn)
    return np.asarray(boxes + further[:, None] * np.array([1.0, 0.0, 1.0, 0.0]))


def _outline(grid: Grid, crs: str | None, scene: Box) -> shapely.Geometry:
    x, y = grid_nodes(grid, crs)
    hull = shapely.convex_hull(shapely.multipoints(np.stack([x, y], 1)))
    turn = full_turn(crs)
    return shapely.box(*scene) if turn and scene[2] - scene[0] >= turn else hull


def _meets(boxes: Boxes, scene: shapely.Geometry) -> NDArray[np.bool_]:
    shapely.prepare(scene)
    met: NDArray[np.bool_] = shapely.intersects(scene, shapely.box(*boxes.T))
    return met


def _causes(layer: Layer, grid: Grid) -> Iterator[str]:
    """Suspected causes, each tested: with it mended, the polygons would lie on the scene."""
    boxes, degrees = layer.boxes, full_turn(layer.crs) is not None
    name, own = crs_name(layer.crs), crs_name(grid.crs)
    swapped = boxes[:, [1, 0, 3, 2]]
    axes = "latitude and longitude" if degrees else "x and y"
    if _fits(swapped, grid, layer.crs):
        yield f"{axes} seem to be exchanged: swapped, they lie on the scene"
    if not on_earth(grid.crs):
        return
    said = f"the file says or implies {name}, but its numbers"
    if grid.crs != layer.crs and _fits(boxes, grid, grid.crs):
        yield f"{said} fit the scene's own {own}: state that CRS in the file, or save it again in {name}"
    if _fits(swapped, grid, grid.crs):
        yield f"{said} fit the scene's own {own} with x and y exchanged"
    for other in _likely_crs(grid):
        if other != layer.crs and _fits(boxes, grid, other):
            yield f"{said} fit {crs_name(other)}: state that CRS in the file, or save it again in {name}"
    if degrees and _fits(boxes[:, [2, 1, 0, 3]] * np.array([-1.0, 1.0, -1.0, 1.0]), grid, layer.crs):
        yield "the sign of its longitudes seems to be wrong: with the other one, they lie on the scene"
    if _are_pixels(boxes, grid):
        yield PIXELS


def _are_pixels(boxes: Boxes, grid: Grid) -> bool:
    """Whether numbers are rows and columns rather, downwards or upwards, all over the scene."""
    height, width = grid.shape
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    within = (
        low[0] >= 0 and high[0] <= width and (0 <= low[1] <= high[1] <= height or -height <= low[1] <= high[1] <= 0)
    )
    return bool(within and high[0] - low[0] > width / 10 and high[1] - low[1] > height / 10)


def _fits(boxes: Boxes, grid: Grid, crs: str | None) -> bool:
    scene = grid_extent(grid, crs)
    return scene is not None and bool(_meets(boxes, _outline(grid, crs, scene)).mean() > FITS)


def _likely_crs(grid: Grid) -> Iterator[str]:
    """Other coordinate systems in which files of a scene's place come: degrees, Web Mercator, UTM zones around."""
    place = grid_extent(grid, known_crs(WGS84))
    codes = [4326, 3857]
    if place is not None:
        zone = int(((place[0] + place[2]) / 2 % 360 + 180) % 360 // 6) + 1
        bases = (32600, 32700) if place[1] + place[3] > 0 else (32700, 32600)
        codes += [base + (zone + step - 1) % 60 + 1 for base in bases for step in (0, -1, 1)]
    found: list[Callable[[], str | None]] = [lambda code=code: known_crs(f"EPSG:{code}") for code in codes]  # type: ignore[misc]
    yield from (crs for look in found if (crs := look()) is not None)


def _no_cause(found: Placement, layer: Layer) -> str:
    if not found.possible:
        return f"its numbers are no degrees, as {crs_name(layer.crs)} has them"
    return "is it the label of another scene?"


def _around(boxes: Boxes) -> Box:
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _words(box: Box | None) -> str:
    if box is None:
        return "nowhere"
    west, south, east, north = (f"{value:.10g}" if abs(value) >= 1000 else f"{value:.6g}" for value in box)
    return f"x {west} to {east}, y {south} to {north}"
