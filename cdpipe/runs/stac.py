"""A run as a SpatioTemporal Asset Catalog (STAC 1.1): a Collection, and an Item for each pair with links to its files.

Specification: https://github.com/radiantearth/stac-spec/tree/v1.1.0, with the extensions projection 2.0, raster 2.0,
file 2.1 and processing 1.1. Links are relative, so that a workspace may be moved.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from cdpipe.formats.dates import parse_time
from cdpipe.formats.web_vectors import WEB_SUFFIXES
from cdpipe.geo.crs import crs_name, on_earth
from cdpipe.geo.ground import pixel_metres
from cdpipe.geo.shapes import footprint
from cdpipe.keys import content_key
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.models.stac_item import ALWAYS, MULTIHASH, VERSION
from cdpipe.runs.products import Product
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.files import write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
]
_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
    ".fgb": "application/vnd.flatgeobuf",
    ".pmtiles": "application/vnd.pmtiles",
    ".vrt": "application/xml",
    ".qml": "application/xml",
}
_WEB = {suffix: f"_{name}" for name, suffix in WEB_SUFFIXES.items()}


@dataclass(frozen=True, slots=True)
class StacPair:
    """What an Item tells of a pair.

    Attributes:
        pair: The pair.
        change_key: Key of its change.
        dates: In ISO 8601, None where they are not known.
        sources: SHA-256 of the files it was made of, by their names.
        files: Published files relative to the workspace, each with its SHA-256.
    """

    pair: StoredPair
    change_key: str
    dates: tuple[str | None, str | None]
    sources: dict[str, list[str]]
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class StacCatalog:
    """The catalog of a run.

    Attributes:
        workspace: Where all lies.
        run: The run's name.
        pairs: Finished pairs.
        files: Published files of the whole run, as in :class:`StacPair`.
        software: Version of cdpipe.
        facts: How change was made: models, ensemble, threshold, as JSON values.
    """

    workspace: Workspace
    run: str
    pairs: tuple[StacPair, ...]
    files: dict[str, str]
    software: str
    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """Content key of the catalog."""
        pairs = [
            [entry.pair.pair_id, entry.pair.key, entry.change_key, list(entry.dates), entry.sources, entry.files]
            for entry in self.pairs
        ]
        parts = {"run": self.run, "pairs": pairs, "files": self.files, "software": self.software, "facts": self.facts}
        return content_key("stac", parts)

    @property
    def folder(self) -> Location:
        """The catalog's folder."""
        return self.workspace.run(self.run) / "stac"

    @property
    def path(self) -> Location:
        """File of the Collection."""
        return self.folder / "collection.json"

    def item_path(self, entry: StacPair) -> Location:
        """File of a pair's Item."""
        return self.folder / "items" / f"{entry.pair.pair_id}.json"


def stac_product(catalog: StacCatalog) -> Product:
    """A run's catalog as a product; what it links to must be written before."""
    return Product(catalog.workspace, "catalogs", catalog.run, catalog.key, (catalog.path,), catalog, write_stac)


def write_stac(catalog: StacCatalog) -> dict[Location, str]:
    """Write a run's Items and its Collection; Items of pairs that are no more in the run go.

    Returns:
        Every file with its SHA-256.
    """
    paths = [catalog.path, *map(catalog.item_path, catalog.pairs)]
    for old in set((catalog.folder / "items").glob("*.json")) - set(paths):
        old.unlink()
    boxes, spans = [], []
    for entry in catalog.pairs:
        item = describe_item(catalog, entry)
        write_json(catalog.item_path(entry), item)
        boxes += [item["bbox"]] if "bbox" in item else []
        spans.append((item["properties"]["start_datetime"], item["properties"]["end_datetime"]))
    write_json(catalog.path, describe_collection(catalog, boxes, spans))
    return hash_stored(paths)


def describe_item(catalog: StacCatalog, entry: StacPair) -> dict[str, Any]:
    """A pair's Item; without a georeference it has no geometry, as the specification has it."""
    path, grid = catalog.item_path(entry), entry.pair.grid
    start, end = entry.dates
    properties: dict[str, Any] = {
        "datetime": None,
        "start_datetime": ALWAYS[0] if start is None else _utc(start),
        "end_datetime": ALWAYS[1] if end is None else _utc(end),
        "proj:shape": list(grid.shape),
        "processing:software": {"cdpipe": catalog.software},
        "processing:lineage": _lineage(catalog, entry),
        "cdpipe:pair": entry.pair.pair_id,
        "cdpipe:dates_known": None not in entry.dates,
        "cdpipe:sources": entry.sources,
        **{f"cdpipe:{name}": value for name, value in catalog.facts.items()},
    }
    place: dict[str, Any] = {"geometry": None}
    if grid.placed:
        name = crs_name(grid.crs)
        properties |= {
            "proj:code": name if name.startswith("EPSG:") else None,
            "proj:wkt2": grid.crs,
            "proj:transform": list(grid.transform),
        }
    if on_earth(grid.crs):
        geometry, box = footprint(grid)
        place = {"geometry": geometry, "bbox": box}
    assets = dict(_assets(path, entry.files, catalog.workspace.root, entry))
    store = catalog.workspace.group("changes", entry.pair.pair_id, entry.change_key)
    assets["zarr"] = {"href": _relative(store, path), "type": "application/vnd+zarr", "roles": ["data"]}
    assets["zarr"]["title"] = "probability and change as a Zarr v3 group"
    collection = _relative(catalog.path, path)
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": EXTENSIONS,
        "id": entry.pair.pair_id,
        **place,
        "properties": properties,
        "links": [
            {"rel": rel, "href": collection, "type": "application/json"} for rel in ("root", "parent", "collection")
        ],
        "assets": assets,
        "collection": catalog.run,
    }


def describe_collection(catalog: StacCatalog, boxes: list[list[float]], spans: list[tuple[str, str]]) -> dict[str, Any]:
    """The run's Collection."""
    path = catalog.path
    around = [f(box[n] for box in boxes) for n, f in enumerate((min, min, max, max))] if boxes else [-180, -90, 180, 90]
    if any(west > east for west, _, east, _ in boxes):  # across the antimeridian
        around = [-180, around[1], 180, around[3]]
    known = [moment for span in spans for moment in span if moment not in ALWAYS]
    complete = len(known) == 2 * len(spans)
    interval = [min(known), max(known)] if known and complete else [None, None]
    facts = {**catalog.facts, "version": catalog.software}
    children = [
        {"rel": "item", "href": _relative(catalog.item_path(entry), path), "type": "application/geo+json"}
        for entry in catalog.pairs
    ]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [EXTENSIONS[2]],
        "id": catalog.run,
        "title": catalog.run,
        "description": f"Change between two dates in {len(catalog.pairs)} pair(s) of scenes, found by cdpipe.",
        "license": "other",
        "extent": {"spatial": {"bbox": [around]}, "temporal": {"interval": [interval]}},
        "summaries": {f"cdpipe:{name}": [value] for name, value in facts.items()},
        "links": [{"rel": "root", "href": "./collection.json", "type": "application/json"}, *children],
        "assets": dict(_assets(path, catalog.files, catalog.workspace.root, None)),
    }


def _assets(
    path: Location, files: dict[str, str], root: Location, entry: StacPair | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """An asset for every file; rasters are named by what comes after the pair's id."""
    for name, sha in sorted(files.items()):
        file = root / name
        stem = file.stem if entry is None else file.stem.removeprefix(f"{entry.pair.pair_id}_")
        asset = {
            "href": _relative(file, path),
            "type": _MEDIA[file.suffix],
            "roles": ["metadata"] if file.suffix == ".qml" else ["data"],
            "file:size": file.stat().size,
            "file:checksum": MULTIHASH + sha,
        }
        if file.suffix == ".tif" and entry is not None:
            asset |= {"title": f"{stem} raster", "bands": [_band(stem, entry)]}
        elif file.suffix == ".qml":
            asset["title"] = "QGIS style"
        elif file.suffix == ".vrt":
            asset["title"] = "change of all pairs"
        else:
            asset["title"] = "change objects"
        key = f"objects{_WEB.get(file.suffix, '')}" if file.parent.name == "vectors" else stem
        yield f"{key}_style" if file.suffix == ".qml" else key, asset


def _band(stem: str, entry: StacPair) -> dict[str, Any]:
    mask = stem == "change"
    band: dict[str, Any] = {
        "name": stem,
        "description": "0 unchanged, 1 changed" if mask else "probability of change",
        "data_type": "uint8" if mask else "float32",
        "nodata": NOT_OBSERVED if mask else "nan",
        "raster:sampling": "area",
    }
    metres = pixel_metres(entry.pair.grid)
    return band if metres is None else {**band, "raster:spatial_resolution": round(sum(metres) / 2, 3)}


def _lineage(catalog: StacCatalog, entry: StacPair) -> str:
    models = ", ".join(str(model["name"]) for model in catalog.facts["models"])
    return f"change, seen by {models} in {', '.join(sorted(entry.sources))}"


def _utc(date: str) -> str:
    moment = parse_time(date).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _relative(file: Location, beside: Location) -> str:
    """A link from one file to another."""
    link = os.path.relpath(str(file), str(beside.parent))
    return link if link.startswith(".") else f"./{link}"
