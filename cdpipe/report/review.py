"""Verdicts on change objects, as the report's gallery saves them in GeoJSON: read, and painted as labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from cdpipe.config.label import Label, as_number
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.cog import Band, write_cog
from cdpipe.formats.polygons import burn_polygons
from cdpipe.geo.crs import on_earth
from cdpipe.geo.grid import ID_PATTERN, Grid, Window
from cdpipe.geo.shapes import outline_on_grid
from cdpipe.geo.tilings import TILE, tiles_in
from cdpipe.metrics.classes import CHANGED, IGNORE, UNCHANGED
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

FORMAT = 1
VERDICTS = ("accepted", "rejected", "unsure")
PAINTED = (("rejected", UNCHANGED), ("accepted", CHANGED))  # the later on top, where objects overlap
QUIET = 0.1  # of the threshold: ground of no higher probability is quiet


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
        if self.pixels == on_earth(grid.crs):
            known, other = ("none", "one") if self.pixels else ("one", "none")
            raise InputError(f"change {self.change} was reviewed with {known} georeference, the pair has {other}")
        if grid.crs is None or not on_earth(grid.crs):
            return self.shape
        moved = outline_on_grid(self.shape, grid)
        if not np.isfinite(shapely.get_coordinates(moved)).all():
            raise InputError(f"change {self.change} reaches beyond where the pair's coordinate system is defined")
        return moved


def read_review(path: Location, run: str) -> list[Verdict]:
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
    verdicts, mistakes = [], []
    for number, feature in enumerate(features, 1):
        try:
            verdicts.append(_read_feature(feature))
        except (InputError, ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            mistakes.append(f"  feature {number}: {' '.join(str(error).split()) or type(error).__name__}")
    if mistakes:
        raise InputError("\n".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes[:20]]))
    return verdicts


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


@dataclass(frozen=True, slots=True)
class ReviewJob:
    """The label of one reviewed pair.

    Attributes:
        workspace: The store.
        path: GeoTIFF to write.
        pair: The pair.
        label_key: Key of the label that it has already, None without one.
        quiet: Keys of the probabilities of all models that found the changes; ground that is quiet by each of them
            counts as unchanged, where the pair has no label. Empty where it is to count nowhere.
        threshold: From which on probabilities were change.
        verdicts: Of its changes.
        values: What the raster has for 0 (unchanged), 1 (changed) and 255 (ignore).
    """

    workspace: Workspace
    path: Location
    pair: StoredPair
    label_key: str | None
    quiet: tuple[str, ...]
    threshold: float
    verdicts: Sequence[Verdict]
    values: Mapping[int, int]


def raster_values(meaning: Label) -> dict[int, int]:
    """Values that the configuration understands as unchanged, changed and (as nodata) ignore.

    Raises:
        ConfigError: If bytes have no room for them.
    """
    numbers = {
        name: [value for value in map(as_number, listed) if isinstance(value, int)]
        for name, listed in meaning.lists.items()
    }
    if not numbers["changed"] or not numbers["unchanged"]:
        raise ConfigError("label: expected a number for changed and one for unchanged, which a review's labels need")
    values = {UNCHANGED: numbers["unchanged"][0], CHANGED: numbers["changed"][0]}
    taken = {value for listed in numbers.values() for value in listed}
    free = next((value for value in range(255, -1, -1) if value not in taken), None)
    if free is None or not all(0 <= value <= 255 for value in values.values()):
        raise ConfigError(f"label: a review's labels are bytes, which have no room for {sorted(taken)} and nodata")
    return {**values, IGNORE: free}


def write_review_label(job: ReviewJob) -> dict[str, int]:
    """Write a reviewed pair's label on the pair's grid, tile by tile.

    Where the pair has a label already, verdicts are painted over it. Where it has none, ground that is quiet by every
    model is unchanged, if that is wanted: labels of nothing but what looks like change would not teach what does not.
    Everywhere else the raster has nodata, which ingest takes for "ignore": what nobody looked at must not become
    unchanged.

    Returns:
        How many objects were accepted and rejected, and how many pixels are ``quiet``, labelled by nobody's eye.

    Raises:
        InputError: If an outline does not lie in the pair's coordinates.
        IntegrityError: If the raster cannot be written, or what is stored is damaged.
    """
    grid = job.pair.grid
    shapes = {
        verdict: np.array([change.outline(grid) for change in job.verdicts if change.verdict == verdict], object)
        for verdict, _ in PAINTED
    }
    table = np.full(256, job.values[IGNORE], np.uint8)
    table[[UNCHANGED, CHANGED]] = job.values[UNCHANGED], job.values[CHANGED]

    quiet: dict[Window, int] = {}  # by tile, since one may be read again

    def read(window: Window) -> NDArray[np.uint8]:
        label = _earlier_label(job, window)
        for tile in tiles_in(window, TILE):  # whole tiles: rounding must not depend on the window
            part = label[tile.slices_in(window)]
            unseen = np.full(part.shape, job.label_key is None)
            for verdict, value in PAINTED:
                if len(shapes[verdict]):
                    burnt = burn_polygons(shapes[verdict], grid.crop(tile)) == 1
                    part[burnt], unseen[burnt] = value, False
            quiet[tile] = int(np.count_nonzero(part[unseen] == UNCHANGED))
        return table[label]

    meaning = ", ".join(f"{job.values[value]} {name}" for value, name in ((CHANGED, "changed"), (UNCHANGED, "not")))
    band = Band("uint8", job.values[IGNORE], f"reviewed label: {meaning}")
    write_cog(job.path, read, grid, band)
    return {**{verdict: len(outlines) for verdict, outlines in shapes.items()}, "quiet": sum(quiet.values())}


def _earlier_label(job: ReviewJob, window: Window) -> NDArray[np.uint8]:
    """What is known without the verdicts: the pair's label, or where it has none its quiet ground."""
    if job.label_key is not None:
        group = job.workspace.group("labels", job.pair.pair_id, job.label_key)
        return read_window(open_array(group, "label"), window)
    sure = np.full(window.shape, bool(job.quiet))
    for key in job.quiet:
        array = open_array(job.workspace.group("probabilities", job.pair.pair_id, key), "probability")
        sure &= read_window(array, window) <= QUIET * job.threshold
    return np.where(sure, np.uint8(UNCHANGED), np.uint8(IGNORE))
