"""Submissions made up for tests, and the format in plain NumPy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from project import Project, array

Mask = NDArray[np.uint8]
MASKS = {"small": "1 3 41 7", "row": ""}  # of the smallest pairs of a project, 40 x 53 and 1 x 77 pixels


def changes(project: Project) -> dict[str, Mask]:
    """The run's change of every pair, 255 where not observed."""
    pairs = project.manifest.pairs
    return {pair.pair_id: array(project, "changes", pair.pair_id, pair.change, "change") for pair in pairs}


def plain_text(mask: NDArray[Any]) -> str:
    """The format in plain NumPy."""
    pixels = np.concatenate([[0], (mask == 1).T.flatten(), [0]]).astype(int)
    starts, stops = np.flatnonzero(np.diff(pixels) == 1) + 1, np.flatnonzero(np.diff(pixels) == -1) + 1
    return " ".join(f"{start} {stop - start}" for start, stop in zip(starts, stops, strict=True))


def write_rows(path: Path, rows: Mapping[str, str]) -> Path:
    """Write a submission whose masks are text."""
    path.write_text("Id,mask\n" + "".join(f"{name},{mask}\n" for name, mask in rows.items()), encoding="utf-8")
    return path


def write_masks(path: Path, masks: Mapping[str, Mask]) -> Path:
    """Write a submission."""
    return write_rows(path, {pair_id: plain_text(mask) for pair_id, mask in masks.items()})


def guesses(shapes: Mapping[str, tuple[int, int]], seed: int) -> dict[str, Mask]:
    """Masks of blotches made up for some pairs."""
    random = np.random.default_rng(seed)
    coarse = {name: random.random((-(-shape[0] // 9), -(-shape[1] // 9))) < 0.3 for name, shape in shapes.items()}
    return {name: np.kron(coarse[name], np.ones((9, 9)))[: s[0], : s[1]].astype(np.uint8) for name, s in shapes.items()}
