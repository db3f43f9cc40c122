"""What the report shows of one pair: read once into cells, drawn as files, its figures and best changes as facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.geo.crs import on_earth
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.ground import has_areas, pixel_steps, row_areas
from cdpipe.keys import content_key
from cdpipe.metrics.classes import CHANGED, NOT_OBSERVED
from cdpipe.report import drawing
from cdpipe.report.changes import read_top_changes, write_chip
from cdpipe.report.drawing import Image, Limits, write_overlay, write_photo
from cdpipe.report.scene import Cells, Read, cell_side, mean_of, open_scene, shrink
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, DATES, StoredPair
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

THUMB = 176  # longest side of a thumbnail, in pixels
FACTS = "facts.json"
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
    """

    workspace: Workspace
    run: str
    folder: Location
    pair: StoredPair
    label_key: str | None
    change_key: str
    objects: tuple[Location, str] | None
    doubt_at: float | None = None

    @property
    def key(self) -> str:
        """Content key of the pictures and facts."""
        parts = {
            "run": self.run,
            "pair": self.pair.key,
            "label": self.label_key,
            "change": self.change_key,
            "objects": self.objects and self.objects[1],
        }
        return content_key("report", parts | ({} if self.doubt_at is None else {"doubt_at": self.doubt_at}))

    @property
    def facts(self) -> Location:
        """File of the pair's facts, as JSON: what :func:`read_facts` gives."""
        return self.folder / FACTS


def read_facts(job: PairJob) -> dict[str, Any]:
    """What :func:`make_pair` found: ``size``, ``figures``, ``images``, ``objects`` and what a scale needs."""
    found: dict[str, Any] = read_json(job.facts)
    return found


def make_pair(job: PairJob) -> dict[Location, str]:
    """Draw a pair's pictures and write down its facts.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    overview = read_overview(job.workspace, job.pair, job.change_key, job.label_key)
    limits = _limits(overview)
    images = _draw_images(job.folder, overview, limits)
    objects = []
    if job.objects is not None:
        scene = _observed_scene(job)
        for top in read_top_changes(job.objects[0], job.pair.grid, doubt_at=job.doubt_at):
            name = f"change-{top.id}.webp"
            images[name] = write_chip(job.folder / name, top, job.pair.grid, scene, limits)
            objects.append({**top.to_json(), "chip": name})
    for other in job.folder.glob("*.webp"):
        if other.name not in images:
            other.unlink()  # of a change that is among the best no more
    facts = {
        "key": job.key,
        "size": list(job.pair.grid.shape),
        "cell": overview.cell,
        "cells": list(overview.observed.shape),
        **_on_ground(job.pair.grid),
        "labelled": job.label_key is not None,
        "figures": overview.figures,
        "images": images,
        "objects": objects,
    }
    write_json(job.facts, facts)
    return hash_stored([job.facts, *(job.folder / name for name in sorted(images))])


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
    workspace: Workspace, pair: StoredPair, change_key: str, label_key: str | None, max_side: int = MAX_SIDE
) -> Overview:
    """Read a whole pair once, a window after the other, into cells.

    Neither blocks nor their order bear on the result, and memory does not grow with the scene.

    Args:
        workspace: Where the pair lies.
        pair: The pair.
        change_key: Key of its change.
        label_key: Key of its label, None without one.
        max_side: Largest number of rows and columns of cells.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    scene = open_scene(workspace, pair, change_key, label_key)
    cell = cell_side(pair.grid.shape, max_side)
    sums, rows = _sum_scene(scene, pair.grid, cell)
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


def _sum_scene(scene: Mapping[str, Read], grid: Grid, cell: int) -> tuple[dict[str, Cells], dict[str, Cells]]:
    """Sums of whatever is counted over each cell, and of what is in the figures over each row of pixels."""
    rows = {name: np.zeros(grid.height) for name in COUNTED}

    def read(window: Window) -> dict[str, NDArray[Any]]:
        summands = _summands(scene, window)
        for name, counts in rows.items():
            counts[window.slices[0]] += summands[name].sum(axis=1)
        return summands

    return shrink(read, grid.shape, cell), rows


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


def _on_ground(grid: Grid) -> dict[str, float | None]:
    """Width of a pixel in metres, and where north is, in degrees clockwise from up; at the scene's centre."""
    if not on_earth(grid.crs):
        return {"pixel_m": None, "north": None}
    steps = pixel_steps(grid, grid.height / 2, grid.width / 2)
    down, right = np.linalg.solve(steps.T, (0.0, 1.0))  # how many rows and columns lead north
    angle = np.degrees(np.arctan2(right, -down))
    return {"pixel_m": float(np.hypot(*steps[1])), "north": round(float(angle), 1) + 0.0}  # no -0.0


def _limits(overview: Overview) -> tuple[Limits, Limits]:
    before, after = (drawing.stretch_limits(date, ~_unseen(date)) for date in overview.dates)
    return before, after


def _unseen(cells: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isnan(cells).any(axis=0))


def _draw_images(folder: Location, overview: Overview, limits: tuple[Limits, Limits]) -> dict[str, int]:
    """Write every picture; sizes in bytes by file name."""
    missing = overview.observed == 0
    dates = {
        name: drawing.hatch(drawing.stretch_between(date, limit), _unseen(date))
        for name, date, limit in zip(("before", "after"), overview.dates, limits, strict=True)
    }
    changed = drawing.lay_over({CHANGED: overview.changed}, {CHANGED: palette.CHANGED})
    thumb = drawing.hatch(drawing.blend(drawing.pale_map(dates["after"]), changed), missing)
    images = {f"{name}.webp": write_photo(folder / f"{name}.webp", image) for name, image in dates.items()}
    probability = drawing.hatch(drawing.probability_colors(overview.probability), missing)
    images["probability.webp"] = write_photo(folder / "probability.webp", probability)
    overlays = {"change": changed}
    if overview.labelled is not None:
        overlays["label"] = drawing.lay_over({CHANGED: overview.labelled}, {CHANGED: palette.LABELLED})
        overlays["outcomes"] = drawing.lay_over(overview.outcomes, drawing.OUTCOME_COLORS)
    for name, overlay in overlays.items():
        images[f"{name}.webp"] = write_overlay(folder / f"{name}.webp", overlay)
    for name, image in (("thumb", thumb), ("thumb-before", dates["before"]), ("thumb-after", dates["after"])):
        images[f"{name}.webp"] = write_photo(folder / f"{name}.webp", _thumbnail(image), 70)
    return images


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
