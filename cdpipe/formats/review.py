"""Reads a saved review: verdicts on change objects, as the report's gallery writes them in GeoJSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from rasterio.crs import CRS
from shapely.errors import ShapelyError

from cdpipe.errors import InputError
from cdpipe.geo.crs import canonical_wkt, transform_points
from cdpipe.geo.grid import ID_PATTERN, Grid

FORMAT = 1
VERDICTS = ("accepted", "rejected", "unsure")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody says of a change object.

    Attributes:
        pair_id: Its pair.
        change: The object's name within the pair.
        verdict: ``accepted`` (it is change), ``rejected`` (it is none) or ``unsure``.
        shape: Its outline in longitude and latitude, or in columns and rows.
        pixels: Whether in columns and rows, as of pairs without georeference.
    """

    pair_id: str
    change: str
    verdict: str
    shape: Any
    pixels: bool

    def outline(self, grid: Grid) -> Any:
        """The outline in a grid's coordinates.

        Raises:
            InputError: If the one has a georeference and the other none, or it lies where the grid's CRS has no place.
        """
        if self.pixels != (grid.crs is None):
            known, other = ("none", "one") if self.pixels else ("one", "none")
            raise InputError(f"change {self.change} was reviewed with {known} georeference, the pair has {other}")
        if grid.crs is None:
            return self.shape
        to = grid.crs
        wgs84 = canonical_wkt(CRS.from_epsg(4326))
        moved = shapely.transform(self.shape, lambda xy: np.stack(transform_points(wgs84, to, xy[:, 0], xy[:, 1]), -1))
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise InputError(f"change {self.change} reaches beyond where the pair's coordinate system is defined")
        return moved


def read_review(path: Path, run: str) -> list[Verdict]:
    """The verdicts of a file that the report saved.

    Args:
        path: The file.
        run: The run whose report it should be of.

    Raises:
        InputError: If it is missing, damaged, of another run, or says what no report does; all mistakes are listed.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a review that the report saved, GeoJSON in UTF-8: {error}") from None
    head = value.get("cdpipe") if isinstance(value, dict) else None
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(head, dict) or head.get("format") != FORMAT or not isinstance(features, list):
        raise InputError(f"{path}: expected a review that the report saved (review.geojson), got another file")
    if head.get("run") != run:
        raise InputError(f"{path}: a review of run {head.get('run')!r}, the configuration's run is {run!r}")
    found, mistakes = [], []
    for number, feature in enumerate(features, 1):
        try:
            found.append(_read_feature(feature))
        except (InputError, ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            mistakes.append(f"  feature {number}: {' '.join(str(error).split()) or type(error).__name__}")
    if mistakes:
        raise InputError("\n".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes[:20]]))
    return found


def _read_feature(feature: Mapping[str, Any]) -> Verdict:
    properties = feature["properties"]
    pair_id, verdict = properties["pair_id"], properties["verdict"]
    if not isinstance(pair_id, str) or not ID_PATTERN.fullmatch(pair_id):
        raise InputError(f"pair_id: expected {ID_PATTERN.pattern}, got {pair_id!r}")
    if verdict not in VERDICTS:
        raise InputError(f"verdict: expected {', '.join(VERDICTS)}, got {verdict!r}")
    shape = shapely.geometry.shape(feature["geometry"])
    if shape.geom_type not in ("Polygon", "MultiPolygon") or shape.is_empty:
        raise InputError(f"geometry: expected a polygon, got {shape.geom_type}")
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise InputError("geometry: expected finite coordinates")
    return Verdict(pair_id, str(properties["change"]), verdict, shape, properties["pixels"] is True)
