"""Polygons of a vector file: which layer, what is known of it, those that may lie on a grid, and their pixels."""

import re
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from shapely.errors import ShapelyError

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.formats.features import Features, listed, mentioned, select, unreadable, write_copy
from cdpipe.formats.geojson import read_geojson
from cdpipe.formats.geoparquet import read_geoparquet
from cdpipe.formats.markup import read_gml, read_kml
from cdpipe.formats.ogr import ogr, ogr_errors
from cdpipe.formats.vector_gate import JSON, PARQUET, TEXTS, PrivateFolder, take_in, vector_files
from cdpipe.geo.crs import canonical_wkt
from cdpipe.geo.grid import Grid
from cdpipe.geo.placing import place_shapes, search_boxes
from cdpipe.workspace.location import Location

SAMPLE = 20_000  # features of a layer that are looked at to tell where it lies; all of most layers
KEPT = 16  # layers that a process remembers
_ERRORS = (CRSError, UnicodeDecodeError)  # beside those of pyogrio

# What GDAL only warns of is nothing that changes outlines; where it does, an error is raised.
warnings.filterwarnings("ignore", category=RuntimeWarning, module="pyogrio")

Boxes = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """What is known of a layer of polygons; its outlines lie in private files.

    Attributes:
        path: The file, as users know it.
        crs: WKT of its coordinates; None where the file says none.
        count: Outlines that are not empty, filtered or not.
        bounds: Least x and y, greatest x and y of all; None without any.
        boxes: (parts, 4) likewise of the parts of the first outlines, in the layer's coordinates.
        sampled: How many outlines these are of.
        changed: What GDAL opens for outlines of change, and the layer in it.
        ignored: Likewise for outlines that are ignored, None without such.
        kept: How many outlines are of change, and how many are ignored.
        folder: Where the files lie.
    """

    path: Location
    crs: str | None
    count: int
    bounds: tuple[float, float, float, float] | None
    boxes: Boxes
    sampled: int
    changed: tuple[str, str | None]
    ignored: tuple[str, str | None] | None
    kept: tuple[int, int]
    folder: PrivateFolder


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    layer: Layer | None = None


_LAYERS: dict[Any, _Entry] = {}
_GUARD = threading.Lock()


def open_layer(path: Location, config: Config) -> Layer:
    """Look at the polygons of a file, once in this process as long as the file stays what it is.

    Args:
        path: A vector file of any kind that :mod:`cdpipe.formats.vector_gate` knows.
        config: Its sections ``input`` and ``label``.

    Raises:
        InputError: If the file is missing or damaged, has several layers to choose from, or a condition is wrong.
    """
    files = vector_files(path)
    key: Any = None
    label = config.label
    try:
        stamps = [(str(file), stat.size, stat.tag) for file in files for stat in [file.stat()]]
        key = (str(path), tuple(stamps), config.input.roots, label.layer, label.where, label.ignore_where)
    except (OSError, ValueError):  # told by the gate
        pass
    with _GUARD:
        entry = _LAYERS.pop(key, None) or _Entry()
        _LAYERS[key] = entry  # the last in order is the one that was used last
        while len(_LAYERS) > KEPT:
            _LAYERS.pop(next(iter(_LAYERS)))
    with entry.lock:
        if entry.layer is None:
            entry.layer = _look(path, files, config)
        return entry.layer


def _look(path: Location, files: list[Location], config: Config) -> Layer:
    own, folder = take_in(path, files, config.input, config.label.layer)
    suffix, label = own.suffix.lower(), config.label
    wanted = mentioned(label.where, label.ignore_where)
    try:
        if suffix in TEXTS:
            return _private_layer(path, _READERS[suffix](path, own, wanted), config, folder)
        source = f"GPKG:{own}" if suffix == ".gpkg" else str(own)
        name = _choose_layer(path, source, label.layer)
        info = ogr().read_info(source, layer=name, force_feature_count=True, force_total_bounds=True)
        crs = _crs(info["crs"])
        if label.where is None and label.ignore_where is None:
            shapes, sampled = _sample(path, source, name, int(info["features"]))
            count = max(int(info["features"]), sampled) if sampled else 0
            bounds = _bounds(info["total_bounds"], count) if sampled else None
            return Layer(
                path, crs, count, bounds, _part_boxes(shapes), sampled, (source, name), None, (count, 0), folder
            )
        return _private_layer(path, _read_all(path, source, name, info, wanted), config, folder)
    except (*ogr_errors(), *_ERRORS) as error:
        raise unreadable(path, _one_line(error, path, folder)) from None
    except MemoryError:
        raise unreadable(path, "it declares more of them than memory can hold") from None


_READERS: dict[str, Callable[[Location, Path, Callable[[str], bool]], Features]] = {
    **dict.fromkeys(JSON, read_geojson),
    **dict.fromkeys(PARQUET, read_geoparquet),
    ".kml": read_kml,
    ".gml": read_gml,
}


def _one_line(error: BaseException, path: Location, folder: PrivateFolder) -> str:
    """What GDAL says, without the name under which it knows the file."""
    text = " ".join(str(error).partition("It might help")[0].split()).rstrip("; ")
    text = re.sub(rf"(GPKG:)?{re.escape(str(folder.path))}/label[.\w]*", path.name, text)
    if text == f"{path.name}: No such file or directory":
        return "it has no layer of polygons"  # a GeoPackage of rasters, or of nothing
    return text[:300]


def _crs(text: str | None) -> str | None:
    """One WKT; None for the names under which a GeoPackage has no coordinate reference system."""
    if text is None or '["Undefined' in text:
        return None
    return canonical_wkt(CRS.from_user_input(text))


def _choose_layer(path: Location, source: str, wanted: str | None) -> str:
    """The layer that is asked for, or the only one that may hold polygons."""
    layers = {str(name): str(kind) for name, kind in ogr().list_layers(source) if kind is not None}
    if wanted is not None and wanted in layers:
        return wanted
    several = path.suffix.lower() in (".gpkg", ".gdb", ".zip")
    if wanted is not None and several and layers and not (path.suffix.lower() == ".zip" and len(layers) == 1):
        raise InputError(f"{path}: has no layer {wanted} (label.layer); expected one of {listed(list(layers))}")
    areal = [name for name, kind in layers.items() if "Polygon" in kind or "Surface" in kind]
    others = [name for name, kind in layers.items() if kind in ("Unknown", "GeometryCollection")]
    if len(layers) == 1 or (len(areal) == 1 and not others):
        return (areal or list(layers))[0]
    raise InputError(
        f"{path}: expected one layer of polygons, got {listed(list(layers)) or 'none'}"
        + ("; choose one by label.layer" if layers else "")
    )


def _decode(path: Location, encoded: NDArray[Any]) -> NDArray[Any]:
    """Outlines of WKB, None where there is none."""
    try:
        return np.asarray(shapely.from_wkb(encoded))
    except ShapelyError as error:
        raise InputError(
            f"{path}: an outline is damaged, or of a kind without area: {' '.join(str(error).split())}"
        ) from None


def _present(shapes: NDArray[Any]) -> NDArray[Any]:
    """Outlines, without empty ones."""
    return np.asarray(shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))])


def _sample(path: Location, source: str, name: str, features: int) -> tuple[NDArray[Any], int]:
    options: dict[str, Any] = {"columns": [], "max_features": SAMPLE, "force_2d": True}
    _, _, encoded, _ = ogr().raw.read(source, layer=name, **options, **_counted(source))
    _require_all(path, encoded, 0 if _counted(source) else min(features, SAMPLE))
    shapes = _present(_decode(path, encoded))
    _require_some_area(path, shapes)
    return shapes, len(shapes)


def _counted(source: str) -> dict[str, str]:
    """What makes GDAL count the rows of a GeoPackage, which keeps their number besides, and not always rightly."""
    return {"where": "1 = 1"} if source.startswith("GPKG:") else {}


def _require_all(path: Location, encoded: NDArray[Any], expected: int) -> None:
    """GDAL takes the end of some files that are cut off for the end of the layer."""
    if len(encoded) < expected:
        raise InputError(f"{path}: damaged: {len(encoded)} of {expected} polygons could be read")


def _require_some_area(path: Location, shapes: NDArray[Any]) -> None:
    """A layer of lines or points says nothing of its scene, also where none of them lies on it."""
    parts = _parts(shapes)
    if len(parts) and not (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON).any():
        raise _no_polygons(path, parts)


def _no_polygons(path: Location, shapes: NDArray[Any]) -> InputError:
    kinds = {str(shape.geom_type) for shape in shapes}
    return InputError(f"{path}: expected polygons, got {', '.join(sorted(kinds))}; buffer or remove them")


def _part_boxes(shapes: NDArray[Any]) -> Boxes:
    return np.asarray(shapely.bounds(_parts(shapes)), np.float64).reshape(-1, 4)


def _parts(shapes: NDArray[Any]) -> NDArray[Any]:
    """What collections hold, taken apart to the last."""
    while len(shapes) and (shapely.get_type_id(shapes) > shapely.GeometryType.POLYGON).any():
        shapes = np.asarray(shapely.get_parts(shapes))
    return np.asarray(shapes[~shapely.is_empty(shapes)])


def _bounds(values: Any, count: int) -> tuple[float, float, float, float] | None:
    if values is None or not count or not np.isfinite(values).all():
        return None
    return tuple(float(value) for value in values)  # type: ignore[return-value]


def _read_all(
    path: Location, source: str, name: str, info: Mapping[str, Any], wanted: Callable[[str], bool]
) -> Features:
    """All of a layer with the attributes that are asked for, to be filtered."""
    names = [str(field) for field in info["fields"]]
    columns = [field for field in names if wanted(field)]
    options: dict[str, Any] = {"columns": columns, "force_2d": True, "return_fids": True}
    meta, fids, encoded, data = ogr().raw.read(source, layer=name, **options, **_counted(source))
    _require_all(path, encoded, 0 if _counted(source) else int(info["features"]))
    found = Features(_crs(info["crs"]), names)
    values = {str(field): column for field, column in zip(meta["fields"], data, strict=True)}
    if "fid" not in map(str.lower, names):
        values["fid"] = fids
        found.names = [*names, "fid"]
    found.columns = {field: [] for field in values}
    for number, shape in enumerate(_decode(path, encoded)):
        found.add(shape, {field: column[number] for field, column in values.items()}, wanted)
    return found


def _private_layer(path: Location, found: Features, config: Config, folder: PrivateFolder) -> Layer:
    """A layer whose outlines are written anew, those of change and those that are ignored each into a file."""
    label = config.label
    wkb = np.array([*found.wkb, None], object)[:-1]
    every = np.ones(len(wkb), np.bool_)
    changed = every if label.where is None else select(path, found, "label.where", label.where)
    nothing = np.zeros(len(wkb), np.bool_)
    ignored = nothing if label.ignore_where is None else select(path, found, "label.ignore_where", label.ignore_where)
    shapes = _decode(path, wkb)  # none of them is empty
    _require_some_area(path, shapes[changed | ignored][:SAMPLE])
    write_copy(wkb[changed & ~ignored], found.crs, folder.path / "changed.fgb")
    write_copy(wkb[ignored], found.crs, folder.path / "ignored.fgb")
    boxes = np.asarray(shapely.bounds(shapes), np.float64).reshape(-1, 4)
    bounds = _bounds([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)], len(boxes)) if len(boxes) else None
    sample = shapes[:SAMPLE]
    return Layer(
        path,
        found.crs,
        len(shapes),
        bounds,
        _part_boxes(sample),
        len(sample),
        (str(folder.path / "changed.fgb"), None),
        (str(folder.path / "ignored.fgb"), None) if ignored.any() else None,
        (int((changed & ~ignored).sum()), int(ignored.sum())),
        folder,
    )


def read_polygons(layer: Layer, grid: Grid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read the polygons that may lie on a grid.

    Args:
        layer: The layer.
        grid: Where to look; the grid of a window, to read no more than needed.

    Returns:
        (polygons,) of Shapely, in the coordinates of ``grid``: those of change, and those that are ignored.

    Raises:
        InputError: If the file is damaged, has no CRS or not only polygons.
    """
    empty = np.empty(0, object)
    changed = _read(layer, layer.changed, grid) if layer.kept[0] else empty
    return changed, _read(layer, layer.ignored, grid) if layer.ignored else empty


def _read(layer: Layer, source: tuple[str, str | None], grid: Grid) -> NDArray[Any]:
    path = layer.path
    pieces = []
    for box in search_boxes(grid, layer.crs, layer.bounds):
        try:
            _, _, encoded, _ = ogr().raw.read(source[0], layer=source[1], columns=[], bbox=box, force_2d=True)
        except (*ogr_errors(), *_ERRORS) as error:
            raise unreadable(path, _one_line(error, path, layer.folder)) from None
        pieces.append(_parts(_present(_decode(path, encoded))))
    shapes = np.concatenate(pieces)
    others = shapes[shapely.get_type_id(shapes) != shapely.GeometryType.POLYGON]
    if len(others):
        raise _no_polygons(path, others)
    moved = place_shapes(shapes, layer.crs, grid)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(f"{path}: a polygon reaches beyond where the pair's coordinate system is defined")
    return moved


def burn_polygons(polygons: NDArray[Any], grid: Grid) -> NDArray[np.uint8]:
    """1 where a pixel's centre lies in a polygon, else 0; where an outline crosses itself, by the even-odd rule.

    Args:
        polygons: (polygons,) of Shapely, in the grid's coordinates.
        grid: The pixels.

    Returns:
        (height, width).
    """
    x, y = grid.xy(*grid.outline(2))
    x_min, y_min, x_max, y_max = shapely.bounds(polygons).T
    near = polygons[(x_min <= x.max()) & (x_max >= x.min()) & (y_min <= y.max()) & (y_max >= y.min())]
    if not len(near):
        return np.zeros(grid.shape, np.uint8)
    burnt = rasterize(near, grid.shape, transform=Affine(*grid.transform), default_value=1, dtype=np.uint8)
    return np.asarray(burnt)
