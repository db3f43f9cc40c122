"""What the report shows of one pair: read once into cells, drawn as files, its figures and best changes as facts."""

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.ground import has_areas, row_areas
from cdpipe.keys import content_key
from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED
from cdpipe.report import drawing
from cdpipe.report.changes import ON_PAGE, PER_PAIR, outline_changes, rank_changes, top_change, write_chip
from cdpipe.report.drawing import PHOTOS, Image, Limits, suffix_of, write_overlay, write_photo
from cdpipe.report.place import describe_ground, describe_place, ground_aspect
from cdpipe.report.pyramid import TILE, Pyramid, near_change, write_pyramid
from cdpipe.report.scene import Cells, Read, cell_counts, cell_side, mean_of, open_scene, shrink
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, DATES, StoredPair
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

THUMB = 176  # longest side of a thumbnail, in pixels
SMALL = 77  # its quality
FACTS, VIEW = "facts.json", "view.js"  # of a pair, for its page and for its page's script
DRAWN = 5  # as what is drawn comes to be something else
MAX_SIDE = 1280  # of a page's pictures, in cells
COUNTED = ("observed", "changed")  # in the figures
BITS = tuple(zip(DATES, (BEFORE_BIT, AFTER_BIT), strict=True))


@dataclass(frozen=True, slots=True)
class PairJob:
    """The pictures of one pair.

    Attributes:
        workspace: The store.
        run: The run's name.
        folder: Where its pictures go.
        pair: The pair.
        label_key: Key of its label, None without one.
        change_key: Key of its change.
        objects: File of its change objects with its SHA-256, None where there is none.
        doubt_at: The run's threshold, where changes come first that are most worth a label; None where the best do.
        chips: How many of its changes are shown before and after, best first.
    """

    workspace: Workspace
    run: str
    folder: Location
    pair: StoredPair
    label_key: str | None
    change_key: str
    objects: tuple[Location, str] | None
    doubt_at: float | None = None
    chips: int = PER_PAIR

    @property
    def key(self) -> str:
        """Content key of the pictures and facts."""
        parts = {
            "drawn": DRAWN,
            "run": self.run,
            "pair": self.pair.key,
            "label": self.label_key,
            "change": self.change_key,
            "objects": self.objects and self.objects[1],
        }
        doubt = {} if self.doubt_at is None else {"doubt_at": self.doubt_at, "chips": self.chips}
        return content_key("report", parts | doubt)

    @property
    def facts(self) -> Location:
        """File of the pair's facts, as JSON: what :func:`read_facts` gives."""
        return self.folder / FACTS


def read_facts(job: PairJob) -> dict[str, Any]:
    """What :func:`make_pair` found: ``size``, ``figures``, ``images``, ``objects``, where it lies, how it is shown."""
    found: dict[str, Any] = read_json(job.facts)
    return found


def make_pair(job: PairJob) -> dict[Location, str]:
    """Draw a pair's pictures and tiles, and write down its facts.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    grid = job.pair.grid
    overview = read_overview(job.workspace, job.pair, job.change_key, job.label_key)
    limits, aspect = shown_limits(overview), ground_aspect(grid)
    images = _draw_images(job.folder, overview, limits, aspect)
    objects = []
    changes, total = rank_changes(job.objects[0], grid, ON_PAGE, job.doubt_at) if job.objects is not None else ([], 0)
    scene = _observed_scene(job)
    for top in (top_change(each, grid) for each in changes[: job.chips]):
        name = f"change-{top.id}.jpg"
        images[name] = write_chip(job.folder / name, top, grid, scene, limits, aspect)
        objects.append({**top.to_json(), "chip": name})
    shown = open_scene(job.workspace, job.pair, job.change_key, job.label_key)
    tiles, levels = draw_tiles(job.folder, shown, grid.shape, overview, limits)
    view = describe_view(grid, overview.cell, levels, outline_changes(changes, grid))
    (job.folder / VIEW).write(f"const VIEW = {json.dumps(view, separators=(',', ':'))};\n".encode())
    remove_others(job.folder, {*images, *tiles})
    facts = {
        "key": job.key,
        **describe_shown(grid, overview, tiles),
        "images": images,
        "objects": objects,
        "object_count": None if job.objects is None else total,
        "outlined": len(changes),
    }
    write_json(job.facts, facts)
    return hash_stored([job.facts, job.folder / VIEW, *(job.folder / name for name in sorted({*images, *tiles}))])


def describe_shown(grid: Grid, overview: "Overview", tiles: Mapping[str, int]) -> dict[str, Any]:
    """Facts of a pair that are the same whatever is done with its changes: its size, its place, its figures.

    Args:
        grid: The pair's.
        overview: Its pictures.
        tiles: Sizes in bytes by file name.
    """
    return {
        "size": list(grid.shape),
        "cell": overview.cell,
        "cells": list(overview.observed.shape),
        **describe_ground(grid),
        "place": {
            **{name: told for name, told in describe_place(grid).items() if name != "nodes"},
            **({} if grid.crs is None else {"wkt": grid.crs}),
        },
        "labelled": overview.labelled is not None,
        "figures": overview.figures,
        "tiles": [len(tiles), sum(tiles.values())],
    }


def describe_view(
    grid: Grid, cell: int, levels: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a page's script has to know of a pair to show it: see ``templates/viewer.js``.

    Args:
        grid: The pair's.
        cell: Side of the cells of its pictures, in pixels.
        levels: Of tiles, see :func:`cdpipe.report.pyramid.write_pyramid`.
        changes: See :func:`cdpipe.report.changes.outline_changes`.
    """
    rows, cols = (count * cell for count in cell_counts(grid.shape, cell))
    ground = describe_ground(grid)
    return {
        "height": grid.height,
        "width": grid.width,
        "cell": cell,
        "rows": rows,
        "cols": cols,
        "aspect": ground["aspect"],
        "pixel_m": ground["pixel_m"],
        "place": describe_place(grid),
        "tile": TILE,
        "photos": "jpg",
        "levels": list(levels),
        "changes": list(changes),
    }


def draw_tiles(
    folder: Location,
    scene: Mapping[str, Read],
    shape: tuple[int, int],
    overview: "Overview",
    limits: tuple[Limits, Limits],
    threads: int = 1,
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write what is finer than the pictures of the whole scene.

    Args:
        folder: Where tiles go.
        scene: See :func:`cdpipe.report.scene.open_scene`.
        shape: Rows and columns of the scene.
        overview: Its pictures.
        limits: How bright each date is shown.
        threads: How many share the work.

    Returns:
        Sizes in bytes by file name, and the levels, see :func:`cdpipe.report.pyramid.write_pyramid`.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    changed = overview.changed > 0 if overview.labelled is None else (overview.changed > 0) | (overview.labelled > 0)
    pyramid = Pyramid(folder, shape, scene, limits, near_change(changed, overview.cell))
    levels = write_pyramid(pyramid, overview.cell, threads)
    return pyramid.files, levels


def remove_others(folder: Location, names: Collection[str]) -> None:
    """Remove pictures that are not among the named: of changes that are among the best no more, of other tiles."""
    for path, _ in folder.walk():
        if path.suffix in (".jpg", ".webp") and path.relative_to(folder) not in names:
            path.unlink()


@dataclass(slots=True)
class Overview:
    """A pair in square cells of ``cell`` pixels.

    Attributes:
        cell: Side of a cell in pixels.
        dates: (band, rows, cols) of both dates, means of observed pixels, NaN where none is.
        probability: Mean of the ensemble's, NaN where none is.
        observed: Share of the cell's pixels observed at both dates.
        changed: Share of these that changed.
        outcomes: Share of the cell that is a hit, a miss, ..., as ``drawing.OUTCOMES`` numbers them; empty without.
        labelled: Share of the cell that is labelled as changed; None without label.
        figures: Pixels and square metres (None where not known) observed and changed, and pixels of each outcome.
    """

    cell: int
    dates: tuple[Cells, Cells]
    probability: Cells
    observed: Cells
    changed: Cells
    outcomes: dict[int, Cells] = field(default_factory=dict)
    labelled: Cells | None = None
    figures: dict[str, float | None] = field(default_factory=dict)


def read_overview(
    workspace: Workspace,
    pair: StoredPair,
    change_key: str,
    label_key: str | None,
    max_side: int = MAX_SIDE,
    threads: int = 1,
) -> Overview:
    """Read a whole pair once, window by window, into cells.

    Neither blocks nor their order bear on the result, and memory does not grow with the scene.

    Args:
        workspace: Where the pair lies.
        pair: The pair.
        change_key: Key of its change.
        label_key: Key of its label, None without one.
        max_side: Largest number of rows and columns of cells.
        threads: How many share the work.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    scene = open_scene(workspace, pair, change_key, label_key)
    cell = cell_side(pair.grid.shape, max_side)
    sums, rows = _sum_scene(scene, pair.grid, cell, threads)
    pixels = sums.pop("pixels")
    return Overview(
        cell,
        (mean_of(sums["before"], sums["seen_before"]), mean_of(sums["after"], sums["seen_after"])),
        mean_of(sums["probability"], sums["observed"]),
        sums["observed"] / pixels,
        np.nan_to_num(mean_of(sums["changed"], sums["observed"])),
        {number: sums[name] / pixels for number, name in drawing.OUTCOMES.items() if name in sums},
        sums["labelled"] / pixels if "labelled" in sums else None,
        _count(rows, pair.grid) | {name: float(sums[name].sum()) for name in drawing.OUTCOMES.values() if name in sums},
    )


def _sum_scene(
    scene: Mapping[str, Read], grid: Grid, cell: int, threads: int
) -> tuple[dict[str, Cells], dict[str, Cells]]:
    """Sums of whatever is counted over each cell, and of what is in the figures over each row of pixels."""
    rows, lock = {name: np.zeros(grid.height) for name in COUNTED}, threading.Lock()

    def read(window: Window) -> dict[str, NDArray[Any]]:
        summands = _summands(scene, window)
        counted = {name: summands[name].sum(axis=1) for name in rows}
        with lock:
            for name, counts in rows.items():
                counts[window.slices[0]] += counted[name]
        return summands

    return shrink(read, grid.shape, cell, threads=threads), rows


def _count(rows: dict[str, Cells], grid: Grid) -> dict[str, float | None]:
    """Pixels and ground observed and changed."""
    areas = row_areas(grid) if has_areas(grid) else None
    metres = {f"{name}_m2": None if areas is None else float(counts @ areas) for name, counts in rows.items()}
    return {**{f"{name}_px": float(counts.sum()) for name, counts in rows.items()}, **metres}


def _summands(scene: Mapping[str, Read], window: Window) -> dict[str, NDArray[Any]]:
    """What is summed of a window: values where they count and 0 elsewhere, or True where something is so."""
    valid, change = scene["valid"](window), scene["change"](window)
    probability = scene["probability"](window)
    summands: dict[str, NDArray[Any]] = {
        "pixels": np.ones(window.shape, np.bool_),
        "observed": change != NOT_OBSERVED,
        "changed": change == CHANGED,
        "probability": np.where(change != NOT_OBSERVED, np.nan_to_num(probability), 0),
    }
    for date, bit in BITS:
        seen = valid & bit > 0
        summands |= {date: np.where(seen, np.nan_to_num(scene[date](window)), 0), f"seen_{date}": seen}
    if "label" in scene:
        label = scene["label"](window)
        outcome = drawing.compare_with_label(change, label)
        summands |= {name: outcome == number for number, name in drawing.OUTCOMES.items()} | {
            "labelled": label == CHANGED
        }
    return summands


def shown_limits(overview: Overview) -> tuple[Limits, Limits]:
    """How bright each date is shown."""
    before, after = (drawing.stretch_limits(date, ~_unseen(date)) for date in overview.dates)
    return before, after


def _unseen(cells: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isnan(cells).any(axis=0))


def _draw_images(folder: Location, overview: Overview, limits: tuple[Limits, Limits], aspect: float) -> dict[str, int]:
    """Write every picture, as wide and high as the ground is; sizes in bytes by file name."""
    pictures = draw_overview(overview, limits)
    images = {}
    for layer, picture in pictures.items():
        name, write = f"{layer}{suffix_of(layer)}", write_photo if layer in PHOTOS else write_overlay
        images[name] = write(folder / name, drawing.to_ground(picture, aspect))
    missing = overview.observed == 0
    thumb = drawing.hatch(drawing.blend(drawing.pale_map(pictures["after"]), pictures["change"]), missing)
    for name, image in (("thumb", thumb), ("thumb-before", pictures["before"]), ("thumb-after", pictures["after"])):
        small = _thumbnail(drawing.to_ground(image, aspect))
        images[f"{name}.jpg"] = write_photo(folder / f"{name}.jpg", small, SMALL)
    return images


def draw_overview(overview: Overview, limits: tuple[Limits, Limits]) -> dict[str, NDArray[np.uint8]]:
    """Pictures of the whole scene, by name: (rows, cols, 3) of the dates and the probability, overlays of 4."""
    missing = overview.observed == 0
    dates = {
        name: drawing.hatch(drawing.stretch_between(date, limit), _unseen(date))
        for name, date, limit in zip(("before", "after"), overview.dates, limits, strict=True)
    }
    changed = drawing.lay_over({CHANGED: overview.changed}, {CHANGED: palette.CHANGED})
    pictures = {**dates, "probability": drawing.hatch(drawing.probability_colors(overview.probability), missing)}
    pictures["change"] = changed
    if overview.labelled is not None:
        pictures["label"] = drawing.lay_over({CHANGED: overview.labelled}, {CHANGED: palette.LABELLED})
        pictures["outcomes"] = drawing.lay_over(overview.outcomes, drawing.OUTCOME_COLORS)
    return pictures


def _thumbnail(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = THUMB / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST))


def _observed_scene(job: PairJob) -> dict[str, Read]:
    """Pixels of both dates and of the probability, NaN where not observed."""
    scene = open_scene(job.workspace, job.pair, job.change_key, None)

    def observed(date: str, bit: np.uint8) -> Read:
        return lambda window: np.where(scene["valid"](window) & bit > 0, scene[date](window).astype(np.float64), np.nan)

    return {"probability": scene["probability"]} | {date: observed(date, bit) for date, bit in BITS}
