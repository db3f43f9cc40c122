"""What the report shows of one pair: its pictures as files, its figures and best changes as facts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.formats import palette
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.ground import pixel_steps
from cdpipe.keys import content_key
from cdpipe.report import drawing
from cdpipe.report.changes import read_top_changes, write_chip
from cdpipe.report.drawing import Image, Limits, write_layer, write_photo
from cdpipe.report.overview import Overview, Read, colours, read_overview
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import AFTER_BIT, BEFORE_BIT, StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import hash_file, read_sealed, write_sealed

THUMB = 176  # longest side of a thumbnail, in pixels
FACTS = "facts.json"


@dataclass(frozen=True, slots=True)
class PairJob:
    """The pictures of one pair.

    Attributes:
        workspace: The store.
        folder: Where its pictures go.
        pair: The pair.
        label_key: Key of its label, None without one.
        change_key: Key of its change.
        objects: File of its change objects, None where there is none.
    """

    workspace: Workspace
    folder: Path
    pair: StoredPair
    label_key: str | None
    change_key: str
    objects: Path | None

    @property
    def key(self) -> str:
        """Content key of the pictures and facts."""
        objects = hash_file(self.objects) if self.objects else None
        return content_key(
            "report", {"pair": self.pair.key, "label": self.label_key, "change": self.change_key, "objects": objects}
        )


def make_pair(job: PairJob) -> dict[str, Any]:
    """Draw a pair's pictures and give its facts; those that are there already are left alone.

    Returns:
        JSON values: ``size``, ``figures``, ``images`` (bytes by file), ``objects`` and what a scale needs.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    path, key = job.folder / FACTS, job.key
    facts = read_sealed(path)
    if facts and facts["key"] == key and all((job.folder / name).is_file() for name in facts["images"]):
        return facts
    path.unlink(missing_ok=True)
    overview = read_overview(job.workspace, job.pair, job.change_key, job.label_key)
    limits = _limits(overview)
    images = _draw_layers(job.folder, overview, limits)
    objects = []
    if job.objects is not None:
        read = _readers(job)
        for top in read_top_changes(job.objects, job.pair.grid):
            name = f"change-{top.id}.webp"
            images[name] = write_chip(job.folder / name, top, job.pair.grid, read, limits)
            objects.append({**top.to_json(), "chip": name})
    for other in job.folder.glob("*.webp"):
        if other.name not in images:
            other.unlink()  # of a change that is among the best no more
    facts = {
        "key": key,
        "size": list(job.pair.grid.shape),
        "cell": overview.cell,
        "cells": list(overview.observed.shape),
        **_on_ground(job.pair.grid),
        "labelled": job.label_key is not None,
        "figures": overview.figures,
        "images": images,
        "objects": objects,
    }
    write_sealed(path, facts)
    return facts


def _on_ground(grid: Grid) -> dict[str, float | None]:
    """Width of a pixel in metres, and where north is, in degrees clockwise from up; at the scene's centre."""
    if grid.crs is None:
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


def _draw_layers(folder: Path, overview: Overview, limits: tuple[Limits, Limits]) -> dict[str, int]:
    """Write every layer; sizes in bytes by file name."""
    missing = overview.observed == 0
    dates = {
        name: drawing.hatch(drawing.stretch_between(date, limit), _unseen(date))
        for name, date, limit in zip(("before", "after"), overview.dates, limits, strict=True)
    }
    changed = {1: overview.changed}
    thumb = drawing.hatch(_lay(drawing.pale_map(dates["after"]), changed), missing)
    images = {f"{name}.webp": write_photo(folder / f"{name}.webp", image) for name, image in dates.items()}
    probability = drawing.hatch(drawing.probability_colors(overview.probability), missing)
    images["probability.webp"] = write_photo(folder / "probability.webp", probability)
    layers = {"change": drawing.layer_over(changed, {1: palette.CHANGED})}
    if overview.labelled is not None:
        layers["label"] = drawing.layer_over({1: overview.labelled}, {1: palette.LABELLED})
        layers["outcomes"] = drawing.layer_over(overview.outcomes, drawing.OUTCOMES)
    for name, layer in layers.items():
        images[f"{name}.webp"] = write_layer(folder / f"{name}.webp", layer)
    for name, image in (("thumb", thumb), ("thumb-before", dates["before"]), ("thumb-after", dates["after"])):
        images[f"{name}.webp"] = write_photo(folder / f"{name}.webp", _thumbnail(image), 70)
    return images


def _lay(image: Image, shares: dict[int, Any]) -> Image:
    """Imagery with changed cells painted over it."""
    layer = drawing.layer_over(shares, {1: palette.CHANGED})
    opacity = layer[..., 3:] / 255
    return np.rint(layer[..., :3] * opacity + image * (1 - opacity)).astype(np.uint8)


def _thumbnail(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = THUMB / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST))


def _readers(job: PairJob) -> dict[str, Read]:
    """Pixels of both dates as colours, and of the probability, NaN where not observed."""
    stored = job.workspace.group("pairs", job.pair.pair_id, job.pair.key)
    change = job.workspace.group("changes", job.pair.pair_id, job.change_key)

    def date(name: str, bit: np.uint8) -> Read:
        def read(window: Window) -> NDArray[Any]:
            seen = read_window(open_layer(stored, "valid"), window) & bit > 0
            bands = read_window(open_layer(stored, name), window)[colours(job.pair.roles)]
            return np.where(seen, bands.astype(np.float64), np.nan)

        return read

    return {
        "before": date("before", BEFORE_BIT),
        "after": date("after", AFTER_BIT),
        "probability": lambda window: read_window(open_layer(change, "probability"), window),
    }
