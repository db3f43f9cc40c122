"""A run as a SpatioTemporal Asset Catalog (STAC 1.1): a Collection, and an Item for each pair with links to its files.

Specification: https://github.com/radiantearth/stac-spec/tree/v1.1.0, with the extensions projection 2.0, raster 2.0,
file 2.1 and processing 1.1. Links are relative, so that a workspace may be moved.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from cdpipe.geo.crs import crs_name
from cdpipe.geo.ground import pixel_metres
from cdpipe.geo.shapes import footprint
from cdpipe.keys import content_key
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.pairs.catalog import parse_time
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import write_json
from cdpipe.workspace.records import GROUP_RECORD, hash_stored, read_record, withdraw_records, write_record

VERSION = "1.1.0"
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
]
# An Item must lie in time: a pair whose dates are not known lies between these.
NEVER = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
    ".qml": "application/xml",
}
_MULTIHASH = "1220"  # what follows is a SHA-256 of 32 bytes


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
class StacJob:
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
            [each.pair.pair_id, each.pair.key, each.change_key, list(each.dates), each.sources, each.files]
            for each in self.pairs
        ]
        parts = {"run": self.run, "pairs": pairs, "files": self.files, "software": self.software, "facts": self.facts}
        return content_key("stac", parts)

    @property
    def record(self) -> Path:
        """File of the record that says the catalog is written."""
        return self.workspace.records("catalogs", self.run, self.key) / GROUP_RECORD

    @property
    def folder(self) -> Path:
        """The catalog's folder."""
        return self.workspace.run(self.run) / "stac"

    def item_path(self, each: StacPair) -> Path:
        """File of a pair's Item."""
        return self.folder / "items" / f"{each.pair.pair_id}.json"


def describe_item(job: StacJob, each: StacPair) -> dict[str, Any]:
    """A pair's Item; without a georeference it has no geometry, as the specification has it."""
    path, grid = job.item_path(each), each.pair.grid
    start, end = each.dates
    properties: dict[str, Any] = {
        "datetime": None,
        "start_datetime": NEVER[0] if start is None else _utc(start),
        "end_datetime": NEVER[1] if end is None else _utc(end),
        "proj:shape": list(grid.shape),
        "processing:software": {"cdpipe": job.software},
        "processing:lineage": _lineage(job, each),
        "cdpipe:pair": each.pair.pair_id,
        "cdpipe:dates_known": None not in each.dates,
        "cdpipe:sources": each.sources,
        **{f"cdpipe:{name}": value for name, value in job.facts.items()},
    }
    place: dict[str, Any] = {"geometry": None}
    if grid.crs is not None:
        name = crs_name(grid.crs)
        properties |= {
            "proj:code": name if name.startswith("EPSG:") else None,
            "proj:wkt2": grid.crs,
            "proj:transform": list(grid.transform),
        }
        geometry, box = footprint(grid)
        place = {"geometry": geometry, "bbox": box}
    assets = dict(_assets(path, each.files, job.workspace.root, each))
    store = job.workspace.group("changes", each.pair.pair_id, each.change_key)
    assets["zarr"] = {"href": _relative(store, path), "type": "application/vnd+zarr", "roles": ["data"]}
    assets["zarr"]["title"] = "probability and change as a Zarr v3 group"
    collection = _relative(job.folder / "collection.json", path)
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": EXTENSIONS,
        "id": each.pair.pair_id,
        **place,
        "properties": properties,
        "links": [
            {"rel": rel, "href": collection, "type": "application/json"} for rel in ("root", "parent", "collection")
        ],
        "assets": assets,
        "collection": job.run,
    }


def describe_collection(job: StacJob, boxes: list[list[float]], spans: list[tuple[str, str]]) -> dict[str, Any]:
    """The run's Collection."""
    path = job.folder / "collection.json"
    around = [f(box[n] for box in boxes) for n, f in enumerate((min, min, max, max))] if boxes else [-180, -90, 180, 90]
    if any(west > east for west, _, east, _ in boxes):  # across the antimeridian
        around = [-180, around[1], 180, around[3]]
    known = [moment for span in spans for moment in span if moment not in NEVER]
    complete = len(known) == 2 * len(spans)
    interval = [min(known), max(known)] if known and complete else [None, None]
    children = [
        {"rel": "item", "href": _relative(job.item_path(each), path), "type": "application/geo+json"}
        for each in job.pairs
    ]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [EXTENSIONS[2]],
        "id": job.run,
        "title": job.run,
        "description": f"Change between two dates in {len(job.pairs)} pair(s) of scenes, found by cdpipe.",
        "license": "other",
        "extent": {"spatial": {"bbox": [around]}, "temporal": {"interval": [interval]}},
        "summaries": {f"cdpipe:{name}": [value] for name, value in {**job.facts, "version": job.software}.items()},
        "links": [{"rel": "root", "href": "./collection.json", "type": "application/json"}, *children],
        "assets": dict(_assets(path, job.files, job.workspace.root, None)),
    }


def _assets(
    path: Path, files: dict[str, str], root: Path, each: StacPair | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """An asset for every file; rasters are named by what comes after the pair's id."""
    for name, sha in sorted(files.items()):
        file = root / name
        stem = file.stem if each is None else file.stem.removeprefix(f"{each.pair.pair_id}_")
        asset = {
            "href": _relative(file, path),
            "type": _MEDIA[file.suffix],
            "roles": ["metadata"] if file.suffix == ".qml" else ["data"],
            "file:size": file.stat().st_size,
            "file:checksum": _MULTIHASH + sha,
        }
        if file.suffix == ".tif" and each is not None:
            asset |= {"title": f"{stem} raster", "bands": [_band(stem, each)]}
        elif file.suffix == ".qml":
            asset["title"] = "QGIS style"
        else:
            asset["title"] = "change objects"
        key = "objects" if file.parent.name == "vectors" else stem
        yield f"{key}_style" if file.suffix == ".qml" else key, asset


def _band(stem: str, each: StacPair) -> dict[str, Any]:
    mask = stem == "change"
    band: dict[str, Any] = {
        "name": stem,
        "description": "0 unchanged, 1 changed" if mask else "probability of change",
        "data_type": "uint8" if mask else "float32",
        "nodata": NOT_OBSERVED if mask else "nan",
        "raster:sampling": "area",
    }
    metres = pixel_metres(each.pair.grid)
    return band if metres is None else {**band, "raster:spatial_resolution": round(sum(metres) / 2, 3)}


def _lineage(job: StacJob, each: StacPair) -> str:
    models = ", ".join(str(model["name"]) for model in job.facts["models"])
    return f"change, seen by {models} in {', '.join(sorted(each.sources))}"


def _utc(date: str) -> str:
    moment = parse_time(date).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _relative(file: Path, beside: Path) -> str:
    """A link from one file to another."""
    link = Path(os.path.relpath(str(file), str(beside.parent))).as_posix()
    return link if link.startswith(".") else f"./{link}"


# A run's STAC catalog as files, recorded as its other products are.


def stac_is_written(job: StacJob) -> bool:
    """Whether the catalog is there; ``verify`` also looks inside."""
    record = read_record(job.record)
    return record is not None and all((job.workspace.root / name).is_file() for name in record.objects)


def write_stac(job: StacJob) -> None:
    """Write a run's Items and its Collection, then record them; those of pairs that are no more in the run go."""
    collection = job.folder / "collection.json"
    paths = [collection, *(job.item_path(each) for each in job.pairs)]
    withdraw_records(job.record, job.workspace.root, [collection])
    for old in set((job.folder / "items").glob("*.json")) - set(paths):
        old.unlink()
    boxes, spans = [], []
    for each in job.pairs:
        item = describe_item(job, each)
        write_json(job.item_path(each), item)
        boxes += [item["bbox"]] if "bbox" in item else []
        spans.append((item["properties"]["start_datetime"], item["properties"]["end_datetime"]))
    write_json(collection, describe_collection(job, boxes, spans))
    crash_point("stac-unrecorded")
    write_record(job.record, job.workspace.root, hash_stored(paths))
